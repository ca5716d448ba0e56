"""One clock: a clause running for one lead. Its state follows from the facts, in whatever order they arrive.

A clock holds two moments, the earliest answer and the earliest end of its scope. Both can only become earlier, so the order
of arrival does not matter, and a late report corrects what was published before:

- the scope ended by the deadline, before any answer: cancelled;
- answered by the deadline: met;
- else, once everything recorded before the deadline has been read: breached, and met late if there is an answer at all.

A breach that a late report corrects is withdrawn once; then the clock is met or cancelled.

Only the consumed watermark decides that a deadline has passed, never the wall clock (see `fire_clock`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

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
"""A clock whose deadline lay further back than this when its start was recorded is imported history. It counts and
notifies nobody, since nobody could have met it."""

MERGED = "the lead was merged into another"
MERGE_REVERTED = "the merge that had added it was reverted"

_MILLISECOND = timedelta(milliseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class WarningTime(Struct, frozen=True, gc=False):
    """A fraction of the time, and when it has passed."""

    fraction: float
    at: datetime


class Trigger(Struct, frozen=True, gc=False):
    """What started a clock. `sequence` is 0 for a trigger of a merged lead, and for a correction."""

    kind: FactKind
    key: str
    sequence: int
    recorded_at: datetime
    stage_kind: StageKind | None = None
    cause: UUID | None = None

    @property
    def is_from_qualification(self) -> bool:
        return self.kind in ("decision", "stage", "assigned")

    def is_stage_entry(self, sequence: int) -> bool:
        """Whether it is the stage entry that was published under a sequence."""
        return self.kind == "stage" and (self.sequence == sequence or self.key.endswith(f"#{sequence}"))


class Clock(Struct, frozen=True, gc=False):
    """One clock, pinned to the version under which it started. `event_count` counts its published events."""

    clock_id: UUID
    lead_id: UUID
    clause: str
    obliges: Department
    sla_version: int
    trigger: Trigger
    started_at: datetime
    due_at: datetime
    warnings: tuple[WarningTime, ...] = ()
    """Warnings that are still to be published."""
    backfill: bool = False
    owner: str | None = None
    source: str | None = None
    state: ClockState = "running"
    answered_at: datetime | None = None
    ended_at: datetime | None = None
    ended_sequence: int | None = None
    """Qualification's sequence of the first entry that ended the scope; its later facts answer nothing."""
    ended_why: str | None = None
    """Why the scope ended."""
    breach_id: UUID | None = None
    breached_at: datetime | None = None
    """When the breach was recorded."""
    withdrawn_at: datetime | None = None
    event_count: int = 0

    @property
    def next_at(self) -> datetime | None:
        """The clock has something to fire once the watermark has passed this; None if never.

        It never lies before the recording of the start: what is older may still be unread.
        """
        if self.state != "running":
            return None
        earliest = min([self.due_at, *(warning.at for warning in self.warnings)])
        return max(earliest, self.trigger.recorded_at)


class Transition(Struct, frozen=True, gc=False):
    """A clock after a change, and the events to publish about it."""

    clock: Clock
    events: tuple[ClockEvent, ...] = ()


def create_clock(rule: ClauseRule, version: int, lead_id: UUID, fact: Fact) -> Clock:
    """Create the clock that a fact starts. The caller adds owner, source and events.

    Its id derives from lead, clause and fact, so that a restored database gives it the same one again.
    """
    started_at = fact.occurred_at
    due_at = rule.deadline.due_at(started_at)
    return Clock(
        clock_id=derive_id(fact.recorded_at, str(lead_id), rule.key, fact.key),
        lead_id=lead_id,
        clause=rule.key,
        obliges=rule.obliges,
        sla_version=version,
        trigger=Trigger(fact.kind, fact.key, fact.sequence, fact.recorded_at, fact.stage_kind, fact.cause),
        started_at=started_at,
        due_at=due_at,
        warnings=_compute_warnings(rule, started_at, due_at),
        backfill=due_at < fact.recorded_at - BACKFILL_AFTER,
        owner=fact.name if fact.kind == "assigned" else None,
    )


def start_clock(clock: Clock, now: datetime) -> Transition:
    """Publish the start of the clock, and its outcome if the facts already give one."""
    builder = _TransitionBuilder(clock, now)
    builder.emit(ClockStarted, clock.started_at)
    builder.settle()
    return builder.build()


def effective_at(clock: Clock, fact: Fact) -> datetime | None:
    """When a fact counts for a clock; None if it was before the start.

    Of two facts of qualification, the sequence tells which came first. A later fact with a reported time before the start
    counts as of the start.
    """
    trigger = clock.trigger
    if fact.key == trigger.key:
        return None
    if fact.is_from_qualification and trigger.is_from_qualification and trigger.sequence and fact.sequence:
        return max(fact.occurred_at, clock.started_at) if fact.sequence > trigger.sequence else None
    return fact.occurred_at if fact.occurred_at >= clock.started_at else None


def with_fact(clock: Clock, rule: ClauseRule, fact: Fact) -> Clock:
    """The clock with a fact applied, before it is settled."""
    return _with_answer(_with_entry(clock, rule, fact), rule, fact)


def with_facts(clock: Clock, rule: ClauseRule, facts: Sequence[Fact]) -> Clock:
    """The clock with many facts applied, in any order. Ends of the scope are applied first."""
    for fact in facts:
        clock = _with_entry(clock, rule, fact)
    for fact in facts:
        clock = _with_answer(clock, rule, fact)
    return clock


def _with_entry(clock: Clock, rule: ClauseRule, fact: Fact) -> Clock:
    if fact.kind != "stage" or not _ends_scope(clock, rule, fact):
        return clock
    at = effective_at(clock, fact)
    if at is None:
        return clock
    ended = _with_earlier_end(clock, at, f"the lead entered {fact.name}")
    if not fact.sequence:
        return ended
    return replace(ended, ended_sequence=min(fact.sequence, clock.ended_sequence or fact.sequence))


def _with_answer(clock: Clock, rule: ClauseRule, fact: Fact) -> Clock:
    if not rule.answer.matches(fact) or _is_after_end(clock, fact):
        return clock
    at = effective_at(clock, fact)
    return clock if at is None else replace(clock, answered_at=min(at, clock.answered_at or at))


def with_end(clock: Clock, at: datetime, why: str) -> Clock:
    """The clock with the end of its scope at a moment, before it is settled."""
    return _with_earlier_end(clock, max(at, clock.started_at), why)


def invalidate_start(clock: Clock) -> Clock:
    """End the clock of a stage entry that a correction removed. The result is not settled yet."""
    return replace(
        clock, answered_at=None, ended_at=clock.started_at, ended_why="the entry that started it was corrected"
    )


def recompute(clock: Clock, rule: ClauseRule, facts: Sequence[Fact], lead_end: tuple[datetime, str] | None) -> Clock:
    """Recompute the clock from these facts alone, after a correction removed one. The result is not settled yet."""
    warnings = clock.warnings if clock.state == "running" else _remaining_warnings(clock, rule)
    changed = replace(clock, answered_at=None, ended_at=None, ended_sequence=None, ended_why=None, warnings=warnings)
    changed = with_facts(changed, rule, facts)
    return changed if lead_end is None else with_end(changed, *lead_end)


def end_by_unmerge(clock: Clock) -> Clock:
    """End a clock that a merged lead had added, since the merge is reverted. The result is not settled yet."""
    return replace(clock, answered_at=None, ended_at=clock.started_at, ended_sequence=None, ended_why=MERGE_REVERTED)


def resume(
    clock: Clock, rule: ClauseRule, facts: Sequence[Fact], lead_end: tuple[datetime, str] | None = None
) -> Clock:
    """Resume a clock that a merge or its reversal had ended, with the same deadline. The result is not settled yet.

    `facts`: those of its lead; an answer stays. `lead_end`: since when and why the lead has ended all the same.
    """
    changed = replace(clock, ended_at=None, ended_why=None, warnings=_remaining_warnings(clock, rule))
    changed = with_facts(changed, rule, facts)
    return changed if lead_end is None else with_end(changed, *lead_end)


def _remaining_warnings(clock: Clock, rule: ClauseRule) -> tuple[WarningTime, ...]:
    """The warnings that were still due when the clock was settled; earlier ones were published or overtaken."""
    settled_at = clock.ended_at or clock.answered_at or clock.started_at
    return tuple(
        warning for warning in _compute_warnings(rule, clock.started_at, clock.due_at) if warning.at >= settled_at
    )


def _compute_warnings(rule: ClauseRule, started_at: datetime, due_at: datetime) -> tuple[WarningTime, ...]:
    return tuple(
        WarningTime(fraction, rule.deadline.at_fraction(started_at, due_at, fraction)) for fraction in rule.warn_at
    )


def _ends_scope(clock: Clock, rule: ClauseRule, fact: Fact) -> bool:
    trigger = clock.trigger
    if trigger.kind == "decision" and fact.cause is not None and fact.cause == trigger.cause:
        return False  # the stage that the clock's own decision led to
    return rule.ends_scope(fact, from_open_stage=trigger.stage_kind in (None, "open"))


def _is_after_end(clock: Clock, fact: Fact) -> bool:
    return fact.is_from_qualification and clock.ended_sequence is not None and fact.sequence > clock.ended_sequence


def _with_earlier_end(clock: Clock, at: datetime, why: str) -> Clock:
    if clock.ended_at is not None and clock.ended_at <= at:
        return clock
    return replace(clock, ended_at=at, ended_why=why)


def settle_clock(before: Clock, after: Clock, now: datetime) -> Transition:
    """Settle a clock after facts were applied to it since `before`."""
    builder = _TransitionBuilder(after, now)
    has_earlier_answer = before.answered_at is not None and before.answered_at != after.answered_at
    builder.settle(has_earlier_answer=has_earlier_answer)
    return builder.build()


def fire_clock(clock: Clock, watermark: datetime, now: datetime, *, reassign: bool = False) -> Transition:
    """Publish what is due at the watermark: warnings, or the breach. All that was recorded before `watermark` has been read.

    A warning that the deadline overtakes is dropped. `reassign`: a breach of the clause reassigns the lead, except in
    imported history.
    """
    if clock.state != "running":
        return Transition(clock)
    builder = _TransitionBuilder(clock, now, reassign=reassign and not clock.backfill)
    if max(clock.due_at, clock.trigger.recorded_at) < watermark:
        builder.settle(is_deadline_passed=True)
    else:
        builder.warn(watermark)
    return builder.build()


class _TransitionBuilder:
    """Builds one transition of a clock and numbers its events. Lives for one call."""

    def __init__(self, clock: Clock, now: datetime, *, reassign: bool = False) -> None:
        self._clock = clock
        self._now = now
        self._reassign = reassign
        self._events: list[ClockEvent] = []

    def build(self) -> Transition:
        return Transition(self._clock, tuple(self._events))

    def settle(self, *, is_deadline_passed: bool = False, has_earlier_answer: bool = False) -> None:
        """Move to the state that the facts give. `is_deadline_passed`: all that was recorded before the deadline has been read."""
        clock = self._clock
        before, after = (
            clock.state,
            _compute_state(clock, is_deadline_passed=is_deadline_passed or clock.breach_id is not None),
        )
        self._clock = replace(clock, state=after, warnings=clock.warnings if after == "running" else ())
        if before == after:
            if has_earlier_answer and after in ("met", "met_late"):
                self._emit_met()  # published again, with the earlier time
            return
        if after in ("breached", "met_late") and (clock.breach_id is None or clock.withdrawn_at is not None):
            self._emit_breach()
        if after in ("met", "cancelled") and before in ("breached", "met_late"):
            self._emit_withdrawal()
        if after in ("met", "met_late"):
            self._emit_met()
        if after == "cancelled":
            self._emit_cancellation()
        if after == "running":  # a correction removed what had settled it
            self.emit(ClockStarted, clock.started_at)

    def warn(self, watermark: datetime) -> None:
        clock = self._clock
        passed = [warning for warning in clock.warnings if max(warning.at, clock.trigger.recorded_at) < watermark]
        for warning in passed:
            self.emit(ClockAtRisk, warning.at, fraction=warning.fraction)
        left = tuple(warning for warning in clock.warnings if warning not in passed)
        self._clock = replace(self._clock, warnings=left)

    def emit(self, kind: type[ClockEvent], occurred_at: datetime, **more: object) -> None:
        clock = self._clock = replace(self._clock, event_count=self._clock.event_count + 1)
        event = kind(
            occurred_at=occurred_at,
            recorded_at=self._now,
            clock_id=clock.clock_id,
            lead_id=clock.lead_id,
            sequence=clock.event_count,
            clause=clock.clause,
            obliges=clock.obliges,
            sla_version=clock.sla_version,
            owner=clock.owner,
            source=clock.source,
            started_at=clock.started_at,
            due_at=clock.due_at,
            backfill=clock.backfill,
            **more,
        )
        self._events.append(event)

    def _emit_breach(self) -> None:
        clock = self._clock
        # A withdrawn breach is reinstated under the same id when its withdrawal is reverted.
        breach_id = clock.breach_id or derive_id(clock.due_at, str(clock.clock_id), "breach")
        self._clock = replace(clock, breach_id=breach_id, breached_at=self._now, withdrawn_at=None)
        self.emit(ClockBreached, clock.due_at, breach_id=breach_id, reassign=self._reassign)

    def _emit_withdrawal(self) -> None:
        """Withdraw the breach: the answer was in time, or nothing was owed at the deadline. `met_at` says since when."""
        clock = self._clock
        settled_at = self._answered_at() if clock.state == "met" else clock.ended_at
        self._clock = replace(clock, withdrawn_at=self._now)
        self.emit(BreachWithdrawn, settled_at or clock.due_at, breach_id=clock.breach_id, met_at=settled_at)

    def _emit_met(self) -> None:
        self.emit(ClockMet, self._answered_at(), late=self._clock.state == "met_late")

    def _emit_cancellation(self) -> None:
        self.emit(ClockCancelled, self._clock.ended_at or self._clock.started_at, why=self._clock.ended_why or "")

    def _answered_at(self) -> datetime:
        if self._clock.answered_at is None:
            raise AssertionError("a clock that is met was answered")
        return self._clock.answered_at


def _compute_state(clock: Clock, *, is_deadline_passed: bool) -> ClockState:
    answered, ended, due_at = clock.answered_at, clock.ended_at, clock.due_at
    if ended is not None and ended <= due_at and (answered is None or ended < answered):
        return "cancelled"
    if answered is not None and answered <= due_at:
        return "met"
    if not is_deadline_passed:
        return "running"
    return "breached" if answered is None else "met_late"


def derive_id(at: datetime, *names: str) -> UUID:
    """A UUIDv7 of this moment. Its other bits derive from the names, so the same names give the same id."""
    milliseconds = (at - _EPOCH) // _MILLISECOND
    bits = int.from_bytes(hashlib.sha256("\x1f".join(names).encode()).digest()[:10])
    value = (milliseconds & 0xFFFF_FFFF_FFFF) << 80 | bits
    value &= ~(0xF << 76) & ~(0x3 << 62)
    return UUID(int=value | 0x7 << 76 | 0x2 << 62)
