"""Checks an SLA before anybody signs it. Each finding has a pointer; an empty list means that it can be signed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from zoneinfo import ZoneInfo

from pydantic import ValidationError

from accord.terms.criteria import Criteria
from accord.terms.durations import DURATION_MAX
from accord.terms.findings import Finding, find_shape_errors, pointer
from accord.terms.week import find_week_errors, parse_week
from sla_monitor.domain.business_time import CLOSED_DAYS_MAX, open_per_week
from sla_monitor.domain.calendars import DAYS_FROM, DAYS_TO, PublicHolidays, UnknownRegion, closed_days
from sla_monitor.domain.sla import CalendarTerms, Clause, Sla, Within, names_of

CALENDAR_WEEKS_MAX = 5 * 52
"""A duration that takes more of a calendar's weeks than this (five years) is a mistake."""

NOT_SUPPORTED = "is not supported by this version"
_UNSUPPORTED_KINDS = ("attempts", "volume", "rate", "freshness")
_UNSUPPORTED_KEYS = ("paused_by",)
_REASSIGNED = [{"at": 1.0, "reassign": True}]


def check_sla(content: Mapping[str, object], public_holidays: PublicHolidays) -> list[Finding]:
    """Every error in the content: of its shape, or, where the shape is valid, of its meaning."""
    unsupported = list(_find_unsupported(content))
    try:
        sla = Sla.model_validate(content)
    except ValidationError as error:
        unsupported_at = tuple(finding.pointer.removesuffix("/kind") for finding in unsupported)
        return [
            *unsupported,
            *(
                finding
                for finding in find_shape_errors(error, content)
                if not _is_below(finding.pointer, unsupported_at)
            ),
        ]
    return [*_check_calendars(sla, public_holidays), *_check_clauses(sla)]


def _is_below(path: str, pointers: Sequence[str]) -> bool:
    return any(path == other or path.startswith(other + "/") for other in pointers)


def _find_unsupported(content: Mapping[str, object]) -> Iterator[Finding]:
    """Terms that this version does not support yet."""
    clauses = content.get("clauses")
    for index, clause in enumerate(clauses if isinstance(clauses, list) else ()):
        if not isinstance(clause, Mapping):
            continue
        if clause.get("kind") in _UNSUPPORTED_KINDS:
            yield Finding(pointer("clauses", index, "kind"), f"a clause of the kind {clause['kind']} {NOT_SUPPORTED}")
            continue
        for key in _UNSUPPORTED_KEYS:
            if key in clause:
                yield Finding(pointer("clauses", index, key), f"{key} {NOT_SUPPORTED}")
        if clause.get("escalate", _REASSIGNED) not in ([], _REASSIGNED):
            yield Finding(
                pointer("clauses", index, "escalate"), f"another step than {{at: 1.0, reassign: true}} {NOT_SUPPORTED}"
            )


# --- Calendars ---


def _check_calendars(sla: Sla, public_holidays: PublicHolidays) -> Iterator[Finding]:
    for name, terms in sla.calendars.items():
        at = pointer("calendars", name)
        errors = [*_check_zone(at, terms), *_check_week(at, terms), *_check_holidays(at, terms, public_holidays)]
        yield from errors or _check_open_time(at, terms, public_holidays)


def _check_zone(at: str, terms: CalendarTerms) -> Iterator[Finding]:
    try:
        ZoneInfo(terms.timezone)
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


# --- Clauses ---


def _check_clauses(sla: Sla) -> Iterator[Finding]:
    seen_keys: set[str] = set()
    for index, clause in enumerate(sla.clauses):
        at = pointer("clauses", index)
        if clause.key in seen_keys:
            yield Finding(f"{at}/key", f"the clause {clause.key} appears twice")
        seen_keys.add(clause.key)
        yield from _check_start_and_answer(at, clause)
        yield from _check_within(f"{at}/within", clause.within, sla)
        if clause.warn_at != sorted(set(clause.warn_at)):
            yield Finding(f"{at}/warn_at", "must ascend")
        if clause.where is not None:
            yield from _check_where(f"{at}/where", clause, clause.where)


def _check_start_and_answer(at: str, clause: Clause) -> Iterator[Finding]:
    start, owed = clause.from_, clause.to
    starts = ("stage", "assigned", "decision", "activity", "captured")
    if sum(getattr(start, name) is not None for name in starts) != 1:
        yield Finding(f"{at}/from", f"must be exactly one of {', '.join(starts)}")
    answers = ("decision", "activity", "stage")
    if sum(getattr(owed, name) is not None for name in answers) != 1:
        yield Finding(f"{at}/to", f"must be exactly one of {', '.join(answers)}")
    for name, side in (("from", start), ("to", owed)):
        if side.by is not None and side.activity is None:
            yield Finding(f"{at}/{name}/by", "is allowed only with an activity")
        for kind in answers:
            names = names_of(getattr(side, kind))
            for index, word in enumerate(names):
                if word in names[:index]:
                    yield Finding(f"{at}/{name}/{kind}/{index}", f"{word} appears twice")
    both = set(names_of(start.stage)) & set(names_of(owed.stage))
    if both:
        yield Finding(f"{at}/to/stage", f"{', '.join(sorted(both))} is also a stage of from")


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


def _check_where(at: str, clause: Clause, where: Criteria) -> Iterator[Finding]:
    for location, leaf in _iterate_comparisons(at, where):
        if leaf.path.startswith("account."):
            yield Finding(f"{location}/path", "account data is not available to the SLA; use an attribute")
        elif leaf.path.startswith("activities."):
            yield Finding(f"{location}/path", f"a count of activities in where {NOT_SUPPORTED}")
        elif clause.from_.captured and (leaf.path in ("stage", "grade") or leaf.path.startswith("scores.")):
            yield Finding(f"{location}/path", f"a lead has no {leaf.path} yet when it is captured")


def _iterate_comparisons(at: str, criteria: Criteria) -> Iterator[tuple[str, Criteria]]:
    """Every comparison with its pointer."""
    if criteria.path:
        yield at, criteria
    name = "all" if criteria.all else "any" if criteria.any else "none"
    for index, child in enumerate(criteria.children):
        yield from _iterate_comparisons(f"{at}/{name}/{index}", child)
