"""What is wrong with an SLA before anybody signs it: each finding points at the place. Empty means that it can be used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from zoneinfo import ZoneInfo

from pydantic import ValidationError

from accord.terms.criteria import Criteria
from accord.terms.durations import DURATION_MAX
from accord.terms.findings import Finding, pointer, shape
from accord.terms.week import flaws, week_in
from sla_monitor.domain.business_time import CLOSED_DAYS_MAX, open_per_week
from sla_monitor.domain.calendars import DAYS_FROM, DAYS_TO, PublicHolidays, UnknownPlace, closed_days
from sla_monitor.domain.sla import CalendarTerms, Clause, Sla, Within, names_of

CALENDAR_WEEKS_MAX = 5 * 52
"""A time that takes more of a calendar's weeks than this (five years) is a slip of the pen."""

NOT_YET = "is not supported by this version"
_LATER_KINDS = ("attempts", "volume", "rate", "freshness")
_LATER_KEYS = ("paused_by",)
_REASSIGNED = [{"at": 1.0, "reassign": True}]


def check(content: Mapping[str, object], public: PublicHolidays) -> list[Finding]:
    """Everything wrong with the content; shape first, since meaning can be asked only of what has a shape."""
    later = list(_later(content))
    try:
        sla = Sla.model_validate(content)
    except ValidationError as error:
        unsupported = tuple(finding.pointer.removesuffix("/kind") for finding in later)
        return [*later, *(found for found in shape(error, content) if not _below(found.pointer, unsupported))]
    return [*_calendars(sla, public), *_clauses(sla)]


def _below(place: str, pointers: Sequence[str]) -> bool:
    return any(place == other or place.startswith(other + "/") for other in pointers)


def _later(content: Mapping[str, object]) -> Iterator[Finding]:
    """What the agreement's language has and this version does not keep yet."""
    clauses = content.get("clauses")
    for place, clause in enumerate(clauses if isinstance(clauses, list) else ()):
        if not isinstance(clause, Mapping):
            continue
        if clause.get("kind") in _LATER_KINDS:
            yield Finding(pointer("clauses", place, "kind"), f"a clause of the kind {clause['kind']} {NOT_YET}")
            continue
        for key in _LATER_KEYS:
            if key in clause:
                yield Finding(pointer("clauses", place, key), f"{key} {NOT_YET}")
        if clause.get("escalate", _REASSIGNED) not in ([], _REASSIGNED):
            yield Finding(
                pointer("clauses", place, "escalate"), f"another step than {{at: 1.0, reassign: true}} {NOT_YET}"
            )


# --- Calendars ---


def _calendars(sla: Sla, public: PublicHolidays) -> Iterator[Finding]:
    for name, terms in sla.calendars.items():
        at = pointer("calendars", name)
        wrong = [*_zone(at, terms), *_week(at, terms), *_days(at, terms, public)]
        yield from wrong or _opens(at, terms, public)


def _zone(at: str, terms: CalendarTerms) -> Iterator[Finding]:
    try:
        ZoneInfo(terms.timezone)
    except (KeyError, ValueError, OSError):
        yield Finding(f"{at}/timezone", "is no IANA time zone, such as America/Chicago")


def _week(at: str, terms: CalendarTerms) -> Iterator[Finding]:
    for way, message in flaws(terms.week):
        yield Finding(f"{at}/week{pointer(*way)}", message)


def _days(at: str, terms: CalendarTerms, public: PublicHolidays) -> Iterator[Finding]:
    holidays = terms.holidays
    if holidays.subdivision and not holidays.country:
        yield Finding(f"{at}/holidays/subdivision", "goes only with a country")
    elif holidays.country:
        try:
            public(holidays.country, holidays.subdivision)
        except UnknownPlace as error:
            yield Finding(f"{at}/holidays/{'subdivision' if error.subdivision else 'country'}", str(error))
    for name, days in (("extra", holidays.extra), ("except", holidays.except_)):
        for place, day in enumerate(days):
            spot = f"{at}/holidays/{name}/{place}"
            if not _is_date(day):
                yield Finding(spot, f"is no date from {DAYS_FROM} to {DAYS_TO}")
            elif day in days[:place]:
                yield Finding(spot, f"{day} is there twice")
            elif name == "except" and day in holidays.extra:
                yield Finding(spot, f"{day} is an extra day off already")


def _is_date(words: str) -> bool:
    try:
        return DAYS_FROM <= date.fromisoformat(words) <= DAYS_TO
    except ValueError:
        return False


def _opens(at: str, terms: CalendarTerms, public: PublicHolidays) -> Iterator[Finding]:
    """Whether the calendar is ever closed for two years."""
    week, closed = week_in(terms.week), closed_days(terms.holidays, public)
    last_open = DAYS_FROM.toordinal()
    for ordinal in range(last_open, DAYS_TO.toordinal() + 1):
        if week[(ordinal - 1) % 7] and ordinal not in closed:  # ordinal 1 is a Monday
            last_open = ordinal
        elif ordinal - last_open > CLOSED_DAYS_MAX:
            yield Finding(at, "has no open time for two years")
            return


# --- Clauses ---


def _clauses(sla: Sla) -> Iterator[Finding]:
    seen: set[str] = set()
    for place, clause in enumerate(sla.clauses):
        at = pointer("clauses", place)
        if clause.key in seen:
            yield Finding(f"{at}/key", f"the clause {clause.key} is there twice")
        seen.add(clause.key)
        yield from _from_and_to(at, clause)
        yield from _within(f"{at}/within", clause.within, sla)
        if clause.warn_at != sorted(set(clause.warn_at)):
            yield Finding(f"{at}/warn_at", "must ascend")
        if clause.where is not None:
            yield from _where(f"{at}/where", clause, clause.where)


def _from_and_to(at: str, clause: Clause) -> Iterator[Finding]:
    start, owed = clause.from_, clause.to
    starts = ("stage", "assigned", "decision", "activity", "captured")
    if sum(getattr(start, name) is not None for name in starts) != 1:
        yield Finding(f"{at}/from", f"must be exactly one of {', '.join(starts)}")
    answers = ("decision", "activity", "stage")
    if sum(getattr(owed, name) is not None for name in answers) != 1:
        yield Finding(f"{at}/to", f"must be exactly one of {', '.join(answers)}")
    for name, side in (("from", start), ("to", owed)):
        if side.by is not None and side.activity is None:
            yield Finding(f"{at}/{name}/by", "goes only with an activity")
        for what in answers:
            names = names_of(getattr(side, what))
            for place, word in enumerate(names):
                if word in names[:place]:
                    yield Finding(f"{at}/{name}/{what}/{place}", f"{word} is there twice")
    both = set(names_of(start.stage)) & set(names_of(owed.stage))
    if both:
        yield Finding(f"{at}/to/stage", f"{', '.join(sorted(both))} is where the clock starts")


def _within(at: str, within: Within, sla: Sla) -> Iterator[Finding]:
    ways = ("elapsed", "business", "business_days")
    if sum(getattr(within, name) is not None for name in ways) != 1:
        yield Finding(at, f"must be exactly one of {', '.join(ways)}")
        return
    for name in ("elapsed", "business"):
        amount = getattr(within, name)
        if amount is not None and not timedelta() < amount <= DURATION_MAX:
            yield Finding(f"{at}/{name}", "must be longer than nothing")
    if within.elapsed is not None:
        if within.calendar is not None:
            yield Finding(f"{at}/calendar", "goes only with business or business_days")
    elif within.calendar is None:
        yield Finding(f"{at}/calendar", "is missing")
    elif within.calendar not in sla.calendars:
        yield Finding(f"{at}/calendar", f"there is no calendar {within.calendar}")
    else:
        yield from _fits(at, within, sla.calendars[within.calendar])


def _fits(at: str, within: Within, terms: CalendarTerms) -> Iterator[Finding]:
    """Whether the time passes within five years of the calendar's weeks."""
    try:
        week = week_in(terms.week)
    except ValueError:
        return  # told at the calendar
    per_week, days_per_week = open_per_week(week), sum(bool(day) for day in week)
    if within.business is not None and within.business > CALENDAR_WEEKS_MAX * per_week:
        yield Finding(f"{at}/business", "takes more than five years of this calendar")
    if within.business_days is not None and within.business_days > CALENDAR_WEEKS_MAX * days_per_week:
        yield Finding(f"{at}/business_days", "takes more than five years of this calendar")


def _where(at: str, clause: Clause, where: Criteria) -> Iterator[Finding]:
    for spot, leaf in _leaves(at, where):
        if leaf.path.startswith("account."):
            yield Finding(f"{spot}/path", "what is known of accounts does not reach the SLA; ask for an attribute")
        elif leaf.path.startswith("activities."):
            yield Finding(f"{spot}/path", f"a count of activities in where {NOT_YET}")
        elif clause.from_.captured and (leaf.path in ("stage", "grade") or leaf.path.startswith("scores.")):
            yield Finding(f"{spot}/path", f"a lead has no {leaf.path} yet when it is captured")


def _leaves(at: str, criteria: Criteria) -> Iterator[tuple[str, Criteria]]:
    """Every comparison with its pointer."""
    if criteria.path:
        yield at, criteria
    name = "all" if criteria.all else "any" if criteria.any else "none"
    for place, child in enumerate(criteria.children):
        yield from _leaves(f"{at}/{name}/{place}", child)
