"""The hours of a week as agreements and other documents write them: `{mon-fri: ["09:00-12:00", "13:00-17:00"], fri: ["22:00-06:00"]}`.

The one grammar of working hours. Times are local; a range belongs to the weekday on which it begins, also where it goes over midnight.
It knows no zone and no holiday, and counts nothing.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, NamedTuple

from pydantic import Field

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_S = 86_400

_TIME = r"([01]\d|2[0-3]):([0-5]\d)"
_RANGE = re.compile(rf"{_TIME}-(?:{_TIME}|(24):(00))", re.ASCII)

Day = Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$")]
"""A date, kept as it was written."""

WeekTerms = Annotated[
    dict[
        Annotated[str, Field(min_length=1, max_length=40)],
        Annotated[list[Annotated[str, Field(max_length=11)]], Field(min_length=1, max_length=24)],
    ],
    Field(min_length=1, max_length=7),
]
"""A week as it is written; `find_week_errors` finds what is wrong with it, `parse_week` reads it."""


class Range(NamedTuple):
    """Hours of a weekday, in seconds after its midnight; `end_s` is over 86,400 where they go over midnight."""

    start_s: int
    end_s: int


Week = tuple[tuple[Range, ...], ...]
"""The ranges of Monday to Sunday, ascending."""

_NO_HOURS: tuple[Range, ...] = ()


def parse_weekdays(words: str) -> tuple[int, ...]:
    """The weekdays (0 is Monday) of `mon`, `mon-fri`, `sat-mon` or `mon,wed`. Raises ValueError, in words."""
    found: list[int] = []
    for part in words.split(","):
        first, dash, last = part.strip().partition("-")
        if first not in WEEKDAYS or (dash and last not in WEEKDAYS):
            raise ValueError(f"is no weekday: write {', '.join(WEEKDAYS)}, as mon-fri or mon,wed")
        start = WEEKDAYS.index(first)
        length = (WEEKDAYS.index(last) - start) % 7 if dash else 0
        found.extend((start + step) % 7 for step in range(length + 1))
    if len(set(found)) != len(found):
        raise ValueError("names a weekday twice")
    return tuple(found)


def parse_range(words: str) -> Range:
    """The hours of `09:00-12:00`, or of `22:00-06:00`, which end on the day after. Raises ValueError, in words."""
    found = _RANGE.fullmatch(words)
    if found is None:
        raise ValueError("is no range of hours, such as 09:00-12:00 or 22:00-06:00")
    start_h, start_min, end_h, end_min, midnight, _ = found.groups()
    start_s = int(start_h) * 3_600 + int(start_min) * 60
    end_s = DAY_S if midnight else int(end_h) * 3_600 + int(end_min) * 60
    if end_s == start_s:
        raise ValueError("begins and ends at the same time; a whole day is 00:00-24:00")
    return Range(start_s, end_s if end_s > start_s else end_s + DAY_S)


def parse_hours(ranges: Sequence[str]) -> tuple[Range, ...]:
    """A weekday's ranges, ascending. Raises ValueError if two of them overlap."""
    found = sorted(parse_range(words) for words in ranges)
    for earlier, later in itertools.pairwise(found):
        if later.start_s < earlier.end_s:
            raise ValueError("has ranges that overlap")
    return tuple(found)


def parse_week(terms: Mapping[str, Sequence[str]]) -> Week:
    """The week of `{mon-fri: ["09:00-12:00", …], sat: […]}`. Raises ValueError, in words."""
    days: list[tuple[Range, ...]] = [_NO_HOURS] * 7
    for words, ranges in terms.items():
        for weekday in parse_weekdays(words):
            if days[weekday]:
                raise ValueError(f"has hours for {WEEKDAYS[weekday]} twice")
            days[weekday] = parse_hours(ranges)
    return tuple(days)


def find_week_errors(terms: Mapping[str, Sequence[str]]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Everything that is wrong with a week as it is written: the way to the place, and what is wrong there."""
    wrong = False
    for way, message in itertools.chain(_find_weekday_errors(terms), _find_range_errors(terms)):
        wrong = True
        yield way, message
    if not wrong:
        yield from _find_night_errors(terms, parse_week(terms))


def _find_weekday_errors(terms: Mapping[str, Sequence[str]]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    named: set[int] = set()
    for words in terms:
        try:
            weekdays = parse_weekdays(words)
        except ValueError as error:
            yield (words,), str(error)
            continue
        if named.intersection(weekdays):
            yield (words,), "names a weekday that stands in the week already"
        named.update(weekdays)


def _find_range_errors(terms: Mapping[str, Sequence[str]]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    for words, ranges in terms.items():
        wrong = False
        for place, text in enumerate(ranges):
            try:
                parse_range(text)
            except ValueError as error:
                wrong = True
                yield (words, place), str(error)
        if not wrong:
            try:
                parse_hours(ranges)
            except ValueError as error:
                yield (words,), str(error)


def _find_night_errors(terms: Mapping[str, Sequence[str]], week: Week) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Hours over midnight that reach into those of the day after: which day's they are would be unclear."""
    for words in terms:
        for weekday in parse_weekdays(words):
            night, morning = week[weekday][-1], week[(weekday + 1) % 7]
            if morning and morning[0].start_s < night.end_s - DAY_S:
                yield (words,), "has hours over midnight that overlap those of the next day"
                break
