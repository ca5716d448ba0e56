"""What a lead becomes apart from its way through the stages: merged away or erased; and why its gates are open or not. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from accord.contracts.criteria import Leaf
from accord.contracts.intake_events import LeadState
from qualification.domain.lead import NO_ACTIVITIES, Deal, Lead
from qualification.domain.rules import Rules
from qualification.domain.scoring import LeadFacts, scores


def absorbed(merged: Lead | None, merged_lead_id: UUID, survivor_id: UUID) -> Lead:
    """What remains under the id of a lead that was merged into another: a pointer, and its history."""
    return replace(_stripped(merged or Lead(merged_lead_id)), merged_into=survivor_id)


def erased(lead: Lead) -> Lead:
    """What remains of an erased person: counts."""
    return replace(_stripped(lead), erased=True)


def _stripped(lead: Lead) -> Lead:
    """Without its attributes; stage, visits and amounts stay as counts."""
    profile = lead.profile
    if profile is not None:
        profile = LeadState(
            source=profile.source,
            captured_at=profile.captured_at,
            verdict=profile.verdict,
            policy_version=profile.policy_version,
        )
    return replace(
        lead,
        profile=profile,
        deal=Deal(lead.deal.amount, lead.deal.expected_close),
        activities=NO_ACTIVITIES,
        due_at=None,
    )


@dataclass(frozen=True, slots=True)
class GateExplained:
    """An automatic gate: whether its criteria hold for a lead, and what each of them found."""

    stage: str
    holds: bool
    why: tuple[Leaf, ...]


def explain_gates(lead: Lead, rules: Rules, at: datetime) -> list[GateExplained]:
    """Every automatic gate of the definition, in order of rank, whichever stage the lead is in."""
    made = scores(lead.profile, lead.activities, rules, at)
    facts = LeadFacts(lead.profile, lead.activities, lead.stage, at, made)
    return [
        GateExplained(stage.key, stage.when.holds(facts), tuple(stage.when.explain(facts)))
        for stage in rules.stages.values()
        if stage.when is not None
    ]
