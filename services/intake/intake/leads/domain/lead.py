"""One lead as intake keeps it, personal fields and all, and how it takes in a submission or another lead. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple, TypedDict
from uuid import UUID

from accord.contracts.intake_events import LeadState
from accord.contracts.values import Attributes, AttributeValue, Campaign, Verdict
from intake.leads.domain.quality import Quality

EXTERNAL_KEYS_MAX = 500
"""External ids of one lead that are published; more find it in intake only. Keeps the event within the size of a record."""
KEY_FIELDS = frozenset({"email", "phone"})
PERSON_FIELDS = ("email", "phone", "first_name", "last_name", "company", "domain", "title")


@dataclass(frozen=True, slots=True)
class Lead:
    """`stamps` holds when a value was said, by field name (attributes as `attributes.NAME`), so that the newest wins; a value without a
    stamp was said at `captured_at`, as all of a lead's first submission are.

    `held`: nothing acceptable has come yet, and no other service knows the lead. `sequence` counts its published events.
    """

    lead_id: UUID
    source: str
    captured_at: datetime
    verdict: Verdict
    person: Mapping[str, str]
    attributes: Attributes
    stamps: Mapping[str, datetime]
    account_id: UUID | None = None
    campaign: Campaign | None = None
    external_keys: tuple[str, ...] = ()
    policy_version: int | None = None
    quality_score: float | None = None
    held: bool = False
    merged_into: UUID | None = None
    sequence: int = 0

    def said_at(self, name: str) -> datetime:
        """When the present value of this field was said."""
        return self.stamps.get(name, self.captured_at)

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
    """What one submission says of a lead: normalised, its public attributes typed, at one moment."""

    source: str
    at: datetime
    person: Mapping[str, str]
    attributes: Attributes
    account_id: UUID | None
    campaign: Campaign | None
    external_key: str | None
    quality: Quality
    verdict: Verdict = "unchecked"


def created(lead_id: UUID, values: Values, *, held: bool, sequence: int) -> Lead:
    """The lead that a submission of a new person makes."""
    return Lead(
        lead_id=lead_id,
        source=values.source,
        captured_at=values.at,
        verdict=values.verdict,
        person=values.person,
        attributes=values.attributes,
        stamps={},
        account_id=values.account_id,
        campaign=values.campaign,
        external_keys=(values.external_key,) if values.external_key else (),
        policy_version=values.quality.policy_version,
        quality_score=values.quality.score,
        held=held,
        sequence=sequence,
    )


def updated(lead: Lead, values: Values) -> Lead:
    """The lead after a later submission: the newest value of each field wins, first source and first campaign stay."""
    merged = _Fields(lead)
    for name, value in values.person.items():
        merged.say(name, value, values.at)
    for name, attribute in values.attributes.items():
        merged.say_attribute(name, attribute, values.at)
    return replace(
        lead,
        account_id=lead.account_id or values.account_id,
        campaign=lead.campaign or values.campaign,
        external_keys=_joined(lead.external_keys, (values.external_key,) if values.external_key else ()),
        held=False,
        **_judged(merged, lead, values),
        **merged.fields(),
    )


def released(lead: Lead, values: Values, *, sequence: int) -> Lead:
    """A held lead that comes in by an acceptable submission: with what that says, and nothing that was only said in quarantine but
    who it is and when it was first heard of."""
    entered = created(lead.lead_id, values, held=False, sequence=sequence)
    said = [*values.person, *(f"attributes.{name}" for name in values.attributes), "verdict"]
    known = {name: value for name, value in lead.person.items() if name in KEY_FIELDS and name not in entered.person}
    return replace(
        entered,
        source=lead.source,
        captured_at=lead.captured_at,
        person={**known, **entered.person},
        stamps=dict.fromkeys(said, values.at) | {name: lead.stamps[name] for name in known if name in lead.stamps},
        external_keys=_joined(lead.external_keys, entered.external_keys),
    )


def survivor_of(first: Lead, second: Lead) -> tuple[Lead, Lead]:
    """Which of two leads survives their merge, and which does not: one that is in before one that is held, else the oldest."""
    ordered = sorted((first, second), key=lambda lead: (lead.held, lead.captured_at, lead.lead_id))
    return ordered[0], ordered[1]


def absorbed(survivor: Lead, other: Lead) -> Lead:
    """The survivor with the newest non-empty value of each field of both. Its source, campaign and time of capture stay."""
    merged = _Fields(survivor)
    for name, value in other.person.items():
        if other.held and (name not in KEY_FIELDS or name in merged.person):
            continue  # what was only said in quarantine stays there, but for who it is
        merged.say(name, value, other.said_at(name))
    for name, attribute in ({} if other.held else other.attributes).items():
        merged.say_attribute(name, attribute, other.said_at(f"attributes.{name}"))
    return replace(
        survivor,
        account_id=survivor.account_id or other.account_id,
        campaign=survivor.campaign or (None if other.held else other.campaign),
        external_keys=_joined(survivor.external_keys, other.external_keys),
        **merged.fields(),
    )


def changed_fields(before: Lead, after: Lead) -> list[str]:
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
    stamps: Mapping[str, datetime]


class _Fields:
    """The fields of one lead while more is said of it: the newest wins, and of two at one moment the later heard."""

    def __init__(self, lead: Lead) -> None:
        self.person, self.attributes, self.stamps = dict(lead.person), dict(lead.attributes), dict(lead.stamps)
        self._captured_at = lead.captured_at

    def say(self, name: str, value: str, at: datetime) -> None:
        if self.is_newest(name, at) or self._is_new(name, name in self.person):
            self.person[name] = value
            self.stamps[name] = at

    def say_attribute(self, name: str, value: AttributeValue, at: datetime) -> None:
        stamp = f"attributes.{name}"
        if self.is_newest(stamp, at) or self._is_new(stamp, name in self.attributes):
            self.attributes[name] = value
            self.stamps[stamp] = at

    def _is_new(self, stamp: str, has_value: bool) -> bool:
        """Whether nobody has said anything of it. A stamp without a value is when a person removed it."""
        return not has_value and stamp not in self.stamps

    def is_newest(self, name: str, at: datetime) -> bool:
        return at >= self.stamps.get(name, self._captured_at)

    def fields(self) -> _FieldsOut:
        return {"person": self.person, "attributes": self.attributes, "stamps": self.stamps}


class _Judgement(TypedDict):
    verdict: Verdict
    policy_version: int | None
    quality_score: float | None


def _judged(merged: _Fields, lead: Lead, values: Values) -> _Judgement:
    """The judgement of the newest submission, by the time it occurred."""
    if not merged.is_newest("verdict", values.at):
        return {
            "verdict": lead.verdict,
            "policy_version": lead.policy_version,
            "quality_score": lead.quality_score,
        }
    merged.stamps["verdict"] = values.at
    return {
        "verdict": values.verdict,
        "policy_version": values.quality.policy_version,
        "quality_score": values.quality.score,
    }


def _joined(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    return first if set(second) <= set(first) else tuple(dict.fromkeys((*first, *second)))[:EXTERNAL_KEYS_MAX]
