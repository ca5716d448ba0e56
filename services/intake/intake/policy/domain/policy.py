"""The data policy: its form, and what is wrong with a draft. Judging is in evaluator.py, how attributes are read in attributes.py."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import ErrorDetails

from accord.terms.durations import DurationText, parse_duration
from accord.terms.findings import Finding, pointer
from accord.terms.patterns import PATTERN_LENGTH_MAX, SKIP_PATTERN_CHECKS, InvalidPattern, check_pattern
from intake.policy.domain import naics
from intake.policy.domain.attributes import TYPES, AttributeType, NotOfType, convert_to_type
from intake.policy.domain.ratings import BBB_GRADES, BBB_UNRATED, PAYDEX_MAX, NotARating, parse_bbb_grade

Consequence = Literal["reject", "quarantine", "flag"]
FieldName = Literal["email", "phone", "external_id", "first_name", "last_name", "company", "domain", "title", "consent"]
Key = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,63}$")]
AttributeName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$")]
Whether = Annotated[bool, Field(strict=True)]
Bound = Annotated[float, Field(strict=True, allow_inf_nan=False)]

VALUES_MAX = 1_000
PARTS_MAX = 50
"""Rules in one any_of."""


def _as_word(value: object) -> object:
    # 51 in YAML is a number; as a value of a list it is meant as it is written.
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Word = Annotated[str, BeforeValidator(_as_word), StringConstraints(min_length=1, max_length=200, strip_whitespace=True)]


def _check_positive(text: str) -> str:
    if parse_duration(text) <= timedelta():
        raise ValueError("must be longer than nothing")
    return text


Within = Annotated[DurationText, AfterValidator(_check_positive)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Subject(_Part):
    """What a rule looks at: exactly one attribute or one field of the submission."""

    attribute: AttributeName | None = None
    field: FieldName | None = None

    @model_validator(mode="after")
    def _one(self) -> _Subject:
        if (self.attribute is None) == (self.field is None):
            raise ValueError("needs exactly one of attribute, field")
        return self

    @property
    def name(self) -> str:
        return self.attribute or self.field or ""


class Required(_Subject):
    """The value is there."""

    rule: Literal["required"]


class Range(_Part):
    """The number lies between `min` and `max`, both included."""

    rule: Literal["range"]
    attribute: AttributeName
    min: Bound | None = None
    max: Bound | None = None

    @model_validator(mode="after")
    def _bounded(self) -> Range:
        if self.min is None and self.max is None:
            raise ValueError("needs min or max")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min is above max, so nothing can meet it")
        return self


class OneOf(_Subject):
    """The value is one of `values`; case does not count.

    `match`: `exact`; `prefix`, it begins with one, where `31-33` stands for 31, 32 and 33; `naics`, it is a code under one or the name of
    one: `51` and `Information` are the same.
    """

    rule: Literal["one_of"]
    match: Literal["exact", "prefix", "naics"] = "exact"
    values: Annotated[list[Word], Field(min_length=1, max_length=VALUES_MAX)]


def _check_pattern_runs(pattern: str, info: ValidationInfo) -> str:
    if info.context is SKIP_PATTERN_CHECKS:
        return pattern
    try:
        check_pattern(pattern)
    except InvalidPattern as error:
        raise ValueError(str(error)) from None
    return pattern


class Pattern(_Subject):
    """The whole text matches the regular expression, from its first to its last character. Case counts, unless it begins with (?i)."""

    rule: Literal["pattern"]
    pattern: Annotated[
        str, StringConstraints(min_length=1, max_length=PATTERN_LENGTH_MAX), AfterValidator(_check_pattern_runs)
    ]


class Email(_Part):
    """The e-mail address is well formed under a public suffix. `disposable` and `role` say whether such addresses pass."""

    rule: Literal["email"]
    disposable: Whether = False
    role: Whether = True


class Phone(_Part):
    """The phone number is valid for its country."""

    rule: Literal["phone"]


class Dnb(_Part):
    """The D&B rating's composite credit appraisal is `appraisal_max` (1 strong to 4 limited) or better; or the PAYDEX is `paydex_min` or
    better. Exactly one of the two, since they are different attributes."""

    rule: Literal["dnb_rating"]
    attribute: AttributeName
    appraisal_max: Annotated[int, Field(strict=True, ge=1, le=4)] | None = None
    paydex_min: Annotated[int, Field(strict=True, ge=0, le=PAYDEX_MAX)] | None = None

    @model_validator(mode="after")
    def _one(self) -> Dnb:
        if (self.appraisal_max is None) == (self.paydex_min is None):
            raise ValueError("needs exactly one of appraisal_max, paydex_min")
        return self


def _check_grade(text: str) -> str:
    try:
        rank = parse_bbb_grade(text)
    except NotARating:
        raise ValueError(f"must be one of {', '.join(BBB_GRADES[:BBB_UNRATED])}") from None
    if rank == BBB_UNRATED:
        raise ValueError("every rating is NR or better, so this asks for nothing; use the rule required")
    return text


class Bbb(_Part):
    """The BBB rating is `min` or better, in the order A+, A, A-, ... D-, F."""

    rule: Literal["bbb_rating"]
    attribute: AttributeName
    min: Annotated[str, AfterValidator(_check_grade)]


class Fresh(_Part):
    """The record is not older than `within`, by its `occurred_at`; a record without one occurred as it arrived."""

    rule: Literal["fresh"]
    within: Within


Basis = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z_]{0,49}$")]


class ConsentGiven(_Part):
    """There is a basis for contacting the person, one of `basis` if that is given, and no withdrawal. `dated`: it says when it was given;
    without a date it was given with the record. `within`: not longer ago. A date in the future is none."""

    rule: Literal["consent"]
    basis: Annotated[list[Basis], Field(min_length=1, max_length=20)] | None = None
    dated: Whether = False
    within: Within | None = None


class AnyOf(_Part):
    """At least one of the rules is met."""

    rule: Literal["any_of"]
    of: Annotated[list[Rule], Field(min_length=1, max_length=PARTS_MAX)]


_RULES: dict[str, type[_Part]] = {
    "required": Required,
    "range": Range,
    "one_of": OneOf,
    "pattern": Pattern,
    "email": Email,
    "phone": Phone,
    "dnb_rating": Dnb,
    "bbb_rating": Bbb,
    "fresh": Fresh,
    "consent": ConsentGiven,
    "any_of": AnyOf,
}
RULES: tuple[str, ...] = tuple(_RULES)
"""The names of all rules, in the order in which they are explained."""


def _name_of_rule(part: object) -> str:
    name = part.get("rule") if isinstance(part, dict) else getattr(part, "rule", None)
    return name if isinstance(name, str) and name in _RULES else "required"


Rule = Annotated[
    Annotated[Required, Tag("required")]
    | Annotated[Range, Tag("range")]
    | Annotated[OneOf, Tag("one_of")]
    | Annotated[Pattern, Tag("pattern")]
    | Annotated[Email, Tag("email")]
    | Annotated[Phone, Tag("phone")]
    | Annotated[Dnb, Tag("dnb_rating")]
    | Annotated[Bbb, Tag("bbb_rating")]
    | Annotated[Fresh, Tag("fresh")]
    | Annotated[ConsentGiven, Tag("consent")]
    | Annotated[AnyOf, Tag("any_of")],
    Discriminator(_name_of_rule),
]
AnyOf.model_rebuild()


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter: a rule with its weight and what follows when it is not met."""

    key: str
    rule: Rule
    consequence: Consequence
    weight: float
    missing_passes: bool


class Declared(_Part):
    """An attribute that may leave intake, with its type."""

    type: AttributeType


class Policy(_Part):
    """A whole data policy, as agreements.md shows it."""

    kind: Literal["policy"]
    title: Annotated[str, Field(min_length=1, max_length=200)]
    glossary: dict[str, str] = Field(default_factory=dict)
    attributes: Annotated[dict[AttributeName, Declared], Field(max_length=200)] = Field(default_factory=dict)
    phones_shared: Whether = False
    """Several people may share a phone number, so that it identifies nobody."""
    parameters: Annotated[tuple[Parameter, ...], Field(min_length=1, max_length=100)]
    score_min: Annotated[float, Field(ge=0, le=1, strict=True)] = 0

    @model_validator(mode="before")
    @classmethod
    def _parts(cls, content: object) -> object:
        if isinstance(content, Mapping) and isinstance(content.get("parameters"), list):
            return {**content, "parameters": tuple(content["parameters"])}
        return content


_ENVELOPE = ("key", "consequence", "weight", "missing")


class _ParameterHead(_Part):
    key: Key
    consequence: Consequence
    weight: Annotated[float, Field(gt=0, le=1000, strict=True)] = 1
    missing: Literal["pass", "fail"] = "fail"


class _RuleHolder(_Part):
    rule: Rule


def validate_policy(
    content: Mapping[str, object], context: Mapping[str, bool] | None = None
) -> tuple[Policy | None, list[Finding]]:
    """The policy in a document, or all that is wrong with it; with SKIP_PATTERN_CHECKS, all but its patterns."""
    raw = content.get("parameters")
    errors: list[Finding] = []
    parameters: list[tuple[int, Parameter]] = []
    for place, part in enumerate(raw if isinstance(raw, list) else []):
        parameter = _parameter(part, f"/parameters/{place}", errors, context)
        if parameter is not None:
            parameters.append((place, parameter))
    given = dict(content)
    if isinstance(raw, list) and raw:
        whole = [parameter for _, parameter in parameters]
        given["parameters"] = whole or [Parameter("x", Email(rule="email"), "flag", 1, False)]
    try:
        policy = Policy.model_validate(given, context=context)
    except ValidationError as error:
        errors += _list_errors(error, "")
        return None, errors
    errors += list(_inconsistencies(parameters, policy.attributes))
    return (None if errors else policy), errors


def parse_policy(content: Mapping[str, object]) -> Policy:
    """The policy in a document that `read` found nothing wrong with, now or when it was signed. Raises ValueError otherwise."""
    policy, errors = validate_policy(content, SKIP_PATTERN_CHECKS)
    if policy is None:
        raise ValueError(f"no valid policy: {errors[0].pointer}: {errors[0].message}")
    return policy


def _parameter(
    part: object, pointer: str, errors: list[Finding], context: Mapping[str, bool] | None
) -> Parameter | None:
    if not isinstance(part, dict):
        errors.append(Finding(pointer, "must be a mapping with key, rule and consequence"))
        return None
    if not isinstance(part.get("rule"), str) or part["rule"] not in _RULES:
        errors.append(Finding(f"{pointer}/rule", f"must be one of {', '.join(RULES)}"))
        return None
    before = len(errors)
    try:
        head = _ParameterHead.model_validate({name: part[name] for name in _ENVELOPE if name in part})
    except ValidationError as error:
        errors += _list_errors(error, pointer)
    try:
        given = {"rule": {k: v for k, v in part.items() if k not in _ENVELOPE}}
        rule = _RuleHolder.model_validate(given, context=context).rule
    except ValidationError as error:
        errors += _list_errors(error, pointer, skip=1)
    if len(errors) > before:
        return None
    return Parameter(head.key, rule, head.consequence, head.weight, head.missing == "pass")


def _list_errors(error: ValidationError, base: str, skip: int = 0) -> list[Finding]:
    found = error.errors(include_url=False, include_input=False, include_context=False)
    return [Finding(base + pointer(*_steps(problem["loc"], skip)), _describe_problem(problem)) for problem in found]


def _describe_problem(problem: ErrorDetails) -> str:
    if problem["type"] == "literal_error" and problem["loc"][-1] == "rule":
        return f"must be one of {', '.join(RULES)}"
    return problem["msg"].removeprefix("Value error, ")


def _steps(place: Sequence[str | int], skip: int) -> Iterator[str]:
    """The steps of the place, without the names of rules that pydantic adds where one of several may stand."""
    for number, part in enumerate(place):
        added = part in _RULES and number > 0 and (place[number - 1] == "rule" or isinstance(place[number - 1], int))
        if number >= skip and not added:
            yield str(part)


# --- What each rule by itself does not show ---


def _inconsistencies(
    parameters: Sequence[tuple[int, Parameter]], attributes: Mapping[str, Declared]
) -> Iterator[Finding]:
    seen: set[str] = set()
    for place, parameter in parameters:
        pointer = f"/parameters/{place}"
        if parameter.key in seen:
            yield Finding(f"{pointer}/key", "another parameter has this key")
        seen.add(parameter.key)
        if parameter.missing_passes and _only_requires(parameter.rule):
            yield Finding(f"{pointer}/missing", "a required value that may be missing asks for nothing")
        yield from _find_type_errors(parameter.rule, attributes, pointer)


def _only_requires(rule: Rule) -> bool:
    return isinstance(rule, Required) or (isinstance(rule, AnyOf) and all(_only_requires(part) for part in rule.of))


def _find_type_errors(rule: Rule, attributes: Mapping[str, Declared], pointer: str) -> Iterator[Finding]:
    """What is wrong with a rule for the attributes as they are declared."""
    if isinstance(rule, AnyOf):
        for place, part in enumerate(rule.of):
            yield from _find_type_errors(part, attributes, f"{pointer}/of/{place}")
        return
    if isinstance(rule, Email | Phone | Fresh | ConsentGiven):
        return
    if rule.attribute is None:
        if isinstance(rule, OneOf):
            yield from _values(rule, "string", pointer)
        return
    declared = attributes.get(rule.attribute)
    if declared is None:
        yield Finding(f"{pointer}/attribute", f"the attribute {rule.attribute} is not among /attributes")
        return
    needs = _needs(rule)
    if declared.type not in needs:
        yield Finding(
            f"{pointer}/attribute",
            f"{rule.rule} needs one of type {' or '.join(needs)}; {rule.attribute} is {declared.type}",
        )
    elif isinstance(rule, OneOf):
        yield from _values(rule, declared.type, pointer)
    elif isinstance(rule, Range) and declared.type == "integer" and _holds_no_integer(rule):
        yield Finding(pointer, "no whole number lies between min and max, so nothing can meet it")


def _needs(rule: Required | Range | OneOf | Pattern | Dnb | Bbb) -> tuple[AttributeType, ...]:
    """The types of attribute that a rule can judge."""
    if isinstance(rule, Range):
        return ("integer", "number")
    if isinstance(rule, Pattern | Bbb):
        return ("string",)
    if isinstance(rule, Dnb):
        return ("string",) if rule.paydex_min is None else ("integer", "number", "string")
    if isinstance(rule, OneOf) and rule.match != "exact":
        return ("string", "integer")
    return TYPES


def _holds_no_integer(rule: Range) -> bool:
    low, high = -math.inf if rule.min is None else rule.min, math.inf if rule.max is None else rule.max
    return math.isfinite(low) and math.isfinite(high) and math.ceil(low) > math.floor(high)


def _values(rule: OneOf, type_: AttributeType, pointer: str) -> Iterator[Finding]:
    """Values of a list that no value of the type can ever be."""
    for place, value in enumerate(rule.values):
        try:
            if rule.match == "exact" and rule.field is None:
                convert_to_type(value, type_)
            elif rule.match == "prefix":
                naics.expand_range(value)
            elif rule.match == "naics":
                naics.resolve_industry(value)
        except NotOfType:
            yield Finding(f"{pointer}/values/{place}", f"can never be met: it reads as no {type_}")
        except ValueError as error:
            yield Finding(f"{pointer}/values/{place}", str(error))
