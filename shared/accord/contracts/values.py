"""Value types that several events share: money, departments, campaigns, attributes. They hold no personal data."""

from __future__ import annotations

import unicodedata
from datetime import UTC, date, datetime
from decimal import Decimal, DecimalException
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct
from pydantic import (
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, PydanticKnownError, core_schema

from accord.contracts.models import struct_schema

Department = Literal["marketing", "sales"]
Party = Literal["lead", "marketing", "sales"]
ActorKind = Literal["person", "automation", "agent"]
"""Who acts: a person, a tool by its rules (a campaign, an auto-reply), or a program that decides by itself (an AI agent)."""

Severity = Literal["low", "normal", "high", "critical"]
"""How grave an open promise has become by the steps of its clause."""
"""Who did an activity: the lead itself, or one of the two departments."""

StageKind = Literal["open", "won", "lost", "recycled", "disqualified"]
Verdict = Literal["accepted", "flagged", "quarantined", "unchecked"]


MOMENT_MIN = datetime(1970, 1, 1, tzinfo=UTC)
MOMENT_MAX = datetime(2199, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
"""What a business could mean. Nearer to the ends of time PostgreSQL and the driver read infinity, and an addition overflows."""

MOMENTS_IN_WORDS = f"from {MOMENT_MIN.date()} to {MOMENT_MAX.date()}"


def _timestamp(value: object, read: ValidatorFunctionWrapHandler) -> datetime:
    if type(value) is datetime and value.tzinfo is UTC:
        at = value  # made by ourselves: an event has up to four of these
    # pydantic alone would also take numbers, as seconds since 1970.
    elif isinstance(value, datetime) or (isinstance(value, str) and value[4:5] == "-" and value[10:11] in ("T", "t")):
        moment: datetime = read(value)
        if moment.tzinfo is None:
            raise PydanticKnownError("timezone_aware")
        try:
            at = moment.astimezone(UTC)
        except OverflowError:
            raise _out_of_range("timestamp_range", "a time") from None
    else:
        raise PydanticCustomError(
            "timestamp", "must be an RFC 3339 time with an offset, such as 2027-01-04T09:30:00-06:00"
        )
    if not MOMENT_MIN <= at <= MOMENT_MAX:
        raise _out_of_range("timestamp_range", "a time")
    return at


def _day(value: object, read: ValidatorFunctionWrapHandler) -> date:
    if not (type(value) is date or (isinstance(value, str) and len(value) == 10)):
        raise PydanticCustomError("day", "must be a date, such as 2027-01-04")
    day: date = read(value)
    if not MOMENT_MIN.date() <= day <= MOMENT_MAX.date():
        raise _out_of_range("day_range", "a date")
    return day


def _out_of_range(type_: Literal["timestamp_range", "day_range"], what: str) -> PydanticCustomError:
    return PydanticCustomError(type_, "must be {what} {range}", {"what": what, "range": MOMENTS_IN_WORDS})


class _Described(Struct, frozen=True, gc=False):
    """Says the range where something is asked for. The schemas of events stay as they are: it is no part of the wire's form."""

    words: str

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        found = handler(schema)
        return {**found, "description": self.words} if handler.mode == "validation" else found


def limits(**bounds: Any) -> tuple[Meta, Any]:
    """The same bounds for msgspec, which reads events, and for pydantic, which reads what others send."""
    pattern = bounds.get("pattern")
    # For msgspec, `$` alone would also match before a line feed at the end.
    strict = {"pattern": f"{pattern}(?!\\n)"} if pattern else {}
    return Meta(**bounds | strict), Field(**bounds)


Timestamp = Annotated[
    datetime,
    Meta(tz=True),
    WrapValidator(_timestamp),
    _Described(f"RFC 3339 with an offset, {MOMENTS_IN_WORDS}."),
]
"""A moment with an offset, held in UTC: the type of every moment that comes in, wherever it comes in. ADR 72."""

Day = Annotated[date, WrapValidator(_day), _Described(f"A date {MOMENTS_IN_WORDS}.")]
"""A date of the same range."""

Whole = Annotated[int, *limits(ge=-(2**53), le=2**53), WithJsonSchema({"type": "integer"})]
"""A number that every reader of JSON holds as it is. A larger one is taken for a float."""

Real = Annotated[float, Field(allow_inf_nan=False)]

AttributeValue = bool | Whole | Real | str | list[str] | None
Attributes = dict[str, AttributeValue]
"""Public attributes of a lead, by the names that the data policy declares. Never a name, phone or free text."""

_INVISIBLE = "\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff"
"""Zero-width blanks and marks of direction, as pages and address books copy them along."""


def normalize_text(text: str) -> str:
    """A text as it is meant: without blanks and invisible marks around it, its letters composed (NFC). Everything that is compared or
    grouped is read so, wherever it comes in."""
    text = text.strip()
    if text.isascii():
        return text
    while (inner := text.strip(_INVISIBLE).strip()) != text:
        text = inner
    return unicodedata.normalize("NFC", text)


def _normalize(value: object) -> object:
    if not isinstance(value, str):
        return value
    return value.strip() if value.isascii() else normalize_text(value)  # a submission has a dozen of these


Normalized = BeforeValidator(_normalize)
"""For texts of pydantic's models: the bounds hold of the normalized text."""

Handle = Annotated[str, *limits(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]*$")]
"""An opaque name of an employee, key, pool or source: never an e-mail address, since '@' is not allowed."""

SourceName = Annotated[
    str,
    *limits(min_length=1, max_length=100, pattern=r"^[^\s@:/\x00-\x1f\x7f]([^@:\x00-\x1f\x7f]*[^\s@:\x00-\x1f\x7f])?$"),
    Normalized,
]
"""What the organisation calls an origin of leads, as it writes it ("organic search").

No '@' (it would be an address), no ':' (see `external:SOURCE:ID`).
"""

Key = Annotated[str, *limits(min_length=1, max_length=200)]
"""A word of an agreement: a stage, decision, reason, clause, goal or parameter."""

Why = Annotated[str, *limits(max_length=2_000)]
"""A reason in words that the system has made; never text that a person typed."""

Version = Annotated[int, *limits(ge=1)]
"""The version of the agreement under which something was decided."""

Ordinal = Annotated[int, *limits(ge=1)]
"""Counted from 1."""

Count = Annotated[int, *limits(ge=0)]

Digest = Annotated[str, *limits(pattern=r"^[0-9a-f]{64}$")]
"""SHA-256 in hexadecimal digits."""

Share = Annotated[float, *limits(ge=0, le=1)]

DIGITS_MAX = 40


class DecimalText(Decimal):
    """A finite decimal of at most 40 digits and places. It travels as text, so that no reader turns it into a float.

    Raises ValueError for any other number.
    """

    __slots__ = ()

    def __new__(cls, value: Decimal | str | int) -> DecimalText:
        try:
            made = super().__new__(cls, value)
        except DecimalException:
            raise ValueError("must be a decimal") from None
        _, digits, exponent = made.as_tuple()
        if not isinstance(exponent, int) or len(digits) + max(exponent, 0) > DIGITS_MAX or exponent < -DIGITS_MAX:
            # The zero 0E-999999999 has one digit, and would be written in a gigabyte.
            raise ValueError(f"must have at most {DIGITS_MAX} digits and decimal places")
        return made

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        number = core_schema.decimal_schema(allow_inf_nan=False, max_digits=DIGITS_MAX)
        return core_schema.no_info_after_validator_function(
            cls,
            number,
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda number: format(number, "f"), return_schema=core_schema.str_schema()
            ),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        if handler.mode == "serialization":
            return {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?$"}
        return handler(schema)


class Value(Struct, frozen=True, gc=False, kw_only=True):
    """Base of immutable values and events. Its constructor looks at no value: what is written is checked by `encode_value`.

    It can be a field of a pydantic model, which checks it and gives an unknown field as an error.
    """

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return struct_schema(cls, handler)


class Money(Value, frozen=True, kw_only=True):
    """An amount in a currency (ISO 4217 code). Decimal, never float."""

    amount: DecimalText
    currency: Annotated[str, *limits(pattern=r"^[A-Z]{3}$")]


CampaignWord = Annotated[str, *limits(max_length=200), Normalized]


class Campaign(Value, frozen=True, kw_only=True):
    """What brought a lead or an activity: the UTM words and, where known, the cost of this touch."""

    name: CampaignWord | None = None
    medium: CampaignWord | None = None
    content: CampaignWord | None = None
    term: CampaignWord | None = None
    cost: Money | None = None


class PolicyFailure(Value, frozen=True, kw_only=True):
    """One parameter of the data policy that a submission did not meet."""

    parameter: Key
    consequence: Literal["reject", "quarantine", "flag"]
    reason: Why
    """Names the class of the value, never the value."""


def utc(year: int, month: int, day: int, hour: int = 0, minute: int = 0, second: int = 0) -> datetime:
    """A moment in UTC; short enough for examples and tests."""
    return datetime(year, month, day, hour, minute, second, tzinfo=UTC)
