"""Which events a subscription is about: patterns of types, and criteria over an event's public fields."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from datetime import timedelta

from accord.terms.criteria import MISSING, Criteria
from accord.terms.findings import Finding, pointer

FILTER_PATHS = "attributes.NAME, source, stage, grade, campaign.name"
_FIXED = frozenset({"source", "stage", "grade", "campaign.name"})


def matches_type(pattern: str, event_type: str) -> bool:
    """Whether a type is the pattern, or begins with what stands before its `*`."""
    return event_type.startswith(pattern[:-1]) if pattern.endswith("*") else event_type == pattern


def find_pattern_errors(patterns: Collection[str], event_types: Collection[str]) -> Iterator[Finding]:
    """Patterns that are none, or that none of the service's types fits."""
    for place, pattern in enumerate(patterns):
        if "*" in pattern and pattern != "*" and not (pattern.endswith(".*") and pattern.count("*") == 1):
            yield Finding(pointer("event_types", place), "must be a type, * or a prefix such as sla.*")
        elif not any(matches_type(pattern, event_type) for event_type in event_types):
            yield Finding(pointer("event_types", place), "is no type of this service's events")


def find_filter_errors(criteria: Criteria) -> Iterator[Finding]:
    """Comparisons with what no event says."""
    yield from _find_errors(criteria, ("filter",))


def _find_errors(criteria: Criteria, place: tuple[str | int, ...]) -> Iterator[Finding]:
    if criteria.path and criteria.path not in _FIXED and not criteria.path.startswith("attributes."):
        yield Finding(pointer(*place, "path"), f"is not known of an event; the paths are {FILTER_PATHS}")
    for group in ("all", "any", "none"):
        for number, child in enumerate(getattr(criteria, group)):
            yield from _find_errors(child, (*place, group, number))


class EventFacts:
    """An event as criteria see it: `attributes` are its own fields, and below them the lead's public attributes where it has them."""

    def __init__(self, data: Mapping[str, object]) -> None:
        state = data.get("state")
        self._state = state if isinstance(state, Mapping) else {}
        attributes = self._state.get("attributes")
        self._fields = {**self._state, **data}
        self.attributes: Mapping[str, object] = {
            **(attributes if isinstance(attributes, Mapping) else {}),
            **self._fields,
        }

    def value(self, path: str, within: timedelta | None) -> object:
        """The value at a path; MISSING where the event says nothing of it."""
        root, _, name = path.partition(".")
        if root == "attributes":
            return self.attributes.get(name, MISSING)
        if path == "campaign.name":
            campaign = self._fields.get("campaign")
            return campaign.get("name", MISSING) if isinstance(campaign, Mapping) else MISSING
        return self._fields.get(path, MISSING) if path in _FIXED else MISSING
