"""The data policy in plain words, for the page that both departments read before they sign. It decides nothing."""

from __future__ import annotations

from accord.terms.durations import describe_duration, parse_duration
from intake.policy.domain.checks import format_number
from intake.policy.domain.naics import SECTORS
from intake.policy.domain.policy import (
    AnyOf,
    Bbb,
    ConsentGiven,
    Dnb,
    Email,
    Fresh,
    OneOf,
    Parameter,
    Pattern,
    Phone,
    Policy,
    Range,
    Required,
    Rule,
)

_CONSEQUENCE = {"reject": "refused", "quarantine": "kept aside for a person", "flag": "taken and marked"}
_APPRAISAL = {1: "1 (strong)", 2: "2 (good) or better", 3: "3 (fair) or better", 4: "4 (limited) or better"}


def describe_policy(policy: Policy) -> str:
    """One paragraph on what is judged and how the score is made."""
    text = (
        "Every record from every source is judged by the parameters below. Its score is the weight of the parameters it meets,"
        " divided by the weight of those that apply to it."
    )
    if policy.score_min:
        text += f" A record with a score below {policy.score_min:g} is kept aside for a person."
    if policy.phones_shared:
        text += " Several people may share a phone number, so a number by itself says nobody's name."
    return text


def parameter_rows(policy: Policy) -> list[tuple[str, str, str, str]]:
    """A row for each parameter: its key, what it asks, what follows, its weight."""
    return [
        (one.key, describe_parameter(one), f"the record is {_CONSEQUENCE[one.consequence]}", f"{one.weight:g}")
        for one in policy.parameters
    ]


def describe_parameter(parameter: Parameter) -> str:
    """What one parameter asks for, as a phrase."""
    without = " (does not apply to a record without a value)" if parameter.missing_passes else ""
    return _rule(parameter.rule) + without


def _rule(rule: Rule) -> str:  # noqa: C901, PLR0911 - one line for each kind of rule
    if isinstance(rule, Required):
        return f"{_humanize(rule.name)} is given"
    if isinstance(rule, Range):
        return f"{_humanize(rule.attribute)} is {_between(rule.min, rule.max)}"
    if isinstance(rule, OneOf):
        return _one_of(rule)
    if isinstance(rule, Pattern):
        return f"{_humanize(rule.name)} matches the pattern {rule.pattern} as a whole"
    if isinstance(rule, Email):
        limits = [*(() if rule.disposable else ("not a disposable one",)), *(() if rule.role else ("not a role's",))]
        return "the e-mail address is well formed under a public domain" + "".join(f", {one}" for one in limits)
    if isinstance(rule, Phone):
        return "the phone number is valid for its country"
    if isinstance(rule, Dnb):
        return _dnb(rule)
    if isinstance(rule, Bbb):
        return f"{_humanize(rule.attribute)} (Better Business Bureau) is {rule.min.upper()} or better"
    if isinstance(rule, Fresh):
        return f"the record occurred within the last {_span(rule.within)}"
    if isinstance(rule, ConsentGiven):
        return _consent(rule)
    return _any_of(rule)


def _one_of(rule: OneOf) -> str:
    name = _humanize(rule.name)
    if rule.match == "naics":
        listed = "; ".join(f"{value} ({SECTORS[value]})" if value in SECTORS else value for value in rule.values)
        return f"{name} is, by NAICS code or name, within one of: {listed}"
    verb = "begins with" if rule.match == "prefix" else "is"
    return f"{name} {verb} one of: {', '.join(rule.values)}"


def _dnb(rule: Dnb) -> str:
    if rule.appraisal_max is None:
        return f"{_humanize(rule.attribute)} (PAYDEX, 0 to 100) is {rule.paydex_min} or more"
    return f"{_humanize(rule.attribute)} (Dun & Bradstreet) has a composite credit appraisal of {_APPRAISAL[rule.appraisal_max]}"


def _consent(rule: ConsentGiven) -> str:
    words = "there is a basis for contacting the person"
    if rule.basis:
        words += f" ({', '.join(one.replace('_', ' ') for one in rule.basis)})"
    if rule.within is not None:
        return f"{words}, given within the last {_span(rule.within)}"
    return f"{words}, with its date" if rule.dated else words


def _any_of(rule: AnyOf) -> str:
    return "at least one holds: " + "; or ".join(_rule(part) for part in rule.of)


def _humanize(name: str) -> str:
    return name.replace("_", " ")


def _span(duration: str) -> str:
    return describe_duration(parse_duration(duration))


def _between(low: float | None, high: float | None) -> str:
    if low is None:
        return f"{format_number(high or 0)} or less"
    return f"{format_number(low)} or more" if high is None else f"from {format_number(low)} to {format_number(high)}"
