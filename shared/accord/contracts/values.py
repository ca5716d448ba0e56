"""Value types that several events share: money, departments, campaigns, public attributes. They hold no personal data."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, PlainSerializer

Department = Literal["marketing", "sales"]
Party = Literal["lead", "marketing", "sales"]
"""Who did an activity: the lead itself, or one of the two departments."""

StageKind = Literal["open", "won", "lost", "recycled", "disqualified"]
Verdict = Literal["accepted", "flagged", "quarantined", "unchecked"]

Timestamp = Annotated[AwareDatetime, AfterValidator(lambda at: at.astimezone(UTC))]
"""A moment with an offset, held in UTC."""

AttributeValue = bool | int | float | str | list[str] | None
Attributes = dict[str, AttributeValue]
"""Public attributes of a lead, by the names that the data policy declares. Never a name, address, phone or free text."""

Handle = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]*$")]
"""An opaque name of an employee, key, pool or source: never an e-mail address, since '@' is not allowed."""

SourceName = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\s@:/\x00-\x1f\x7f]([^@:\x00-\x1f\x7f]*[^\s@:\x00-\x1f\x7f])?$")]
"""What the organisation calls an origin of leads, as it writes it ("organic search"). No '@' (it would be an address), no ':' (see `external:SOURCE:ID`)."""

DecimalText = Annotated[Decimal, Field(allow_inf_nan=False), PlainSerializer(lambda d: format(d, "f"), return_type=str)]
"""A decimal that travels as text, so that no reader turns it into a float."""


class Value(BaseModel):
    """Base of immutable values. Unknown fields are an error for the producer; consumers parse with `extra="ignore"`."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Money(Value):
    """An amount in a currency (ISO 4217 code). Decimal, never float."""

    amount: DecimalText
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]


class Campaign(Value):
    """What brought a lead or an activity: the UTM words and, where known, the cost of this touch."""

    name: str | None = Field(default=None, max_length=200)
    medium: str | None = Field(default=None, max_length=200)
    content: str | None = Field(default=None, max_length=200)
    term: str | None = Field(default=None, max_length=200)
    cost: Money | None = None


class PolicyFailure(Value):
    """One parameter of the data policy that a submission did not meet. `reason` names the class of the value, never the value."""

    parameter: str
    consequence: Literal["reject", "quarantine", "flag"]
    reason: str


def utc(year: int, month: int, day: int, hour: int = 0, minute: int = 0, second: int = 0) -> datetime:
    """A moment in UTC; short enough for examples and tests."""
    return datetime(year, month, day, hour, minute, second, tzinfo=UTC)
