"""Whether a person is at work: the local hours of a week in a time zone, less the days that are closed. Pure; it knows no holiday by
itself. Whoever asks gets yes or no for one moment; adding business time up is the SLA monitor's.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from msgspec import Struct

from accord.terms.week import DAY_S, Week

_DAY = timedelta(days=1)


class WorkingTime(Struct, frozen=True, gc=False):
    """The hours of a week, Monday first, in a zone; on the days in `closed` none begin."""

    zone: ZoneInfo
    week: Week
    closed: frozenset[date] = frozenset()

    def open_at(self, at: datetime) -> bool:
        """Whether the wall clock of the zone says so at this moment."""
        local = at.astimezone(self.zone)
        today = local.date()
        second = local.hour * 3600 + local.minute * 60 + local.second
        return self._within(today, second) or self._within(today - _DAY, second + DAY_S)

    def _within(self, day: date, second: int) -> bool:
        if day in self.closed:
            return False
        return any(start <= second < end for start, end in self.week[day.weekday()])
