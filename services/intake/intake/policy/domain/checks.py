"""Makes of each rule of the data policy a function that judges facts, as lean as it can be: it runs for every parameter of every
submission. A function never says more of a value than its class, and all that it can say is made when it is made.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Final

from accord.contracts.values import AttributeValue, normalize_text
from accord.terms.durations import describe_duration, parse_duration
from accord.terms.patterns import make_whole_matcher
from intake.leads.domain.consent import WITHDRAWN
from intake.leads.domain.facts import Facts
from intake.leads.domain.submission import CLOCK_SKEW_MAX
from intake.policy.domain import naics
from intake.policy.domain.attributes import NOT_OF_TYPE, convert_to_type
from intake.policy.domain.policy import (
    AnyOf,
    Bbb,
    ConsentGiven,
    Declared,
    Dnb,
    Email,
    Fresh,
    OneOf,
    Pattern,
    Phone,
    Range,
    Required,
    Rule,
)
from intake.policy.domain.ratings import (
    BBB_GRADES,
    BBB_UNRATED,
    NotARating,
    parse_bbb_grade,
    parse_dnb_rating,
    parse_paydex,
)

REASON_MAX = 2_000
"""Characters; what an event carries."""
_COMBINED_MAX = 1_000
"""Combinations of reasons that an any_of remembers."""


class RuleFailure:
    """One way in which a rule is not met. Each is made once, and distinguished by identity.

    `missing`: there was no value to judge.
    """

    __slots__ = ("missing", "reason")

    def __init__(self, reason: str, *, missing: bool = False) -> None:
        self.reason = reason if len(reason) <= REASON_MAX else reason[: REASON_MAX - 1] + "…"
        self.missing = missing


class NotTyped:
    """Stands among the values for one that does not read as its type. There is exactly one of these: NOT_TYPED."""

    __slots__ = ()


NOT_TYPED: Final = NotTyped()

Values = Mapping[str, AttributeValue | NotTyped]
"""The declared attributes of a submission, each read as its type; an empty one is not there."""

Check = Callable[[Values, Facts, datetime], RuleFailure | None]
"""None where the rule is met. The moment is the one of the judgement."""

ValueCheck = Callable[..., RuleFailure | None]
"""The same of a single value that is there, of the type that the rule asks for."""


def compile_rule(rule: Rule, declared: Mapping[str, Declared]) -> Check:  # noqa: C901, PLR0911 - one line for each kind of rule
    """The function for a rule that fits these attributes."""
    if isinstance(rule, Required):
        return _check_subject(rule, declared, lambda _value: None)
    if isinstance(rule, Range):
        return _range(rule, declared)
    if isinstance(rule, OneOf):
        return _one_of(rule, declared)
    if isinstance(rule, Pattern):
        return _pattern(rule, declared)
    if isinstance(rule, Email):
        return _email(rule)
    if isinstance(rule, Phone):
        return _phone
    if isinstance(rule, Dnb):
        return _dnb(rule, declared) if rule.paydex_min is None else _paydex(rule, rule.paydex_min, declared)
    if isinstance(rule, Bbb):
        return _bbb(rule, declared)
    if isinstance(rule, Fresh):
        return _fresh(rule)
    if isinstance(rule, ConsentGiven):
        return _consent(rule)
    return _any_of(rule, declared)


def format_number(number: float) -> str:
    """A number as people write it: 5000000, not 5e+06."""
    return f"{number:.15g}"


def _missing(name: str) -> RuleFailure:
    return RuleFailure(f"{name} is missing", missing=True)


def _not_of_type(name: str, declared: Mapping[str, Declared]) -> RuleFailure:
    return RuleFailure(f"{name} {NOT_OF_TYPE[declared[name].type]}")


def _check_attribute(name: str, declared: Mapping[str, Declared], check_value: ValueCheck) -> Check:
    """A rule on an attribute: `judge` sees a value that is there, as its declared type."""
    absent, wrong = _missing(name), _not_of_type(name, declared)

    def check(values: Values, _facts: Facts, _now: datetime) -> RuleFailure | None:
        value = values.get(name)
        if value is None:
            return absent
        return wrong if value is NOT_TYPED else check_value(value)

    return check


def _check_subject(
    rule: Required | OneOf | Pattern, declared: Mapping[str, Declared], check_value: ValueCheck
) -> Check:
    """A rule on an attribute or on a field of the submission."""
    name = rule.name
    if rule.field is None:
        return _check_attribute(name, declared, check_value)
    absent = _missing(name)

    def check(_values: Values, facts: Facts, _now: datetime) -> RuleFailure | None:
        value = facts.fields.get(name)
        return check_value(value) if value else absent

    return check


def _range(rule: Range, declared: Mapping[str, Declared]) -> Check:
    name = rule.attribute
    low, high = -math.inf if rule.min is None else rule.min, math.inf if rule.max is None else rule.max
    below, above = (
        RuleFailure(f"{name} is below {format_number(low)}"),
        RuleFailure(f"{name} is above {format_number(high)}"),
    )

    def check_value(number: float) -> RuleFailure | None:
        if number < low:
            return below
        return above if number > high else None

    return _check_attribute(name, declared, check_value)


def _one_of(rule: OneOf, declared: Mapping[str, Declared]) -> Check:
    outside = RuleFailure(f"{rule.name} is not on the list")
    holds = _membership(rule, declared)
    return _check_subject(rule, declared, lambda value: None if holds(str(value).lower()) else outside)


def _membership(rule: OneOf, declared: Mapping[str, Declared]) -> Callable[[str], bool]:
    """Whether a text in lower case is among the values of the rule."""
    if rule.match == "prefix":
        begins = tuple(prefix.lower() for value in rule.values for prefix in naics.expand_range(value))
        return lambda text: text.startswith(begins)
    if rule.match == "naics":
        return _naics(rule.values)
    type_ = "string" if rule.attribute is None else declared[rule.attribute].type
    words = frozenset(
        str(normalize_text(str(value)) if rule.attribute is None else convert_to_type(value, type_)).lower()
        for value in rule.values
    )
    return words.__contains__


def _naics(values: list[str]) -> Callable[[str], bool]:
    read = [naics.resolve_industry(value) for value in values]
    codes = tuple(code for found, _ in read for code in found)
    names = frozenset(name for _, found in read for name in found)

    def holds(text: str) -> bool:
        return text.startswith(codes) or text in names

    return holds


def _pattern(rule: Pattern, declared: Mapping[str, Declared]) -> Check:
    unlike = RuleFailure(f"{rule.name} does not match the pattern")
    matches = make_whole_matcher(rule.pattern)
    return _check_subject(rule, declared, lambda value: None if matches(value) else unlike)


_NO_EMAIL = _missing("email")
_BAD_EMAIL = RuleFailure("email is not an address")
_NO_SUFFIX = RuleFailure("email has no public domain")
_DISPOSABLE = RuleFailure("email is at a disposable domain")
_ROLE = RuleFailure("email is a role address")


def _email(rule: Email) -> Check:
    disposable_fails, role_fails = not rule.disposable, not rule.role

    def check(_values: Values, facts: Facts, _now: datetime) -> RuleFailure | None:
        email = facts.email
        if email is None:
            return _NO_EMAIL
        address, public_suffix, disposable, role = email
        if address is None:
            return _BAD_EMAIL
        if not public_suffix:
            return _NO_SUFFIX
        if disposable and disposable_fails:
            return _DISPOSABLE
        return _ROLE if role and role_fails else None

    return check


_NO_PHONE = _missing("phone")
_BAD_PHONE = RuleFailure("phone is not valid for its country")


def _phone(_values: Values, facts: Facts, _now: datetime) -> RuleFailure | None:
    phone = facts.phone
    if phone is None:
        return _NO_PHONE
    return None if phone.e164 else _BAD_PHONE


def _dnb(rule: Dnb, declared: Mapping[str, Declared]) -> Check:
    name, worst = rule.attribute, rule.appraisal_max or 4
    unknown = RuleFailure(f"{name} is no D&B rating")
    unrated = RuleFailure(f"{name} has no credit appraisal", missing=True)
    inactive = RuleFailure(f"{name} says that the business is not active")
    worse = RuleFailure(f"{name} has a credit appraisal worse than {worst}")

    def check_value(text: str) -> RuleFailure | None:
        try:
            rating = parse_dnb_rating(text)
        except NotARating:
            return unknown
        if rating.appraisal is None:
            return unrated if rating.active else inactive
        return None if rating.appraisal <= worst else worse

    return _check_attribute(name, declared, check_value)


def _paydex(rule: Dnb, least: int, declared: Mapping[str, Declared]) -> Check:
    name = rule.attribute
    unknown = RuleFailure(f"{name} is no PAYDEX from 0 to 100")
    unrated = RuleFailure(f"{name} is unavailable", missing=True)
    below = RuleFailure(f"{name} is below {least}")

    def check_value(value: float | str) -> RuleFailure | None:
        try:
            score = parse_paydex(value)
        except NotARating:
            return unknown
        if score is None:
            return unrated
        return None if score >= least else below

    return _check_attribute(name, declared, check_value)


def _bbb(rule: Bbb, declared: Mapping[str, Declared]) -> Check:
    name, worst = rule.attribute, parse_bbb_grade(rule.min)
    unknown = RuleFailure(f"{name} is no BBB rating")
    unrated = RuleFailure(f"{name} is not rated", missing=True)
    worse = RuleFailure(f"{name} is worse than {BBB_GRADES[worst]}")

    def check_value(text: str) -> RuleFailure | None:
        try:
            rank = parse_bbb_grade(text)
        except NotARating:
            return unknown
        if rank <= worst:
            return None
        return unrated if rank == BBB_UNRATED else worse

    return _check_attribute(name, declared, check_value)


def _fresh(rule: Fresh) -> Check:
    within = parse_duration(rule.within)
    old = RuleFailure(f"occurred_at is more than {describe_duration(within)} ago")

    def check(_values: Values, facts: Facts, now: datetime) -> RuleFailure | None:
        at = facts.occurred_at
        return None if at is None or now - at <= within else old

    return check


_NO_CONSENT = _missing("consent")
_CONSENT_UNDATED = RuleFailure("consent has no date")
_CONSENT_AHEAD = RuleFailure("consent is dated in the future")
_CONSENT_WITHDRAWN = RuleFailure("consent is withdrawn")


def _consent(rule: ConsentGiven) -> Check:
    bases = frozenset(rule.basis or ())
    within = None if rule.within is None else parse_duration(rule.within)
    dated = rule.dated
    other = RuleFailure("consent has another basis")
    old = RuleFailure(f"consent was given more than {describe_duration(within or timedelta())} ago")

    def check(_values: Values, facts: Facts, now: datetime) -> RuleFailure | None:
        basis = facts.fields.get("consent")
        if basis is None:
            return _NO_CONSENT
        if basis == WITHDRAWN:
            return _CONSENT_WITHDRAWN
        if bases and basis not in bases:
            return other
        at = facts.consent_given_at
        if at is None:
            if dated:
                return _CONSENT_UNDATED
            at = facts.occurred_at or now  # given with the record
        if at - now > CLOCK_SKEW_MAX:
            return _CONSENT_AHEAD
        return old if within is not None and now - at > within else None

    return check


def _any_of(rule: AnyOf, declared: Mapping[str, Declared]) -> Check:
    checks = tuple(compile_rule(part, declared) for part in rule.of)
    combined: dict[tuple[RuleFailure, ...], RuleFailure] = {}

    def check(values: Values, facts: Facts, now: datetime) -> RuleFailure | None:
        failures = []
        for one in checks:
            failure = one(values, facts, now)
            if failure is None:
                return None
            failures.append(failure)
        key = tuple(failures)
        found = combined.get(key)
        if found is None:
            if len(combined) >= _COMBINED_MAX:
                combined.clear()
            found = combined[key] = RuleFailure(
                "none holds: " + "; ".join(one.reason for one in key), missing=all(one.missing for one in key)
            )
        return found

    return check
