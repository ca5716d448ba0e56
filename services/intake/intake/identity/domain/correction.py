"""A person corrects a lead: the form of a correction, and the lead after it. Pure; keys and other leads are the use case's."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from accord.contracts.values import Attributes, AttributeValue, Normalized, PolicyFailure, Verdict
from intake.leads.domain.keys import IdentityKey
from intake.leads.domain.lead import Lead
from intake.leads.domain.quality import Quality
from intake.leads.domain.submission import AttributesIn

SOURCE = "correction"
"""The source under which corrections stand beside submissions."""

_Text = Annotated[str, StringConstraints(min_length=1, max_length=500), Normalized]


class CorrectionIn(BaseModel):
    """A JSON merge patch (RFC 7396): what is named is replaced, null takes it away, and what is not named stays."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    email: _Text | None = None
    phone: Annotated[str, StringConstraints(min_length=1, max_length=50), Normalized] | None = None
    first_name: _Text | None = None
    last_name: _Text | None = None
    company: _Text | None = None
    domain: Annotated[str, StringConstraints(min_length=1, max_length=253), Normalized] | None = None
    title: _Text | None = None
    attributes: AttributesIn = Field(default_factory=dict)

    @property
    def person(self) -> dict[str, str | None]:
        """The personal fields that are named."""
        return {name: getattr(self, name) for name in self.model_fields_set if name != "attributes"}


class Correction(Struct, frozen=True, gc=False):
    """What a person says instead: normalized values by field, None for one that is taken away."""

    at: datetime
    person: Mapping[str, str | None]
    attributes: Mapping[str, AttributeValue]
    account_id: UUID | None
    """The account of the corrected domain or address."""


def apply_correction(lead: Lead, correction: Correction) -> Lead:
    """The lead with the corrected values, each said at `correction.at`: only what is said later replaces one of them, and only what is
    said later brings one back that was taken away. Its first source and campaign stay."""
    person, attributes, field_timestamps = dict(lead.person), dict(lead.attributes), dict(lead.field_timestamps)
    for name, value in correction.person.items():
        field_timestamps[name] = correction.at
        if value is None:
            person.pop(name, None)
        else:
            person[name] = value
    for name, attribute in correction.attributes.items():
        field_timestamps[f"attributes.{name}"] = correction.at
        if attribute is None:
            attributes.pop(name, None)
        else:
            attributes[name] = attribute
    has_new_domain = not {"domain", "email"}.isdisjoint(correction.person)
    return replace(
        lead,
        person=person,
        attributes=attributes,
        field_timestamps=field_timestamps,
        account_id=correction.account_id if has_new_domain else lead.account_id,
    )


def apply_verdict(lead: Lead, quality: Quality, at: datetime) -> Lead:
    """The lead under the judgement of its corrected record. A person has looked, so what would wait for one is flagged instead; a held
    lead waits on, and without a policy in force the last judgement stays."""
    if lead.pending or quality.verdict == "unchecked":
        return lead
    return replace(
        lead,
        verdict=correction_verdict(quality),
        policy_version=quality.policy_version,
        quality_score=quality.score,
        field_timestamps={**lead.field_timestamps, "verdict": at},
    )


def correction_verdict(quality: Quality) -> Verdict:
    """The verdict of a correction that was taken."""
    verdict = quality.verdict
    return "flagged" if verdict == "rejected" or verdict == "quarantined" else verdict  # noqa: PLR1714 - narrows the type


def find_new_rejections(before: Quality, after: Quality) -> list[PolicyFailure]:
    """The parameters for which the policy rejects the corrected record and did not reject the record as it was: a correction need not put
    right what was wrong before, and may not make a record that no source could have sent."""
    known = {failure.parameter for failure in before.failed}
    return [failure for failure in after.failed if failure.consequence == "reject" and failure.parameter not in known]


def diff_keys(before: Lead, after: Lead) -> tuple[list[IdentityKey], list[IdentityKey]]:
    """The keys that are given up, and those that are taken instead."""
    dropped, taken = _keys(before), _keys(after)
    return [key for key in dropped if key not in taken], [key for key in taken if key not in dropped]


def _keys(lead: Lead) -> list[IdentityKey]:
    keys: list[IdentityKey] = []
    if email := lead.person.get("email"):
        keys.append(("email", email))
    if phone := lead.person.get("phone"):
        keys.append(("phone", phone))
    return keys


def select_public_attributes(
    said: Mapping[str, AttributeValue], public: Attributes
) -> tuple[dict[str, AttributeValue], list[str]]:
    """The attributes of a correction as their declared types, and the names of those that nothing public can be made of."""
    not_public = [name for name, value in said.items() if value is not None and name not in public]
    return {name: None if value is None else public.get(name) for name, value in said.items()}, not_public
