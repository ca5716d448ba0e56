"""Makes of each rule of the data policy a function that judges facts, as lean as it can be: it runs for every parameter of every
submission. A function never says more of a value than its class, and all that it can say is made when it is made.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Final

from accord.contracts.values import AttributeValue
from accord.terms.durations import describe_duration, parse_duration
from accord.terms.patterns import make_whole_matcher
from intake.leads.domain.consent import WITHDRAWN
from intake.leads.domain.facts import Facts
from intake.leads.domain.submission import AHEAD_MAX
from intake.policy.domain import naics
from intake.policy.domain.attributes import NOT_OF_TYPE, typed
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
from intake.policy.domain.ratings import BBB_GRADES, BBB_UNRATED, NotARating, bbb_rank, dnb_rating, paydex

REASON_MAX = 2_000
"""Characters; what an event carries."""
_COMBINED_MAX = 1_000
"""Combinations of reasons that an any_of remembers."""


class Failing:
    """One way in which a rule is not met. Each is made once, and told from another by identity.

    `missing`: there was no value to judge.
    """

    __slots__ = ("missing", "reason")

    def __init__(self, reason: str, *, missing: bool = False) -> None:
        self.reason = reason if len(reason) <= REASON_MAX else reason[: REASON_MAX - 1] + "…"
        self.missing = missing


class Wrong:
    """Stands among the values for one that does not read as its type. There is exactly one of these: WRONG."""

    __slots__ = ()


WRONG: Final = Wrong()

Values = Mapping[str, AttributeValue | Wrong]
"""The declared attributes of a submission, each read as its type; an empty one is not there."""

Check = Callable[[Values, Facts, datetime], Failing | None]
"""None where the rule is met. The moment is the one of the judgement."""

Judging = Callable[..., Failing | None]
"""The same of a single value that is there, of the type that the rule asks for."""


def check_of(rule: Rule, declared: Mapping[str, Declared]) -> Check:  # noqa: C901, PLR0911 - one line for each kind of rule
    """The function for a rule that fits these attributes."""
    if isinstance(rule, Required):
        return _on_subject(rule, declared, lambda _value: None)
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


def plain(number: float) -> str:
    """A number as people write it: 5000000, not 5e+06."""
    return f"{number:.15g}"


def _missing(name: str) -> Failing:
    return Failing(f"{name} is missing", missing=True)


def _not_of_type(name: str, declared: Mapping[str, Declared]) -> Failing:
    return Failing(f"{name} {NOT_OF_TYPE[declared[name].type]}")


def _on_attribute(name: str, declared: Mapping[str, Declared], judge: Judging) -> Check:
    """A rule on an attribute: `judge` sees a value that is there, as its declared type."""
    absent, wrong = _missing(name), _not_of_type(name, declared)

    def check(values: Values, _facts: Facts, _now: datetime) -> Failing | None:
        value = values.get(name)
        if value is None:
            return absent
        return wrong if value is WRONG else judge(value)

    return check


def _on_subject(rule: Required | OneOf | Pattern, declared: Mapping[str, Declared], judge: Judging) -> Check:
    """A rule on an attribute or on a field of the submission."""
    name = rule.name
    if rule.field is None:
        return _on_attribute(name, declared, judge)
    absent = _missing(name)

    def check(_values: Values, facts: Facts, _now: datetime) -> Failing | None:
        value = facts.fields.get(name)
        return judge(value) if value else absent

    return check


def _range(rule: Range, declared: Mapping[str, Declared]) -> Check:
    name = rule.attribute
    low, high = -math.inf if rule.min is None else rule.min, math.inf if rule.max is None else rule.max
    below, above = Failing(f"{name} is below {plain(low)}"), Failing(f"{name} is above {plain(high)}")

    def judge(number: float) -> Failing | None:
        if number < low:
            return below
        return above if number > high else None

    return _on_attribute(name, declared, judge)


def _one_of(rule: OneOf, declared: Mapping[str, Declared]) -> Check:
    outside = Failing(f"{rule.name} is not on the list")
    holds = _membership(rule, declared)
    return _on_subject(rule, declared, lambda value: None if holds(str(value).lower()) else outside)


def _membership(rule: OneOf, declared: Mapping[str, Declared]) -> Callable[[str], bool]:
    """Whether a text in lower case is among the values of the rule."""
    if rule.match == "prefix":
        begins = tuple(prefix.lower() for value in rule.values for prefix in naics.prefixes(value))
        return lambda text: text.startswith(begins)
    if rule.match == "naics":
        return _naics(rule.values)
    type_ = "string" if rule.attribute is None else declared[rule.attribute].type
    words = frozenset(str(value if rule.attribute is None else typed(value, type_)).lower() for value in rule.values)
    return words.__contains__


def _naics(values: list[str]) -> Callable[[str], bool]:
    read = [naics.industry(value) for value in values]
    codes = tuple(code for found, _ in read for code in found)
    names = frozenset(name for _, found in read for name in found)

    def holds(text: str) -> bool:
        return text.startswith(codes) or text in names

    return holds


def _pattern(rule: Pattern, declared: Mapping[str, Declared]) -> Check:
    unlike = Failing(f"{rule.name} does not match the pattern")
    matches = make_whole_matcher(rule.pattern)
    return _on_subject(rule, declared, lambda value: None if matches(value) else unlike)


_NO_EMAIL = _missing("email")
_BAD_EMAIL = Failing("email is not an address")
_NO_SUFFIX = Failing("email has no public domain")
_DISPOSABLE = Failing("email is at a disposable domain")
_ROLE = Failing("email is a role address")


def _email(rule: Email) -> Check:
    disposable_fails, role_fails = not rule.disposable, not rule.role

    def check(_values: Values, facts: Facts, _now: datetime) -> Failing | None:
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
_BAD_PHONE = Failing("phone is not valid for its country")


def _phone(_values: Values, facts: Facts, _now: datetime) -> Failing | None:
    phone = facts.phone
    if phone is None:
        return _NO_PHONE
    return None if phone.e164 else _BAD_PHONE


def _dnb(rule: Dnb, declared: Mapping[str, Declared]) -> Check:
    name, worst = rule.attribute, rule.appraisal_max or 4
    unknown = Failing(f"{name} is no D&B rating")
    unrated = Failing(f"{name} has no credit appraisal", missing=True)
    inactive = Failing(f"{name} says that the business is not active")
    worse = Failing(f"{name} has a credit appraisal worse than {worst}")

    def judge(text: str) -> Failing | None:
        try:
            rating = dnb_rating(text)
        except NotARating:
            return unknown
        if rating.appraisal is None:
            return unrated if rating.active else inactive
        return None if rating.appraisal <= worst else worse

    return _on_attribute(name, declared, judge)


def _paydex(rule: Dnb, least: int, declared: Mapping[str, Declared]) -> Check:
    name = rule.attribute
    unknown = Failing(f"{name} is no PAYDEX from 0 to 100")
    unrated = Failing(f"{name} is unavailable", missing=True)
    below = Failing(f"{name} is below {least}")

    def judge(value: float | str) -> Failing | None:
        try:
            score = paydex(value)
        except NotARating:
            return unknown
        if score is None:
            return unrated
        return None if score >= least else below

    return _on_attribute(name, declared, judge)


def _bbb(rule: Bbb, declared: Mapping[str, Declared]) -> Check:
    name, worst = rule.attribute, bbb_rank(rule.min)
    unknown = Failing(f"{name} is no BBB rating")
    unrated = Failing(f"{name} is not rated", missing=True)
    worse = Failing(f"{name} is worse than {BBB_GRADES[worst]}")

    def judge(text: str) -> Failing | None:
        try:
            rank = bbb_rank(text)
        except NotARating:
            return unknown
        if rank <= worst:
            return None
        return unrated if rank == BBB_UNRATED else worse

    return _on_attribute(name, declared, judge)


def _fresh(rule: Fresh) -> Check:
    within = parse_duration(rule.within)
    old = Failing(f"occurred_at is more than {describe_duration(within)} ago")

    def check(_values: Values, facts: Facts, now: datetime) -> Failing | None:
        at = facts.occurred_at
        return None if at is None or now - at <= within else old

    return check


_NO_CONSENT = _missing("consent")
_CONSENT_UNDATED = Failing("consent has no date")
_CONSENT_AHEAD = Failing("consent is dated in the future")
_CONSENT_WITHDRAWN = Failing("consent is withdrawn")


def _consent(rule: ConsentGiven) -> Check:
    bases = frozenset(rule.basis or ())
    within = None if rule.within is None else parse_duration(rule.within)
    dated = rule.dated
    other = Failing("consent has another basis")
    old = Failing(f"consent was given more than {describe_duration(within or timedelta())} ago")

    def check(_values: Values, facts: Facts, now: datetime) -> Failing | None:
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
        if at - now > AHEAD_MAX:
            return _CONSENT_AHEAD
        return old if within is not None and now - at > within else None

    return check


def _any_of(rule: AnyOf, declared: Mapping[str, Declared]) -> Check:
    checks = tuple(check_of(part, declared) for part in rule.of)
    combined: dict[tuple[Failing, ...], Failing] = {}

    def check(values: Values, facts: Facts, now: datetime) -> Failing | None:
        failings = []
        for one in checks:
            failing = one(values, facts, now)
            if failing is None:
                return None
            failings.append(failing)
        key = tuple(failings)
        found = combined.get(key)
        if found is None:
            if len(combined) >= _COMBINED_MAX:
                combined.clear()
            found = combined[key] = Failing(
                "none holds: " + "; ".join(one.reason for one in key), missing=all(one.missing for one in key)
            )
        return found

    return check
