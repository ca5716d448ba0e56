"""The data policy: its form, what is wrong with a draft, and how an attribute gets its declared type. Judging is in quality.py."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    ValidationError,
    model_validator,
)

from accord.contracts.values import AttributeValue
from intake.domain.privacy import looks_personal

Consequence = Literal["reject", "quarantine", "flag"]
AttributeType = Literal["integer", "number", "string", "boolean"]
FieldName = Literal["email", "phone", "external_id", "first_name", "last_name", "company", "domain", "title", "consent"]
Key = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,63}$")]
AttributeName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$")]
Word = Annotated[str, StringConstraints(min_length=1, max_length=200)]

_PREFIXES = re.compile(r"^(\d+)-(\d+)$")
_RULES = frozenset({"required", "range", "one_of", "email", "phone", "any_of"})


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


class Required(_Subject):
    """The value is there."""

    rule: Literal["required"]


class Range(_Part):
    """The number lies between `min` and `max`, both included."""

    rule: Literal["range"]
    attribute: AttributeName
    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _bounded(self) -> Range:
        if self.min is None and self.max is None:
            raise ValueError("needs min or max")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min is above max, so nothing can meet it")
        return self


class OneOf(_Subject):
    """The value is one of `values`, or begins with one. As a prefix, `31-33` stands for 31, 32 and 33 (as NAICS writes it)."""

    rule: Literal["one_of"]
    match: Literal["exact", "prefix"] = "exact"
    values: Annotated[list[Word], Field(min_length=1, max_length=1000)]

    def words(self) -> tuple[str, ...]:
        """The values in lower case, ranges of prefixes written out."""
        return tuple(word for value in self.values for word in self._written_out(value.lower()))

    def _written_out(self, value: str) -> Iterator[str]:
        span = _PREFIXES.match(value) if self.match == "prefix" else None
        if span is None or len(span[1]) != len(span[2]) or not 0 <= int(span[2]) - int(span[1]) <= 1000:
            yield value
            return
        for number in range(int(span[1]), int(span[2]) + 1):
            yield str(number).zfill(len(span[1]))


class Email(_Part):
    """The e-mail address is well formed under a public suffix. `disposable` and `role` say whether such addresses pass."""

    rule: Literal["email"]
    disposable: Annotated[bool, Field(strict=True)] = False
    role: Annotated[bool, Field(strict=True)] = True


class Phone(_Part):
    """The phone number is valid for its country."""

    rule: Literal["phone"]


class AnyOf(_Part):
    """At least one of the rules is met."""

    rule: Literal["any_of"]
    of: Annotated[list[Rule], Field(min_length=1, max_length=50)]


def _name_of_rule(part: object) -> str:
    name = part.get("rule") if isinstance(part, dict) else getattr(part, "rule", None)
    return name if isinstance(name, str) and name in _RULES else "required"


Rule = Annotated[
    Annotated[Required, Tag("required")]
    | Annotated[Range, Tag("range")]
    | Annotated[OneOf, Tag("one_of")]
    | Annotated[Email, Tag("email")]
    | Annotated[Phone, Tag("phone")]
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
    parameters: Annotated[tuple[Parameter, ...], Field(min_length=1, max_length=100)]
    score_min: Annotated[float, Field(ge=0, le=1)] = 0

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


@dataclass(frozen=True, slots=True)
class Flaw:
    """What is wrong with a policy, and where (JSON Pointer)."""

    pointer: str
    message: str


def read(content: Mapping[str, object]) -> tuple[Policy | None, list[Flaw]]:
    """The policy in a document, or all that is wrong with it."""
    raw = content.get("parameters")
    flaws: list[Flaw] = []
    parameters: list[Parameter] = []
    for place, part in enumerate(raw if isinstance(raw, list) else []):
        parameter = _parameter(part, f"/parameters/{place}", flaws)
        if parameter is not None:
            parameters.append(parameter)
    given = dict(content)
    if isinstance(raw, list) and raw:
        given["parameters"] = parameters or [Parameter("x", Email(rule="email"), "flag", 1, False)]
    try:
        policy = Policy.model_validate(given)
    except ValidationError as error:
        flaws += _flaws_of(error, "")
        return None, flaws
    flaws += list(_inconsistencies(policy))
    return (None if flaws else policy), flaws


def parse(content: Mapping[str, object]) -> Policy:
    """The policy in a document that `read` found nothing wrong with. Raises ValueError otherwise."""
    policy, flaws = read(content)
    if policy is None:
        raise ValueError(f"no valid policy: {flaws[0].pointer}: {flaws[0].message}")
    return policy


def _parameter(part: object, pointer: str, flaws: list[Flaw]) -> Parameter | None:
    if not isinstance(part, dict):
        flaws.append(Flaw(pointer, "must be a mapping with key, rule and consequence"))
        return None
    if not isinstance(part.get("rule"), str) or part["rule"] not in _RULES:
        flaws.append(Flaw(f"{pointer}/rule", f"must be one of {', '.join(sorted(_RULES))}"))
        return None
    before = len(flaws)
    try:
        head = _ParameterHead.model_validate({name: part[name] for name in _ENVELOPE if name in part})
    except ValidationError as error:
        flaws += _flaws_of(error, pointer)
    try:
        rule = _RuleHolder.model_validate({"rule": {k: v for k, v in part.items() if k not in _ENVELOPE}}).rule
    except ValidationError as error:
        flaws += _flaws_of(error, pointer, skip=1)
    if len(flaws) > before:
        return None
    return Parameter(head.key, rule, head.consequence, head.weight, head.missing == "pass")


def _flaws_of(error: ValidationError, base: str, skip: int = 0) -> list[Flaw]:
    found = error.errors(include_url=False, include_input=False, include_context=False)
    return [
        Flaw(
            base + "".join(_steps(problem["loc"], skip)),
            problem["msg"].removeprefix("Value error, "),
        )
        for problem in found
    ]


def _steps(place: Sequence[str | int], skip: int) -> Iterator[str]:
    """The place as a JSON Pointer's steps, without the names of rules that pydantic adds where one of several may stand."""
    for number, part in enumerate(place):
        added = part in _RULES and number > 0 and (place[number - 1] == "rule" or isinstance(place[number - 1], int))
        if number >= skip and not added:
            yield "/" + str(part).replace("~", "~0").replace("/", "~1")


def _inconsistencies(policy: Policy) -> Iterator[Flaw]:
    seen: set[str] = set()
    for place, parameter in enumerate(policy.parameters):
        if parameter.key in seen:
            yield Flaw(f"/parameters/{place}/key", "another parameter has this key")
        seen.add(parameter.key)
        if isinstance(parameter.rule, Required) and parameter.missing_passes:
            yield Flaw(f"/parameters/{place}/missing", "a required value that may be missing asks for nothing")
        yield from _undeclared(parameter.rule, policy.attributes, f"/parameters/{place}")


def _undeclared(rule: Rule, attributes: Mapping[str, Declared], pointer: str) -> Iterator[Flaw]:
    if isinstance(rule, AnyOf):
        for place, part in enumerate(rule.of):
            yield from _undeclared(part, attributes, f"{pointer}/of/{place}")
    elif isinstance(rule, Required | OneOf | Range) and rule.attribute is not None:
        declared = attributes.get(rule.attribute)
        if declared is None:
            yield Flaw(f"{pointer}/attribute", f"the attribute {rule.attribute} is not among /attributes")
        elif isinstance(rule, Range) and declared.type not in ("integer", "number"):
            yield Flaw(f"{pointer}/attribute", f"a range needs a number, and {rule.attribute} is {declared.type}")


_TRUE = frozenset({"true", "yes", "1"})
_FALSE = frozenset({"false", "no", "0"})
TEXT_MAX = 200


class NotOfType(ValueError):
    """The value does not read as the declared type."""


def typed(value: AttributeValue, type_: AttributeType) -> AttributeValue:
    """The value as the declared type: forms send "250" for 250. None for an empty one. Raises NotOfType."""
    if value is None or value == "":
        return None
    if isinstance(value, list):
        raise NotOfType
    if type_ == "string":
        text = str(value).strip() if not isinstance(value, bool) else str(value).lower()
        if len(text) > TEXT_MAX or looks_personal(text):
            raise NotOfType
        return text or None
    if type_ == "boolean":
        word = str(value).strip().lower()
        if word not in _TRUE | _FALSE:
            raise NotOfType
        return word in _TRUE
    return _number(value, whole=type_ == "integer")


def _number(value: bool | int | float | str, *, whole: bool) -> int | float:
    if isinstance(value, bool):
        raise NotOfType
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise NotOfType from None
    if not abs(number) < 1e15 or (whole and number != int(number)):
        raise NotOfType
    return int(number) if whole or number == int(number) else number
