"""A lead is the fold of its own log: its state follows from its facts in the order of their positions.

`fold` is pure and starts from nothing. A late fact is inserted at its position and the lead is replayed; `derive_corrections` makes
events of what differs from what was published before, so that a consumer that applies them has the same history.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain
from typing import Any, cast
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace
from msgspec.structs import replace as replace_fields

from accord.contracts.base import LeadEvent
from accord.contracts.intake_events import LeadState
from accord.contracts.qualification_events import LeadDecided, LeadScored, LeadStageChanged, OpportunityUpdated
from accord.contracts.values import Attributes, AttributeValue
from qualification.lifecycle.domain.facts import (
    DECISION,
    ActivityOccurred,
    Decision,
    DecisionAccepted,
    Fact,
    LogPosition,
    MergeApplied,
    ProfileChanged,
)
from qualification.lifecycle.domain.lead import Lead
from qualification.lifecycle.domain.state_machine import LeadStateMachine, Versions

_REPLAY_TIME = datetime(1970, 1, 1, tzinfo=UTC)
"""`recorded_at` of entries as a fold makes them; what is published of them gets the unit of work's."""


class Log(Struct, frozen=True, gc=False):
    """One lead's own facts, in any order, and the version of the definition under which it entered, None if it has not.

    `reverted_merges` are no longer among the facts. `is_cut`: there are more activities than are loaded. A merged lead keeps its log. An
    erased one has none.
    """

    lead_id: UUID
    entry_version: int | None = None
    facts: tuple[Fact, ...] = ()
    reverted_merges: frozenset[UUID] = frozenset()
    is_cut: bool = False

    def with_fact(self, fact: Fact) -> Log:
        return replace(self, facts=(*self.facts, fact))

    def without_merge(self, merge_id: UUID) -> Log:
        """The log after a merge was reverted."""
        facts = tuple(fact for fact in self.facts if not (isinstance(fact, MergeApplied) and fact.merge_id == merge_id))
        return replace(self, facts=facts, reverted_merges=self.reverted_merges | {merge_id})


Logs = Mapping[UUID, Log]
"""The logs of a lead and of all that were merged into it."""


class ProposedDecision(Struct, frozen=True, gc=False):
    """A decision that somebody proposes, at its position: it is accepted if the stage of that moment allows it."""

    at: datetime
    decision: Decision

    @property
    def position(self) -> LogPosition:
        return LogPosition(self.at, DECISION, self.decision.decision_id)


class ReplayResult(Struct, frozen=True, gc=False):
    """The lead as its log makes it, its stage entries in order, and, of a proposed decision, where it led."""

    lead: Lead
    entries: tuple[LeadStageChanged, ...]
    accepted: DecisionAccepted | None = None
    decision_event: LeadDecided | None = None


def merge_group(lead_id: UUID, logs: Logs) -> tuple[UUID, ...]:
    """The lead and all that were merged into it, whose logs a fold of it needs; those not in `logs` are among them."""
    found = [lead_id]
    for member in found:
        log = logs.get(member)
        for fact in log.facts if log else ():
            if isinstance(fact, MergeApplied) and fact.merged_lead_id not in found:
                found.append(fact.merged_lead_id)
    return tuple(found)


def survivor_at(lead_id: UUID, logs: Logs, at: datetime) -> UUID:
    """The lead that this one was part of at a moment: itself, or the one that it had been merged into by then."""
    into = {
        fact.merged_lead_id: (log.lead_id, fact.at)
        for log in logs.values()
        for fact in log.facts
        if isinstance(fact, MergeApplied)
    }
    seen = {lead_id}
    while lead_id in into and into[lead_id][1] <= at and into[lead_id][0] not in seen:
        lead_id = into[lead_id][0]
        seen.add(lead_id)
    return lead_id


def ordered_facts(lead_id: UUID, logs: Logs, seen: frozenset[UUID] = frozenset()) -> list[Fact]:
    """The facts of a lead in order: its own, and the activities of leads that were merged into it, since their merge."""
    log = logs.get(lead_id)
    if log is None:
        return []
    seen |= {lead_id}
    facts = list(log.facts)
    for fact in log.facts:
        if isinstance(fact, MergeApplied) and fact.merged_lead_id not in seen:
            place = fact.position
            theirs = ordered_facts(fact.merged_lead_id, logs, seen)
            facts += [done for done in theirs if isinstance(done, ActivityOccurred) and done.position > place]
    facts.sort(key=_position)
    return _with_effective_profiles(facts)


def fold(
    lead_id: UUID,
    logs: Logs,
    versions: Versions,
    *,
    until: datetime | None = None,
    before: LogPosition | None = None,
    proposed: ProposedDecision | None = None,
    now: datetime = _REPLAY_TIME,
    seen: frozenset[UUID] = frozenset(),
) -> ReplayResult:
    """The lead from zero, with what time alone brought about until `until`.

    `before` leaves out facts from that position on. A `proposed` decision is judged at its position, by the version and the stage of
    then; raises decisions.Refused.
    """
    log = logs.get(lead_id) or Log(lead_id)
    rules = None if log.entry_version is None else versions[log.entry_version]
    machine = LeadStateMachine(Lead(lead_id), rules, versions, now, replaying=True)
    facts: list[Fact | ProposedDecision] = [
        fact for fact in ordered_facts(lead_id, logs, seen) if before is None or fact.position < before
    ]
    if proposed is not None:
        facts.append(proposed)
        facts.sort(key=_position)
    accepted: DecisionAccepted | None = None
    for fact in facts:
        if isinstance(fact, ProposedDecision):
            machine.advance_time(fact.at)
            target = machine.allowed_target(fact.decision)
            accepted = DecisionAccepted(fact.at, fact.decision, target.key, machine.rules.version)
            machine.apply(accepted)
        elif isinstance(fact, MergeApplied) and fact.merged_lead_id not in seen:
            within = seen | {lead_id}
            other = fold(fact.merged_lead_id, logs, versions, until=fact.at, before=fact.position, seen=within)
            machine.apply(fact, other.lead)
        else:
            machine.apply(fact)
    if until is not None:
        machine.advance_time(until)
    entries = tuple(event for event in machine.events if isinstance(event, LeadStageChanged))
    decision_event = next(
        (event for event in machine.events if isinstance(event, LeadDecided) and _is_of(event, accepted)), None
    )
    return ReplayResult(machine.build_lead(), entries, accepted, decision_event)


def _is_of(event: LeadDecided, accepted: DecisionAccepted | None) -> bool:
    return accepted is not None and event.decision_id == accepted.decision.decision_id


def _position(fact: Fact | ProposedDecision) -> LogPosition:
    return fact.position


# --- Late profiles ---

_ATTRIBUTE = "attributes."
_WHOLE = ("account_id", "campaign", "external_keys", "verdict", "policy_version", "quality_score")


def _with_effective_profiles(facts: list[Fact]) -> list[Fact]:
    """The same facts, each profile as it was at its position.

    Intake publishes each profile whole, as it was then. One that is published late for an earlier moment therefore holds values of
    later submissions; what belongs to its own moment is where it differs from the profile published before it. So each field has the
    value published last among those whose moment has come.
    """
    profiles = [fact for fact in facts if isinstance(fact, ProfileChanged | MergeApplied)]
    sequences = [fact.sequence for fact in profiles]
    if sequences == sorted(sequences):
        return facts
    changes: dict[int, dict[str, object]] = {}
    before: dict[str, object] = {}
    for fact in sorted(profiles, key=lambda fact: fact.sequence):
        values = _values(fact.state)
        changes[fact.sequence] = {
            name: values.get(name) for name in values.keys() | before.keys() if values.get(name) != before.get(name)
        }
        before = values
    latest = max(profiles, key=lambda fact: fact.sequence).state
    present: dict[str, tuple[int, object]] = {}
    found: list[Fact] = []
    for each in facts:
        if not isinstance(each, ProfileChanged | MergeApplied):
            found.append(each)
            continue
        for name, value in changes[each.sequence].items():
            if name not in present or present[name][0] < each.sequence:
                present[name] = (each.sequence, value)
        state = _build_state(latest, {name: value for name, (_, value) in present.items()})
        found.append(replace(each, state=state))
    return found


def _values(state: LeadState) -> dict[str, object]:
    values: dict[str, object] = {_ATTRIBUTE + name: value for name, value in state.attributes.items()}
    return values | {name: getattr(state, name) for name in _WHOLE}


def _build_state(like: LeadState, values: Mapping[str, object]) -> LeadState:
    attributes: Attributes = {
        name.removeprefix(_ATTRIBUTE): cast("AttributeValue", value)
        for name, value in values.items()
        if name.startswith(_ATTRIBUTE) and value is not None
    }
    whole: dict[str, Any] = {name: values[name] for name in _WHOLE if values.get(name) is not None}
    named: dict[str, Any] = {"source": like.source, "captured_at": like.captured_at, "verdict": like.verdict, **whole}
    return LeadState(**named, attributes=attributes)


# --- Corrections ---


def effective_entries(events: Iterable[LeadStageChanged]) -> list[LeadStageChanged]:
    """The entries that are in effect of all that were published, in order.

    This is all that a consumer has to do to follow corrections: an entry that is withdrawn goes, one that replaces another takes its
    place, one that `follows` another is put after it, and any other comes last.
    """
    return apply_corrections([], events)


def apply_corrections(
    entries: Sequence[LeadStageChanged], events: Iterable[LeadStageChanged]
) -> list[LeadStageChanged]:
    """The entries that are in effect after these events, which are in the order of their sequence."""
    entries = list(entries)
    place = 0
    for event in events:
        if event.replaces is not None:
            place = _index_of(entries, event.replaces, place)
            entries[place : place + 1] = [] if event.withdrawn else [event]
        elif event.follows is not None:
            place = _index_of(entries, event.follows, place) + 1 if event.follows else 0
            entries.insert(place, event)
        else:
            entries.append(event)
    return entries


def _index_of(entries: Sequence[LeadStageChanged], sequence: int, near: int) -> int:
    """Corrections come in the order of what they correct, so the next one is looked for from the last one on."""
    places = chain(range(max(near - 1, 0), len(entries)), range(near))
    return next(place for place in places if entries[place].sequence == sequence)


def derive_corrections(
    before: Lead, replayed: ReplayResult, current: Sequence[LeadStageChanged], now: datetime
) -> tuple[Lead, tuple[LeadEvent, ...]]:
    """The replayed lead, and the events of the difference to the current entries: first the decision, then withdrawn entries, then the
    others in their order; scores and deal only as they are now."""
    made, builder = replayed.lead, _CorrectionBuilder(before.sequence, now, replayed.lead.stage)
    if replayed.decision_event is not None:
        builder.emit(replayed.decision_event, correction=_is_backdated(replayed, current))
    if made.scores is not None and made.scores != before.scores:
        builder.emit(_scored_event(made))
    builder.entries(current, replayed.entries)
    if made.stage and (made.deal.amount, made.deal.expected_close) != (before.deal.amount, before.deal.expected_close):
        builder.emit(_opportunity_event(made))
    lead = replace(
        made,
        sequence=builder.sequence,
        revision=before.revision,
        merged_into=before.merged_into,
        erased=before.erased,
        owner=made.owner if made.owner is not None else before.owner,
        definition_version=made.definition_version or before.definition_version,
    )
    return lead, tuple(builder.events)


def _is_backdated(replayed: ReplayResult, current: Sequence[LeadStageChanged]) -> bool:
    """Whether the proposed decision led somewhere before entries that are in effect already."""
    pairs = _match_entries(current, replayed.entries)
    decision_id = replayed.decision_event.decision_id if replayed.decision_event else None
    place = next(
        (number for number, entry in enumerate(replayed.entries) if entry.decision_id == decision_id), len(pairs)
    )
    return any(match is not None for number, match in pairs.items() if number > place)


class _CorrectionBuilder:
    """Numbers the events of one lead. Lives for one `derive_corrections`."""

    def __init__(self, sequence: int, now: datetime, present_stage: str | None) -> None:
        self.sequence = sequence
        self._correction_fields: dict[str, object] = {"correction": True, "present_stage": present_stage}
        self.events: list[LeadEvent] = []
        self._now = now

    def emit(self, event: LeadEvent, **changes: object) -> int:
        """Emit an event under the next sequence, which is returned."""
        self.sequence += 1
        numbered = {**changes, "sequence": self.sequence, "recorded_at": self._now}
        self.events.append(replace_fields(event, **numbered))
        return self.sequence

    def entries(self, current: Sequence[LeadStageChanged], made: Sequence[LeadStageChanged]) -> None:
        """Emit what turns the current entries into the replayed ones."""
        pairs = _match_entries(current, made)
        kept = {number for number in pairs.values() if number is not None}
        for number, entry in enumerate(current):
            if number not in kept:
                self.emit(entry, **self._correction_fields, withdrawn=True, replaces=entry.sequence, follows=None)
        left, previous = len(kept), 0
        for number, entry in enumerate(made):
            match = pairs[number]
            if match is None:
                correction_fields = {**self._correction_fields, "follows": previous} if left else {}
                previous = self.emit(entry, **correction_fields)
                continue
            left -= 1
            previous = current[match].sequence
            if _content(current[match]) != _content(entry):
                previous = self.emit(entry, **self._correction_fields, replaces=previous)


def _scored_event(lead: Lead) -> LeadScored:
    if lead.scores is None or lead.position is None or lead.applied_version is None:
        raise AssertionError("a lead with scores has entered")
    return LeadScored(
        lead_id=lead.lead_id,
        sequence=1,
        occurred_at=lead.position.at,
        recorded_at=_REPLAY_TIME,
        definition_version=lead.applied_version,
        fit=lead.scores.fit,
        engagement=lead.scores.engagement,
        grade=lead.scores.grade,
    )


def _opportunity_event(lead: Lead) -> OpportunityUpdated:
    return OpportunityUpdated(
        lead_id=lead.lead_id,
        sequence=1,
        occurred_at=lead.position.at if lead.position else _REPLAY_TIME,
        recorded_at=_REPLAY_TIME,
        stage=lead.stage or "",
        amount=lead.deal.amount,
        expected_close=lead.deal.expected_close,
    )


def _identity(entry: LeadStageChanged) -> tuple[str, str, UUID | None]:
    """What makes an entry the same one, though its time or number may be corrected."""
    return entry.stage, "" if entry.cause in ("automatic", "definition") else entry.cause, entry.decision_id


def _content(entry: LeadStageChanged) -> tuple[object, ...]:
    return (
        *_identity(entry),
        entry.cause,
        entry.occurred_at,
        entry.visit,
        entry.from_stage,
        entry.from_since,
        entry.definition_version,
        entry.stage_kind,
        entry.stage_rank,
        entry.stage_owner,
    )


def _match_entries(old: Sequence[LeadStageChanged], new: Sequence[LeadStageChanged]) -> dict[int, int | None]:
    """For each new entry the old one that it is, if any: those that both begin with, and those that both end with."""
    old_ids, new_ids = [_identity(entry) for entry in old], [_identity(entry) for entry in new]
    shorter = min(len(old), len(new))
    start = next((n for n in range(shorter) if old_ids[n] != new_ids[n]), shorter)
    rest = shorter - start
    end = next((n for n in range(rest) if old_ids[-1 - n] != new_ids[-1 - n]), rest)
    shift, after = len(old) - len(new), len(new) - end
    return {n: n if n < start else n + shift if n >= after else None for n in range(len(new))}
