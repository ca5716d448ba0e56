"""What the data policy in force says of a submission: its quality, its public attributes, and by which keys people are known."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from accord.agreements import ActiveCache
from accord.terms.findings import Finding
from intake.leads.domain.facts import Facts
from intake.leads.domain.quality import Quality, evaluate_without_policy
from intake.leads.service.submissions import NormalizedSubmission
from intake.policy.domain.evaluator import Evaluation, PolicyEvaluator

ActivePolicy = tuple[int, PolicyEvaluator] | None
"""The policy's version and the policy, None while nothing is in force."""


async def get_declared_attributes(policies: ActiveCache[PolicyEvaluator]) -> Collection[str] | None:
    """The attributes that the policy in force declares; None without one."""
    active_policy = await policies.current()
    return None if active_policy is None else active_policy[1].policy.attributes


def apply_key_policy(
    normalized: Sequence[NormalizedSubmission], active_policy: ActivePolicy
) -> Sequence[NormalizedSubmission]:
    """The submissions with the keys by which the policy lets people be known: a phone that is shared is a value and names nobody."""
    if active_policy is None or not active_policy[1].policy.phones_shared:
        return normalized
    return [_without_phone(one) for one in normalized]


def _without_phone(one: NormalizedSubmission) -> NormalizedSubmission:
    keys = tuple(key for key in one.keys if key[0] != "phone")
    if keys or one.error is not None:
        return one._replace(keys=keys)
    message = (
        "Says not who it is, since phones are shared by the data policy, and there is no other way to know the person"
    )
    return one._replace(keys=keys, error=Finding("/phone", message))


class RejectedByPolicy(Exception):
    """The policy refuses a record as a person has put it right, for the reasons in `refusal`. Nothing is written then."""

    def __init__(self, quality: Quality, reason: str) -> None:
        super().__init__(reason)
        self.quality = quality
        self.reason = reason


def evaluate_policy(facts: Facts, active_policy: ActivePolicy, now: datetime) -> Evaluation:
    """What the policy in force says of these facts at this moment, and the attributes that may leave intake."""
    if active_policy is None:
        return Evaluation(*evaluate_without_policy(facts.attributes))
    version, evaluator = active_policy
    return evaluator.evaluate(facts, version, now)
