"""Makes of what an adapter has read the documents of a submission or an activity, by the adapter's own table of fields and the source's
mapping and defaults. Pure; the form of the documents is checked elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import islice

from msgspec import Struct
from pydantic import JsonValue

from accord.terms import findings
from intake.leads.domain.submission import ATTRIBUTES_MAX
from intake.sources.domain.adapters.base import ActivityOccurred, AnyAdapter
from intake.sources.domain.mapping import Const, FieldMapping, Rule, apply_mapping, nest_values, normalize_time, resolve

ATTRIBUTE_CHARS_MAX = 1_000
LIST_MAX = 50
ITEM_CHARS_MAX = 500
_NOT_OF_NAMES = re.compile(r"[^A-Za-z0-9_-]+")
_NAME_CHARS_MAX = 64
_NAMES_MAX = 10_000
"""Fields of one place that are looked at."""


class PayloadMapper(Struct, frozen=True, gc=False):
    """An adapter and a source made ready; built once per version of the source."""

    mapping: FieldMapping
    defaults: Mapping[str, JsonValue]
    attribute_sources: tuple[str, ...]
    mapped_pointers: frozenset[str]
    """Pointers that a rule has taken; their values are no attributes too."""

    @classmethod
    def build(cls, adapter: AnyAdapter, mapping: FieldMapping, defaults: Mapping[str, JsonValue]) -> PayloadMapper:
        """The source's own rules stand before the adapter's."""
        fields: dict[str, Rule] = {**adapter.fields, **mapping.fields}
        mapped_pointers = {pointer for rule in fields.values() for pointer in _pointers(rule)}
        return cls(FieldMapping(fields), dict(defaults), adapter.attribute_sources, frozenset(mapped_pointers))

    def map_submission(self, view: JsonValue) -> dict[str, JsonValue]:
        """The submission, without its source, that stands in a view."""
        document = apply_mapping(self.mapping, view, self.defaults)
        if self.attribute_sources:
            known = document.get("attributes")
            attributes: dict[str, JsonValue] = dict(known) if isinstance(known, dict) else {}
            for path in self.attribute_sources:
                self._add_attributes(view, path, attributes)
            if attributes:
                document["attributes"] = attributes
        return document

    def _add_attributes(self, view: JsonValue, path: str, attributes: dict[str, JsonValue]) -> None:
        found = resolve(view, path)
        for name, value in islice(found.items(), _NAMES_MAX) if isinstance(found, dict) else ():
            if len(attributes) >= ATTRIBUTES_MAX:
                return
            pointer = path + findings.pointer(name)
            if pointer not in self.mapped_pointers and _is_attribute(value) and (key := attribute_name(name)):
                attributes.setdefault(key, value)


def build_activities(
    source: str, said: ActivityOccurred, defaults: Mapping[str, JsonValue]
) -> list[dict[str, JsonValue]]:
    """The activity, with the person named by e-mail and by the source's id of them: one document for each way, to be tried in turn."""
    words = {name: value for name, value in defaults.items() if name.startswith("campaign.")}
    words |= {f"campaign.{name}": value for name, value in said.campaign.items() if value not in (None, "")}
    campaign = nest_values(words).get("campaign")
    document: dict[str, JsonValue] = {"kind": said.kind, "by": said.by, "properties": dict(said.properties)}
    if said.actor_kind is not None:
        document["actor_kind"] = said.actor_kind
    if said.occurred_at is not None:
        document["occurred_at"] = normalize_time(said.occurred_at)
    if campaign:
        document["campaign"] = campaign
    alternatives: list[dict[str, JsonValue]] = []
    if said.email is not None:
        alternatives.append({"email": said.email})
    if said.external_id is not None:
        alternatives.append({"external": {"source": source, "id": said.external_id}})
    return [{**who, **document} for who in alternatives]


def attribute_name(name: str) -> str | None:
    """The name as one of an attribute: other characters become `_`, and it begins with a letter. None if nothing is left of it."""
    found = _NOT_OF_NAMES.sub("_", name).strip("_-").lstrip("0123456789_-")[:_NAME_CHARS_MAX]
    return found or None


def _is_attribute(value: JsonValue) -> bool:
    if isinstance(value, str):
        return 0 < len(value) <= ATTRIBUTE_CHARS_MAX
    if isinstance(value, list):
        return 0 < len(value) <= LIST_MAX and all(isinstance(one, str) and len(one) <= ITEM_CHARS_MAX for one in value)
    if isinstance(value, bool):
        return True
    return isinstance(value, int | float) and abs(value) <= 2**53


def _pointers(rule: Rule) -> tuple[str, ...]:
    if isinstance(rule, Const):
        return ()
    return (rule,) if isinstance(rule, str) else rule
