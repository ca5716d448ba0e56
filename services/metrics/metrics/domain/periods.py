"""Days, weeks, months, quarters and years of a time zone, and the moments at which they begin."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

from msgspec import Struct

PeriodKind = Literal["week", "month", "quarter", "year"]

_MONTHS: dict[PeriodKind, int] = {"month": 1, "quarter": 3, "year": 12}


class Period(Struct, frozen=True, gc=False):
    """Whole days of a zone: the first one, and the one after the last."""

    first: date
    end: date

    @property
    def days(self) -> int:
        return (self.end - self.first).days

    def bounds(self, zone: ZoneInfo) -> tuple[datetime, datetime]:
        """When it begins, and when it is over."""
        return to_moment(self.first, zone), to_moment(self.end, zone)


def to_moment(day: date, zone: ZoneInfo) -> datetime:
    """The moment at which a day begins in the zone, in UTC. Where a change of the clock skips midnight it is the next moment."""
    return datetime.combine(day, time.min, zone).astimezone(UTC)


def to_day(moment: datetime, zone: ZoneInfo) -> date:
    """The day of the zone that a moment is in."""
    return moment.astimezone(zone).date()


def find_period(kind: PeriodKind, day: date) -> Period:
    """Find the week (from Monday), month, quarter or year that a day is in."""
    if kind == "week":
        monday = day - timedelta(days=day.weekday())
        return Period(monday, monday + timedelta(days=7))
    months = _MONTHS[kind]
    first = date(day.year, (day.month - 1) // months * months + 1, 1)
    return Period(first, add_months(first, months))


def split_period(kind: PeriodKind, whole: Period) -> list[Period]:
    """Split a period into its months, weeks or alike; the first and the last may be incomplete."""
    found = []
    day = whole.first
    while day < whole.end:
        part = find_period(kind, day)
        found.append(Period(day, min(part.end, whole.end)))
        day = part.end
    return found


def add_months(first_of_month: date, months: int) -> date:
    """The first of a month, this many months later."""
    index = first_of_month.year * 12 + first_of_month.month - 1 + months
    return date(index // 12, index % 12 + 1, 1)
