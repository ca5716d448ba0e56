"""The compiled SLA: for each clause its start, its answer, the end of its scope and its deadline. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from msgspec import Struct
from msgspec.structs import replace

from accord.contracts.values import MOMENT_MAX, ActorKind, Department, Party, Severity
from accord.terms.criteria import MISSING, Compiled, compile_criteria
from sla_monitor.domain.business_time import Calendar, add_open_days, add_open_time, measure_open_time
from sla_monitor.domain.calendars import PublicHolidays, build_calendar
from sla_monitor.domain.facts import Fact, FactKind
from sla_monitor.domain.lead import Profile, QualificationState
from sla_monitor.domain.sla import (
    ActorKinds,
    AttemptsClause,
    Escalation,
    Event,
    FreshnessClause,
    From,
    LeadClause,
    PausedBy,
    Per,
    PeriodClause,
    RateClause,
    Reassignment,
    Sla,
    Within,
    names_of,
)

_PERSON: frozenset[ActorKind] = frozenset({"person"})


class Pattern(Struct, frozen=True, gc=False):
    """Matches facts of one kind by name: of `names`, or without them all but `excluded`."""

    kind: FactKind
    names: frozenset[str] = frozenset()
    by: Party | None = None
    actor_kinds: frozenset[ActorKind] | None = None
    """Whose activities match; None for anybody's. Of whom it is not known, who acted is taken for a person."""
    excluded: frozenset[str] = frozenset()

    def matches(self, fact: Fact) -> bool:
        return (
            fact.kind == self.kind
            and (fact.name in self.names if self.names else fact.name not in self.excluded)
            and (self.by is None or fact.by == self.by)
            and (self.actor_kinds is None or (fact.actor_kind or "person") in self.actor_kinds)
        )


class Pause(Struct, frozen=True, gc=False, array_like=True):
    """A time that does not count; without `end` it goes on."""

    start: datetime
    end: datetime | None


class Deadline(Struct, frozen=True, gc=False):
    """The time that a clause allows: elapsed where there is no calendar, else open time or whole open days of it."""

    calendar: Calendar | None
    amount: timedelta
    days: int | None = None

    def due_at(self, start: datetime, pauses: Sequence[Pause] = ()) -> datetime | None:
        """When all of the time has passed; None while a pause goes on before that."""
        return self.at_fraction(start, 1.0, pauses)

    def at_fraction(self, start: datetime, fraction: float, pauses: Sequence[Pause] = ()) -> datetime | None:
        """When this fraction of the time has passed since the start; None while a pause goes on before that.

        `pauses` ascend and are disjoint.
        """
        at, left = start, self._total(start) * fraction
        for pause in pauses:
            if pause.end is not None and pause.end <= at:
                continue
            before = self._measure(at, max(at, pause.start))
            if left <= before:
                break
            if pause.end is None:
                return None
            at, left = pause.end, left - before
        return self._add(at, left)

    def _total(self, start: datetime) -> timedelta:
        if self.calendar is None or self.days is None:
            return self.amount
        return measure_open_time(self.calendar, start, add_open_days(self.calendar, start, self.days))

    def _add(self, start: datetime, amount: timedelta) -> datetime:
        if self.calendar is None:
            return start + min(amount, MOMENT_MAX - start)
        return add_open_time(self.calendar, start, amount)

    def _measure(self, start: datetime, end: datetime) -> timedelta:
        return end - start if self.calendar is None else measure_open_time(self.calendar, start, end)


class EscalationStep(Struct, frozen=True, gc=False):
    """What a clause does at a fraction of the time."""

    fraction: float
    notify: tuple[str, ...] = ()
    severity: Severity | None = None
    reassign: bool = False
    expires_after: timedelta | None = None


class ClauseRule(Struct, frozen=True, gc=False):
    """One compiled clause."""

    key: str
    obliges: Department
    start: Pattern
    answer: Pattern
    deadline: Deadline
    warn_at: tuple[float, ...]
    where: Compiled | None
    needs_profile: bool
    """`where` reads what intake publishes: attributes, source, campaign or age."""
    needs_qualification_state: bool
    """`where` reads what qualification publishes: stage, scores or grade."""
    count: int = 1
    """How many answers are owed."""
    until: Pattern | None = None
    """What else ends the scope."""
    is_answered_by_leaving: bool = False
    """Each entry into another stage answers it, so none ends its scope."""
    paused_in: frozenset[str] = frozenset()
    """Stages in which the time stands still."""
    paused_by: frozenset[str] = frozenset()
    resumed_by: frozenset[str] = frozenset()
    """Activities from which, and until which, it does."""
    reassignment: Reassignment = "moves"
    escalation: tuple[EscalationStep, ...] = ()

    @property
    def fractions(self) -> tuple[float, ...]:
        """The fractions of the time at which something is published, ascending."""
        return tuple(sorted({*self.warn_at, *(step.fraction for step in self.escalation)}))

    @property
    def has_pauses(self) -> bool:
        return bool(self.paused_in or self.paused_by)

    def ends_scope(self, fact: Fact, *, from_open_stage: bool) -> bool:
        """Whether a fact after the start takes the lead out of the clause's scope.

        `until` does, and an entry into a stage that is not open. Any entry does so in two cases: the clock started with a
        stage that is not open, or only a decision in the start's stage can answer. A stage that pauses never does.
        """
        if self.is_answered_by_leaving or (fact.kind == "stage" and fact.name in self.paused_in):
            return False
        if self.until is not None and self.until.matches(fact):
            return True
        if fact.kind != "stage":
            return False
        if fact.stage_kind != "open" or not from_open_stage:
            return True
        return self.start.kind == "stage" and self.answer.kind == "decision"

    def is_about_pauses(self, fact: Fact) -> bool:
        """Whether a fact can begin or end a pause."""
        if fact.kind == "activity":
            return fact.name in self.paused_by or fact.name in self.resumed_by
        return fact.kind == "stage" and bool(self.paused_in)

    def find_pauses(self, facts: Iterable[Fact], since: datetime) -> tuple[Pause, ...]:
        """The pauses since a moment by a lead's facts: ascending and disjoint, overlapping ones joined."""
        stages: list[Pause] = []
        activities: list[Pause] = []
        for fact in sorted(filter(self.is_about_pauses, facts), key=lambda fact: (fact.occurred_at, fact.sequence)):
            at = fact.occurred_at
            found, begins, ends = (
                (stages, fact.name in self.paused_in, fact.name not in self.paused_in)
                if fact.kind == "stage"
                else (activities, fact.name in self.paused_by, fact.name in self.resumed_by)
            )
            is_paused = bool(found) and found[-1].end is None
            if begins and not is_paused:
                found.append(Pause(at, None))
            elif ends and is_paused:
                found[-1] = Pause(found[-1].start, at)
        return _join_pauses([*stages, *activities], since)


def _join_pauses(pauses: Iterable[Pause], since: datetime) -> tuple[Pause, ...]:
    joined: list[Pause] = []
    for pause in sorted(pauses, key=lambda pause: pause.start):
        start, end = max(pause.start, since), pause.end
        if end is not None and end <= start:
            continue
        last = joined[-1] if joined else None
        if last is None or (last.end is not None and start > last.end):
            joined.append(Pause(start, end))
        elif last.end is not None:
            joined[-1] = Pause(last.start, None if end is None else max(end, last.end))
    return tuple(joined)


_MONTHS: Mapping[Per, int] = {"month": 1, "quarter": 3}


class Period(Struct, frozen=True, gc=False):
    """From its first moment to that of the next one, which is not in it."""

    start: datetime
    end: datetime


class PeriodRule(Struct, frozen=True, gc=False):
    """One compiled clause over a period. A volume has no `of`."""

    key: str
    obliges: Department
    over: Pattern
    of: Pattern | None
    per: Per
    zone: ZoneInfo
    at_least: float
    warn_at: tuple[float, ...]
    where: Compiled | None
    needs_profile: bool
    needs_qualification_state: bool
    escalation: tuple[EscalationStep, ...] = ()

    @property
    def fractions(self) -> tuple[float, ...]:
        """The fractions of the period at which something may be published, ascending."""
        return tuple(sorted({*self.warn_at, *(step.fraction for step in self.escalation)}))

    def matches(self, fact: Fact) -> bool:
        """Whether a fact counts in any way."""
        return self.over.matches(fact) or (self.of is not None and self.of.matches(fact))

    def period_of(self, moment: datetime) -> Period:
        """The period that a moment lies in, by the wall clock of the zone."""
        day = moment.astimezone(self.zone).date()
        first = self._first_day(day)
        return Period(self._midnight(first), self._midnight(self._next_first_day(first)))

    def whole_periods(self, since: datetime, before: datetime) -> Iterator[Period]:
        """The periods that begin at `since` or later, and before `before`, in order."""
        period = self.period_of(since)
        while period.start < before:
            if period.start >= since:
                yield period
            period = self.period_of(period.end)

    def _first_day(self, day: date) -> date:
        if self.per == "week":
            return day - timedelta(days=day.weekday())
        months = _MONTHS[self.per]
        return day.replace(month=(day.month - 1) // months * months + 1, day=1)

    def _next_first_day(self, first: date) -> date:
        if self.per == "week":
            return first + timedelta(days=7)
        month = first.month - 1 + _MONTHS[self.per]
        return first.replace(year=first.year + month // 12, month=month % 12 + 1)

    def _midnight(self, day: date) -> datetime:
        """The first moment of a local day; where a change of the clock skips midnight, the first one after it."""
        return datetime.combine(day, time(), self.zone).astimezone(UTC)


class CompiledSla(Struct, frozen=True, gc=False):
    """One version of the SLA."""

    version: int
    clauses: Mapping[str, ClauseRule]
    periods: Mapping[str, PeriodRule]
    """The clauses over a period."""
    zone: ZoneInfo
    """Of periods, and of months in reports."""
    calendars: Mapping[str, Calendar]
    activities: frozenset[str]
    """The kinds of activity that any clause names."""


class LeadSnapshot(Struct, frozen=True, gc=False):
    """What `where` reads, as of the start of a clock."""

    profile: Profile | None
    qualification_state: QualificationState | None
    at: datetime

    @property
    def attributes(self) -> Mapping[str, object]:
        return self.profile.attributes if self.profile else {}

    def value(self, path: str, within: timedelta | None) -> object:
        """The value at a path, MISSING if the lead has none. A draft with counts of activities is refused."""
        if within is not None:
            return MISSING
        is_profile_path = self.profile is not None and not is_qualification_path(path)
        value = self._profile_value(path) if is_profile_path else self._qualification_value(path)
        return MISSING if value is None else value

    def _profile_value(self, path: str) -> object:
        profile = self.profile
        if profile is None:
            return None
        if path == "source":
            return profile.source
        if path == "campaign.name":
            return profile.campaign
        if path == "age":
            return self.at - profile.captured_at
        root, _, name = path.partition(".")
        return profile.attributes.get(name) if root == "attributes" else None

    def _qualification_value(self, path: str) -> object:
        state = self.qualification_state
        if state is None or not is_qualification_path(path):
            return None
        return {
            "stage": state.stage,
            "grade": state.grade,
            "scores.fit": state.fit,
            "scores.engagement": state.engagement,
        }.get(path)


def is_qualification_path(path: str) -> bool:
    """Whether a path names what qualification publishes."""
    return path in ("stage", "grade") or path.startswith("scores.")


def compile_sla(version: int, sla: Sla, public_holidays: PublicHolidays) -> CompiledSla:
    """Compile a content that has been checked."""
    calendars = {name: build_calendar(terms, public_holidays) for name, terms in sla.calendars.items()}
    zone = ZoneInfo(sla.timezone)
    clauses = {
        clause.key: _compile_clause(clause, calendars) for clause in sla.clauses if isinstance(clause, LeadClause)
    }
    periods = {clause.key: _compile_period(clause, zone) for clause in sla.clauses if isinstance(clause, PeriodClause)}
    patterns = [
        *(pattern for rule in clauses.values() for pattern in (rule.start, rule.answer, rule.until)),
        *(pattern for period in periods.values() for pattern in (period.over, period.of)),
    ]
    named = [
        *(pattern.names for pattern in patterns if pattern is not None and pattern.kind == "activity"),
        *(names for rule in clauses.values() for names in (rule.paused_by, rule.resumed_by)),
    ]
    return CompiledSla(version, clauses, periods, zone, calendars, frozenset().union(*named))


def _compile_period(clause: PeriodClause, zone: ZoneInfo) -> PeriodRule:
    where = compile_criteria(clause.where) if clause.where else None
    paths = where.paths if where else frozenset()
    return PeriodRule(
        key=clause.key,
        obliges=clause.obliges,
        over=_compile_event(clause.over if isinstance(clause, RateClause) else Event(stage=clause.stage)),
        of=_compile_event(clause.of) if isinstance(clause, RateClause) else None,
        per=clause.per,
        zone=zone,
        at_least=clause.at_least,
        warn_at=tuple(clause.warn_at),
        where=where,
        needs_profile=any(not is_qualification_path(path) for path in paths),
        needs_qualification_state=any(is_qualification_path(path) for path in paths),
        escalation=_compile_steps(clause.escalate),
    )


def _compile_steps(steps: Iterable[Escalation]) -> tuple[EscalationStep, ...]:
    return tuple(
        EscalationStep(
            step.at,
            names_of(step.notify),
            step.severity,
            reassign=bool(step.reassign),
            expires_after=step.expires_after,
        )
        for step in steps
    )


def _compile_clause(clause: LeadClause, calendars: Mapping[str, Calendar]) -> ClauseRule:
    where = compile_criteria(clause.where) if clause.where else None
    paths = where.paths if where else frozenset()
    paused = clause.paused_by or PausedBy()
    start, answer, count, until = _compile_sides(clause)
    return ClauseRule(
        key=clause.key,
        obliges=clause.obliges,
        start=start,
        answer=answer,
        deadline=_compile_deadline(clause.within, calendars),
        warn_at=tuple(clause.warn_at),
        where=where,
        needs_profile=any(not is_qualification_path(path) for path in paths),
        needs_qualification_state=any(is_qualification_path(path) for path in paths),
        count=count,
        until=until,
        is_answered_by_leaving=clause.kind == "freshness",
        paused_in=frozenset(names_of(paused.stage)),
        paused_by=frozenset(names_of(paused.activity)),
        resumed_by=frozenset(names_of(paused.resumed_by)),
        reassignment=clause.on_reassignment or ("restarts" if start.kind == "assigned" else "moves"),
        escalation=_compile_steps(clause.escalate),
    )


def _compile_sides(clause: LeadClause) -> tuple[Pattern, Pattern, int, Pattern | None]:
    """Start, answer, how many answers are owed, and what else ends the scope."""
    if isinstance(clause, FreshnessClause):
        stage = frozenset((clause.stage,))
        return Pattern("stage", stage), Pattern("stage", excluded=stage), 1, None
    start = _compile_start(clause.from_)
    until = _compile_event(clause.until) if clause.until else None
    if isinstance(clause, AttemptsClause):
        kinds = frozenset(names_of(clause.of))
        return start, Pattern("activity", kinds, clause.by, _actor_kinds(clause.actor_kind)), clause.count, until
    answer = _compile_event(clause.to)
    if answer.kind == "activity":
        answer = replace(answer, actor_kinds=_actor_kinds(clause.to.actor_kind))
    return start, answer, 1, until


def _actor_kinds(terms: ActorKinds | None) -> frozenset[ActorKind]:
    if terms is None:
        return _PERSON
    return frozenset((terms,)) if isinstance(terms, str) else frozenset(terms)


def _compile_start(start: From) -> Pattern:
    if start.assigned:
        return Pattern("assigned")
    return Pattern("captured") if start.captured else _compile_event(start)


def _compile_event(event: Event) -> Pattern:
    if event.activity is not None:
        return Pattern("activity", frozenset(names_of(event.activity)), event.by)
    if event.decision is not None:
        return Pattern("decision", frozenset(names_of(event.decision)))
    return Pattern("stage", frozenset(names_of(event.stage)))


def _compile_deadline(within: Within, calendars: Mapping[str, Calendar]) -> Deadline:
    if within.elapsed is not None:
        return Deadline(None, within.elapsed)
    return Deadline(calendars[within.calendar or ""], within.business or timedelta(), within.business_days)
