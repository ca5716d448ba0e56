"""THE arithmetic of business time: when an amount of open time is used up, and how much lies between two moments. Pure.

A calendar is open at an instant when the wall clock of its zone shows, at that instant, a time inside one of the weekday's
ranges on a day that is not closed. Taken literally, this settles daylight saving: an hour that the wall clock skips is no
open time, an hour that it shows twice is open twice, and every amount is real elapsed seconds.

The search for a due moment is bounded: a calendar that does not open for two years, or an amount that reaches further than
ten, is refused with NoOpenTime.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

CLOSED_DAYS_MAX = 731
"""So many days in succession without open time end the search."""

REACH_DAYS_MAX = 3_660
"""No due moment lies further from its start than this."""

DAY_S = 86_400

_DAY = timedelta(days=1)
_ZERO = timedelta()
_PROBE = timedelta(hours=3)


class NoOpenTime(ValueError):
    """The calendar is not open often enough for the amount to be used up within the bounds."""


@dataclass(frozen=True, slots=True, order=True)
class Range:
    """Wall-clock times of one day, in seconds from midnight: `start_s` is included, `end_s` (up to 86,400) is not."""

    start_s: int
    end_s: int


@dataclass(frozen=True, slots=True)
class Calendar:
    """When a department works: ranges for each weekday (Monday first), and dates that are closed, each with its reason."""

    zone: ZoneInfo
    week: tuple[tuple[Range, ...], ...]
    closed: Mapping[date, str] = field(default_factory=dict)

    def ranges(self, day: date) -> tuple[Range, ...]:
        """The ranges of a date; none if it is closed."""
        return () if day in self.closed else self.week[day.weekday()]

    @property
    def open_week(self) -> timedelta:
        """Open time of a week without holidays and without changes of the clock."""
        return timedelta(seconds=sum(one.end_s - one.start_s for ranges in self.week for one in ranges))

    @property
    def open_days(self) -> int:
        """Weekdays on which it opens."""
        return sum(bool(ranges) for ranges in self.week)


@dataclass(frozen=True, slots=True)
class Interval:
    """Open time from `start` to `end`, in UTC."""

    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Step:
    """One step on the way to a due moment.

    `open`: this stretch was used; `left` remains after it. `closed`: a day on which the calendar would open, but for `why`.
    """

    kind: str
    start: datetime
    end: datetime
    left: timedelta
    why: str | None = None


@dataclass(frozen=True, slots=True)
class Due:
    """When an amount is used up, and how."""

    at: datetime
    steps: tuple[Step, ...]


def add(calendar: Calendar, start: datetime, amount: timedelta) -> datetime:
    """The first moment at which `amount` of open time has passed since `start`. Raises NoOpenTime."""
    left = amount
    if left <= _ZERO:
        return start.astimezone(UTC)
    for stretch in _open_from(calendar, start):
        length = stretch.end - stretch.start
        if length >= left:
            return stretch.start + left
        left -= length
    raise NoOpenTime("the amount reaches further than ten years")


def add_business_days(calendar: Calendar, start: datetime, days: int) -> datetime:
    """The close of the `days`-th day, after that of `start`, on which the calendar opens. Raises NoOpenTime."""
    day, closed, left = start.astimezone(calendar.zone).date(), 0, days
    for _ in range(REACH_DAYS_MAX):
        day += _DAY
        hours = _of_day(calendar, day) if calendar.ranges(day) else []
        closed = 0 if hours else closed + 1
        left -= bool(hours)
        if closed > CLOSED_DAYS_MAX:
            raise NoOpenTime("the calendar does not open for two years")
        if hours and left <= 0:
            return hours[-1].end
    raise NoOpenTime("so many days reach further than ten years")


def open_time_between(calendar: Calendar, start: datetime, end: datetime) -> timedelta:
    """How much open time lies from `start` to `end`; nothing if `end` is not after `start`."""
    total, day = _ZERO, start.astimezone(UTC).date()
    last = end.astimezone(UTC).date()
    while day <= last:
        for stretch in open_in(calendar, day):
            overlap = min(stretch.end, end) - max(stretch.start, start)
            if overlap > _ZERO:
                total += overlap
        day += _DAY
    return total


def explain(calendar: Calendar, start: datetime, amount: timedelta) -> Due:
    """The same as `add`, with each stretch that was used and each day that was passed over for a reason."""
    at = add(calendar, start, amount)
    left, steps = amount, _closed_steps(calendar, start, at)
    for stretch in _joined(_open_from(calendar, start), until=at):
        left -= stretch.end - stretch.start
        steps.append(Step("open", stretch.start, stretch.end, left))
    return Due(at, _in_order(steps, amount))


def explain_business_days(calendar: Calendar, start: datetime, days: int) -> Due:
    """The same as `add_business_days`, with each day that counted; `left` is what remains in days of 24 hours."""
    at = add_business_days(calendar, start, days)
    steps, left = _closed_steps(calendar, start, at), days
    day = start.astimezone(calendar.zone).date()
    while left > 0:
        day += _DAY
        hours = _of_day(calendar, day)
        if hours:
            left -= 1
            steps.append(Step("open", hours[0].start, hours[-1].end, left * _DAY))
    return Due(at, _in_order(steps, days * _DAY))


def longest_closed_days(calendar: Calendar, first: date, last: date) -> int:
    """The most days in succession, from `first` to `last`, on which the calendar does not open."""
    longest = run = 0
    day = first
    while day <= last:
        run = 0 if calendar.ranges(day) else run + 1
        longest = max(longest, run)
        day += _DAY
    return longest


def open_in(calendar: Calendar, utc_day: date) -> list[Interval]:
    """The open time within one day of UTC, in order. Days of UTC divide time without gap or overlap in any zone."""
    begin = datetime.combine(utc_day, time.min, UTC)
    return _open_within(calendar, begin, begin + _DAY, _offsets(calendar.zone.key, utc_day))


def _open_from(calendar: Calendar, start: datetime) -> Iterator[Interval]:
    """Open time from `start` on, stretch by stretch. Raises NoOpenTime after two years without any; ends after ten."""
    day, closed = start.astimezone(UTC).date(), 0
    for _ in range(REACH_DAYS_MAX):
        closed += 1
        for stretch in open_in(calendar, day):
            if stretch.end > start:
                closed = 0
                yield stretch if stretch.start >= start else Interval(start.astimezone(UTC), stretch.end)
        if closed > CLOSED_DAYS_MAX:
            raise NoOpenTime("the calendar does not open for two years")
        day += _DAY


def _joined(stretches: Iterator[Interval], until: datetime) -> Iterator[Interval]:
    """Stretches up to `until`, those that touch made one."""
    held: Interval | None = None
    for stretch in stretches:
        if stretch.start >= until:
            break
        clipped = Interval(stretch.start, min(stretch.end, until))
        if held is not None and held.end == clipped.start:
            held = Interval(held.start, clipped.end)
            continue
        if held is not None:
            yield held
        held = clipped
    if held is not None:
        yield held


def _closed_steps(calendar: Calendar, start: datetime, end: datetime) -> list[Step]:
    day, last = start.astimezone(calendar.zone).date(), end.astimezone(calendar.zone).date()
    steps = []
    while day <= last:
        why = calendar.closed.get(day)
        if why is not None and calendar.week[day.weekday()]:
            begin, close = (
                datetime.combine(which, time.min, calendar.zone).astimezone(UTC) for which in (day, day + _DAY)
            )
            steps.append(Step("closed", begin, close, _ZERO, why))
        day += _DAY
    return steps


def _in_order(steps: list[Step], amount: timedelta) -> tuple[Step, ...]:
    """By time; a closed day leaves what was left before it."""
    ordered: list[Step] = []
    left = amount
    for step in sorted(steps, key=lambda one: one.start):
        left = left if step.kind == "closed" else step.left
        ordered.append(Step(step.kind, step.start, step.end, left, step.why))
    return tuple(ordered)


def _of_day(calendar: Calendar, day: date) -> list[Interval]:
    """The open time of one date of the calendar's own zone."""
    found: list[Interval] = []
    for number in (-1, 0, 1):
        utc_day = day + number * _DAY
        begin = datetime.combine(utc_day, time.min, UTC)
        found += _open_within(calendar, begin, begin + _DAY, _offsets(calendar.zone.key, utc_day), only=day)
    return found


def _open_within(
    calendar: Calendar, begin: datetime, end: datetime, offsets: tuple[_Offset, ...], only: date | None = None
) -> list[Interval]:
    found: list[Interval] = []
    for offset in offsets:
        since, until = max(begin, offset.since), min(end, offset.until)
        wall_since, wall_until = since + offset.ahead, until + offset.ahead
        day = wall_since.date()
        while day <= wall_until.date():
            if only is None or day == only:
                midnight = datetime.combine(day, time.min, UTC) - offset.ahead
                found += _clipped(midnight, calendar.ranges(day), since, until)
            day += _DAY
    return found


def _clipped(midnight: datetime, ranges: tuple[Range, ...], since: datetime, until: datetime) -> Iterator[Interval]:
    for one in ranges:
        start = max(since, midnight + timedelta(seconds=one.start_s))
        end = min(until, midnight + timedelta(seconds=one.end_s))
        if start < end:
            yield Interval(start, end)


@dataclass(frozen=True, slots=True)
class _Offset:
    """From `since` to `until` the wall clock is `ahead` of UTC."""

    since: datetime
    until: datetime
    ahead: timedelta


@lru_cache(maxsize=16_384)
def _offsets(zone: str, utc_day: date) -> tuple[_Offset, ...]:
    """The zone's offsets through one day of UTC, in order. Changes of the clock are found to the second."""
    info = ZoneInfo(zone)
    begin = datetime.combine(utc_day, time.min, UTC)
    found: list[_Offset] = []
    since, ahead = begin, _ahead(info, begin)
    probe = begin
    while probe < begin + _DAY:
        following = min(probe + _PROBE, begin + _DAY)
        last = following - timedelta(microseconds=1)
        if _ahead(info, last) != _ahead(info, probe):
            change = _change(info, probe, last)
            found.append(_Offset(since, change, ahead))
            since, ahead = change, _ahead(info, change)
        elif _ahead(info, probe) != ahead:
            found.append(_Offset(since, probe, ahead))
            since, ahead = probe, _ahead(info, probe)
        probe = following
    found.append(_Offset(since, begin + _DAY, ahead))
    return tuple(found)


def _change(info: ZoneInfo, before: datetime, after: datetime) -> datetime:
    """The first whole second after `before` with the offset that `after` has; there is one change in between."""
    seconds = range(1, int((after - before).total_seconds()) + 1)
    first = bisect_right(
        seconds, False, key=lambda number: _ahead(info, before + timedelta(seconds=number)) == _ahead(info, after)
    )
    return before + timedelta(seconds=seconds[first] if first < len(seconds) else len(seconds) + 1)


def _ahead(info: ZoneInfo, at: datetime) -> timedelta:
    return at.astimezone(info).utcoffset() or _ZERO
