"""By what reports tell leads apart: a few public values of theirs, each as short text. It counts nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable

from accord.contracts.intake_events import LeadState
from accord.terms.dimensions import Dimension
from accord.terms.dimensions import parse_dimensions as named_dimensions

NAMED = ("source", "campaign", "country", "industry")

GROUPS_MAX = 100
"""A report tells so many groups apart; all others are one, in which no value is said."""

VALUE_CHARS_MAX = 200

Group = tuple[str | None, ...]
"""One value for each dimension; None where the lead has none."""


def parse_dimensions(names: Iterable[str]) -> tuple[Dimension, ...]:
    """The dimensions of these names. Raises UnknownDimension."""
    return named_dimensions(names, NAMED)


def group_of(by: tuple[Dimension, ...], profile: LeadState) -> Group:
    """The group that a lead belongs to."""
    return tuple(_value(dimension, profile) for dimension in by)


def _value(dimension: Dimension, profile: LeadState) -> str | None:
    if dimension.attribute is not None:
        found: object = profile.attributes.get(dimension.attribute)
    else:
        found = profile.source if dimension.name == "source" else profile.campaign and profile.campaign.name
    if found is None:
        return None
    return (found if isinstance(found, str) else json.dumps(found))[:VALUE_CHARS_MAX]
