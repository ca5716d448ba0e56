"""Contracts only grow: each kind of change that breaks a reader is found and named; an optional field is none."""

import copy
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.effort import cases

from accord import schemas_cli
from accord.contracts.base import EVENT_TYPES
from accord.contracts.compatibility import Change, incompatibilities
from accord.contracts.schemas import json_schema

Schema = dict[str, Any]
TYPES = sorted(EVENT_TYPES)
BASE: Schema = {
    "title": "base",
    "$defs": {
        "Money": {
            "type": "object",
            "properties": {"amount": {"type": "string", "pattern": "^[0-9]+$"}, "currency": {"type": "string"}},
            "required": ["amount"],
        }
    },
    "type": "object",
    "properties": {
        "id": {"type": "string", "format": "uuid"},
        "count": {"type": "integer", "minimum": 1, "maximum": 9},
        "kind": {"type": "string", "enum": ["a", "b"]},
        "fixed": {"const": 1},
        "words": {"type": "array", "items": {"type": "string", "maxLength": 10}, "maxItems": 3},
        "cost": {"anyOf": [{"$ref": "#/$defs/Money"}, {"type": "null"}], "default": None},
        "map": {"type": "object", "additionalProperties": {"type": "integer"}},
    },
    "required": ["id", "count"],
}


def changed(change: Callable[[Schema], object]) -> Schema:
    schema = copy.deepcopy(BASE)
    change(schema)
    return schema


def kinds(old: Schema, new: Schema) -> set[tuple[str, str]]:
    return {(found.pointer, found.kind) for found in incompatibilities(old, new)}


@pytest.mark.parametrize("type_", TYPES)
def test_every_type_can_still_be_read_by_who_knows_the_released_schema(type_: str) -> None:
    released = schemas_cli.DIRECTORY / "released" / f"{type_}.schema.json"
    assert released.is_file(), "a new type is released with `python -m accord.schemas_cli --release`"
    assert incompatibilities(json.loads(released.read_text(encoding="utf-8")), json_schema(type_)) == []


def test_no_released_type_is_gone() -> None:
    released = {path.name.removesuffix(".schema.json") for path in (schemas_cli.DIRECTORY / "released").iterdir()}
    assert released <= set(EVENT_TYPES)


def test_nothing_is_found_between_a_schema_and_itself() -> None:
    assert incompatibilities(BASE, copy.deepcopy(BASE)) == []


def rename_count(schema: Schema) -> None:
    schema["properties"]["number"] = schema["properties"].pop("count")
    schema["required"] = ["id", "number"]


BREAKING: list[tuple[str, Callable[[Schema], object], Change]] = [
    ("/map", lambda s: s["properties"].pop("map"), Change.PROPERTY_REMOVED),
    ("/count", rename_count, Change.PROPERTY_RENAMED),
    ("/kind", lambda s: s["required"].append("kind"), Change.PROPERTY_NEWLY_REQUIRED),
    ("/new", lambda s: s["required"].append("new"), Change.PROPERTY_NEWLY_REQUIRED),
    ("/count", lambda s: s["required"].remove("count"), Change.PROPERTY_NO_LONGER_REQUIRED),
    ("", lambda s: s.update(additionalProperties=False), Change.ADDITIONAL_PROPERTIES_CHANGED),
    ("", lambda s: s.update(additionalProperties={"type": "string"}), Change.ADDITIONAL_PROPERTIES_CHANGED),
    ("/map", lambda s: s["properties"]["map"].pop("additionalProperties"), Change.ADDITIONAL_PROPERTIES_CHANGED),
    ("/map/*", lambda s: s["properties"]["map"]["additionalProperties"].update(minimum=0), Change.BOUND_NARROWED),
    ("/count", lambda s: s["properties"]["count"].update(type="string"), Change.TYPE_REMOVED),
    ("/count", lambda s: s["properties"]["count"].update(type=["integer", "null"]), Change.TYPE_ADDED),
    ("/count", lambda s: s["properties"]["count"].pop("type"), Change.TYPE_ADDED),
    ("/kind", lambda s: s["properties"]["kind"].update(enum=["a"]), Change.ENUM_NARROWED),
    ("/kind", lambda s: s["properties"]["kind"].update(enum=["a", "b", "c"]), Change.ENUM_WIDENED),
    ("/kind", lambda s: s["properties"]["kind"].pop("enum"), Change.ENUM_WIDENED),
    ("/id", lambda s: s["properties"]["id"].update(enum=["x"]), Change.ENUM_NARROWED),
    ("/fixed", lambda s: s["properties"]["fixed"].update(const=2), Change.CONST_CHANGED),
    ("/fixed", lambda s: s["properties"]["fixed"].update(const=True), Change.CONST_CHANGED),
    ("/fixed", lambda s: s["properties"]["fixed"].pop("const"), Change.CONST_CHANGED),
    ("/count", lambda s: s["properties"]["count"].update(minimum=2), Change.BOUND_NARROWED),
    ("/count", lambda s: s["properties"]["count"].update(maximum=8), Change.BOUND_NARROWED),
    ("/count", lambda s: s["properties"]["count"].update(exclusiveMinimum=0), Change.BOUND_NARROWED),
    ("/count", lambda s: s["properties"]["count"].update(minimum=0), Change.BOUND_WIDENED),
    ("/count", lambda s: s["properties"]["count"].pop("maximum"), Change.BOUND_WIDENED),
    ("/words", lambda s: s["properties"]["words"].update(minItems=1), Change.BOUND_NARROWED),
    ("/words/*", lambda s: s["properties"]["words"]["items"].update(maxLength=5), Change.BOUND_NARROWED),
    ("/words", lambda s: s["properties"]["words"].pop("items"), Change.ITEMS_CHANGED),
    ("/id", lambda s: s["properties"]["id"].update(pattern="^a"), Change.PATTERN_CHANGED),
    (
        "/cost/amount",
        lambda s: s["$defs"]["Money"]["properties"]["amount"].update(pattern="^x"),
        Change.PATTERN_CHANGED,
    ),
    ("/cost/amount", lambda s: s["$defs"]["Money"]["properties"]["amount"].pop("pattern"), Change.PATTERN_CHANGED),
    ("/cost/currency", lambda s: s["$defs"]["Money"]["required"].append("currency"), Change.PROPERTY_NEWLY_REQUIRED),
    ("/cost/currency", lambda s: s["$defs"]["Money"]["properties"].pop("currency"), Change.PROPERTY_REMOVED),
    ("/id", lambda s: s["properties"]["id"].pop("format"), Change.FORMAT_CHANGED),
    ("/id", lambda s: s["properties"]["id"].update(format="date"), Change.FORMAT_CHANGED),
    ("/cost", lambda s: s["properties"]["cost"].update(default={"amount": "0"}), Change.DEFAULT_CHANGED),
    ("/cost", lambda s: s["properties"]["cost"].pop("default"), Change.DEFAULT_CHANGED),
    ("/cost", lambda s: s["properties"]["cost"]["anyOf"].pop(), Change.VARIANT_REMOVED),
    ("/cost", lambda s: s["properties"]["cost"]["anyOf"].append({"type": "string"}), Change.VARIANT_ADDED),
    ("/cost", lambda s: s["$defs"].pop("Money"), Change.REFERENCE_BROKEN),
    ("/count", lambda s: s["properties"]["count"].update(multipleOf=2), Change.UNKNOWN_CHANGE),
    ("", lambda s: s.update({"if": {"required": ["kind"]}}), Change.UNKNOWN_CHANGE),
    ("/words", lambda s: s["properties"]["words"].update(uniqueItems=True), Change.UNKNOWN_CHANGE),
    ("/id", lambda s: s["properties"]["id"].update({"x-new": 1}), Change.UNKNOWN_CHANGE),
    ("/id", lambda s: s["properties"].update(id=False), Change.UNKNOWN_CHANGE),
]


@pytest.mark.parametrize(("pointer", "change", "kind"), BREAKING)
def test_a_change_that_breaks_a_reader_is_named_at_its_place(
    pointer: str, change: Callable[[Schema], object], kind: Change
) -> None:
    assert (pointer, kind.value) in kinds(BASE, changed(change))


def test_every_kind_of_change_is_among_those_tried() -> None:
    assert {kind for _, _, kind in BREAKING} == set(Change)


def test_a_change_is_named_once_and_alone() -> None:
    assert kinds(BASE, changed(rename_count)) == {
        ("/count", "property renamed"),
        ("/number", "property newly required"),
    }
    assert len(incompatibilities(BASE, changed(lambda s: s["properties"].pop("map")))) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s["properties"].update(added={"type": "string"}),
        lambda s: s["properties"].update(
            added={"anyOf": [{"$ref": "#/$defs/Money"}, {"type": "null"}], "default": None}
        ),
        lambda s: s["$defs"]["Money"]["properties"].update(rate={"type": "string"}),
        lambda s: s["$defs"].update(Unused={"type": "string"}),
        lambda s: s["properties"]["id"].update(description="of the lead", title="Id", examples=["x"]),
        lambda s: s["properties"]["cost"]["anyOf"].reverse(),
        lambda s: s["properties"]["kind"].update(enum=["b", "a"]),
        lambda s: s["required"].reverse(),
        lambda s: s.update(additionalProperties=True),
        lambda s: s["properties"]["count"].update(type=["integer"]),
    ],
)
def test_what_no_reader_can_notice_is_no_incompatibility(change: Callable[[Schema], object]) -> None:
    assert incompatibilities(BASE, changed(change)) == []


def test_a_definition_may_be_renamed_or_written_out() -> None:
    written_out = copy.deepcopy(BASE)
    written_out["properties"]["cost"]["anyOf"][0] = written_out["$defs"].pop("Money")
    assert incompatibilities(BASE, written_out) == []


def test_a_reference_that_goes_in_a_circle_ends() -> None:
    circle = {"$defs": {"A": {"$ref": "#/$defs/A"}}, "$ref": "#/$defs/A"}
    assert kinds(circle, circle) == {("", "reference broken")}
    tree = {"$defs": {"T": {"properties": {"t": {"$ref": "#/$defs/T"}}}}, "$ref": "#/$defs/T"}
    assert {kind for _, kind in kinds(tree, tree)} == {"unknown change"}


# Every schema that is really published, mutated at every place.


def objects(schema: Schema) -> Iterator[Schema]:
    """Every object schema of a type that data can reach."""
    return (model for model in (schema, *schema.get("$defs", {}).values()) if "properties" in model)


def places(part: object) -> Iterator[Schema]:
    """Every schema with words in it, except free ones."""
    if isinstance(part, dict):
        if part.keys() & {"type", "anyOf", "$ref", "const", "enum"}:
            yield part
        for name, value in part.items():
            if name not in ("default", "examples", "enum", "required"):
                yield from places(value)
    elif isinstance(part, list):
        for value in part:
            yield from places(value)


def forget(schema: Schema, chance: random.Random) -> str:
    model = chance.choice(list(objects(schema)))
    name = chance.choice(list(model["properties"]))
    del model["properties"][name]
    model["required"] = [other for other in model.get("required", []) if other != name]
    return name


def require(schema: Schema, chance: random.Random) -> str:
    model = chance.choice(list(objects(schema)))
    optional = [name for name in model["properties"] if name not in model.get("required", [])]
    name = chance.choice([*optional, "quite_new"])
    model.setdefault("required", []).append(name)
    return name


def close(schema: Schema, chance: random.Random) -> str:
    model = chance.choice(list(objects(schema)))
    model["additionalProperties"] = False
    return str(model.get("title"))


def alter(schema: Schema, chance: random.Random) -> str:
    """One word of one schema gone or another."""
    place = chance.choice(list(places(schema)))
    words = [word for word in place if word not in ("title", "description", "$schema", "$id", "$defs", "examples")]
    word = chance.choice([word for word in words if word not in ("properties", "required")])
    if word == "additionalProperties" and place[word] is True:
        place[word] = False
    elif chance.random() < 0.5 and not (word == "additionalProperties" and place[word] is True):
        del place[word]
    else:
        place[word] = {"type": "object", "properties": {"odd": {}}, "required": ["odd"]} if word == "items" else "odd"
        if word in ("anyOf", "enum"):
            place[word] = [{"type": "odd"}] if word == "anyOf" else ["odd"]
        elif word == "additionalProperties":
            place[word] = {"type": "odd"}
        elif word.startswith(("min", "max", "exclusive")):
            place[word] = 77_777
    return word


@settings(max_examples=cases(300), deadline=None)
@given(st.sampled_from(TYPES), st.sampled_from([forget, require, close, alter]), st.randoms(use_true_random=False))
def test_each_mutation_of_a_published_schema_is_found(
    type_: str, mutate: Callable[[Schema, random.Random], str], chance: random.Random
) -> None:
    old = json_schema(type_)
    new = copy.deepcopy(old)
    what = mutate(new, chance)
    assert incompatibilities(old, new), what


@settings(max_examples=cases(100), deadline=None)
@given(st.sampled_from(TYPES), st.randoms(use_true_random=False))
def test_an_optional_field_may_be_added_anywhere_in_a_published_schema(type_: str, chance: random.Random) -> None:
    old = json_schema(type_)
    new = copy.deepcopy(old)
    field = chance.choice([{"type": "string"}, {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None}])
    chance.choice(list(objects(new)))["properties"]["quite_new"] = field
    assert incompatibilities(old, new) == []
