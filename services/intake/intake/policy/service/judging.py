"""What the data policy in force says of a submission: its quality, its public attributes, and by which keys people are known."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from accord.contracts.values import Attributes
from accord.terms.findings import Finding
from intake.leads.domain.facts import Facts
from intake.leads.domain.quality import Quality, unchecked
from intake.leads.service.person import Recognised
from intake.policy.domain.judge import Judge

InForce = tuple[int, Judge] | None
"""The policy's version and the policy, None while nothing is in force."""


def as_the_policy_knows(recognised: Sequence[Recognised], in_force: InForce) -> Sequence[Recognised]:
    """The submissions with the keys by which the policy lets people be known: a phone that is shared is a value and names nobody."""
    if in_force is None or not in_force[1].policy.phones_shared:
        return recognised
    return [_without_phone(one) for one in recognised]


def _without_phone(one: Recognised) -> Recognised:
    keys = tuple(key for key in one.keys if key[0] != "phone")
    if keys or one.flaw is not None:
        return one._replace(keys=keys)
    message = (
        "Says not who it is, since phones are shared by the data policy, and there is no other way to know the person"
    )
    return one._replace(keys=keys, flaw=Finding("/phone", message))


class RejectedByPolicy(Exception):
    """The policy refuses a record as a person has put it right, for the reasons in `refusal`. Nothing is written then."""

    def __init__(self, quality: Quality, refusal: str) -> None:
        super().__init__(refusal)
        self.quality = quality
        self.refusal = refusal


def judged(facts: Facts, in_force: InForce, now: datetime) -> tuple[Quality, Attributes]:
    """What the policy in force says of these facts at this moment, and the attributes that may leave intake."""
    if in_force is None:
        return unchecked(facts.attributes)
    version, judge = in_force
    return judge.judge(facts, version, now)
