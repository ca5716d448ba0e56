"""Durations as they are written in agreements: ISO 8601 text to timedelta and back. They know no calendar.

A day is 24 hours and a week 7 days. Whoever counts business time reads the same text by its own calendar.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema
from pydantic_core import PydanticCustomError

DURATION_MAX = timedelta(days=36_525)
"""A hundred years: longer is a slip of the pen."""

_TEXT_LENGTH_MAX = 40

_ISO = re.compile(
    r"P(?:(?P<years>\d{1,9})Y)?(?:(?P<months>\d{1,9})M)?(?:(?P<weeks>\d{1,9})W)?(?:(?P<days>\d{1,9})D)?"
    r"(?:T(?:(?P<hours>\d{1,9})H)?(?:(?P<minutes>\d{1,9})M)?(?:(?P<seconds>\d{1,9}(?:\.\d{1,6})?)S)?)?",
    re.ASCII,
)

_SECONDS_IN = {"weeks": 604_800, "days": 86_400, "hours": 3_600, "minutes": 60}

LargestUnit = Literal["weeks", "days", "hours", "minutes"]


def parse_duration(text: str) -> timedelta:
    """The duration in an ISO 8601 text such as `P30D`, `PT4H` or `P1DT12H`.

    Raises ValueError, in words for the one who wrote it, on anything else: also on months and years, whose length
    depends on the calendar, on a sign, and on more than DURATION_MAX. Only seconds may have a fraction.
    """
    found = _ISO.fullmatch(text) if len(text) <= _TEXT_LENGTH_MAX else None
    if found is None or text.endswith(("P", "T")):
        raise ValueError("is no ISO 8601 duration, such as P30D, PT4H or P1DT12H")
    if found["years"] or found["months"]:
        raise ValueError("months and years have no fixed length: write weeks or days, such as P30D")
    seconds, _, fraction = (found["seconds"] or "0").partition(".")
    whole_s = int(seconds) + sum(int(found[unit] or 0) * each for unit, each in _SECONDS_IN.items())
    if whole_s > DURATION_MAX.total_seconds():
        raise ValueError("is longer than a hundred years")
    return timedelta(seconds=whole_s, microseconds=int(fraction.ljust(6, "0")))


def format_duration(duration: timedelta) -> str:
    """The shortest ISO 8601 text in days, hours, minutes and seconds; `PT0S` for none. ValueError if negative."""
    if duration < timedelta():
        raise ValueError("a duration is not negative")
    hours, rest = divmod(duration.seconds, 3_600)
    minutes, seconds = divmod(rest, 60)
    fraction = f".{duration.microseconds:06d}".rstrip("0") if duration.microseconds else ""
    time = "".join(f"{amount}{unit}" for amount, unit in ((hours, "H"), (minutes, "M")) if amount)
    if seconds or fraction:
        time += f"{seconds}{fraction}S"
    days = f"{duration.days}D" if duration.days else ""
    if not days and not time:
        return "PT0S"
    return f"P{days}T{time}" if time else f"P{days}"


def describe_duration(duration: timedelta, largest: LargestUnit = "days") -> str:
    """The duration for a reader, exactly: `30 days`, `1 hour and 30 minutes`.

    No unit above `largest` is used: business time is best written in hours, since its day is not 24 of them.
    """
    if duration < timedelta():
        raise ValueError("a duration is not negative")
    rest = duration.days * 86_400 + duration.seconds
    parts: list[str] = []
    units = list(_SECONDS_IN)
    for unit in units[units.index(largest) :]:
        amount, rest = divmod(rest, _SECONDS_IN[unit])
        if amount:
            parts.append(_format_count(str(amount), unit))
    fraction = f".{duration.microseconds:06d}".rstrip("0") if duration.microseconds else ""
    if rest or fraction or not parts:
        parts.append(_format_count(f"{rest}{fraction}", "seconds"))
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def _format_count(amount: str, units: str) -> str:
    return f"{amount} {units[:-1] if amount == '1' else units}"


def _parse_text(value: object) -> timedelta:
    if not isinstance(value, timedelta):
        return _split_parts(value)
    if not timedelta() <= value <= DURATION_MAX:
        raise PydanticCustomError("duration", "is negative or longer than a hundred years")
    return value


def _check_text(value: object) -> object:
    _split_parts(value)
    return value


def _split_parts(value: object) -> timedelta:
    try:
        return parse_duration(value if isinstance(value, str) else "")
    except ValueError as error:
        raise PydanticCustomError("duration", "{reason}", {"reason": str(error)}) from None


_JSON_SCHEMA = {"type": "string", "format": "duration", "maxLength": _TEXT_LENGTH_MAX, "examples": ["P30D", "PT4H"]}

Duration = Annotated[
    timedelta,
    BeforeValidator(_parse_text, json_schema_input_type=str),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema(_JSON_SCHEMA),
]
"""A timedelta that is read from and written as ISO 8601 text; written in its shortest form (`P2W` becomes `P14D`)."""

DurationText = Annotated[str, BeforeValidator(_check_text), WithJsonSchema(_JSON_SCHEMA)]
"""ISO 8601 text that was checked and stays as it was written."""
