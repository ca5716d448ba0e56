"""Checks an SLA before anybody signs it. Each finding has a pointer; an empty list means that it can be signed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from zoneinfo import ZoneInfo

from pydantic import ValidationError

from accord.terms.criteria import Criteria
from accord.terms.durations import DURATION_MAX
from accord.terms.findings import Finding, find_shape_errors, pointer
from accord.terms.week import DAY_S, find_week_errors, parse_week
from sla_monitor.domain.business_time import CLOSED_DAYS_MAX, open_per_week
from sla_monitor.domain.calendars import DAYS_FROM, DAYS_TO, PublicHolidays, UnknownRegion, closed_days
from sla_monitor.domain.sla import (
    AttemptsClause,
    CalendarTerms,
    Event,
    FreshnessClause,
    LeadClause,
    PausedBy,
    PeriodClause,
    RateClause,
    ResponseClause,
    Sla,
    Within,
    names_of,
)

CALENDAR_WEEKS_MAX = 5 * 52
"""A duration that takes more of a calendar's weeks than this (five years) is a mistake."""

NOT_SUPPORTED = "is not supported by this version"


def check_sla(content: Mapping[str, object], public_holidays: PublicHolidays) -> list[Finding]:
    """Every error in the content: of its shape, or, where the shape is valid, of its meaning."""
    try:
        sla = Sla.model_validate(content)
    except ValidationError as error:
        return find_shape_errors(error, content)
    return [
        *_check_zone("", sla.timezone),
        *_check_calendars(sla, public_holidays),
        *_check_clauses(sla),
    ]


# --- Calendars ---


def _check_calendars(sla: Sla, public_holidays: PublicHolidays) -> Iterator[Finding]:
    for name, terms in sla.calendars.items():
        at = pointer("calendars", name)
        errors = [
            *_check_zone(at, terms.timezone),
            *_check_week(at, terms),
            *_check_holidays(at, terms, public_holidays),
        ]
        yield from errors or _check_open_time(at, terms, public_holidays)


def _check_zone(at: str, timezone: str) -> Iterator[Finding]:
    try:
        ZoneInfo(timezone)
    except (KeyError, ValueError, OSError):
        yield Finding(f"{at}/timezone", "is not an IANA time zone, such as America/Chicago")


def _check_week(at: str, terms: CalendarTerms) -> Iterator[Finding]:
    for keys, message in find_week_errors(terms.week):
        yield Finding(f"{at}/week{pointer(*keys)}", message)


def _check_holidays(at: str, terms: CalendarTerms, public_holidays: PublicHolidays) -> Iterator[Finding]:
    holidays = terms.holidays
    if holidays.subdivision and not holidays.country:
        yield Finding(f"{at}/holidays/subdivision", "is allowed only with a country")
    elif holidays.country:
        try:
            public_holidays(holidays.country, holidays.subdivision)
        except UnknownRegion as error:
            yield Finding(f"{at}/holidays/{'subdivision' if error.subdivision else 'country'}", str(error))
    for name, days in (("extra", holidays.extra), ("except", holidays.except_)):
        for index, day in enumerate(days):
            location = f"{at}/holidays/{name}/{index}"
            if not _is_date(day):
                yield Finding(location, f"is not a date from {DAYS_FROM} to {DAYS_TO}")
            elif day in days[:index]:
                yield Finding(location, f"{day} appears twice")
            elif name == "except" and day in holidays.extra:
                yield Finding(location, f"{day} is an extra day off already")


def _is_date(words: str) -> bool:
    try:
        return DAYS_FROM <= date.fromisoformat(words) <= DAYS_TO
    except ValueError:
        return False


def _check_open_time(at: str, terms: CalendarTerms, public_holidays: PublicHolidays) -> Iterator[Finding]:
    """A finding if the calendar is ever closed for two years."""
    week, closed = parse_week(terms.week), closed_days(terms.holidays, public_holidays)
    last_open = DAYS_FROM.toordinal()
    for ordinal in range(last_open, DAYS_TO.toordinal() + 1):
        if week[(ordinal - 1) % 7] and ordinal not in closed:  # ordinal 1 is a Monday
            last_open = ordinal
        elif ordinal - last_open > CLOSED_DAYS_MAX:
            yield Finding(at, "has no open time for two years")
            return


def find_warnings(sla: Sla, public_holidays: PublicHolidays) -> Iterator[str]:
    """What both should know before they sign a content that has been checked: what hardly anybody means."""
    for name, terms in sla.calendars.items():
        if any(hours.end_s % DAY_S == DAY_S - 60 for day in parse_week(terms.week) for hours in day):
            yield f"The calendar {name} closes at 23:59, so it is closed for a minute each night; 24:00 is midnight."
        holidays = terms.holidays
        public = public_holidays(holidays.country, holidays.subdivision) if holidays.country else {}
        idle = [day for day in holidays.except_ if date.fromisoformat(day).toordinal() not in public]
        if idle:
            yield f"The calendar {name} excepts days that are no holidays there: {', '.join(idle)}. Is it another year?"


# --- Clauses ---


def _check_clauses(sla: Sla) -> Iterator[Finding]:
    seen_keys: set[str] = set()
    for index, clause in enumerate(sla.clauses):
        at = pointer("clauses", index)
        if clause.key in seen_keys:
            yield Finding(f"{at}/key", f"the clause {clause.key} appears twice")
        seen_keys.add(clause.key)
        if isinstance(clause, PeriodClause):
            yield from _check_period(at, clause)
        else:
            yield from _check_lead_clause(at, clause, sla)
        yield from _check_steps(at, clause)
        if clause.where is not None:
            yield from _check_where(f"{at}/where", clause, clause.where)


def _check_lead_clause(at: str, clause: LeadClause, sla: Sla) -> Iterator[Finding]:
    yield from _check_sides(at, clause)
    yield from _check_within(f"{at}/within", clause.within, sla)
    yield from _check_reassignment(at, clause)
    if clause.paused_by is not None:
        yield from _check_pauses(at, clause, clause.paused_by)


def _check_period(at: str, clause: PeriodClause) -> Iterator[Finding]:
    if isinstance(clause, RateClause):
        yield from _check_event(f"{at}/of", clause.of, _SIDES)
        yield from _check_event(f"{at}/over", clause.over, _SIDES)
        if clause.of == clause.over:
            yield Finding(f"{at}/over", "is the same as of, so the rate is always 1")
    else:
        yield from _find_repeated(f"{at}/stage", clause.stage)
    for index, step in enumerate(clause.escalate):
        if step.reassign:
            yield Finding(f"{at}/escalate/{index}/reassign", "a clause over a period is about no single lead")


_SIDES = ("stage", "decision", "activity")
_STARTS = (*_SIDES, "assigned", "captured")


def _check_sides(at: str, clause: LeadClause) -> Iterator[Finding]:
    """What starts, answers and ends a clause."""
    if isinstance(clause, FreshnessClause):
        return
    yield from _check_event(f"{at}/from", clause.from_, _STARTS)
    if isinstance(clause, ResponseClause):
        yield from _check_event(f"{at}/to", clause.to, _SIDES)
        if clause.to.actor_kind is not None and clause.to.activity is None:
            yield Finding(f"{at}/to/actor_kind", "is allowed only with an activity")
        yield from _find_shared(f"{at}/to/stage", clause.to.stage, clause.from_.stage, "is also a stage of from")
    else:
        yield from _find_repeated(f"{at}/of", clause.of)
    if clause.until is not None:
        yield from _check_event(f"{at}/until", clause.until, _SIDES)
        for name in _SIDES:
            shared = getattr(clause.until, name)
            yield from _find_shared(f"{at}/until/{name}", shared, getattr(clause.from_, name), "starts the clause")
            if isinstance(clause, ResponseClause):
                yield from _find_shared(f"{at}/until/{name}", shared, getattr(clause.to, name), "answers the clause")
        if isinstance(clause, AttemptsClause):
            yield from _find_shared(f"{at}/until/activity", clause.until.activity, clause.of, "is an attempt")


def _check_event(at: str, event: Event, names: Sequence[str]) -> Iterator[Finding]:
    if sum(getattr(event, name) is not None for name in names) != 1:
        yield Finding(at, f"must be exactly one of {', '.join(names)}")
    if event.by is not None and event.activity is None:
        yield Finding(f"{at}/by", "is allowed only with an activity")
    for name in _SIDES:
        yield from _find_repeated(f"{at}/{name}", getattr(event, name))


def _find_repeated(at: str, terms: str | list[str] | None) -> Iterator[Finding]:
    names = names_of(terms)
    for index, word in enumerate(names):
        if word in names[:index]:
            yield Finding(f"{at}/{index}", f"{word} appears twice")


def _find_shared(
    at: str, terms: str | list[str] | None, others: str | list[str] | None, message: str
) -> Iterator[Finding]:
    both = set(names_of(terms)) & set(names_of(others))
    if both:
        yield Finding(at, f"{', '.join(sorted(both))} {message}")


def _check_reassignment(at: str, clause: LeadClause) -> Iterator[Finding]:
    if clause.on_reassignment == "ends" and not isinstance(clause, FreshnessClause) and clause.from_.assigned:
        yield Finding(f"{at}/on_reassignment", "another assignment starts the clause again: restarts, or moves")


def _check_pauses(at: str, clause: LeadClause, paused: PausedBy) -> Iterator[Finding]:
    at = f"{at}/paused_by"
    if paused.stage is None and paused.activity is None:
        yield Finding(at, "must be a stage, an activity, or both")
    if (paused.activity is None) != (paused.resumed_by is None):
        yield Finding(at, "an activity and resumed_by belong together")
    yield from _find_repeated(f"{at}/stage", paused.stage)
    yield from _find_repeated(f"{at}/activity", paused.activity)
    yield from _find_repeated(f"{at}/resumed_by", paused.resumed_by)
    yield from _find_shared(f"{at}/resumed_by", paused.resumed_by, paused.activity, "also pauses the clause")
    stages = clause.stage if isinstance(clause, FreshnessClause) else clause.from_.stage
    yield from _find_shared(f"{at}/stage", paused.stage, stages, "starts the clause, so it would never run")


def _check_steps(at: str, clause: LeadClause | PeriodClause) -> Iterator[Finding]:
    if clause.warn_at != sorted(set(clause.warn_at)):
        yield Finding(f"{at}/warn_at", "must ascend")
    for index, step in enumerate(clause.escalate):
        path = f"{at}/escalate/{index}"
        if not (step.notify or step.severity or step.reassign):
            yield Finding(path, "must notify, reassign or set a severity")
        if step.expires_after is not None and not step.reassign:
            yield Finding(f"{path}/expires_after", "is allowed only with reassign")
        if index and step.at < clause.escalate[index - 1].at:
            yield Finding(f"{path}/at", "must ascend")
        yield from _find_repeated(f"{path}/notify", step.notify)
    if sum(bool(step.reassign) for step in clause.escalate) > 1:
        yield Finding(f"{at}/escalate", "reassigns more than once")


def _check_within(at: str, within: Within, sla: Sla) -> Iterator[Finding]:
    ways = ("elapsed", "business", "business_days")
    if sum(getattr(within, name) is not None for name in ways) != 1:
        yield Finding(at, f"must be exactly one of {', '.join(ways)}")
        return
    for name in ("elapsed", "business"):
        amount = getattr(within, name)
        if amount is not None and not timedelta() < amount <= DURATION_MAX:
            yield Finding(f"{at}/{name}", "must be greater than zero")
    if within.elapsed is not None:
        if within.calendar is not None:
            yield Finding(f"{at}/calendar", "is allowed only with business or business_days")
    elif within.calendar is None:
        yield Finding(f"{at}/calendar", "is missing")
    elif within.calendar not in sla.calendars:
        yield Finding(f"{at}/calendar", f"there is no calendar {within.calendar}")
    else:
        yield from _check_duration_fits(at, within, sla.calendars[within.calendar])


def _check_duration_fits(at: str, within: Within, terms: CalendarTerms) -> Iterator[Finding]:
    """Findings if the duration takes more than five years of the calendar's weeks."""
    try:
        week = parse_week(terms.week)
    except ValueError:
        return  # reported at the calendar
    per_week, days_per_week = open_per_week(week), sum(bool(day) for day in week)
    if within.business is not None and within.business > CALENDAR_WEEKS_MAX * per_week:
        yield Finding(f"{at}/business", "takes more than five years of this calendar")
    if within.business_days is not None and within.business_days > CALENDAR_WEEKS_MAX * days_per_week:
        yield Finding(f"{at}/business_days", "takes more than five years of this calendar")


def _check_where(at: str, clause: LeadClause | PeriodClause, where: Criteria) -> Iterator[Finding]:
    is_from_capture = isinstance(clause, ResponseClause | AttemptsClause) and clause.from_.captured
    for location, leaf in _iterate_comparisons(at, where):
        if leaf.path.startswith("account."):
            yield Finding(f"{location}/path", "account data is not available to the SLA; use an attribute")
        elif leaf.path.startswith("activities."):
            yield Finding(f"{location}/path", f"a count of activities in where {NOT_SUPPORTED}")
        elif is_from_capture and (leaf.path in ("stage", "grade") or leaf.path.startswith("scores.")):
            yield Finding(f"{location}/path", f"a lead has no {leaf.path} yet when it is captured")


def _iterate_comparisons(at: str, criteria: Criteria) -> Iterator[tuple[str, Criteria]]:
    """Every comparison with its pointer."""
    if criteria.path:
        yield at, criteria
    name = "all" if criteria.all else "any" if criteria.any else "none"
    for index, child in enumerate(criteria.children):
        yield from _iterate_comparisons(f"{at}/{name}/{index}", child)
