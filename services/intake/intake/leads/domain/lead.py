"""One lead as intake keeps it, personal fields and all, and how it absorbs a submission or another lead. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple, TypedDict
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from accord.contracts.intake_events import LeadState
from accord.contracts.values import Attributes, AttributeValue, Campaign, Verdict
from intake.leads.domain.quality import Quality

EXTERNAL_KEYS_MAX = 500
"""External ids of one lead that are published; more find it in intake only. Keeps the event within the size of a record."""
KEY_FIELDS = frozenset({"email", "phone"})
PERSON_FIELDS = ("email", "phone", "first_name", "last_name", "company", "domain", "title")


class Lead(Struct, frozen=True, gc=False):
    """`field_timestamps` holds when a value was said, by field name (attributes as `attributes.NAME`), so that the newest wins; a value
    without a timestamp was said at `captured_at`, as all of a lead's first submission are.

    `pending`: nothing acceptable has come yet, and no other service knows the lead. `sequence` counts its published events.
    """

    lead_id: UUID
    source: str
    captured_at: datetime
    verdict: Verdict
    person: Mapping[str, str]
    attributes: Attributes
    field_timestamps: Mapping[str, datetime]
    account_id: UUID | None = None
    campaign: Campaign | None = None
    external_keys: tuple[str, ...] = ()
    policy_version: int | None = None
    quality_score: float | None = None
    pending: bool = False
    merged_into: UUID | None = None
    sequence: int = 0

    def value_time(self, name: str) -> datetime:
        """When the present value of this field was said."""
        return self.field_timestamps.get(name, self.captured_at)

    def state(self) -> LeadState:
        """What other services may know of it."""
        return LeadState(
            source=self.source,
            captured_at=self.captured_at,
            account_id=self.account_id,
            attributes=self.attributes,
            campaign=self.campaign,
            external_keys=list(self.external_keys),
            verdict=self.verdict,
            policy_version=self.policy_version,
            quality_score=self.quality_score,
        )


class Values(NamedTuple):
    """What one submission says of a lead: normalized, its public attributes typed, at one moment."""

    source: str
    at: datetime
    person: Mapping[str, str]
    attributes: Attributes
    account_id: UUID | None
    campaign: Campaign | None
    external_key: str | None
    quality: Quality
    verdict: Verdict = "unchecked"


def create_lead(lead_id: UUID, values: Values, *, pending: bool, sequence: int) -> Lead:
    """The lead that a submission of a new person makes."""
    return Lead(
        lead_id=lead_id,
        source=values.source,
        captured_at=values.at,
        verdict=values.verdict,
        person=values.person,
        attributes=values.attributes,
        field_timestamps={},
        account_id=values.account_id,
        campaign=values.campaign,
        external_keys=(values.external_key,) if values.external_key else (),
        policy_version=values.quality.policy_version,
        quality_score=values.quality.score,
        pending=pending,
        sequence=sequence,
    )


def update_lead(lead: Lead, values: Values) -> Lead:
    """The lead after a later submission: the newest value of each field wins, first source and first campaign stay."""
    merged = _FieldMerger(lead)
    for name, value in values.person.items():
        merged.set_field(name, value, values.at)
    for name, attribute in values.attributes.items():
        merged.set_attribute(name, attribute, values.at)
    return replace(
        lead,
        account_id=lead.account_id or values.account_id,
        campaign=lead.campaign or values.campaign,
        external_keys=_union(lead.external_keys, (values.external_key,) if values.external_key else ()),
        pending=False,
        **_newest_verdict(merged, lead, values),
        **merged.fields(),
    )


def release_lead(lead: Lead, values: Values, *, sequence: int) -> Lead:
    """A pending lead that comes in by an acceptable submission: with what that says, and nothing that was only said in quarantine but
    who it is and when it was first heard of."""
    entered = create_lead(lead.lead_id, values, pending=False, sequence=sequence)
    said = [*values.person, *(f"attributes.{name}" for name in values.attributes), "verdict"]
    known = {name: value for name, value in lead.person.items() if name in KEY_FIELDS and name not in entered.person}
    return replace(
        entered,
        source=lead.source,
        captured_at=lead.captured_at,
        person={**known, **entered.person},
        field_timestamps=dict.fromkeys(said, values.at)
        | {name: lead.field_timestamps[name] for name in known if name in lead.field_timestamps},
        external_keys=_union(lead.external_keys, entered.external_keys),
    )


def choose_survivor(first: Lead, second: Lead) -> tuple[Lead, Lead]:
    """Which of two leads survives their merge, and which does not: one that is in before one that is pending, else the oldest."""
    ordered = sorted((first, second), key=lambda lead: (lead.pending, lead.captured_at, lead.lead_id))
    return ordered[0], ordered[1]


def absorb_lead(survivor: Lead, other: Lead) -> Lead:
    """The survivor with the newest non-empty value of each field of both. Its source, campaign and time of capture stay."""
    merged = _FieldMerger(survivor)
    for name, value in other.person.items():
        if other.pending and (name not in KEY_FIELDS or name in merged.person):
            continue  # what was only said in quarantine stays there, but for who it is
        merged.set_field(name, value, other.value_time(name))
    for name, attribute in ({} if other.pending else other.attributes).items():
        merged.set_attribute(name, attribute, other.value_time(f"attributes.{name}"))
    return replace(
        survivor,
        account_id=survivor.account_id or other.account_id,
        campaign=survivor.campaign or (None if other.pending else other.campaign),
        external_keys=_union(survivor.external_keys, other.external_keys),
        **merged.fields(),
    )


def find_changed_fields(before: Lead, after: Lead) -> list[str]:
    """The public fields that differ, `attributes.NAME` among them."""
    names = [
        f"attributes.{name}"
        for name in sorted({*before.attributes, *after.attributes})
        if before.attributes.get(name) != after.attributes.get(name)
    ]
    fields = ("account_id", "campaign", "external_keys", "verdict", "policy_version", "quality_score")
    return names + [name for name in fields if getattr(before, name) != getattr(after, name)]


class _FieldsOut(TypedDict):
    person: Mapping[str, str]
    attributes: Attributes
    field_timestamps: Mapping[str, datetime]


class _FieldMerger:
    """The fields of one lead while more is said of it: the newest wins, and of two at one moment the later heard."""

    def __init__(self, lead: Lead) -> None:
        self.person, self.attributes, self.field_timestamps = (
            dict(lead.person),
            dict(lead.attributes),
            dict(lead.field_timestamps),
        )
        self._captured_at = lead.captured_at

    def set_field(self, name: str, value: str, at: datetime) -> None:
        if self.is_newest(name, at) or self._is_new(name, name in self.person):
            self.person[name] = value
            self.field_timestamps[name] = at

    def set_attribute(self, name: str, value: AttributeValue, at: datetime) -> None:
        key = f"attributes.{name}"
        if self.is_newest(key, at) or self._is_new(key, name in self.attributes):
            self.attributes[name] = value
            self.field_timestamps[key] = at

    def _is_new(self, key: str, has_value: bool) -> bool:
        """Whether nobody has said anything of it. A stamp without a value is when a person removed it."""
        return not has_value and key not in self.field_timestamps

    def is_newest(self, name: str, at: datetime) -> bool:
        return at >= self.field_timestamps.get(name, self._captured_at)

    def fields(self) -> _FieldsOut:
        return {"person": self.person, "attributes": self.attributes, "field_timestamps": self.field_timestamps}


class _VerdictFields(TypedDict):
    verdict: Verdict
    policy_version: int | None
    quality_score: float | None


def _newest_verdict(merged: _FieldMerger, lead: Lead, values: Values) -> _VerdictFields:
    """The judgement of the newest submission, by the time it occurred."""
    if not merged.is_newest("verdict", values.at):
        return {
            "verdict": lead.verdict,
            "policy_version": lead.policy_version,
            "quality_score": lead.quality_score,
        }
    merged.field_timestamps["verdict"] = values.at
    return {
        "verdict": values.verdict,
        "policy_version": values.quality.policy_version,
        "quality_score": values.quality.score,
    }


def _union(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    return first if set(second) <= set(first) else tuple(dict.fromkeys((*first, *second)))[:EXTERNAL_KEYS_MAX]
