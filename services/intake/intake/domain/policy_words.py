"""The data policy in plain words, for the page that both departments read before they sign. It decides nothing."""

from __future__ import annotations

from intake.domain.policy import AnyOf, Email, OneOf, Parameter, Phone, Policy, Range, Required, Rule

_CONSEQUENCE = {"reject": "refused", "quarantine": "kept aside for a person", "flag": "taken and marked"}


def opening(policy: Policy) -> str:
    """One paragraph on what is judged and how the score is made."""
    text = (
        "Every record from every source is judged by the parameters below. Its score is the weight of the parameters it meets,"
        " divided by the weight of those that apply to it."
    )
    if policy.score_min:
        text += f" A record with a score below {policy.score_min:g} is kept aside for a person."
    return text


def parameter_rows(policy: Policy) -> list[tuple[str, str, str, str]]:
    """A row for each parameter: its key, what it asks, what follows, its weight."""
    return [
        (one.key, _asks(one), f"the record is {_CONSEQUENCE[one.consequence]}", f"{one.weight:g}")
        for one in policy.parameters
    ]


def _asks(parameter: Parameter) -> str:
    without = " (does not apply to a record without a value)" if parameter.missing_passes else ""
    return _rule(parameter.rule) + without


def _rule(rule: Rule) -> str:
    if isinstance(rule, Required):
        return f"{_subject(rule)} is given"
    if isinstance(rule, Range):
        return f"{rule.attribute.replace('_', ' ')} is {_between(rule.min, rule.max)}"
    if isinstance(rule, OneOf):
        verb = "begins with" if rule.match == "prefix" else "is"
        return f"{_subject(rule)} {verb} one of: {', '.join(rule.values)}"
    if isinstance(rule, Email):
        limits = [*(() if rule.disposable else ("not a disposable one",)), *(() if rule.role else ("not a role's",))]
        return "the e-mail address is well formed under a public domain" + "".join(f", {one}" for one in limits)
    if isinstance(rule, Phone):
        return "the phone number is valid for its country"
    return _any_of(rule)


def _any_of(rule: AnyOf) -> str:
    return "at least one holds: " + "; or ".join(_rule(part) for part in rule.of)


def _subject(rule: Required | OneOf) -> str:
    return (rule.attribute or rule.field or "").replace("_", " ")


def _between(low: float | None, high: float | None) -> str:
    if low is None:
        return f"{high:g} or less"
    return f"{low:g} or more" if high is None else f"from {low:g} to {high:g}"
