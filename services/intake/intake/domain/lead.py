"""One lead as intake keeps it, personal fields and all, and how it takes in a submission or another lead. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TypedDict
from uuid import UUID

from accord.contracts.intake_events import LeadState
from accord.contracts.values import Attributes, AttributeValue, Campaign, Verdict
from intake.domain.quality import Quality

EXTERNAL_KEYS_MAX = 500
"""External ids of one lead that are published; more find it in intake only. Keeps the event within the size of a record."""
KEY_FIELDS = frozenset({"email", "phone"})
PERSON_FIELDS = ("email", "phone", "first_name", "last_name", "company", "domain", "title")


@dataclass(frozen=True, slots=True)
class Lead:
    """`stamps` holds when each value was said, by field name (attributes as `attributes.NAME`), so that the newest wins.

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


@dataclass(frozen=True, slots=True)
class Values:
    """What one submission says of a lead: normalised, its public attributes typed, at one moment."""

    source: str
    at: datetime
    person: Mapping[str, str]
    attributes: Attributes
    account_id: UUID | None
    campaign: Campaign | None
    external_key: str | None
    quality: Quality
    verdict: Verdict = field(default="unchecked")


def created(lead_id: UUID, values: Values, *, held: bool) -> Lead:
    """The lead that a submission of a new person makes."""
    return Lead(
        lead_id=lead_id,
        source=values.source,
        captured_at=values.at,
        verdict=values.verdict,
        person=dict(values.person),
        attributes=dict(values.attributes),
        stamps=dict.fromkeys(
            [*values.person, *(f"attributes.{name}" for name in values.attributes), "verdict"], values.at
        ),
        account_id=values.account_id,
        campaign=values.campaign,
        external_keys=(values.external_key,) if values.external_key else (),
        policy_version=values.quality.policy_version,
        quality_score=values.quality.score,
        held=held,
    )


def updated(lead: Lead, values: Values) -> Lead:
    """The lead after a later submission: the newest value of each field wins, first source and first campaign stay."""
    person, attributes, stamps = dict(lead.person), dict(lead.attributes), dict(lead.stamps)
    for name, value in values.person.items():
        if _newer(stamps, name, values.at):
            person[name] = value
            stamps[name] = values.at
    _take_attributes(attributes, stamps, values.attributes, lambda _: values.at)
    return replace(
        lead,
        person=person,
        attributes=attributes,
        stamps=stamps,
        account_id=lead.account_id or values.account_id,
        campaign=lead.campaign or values.campaign,
        external_keys=_joined(lead.external_keys, (values.external_key,) if values.external_key else ()),
        held=False,
        **_judged(stamps, lead, values),
    )


def released(lead: Lead, values: Values) -> Lead:
    """A held lead that comes in by an acceptable submission: with what that says, and nothing that was only said in quarantine but
    who it is and when it was first heard of."""
    entered = created(lead.lead_id, values, held=False)
    known = {name: value for name, value in lead.person.items() if name in KEY_FIELDS and name not in entered.person}
    return replace(
        entered,
        source=lead.source,
        captured_at=lead.captured_at,
        person={**known, **entered.person},
        stamps={**{name: lead.stamps[name] for name in known}, **entered.stamps},
        external_keys=_joined(lead.external_keys, entered.external_keys),
        sequence=lead.sequence,
    )


def survivor_of(first: Lead, second: Lead) -> tuple[Lead, Lead]:
    """Which of two leads survives their merge, and which does not: one that is in before one that is held, else the oldest."""
    ordered = sorted((first, second), key=lambda lead: (lead.held, lead.captured_at, lead.lead_id))
    return ordered[0], ordered[1]


def absorbed(survivor: Lead, other: Lead) -> Lead:
    """The survivor with the newest non-empty value of each field of both. Its source, campaign and time of capture stay."""
    person, attributes, stamps = dict(survivor.person), dict(survivor.attributes), dict(survivor.stamps)
    for name, value in other.person.items():
        if other.held and (name not in KEY_FIELDS or name in person):
            continue  # what was only said in quarantine stays there, but for who it is
        at = other.stamps.get(name, other.captured_at)
        if _newer(stamps, name, at):
            person[name] = value
            stamps[name] = at
    _take_attributes(
        attributes,
        stamps,
        {} if other.held else other.attributes,
        lambda name: other.stamps.get(f"attributes.{name}", other.captured_at),
    )
    return replace(
        survivor,
        person=person,
        attributes=attributes,
        stamps=stamps,
        account_id=survivor.account_id or other.account_id,
        campaign=survivor.campaign or (None if other.held else other.campaign),
        external_keys=_joined(survivor.external_keys, other.external_keys),
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


def _newer(stamps: Mapping[str, datetime], name: str, at: datetime) -> bool:
    known = stamps.get(name)
    return known is None or at >= known


def _take_attributes(
    attributes: dict[str, AttributeValue],
    stamps: dict[str, datetime],
    offered: Attributes,
    said_at: Callable[[str], datetime],
) -> None:
    for name, value in offered.items():
        at = said_at(name)
        if _newer(stamps, f"attributes.{name}", at):
            attributes[name] = value
            stamps[f"attributes.{name}"] = at


class _Judgement(TypedDict):
    verdict: Verdict
    policy_version: int | None
    quality_score: float | None


def _judged(stamps: dict[str, datetime], lead: Lead, values: Values) -> _Judgement:
    """The judgement of the newest submission, by the time it occurred."""
    if not _newer(stamps, "verdict", values.at):
        return {
            "verdict": lead.verdict,
            "policy_version": lead.policy_version,
            "quality_score": lead.quality_score,
        }
    stamps["verdict"] = values.at
    return {
        "verdict": values.verdict,
        "policy_version": values.quality.policy_version,
        "quality_score": values.quality.score,
    }


def _joined(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    return first if set(second) <= set(first) else tuple(dict.fromkeys((*first, *second)))[:EXTERNAL_KEYS_MAX]
