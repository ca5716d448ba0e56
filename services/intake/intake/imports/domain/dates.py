"""Dates as the columns of a file have them: by a format that somebody says, or the only one that all values of the column can have. Pure;
where day and month could be exchanged, nothing is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, tzinfo
from functools import lru_cache

from pydantic import BaseModel, ConfigDict, JsonValue

from accord.contracts.personal import find_personal
from intake.sources.domain.mapping import parse_time

FORMAT_CHARS_MAX = 30
SHOWN = 3
"""Values of a column that show how it is read."""
VALUES_MAX = 200
"""Values of a column by which its format is found out."""
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_TOKEN = re.compile(r"YYYY|YY|MMM|MM?|DD?|[^A-Za-z0-9]+")
_TIME_WORDS = re.compile(r"[ T,]+[Hh]{1,2}:mm(?::ss)?(?: ?[aA])?\Z")
_PARTS: Mapping[str, str] = {
    "YYYY": r"(?P<year>[0-9]{4})",
    "YY": r"(?P<short_year>[0-9]{2})",
    "MMM": r"(?P<month_name>[A-Za-z]{3,9})\.?",
    "MM": r"(?P<month>[0-9]{1,2})",
    "DD": r"(?P<day>[0-9]{1,2})",
}
_TIME = (
    r"(?:[T ,]+(?P<hour>[0-9]{1,2}):(?P<minute>[0-9]{2})(?::(?P<second>[0-9]{2})(?:\.[0-9]+)?)?"
    r"(?: ?(?P<half>[AaPp])\.?[Mm]\.?)?)?"
)
"""What may stand behind a date."""
_CENTURY_FROM = 70
"""The two digits from which on a year is of the century before: moments begin with 1970."""
_CANDIDATES = (
    *(f"{date}{year}".replace("/", mark) for date in ("DD/MM/", "MM/DD/") for year in ("YYYY", "YY") for mark in "/.-"),
    *(f"{year}/MM/DD".replace("/", mark) for year in ("YYYY", "YY") for mark in "/.-"),
    *(
        "DD MMM YYYY",
        "MMM DD YYYY",
        "MMM DD, YYYY",
        "DD-MMM-YYYY",
        "DD MMM YY",
        "DD-MMM-YY",
        "YY-MMM-DD",
        "DD. MMM YYYY",
    ),
)
_LIKE_A_DATE = re.compile(r"(?=.*[0-9])[0-9:., /-]{0,12}(?:[A-Za-z]{3,9}[0-9:., /-]{0,20})?")


class InvalidDateFormat(ValueError):
    """The text is no format of dates; the message says why."""


@lru_cache(maxsize=256)
def compile_format(text: str) -> re.Pattern[str]:
    """What reads dates of a format such as `DD.MM.YYYY`, `M/D/YY`, `MMM D, YYYY`, with a time behind them or without. Raises
    InvalidDateFormat."""
    text = _TIME_WORDS.sub("", text.strip()).upper()
    tokens = _TOKEN.findall(text)
    parts = [{"M": "MM", "D": "DD"}.get(token, token) for token in tokens]
    named = sorted("M" if part == "MMM" else part[0] for part in parts if part in _PARTS)
    if len(text) > FORMAT_CHARS_MAX or "".join(tokens) != text or named != ["D", "M", "Y"]:
        raise InvalidDateFormat("Must be made of DD, MM or MMM, and YYYY or YY, such as DD.MM.YYYY")
    body = "".join(_PARTS[part] if part in _PARTS else re.escape(part) for part in parts)
    if all(part in _PARTS for part in parts):
        body = body.replace("{1,2}", "{2}")  # nothing else says where the month ends
    return re.compile(body + _TIME, re.ASCII)


def parse_date(text: str, format_: str, zone: tzinfo) -> datetime | None:
    """The moment, a date its midnight in `zone`; None if the text is none of this format."""
    found = compile_format(format_).fullmatch(text.strip())
    if found is None:
        return None
    said = found.groupdict()
    year = int(said["year"]) if said.get("year") else int(said["short_year"])
    if not said.get("year"):
        year += 1900 if year >= _CENTURY_FROM else 2000
    name = (said.get("month_name") or "")[:3].lower()
    month = _MONTHS.index(name) + 1 if name in _MONTHS else int(said.get("month") or 0)
    hour = int(said["hour"] or 0)
    if said["half"]:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if said["half"] in "Pp" else 0)
    try:
        day = date(year, month, int(said["day"]))
        return datetime.combine(day, time(hour, int(said["minute"] or 0), int(said["second"] or 0)), zone)
    except ValueError:
        return None


def find_format(values: Sequence[str]) -> str | None:
    """The only format that all values can have which are no times as they stand; None if there are several, or none."""
    unread = [value for value in dict.fromkeys(values) if not isinstance(parse_time(value), datetime)]
    fitting = [one for one in _CANDIDATES if unread and all(parse_date(value, one, UTC) for value in unread)]
    return fitting[0] if len(fitting) == 1 else None


class TimeExample(BaseModel):
    """A value, and how it is read; null if it is not."""

    model_config = ConfigDict(frozen=True)

    text: str
    read_as: datetime | None


class TimeColumn(BaseModel):
    """A column of times: its format, None for RFC 3339, ISO 8601 and seconds since 1970 alone, and the first values."""

    model_config = ConfigDict(frozen=True)

    column: str
    date_format: str | None
    found_out: bool
    examples: tuple[TimeExample, ...] = ()


def describe_column(column: str, asked: str | None, values: Sequence[str], zone: tzinfo) -> TimeColumn:
    """How a column is read, by the first of its values."""
    format_ = asked or find_format(values)
    examples = []
    for value in list(dict.fromkeys(values))[:SHOWN]:
        found = parse_moment(value, zone, format_)
        if isinstance(found, datetime) or (_LIKE_A_DATE.fullmatch(value) and find_personal(value) is None):
            read_as = found.astimezone(UTC) if isinstance(found, datetime) else None
            examples.append(TimeExample(text=value, read_as=read_as))
    return TimeColumn(
        column=column, date_format=format_, found_out=asked is None and format_ is not None, examples=tuple(examples)
    )


def parse_moment(value: JsonValue, zone: tzinfo, format_: str | None) -> datetime | JsonValue:
    """The moment by the column's format, else as `parse_time` reads it; anything else is returned unchanged."""
    found = parse_date(value, format_, zone) if format_ is not None and isinstance(value, str) else None
    return parse_time(value, zone) if found is None else found
