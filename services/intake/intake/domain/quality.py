"""Judges one submission by the data policy. Pure; a reason names the parameter and the class of the value, never the value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from accord.contracts.values import Attributes, AttributeValue, PolicyFailure
from intake.domain.policy import (
    AnyOf,
    Declared,
    Email,
    NotOfType,
    OneOf,
    Parameter,
    Phone,
    Policy,
    Range,
    Required,
    Rule,
    typed,
)
from intake.domain.privacy import is_public_without_policy

Judgement = Literal["accepted", "flagged", "quarantined", "unchecked", "rejected"]


@dataclass(frozen=True, slots=True)
class EmailFacts:
    """What is known of an e-mail address. `address` is normalised; None where the text is no address."""

    address: str | None
    public_suffix: bool = False
    disposable: bool = False
    role: bool = False


@dataclass(frozen=True, slots=True)
class PhoneFacts:
    """What is known of a phone number. `e164` is None where it is not valid for its country."""

    e164: str | None


@dataclass(frozen=True, slots=True)
class Facts:
    """What a policy can ask of a submission: its fields, its attributes as sent, and what was recognised in them."""

    fields: Mapping[str, str]
    attributes: Mapping[str, AttributeValue]
    email: EmailFacts | None
    phone: PhoneFacts | None


@dataclass(frozen=True, slots=True)
class Quality:
    """The verdict with its reasons. `score` = weight passed / weight applicable; None where nothing was checked."""

    verdict: Judgement
    score: float | None = None
    policy_version: int | None = None
    failed: tuple[PolicyFailure, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one rule came out. `missing`: there was no value to judge."""

    holds: bool
    reason: str = ""
    missing: bool = False


_HOLDS = Outcome(True)
_Check = Callable[[Facts], Outcome]


@dataclass(frozen=True, slots=True)
class Judge:
    """A policy made ready for judging; built once per version."""

    policy: Policy
    checks: tuple[tuple[Parameter, _Check], ...]

    @classmethod
    def of(cls, policy: Policy) -> Judge:
        return cls(policy, tuple((one, _check(one.rule, policy.attributes)) for one in policy.parameters))

    def assess(self, facts: Facts, version: int) -> Quality:
        """Every parameter is judged, so that a sender learns of all failures at once. `version` is stamped on the verdict."""
        applicable = passed = 0.0
        failed: list[PolicyFailure] = []
        for parameter, check in self.checks:
            outcome = check(facts)
            if outcome.missing and parameter.missing_passes:
                continue
            applicable += parameter.weight
            if outcome.holds:
                passed += parameter.weight
            else:
                failed.append(
                    PolicyFailure(parameter=parameter.key, consequence=parameter.consequence, reason=outcome.reason)
                )
        score = passed / applicable if applicable else 1.0
        return Quality(self._verdict(failed, score), round(score, 6), version, tuple(failed))

    def _verdict(self, failed: list[PolicyFailure], score: float) -> Judgement:
        consequences = {failure.consequence for failure in failed}
        if "reject" in consequences:
            return "rejected"
        if "quarantine" in consequences or score < self.policy.score_min:
            return "quarantined"
        return "flagged" if failed else "accepted"

    def public(self, attributes: Mapping[str, AttributeValue]) -> Attributes:
        """The attributes that may leave intake: those declared, as their declared types. What does not fit stays in the submission."""
        found: Attributes = {}
        for name, declared in self.policy.attributes.items():
            if name in attributes:
                value = _typed(attributes[name], declared)
                if value is not None:
                    found[name] = value
        return found


def unchecked(attributes: Mapping[str, AttributeValue]) -> tuple[Quality, Attributes]:
    """What happens without a policy in force: everything is taken, and nothing is claimed about it."""
    return Quality("unchecked"), {n: v for n, v in attributes.items() if is_public_without_policy(n, v)}


def _typed(value: AttributeValue, declared: Declared) -> AttributeValue:
    try:
        return typed(value, declared.type)
    except NotOfType:
        return None


def _check(rule: Rule, declared: Mapping[str, Declared]) -> _Check:
    if isinstance(rule, Required):
        return _required(rule, declared)
    if isinstance(rule, Range):
        return _range(rule, declared)
    if isinstance(rule, OneOf):
        return _one_of(rule, declared)
    if isinstance(rule, Email):
        return _email(rule)
    if isinstance(rule, Phone):
        return _phone
    return _any_of(rule, declared)


def _value_of(
    rule: Required | OneOf, declared: Mapping[str, Declared]
) -> tuple[str, Callable[[Facts], AttributeValue]]:
    """The subject's name, and a function that gives its value, None where it is missing. Raises NotOfType."""
    if rule.field is not None:
        name: str = rule.field
        return name, lambda facts: facts.fields.get(name) or None
    attribute = rule.attribute or ""
    type_ = declared[attribute].type
    return attribute, lambda facts: typed(facts.attributes.get(attribute), type_)


def _required(rule: Required, declared: Mapping[str, Declared]) -> _Check:
    name, value_of = _value_of(rule, declared)
    absent, wrong = Outcome(False, f"{name} is missing", missing=True), Outcome(False, f"{name} is not of its type")

    def check(facts: Facts) -> Outcome:
        try:
            return absent if value_of(facts) is None else _HOLDS
        except NotOfType:
            return wrong

    return check


def _range(rule: Range, declared: Mapping[str, Declared]) -> _Check:
    name, type_ = rule.attribute, declared[rule.attribute].type
    absent, wrong = Outcome(False, f"{name} is missing", missing=True), Outcome(False, f"{name} is not a number")
    below, above = (
        Outcome(False, f"{name} is below {rule.min:g}" if rule.min is not None else ""),
        Outcome(False, f"{name} is above {rule.max:g}" if rule.max is not None else ""),
    )

    def check(facts: Facts) -> Outcome:
        try:
            value = typed(facts.attributes.get(name), type_)
        except NotOfType:
            return wrong
        if value is None:
            return absent
        if not isinstance(value, int | float):
            return wrong
        if rule.min is not None and value < rule.min:
            return below
        return above if rule.max is not None and value > rule.max else _HOLDS

    return check


def _one_of(rule: OneOf, declared: Mapping[str, Declared]) -> _Check:
    name, value_of = _value_of(rule, declared)
    words = rule.words()
    exact = frozenset(words)
    absent, outside = Outcome(False, f"{name} is missing", missing=True), Outcome(False, f"{name} is not on the list")

    def check(facts: Facts) -> Outcome:
        try:
            value = value_of(facts)
        except NotOfType:
            return outside
        if value is None:
            return absent
        text = str(value).lower()
        fits = text in exact if rule.match == "exact" else text.startswith(words)
        return _HOLDS if fits else outside

    return check


_NO_EMAIL = Outcome(False, "email is missing", missing=True)
_BAD_EMAIL = Outcome(False, "email is not an address")
_NO_SUFFIX = Outcome(False, "email has no public domain")
_DISPOSABLE = Outcome(False, "email is at a disposable domain")
_ROLE = Outcome(False, "email is a role address")


def _email(rule: Email) -> _Check:
    def check(facts: Facts) -> Outcome:
        email = facts.email
        if email is None:
            return _NO_EMAIL
        if email.address is None:
            return _BAD_EMAIL
        if not email.public_suffix:
            return _NO_SUFFIX
        if email.disposable and not rule.disposable:
            return _DISPOSABLE
        return _ROLE if email.role and not rule.role else _HOLDS

    return check


def _phone(facts: Facts) -> Outcome:
    if facts.phone is None:
        return Outcome(False, "phone is missing", missing=True)
    return _HOLDS if facts.phone.e164 else Outcome(False, "phone is not valid for its country")


def _any_of(rule: AnyOf, declared: Mapping[str, Declared]) -> _Check:
    checks = tuple(_check(part, declared) for part in rule.of)

    def check(facts: Facts) -> Outcome:
        outcomes = []
        for one in checks:
            outcome = one(facts)
            if outcome.holds:
                return _HOLDS
            outcomes.append(outcome)
        reason = "none holds: " + "; ".join(outcome.reason for outcome in outcomes)
        return Outcome(False, reason, missing=all(outcome.missing for outcome in outcomes))

    return check
