"""The types that a data policy declares for public attributes, and how a value is read as its type. It judges nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

from accord.contracts.personal import find_personal
from accord.contracts.values import AttributeValue, normalize_text
from intake.leads.domain.countries import country_code, suggest_countries
from intake.policy.domain.numbers import AmbiguousNumber, NotANumber, read_number

AttributeType = Literal["integer", "number", "string", "boolean", "country"]
TYPES: tuple[AttributeType, ...] = get_args(AttributeType)

TEXT_MAX = 200
NUMBER_LIMIT = 1e15
"""Numbers are smaller than it, so that a float holds every whole one."""
_TRUE = frozenset({"true", "yes", "1"})
_FALSE = frozenset({"false", "no", "0"})

Reader = Callable[[AttributeValue], AttributeValue]
"""Reads a value as one type: None for an empty one. Raises NotOfType."""


class NotOfType(ValueError):
    """The value does not read as the declared type. `hint` says more than the type does, and never the value."""

    def __init__(self, hint: str = "") -> None:
        super().__init__(hint)
        self.hint = hint


NOT_OF_TYPE: dict[AttributeType, str] = {
    "integer": "is not a whole number",
    "number": "is not a number",
    "string": "is no short text that may leave intake",
    "boolean": "is neither true nor false",
    "country": "is no country",
}
"""What is said of a value that does not read as the type."""


def describe_misfit(error: NotOfType, type_: AttributeType) -> str:
    """Why a value was not read, in words that name no value."""
    words = NOT_OF_TYPE[type_] + (f": {error.hint}" if error.hint else "")
    return words[0].upper() + words[1:]


def convert_to_type(value: AttributeValue, type_: AttributeType) -> AttributeValue:
    """The value as the declared type: forms send "250" for 250. None for an empty one. Raises NotOfType."""
    return READERS[type_](value)


def _integer(value: AttributeValue) -> int | float | None:
    if type(value) is int:
        if -NUMBER_LIMIT < value < NUMBER_LIMIT:
            return value
        raise NotOfType
    return _number(value, whole=True)


def _real(value: AttributeValue) -> int | float | None:
    return _integer(value) if type(value) is int else _number(value, whole=False)


def _is_empty(value: AttributeValue) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _number(value: AttributeValue, *, whole: bool) -> int | float | None:
    if value is None or _is_empty(value):
        return None
    if isinstance(value, bool | list):
        raise NotOfType
    try:
        number = read_number(value, whole=whole) if isinstance(value, str) else float(value)
    except AmbiguousNumber:
        raise NotOfType("a point or comma before three digits can be read in two ways") from None
    except (NotANumber, OverflowError):
        raise NotOfType from None
    if not abs(number) < NUMBER_LIMIT or (whole and number != int(number)):
        raise NotOfType
    return int(number) if whole or number == int(number) else number


def _text(value: AttributeValue) -> str | None:
    if type(value) is str:
        text = normalize_text(value)
    elif value is None:
        return None
    elif isinstance(value, list):
        raise NotOfType
    else:
        text = str(value).lower() if isinstance(value, bool) else f"{value:.15g}" if value == int(value) else str(value)
    if len(text) > TEXT_MAX:
        raise NotOfType(f"has more than {TEXT_MAX} characters")
    if (found := find_personal(text)) is not None:
        raise NotOfType(f"{found.lower()}, which stays in intake")
    return text or None


def _boolean(value: AttributeValue) -> bool | None:
    if isinstance(value, bool):
        return value
    if _is_empty(value):
        return None
    word = str(value).strip().lower()
    if isinstance(value, list) or word not in _TRUE | _FALSE:
        raise NotOfType
    return word in _TRUE


def _country(value: AttributeValue) -> str | None:
    found = country_code(value) if isinstance(value, str) else None
    if found is None and not _is_empty(value):
        nearly = suggest_countries(value) if isinstance(value, str) else ()
        raise NotOfType(f"nearly {' or '.join(nearly)}" if nearly else "")
    return found


READERS: dict[AttributeType, Reader] = {
    "integer": _integer,
    "number": _real,
    "string": _text,
    "boolean": _boolean,
    "country": _country,
}
