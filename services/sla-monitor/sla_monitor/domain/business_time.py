"""Business time: the one place that adds, measures and explains open hours. Pure; the caller supplies the holidays.

A calendar is open whenever the wall clock of its zone says so: a range names local times, and belongs to the weekday on
which it begins, also where it goes over midnight. On a day with a clock change the same rule gives real elapsed seconds:
an hour that is skipped is not open, an hour that comes twice is open twice.

Everything is computed in whole microseconds since the epoch, day by day of UTC. Each day is cut where the zone's offset
changes, so that within a piece local time and UTC differ by a constant. Some hundred days at a time are kept with their
cumulated open time and bisected, so that a deadline a year ahead costs as much as one a day ahead.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from itertools import accumulate
from typing import TypeVar
from zoneinfo import ZoneInfo

from msgspec import Struct

from accord.contracts.values import MOMENT_MAX, MOMENT_MIN
from accord.terms.week import DAY_S, Range, Week

WEEKDAY_WORDS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

CLOSED_DAYS_MAX = 731
"""A calendar that stays closed for longer than this (two years) is refused."""

_SECOND = 1_000_000
_DAY = DAY_S * _SECOND
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_ORDINAL = _EPOCH.toordinal()
_MICROSECOND = timedelta(microseconds=1)
_MONDAY = 3  # 1970-01-01 was a Thursday
_OFFSET_S_MAX = 26 * 3_600
_CHUNK_DAYS = 256
_CHUNKS_MAX = 80
"""Of a calendar; more than fifty years."""

# Offsets are read within these; before and after, the border's offset applies. This keeps every function total.
_FIRST_DAY = MOMENT_MIN.toordinal() - _EPOCH_ORDINAL
_LAST_DAY = MOMENT_MAX.toordinal() - _EPOCH_ORDINAL
_LAST = (MOMENT_MAX - _EPOCH) // _MICROSECOND
_LAST_CHUNK = _LAST_DAY // _CHUNK_DAYS

Interval = tuple[int, int]
"""From, to: microseconds since the epoch, the end not included."""


class NoOpenTime(ValueError):
    """The calendar is closed for longer than CLOSED_DAYS_MAX days."""


class OpenTime(Struct, frozen=True):
    """The open intervals of a chunk of days of UTC, ascending and disjoint, with the open time up to the end of each."""

    starts: Sequence[int]
    ends: Sequence[int]
    cumulated: Sequence[int]

    @property
    def total(self) -> int:
        return self.cumulated[-1] if self.cumulated else 0

    def before(self, at: int) -> int:
        """The open time before a moment."""
        index = bisect_right(self.starts, at) - 1
        if index < 0:
            return 0
        return self.cumulated[index] - max(0, self.ends[index] - at)

    def moment(self, open_time: int) -> int:
        """The first moment before which there is so much open time, more than none and at most the total."""
        index = bisect_left(self.cumulated, open_time)
        return self.ends[index] - (self.cumulated[index] - open_time)


class OpenDays(Struct, frozen=True):
    """The local days of a chunk that open, ascending: when each opens first, and when it closes for good."""

    opens: Sequence[int]
    closes: Sequence[int]


@dataclass(frozen=True, slots=True, eq=False)
class Calendar:
    """Opening hours. `closed` maps each closed day, by ordinal, to its reason."""

    zone: ZoneInfo
    week: Week
    closed: Mapping[int, str] = field(default_factory=dict)
    _open_time: dict[int, OpenTime] = field(default_factory=dict, repr=False)
    _open_days: dict[int, OpenDays] = field(default_factory=dict, repr=False)

    def hours(self, day: int) -> tuple[Range, ...]:
        """The ranges that begin on a local day, counted from 1970-01-01."""
        if day + _EPOCH_ORDINAL in self.closed:
            return ()
        return self.week[(day + _MONDAY) % 7]

    def open_time(self, chunk: int) -> OpenTime:
        """The open time of a chunk of days of UTC."""
        found = self._open_time.get(chunk)
        if found is None:
            days = range(chunk * _CHUNK_DAYS, (chunk + 1) * _CHUNK_DAYS)
            intervals = list(_merge_overlapping(piece for day in days for piece in self._pieces(day)))
            starts, ends = [start for start, _ in intervals], [end for _, end in intervals]
            cumulated = list(accumulate(end - start for start, end in intervals))
            found = _keep(self._open_time, chunk, OpenTime(starts, ends, cumulated))
        return found

    def open_days(self, chunk: int) -> OpenDays:
        """The local days of a chunk that open."""
        found = self._open_days.get(chunk)
        if found is None:
            days = (self._open_on(day) for day in range(chunk * _CHUNK_DAYS, (chunk + 1) * _CHUNK_DAYS))
            opening = [intervals for intervals in days if intervals]
            opens, closes = [each[0][0] for each in opening], [each[-1][1] for each in opening]
            found = _keep(self._open_days, chunk, OpenDays(opens, closes))
        return found

    def _open_on(self, day: int) -> tuple[Interval, ...]:
        """The open intervals of the ranges that begin on a local day."""
        return tuple(
            _merge_overlapping(
                piece
                for hours in self.hours(day)
                for piece in self._projected(day * DAY_S + hours.start_s, day * DAY_S + hours.end_s)
            )
        )

    def local_day(self, at: int) -> int:
        """The local day of a moment."""
        for start_s, end_s, offset_s in _offsets(self.zone, at // _DAY):
            if start_s * _SECOND <= at < end_s * _SECOND:
                return (at // _SECOND + offset_s) // DAY_S
        raise AssertionError("the pieces of a day cover it")

    def _pieces(self, utc_day: int) -> Iterator[Interval]:
        for start_s, end_s, offset_s in _offsets(self.zone, utc_day):
            # A range begun the day before may reach into this one.
            for day in range((start_s + offset_s) // DAY_S - 1, (end_s - 1 + offset_s) // DAY_S + 1):
                for hours in self.hours(day):
                    yield from _cut(day * DAY_S + hours.start_s, day * DAY_S + hours.end_s, start_s, end_s, offset_s)

    def _projected(self, local_start_s: int, local_end_s: int) -> Iterator[Interval]:
        first, last = (local_start_s - _OFFSET_S_MAX) // DAY_S, (local_end_s + _OFFSET_S_MAX) // DAY_S
        for utc_day in range(first, last + 1):
            for start_s, end_s, offset_s in _offsets(self.zone, utc_day):
                yield from _cut(local_start_s, local_end_s, start_s, end_s, offset_s)


_Kept = TypeVar("_Kept")


def _keep(chunks: dict[int, _Kept], chunk: int, found: _Kept) -> _Kept:
    if len(chunks) >= _CHUNKS_MAX:
        chunks.clear()
    chunks[chunk] = found
    return found


def _cut(local_start_s: int, local_end_s: int, start_s: int, end_s: int, offset_s: int) -> Iterator[Interval]:
    """The part of a local range that lies in a piece of UTC with a constant offset."""
    start = max(local_start_s - offset_s, start_s)
    end = min(local_end_s - offset_s, end_s)
    if start < end:
        yield start * _SECOND, end * _SECOND


def _merge_overlapping(intervals: Iterable[Interval]) -> Iterator[Interval]:
    """The intervals in order, joined where they touch or overlap."""
    last: Interval | None = None
    for start, end in sorted(intervals):
        if last is None:
            last = (start, end)
        elif start <= last[1]:
            last = (last[0], max(last[1], end))
        else:
            yield last
            last = (start, end)
    if last is not None:
        yield last


@lru_cache(maxsize=32_768)
def _offsets(zone: ZoneInfo, utc_day: int) -> tuple[tuple[int, int, int], ...]:
    """(from, to, offset) in seconds: a day of UTC cut where the zone's offset changes.

    It samples every six hours; no zone changes its clocks twice within that.
    """
    bounded_day = min(max(utc_day, _FIRST_DAY), _LAST_DAY)
    shift_s = (utc_day - bounded_day) * DAY_S
    pieces: list[tuple[int, int, int]] = []
    start = bounded_day * DAY_S
    offset = _offset_s(zone, start)
    for sample_s in range(start + DAY_S // 4, start + DAY_S + 1, DAY_S // 4):
        if _offset_s(zone, sample_s) != offset:
            change = _change_s(zone, sample_s - DAY_S // 4, sample_s)
            if change < (bounded_day + 1) * DAY_S:
                pieces.append((start + shift_s, change + shift_s, offset))
                start, offset = change, _offset_s(zone, change)
    pieces.append((start + shift_s, (bounded_day + 1) * DAY_S + shift_s, offset))
    return tuple(piece for piece in pieces if piece[0] < piece[1])


def _change_s(zone: ZoneInfo, before: int, after: int) -> int:
    """The first second with the offset that holds at `after`, between two moments whose offsets differ."""
    target_offset = _offset_s(zone, after)
    while after - before > 1:
        middle = (before + after) // 2
        if _offset_s(zone, middle) == target_offset:
            after = middle
        else:
            before = middle
    return after


def _offset_s(zone: ZoneInfo, at_s: int) -> int:
    offset = (_EPOCH + timedelta(seconds=at_s)).astimezone(zone).utcoffset()
    return int(offset.total_seconds()) if offset else 0


# --- Counting ---


def add_open_time(calendar: Calendar, start: datetime, amount: timedelta) -> datetime:
    """The first moment at which `amount` of open time has passed since `start`, in UTC.

    Raises NoOpenTime, and ValueError for a negative amount. Never later than MOMENT_MAX.
    """
    return _moment(_add_open_time(calendar, _micros(start), amount // _MICROSECOND))


def _add_open_time(calendar: Calendar, start: int, amount: int) -> int:
    if amount < 0:
        raise ValueError("an amount of time is not negative")
    if amount == 0:
        return start
    chunk = _chunk_of(start)
    open_time = calendar.open_time(chunk)
    left = open_time.before(start) + amount
    last_open = start
    while left > open_time.total:
        left -= open_time.total
        last_open = max(last_open, open_time.ends[-1]) if open_time.ends else last_open
        chunk += 1
        if chunk > _LAST_CHUNK:
            return _LAST
        open_time = calendar.open_time(chunk)
        _refuse_long_closure(last_open, open_time.starts, chunk)
    return min(open_time.moment(left), _LAST)


def _chunk_of(at: int) -> int:
    return at // (_CHUNK_DAYS * _DAY)


def _refuse_long_closure(last_open: int, opens: Sequence[int], chunk: int) -> None:
    """Raise NoOpenTime if the calendar stays closed for too long before it opens in a chunk, or by its end."""
    opens_at = opens[0] if opens else (chunk + 1) * _CHUNK_DAYS * _DAY - 1
    if opens_at // _DAY - last_open // _DAY > CLOSED_DAYS_MAX:
        raise NoOpenTime("the calendar has no open time for two years")


def _open_from(calendar: Calendar, start: int) -> Iterator[Interval]:
    """The open intervals from a moment on, to MOMENT_MAX. Raises NoOpenTime."""
    last_open = start
    for chunk in range(_chunk_of(start), _LAST_CHUNK + 1):
        open_time = calendar.open_time(chunk)
        _refuse_long_closure(last_open, open_time.starts, chunk)
        for opens, closes in zip(open_time.starts, open_time.ends, strict=True):
            if opens >= _LAST:
                return
            if closes > start:
                last_open = closes
                yield max(opens, start), min(closes, _LAST)


def measure_open_time(calendar: Calendar, start: datetime, end: datetime) -> timedelta:
    """Measure the open time between two moments. ValueError if the end is before the start."""
    first, last = _micros(start), _micros(end)
    if last < first:
        raise ValueError("the end is before the start")
    from_chunk, to_chunk = _chunk_of(first), _chunk_of(last)
    between = sum(calendar.open_time(chunk).total for chunk in range(from_chunk, to_chunk))
    total = between + calendar.open_time(to_chunk).before(last) - calendar.open_time(from_chunk).before(first)
    return timedelta(microseconds=total)


def add_open_days(calendar: Calendar, start: datetime, days: int) -> datetime:
    """When the last of so many whole open days after `start` closes.

    A day counts if it opens at `start` or later, so that all of it can be used. Raises NoOpenTime.
    """
    if days < 1:
        raise ValueError("at least one day")
    begin, left = _micros(start), days
    last_open = begin
    for chunk in range(calendar.local_day(begin) // _CHUNK_DAYS, _LAST_DAY // _CHUNK_DAYS + 1):
        found = calendar.open_days(chunk)
        _refuse_long_closure(last_open, found.opens, chunk)
        index = bisect_left(found.opens, begin) + left - 1
        if index < len(found.opens):
            return _moment(min(found.closes[index], _LAST))
        left = index + 1 - len(found.opens)
        last_open = found.opens[-1] if found.opens else last_open
    return _moment(_LAST)


def _micros(at: datetime) -> int:
    return (at - _EPOCH) // _MICROSECOND


def _moment(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)


# --- Explaining ---

_NAMED_DAYS_MAX = 7


class Step(Struct, frozen=True, gc=False):
    """A stretch of time up to the deadline. `counted` is zero while the calendar is closed; `why` gives the reason."""

    start: datetime
    end: datetime
    counted: timedelta
    why: str


def explain_steps(calendar: Calendar, start: datetime, amount: timedelta) -> list[Step]:
    """Explain `add_open_time`: the counted and uncounted stretches, without a gap. Raises NoOpenTime."""
    at, left = _micros(start), amount // _MICROSECOND
    counted: list[Interval] = []
    for opens, closes in _open_from(calendar, at):
        until = min(closes, opens + left)
        if counted and counted[-1][1] == opens:  # the same stretch, cut at UTC's midnight
            counted[-1] = (counted[-1][0], until)
        else:
            counted.append((opens, until))
        left -= until - opens
        if left == 0:
            break
    stretches: list[Step] = []
    for opens, until in counted:
        if opens > at:
            stretches.append(_make_step(calendar, at, opens, counted=False))
        stretches.append(_make_step(calendar, opens, until, counted=True))
        at = until
    return stretches


def _make_step(calendar: Calendar, start: int, end: int, *, counted: bool) -> Step:
    why = "open" if counted else _why_closed(calendar, start, end)
    return Step(_moment(start), _moment(end), timedelta(microseconds=end - start if counted else 0), why)


def _why_closed(calendar: Calendar, start: int, end: int) -> str:
    named: list[str] = []
    for day in range(calendar.local_day(start), calendar.local_day(end - 1) + 1):
        ordinal = day + _EPOCH_ORDINAL
        on = f"{WEEKDAY_WORDS[(day + _MONDAY) % 7]} {date.fromordinal(max(ordinal, 1)).isoformat()}"
        if ordinal in calendar.closed:
            named.append(f"{on} is closed ({calendar.closed[ordinal]})")
        elif not calendar.hours(day):
            named.append(f"{on} is closed")
    more = len(named) - _NAMED_DAYS_MAX
    if more > 0:
        named[_NAMED_DAYS_MAX:] = [f"and {more} more days"]
    return "; ".join(named) or "outside the opening hours"


def open_per_week(week: Week) -> timedelta:
    """The open time of a week, without holidays and changes of the clock."""
    return timedelta(seconds=sum(hours.end_s - hours.start_s for day in week for hours in day))
