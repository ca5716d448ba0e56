"""Why the automatic gates of a lead are open or not. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta

from msgspec import Struct

from accord.terms.criteria import Leaf
from qualification.definition.domain.rules import Rules, StageRule
from qualification.lifecycle.domain.lead import Lead
from qualification.lifecycle.domain.scoring import LeadFacts, scores


class GateExplanation(Struct, frozen=True, gc=False):
    """An automatic gate: whether its criteria hold for a lead, what each of them found, and, in words, what keeps the lead from
    passing it whatever they say, if anything does."""

    stage: str
    holds: bool
    why: tuple[Leaf, ...]
    blocked_reason: str | None = None


def explain_gates(lead: Lead, rules: Rules, at: datetime) -> list[GateExplanation]:
    """Every automatic gate of the definition, in order of rank, whichever stage the lead is in."""
    made = scores(lead.profile, lead.activities, rules, at)
    facts = LeadFacts(lead.profile, lead.activities, lead.stage, at, made)
    return [
        GateExplanation(
            stage.key,
            stage.when.holds(facts),
            tuple(stage.when.explain(facts)),
            _blocked_reason(lead, stage, rules, at),
        )
        for stage in rules.stages.values()
        if stage.when is not None
    ]


def _blocked_reason(lead: Lead, gate: StageRule, rules: Rules, at: datetime) -> str | None:
    stage = rules.stages.get(lead.stage) if lead.stage else None
    if gate.key == lead.stage:
        return "the lead is in this stage"
    if gate not in rules.automatic_from.get(lead.stage or "", ()):
        origins = [key for key, gates in rules.automatic_from.items() if gate in gates]
        return f"by itself a lead comes here from {' or '.join(origins)}, and this one is in {lead.stage}"
    if stage is None or lead.stage_since is None:
        return None
    free_at = lead.stage_since + (stage.cool_down or timedelta())
    if stage.kind == "recycled":
        return f"it comes back only on an activity of its own from {_moment(free_at)} on"
    return f"it stays where it is until {_moment(free_at)}" if at < free_at else None


def _moment(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")
