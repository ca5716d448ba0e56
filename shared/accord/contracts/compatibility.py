"""Says whether a new JSON Schema may take an old one's place without a reader noticing. Pure; knows no file, no event.

The log is kept forever, so both ways count: a consumer built on the old schema reads new events, and one built on the
new schema reads old events. So a contract only grows, by optional fields and by nothing else. The taxonomy (after the
idea of Aiven Karapace's JSON Schema checker, in which each kind of incompatible change has a name):

    PROPERTY_REMOVED               a field is gone
    PROPERTY_RENAMED               a field is gone and a new one has the same schema
    PROPERTY_NEWLY_REQUIRED        a field that was optional or not there is required now: old events lack it
    PROPERTY_NO_LONGER_REQUIRED    a field that consumers rely on may be missing now
    ADDITIONAL_PROPERTIES_CHANGED  whether unknown fields are allowed, or of which schema, is not as it was
    TYPE_REMOVED, TYPE_ADDED       a field loses a JSON type (old events have it), or gains one (unexpected)
    ENUM_NARROWED, ENUM_WIDENED    a value is gone from, or new in, a closed list
    CONST_CHANGED                  a constant is another, or has come or gone
    BOUND_NARROWED, BOUND_WIDENED  minimum, maximum, lengths or counts allow less, or more
    PATTERN_CHANGED                a pattern is another, or has come or gone; which is narrower cannot be told
    FORMAT_CHANGED                 a format is another, or has come or gone
    DEFAULT_CHANGED                a missing field means something else
    VARIANT_REMOVED, VARIANT_ADDED a member of an anyOf or oneOf without a counterpart
    ITEMS_CHANGED                  the schema of a list's members has come or gone
    REFERENCE_BROKEN               a $ref leads nowhere
    UNKNOWN_CHANGE                 anything else that differs: a keyword unknown to this checker is never passed over

Titles, descriptions, examples, comments and the names under $defs are free to change. What is widened is a failure too:
a consumer's code may have a case for each value. A change that is needed all the same is a new type, `….v2`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import Any

from msgspec import Struct

Json = Mapping[str, Any]
Schema = Json | bool


class Change(Enum):
    """The kinds of change that break a reader."""

    PROPERTY_REMOVED = "property removed"
    PROPERTY_RENAMED = "property renamed"
    PROPERTY_NEWLY_REQUIRED = "property newly required"
    PROPERTY_NO_LONGER_REQUIRED = "property no longer required"
    ADDITIONAL_PROPERTIES_CHANGED = "additionalProperties changed"
    TYPE_REMOVED = "type removed"
    TYPE_ADDED = "type added"
    ENUM_NARROWED = "enum narrowed"
    ENUM_WIDENED = "enum widened"
    CONST_CHANGED = "const changed"
    BOUND_NARROWED = "bound narrowed"
    BOUND_WIDENED = "bound widened"
    PATTERN_CHANGED = "pattern changed"
    FORMAT_CHANGED = "format changed"
    DEFAULT_CHANGED = "default changed"
    VARIANT_REMOVED = "variant removed"
    VARIANT_ADDED = "variant added"
    ITEMS_CHANGED = "items changed"
    REFERENCE_BROKEN = "reference broken"
    UNKNOWN_CHANGE = "unknown change"


class Incompatibility(Struct, frozen=True, gc=False, order=True):
    """One change that breaks a reader.

    `pointer` is a JSON Pointer into the data, with `*` for the members of a list and the values of a map.
    """

    pointer: str
    kind: str
    detail: str

    def __str__(self) -> str:
        return f"{self.pointer or '/'}: {self.kind} ({self.detail})"


_FREE = frozenset({"$schema", "$id", "$defs", "$comment", "title", "description", "examples", "deprecated"})
_FLOORS = frozenset({"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"})
_CEILINGS = frozenset({"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"})
_VARIANTS = ("anyOf", "oneOf")
_HANDLED = (
    _FREE
    | _FLOORS
    | _CEILINGS
    | {
        "type",
        "properties",
        "required",
        "additionalProperties",
        "enum",
        "const",
        "pattern",
        "format",
        "default",
        "items",
    }
    | {*_VARIANTS, "$ref"}
)
_ABSENT = object()
_DEPTH_MAX = 32


def incompatibilities(old: Json, new: Json) -> list[Incompatibility]:
    """Every change from `old` to `new` that could break a reader, sorted by place; empty if there is none."""
    return sorted(_Comparison(old, new).at("", old, new, 0))


class _Comparison:
    def __init__(self, old_root: Json, new_root: Json) -> None:
        self._old_root = old_root
        self._new_root = new_root

    def at(self, pointer: str, old: Schema, new: Schema, depth: int) -> Iterator[Incompatibility]:
        old, new = _as_object(old), _as_object(new)
        if depth > _DEPTH_MAX:
            yield _found(pointer, Change.UNKNOWN_CHANGE, "nested too deep to compare")
            return
        resolved_old, resolved_new = _resolved(self._old_root, old), _resolved(self._new_root, new)
        if resolved_old is None or resolved_new is None:
            yield _found(pointer, Change.REFERENCE_BROKEN, str((new if resolved_new is None else old).get("$ref")))
            return
        yield from self._object(pointer, resolved_old, resolved_new, depth)
        yield from self._items(pointer, resolved_old, resolved_new, depth)
        for word in _VARIANTS:
            yield from self._variants(pointer, word, resolved_old, resolved_new, depth)
        yield from _types(pointer, resolved_old, resolved_new)
        yield from _values(pointer, resolved_old, resolved_new)
        yield from _bounds(pointer, resolved_old, resolved_new)
        for word in sorted((resolved_old.keys() | resolved_new.keys()) - _HANDLED):
            if resolved_old.get(word, _ABSENT) != resolved_new.get(word, _ABSENT):
                yield _found(pointer, Change.UNKNOWN_CHANGE, word)

    def equal(self, old: Schema, new: Schema, depth: int) -> bool:
        return next(self.at("", old, new, depth), None) is None

    def _object(self, pointer: str, old: Json, new: Json, depth: int) -> Iterator[Incompatibility]:
        before, after = _mapping(old, "properties"), _mapping(new, "properties")
        added = [name for name in after if name not in before]
        for name, schema in before.items():
            place = f"{pointer}/{_escaped(name)}"
            if name in after:
                yield from self.at(place, schema, after[name], depth + 1)
                continue
            twin = next((other for other in added if self.equal(schema, after[other], depth + 1)), None)
            if twin is None:
                yield _found(place, Change.PROPERTY_REMOVED, name)
            else:
                added.remove(twin)
                yield _found(place, Change.PROPERTY_RENAMED, f"{name} to {twin}")
        yield from _required(pointer, old, new)
        yield from self._additional(pointer, old, new, depth)

    def _additional(self, pointer: str, old: Json, new: Json, depth: int) -> Iterator[Incompatibility]:
        before, after = old.get("additionalProperties", True), new.get("additionalProperties", True)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from self.at(f"{pointer}/*", before, after, depth + 1)
        elif before != after:
            yield _found(pointer, Change.ADDITIONAL_PROPERTIES_CHANGED, f"{_short(before)} to {_short(after)}")

    def _items(self, pointer: str, old: Json, new: Json, depth: int) -> Iterator[Incompatibility]:
        before, after = old.get("items", True), new.get("items", True)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from self.at(f"{pointer}/*", before, after, depth + 1)
        elif before != after:
            yield _found(pointer, Change.ITEMS_CHANGED, f"{_short(before)} to {_short(after)}")

    def _variants(self, pointer: str, word: str, old: Json, new: Json, depth: int) -> Iterator[Incompatibility]:
        before, after = list(old.get(word, ())), list(new.get(word, ()))
        for schema in list(before):
            twin = next((other for other in after if self.equal(schema, other, depth + 1)), None)
            if twin is not None:
                before.remove(schema)
                after.remove(twin)
        # What is left has changed: members of one type are the same member, and the change is named where it is.
        for schema in list(before):
            twin = next((other for other in after if self._same_kind(schema, other)), None)
            if twin is not None:
                before.remove(schema)
                after.remove(twin)
                yield from self.at(pointer, schema, twin, depth + 1)
        yield from (_found(pointer, Change.VARIANT_REMOVED, f"{word}: {_short(schema)}") for schema in before)
        for schema in after:
            broken = _resolved(self._new_root, _as_object(schema)) is None
            kind = Change.REFERENCE_BROKEN if broken else Change.VARIANT_ADDED
            yield _found(pointer, kind, f"{word}: {_short(schema)}")

    def _same_kind(self, old: Schema, new: Schema) -> bool:
        before, after = _resolved(self._old_root, _as_object(old)), _resolved(self._new_root, _as_object(new))
        return before is not None and after is not None and "type" in before and before["type"] == after.get("type")


def _required(pointer: str, old: Json, new: Json) -> Iterator[Incompatibility]:
    before, after = set(old.get("required", ())), set(new.get("required", ()))
    for name in sorted(after - before):
        yield _found(f"{pointer}/{_escaped(name)}", Change.PROPERTY_NEWLY_REQUIRED, name)
    for name in sorted(before - after):
        if name in _mapping(new, "properties"):  # else it was removed or renamed, which has been said
            yield _found(f"{pointer}/{_escaped(name)}", Change.PROPERTY_NO_LONGER_REQUIRED, name)


def _types(pointer: str, old: Json, new: Json) -> Iterator[Incompatibility]:
    before, after = _type_set(old), _type_set(new)
    for type_ in sorted(before - after):
        yield _found(pointer, Change.TYPE_REMOVED, type_)
    for type_ in sorted(after - before):
        yield _found(pointer, Change.TYPE_ADDED, type_)


def _type_set(schema: Json) -> set[str]:
    types = schema.get("type", "any")
    return {types} if isinstance(types, str) else set(types)


def _values(pointer: str, old: Json, new: Json) -> Iterator[Incompatibility]:
    if "enum" in old or "enum" in new:
        before, after = old.get("enum"), new.get("enum")
        if after is not None and (before is None or _lacks(after, before)):
            yield _found(pointer, Change.ENUM_NARROWED, f"{_short(before)} to {_short(after)}")
        if before is not None and (after is None or _lacks(before, after)):
            yield _found(pointer, Change.ENUM_WIDENED, f"{_short(before)} to {_short(after)}")
    for word, kind in (
        ("const", Change.CONST_CHANGED),
        ("pattern", Change.PATTERN_CHANGED),
        ("format", Change.FORMAT_CHANGED),
        ("default", Change.DEFAULT_CHANGED),
    ):
        one, other = old.get(word, _ABSENT), new.get(word, _ABSENT)
        if not _same(one, other):
            yield _found(pointer, kind, f"{_short(one)} to {_short(other)}")


def _lacks(values: Sequence[object], wanted: Sequence[object]) -> bool:
    return any(not any(_same(value, one) for value in values) for one in wanted)


def _same(one: object, other: object) -> bool:
    """Equal as JSON: true is not 1."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _bounds(pointer: str, old: Json, new: Json) -> Iterator[Incompatibility]:
    for word in sorted((_FLOORS | _CEILINGS) & (old.keys() | new.keys())):
        before, after = old.get(word), new.get(word)
        if before == after:
            continue
        higher = after is not None and (before is None or after > before)
        narrower = higher if word in _FLOORS else after is not None and (before is None or after < before)
        kind = Change.BOUND_NARROWED if narrower else Change.BOUND_WIDENED
        yield _found(pointer, kind, f"{word} {before} to {after}")


def _as_object(schema: Schema) -> Json:
    """A boolean schema as the object that means the same."""
    if isinstance(schema, bool):
        return {} if schema else {"not": {}}
    return schema


def _resolved(root: Json, schema: Json) -> Json | None:
    """The schema with its $ref followed; None if it leads nowhere. Words beside the $ref override those behind it."""
    seen = 0
    while "$ref" in schema:
        target: object = root
        name = str(schema["$ref"])
        for part in name.removeprefix("#/").split("/") if name.startswith("#/") else [""]:
            target = target.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(target, Mapping) else None
        seen += 1
        if not isinstance(target, Mapping) or seen > _DEPTH_MAX:
            return None
        schema = {**target, **{word: value for word, value in schema.items() if word != "$ref"}}
    return schema


def _mapping(schema: Json, word: str) -> Mapping[str, Schema]:
    found: Mapping[str, Schema] = schema.get(word, {})
    return found


def _found(pointer: str, kind: Change, detail: str) -> Incompatibility:
    return Incompatibility(pointer, kind.value, detail)


def _short(value: object) -> str:
    return "nothing" if value is _ABSENT or value is None else str(value)[:100]


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
