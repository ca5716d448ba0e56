"""A person puts a lead right: the form of a correction, and the lead after it. Pure; keys and other leads are the use case's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from accord.contracts.values import Attributes, AttributeValue, PolicyFailure, Verdict
from intake.leads.domain.keys import IdentityKey
from intake.leads.domain.lead import Lead
from intake.leads.domain.quality import Quality
from intake.leads.domain.submission import ATTRIBUTES_MAX, AttributeIn, AttributeName

SOURCE = "correction"
"""The source under which corrections stand beside submissions."""

_Text = Annotated[str, StringConstraints(min_length=1, max_length=500, strip_whitespace=True)]


class CorrectionIn(BaseModel):
    """A JSON merge patch (RFC 7396): what is named is replaced, null takes it away, and what is not named stays."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    email: _Text | None = None
    phone: Annotated[str, StringConstraints(min_length=1, max_length=50, strip_whitespace=True)] | None = None
    first_name: _Text | None = None
    last_name: _Text | None = None
    company: _Text | None = None
    domain: Annotated[str, StringConstraints(min_length=1, max_length=253, strip_whitespace=True)] | None = None
    title: _Text | None = None
    attributes: Annotated[dict[AttributeName, AttributeIn], Field(max_length=ATTRIBUTES_MAX)] = Field(
        default_factory=dict
    )

    @property
    def person(self) -> dict[str, str | None]:
        """The personal fields that are named."""
        return {name: getattr(self, name) for name in self.model_fields_set if name != "attributes"}


@dataclass(frozen=True, slots=True)
class Correction:
    """What a person says instead: normalised values by field, None for one that is taken away."""

    at: datetime
    person: Mapping[str, str | None]
    attributes: Mapping[str, AttributeValue]
    account_id: UUID | None
    """The account of the corrected domain or address."""


def corrected(lead: Lead, correction: Correction) -> Lead:
    """The lead with the corrected values, each said at `correction.at`: only what is said later replaces one of them, and only what is
    said later brings one back that was taken away. Its first source and campaign stay."""
    person, attributes, stamps = dict(lead.person), dict(lead.attributes), dict(lead.stamps)
    for name, value in correction.person.items():
        stamps[name] = correction.at
        if value is None:
            person.pop(name, None)
        else:
            person[name] = value
    for name, attribute in correction.attributes.items():
        stamps[f"attributes.{name}"] = correction.at
        if attribute is None:
            attributes.pop(name, None)
        else:
            attributes[name] = attribute
    moves = not {"domain", "email"}.isdisjoint(correction.person)
    return replace(
        lead,
        person=person,
        attributes=attributes,
        stamps=stamps,
        account_id=correction.account_id if moves else lead.account_id,
    )


def judged_anew(lead: Lead, quality: Quality, at: datetime) -> Lead:
    """The lead under the judgement of its corrected record. A person has looked, so what would wait for one is flagged instead; a held
    lead waits on, and without a policy in force the last judgement stays."""
    if lead.held or quality.verdict == "unchecked":
        return lead
    return replace(
        lead,
        verdict=verdict_of(quality),
        policy_version=quality.policy_version,
        quality_score=quality.score,
        stamps={**lead.stamps, "verdict": at},
    )


def verdict_of(quality: Quality) -> Verdict:
    """The verdict of a correction that was taken."""
    verdict = quality.verdict
    return "flagged" if verdict == "rejected" or verdict == "quarantined" else verdict  # noqa: PLR1714 - narrows the type


def newly_refused(before: Quality, after: Quality) -> list[PolicyFailure]:
    """The parameters for which the policy rejects the corrected record and did not reject the record as it was: a correction need not put
    right what was wrong before, and may not make a record that no source could have sent."""
    known = {failure.parameter for failure in before.failed}
    return [failure for failure in after.failed if failure.consequence == "reject" and failure.parameter not in known]


def keys_changed(before: Lead, after: Lead) -> tuple[list[IdentityKey], list[IdentityKey]]:
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


def public_attributes(
    said: Mapping[str, AttributeValue], public: Attributes
) -> tuple[dict[str, AttributeValue], list[str]]:
    """The attributes of a correction as their declared types, and the names of those that nothing public can be made of."""
    validation_error = [name for name, value in said.items() if value is not None and name not in public]
    return {name: None if value is None else public.get(name) for name, value in said.items()}, validation_error
