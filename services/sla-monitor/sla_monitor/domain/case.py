"""A lead's case: the lead, its clocks, and what waits to be judged. `decide(case, event, ...)` gives the case as it becomes.

Two topics tell of a lead, and there is no order between them. So a clause's `where` is judged on what had been *recorded*
of the lead when the trigger was recorded, and not before the other topic has been read past that moment; until then the
trigger waits. And a clock that opens looks back at what is already known to have happened since its start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from accord.contracts.base import EventData
from accord.contracts.intake_events import (
    ActivityRecorded,
    LeadCaptured,
    LeadErased,
    LeadMerged,
    LeadState,
    LeadUnmerged,
    LeadUpdated,
)
from accord.contracts.qualification_events import LeadAssigned, LeadDecided, LeadScored, LeadStageChanged
from accord.contracts.sla_events import ClockEvent
from sla_monitor.domain import clock as clocks
from sla_monitor.domain.clock import MERGED, Clock
from sla_monitor.domain.facts import Fact, fact_of
from sla_monitor.domain.lead import Lead, Profile, Standing, as_of
from sla_monitor.domain.rules import ClauseRule, LeadFacts, Rules

Moving = (
    LeadCaptured
    | LeadUpdated
    | LeadMerged
    | LeadUnmerged
    | LeadErased
    | ActivityRecorded
    | LeadStageChanged
    | LeadScored
    | LeadDecided
    | LeadAssigned
)
"""The events that change a case."""


@dataclass(frozen=True, slots=True)
class Reached:
    """Until when each topic has been read: all that was recorded before it. None while unknown."""

    intake: datetime | None = None
    qualification: datetime | None = None

    @property
    def both(self) -> datetime | None:
        if self.intake is None or self.qualification is None:
            return None
        return min(self.intake, self.qualification)


@dataclass(frozen=True, slots=True)
class Slas:
    """The versions of the SLA that are or were in force, by number, and which one was at a moment."""

    rules: Mapping[int, Rules]
    version_at: Callable[[datetime], int | None]

    def at(self, moment: datetime) -> Rules | None:
        version = self.version_at(moment)
        return None if version is None else self.rules[version]

    def clause(self, clock: Clock) -> ClauseRule:
        return self.rules[clock.sla_version].clauses[clock.clause]


@dataclass(frozen=True, slots=True)
class Waiting:
    """A trigger whose `where` cannot be judged yet, with what its own topic had told of the lead by then."""

    clause: str
    sla_version: int
    fact: Fact
    profile: Profile | None = None
    standing: Standing | None = None

    @property
    def key(self) -> tuple[str, str]:
        return self.clause, self.fact.key


@dataclass(frozen=True, slots=True)
class Case:
    """All that a decision about one lead needs. `facts` are those that a new clock looks back at."""

    lead: Lead
    clocks: Mapping[UUID, Clock]
    waiting: tuple[Waiting, ...] = ()
    facts: tuple[Fact, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """The case after an event and the events to publish, in order.

    `moved` are triggers of a lead that was merged away, whose clocks the survivor has to take over; `gone` the keys of facts that were
    corrected away.
    """

    case: Case
    events: tuple[ClockEvent, ...] = ()
    moved: tuple[Waiting, ...] = ()
    gone: tuple[str, ...] = ()


def decide(case: Case, event: Moving, slas: Slas, reached: Reached, now: datetime) -> Outcome:
    """Apply what was told of this lead."""
    course = _Course(case, slas, reached, now)
    course.judge()  # before anything newer is known
    match event:
        case LeadCaptured() | LeadUpdated() | LeadMerged() | LeadUnmerged():
            course.profile(_profile(event.state, event))
        case LeadErased():
            course.erase(event.occurred_at)
        case LeadStageChanged():
            course.standing(event, stage=event.present_stage or event.stage)
        case LeadScored():
            course.standing(event, grade=event.grade, fit=event.fit, engagement=event.engagement)
        case LeadAssigned():
            course.assign(event.owner, event.sequence)
        case _:
            pass
    fact = fact_of(event)
    if isinstance(event, LeadStageChanged) and event.replaces is not None:
        fact = course.correct(event.replaces, fact)
    if fact is not None:
        course.take(fact)
        course.trigger(fact)
    course.judge()
    return course.outcome()


def take_along(case: Case, facts: Iterable[Fact], slas: Slas, reached: Reached, now: datetime) -> Outcome:
    """Apply activities of a lead that was merged into this one: they answer its clocks and start none."""
    course = _Course(case, slas, reached, now)
    for fact in facts:
        course.take(fact)
    return course.outcome()


def take_over(case: Case, moved: Iterable[Waiting], slas: Slas, reached: Reached, now: datetime) -> Outcome:
    """Start the clocks that a merged lead's triggers had started and that were still running, for the survivor."""
    course = _Course(case, slas, reached, now)
    for trigger in moved:
        if case.lead.erased_at is None:
            course.open(trigger)
    return course.outcome()


def absorb(case: Case, merge: LeadMerged, slas: Slas, reached: Reached, now: datetime) -> Outcome:
    """The case of a lead that was merged into another."""
    course = _Course(case, slas, reached, now)
    course.merge_into(merge)
    return course.outcome()


def restore(case: Case, recorded_at: datetime, slas: Slas, reached: Reached, now: datetime) -> Outcome:
    """The case of a lead whose merge was taken back, as was recorded at a moment: its clocks go on to the deadlines that they had.

    Its profile is what its own events tell: nothing was told under its id while it was merged.
    """
    course = _Course(case, slas, reached, now)
    course.restore(recorded_at)
    return course.outcome()


def give_back(case: Case, restored: Case, slas: Slas, reached: Reached, now: datetime) -> Outcome:
    """The case of a lead that had taken another in, without what was that one's: its activities, and the clocks that it had brought.

    `restored`: the other's case as it was while merged, with its facts.
    """
    course = _Course(case, slas, reached, now)
    course.give_back(restored)
    return course.outcome()


def judge(case: Case, slas: Slas, reached: Reached, now: datetime) -> Outcome:
    """Judge what waited for the topics to be read so far."""
    course = _Course(case, slas, reached, now)
    course.judge()
    return course.outcome()


def starts(event: EventData, slas: Slas) -> Fact | None:
    """The fact in an event, if it starts a clock of some clause in force when it was recorded; `where` is not asked."""
    fact = fact_of(event)
    rules = slas.at(fact.recorded_at) if fact else None
    if fact is None or rules is None or not any(rule.start.matches(fact) for rule in rules.clauses.values()):
        return None
    return fact


def _profile(state: LeadState, event: LeadCaptured | LeadUpdated | LeadMerged | LeadUnmerged) -> Profile:
    return Profile(
        recorded_at=event.recorded_at,
        sequence=event.sequence,
        source=state.source,
        captured_at=state.captured_at,
        campaign=state.campaign.name if state.campaign else None,
        attributes=state.attributes,
    )


class _Course:
    """One case on its way through an event. Lives for one call of a function above."""

    def __init__(self, case: Case, slas: Slas, reached: Reached, now: datetime) -> None:
        self._lead = case.lead
        self._clocks = dict(case.clocks)
        self._waiting = case.waiting
        self._facts = case.facts
        self._slas = slas
        self._reached = reached
        self._now = now
        self._events: list[ClockEvent] = []
        self._moved: list[Waiting] = []
        self._gone: list[str] = []

    def outcome(self) -> Outcome:
        case = Case(self._lead, self._clocks, self._waiting, self._facts)
        return Outcome(case, tuple(self._events), tuple(self._moved), tuple(self._gone))

    # -- what is known of the lead --

    def profile(self, profile: Profile) -> None:
        self._lead = self._lead.with_profile(profile, self._reached.both)
        for clock in self._clocks.values():
            if clock.source is None:
                self._keep(replace(clock, source=self._lead.source))

    def standing(
        self,
        event: LeadStageChanged | LeadScored,
        *,
        stage: str | None = None,
        grade: str | None = None,
        fit: float | None = None,
        engagement: float | None = None,
    ) -> None:
        known = self._lead.standing or Standing(event.recorded_at, 0)
        if event.sequence <= known.sequence:
            return
        if isinstance(event, LeadStageChanged):
            told = replace(known, recorded_at=event.recorded_at, sequence=event.sequence, stage=stage)
        else:
            told = Standing(event.recorded_at, event.sequence, known.stage, grade, fit, engagement)
        self._lead = self._lead.with_standing(told, self._reached.both)

    def assign(self, owner: str | None, sequence: int) -> None:
        """A new owner; running clocks are the owner's from now on, except those of a certain assignment."""
        if sequence <= self._lead.owner_sequence:
            return
        self._lead = replace(self._lead, owner=owner, owner_sequence=sequence)
        for clock in self._clocks.values():
            if clock.state == "running" and clock.trigger.kind != "assigned":
                self._keep(replace(clock, owner=owner))

    def erase(self, at: datetime) -> None:
        """The person is gone: no attributes, no clocks; what was decided stays as a count."""
        lead = self._lead
        self._lead = replace(lead, profiles=(), standings=(), erased_at=lead.erased_at or at)
        self._waiting, self._facts = (), ()
        self._end(at, _ERASED)

    def merge_into(self, merge: LeadMerged) -> None:
        at = merge.occurred_at
        self._lead = replace(self._lead, merged_into=merge.lead_id, merged_at=at, merge_recorded_at=merge.recorded_at)
        running = [clock for clock in self._clocks.values() if clock.state == "running"]
        self._end(at, MERGED)
        for clock in running:
            self._move(self._clocks[clock.clock_id], _trigger_again(clock))

    def restore(self, recorded_at: datetime) -> None:
        self._lead = replace(self._lead, merged_into=None, merged_at=None, merge_recorded_at=recorded_at)
        for clock in list(self._clocks.values()):
            if clock.end == MERGED:
                self._resume(clock)

    def give_back(self, restored: Case) -> None:
        theirs = [fact for fact in restored.facts if fact.kind == "activity"]
        keys = {fact.key for fact in theirs}
        brought = {(clock.clause, clock.trigger.key) for clock in restored.clocks.values()}
        self._facts = tuple(fact for fact in self._facts if fact.key not in keys)
        for clock in list(self._clocks.values()):
            if _was_brought(clock) and (clock.clause, clock.trigger.key) in brought:
                self._settle(clock, clocks.taken_back(clock))
            elif any(self._answered(clock, fact) for fact in theirs):
                self._settle(clock, clocks.anew(clock, self._slas.clause(clock), self._facts, self._gone_since()))

    def _resume(self, clock: Clock) -> None:
        rule = self._slas.clause(clock)
        self._settle(clock, clocks.resumed(clock, rule, self._facts, self._gone_since()))

    def _gone_since(self) -> tuple[datetime, str] | None:
        """Since when the lead is gone, and why; None while it lives."""
        lead = self._lead
        ends = [(lead.merged_at, MERGED), (lead.erased_at, _ERASED)]
        return min(((at, why) for at, why in ends if at is not None), default=None)

    def _end(self, at: datetime, why: str) -> None:
        for clock in list(self._clocks.values()):
            self._settle(clock, clocks.with_end(clock, at, why))

    # -- what happens --

    def take(self, fact: Fact) -> None:
        """Let a fact answer clocks, or end their scope."""
        self._facts = (*self._facts, fact)
        for clock in list(self._clocks.values()):
            self._settle(clock, clocks.with_fact(clock, self._slas.clause(clock), fact))

    def correct(self, replaces: int, fact: Fact | None) -> Fact | None:
        """An entry no longer stands, and `fact` comes in its place if there is one; what is still to be taken of that.

        An entry of the same stage and time goes on as it was: only its number or what was before it is another.
        """
        gone = [known for known in self._facts if known.is_entry(replaces)]
        self._facts = tuple(known for known in self._facts if not known.is_entry(replaces))
        self._gone += [known.key for known in gone]
        self._waiting = tuple(waiting for waiting in self._waiting if not waiting.fact.is_entry(replaces))
        goes_on = fact is not None and any(
            (known.name, known.occurred_at) == (fact.name, fact.occurred_at) for known in gone
        )
        if fact is not None and goes_on:
            self._facts = (*self._facts, fact)
        for clock in list(self._clocks.values()):
            if clock.trigger.is_entry(replaces):
                self._correct_start(clock, fact if goes_on else None)
            elif not goes_on and any(self._answered(clock, known) for known in gone):
                self._settle(clock, clocks.anew(clock, self._slas.clause(clock), self._facts, self._gone_since()))
        return None if goes_on else fact

    def _correct_start(self, clock: Clock, fact: Fact | None) -> None:
        if fact is None:
            self._settle(clock, clocks.never_started(clock))
        else:
            self._keep(replace(clock, trigger=replace(clock.trigger, key=fact.key, sequence=0)))

    def _answered(self, clock: Clock, fact: Fact) -> bool:
        """Whether an entry may be what answered a clock or ended its scope."""
        at = clocks.effective_at(clock, fact)
        return at is not None and at in (clock.answered_at, clock.ended_at)

    def trigger(self, fact: Fact) -> None:
        """Let a fact start the clocks of the clauses that were in force when it was recorded."""
        rules = self._slas.at(fact.recorded_at)
        if rules is None or self._lead.erased_at is not None:
            return
        for rule in rules.clauses.values():
            if rule.start.matches(fact):
                self._wait(rule, rules.version, fact)

    def _wait(self, rule: ClauseRule, version: int, fact: Fact) -> None:
        """Everything waits; what need not is judged at the end of the same decision."""
        lead = self._lead
        own = fact.of_qualification
        trigger = Waiting(
            rule.key,
            version,
            fact,
            profile=None if own else as_of(lead.profiles, fact.recorded_at),
            standing=lead.standing if own else None,
        )
        if all(known.key != trigger.key for known in self._waiting):
            self._waiting = (*self._waiting, trigger)

    def judge(self) -> None:
        """Open the clocks of the triggers that can be judged by now and whose `where` holds; forget the others."""
        still: list[Waiting] = []
        for trigger in self._waiting:
            rule = self._slas.rules[trigger.sla_version].clauses[trigger.clause]
            facts = self._known(trigger, rule)
            if facts is None:
                still.append(trigger)
            elif rule.where is None or rule.where.holds(facts):
                self.open(trigger)
        self._waiting = tuple(still)

    def _known(self, trigger: Waiting, rule: ClauseRule) -> LeadFacts | None:
        """What `where` is to be asked of; None while something recorded by then may still be unread."""
        fact, lead = trigger.fact, self._lead
        profile, standing = trigger.profile, trigger.standing
        if rule.asks_profile and profile is None:
            if not lead.profiles or not _past(self._reached.intake, fact.recorded_at, unless=not fact.of_qualification):
                return None
            profile = as_of(lead.profiles, fact.recorded_at) or lead.profiles[0]
        if rule.asks_standing and not fact.of_qualification:
            if not _past(self._reached.qualification, fact.recorded_at):
                return None
            standing = as_of(lead.standings, fact.recorded_at)
        return LeadFacts(profile, standing, fact.occurred_at)

    def open(self, trigger: Waiting) -> None:
        """Start a clock, with all that is already known to have happened since."""
        fact, lead = trigger.fact, self._lead
        known = [one for one in self._clocks.values() if (one.clause, one.trigger.key) == trigger.key]
        if known:
            if known[0].end == clocks.TAKEN_BACK:  # brought once more
                self._resume(known[0])
            return
        rule = self._slas.rules[trigger.sla_version].clauses[trigger.clause]
        clock = clocks.start(rule, trigger.sla_version, lead.lead_id, fact, self._now)
        clock = replace(clock, owner=clock.owner or lead.owner, source=lead.source)
        clock = clocks.with_facts(clock, rule, self._facts)
        if lead.merged_at is not None:
            clock = clocks.with_end(clock, lead.merged_at, MERGED)
        turn = clocks.begun(clock, self._now)
        self._keep(turn.clock)
        self._events += turn.events
        self._move(turn.clock, trigger)

    def _move(self, clock: Clock, trigger: Waiting) -> None:
        """A clock that only the merge ended goes on with the survivor; a stage is the survivor's own matter."""
        if clock.state == "cancelled" and clock.end == MERGED and clock.trigger.kind != "stage":
            self._moved.append(replace(trigger, fact=replace(trigger.fact, sequence=0)))

    def _settle(self, before: Clock, after: Clock) -> None:
        if after is before:
            return
        turn = clocks.settle(before, after, self._now)
        self._keep(turn.clock)
        self._events += turn.events

    def _keep(self, clock: Clock) -> None:
        self._clocks[clock.clock_id] = clock


_ERASED = "the person was erased"


def _was_brought(clock: Clock) -> bool:
    """Whether it may be a merged lead's that goes on here; stages are not taken over."""
    return clock.trigger.kind != "stage" and clock.trigger.sequence == 0


def _past(reached: datetime | None, moment: datetime, *, unless: bool = False) -> bool:
    return unless or (reached is not None and reached > moment)


def _trigger_again(clock: Clock) -> Waiting:
    """The trigger of a clock that runs, for another lead."""
    trigger = clock.trigger
    fact = Fact(
        kind=trigger.kind,
        key=trigger.key,
        name=(clock.owner or "") if trigger.kind == "assigned" else "",
        occurred_at=clock.started_at,
        recorded_at=trigger.recorded_at,
        sequence=trigger.sequence,
        stage_kind=trigger.stage_kind,
        cause=trigger.cause,
    )
    return Waiting(clock.clause, clock.sla_version, fact)
