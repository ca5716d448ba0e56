"""A submission and an activity as they are sent: their form and its limits. What the values are worth, the policy says."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Annotated, Any, cast
from uuid import UUID

import msgspec
from msgspec.structs import replace
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, StringConstraints, model_validator

from accord.contracts.personal import check_not_personal, find_personal
from accord.contracts.values import (
    ActorKind,
    Campaign,
    CampaignWord,
    Handle,
    Money,
    Normalized,
    Party,
    SourceName,
    Timestamp,
    normalize_text,
)
from accord.terms.findings import Finding
from intake.leads.domain.consent import WITHDRAWN
from intake.leads.domain.usable_ids import check_id

CLOCK_SKEW_MAX = timedelta(minutes=5)
"""How far ahead of our clock a sender's may be."""
ATTRIBUTES_MAX = 100
PROPERTIES_BYTES_MAX = 64 * 1024
"""All properties of one activity."""
_CAMPAIGNS_CACHED = 2_000
"""Of at most 800 characters each."""

Text = Annotated[str, StringConstraints(max_length=500), Normalized]
AttributeName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$")]
Whole = Annotated[int, Field(ge=-(2**53), le=2**53)]
Real = Annotated[float, Field(allow_inf_nan=False)]
"""Numbers that every reader of JSON can hold, so that what was taken can be given back."""
AttributeIn = (
    bool
    | Whole
    | Real
    | Annotated[str, StringConstraints(max_length=1000)]
    | Annotated[list[Text], Field(max_length=50)]
    | None
)
ExternalId = Annotated[str, StringConstraints(min_length=1, max_length=300), AfterValidator(check_id), Normalized]
"""The one reader of ids: of submissions, activities, links and look-ups."""
Source = Annotated[SourceName, AfterValidator(check_not_personal)]
"""As events carry it, so it names nobody; nor do a kind of activity and an actor."""
Kind = Annotated[
    str,
    StringConstraints(max_length=100, pattern=r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+$"),
    AfterValidator(check_not_personal),
]
Actor = Annotated[Handle, AfterValidator(check_not_personal)]


def _check_numbers(value: JsonValue) -> JsonValue:
    """The value, if all its numbers can be stored and given back."""
    if isinstance(value, dict):
        for item in value.values():
            _check_numbers(item)
    elif isinstance(value, list):
        for item in value:
            _check_numbers(item)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("must be a finite number")
    elif isinstance(value, int) and abs(value) > 2**53:
        raise ValueError("must lie within 2^53")
    return value


def _normalize_attributes(attributes: dict[str, AttributeIn]) -> dict[str, AttributeIn]:
    """Not by the type of the text: a text that is looked at there would no longer be one before it is a number."""
    return {name: normalize_text(value) if isinstance(value, str) else value for name, value in attributes.items()}


def _check_size(properties: dict[str, JsonValue]) -> dict[str, JsonValue]:
    if len(msgspec.json.encode(properties)) > PROPERTIES_BYTES_MAX:
        raise ValueError(f"must have {PROPERTIES_BYTES_MAX} bytes of JSON at most")
    return properties


AttributesIn = Annotated[
    dict[AttributeName, AttributeIn], Field(max_length=ATTRIBUTES_MAX), AfterValidator(_normalize_attributes)
]


class _StrictModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CampaignIn(_StrictModel):
    """A campaign as it is sent; where the lead landed stays in the submission."""

    name: CampaignWord | None = None
    medium: CampaignWord | None = None
    content: CampaignWord | None = None
    term: CampaignWord | None = None
    cost: Money | None = None
    landing_page: Annotated[str, Field(max_length=2000)] | None = None
    referrer: Annotated[str, Field(max_length=2000)] | None = None

    def public(self) -> Campaign | None:
        """The words that may leave intake: none that is surely somebody's."""
        found, _ = _split_words(self.name, self.medium, self.content, self.term)
        if self.cost is None:
            return found
        return Campaign(cost=self.cost) if found is None else replace(found, cost=self.cost)

    def find_held_back(self) -> tuple[Finding, ...]:
        """The words that may not, each with why."""
        return _split_words(self.name, self.medium, self.content, self.term)[1]


@lru_cache(maxsize=_CAMPAIGNS_CACHED)
def _split_words(*words: str | None) -> tuple[Campaign | None, tuple[Finding, ...]]:
    """The campaign as it may leave intake, and what of it may not. Many leads come by one campaign."""
    given = {name: word for name, word in zip(("name", "medium", "content", "term"), words, strict=True) if word}
    held_back = {name: found for name, word in given.items() if (found := find_personal(word)) is not None}
    public = {name: word for name, word in given.items() if name not in held_back}
    return (
        Campaign(**cast("dict[str, Any]", public)) if public else None,
        tuple(Finding(f"/campaign/{name}", f"{found}, which stays in intake") for name, found in held_back.items()),
    )


class Consent(_StrictModel):
    """On what basis the person may be contacted. `assumed`: a list, a constant or a default says so, and not the person just now. Rows of
    files and what a source adds by itself are assumed."""

    basis: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z_]{0,49}$")]
    given_at: Timestamp | None = None
    text: Annotated[str, Field(max_length=5000)] | None = None
    assumed: bool = Field(
        default=False,
        description="True: a list or a setting says so, and not the person just now. Without `given_at` it lifts no withdrawal.",
    )

    @property
    def is_dated(self) -> bool:
        """Whether it is known when it was said: a live record says it now, and a withdrawal always counts."""
        return not self.assumed or self.given_at is not None or self.basis == WITHDRAWN


class Submission(_StrictModel):
    """One inbound record. Only `source` and one of `email`, `phone`, `external_id` are needed."""

    source: Source
    external_id: ExternalId | None = None
    email: Text | None = None
    phone: Annotated[str, StringConstraints(max_length=50), Normalized] | None = None
    first_name: Text | None = None
    last_name: Text | None = None
    company: Text | None = None
    domain: Annotated[str, StringConstraints(max_length=253), Normalized] | None = None
    title: Text | None = None
    attributes: AttributesIn = Field(default_factory=dict)
    campaign: CampaignIn | None = None
    consent: Consent | None = None
    occurred_at: Timestamp | None = None

    @model_validator(mode="after")
    def _needs_identity(self) -> Submission:
        if not (self.email or self.phone or self.external_id):
            raise ValueError("needs one of email, phone, external_id")
        return self


class External(_StrictModel):
    """The id that another system gave the lead."""

    source: Source
    id: ExternalId


class ActivityIn(_StrictModel):
    """Something that happened with a lead, named by exactly one of `lead_id`, `email`, `external`."""

    lead_id: UUID | None = None
    email: Text | None = None
    external: External | None = None
    kind: Kind
    by: Party
    actor: Actor | None = None
    actor_kind: ActorKind | None = None
    occurred_at: Timestamp | None = None
    campaign: CampaignIn | None = None
    properties: Annotated[
        dict[str, Annotated[JsonValue, AfterValidator(_check_numbers)]],
        Field(max_length=100, description=f"{PROPERTIES_BYTES_MAX} bytes of JSON at most."),
        AfterValidator(_check_size),
    ] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _needs_one_identity(self) -> ActivityIn:
        if sum(given is not None for given in (self.lead_id, self.email, self.external)) != 1:
            raise ValueError("needs exactly one of lead_id, email, external")
        return self


def is_in_future(at: datetime | None, now: datetime) -> bool:
    """Whether a reported time lies further in the future than clocks may differ."""
    return at is not None and at > now + CLOCK_SKEW_MAX
