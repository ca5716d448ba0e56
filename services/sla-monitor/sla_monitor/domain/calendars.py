"""From a calendar as it is agreed to one that can be counted by. Public holidays are handed in; this knows none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date
from zoneinfo import ZoneInfo

from accord.terms.week import week_in
from sla_monitor.domain.business_time import Calendar
from sla_monitor.domain.sla import CalendarTerms, Holidays

DAYS_FROM, DAYS_TO = date(2000, 1, 1), date(2060, 12, 31)
"""Closed days are known from and to these; before and after, every week is an ordinary one."""

PublicHolidays = Callable[[str, str | None], Mapping[int, str]]
"""Country and subdivision → the names of the holidays by the ordinal of their day. Raises UnknownPlace."""


class UnknownPlace(LookupError):
    """No holidays are known for the country, or for the subdivision of it."""

    def __init__(self, message: str, *, subdivision: bool) -> None:
        super().__init__(message)
        self.subdivision = subdivision


def closed_days(holidays: Holidays, public: PublicHolidays) -> dict[int, str]:
    """The closed days by ordinal, with why. Raises UnknownPlace, and ValueError for a date that is none."""
    closed = dict(public(holidays.country, holidays.subdivision)) if holidays.country else {}
    closed |= {date.fromisoformat(day).toordinal(): "agreed day off" for day in holidays.extra}
    for day in holidays.except_:
        closed.pop(date.fromisoformat(day).toordinal(), None)
    return closed


def calendar_of(terms: CalendarTerms, public: PublicHolidays) -> Calendar:
    """The calendar of terms that have been checked."""
    return Calendar(ZoneInfo(terms.timezone), week_in(terms.week), closed_days(terms.holidays, public))
