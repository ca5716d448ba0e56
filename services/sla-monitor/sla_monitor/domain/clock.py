"""One clock: a clause running for one lead. Its outcome follows from what happened, in whatever order that becomes known.

A clock keeps two moments, the earliest answer and the earliest end of its scope, and both can only become earlier. So the
order in which facts arrive does not matter, and a late report corrects what was said before:

- the scope ended by the deadline, before any answer: cancelled;
- answered by the deadline: met;
- else, once everything recorded before the deadline has been read: breached, and met late if there is an answer at all.

A breach that a late report corrects is withdrawn, once, and then said to be met or cancelled.

Only the watermark of what was read decides that a deadline has passed, never the wall clock (see `fire`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Literal
from uuid import UUID

from accord.contracts.sla_events import (
    BreachWithdrawn,
    ClockAtRisk,
    ClockBreached,
    ClockCancelled,
    ClockEvent,
    ClockMet,
    ClockStarted,
)
from accord.contracts.values import Department, StageKind
from sla_monitor.domain.facts import Fact, FactKind
from sla_monitor.domain.rules import ClauseRule

ClockState = Literal["running", "met", "breached", "met_late", "cancelled"]

BACKFILL_AFTER = timedelta(hours=1)
"""A clock whose deadline lay further back than this when its start was recorded is imported history: it counts and
notifies nobody, since nobody could have kept it by then."""

MERGED = "the lead was merged into another"
TAKEN_BACK = "the merge that had brought it was taken back"

_MILLISECOND = timedelta(milliseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class WarnAt:
    """A fraction of the time, and when it has passed."""

    fraction: float
    at: datetime


@dataclass(frozen=True, slots=True)
class Trigger:
    """What started a clock. `sequence` is 0 where it was another lead's, merged into this one, or was put into the past."""

    kind: FactKind
    key: str
    sequence: int
    recorded_at: datetime
    stage_kind: StageKind | None = None
    cause: UUID | None = None

    @property
    def of_qualification(self) -> bool:
        return self.kind in ("decision", "stage", "assigned")

    def is_entry(self, sequence: int) -> bool:
        """Whether it is the stage entry that was said under a sequence."""
        return self.kind == "stage" and (self.sequence == sequence or self.key.endswith(f"#{sequence}"))


@dataclass(frozen=True, slots=True)
class Clock:
    """One clock, pinned to the version under which it started. `said` counts its events."""

    clock_id: UUID
    lead_id: UUID
    clause: str
    obliges: Department
    sla_version: int
    trigger: Trigger
    started_at: datetime
    due_at: datetime
    warnings: tuple[WarnAt, ...] = ()
    """Those that are still to be said."""
    backfill: bool = False
    owner: str | None = None
    source: str | None = None
    state: ClockState = "running"
    answered_at: datetime | None = None
    ended_at: datetime | None = None
    ended_sequence: int | None = None
    """Qualification's sequence of the first entry that ended the scope; what it tells after that answers nothing."""
    end: str | None = None
    """Why the scope ended."""
    breach_id: UUID | None = None
    breached_at: datetime | None = None
    """When the breach was recorded."""
    withdrawn_at: datetime | None = None
    said: int = 0

    @property
    def next_at(self) -> datetime | None:
        """The watermark has something to do here once it has passed this; None if never.

        Not before the start itself was recorded: what is older than that may not have been read.
        """
        if self.state != "running":
            return None
        first = min([self.due_at, *(warning.at for warning in self.warnings)])
        return max(first, self.trigger.recorded_at)


@dataclass(frozen=True, slots=True)
class Turn:
    """A clock after something, and what there is to say of it."""

    clock: Clock
    events: tuple[ClockEvent, ...] = ()


def start(rule: ClauseRule, version: int, lead_id: UUID, fact: Fact, now: datetime) -> Clock:
    """The clock that a fact starts, before anything else is known. Owner, source and events are added by the caller."""
    started_at = fact.occurred_at
    due_at = rule.deadline.due(started_at)
    return Clock(
        clock_id=named_id(now, str(lead_id), rule.key, fact.key),
        lead_id=lead_id,
        clause=rule.key,
        obliges=rule.obliges,
        sla_version=version,
        trigger=Trigger(fact.kind, fact.key, fact.sequence, fact.recorded_at, fact.stage_kind, fact.cause),
        started_at=started_at,
        due_at=due_at,
        warnings=_warnings(rule, started_at, due_at),
        backfill=due_at < fact.recorded_at - BACKFILL_AFTER,
        owner=fact.name if fact.kind == "assigned" else None,
    )


def begun(clock: Clock, now: datetime) -> Turn:
    """Say that the clock runs, and at once what is known of its outcome."""
    saying = _Saying(clock, now)
    saying.say(ClockStarted, clock.started_at)
    saying.settle()
    return saying.turn()


def effective_at(clock: Clock, fact: Fact) -> datetime | None:
    """When a fact counts for a clock; None if it was before the start.

    Qualification decides from the state that it has, so of two facts of its own the sequence tells which came first, also
    where a time was reported as earlier than that of the stage it was decided in: then it counts as of the start.
    """
    trigger = clock.trigger
    if fact.key == trigger.key:
        return None
    if fact.of_qualification and trigger.of_qualification and trigger.sequence and fact.sequence:
        return max(fact.occurred_at, clock.started_at) if fact.sequence > trigger.sequence else None
    return fact.occurred_at if fact.occurred_at >= clock.started_at else None


def with_fact(clock: Clock, rule: ClauseRule, fact: Fact) -> Clock:
    """The clock with a fact taken in, before it is settled."""
    return _with_answer(_with_entry(clock, rule, fact), rule, fact)


def with_facts(clock: Clock, rule: ClauseRule, facts: Sequence[Fact]) -> Clock:
    """The same for many, in any order: ends of the scope are looked at first."""
    for fact in facts:
        clock = _with_entry(clock, rule, fact)
    for fact in facts:
        clock = _with_answer(clock, rule, fact)
    return clock


def _with_entry(clock: Clock, rule: ClauseRule, fact: Fact) -> Clock:
    if fact.kind != "stage" or not _ends(clock, rule, fact):
        return clock
    at = effective_at(clock, fact)
    if at is None:
        return clock
    ended = _ended(clock, at, f"the lead entered {fact.name}")
    if not fact.sequence:
        return ended
    return replace(ended, ended_sequence=min(fact.sequence, clock.ended_sequence or fact.sequence))


def _with_answer(clock: Clock, rule: ClauseRule, fact: Fact) -> Clock:
    if not rule.answer.matches(fact) or _after_the_end(clock, fact):
        return clock
    at = effective_at(clock, fact)
    return clock if at is None else replace(clock, answered_at=min(at, clock.answered_at or at))


def with_end(clock: Clock, at: datetime, why: str) -> Clock:
    """The clock of a lead that is gone since a moment, before it is settled."""
    return _ended(clock, max(at, clock.started_at), why)


def never_started(clock: Clock) -> Clock:
    """The clock of an entry that was corrected away, before it is settled."""
    return replace(clock, answered_at=None, ended_at=clock.started_at, end="the entry that started it was corrected")


def anew(clock: Clock, rule: ClauseRule, facts: Sequence[Fact], merged: tuple[datetime, str] | None) -> Clock:
    """The clock as these facts alone make it, before it is settled: one of those before was corrected away."""
    warnings = clock.warnings if clock.state == "running" else _warnings_after(clock, rule)
    found = replace(clock, answered_at=None, ended_at=None, ended_sequence=None, end=None, warnings=warnings)
    found = with_facts(found, rule, facts)
    return found if merged is None else with_end(found, *merged)


def taken_back(clock: Clock) -> Clock:
    """The clock that a merged lead had brought, when the merge is taken back and that lead runs its own again; before it is settled."""
    return replace(clock, answered_at=None, ended_at=clock.started_at, ended_sequence=None, end=TAKEN_BACK)


def resumed(clock: Clock, rule: ClauseRule, facts: Sequence[Fact], end: tuple[datetime, str] | None = None) -> Clock:
    """A clock that a merge had ended, or the end of one, going on to the same deadline; before it is settled.

    `facts`: those of its lead; what has answered it stays. `end`: the other end that it has, if the lead is gone all the same.
    """
    found = replace(clock, ended_at=None, end=None, warnings=_warnings_after(clock, rule))
    found = with_facts(found, rule, facts)
    return found if end is None else with_end(found, *end)


def _warnings_after(clock: Clock, rule: ClauseRule) -> tuple[WarnAt, ...]:
    """The warnings that were still to come when the clock was settled; those before were said or overtaken."""
    settled_at = clock.ended_at or clock.answered_at or clock.started_at
    return tuple(warning for warning in _warnings(rule, clock.started_at, clock.due_at) if warning.at >= settled_at)


def _warnings(rule: ClauseRule, started_at: datetime, due_at: datetime) -> tuple[WarnAt, ...]:
    return tuple(WarnAt(part, rule.deadline.part(started_at, due_at, part)) for part in rule.warn_at)


def _ends(clock: Clock, rule: ClauseRule, fact: Fact) -> bool:
    trigger = clock.trigger
    if trigger.kind == "decision" and fact.cause is not None and fact.cause == trigger.cause:
        return False  # where the decision that started the clock led to
    return rule.ends_scope(fact, from_open_stage=trigger.stage_kind in (None, "open"))


def _after_the_end(clock: Clock, fact: Fact) -> bool:
    return fact.of_qualification and clock.ended_sequence is not None and fact.sequence > clock.ended_sequence


def _ended(clock: Clock, at: datetime, why: str) -> Clock:
    if clock.ended_at is not None and clock.ended_at <= at:
        return clock
    return replace(clock, ended_at=at, end=why)


def settle(before: Clock, after: Clock, now: datetime) -> Turn:
    """Say what follows from what was taken in since `before`."""
    saying = _Saying(after, now)
    earlier = before.answered_at is not None and before.answered_at != after.answered_at
    saying.settle(earlier_answer=earlier)
    return saying.turn()


def fire(clock: Clock, watermark: datetime, now: datetime, *, reassign: bool = False) -> Turn:
    """Say what the watermark brings: warnings, or the breach. `watermark`: all that was recorded before it has been read.

    A warning that is overtaken by the deadline is not said any more. `reassign`: the clause has the lead taken away when it is
    broken; not for imported history, in which nobody could have kept it.
    """
    if clock.state != "running":
        return Turn(clock)
    saying = _Saying(clock, now, reassign=reassign and not clock.backfill)
    if max(clock.due_at, clock.trigger.recorded_at) < watermark:
        saying.settle(passed=True)
    else:
        saying.warn(watermark)
    return saying.turn()


class _Saying:
    """One clock on its way through a change; numbers what is said of it. Lives for one call."""

    def __init__(self, clock: Clock, now: datetime, *, reassign: bool = False) -> None:
        self._clock = clock
        self._now = now
        self._reassign = reassign
        self._events: list[ClockEvent] = []

    def turn(self) -> Turn:
        return Turn(self._clock, tuple(self._events))

    def settle(self, *, passed: bool = False, earlier_answer: bool = False) -> None:
        """Move to the state that the facts give. `passed`: nothing recorded before the deadline is still to be read."""
        clock = self._clock
        before, after = clock.state, _outcome(clock, passed=passed or clock.breach_id is not None)
        self._clock = replace(clock, state=after, warnings=clock.warnings if after == "running" else ())
        if before == after:
            if earlier_answer and after in ("met", "met_late"):
                self._met()  # said again, with the earlier time
            return
        if after in ("breached", "met_late") and (clock.breach_id is None or clock.withdrawn_at is not None):
            self._breach()
        if after in ("met", "cancelled") and before in ("breached", "met_late"):
            self._withdraw()
        if after in ("met", "met_late"):
            self._met()
        if after == "cancelled":
            self._cancel()
        if after == "running":  # what had settled it was corrected away
            self.say(ClockStarted, clock.started_at)

    def warn(self, watermark: datetime) -> None:
        clock = self._clock
        passed = [warning for warning in clock.warnings if max(warning.at, clock.trigger.recorded_at) < watermark]
        for warning in passed:
            self.say(ClockAtRisk, warning.at, fraction=warning.fraction)
        left = tuple(warning for warning in clock.warnings if warning not in passed)
        self._clock = replace(self._clock, warnings=left)

    def say(self, kind: type[ClockEvent], occurred_at: datetime, **more: object) -> None:
        clock = self._clock = replace(self._clock, said=self._clock.said + 1)
        event = kind.model_validate(
            {
                "occurred_at": occurred_at,
                "recorded_at": self._now,
                "clock_id": clock.clock_id,
                "lead_id": clock.lead_id,
                "sequence": clock.said,
                "clause": clock.clause,
                "obliges": clock.obliges,
                "sla_version": clock.sla_version,
                "owner": clock.owner,
                "source": clock.source,
                "started_at": clock.started_at,
                "due_at": clock.due_at,
                "backfill": clock.backfill,
                **more,
            }
        )
        self._events.append(event)

    def _breach(self) -> None:
        clock = self._clock
        # One that was withdrawn and stands again, as what had withdrawn it was taken back, is the same breach.
        breach_id = clock.breach_id or named_id(self._now, str(clock.clock_id), "breach")
        self._clock = replace(clock, breach_id=breach_id, breached_at=self._now, withdrawn_at=None)
        self.say(ClockBreached, clock.due_at, breach_id=breach_id, reassign=self._reassign)

    def _withdraw(self) -> None:
        """The breach is void: answered in time, or nothing was owed any more at the deadline. `met_at` says since when."""
        clock = self._clock
        settled_at = self._answered_at() if clock.state == "met" else clock.ended_at
        self._clock = replace(clock, withdrawn_at=self._now)
        self.say(BreachWithdrawn, settled_at or clock.due_at, breach_id=clock.breach_id, met_at=settled_at)

    def _met(self) -> None:
        self.say(ClockMet, self._answered_at(), late=self._clock.state == "met_late")

    def _cancel(self) -> None:
        self.say(ClockCancelled, self._clock.ended_at or self._clock.started_at, why=self._clock.end or "")

    def _answered_at(self) -> datetime:
        if self._clock.answered_at is None:
            raise AssertionError("a clock that is met was answered")
        return self._clock.answered_at


def _outcome(clock: Clock, *, passed: bool) -> ClockState:
    answered, ended, due_at = clock.answered_at, clock.ended_at, clock.due_at
    if ended is not None and ended <= due_at and (answered is None or ended < answered):
        return "cancelled"
    if answered is not None and answered <= due_at:
        return "met"
    if not passed:
        return "running"
    return "breached" if answered is None else "met_late"


def named_id(at: datetime, *names: str) -> UUID:
    """A UUIDv7 of this moment whose other bits follow from the names, so that the same is never made twice in one."""
    milliseconds = (at - _EPOCH) // _MILLISECOND
    bits = int.from_bytes(hashlib.sha256("\x1f".join(names).encode()).digest()[:10])
    value = (milliseconds & 0xFFFF_FFFF_FFFF) << 80 | bits
    value &= ~(0xF << 76) & ~(0x3 << 62)
    return UUID(int=value | 0x7 << 76 | 0x2 << 62)
