"""When a person is at work: the local hours of a week in a time zone, less the days that are closed. Pure; it knows no holiday by itself.

A range names local times and belongs to the weekday on which it begins, also where it goes over midnight. Whoever asks gets yes or
no for one moment; adding business time up is the SLA monitor's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY_S = 86_400
_RANGE = re.compile(r"(\d{2}):(\d{2})-(\d{2}):(\d{2})", re.ASCII)
_DAY = timedelta(days=1)

Range = tuple[int, int]
"""From, to: seconds after the local midnight of the weekday; `to` is over 86,400 where the range goes over midnight."""


@dataclass(frozen=True, slots=True)
class WorkingTime:
    """The hours of a week, Monday first, in a zone; on the days in `closed` none begin."""

    zone: ZoneInfo
    week: tuple[tuple[Range, ...], ...]
    closed: frozenset[date] = frozenset()

    def open_at(self, at: datetime) -> bool:
        """Whether the wall clock of the zone says so at this moment."""
        local = at.astimezone(self.zone)
        today = local.date()
        second = local.hour * 3600 + local.minute * 60 + local.second
        return self._within(today, second) or self._within(today - _DAY, second + _DAY_S)

    def _within(self, day: date, second: int) -> bool:
        if day in self.closed:
            return False
        return any(start <= second < end for start, end in self.week[day.weekday()])


def weekdays_in(words: str) -> tuple[int, ...]:
    """The weekdays of `mon`, `mon-fri` or `mon,wed-fri`, Monday as 0. Raises ValueError in words."""
    found: list[int] = []
    for part in words.split(","):
        first, _, last = part.strip().partition("-")
        if first not in WEEKDAYS or (last and last not in WEEKDAYS):
            raise ValueError("names no weekdays: write mon, tue, wed, thu, fri, sat, sun, or a range such as mon-fri")
        start, end = WEEKDAYS.index(first), WEEKDAYS.index(last or first)
        if end < start:
            raise ValueError("a range of weekdays goes forward, such as mon-fri")
        found.extend(range(start, end + 1))
    if len(set(found)) != len(found):
        raise ValueError("names a weekday twice")
    return tuple(found)


def hours_in(text: str) -> Range:
    """The range of `09:00-17:00`, or over midnight `22:00-06:00`; `24:00` ends a day. Raises ValueError in words."""
    found = _RANGE.fullmatch(text)
    if found is None:
        raise ValueError("is no range of hours, such as 09:00-17:00")
    from_h, from_m, to_h, to_m = (int(part) for part in found.groups())
    start, end = from_h * 3600 + from_m * 60, to_h * 3600 + to_m * 60
    if from_m > 59 or to_m > 59 or start >= _DAY_S or end > _DAY_S:
        raise ValueError("is no time of a day")
    if start == end:
        raise ValueError("is empty")
    return start, end if end > start else end + _DAY_S


def week_in(terms: Mapping[str, Sequence[str]]) -> tuple[tuple[Range, ...], ...]:
    """The week of `{mon-fri: ["09:00-12:00", "13:00-17:00"]}`. Raises ValueError in words."""
    week: list[tuple[Range, ...]] = [()] * 7
    for words, ranges in terms.items():
        for weekday in weekdays_in(words):
            if week[weekday]:
                raise ValueError(f"names {WEEKDAYS[weekday]} twice")
            week[weekday] = tuple(sorted(hours_in(text) for text in ranges))
    return tuple(week)
