"""How a lead moves: `decide(lead, event, rules, now)` gives the new state and what there is to say of it. Pure; it refuses and
never guesses.

A lead has a clock of its own, the latest moment at which its gates were tried; it follows the times at which things
occurred, so that history which is reported late or imported enters its stages at its true times, and it never runs
backwards. Automatic gates lead forward (or out of a recycled stage, after the cool-down, on new activity of the lead
itself); back it goes only by a decision.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from accord.contracts.criteria import Leaf
from accord.contracts.intake_events import (
    ActivityRecorded,
    LeadCaptured,
    LeadErased,
    LeadMerged,
    LeadState,
    LeadUpdated,
)
from qualification.domain.decisions import Decided, target_of
from qualification.domain.lead import NO_ACTIVITIES, Deal, Lead, microseconds
from qualification.domain.rules import Rules
from qualification.domain.scoring import LeadFacts, scores
from qualification.domain.way import Outcome, Way


@dataclass(frozen=True, slots=True)
class Merged:
    """A merge, with what was known of the lead that is merged into this one."""

    event: LeadMerged
    merged: Lead | None


@dataclass(frozen=True, slots=True)
class DefinitionArrived:
    """A definition is in force now, and this lead has no stage yet."""


Event = LeadCaptured | LeadUpdated | ActivityRecorded | LeadErased | Merged | Decided | DefinitionArrived


def decide(lead: Lead | None, event: Event, rules: Rules | None, now: datetime) -> Outcome:
    """The lead after `event` under the definition in force (None: there is none), and the events to publish.

    `now` is the time of the recording. Raises decisions.Refused, for a decision only. A profile older than the one that is
    known is passed over.
    """
    if isinstance(event, Decided):
        return _decided(lead, event, rules, now)
    if isinstance(event, LeadErased):
        return Outcome(replace(_stripped(lead or Lead(event.lead_id)), erased=True))
    if lead is not None and lead.erased:
        return Outcome(lead)
    return _told(lead, event, rules, now)


def absorbed(merged: Lead | None, merged_lead_id: UUID, survivor_id: UUID) -> Lead:
    """What remains under the id of a lead that was merged into another: a pointer, and its history."""
    return replace(_stripped(merged or Lead(merged_lead_id)), merged_into=survivor_id)


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


def _told(
    lead: Lead | None,
    event: LeadCaptured | LeadUpdated | ActivityRecorded | Merged | DefinitionArrived,
    rules: Rules | None,
    now: datetime,
) -> Outcome:
    if isinstance(event, ActivityRecorded):
        return _active(lead, event, rules, now)
    if isinstance(event, LeadCaptured | LeadUpdated):
        return _profiled(lead, event, rules, now)
    if isinstance(event, Merged):
        return _merged(lead, event, rules, now)
    return Outcome(lead) if lead is None or rules is None else _moved(lead, rules, now, now)


def _moved(
    lead: Lead, rules: Rules, now: datetime, occurred_at: datetime, new_interest_at: datetime | None = None
) -> Outcome:
    """Enter if the lead has not yet, else go on from where it stands."""
    way = Way(lead, rules, now)
    if lead.stage is None:
        way.enter()
    else:
        way.go_on(occurred_at, new_interest_at)
    return way.outcome()


def _profiled(lead: Lead | None, event: LeadCaptured | LeadUpdated, rules: Rules | None, now: datetime) -> Outcome:
    """A newer profile; the first of them is the lead's entry, whatever event brought it."""
    known = lead or Lead(event.lead_id)
    if known.profile is not None and event.sequence <= known.intake_sequence:
        return Outcome(known)
    newer = replace(known, profile=event.state, intake_sequence=event.sequence)
    return Outcome(newer) if rules is None else _moved(newer, rules, now, event.occurred_at)


def _active(lead: Lead | None, event: ActivityRecorded, rules: Rules | None, now: datetime) -> Outcome:
    """An activity. That of a lead which has not entered is kept in its table and counts when it does."""
    if lead is None or lead.profile is None or rules is None:
        return Outcome(lead)
    if event.kind in rules.kinds:
        lead = replace(lead, activities=lead.activities.with_one(event.kind, microseconds(event.occurred_at)))
    return _moved(lead, rules, now, event.occurred_at, event.occurred_at if event.by == "lead" else None)


def _merged(lead: Lead | None, event: Merged, rules: Rules | None, now: datetime) -> Outcome:
    """The survivor with the other's activities. Where the other had come further, the survivor goes on from there."""
    said, other = event.event, event.merged
    survivor = lead or Lead(said.lead_id)
    newer = survivor.profile is None or said.sequence > survivor.intake_sequence
    if survivor.lead_id == said.lead_id and newer:  # else it was itself merged on since, and has a profile of its own
        survivor = replace(survivor, profile=said.state, intake_sequence=said.sequence)
    if other is not None:
        survivor = replace(survivor, activities=survivor.activities.with_all_of(other.activities))
    if rules is None or survivor.profile is None:
        return Outcome(survivor)
    way = Way(survivor, rules, now)
    way.enter()
    if other is not None and not other.erased:
        way.take_over(other, said.occurred_at)
    way.go_on(said.occurred_at)
    return way.outcome()


def _decided(lead: Lead | None, event: Decided, rules: Rules | None, now: datetime) -> Outcome:
    in_force, target = target_of(lead, event, rules, now)
    if lead is None:
        raise AssertionError("target_of refuses a lead that is not there")
    way = Way(lead, in_force, now)
    way.follow(event, target)
    way.go_on(event.occurred_at, scored=False)  # a decision changes nothing that is scored
    return way.outcome()


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
        lead, profile=profile, deal=Deal(lead.deal.amount, lead.deal.expected_close), activities=NO_ACTIVITIES
    )
