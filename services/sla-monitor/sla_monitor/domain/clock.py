"""One clock: a clause running for one lead. Its state follows from the facts, in whatever order they arrive.

A clock holds the earliest answers, the earliest end of its scope and the pauses. More facts only make answers and end
earlier, so the order of arrival does not matter, and a late report corrects what was published before:

- the scope ended by the deadline, before the last answer: cancelled;
- answered by the deadline: met. So is a clock that is answered during a pause;
- else, while a pause goes on before the deadline: paused;
- else, once everything recorded before the deadline has been read: breached, and met late if it is answered at all.

A breach that a late report corrects is withdrawn; then the clock is met, cancelled, or runs to a later deadline.

Only the consumed watermark decides that a deadline or a step has passed, never the wall clock (see `fire_clock`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal, Protocol
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from accord.contracts.sla_events import (
    BreachAcknowledged,
    BreachWithdrawn,
    ClockAtRisk,
    ClockBreached,
    ClockCancelled,
    ClockEscalated,
    ClockEvent,
    ClockMet,
    ClockRescheduled,
    ClockStarted,
)
from accord.contracts.values import MOMENT_MAX, ActorKind, Department, Severity, StageKind
from sla_monitor.domain.facts import Fact, FactKind
from sla_monitor.domain.rules import ClauseRule, EscalationStep, Pause

ClockState = Literal["running", "paused", "met", "breached", "met_late", "cancelled"]
OPEN_STATES = frozenset({"running", "paused"})
_STEPPING = OPEN_STATES | {"breached"}
_MET = frozenset({"met", "met_late"})
_BROKEN = frozenset({"breached", "met_late"})

BACKFILL_AFTER = timedelta(hours=1)
"""A clock whose deadline lay further back than this when its start was recorded is imported history. It counts and
notifies nobody, since nobody could have met it."""

MERGED = "the lead was merged into another"
MERGE_REVERTED = "the merge that had added it was reverted"
START_CORRECTED = "the entry that started it was corrected"
REPEATED = "an earlier request is still open"
NOT_RESTARTED = "the clock that it would continue was settled before"
REASSIGNED = "the lead was given to somebody else"

_MILLISECOND = timedelta(milliseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class StepTime(Struct, frozen=True, gc=False, array_like=True):
    """A fraction of the time, and when it has passed."""

    fraction: float
    at: datetime


class Answer(Struct, frozen=True, gc=False, array_like=True):
    """A fact that answers, and when it counts."""

    at: datetime
    key: str
    actor_kind: ActorKind | None = None


class Acknowledgement(Struct, frozen=True, gc=False):
    """Who took note of a breach."""

    at: datetime
    by: str
    note: str | None = None


class Tally(Struct, frozen=True, gc=False, array_like=True):
    """What was counted in a period, and what is owed: `over` for a volume, `of` for each `over` for a rate."""

    of: int
    over: int
    at_least: float
    is_rate: bool = False


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
    """Of a clause over a period, what stands for the clause."""
    clause: str
    obliges: Department
    sla_version: int
    trigger: Trigger
    started_at: datetime
    due_at: datetime
    """While the clock is paused: as if the pause ended at once."""
    count: int = 1
    """How many answers are owed."""
    steps: tuple[StepTime, ...] = ()
    """Steps that are still to be published, ascending."""
    passed: tuple[float, ...] = ()
    """Fractions whose step was published, or that the deadline had overtaken."""
    backfill: bool = False
    owner: str | None = None
    source: str | None = None
    state: ClockState = "running"
    answers: tuple[Answer, ...] = ()
    """The earliest ones, at most `count`."""
    pauses: tuple[Pause, ...] = ()
    tally: Tally | None = None
    """Of a period: the counts by which it was judged."""
    ended_at: datetime | None = None
    ended_key: str | None = None
    """The fact that ended the scope; None if it was a merge, an erasure or another owner."""
    ended_sequence: int | None = None
    """Qualification's sequence of the first entry that ended the scope; its later facts answer nothing."""
    ended_why: str | None = None
    """Why the scope ended."""
    severity: Severity | None = None
    breach_id: UUID | None = None
    breached_at: datetime | None = None
    """When the breach was recorded."""
    breach_due_at: datetime | None = None
    """The latest deadline of which the watermark has shown that it passed unanswered."""
    withdrawn_at: datetime | None = None
    acknowledgement: Acknowledgement | None = None
    event_count: int = 0

    @property
    def last_answer(self) -> Answer | None:
        """The answer that fulfils the clause; None while any is missing."""
        return self.answers[self.count - 1] if len(self.answers) >= self.count else None

    @property
    def answered_at(self) -> datetime | None:
        return self.last_answer.at if self.last_answer else None

    @property
    def is_void(self) -> bool:
        """Whether it is not needed beside another clock of its clause."""
        return self.ended_why in (REPEATED, NOT_RESTARTED)

    @property
    def has_no_start(self) -> bool:
        """Whether what started it counts no more, so that no fact changes it."""
        return self.is_void or self.ended_why in (START_CORRECTED, MERGE_REVERTED)

    @property
    def next_at(self) -> datetime | None:
        """The clock has something to fire once the watermark has passed this; None if never.

        It never lies before the recording of the start: what is older may still be unread.
        """
        moments = [step.at for step in self.steps] if self.state in _STEPPING else []
        if self.state == "running":
            moments.append(self.due_at)
        return max(min(moments), self.trigger.recorded_at) if moments else None


class Transition(Struct, frozen=True, gc=False):
    """A clock after a change, and the events to publish about it."""

    clock: Clock
    events: tuple[ClockEvent, ...] = ()


def create_clock(rule: ClauseRule, version: int, lead_id: UUID, fact: Fact) -> Clock:
    """Create the clock that a fact starts. The caller adds owner, source, facts and events.

    Its id derives from lead, clause and fact, so that a restored database gives it the same one again.
    """
    started_at = fact.occurred_at
    due_at = rule.deadline.due_at(started_at)
    if due_at is None:
        raise AssertionError("without pauses there is a deadline")
    return Clock(
        clock_id=derive_id(fact.recorded_at, str(lead_id), rule.key, fact.key),
        lead_id=lead_id,
        clause=rule.key,
        obliges=rule.obliges,
        sla_version=version,
        trigger=Trigger(fact.kind, fact.key, fact.sequence, fact.recorded_at, fact.stage_kind, fact.cause),
        started_at=started_at,
        due_at=due_at,
        count=rule.count,
        steps=_find_steps(rule, started_at),
        backfill=due_at < fact.recorded_at - BACKFILL_AFTER,
        owner=fact.name if fact.kind == "assigned" else None,
    )


def start_clock(clock: Clock, now: datetime) -> Transition:
    """Publish the start of the clock, and its outcome if the facts already give one. Of a void one nothing is published."""
    builder = TransitionBuilder(clock, now)
    builder.settle()
    return builder.build()


# --- Facts ---


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
    """The clock with a fact applied, before it is settled. Pauses are not looked at."""
    if clock.has_no_start:
        return clock
    return _with_answer(_with_fact_end(clock, rule, fact), rule, fact)


def with_facts(clock: Clock, rule: ClauseRule, facts: Sequence[Fact]) -> Clock:
    """The clock with many facts applied, in any order, pauses too. Ends of the scope are applied first."""
    if clock.has_no_start:
        return clock
    for fact in facts:
        clock = _with_fact_end(clock, rule, fact)
    for fact in facts:
        clock = _with_answer(clock, rule, fact)
    return with_pauses(clock, rule, facts)


def with_pauses(clock: Clock, rule: ClauseRule, facts: Iterable[Fact]) -> Clock:
    """The clock with the pauses by all facts of its lead, and with the deadline and the steps that follow."""
    if not rule.has_pauses:
        return clock
    pauses = rule.find_pauses(facts, clock.started_at)
    return clock if pauses == clock.pauses else _reschedule(replace(clock, pauses=pauses), rule)


def _reschedule(clock: Clock, rule: ClauseRule) -> Clock:
    """The clock with the deadline and the steps by its pauses."""
    deadline, pauses = rule.deadline, clock.pauses
    due_at = deadline.due_at(clock.started_at, pauses)
    if due_at is None:
        due_at = deadline.due_at(clock.started_at, [pause for pause in pauses if pause.end is not None])
    steps = _find_steps(rule, clock.started_at, pauses, clock.passed)
    return replace(clock, due_at=due_at or MOMENT_MAX, steps=steps)


def _find_steps(
    rule: ClauseRule, started_at: datetime, pauses: Sequence[Pause] = (), passed: Collection[float] = ()
) -> tuple[StepTime, ...]:
    """The steps that are still to be published; not those that a pause holds up for now."""
    times = (
        (fraction, rule.deadline.at_fraction(started_at, fraction, pauses))
        for fraction in rule.fractions
        if fraction not in passed
    )
    return tuple(StepTime(fraction, at) for fraction, at in times if at is not None)


def _with_fact_end(clock: Clock, rule: ClauseRule, fact: Fact) -> Clock:
    if not _ends_scope(clock, rule, fact):
        return clock
    at = effective_at(clock, fact)
    if at is None:
        return clock
    ended = _with_earlier_end(clock, at, _ENDS[fact.kind].format(fact.name), fact.key)
    if fact.kind != "stage" or not fact.sequence:
        return ended
    return replace(ended, ended_sequence=min(fact.sequence, clock.ended_sequence or fact.sequence))


def _with_answer(clock: Clock, rule: ClauseRule, fact: Fact) -> Clock:
    if not rule.answer.matches(fact) or _is_after_end(clock, fact):
        return clock
    at = effective_at(clock, fact)
    if at is None:
        return clock
    others = [answer for answer in clock.answers if answer.key != fact.key]
    answers = sorted([*others, Answer(at, fact.key, fact.actor_kind)], key=lambda answer: (answer.at, answer.key))
    earliest = tuple(answers[: clock.count])
    return clock if earliest == clock.answers else replace(clock, answers=earliest)


def with_end(clock: Clock, at: datetime, why: str) -> Clock:
    """The clock with the end of its scope at a moment, before it is settled."""
    return _with_earlier_end(clock, max(at, clock.started_at), why)


def invalidate_start(clock: Clock) -> Clock:
    """End the clock of a stage entry that a correction removed. The result is not settled yet."""
    return _end_at_start(clock, START_CORRECTED)


def rests_on(clock: Clock, facts: Iterable[Fact]) -> bool:
    """Whether any of these facts has answered the clock or ended its scope."""
    return any(_is_end(clock, fact) or any(_is_answer(answer, fact) for answer in clock.answers) for fact in facts)


def without_facts(
    clock: Clock,
    rule: ClauseRule,
    removed: Sequence[Fact],
    facts: Sequence[Fact],
    lead_end: tuple[datetime, str] | None,
) -> Clock:
    """The clock without facts that a correction removed, by those that are left. The result is not settled yet.

    What the clock itself knows of its other facts stays, so that it may be older than the facts that are kept.
    """
    answers = (answer for answer in clock.answers if not any(_is_answer(answer, fact) for fact in removed))
    changed = replace(clock, answers=tuple(answers))
    if any(_is_end(clock, fact) for fact in removed):
        changed = _without_end(changed)
    return _with_lead_end(with_facts(changed, rule, facts), lead_end)


def _is_answer(answer: Answer, fact: Fact) -> bool:
    # Versions before the keys stored the moment alone.
    return answer.key == fact.key or (not answer.key and answer.at == fact.occurred_at)


def _is_end(clock: Clock, fact: Fact) -> bool:
    if clock.ended_at is None or clock.ended_key is not None:
        return clock.ended_key == fact.key
    return fact.kind == "stage" and clock.ended_at == effective_at(clock, fact)


def end_by_unmerge(clock: Clock) -> Clock:
    """End a clock that a merged lead had added, since the merge is reverted. The result is not settled yet."""
    return _end_at_start(clock, MERGE_REVERTED)


def void(clock: Clock, why: str) -> Clock:
    """End a clock that is not needed beside another one of its clause. The result is not settled yet."""
    return _end_at_start(clock, why)


def is_open_at(clock: Clock, moment: datetime) -> bool:
    """Whether the clock ran at a moment: neither answered nor ended, and not after its deadline."""
    is_settled = any(at is not None and at <= moment for at in (clock.answered_at, clock.ended_at))
    return clock.started_at <= moment and not is_settled and (clock.due_at >= moment or is_paused(clock))


def _end_at_start(clock: Clock, why: str) -> Clock:
    return replace(_without_end(clock), answers=(), ended_at=clock.started_at, ended_why=why)


def resume(
    clock: Clock, rule: ClauseRule, facts: Sequence[Fact], lead_end: tuple[datetime, str] | None = None
) -> Clock:
    """Resume a clock that a merge, its reversal or another clock had ended, with the same deadline. The result is not settled yet.

    `facts`: those of its lead; an answer stays. `lead_end`: since when and why the lead has ended all the same.
    """
    return _with_lead_end(with_facts(_reschedule(_without_end(clock), rule), rule, facts), lead_end)


def _without_end(clock: Clock) -> Clock:
    return replace(clock, ended_at=None, ended_key=None, ended_sequence=None, ended_why=None)


def _with_lead_end(clock: Clock, lead_end: tuple[datetime, str] | None) -> Clock:
    return clock if lead_end is None else with_end(clock, *lead_end)


_ENDS: Mapping[FactKind, str] = {
    "stage": "the lead entered {}",
    "assigned": REASSIGNED,
    "decision": "the decision {} was taken",
    "activity": "{} happened",
}


def _ends_scope(clock: Clock, rule: ClauseRule, fact: Fact) -> bool:
    trigger = clock.trigger
    if fact.kind == "assigned":
        is_own = fact.cause is not None and fact.cause == derive_breach_id(clock)
        return rule.reassignment != "moves" and clock.owner not in (None, fact.name) and not is_own
    if trigger.kind == "decision" and fact.cause is not None and fact.cause == trigger.cause:
        return False  # the stage that the clock's own decision led to
    return rule.ends_scope(fact, from_open_stage=trigger.stage_kind in (None, "open"))


def _is_after_end(clock: Clock, fact: Fact) -> bool:
    return fact.is_from_qualification and clock.ended_sequence is not None and fact.sequence > clock.ended_sequence


def _with_earlier_end(clock: Clock, at: datetime, why: str, key: str | None = None) -> Clock:
    if clock.ended_at is not None and clock.ended_at <= at:
        return clock
    return replace(clock, ended_at=at, ended_key=key, ended_why=why)


# --- Transitions ---


def settle_clock(before: Clock, after: Clock, now: datetime) -> Transition:
    """Settle a clock after facts were applied to it since `before`."""
    builder = TransitionBuilder(after, now)
    has_other_answer = before.answered_at is not None and before.answered_at != after.answered_at
    is_rescheduled = (before.due_at, before.pauses) != (after.due_at, after.pauses)
    builder.settle(has_other_answer=has_other_answer, is_rescheduled=is_rescheduled)
    return builder.build()


def acknowledge_breach(clock: Clock, acknowledgement: Acknowledgement, now: datetime) -> Transition:
    """Acknowledge the breach of a clock; again, it changes the note."""
    builder = TransitionBuilder(replace(clock, acknowledgement=acknowledgement), now)
    if clock.acknowledgement is None:
        builder.emit(BreachAcknowledged, now, breach_id=clock.breach_id, acknowledged_by=acknowledgement.by)
    return builder.build()


def fire_clock(clock: Clock, rule: ClauseRule, watermark: datetime, now: datetime) -> Transition:
    """Publish what is due at the watermark: steps and the breach. All that was recorded before `watermark` has been read.

    A step before the deadline that the deadline has overtaken is dropped.
    """
    builder = TransitionBuilder(clock, now)
    if clock.state == "running" and max(clock.due_at, clock.trigger.recorded_at) < watermark:
        builder.settle(is_deadline_passed=True)
    builder.take_steps(rule, watermark)
    return builder.build()


class StepRule(Protocol):
    """What a clause says about steps."""

    @property
    def warn_at(self) -> tuple[float, ...]: ...
    @property
    def escalation(self) -> tuple[EscalationStep, ...]: ...


class TransitionBuilder:
    """Builds one transition of a clock and numbers its events. Lives for one call."""

    def __init__(self, clock: Clock, now: datetime) -> None:
        self._clock = clock
        self._now = now
        self._events: list[ClockEvent] = []

    def build(self) -> Transition:
        return Transition(self._clock, tuple(self._events))

    def settle(
        self,
        *,
        is_deadline_passed: bool = False,
        has_other_answer: bool = False,
        is_rescheduled: bool = False,
    ) -> None:
        """Move to the state that the facts give. `is_deadline_passed`: all that was recorded before the deadline has been read."""
        clock = self._clock
        if is_deadline_passed:
            clock = replace(clock, breach_due_at=clock.due_at)
        before, after = clock.state, _compute_state(clock)
        self._clock = replace(clock, state=after)
        if clock.is_void and clock.event_count == 0:
            return
        is_new = clock.event_count == 0
        if is_new:
            before = "running"
            self.emit(ClockStarted, clock.started_at)
        if before != after:
            self._emit_change(before, after, is_new=is_new)
        elif has_other_answer and after in _MET:
            self._emit_met()  # published again, with the earlier time
        elif is_rescheduled and not is_new:
            self._emit_schedule()

    def _emit_change(self, before: ClockState, after: ClockState, *, is_new: bool) -> None:
        clock = self._clock
        if after in _BROKEN and (clock.breach_id is None or clock.withdrawn_at is not None):
            self._emit_breach()
        if after not in _BROKEN and before in _BROKEN:
            self._emit_withdrawal()
        if after in _MET:
            self._emit_met()
        elif after == "cancelled":
            self._emit_cancellation()
        elif after in OPEN_STATES:
            if before not in OPEN_STATES and not is_new:  # what had settled it was corrected
                self.emit(ClockStarted, clock.started_at)
            if "paused" in (before, after):
                self._emit_schedule()

    def take_steps(self, rule: StepRule, watermark: datetime) -> None:
        """Publish the steps that have passed, unless the clock was settled before."""
        clock = self._clock
        is_breached = clock.state == "breached"
        passed = [step for step in clock.steps if max(step.at, clock.trigger.recorded_at) < watermark]
        overtaken = [step for step in clock.steps if is_breached and step.fraction < 1]
        if clock.state in _STEPPING:
            for step in passed:
                if step.fraction >= 1 or not is_breached:
                    self._take_step(rule, step)
        done = {step.fraction for step in [*passed, *overtaken]}
        self._clock = replace(
            self._clock,
            steps=tuple(step for step in clock.steps if step.fraction not in done),
            passed=tuple(sorted({*clock.passed, *done})),
        )

    def _take_step(self, rule: StepRule, step: StepTime) -> None:
        if step.fraction in rule.warn_at:
            self.emit(ClockAtRisk, step.at, fraction=step.fraction)
        agreed = [agreed for agreed in rule.escalation if agreed.fraction == step.fraction]
        if agreed:
            self._escalate(step, agreed)

    def _escalate(self, step: StepTime, agreed: Sequence[EscalationStep]) -> None:
        """Publish what the clause agrees on at a fraction. Who acknowledged a breach is notified no more; the rest happens."""
        clock, noted = self._clock, self._clock.acknowledgement
        severity = next((each.severity for each in reversed(agreed) if each.severity), None)
        notify = [] if noted else list(dict.fromkeys(name for each in agreed for name in each.notify))
        reassign = not clock.backfill and any(
            each.reassign and (each.expires_after is None or self._now - step.at <= each.expires_after)
            for each in agreed
        )
        if not (severity or notify or reassign):
            return
        self._clock = replace(clock, severity=severity or clock.severity)
        self.emit(
            ClockEscalated,
            step.at,
            fraction=step.fraction,
            breach_id=derive_breach_id(clock),
            notify=notify,
            severity=severity,
            reassign=reassign,
            acknowledged_by=noted.by if noted else None,
        )

    def emit(self, kind: type[ClockEvent], occurred_at: datetime, **more: object) -> None:
        clock = self._clock = replace(self._clock, event_count=self._clock.event_count + 1)
        event = kind(
            occurred_at=occurred_at,
            recorded_at=self._now,
            clock_id=clock.clock_id,
            lead_id=None if clock.trigger.kind == "period" else clock.lead_id,
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
        breach_id = derive_breach_id(clock)
        self._clock = replace(clock, breach_id=breach_id, breached_at=self._now, withdrawn_at=None)
        self.emit(ClockBreached, clock.due_at, breach_id=breach_id)

    def _emit_withdrawal(self) -> None:
        """Withdraw the breach: the answer was in time, or nothing was owed at the deadline. `met_at` says since when."""
        clock = self._clock
        settled_at = self._answered_at() if clock.state == "met" else clock.ended_at
        if clock.state in OPEN_STATES and clock.pauses:
            settled_at = clock.pauses[-1].start
        self._clock = replace(clock, withdrawn_at=self._now)
        met_at = settled_at or clock.started_at
        self.emit(BreachWithdrawn, met_at, breach_id=clock.breach_id, met_at=met_at)

    def _emit_met(self) -> None:
        answer = self._clock.last_answer
        self.emit(
            ClockMet,
            self._answered_at(),
            late=self._clock.state == "met_late",
            actor_kind=answer.actor_kind if answer else None,
        )

    def _emit_schedule(self) -> None:
        clock = self._clock
        at = clock.pauses[-1].end or clock.pauses[-1].start if clock.pauses else clock.started_at
        self.emit(ClockRescheduled, at, paused=clock.state == "paused")

    def _emit_cancellation(self) -> None:
        self.emit(ClockCancelled, self._clock.ended_at or self._clock.started_at, why=self._clock.ended_why or "")

    def _answered_at(self) -> datetime:
        answered_at = self._clock.answered_at
        if answered_at is None:
            raise AssertionError("a clock that is met was answered")
        return answered_at


def is_paused(clock: Clock) -> bool:
    """Whether a pause goes on that began before the deadline."""
    return bool(clock.pauses) and clock.pauses[-1].end is None and clock.pauses[-1].start < clock.due_at


def _compute_state(clock: Clock) -> ClockState:
    answered, ended = clock.answered_at, clock.ended_at
    due_at = None if is_paused(clock) else clock.due_at
    if ended is not None and (due_at is None or ended <= due_at) and (answered is None or ended < answered):
        return "cancelled"
    if answered is not None and (due_at is None or answered <= due_at):
        return "met"
    if due_at is None:
        return "paused"
    if clock.breach_due_at is None or due_at > clock.breach_due_at:
        return "running"
    return "breached" if answered is None else "met_late"


def derive_breach_id(clock: Clock) -> UUID:
    """The id that the clock's breach has, or would have."""
    return clock.breach_id or derive_id(clock.started_at, str(clock.clock_id), "breach")


def derive_id(at: datetime, *names: str) -> UUID:
    """A UUIDv7 of this moment. Its other bits derive from the names, so the same names give the same id."""
    milliseconds = (at - _EPOCH) // _MILLISECOND
    bits = int.from_bytes(hashlib.sha256("\x1f".join(names).encode()).digest()[:10])
    value = (milliseconds & 0xFFFF_FFFF_FFFF) << 80 | bits
    value &= ~(0xF << 76) & ~(0x3 << 62)
    return UUID(int=value | 0x7 << 76 | 0x2 << 62)
