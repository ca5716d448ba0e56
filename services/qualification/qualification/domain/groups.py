"""By what reports tell leads apart: a few public values of theirs, each as short text. It counts nothing."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from accord.contracts.intake_events import LeadState

NAMED = ("source", "campaign", "country", "industry")
ATTRIBUTE_PREFIX = "attribute:"
DIMENSIONS_MAX = 4

GROUPS_MAX = 100
"""A report tells so many groups apart; all others are one, in which no value is said."""

VALUE_CHARS_MAX = 200

_ATTRIBUTE = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,99}", re.ASCII)

Group = tuple[str | None, ...]
"""One value for each dimension; None where the lead has none."""


class UnknownDimension(ValueError):
    """No such dimension, or too many. The message says which there are."""


@dataclass(frozen=True, slots=True)
class Dimension:
    """One way to tell leads apart. `name` is as the caller wrote it."""

    name: str

    @property
    def attribute(self) -> str | None:
        """The public attribute that it reads; None for `source` and `campaign`."""
        if self.name.startswith(ATTRIBUTE_PREFIX):
            return self.name.removeprefix(ATTRIBUTE_PREFIX)
        return self.name if self.name in ("country", "industry") else None

    def value(self, profile: LeadState) -> str | None:
        """Its value of a lead, as text."""
        if self.attribute is None:
            found: object = profile.source if self.name == "source" else profile.campaign and profile.campaign.name
        else:
            found = profile.attributes.get(self.attribute)
        if found is None:
            return None
        return (found if isinstance(found, str) else json.dumps(found))[:VALUE_CHARS_MAX]


def dimensions(names: list[str]) -> tuple[Dimension, ...]:
    """The dimensions of these names. Raises UnknownDimension."""
    for name in names:
        known = name in NAMED
        if not known and name.startswith(ATTRIBUTE_PREFIX):
            known = _ATTRIBUTE.fullmatch(name.removeprefix(ATTRIBUTE_PREFIX)) is not None
        if not known:
            raise UnknownDimension(f"must be one of {', '.join(NAMED)} or {ATTRIBUTE_PREFIX}NAME")
    if len(set(names)) < len(names):
        raise UnknownDimension("names a group twice")
    if len(names) > DIMENSIONS_MAX:
        raise UnknownDimension(f"names more than {DIMENSIONS_MAX} groups")
    return tuple(Dimension(name) for name in names)


def group_of(by: tuple[Dimension, ...], profile: LeadState) -> Group:
    """The group that a lead belongs to."""
    return tuple(dimension.value(profile) for dimension in by)
