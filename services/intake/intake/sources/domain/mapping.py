"""How a foreign document or a row of a table becomes a submission: which field of ours takes its value from where. Pure; it guesses no
mapping and judges no value.

A mapping is `{"fields": {TARGET: POINTER | [POINTER, …] | {"const": VALUE}}, "columns": {COLUMN: TARGET}}`. Targets are the fields of a
submission, those of its parts with a dot (`campaign.name`, `attributes.employee_count`); pointers are JSON Pointers (RFC 6901) into the
document, and of several the first that finds something counts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime, tzinfo
from typing import Literal

from msgspec import Struct, field
from pydantic import JsonValue

from accord.terms.findings import Finding, pointer

TARGETS_MAX = 150
"""Fields, columns or defaults of one source."""
POINTER_CHARS_MAX = 500
COLUMN_CHARS_MAX = 300
CONST_CHARS_MAX = 1_000
POINTERS_MAX = 10
"""Places where one field may stand."""

Shape = Literal["text", "moment", "attribute"]

_ATTRIBUTE = re.compile(r"attributes\.[A-Za-z][A-Za-z0-9_-]{0,63}")
_POINTER = re.compile(r"(?:/(?:[^~/]|~[01])*)*")
_INDEX = re.compile(r"(?:0|[1-9][0-9]{0,8})")
_EPOCH = re.compile(r"([0-9]{9,20})(?:\.[0-9]+)?", re.ASCII)
_EPOCH_MIN = 10**8
"""The least number of nine digits, as a text must have."""
_MILLISECONDS_FROM = 10**11
"""Seconds since 1970 reach this number in the year 5138, so what is above counts milliseconds."""

CONSENT, CONSENT_ASSUMED = "consent.basis", "consent.assumed"
"""A basis that a constant or a default says is assumed: nobody has given it just now."""

Document = Mapping[str, JsonValue]


class Targets:
    """The fields of a submission that a mapping can fill. `source` is none of them: it is the source's own name."""

    SHAPES: Mapping[str, Shape] = {
        **dict.fromkeys(
            ("email", "phone", "external_id", "first_name", "last_name", "company", "domain", "title"), "text"
        ),
        **dict.fromkeys(
            (
                "campaign.name",
                "campaign.medium",
                "campaign.content",
                "campaign.term",
                "campaign.landing_page",
                "campaign.referrer",
                "campaign.cost.amount",
                "campaign.cost.currency",
                "consent.basis",
                "consent.text",
            ),
            "text",
        ),
        "consent.given_at": "moment",
        "occurred_at": "moment",
    }

    @classmethod
    def shape(cls, name: str) -> Shape | None:
        """What kind of value the target takes; None if there is no such target. `attributes.NAME` is one for every name."""
        found = cls.SHAPES.get(name)
        if found is None and _ATTRIBUTE.fullmatch(name):
            return "attribute"
        return found

    @classmethod
    def names(cls) -> list[str]:
        """All of them, for those who write mappings."""
        return [*cls.SHAPES, "attributes.NAME"]


class Const(Struct, frozen=True, gc=False):
    """A value that every submission of the source has."""

    value: JsonValue


Rule = str | tuple[str, ...] | Const
"""Where a target's value stands: a pointer, the first of several that finds something, or a constant."""


class FieldMapping(Struct, frozen=True, gc=False):
    """`fields`: target → rule. `columns`: the name of a table's column → target."""

    fields: Mapping[str, Rule] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)


def validate_mapping(content: object, at: str = "/mapping") -> tuple[FieldMapping, list[Finding]]:
    """The mapping in a JSON document, and everything that is wrong with it. `at`: the pointer where the document stands."""
    if content is None:
        return FieldMapping(), []
    if not isinstance(content, Mapping):
        return FieldMapping(), [Finding(at, "Must be an object with fields, columns or both")]
    errors = [
        Finding(child_pointer(at, name), "There is no such part")
        for name in content
        if name not in ("fields", "columns")
    ]
    fields: dict[str, Rule] = {}
    for target, said in _entries(content.get("fields"), f"{at}/fields", errors):
        place = child_pointer(f"{at}/fields", target)
        if _check_target(target, place, errors) and (rule := _rule(said, place, errors)) is not None:
            fields[target] = rule
    columns: dict[str, str] = {}
    for column, said in _entries(content.get("columns"), f"{at}/columns", errors):
        place = child_pointer(f"{at}/columns", column)
        if not 0 < len(column) <= COLUMN_CHARS_MAX:
            errors.append(Finding(place, f"A column's name has 1 to {COLUMN_CHARS_MAX} characters"))
        elif not isinstance(said, str):
            errors.append(Finding(place, "Must be the name of a field"))
        elif _check_target(said, place, errors):
            if said in columns.values():
                errors.append(Finding(place, "Another column is mapped to this field"))
            columns[column] = said
    return FieldMapping(fields, columns), errors


def find_undeclared(mapping: FieldMapping, declared: Collection[str], at: str = "/mapping") -> list[Finding]:
    """The targets of a mapping that are attributes, and none that the data policy declares: their values would go nowhere."""
    targets = [(child_pointer(f"{at}/fields", target), target) for target in mapping.fields]
    targets += [(child_pointer(f"{at}/columns", column), target) for column, target in mapping.columns.items()]
    return [Finding(place, UNDECLARED) for place, target in targets if _is_undeclared(target, declared)]


def find_undeclared_defaults(
    defaults: Mapping[str, JsonValue], declared: Collection[str], at: str = "/defaults"
) -> list[Finding]:
    """The same of values that hold where the mapping finds none."""
    return [Finding(child_pointer(at, name), UNDECLARED) for name in defaults if _is_undeclared(name, declared)]


UNDECLARED = "The data policy in force declares no attribute of this name, so it would go nowhere"


def _is_undeclared(target: str, declared: Collection[str]) -> bool:
    kind, _, name = target.partition(".")
    return kind == "attributes" and name not in declared


def parse_mapping(content: object) -> FieldMapping:
    """A mapping that was checked before."""
    return validate_mapping(content)[0]


def validate_defaults(defaults: object, at: str = "/defaults") -> list[Finding]:
    """What is wrong with `{TARGET: VALUE}`, the values that hold where the mapping finds none."""
    errors: list[Finding] = []
    for target, value in _entries(defaults, at, errors):
        place = child_pointer(at, target)
        if _check_target(target, place, errors):
            _check_const(value, place, errors)
    return errors


def apply_mapping(
    mapping: FieldMapping, document: JsonValue, defaults: Mapping[str, JsonValue]
) -> dict[str, JsonValue]:
    """The submission, without its source, that the pointers of `mapping` find in `document`."""
    found: dict[str, JsonValue] = dict(defaults)
    assumed = CONSENT in found
    for target, rule in mapping.fields.items():
        value = _resolve_rule(document, rule)
        if value is not None:
            found[target] = value
            if target == CONSENT:
                assumed = isinstance(rule, Const)
    return nest_values({**found, CONSENT_ASSUMED: True} if assumed else found)


def _resolve_rule(document: JsonValue, rule: Rule) -> JsonValue:
    if isinstance(rule, Const):
        return rule.value
    for way in (rule,) if isinstance(rule, str) else rule:
        value = resolve(document, way)
        if value is not None and value != "":
            return value
    return None


def nest_values(values: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """The nested document of values by target. A number becomes text where text is due, a time of any common spelling RFC 3339; what
    cannot be read stays as it is, for the form of a submission to refuse with its place."""
    document: dict[str, JsonValue] = {}
    for target, value in values.items():
        spelt = _SPELLING.get(Targets.SHAPES.get(target, "attribute"))
        _set(document, target, value if spelt is None else spelt(value))
    return document


def number_to_text(value: JsonValue) -> JsonValue:
    """A number as its digits, 42.0 as 42; anything else as it is, also a number of which a float has lost digits: equal ones would
    prove nothing."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    if isinstance(value, int):
        return str(value)
    if value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    return str(value) if abs(value) < 2**53 else value


def parse_time(value: JsonValue, zone: tzinfo = UTC) -> datetime | JsonValue:
    """A time as tools and people write it: RFC 3339, ISO 8601 without an offset or a date alone (both in `zone`; a date is its midnight),
    and seconds or milliseconds since 1970, as number or digits, from 1973 on: a smaller number is a spreadsheet's date or none. Anything
    else is returned unchanged."""
    if isinstance(value, str):
        text = value.strip()
        if _EPOCH.fullmatch(text):
            return _from_epoch(float(text), value)
        try:
            found = datetime.fromisoformat(text)
        except ValueError:
            return value
        return found if found.tzinfo else found.replace(tzinfo=zone)
    if isinstance(value, int | float) and not isinstance(value, bool) and value >= _EPOCH_MIN:
        return _from_epoch(value, value)
    return value


def _from_epoch(number: float, otherwise: JsonValue) -> datetime | JsonValue:
    try:
        return datetime.fromtimestamp(number / 1000 if abs(number) >= _MILLISECONDS_FROM else number, UTC)
    except (ValueError, OverflowError, OSError):
        return otherwise


def normalize_time(value: JsonValue) -> JsonValue:
    """A time as RFC 3339, in UTC where it names no offset; anything else is returned unchanged."""
    found = parse_time(value)
    return found.isoformat() if isinstance(found, datetime) else found


_SPELLING: Mapping[Shape, Callable[[JsonValue], JsonValue]] = {"text": number_to_text, "moment": normalize_time}


def resolve(document: JsonValue, pointer: str) -> JsonValue:
    """What stands at a JSON Pointer (RFC 6901, section 4); None where nothing does."""
    node = document
    for part in pointer.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~") if "~" in part else part
        if isinstance(node, dict):
            node = node.get(name)
        elif isinstance(node, list) and _INDEX.fullmatch(name) and int(name) < len(node):
            node = node[int(name)]
        else:
            return None
    return node


def _set(document: dict[str, JsonValue], target: str, value: JsonValue) -> None:
    *parents, last = target.split(".") if not target.startswith("attributes.") else target.split(".", 1)
    node = document
    for name in parents:
        inner = node.setdefault(name, {})
        if not isinstance(inner, dict):
            return
        node = inner
    node[last] = value


def _entries(content: object, at: str, errors: list[Finding]) -> list[tuple[str, JsonValue]]:
    if content is None:
        return []
    if not isinstance(content, Mapping):
        errors.append(Finding(at, "Must be an object"))
        return []
    if len(content) > TARGETS_MAX:
        errors.append(Finding(at, f"May have {TARGETS_MAX} entries"))
        return []
    return [(str(name), value) for name, value in content.items()]


def _check_target(target: str, place: str, errors: list[Finding]) -> bool:
    if Targets.shape(target) is not None:
        return True
    errors.append(Finding(place, "There is no such field of a submission"))
    return False


def _rule(said: JsonValue, place: str, errors: list[Finding]) -> Rule | None:
    if isinstance(said, str):
        return said if _check_pointer(said, place, errors) else None
    if isinstance(said, list) and 0 < len(said) <= POINTERS_MAX:
        checked = [_check_pointer(one, f"{place}/{index}", errors) for index, one in enumerate(said)]
        return tuple(str(one) for one in said) if all(checked) else None
    if isinstance(said, Mapping) and set(said) == {"const"}:
        return Const(said["const"]) if _check_const(said["const"], f"{place}/const", errors) else None
    errors.append(
        Finding(place, f'Must be a JSON Pointer, a list of 1 to {POINTERS_MAX} of them, or {{"const": VALUE}}')
    )
    return None


def _check_pointer(said: JsonValue, place: str, errors: list[Finding]) -> bool:
    if isinstance(said, str) and 0 < len(said) <= POINTER_CHARS_MAX and _POINTER.fullmatch(said):
        return True
    errors.append(Finding(place, "Must be a JSON Pointer such as /data/email"))
    return False


def _check_const(value: JsonValue, place: str, errors: list[Finding]) -> bool:
    if isinstance(value, bool) or (isinstance(value, int | float) and abs(value) <= 2**53):
        return True
    if isinstance(value, str) and 0 < len(value) <= CONST_CHARS_MAX:
        return True
    errors.append(Finding(place, f"Must be a truth value, a number or a text of 1 to {CONST_CHARS_MAX} characters"))
    return False


def child_pointer(base: str, name: object) -> str:
    return base + pointer(name)
