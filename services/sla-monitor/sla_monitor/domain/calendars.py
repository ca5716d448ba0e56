"""Builds a countable calendar from agreed terms. The caller supplies the public holidays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import date
from typing import Literal
from zoneinfo import ZoneInfo

from msgspec import Struct

from accord.terms.week import parse_week
from sla_monitor.domain.business_time import Calendar
from sla_monitor.domain.sla import CalendarTerms, Holidays

DAYS_FROM, DAYS_TO = date(2000, 1, 1), date(2060, 12, 31)
"""Closed days apply between these dates; before and after, every week is an ordinary one."""

PublicHolidays = Callable[[str, str | None], Mapping[int, str]]
"""From country and subdivision to the names of the holidays by the ordinal of their day. Raises UnknownRegion."""


class UnknownRegion(LookupError):
    """There is no holiday calendar for the country, or for its subdivision."""

    def __init__(self, message: str, *, subdivision: bool) -> None:
        super().__init__(message)
        self.subdivision = subdivision


def closed_days(holidays: Holidays, public_holidays: PublicHolidays) -> dict[int, str]:
    """The closed days by ordinal, each with its reason. Raises UnknownRegion, and ValueError for an invalid date."""
    closed = dict(public_holidays(holidays.country, holidays.subdivision)) if holidays.country else {}
    closed |= {date.fromisoformat(day).toordinal(): "agreed day off" for day in holidays.extra}
    for day in holidays.except_:
        closed.pop(date.fromisoformat(day).toordinal(), None)
    return closed


ClosedDayOrigin = Literal["public_holiday", "extra"]


class ClosedDay(Struct, frozen=True):
    """A day on which a calendar is closed though its week is open. `origin`: the country's holidays, or the agreed extra days."""

    date: date
    name: str
    origin: ClosedDayOrigin


def list_closed_days(
    terms: CalendarTerms, first: date, last: date, public_holidays: PublicHolidays
) -> Iterator[ClosedDay]:
    """The days from first to last on which the week is open and the calendar is closed, in order."""
    week, closed, extra = (
        parse_week(terms.week),
        closed_days(terms.holidays, public_holidays),
        set(terms.holidays.extra),
    )
    for ordinal in range(first.toordinal(), last.toordinal() + 1):
        day = date.fromordinal(ordinal)
        if ordinal in closed and week[day.weekday()]:
            yield ClosedDay(day, closed[ordinal], "extra" if day.isoformat() in extra else "public_holiday")


def build_calendar(terms: CalendarTerms, public_holidays: PublicHolidays) -> Calendar:
    """Build the calendar of terms that have been checked."""
    return Calendar(ZoneInfo(terms.timezone), parse_week(terms.week), closed_days(terms.holidays, public_holidays))
