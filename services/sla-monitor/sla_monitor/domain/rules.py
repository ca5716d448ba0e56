"""The compiled SLA: for each clause its start, its answer, the end of its scope and its deadline. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from msgspec import Struct

from accord.contracts.values import MOMENT_MAX, Department, Party
from accord.terms.criteria import MISSING, Compiled, compile_criteria
from sla_monitor.domain.business_time import Calendar, add_open_days, add_open_time, measure_open_time
from sla_monitor.domain.calendars import PublicHolidays, build_calendar
from sla_monitor.domain.facts import Fact, FactKind
from sla_monitor.domain.lead import Profile, QualificationState
from sla_monitor.domain.sla import Clause, From, Sla, To, Within, names_of


class Pattern(Struct, frozen=True, gc=False):
    """Matches facts of one kind by name; without names, every fact of the kind."""

    kind: FactKind
    names: frozenset[str]
    by: Party | None = None

    def matches(self, fact: Fact) -> bool:
        return (
            fact.kind == self.kind
            and (not self.names or fact.name in self.names)
            and (self.by is None or fact.by == self.by)
        )


class Deadline(Struct, frozen=True, gc=False):
    """When a clock is due and when it warns, given its start."""

    due_at: Callable[[datetime], datetime]
    at_fraction: Callable[[datetime, datetime, float], datetime]
    """From start, due and fraction to the moment at which this fraction of the time has passed."""


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
    reassign: bool = False
    """A breach of the clause reassigns the lead."""

    def ends_scope(self, entry: Fact, *, from_open_stage: bool) -> bool:
        """Whether a stage entry after the start takes the lead out of the clause's scope.

        An entry into a stage that is not open does. Any entry does so in two cases: the clock started with a stage that is
        not open, or only a decision in the start's stage can answer.
        """
        if entry.stage_kind != "open" or not from_open_stage:
            return True
        return self.start.kind == "stage" and self.answer.kind == "decision"


class CompiledSla(Struct, frozen=True, gc=False):
    """One version of the SLA."""

    version: int
    clauses: Mapping[str, ClauseRule]
    calendars: Mapping[str, Calendar]
    activities: frozenset[str]
    """The kinds of activity that start or answer any clause."""


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
    clauses = {clause.key: _compile_clause(clause, calendars) for clause in sla.clauses}
    patterns = [pattern for rule in clauses.values() for pattern in (rule.start, rule.answer)]
    activities = frozenset(name for pattern in patterns if pattern.kind == "activity" for name in pattern.names)
    return CompiledSla(version, clauses, calendars, activities)


def _compile_clause(clause: Clause, calendars: Mapping[str, Calendar]) -> ClauseRule:
    where = compile_criteria(clause.where) if clause.where else None
    paths = where.paths if where else frozenset()
    return ClauseRule(
        key=clause.key,
        obliges=clause.obliges,
        start=_start_pattern(clause.from_),
        answer=_compile_pattern(clause.to),
        deadline=_compile_deadline(clause.within, calendars),
        warn_at=tuple(clause.warn_at),
        where=where,
        needs_profile=any(not is_qualification_path(path) for path in paths),
        needs_qualification_state=any(is_qualification_path(path) for path in paths),
        reassign=any(step.reassign for step in clause.escalate),
    )


def _start_pattern(start: From) -> Pattern:
    if start.assigned:
        return Pattern("assigned", frozenset())
    if start.captured:
        return Pattern("captured", frozenset())
    return _compile_pattern(start)


def _compile_pattern(side: From | To) -> Pattern:
    if side.activity is not None:
        return Pattern("activity", frozenset(names_of(side.activity)), side.by)
    if side.decision is not None:
        return Pattern("decision", frozenset(names_of(side.decision)))
    return Pattern("stage", frozenset(names_of(side.stage)))


def _compile_deadline(within: Within, calendars: Mapping[str, Calendar]) -> Deadline:
    if within.elapsed is not None:
        return _elapsed_deadline(within.elapsed)
    calendar = calendars[within.calendar or ""]
    business, days = within.business, within.business_days

    def due_at(start: datetime) -> datetime:
        return (
            add_open_time(calendar, start, business)
            if business is not None
            else add_open_days(calendar, start, days or 1)
        )

    def at_fraction(start: datetime, end: datetime, fraction: float) -> datetime:
        return add_open_time(calendar, start, measure_open_time(calendar, start, end) * fraction)

    return Deadline(due_at, at_fraction)


def _elapsed_deadline(amount: timedelta) -> Deadline:
    def due_at(start: datetime) -> datetime:
        return start + min(amount, MOMENT_MAX - start)

    def at_fraction(start: datetime, end: datetime, fraction: float) -> datetime:
        return start + (end - start) * fraction

    return Deadline(due_at, at_fraction)
