"""An SLA compiled: each clause as what starts it, what answers it, what ends its scope, and when it is due. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from accord.contracts.values import MOMENT_MAX, Department, Party
from accord.terms.criteria import MISSING, Compiled, compile_criteria
from sla_monitor.domain.business_time import Calendar, due, due_after_days, open_time_between
from sla_monitor.domain.calendars import PublicHolidays, calendar_of
from sla_monitor.domain.facts import Fact, FactKind
from sla_monitor.domain.lead import Profile, Standing
from sla_monitor.domain.sla import Clause, From, Sla, To, Within, names_of


@dataclass(frozen=True, slots=True)
class Pattern:
    """Facts of one kind, by name; without names every one of the kind."""

    kind: FactKind
    names: frozenset[str]
    by: Party | None = None

    def matches(self, fact: Fact) -> bool:
        return (
            fact.kind == self.kind
            and (not self.names or fact.name in self.names)
            and (self.by is None or fact.by == self.by)
        )


@dataclass(frozen=True, slots=True)
class Deadline:
    """When a clock is due and when it warns, given its start."""

    due: Callable[[datetime], datetime]
    part: Callable[[datetime, datetime, float], datetime]
    """Start, due and fraction → the moment at which this fraction of the time has passed."""


@dataclass(frozen=True, slots=True)
class ClauseRule:
    """One clause, ready to be asked."""

    key: str
    obliges: Department
    start: Pattern
    answer: Pattern
    deadline: Deadline
    warn_at: tuple[float, ...]
    where: Compiled | None
    asks_profile: bool
    """`where` asks for what intake tells: attributes, source, campaign or age."""
    asks_standing: bool
    """`where` asks for what qualification tells: stage, scores or grade."""
    reassign: bool = False
    """Broken, it has the lead given to somebody else."""

    def ends_scope(self, entry: Fact, *, from_open_stage: bool) -> bool:
        """Whether a stage entry after the start takes the lead out of the clause's scope.

        An entry into a stage that is not open does. So does any entry where the clock started with a stage that is not
        open, and where only a decision in the stage it started with could answer.
        """
        if entry.stage_kind != "open" or not from_open_stage:
            return True
        return self.start.kind == "stage" and self.answer.kind == "decision"


@dataclass(frozen=True, slots=True)
class Rules:
    """One version of the SLA."""

    version: int
    clauses: Mapping[str, ClauseRule]
    calendars: Mapping[str, Calendar]
    activities: frozenset[str]
    """The kinds of activity that start or answer any clause."""


@dataclass(frozen=True, slots=True)
class LeadFacts:
    """What `where` is asked of, at the moment of a clock's start."""

    profile: Profile | None
    standing: Standing | None
    at: datetime

    @property
    def attributes(self) -> Mapping[str, object]:
        return self.profile.attributes if self.profile else {}

    def value(self, path: str, within: timedelta | None) -> object:
        """The value at a path, MISSING if the lead has none. Counts of activities are refused at the draft."""
        if within is not None:
            return MISSING
        found = self._of_profile(path) if self.profile and not asks_standing(path) else self._of_standing(path)
        return MISSING if found is None else found

    def _of_profile(self, path: str) -> object:
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

    def _of_standing(self, path: str) -> object:
        standing = self.standing
        if standing is None or not asks_standing(path):
            return None
        return {
            "stage": standing.stage,
            "grade": standing.grade,
            "scores.fit": standing.fit,
            "scores.engagement": standing.engagement,
        }.get(path)


def asks_standing(path: str) -> bool:
    """Whether a path asks for what qualification tells."""
    return path in ("stage", "grade") or path.startswith("scores.")


def compile_sla(version: int, sla: Sla, public: PublicHolidays) -> Rules:
    """The rules of a content that has been checked."""
    calendars = {name: calendar_of(terms, public) for name, terms in sla.calendars.items()}
    clauses = {clause.key: _clause(clause, calendars) for clause in sla.clauses}
    patterns = [pattern for rule in clauses.values() for pattern in (rule.start, rule.answer)]
    activities = frozenset(name for pattern in patterns if pattern.kind == "activity" for name in pattern.names)
    return Rules(version, clauses, calendars, activities)


def _clause(clause: Clause, calendars: Mapping[str, Calendar]) -> ClauseRule:
    where = compile_criteria(clause.where) if clause.where else None
    paths = where.paths if where else frozenset()
    return ClauseRule(
        key=clause.key,
        obliges=clause.obliges,
        start=_start(clause.from_),
        answer=_pattern(clause.to),
        deadline=_deadline(clause.within, calendars),
        warn_at=tuple(clause.warn_at),
        where=where,
        asks_profile=any(not asks_standing(path) for path in paths),
        asks_standing=any(asks_standing(path) for path in paths),
        reassign=any(step.reassign for step in clause.escalate),
    )


def _start(start: From) -> Pattern:
    if start.assigned:
        return Pattern("assigned", frozenset())
    if start.captured:
        return Pattern("captured", frozenset())
    return _pattern(start)


def _pattern(side: From | To) -> Pattern:
    if side.activity is not None:
        return Pattern("activity", frozenset(names_of(side.activity)), side.by)
    if side.decision is not None:
        return Pattern("decision", frozenset(names_of(side.decision)))
    return Pattern("stage", frozenset(names_of(side.stage)))


def _deadline(within: Within, calendars: Mapping[str, Calendar]) -> Deadline:
    if within.elapsed is not None:
        return _elapsed(within.elapsed)
    calendar = calendars[within.calendar or ""]
    business, days = within.business, within.business_days

    def due_at(start: datetime) -> datetime:
        return due(calendar, start, business) if business is not None else due_after_days(calendar, start, days or 1)

    def part(start: datetime, end: datetime, fraction: float) -> datetime:
        return due(calendar, start, open_time_between(calendar, start, end) * fraction)

    return Deadline(due_at, part)


def _elapsed(amount: timedelta) -> Deadline:
    def due_at(start: datetime) -> datetime:
        return start + min(amount, MOMENT_MAX - start)

    def part(start: datetime, end: datetime, fraction: float) -> datetime:
        return start + (end - start) * fraction

    return Deadline(due_at, part)
