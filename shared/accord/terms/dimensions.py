"""The dimensions by which reports group leads: `source`, `campaign`, … or `attribute:NAME`. It names and reads no lead."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from msgspec import Struct

ATTRIBUTE_PREFIX = "attribute:"
DIMENSIONS_MAX = 4

_ATTRIBUTE = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,99}", re.ASCII)
_ATTRIBUTE_DIMENSIONS = frozenset({"country", "industry"})
"""Named dimensions that are attributes of the same name."""


class UnknownDimension(ValueError):
    """No such dimension, one twice, or too many. The message says which there are."""


class Dimension(Struct, frozen=True, gc=False):
    """One way to group leads. `name` is as the caller wrote it."""

    name: str

    @property
    def attribute(self) -> str | None:
        """The public attribute that it reads directly; None for one that is no attribute, such as `source`."""
        if self.name.startswith(ATTRIBUTE_PREFIX):
            return self.name.removeprefix(ATTRIBUTE_PREFIX)
        return self.name if self.name in _ATTRIBUTE_DIMENSIONS else None


def parse_dimension(name: str, named: Sequence[str]) -> Dimension:
    """The dimension of that name: one of `named`, or an attribute. Raises UnknownDimension."""
    if name in named or (
        name.startswith(ATTRIBUTE_PREFIX) and _ATTRIBUTE.fullmatch(name.removeprefix(ATTRIBUTE_PREFIX))
    ):
        return Dimension(name)
    raise UnknownDimension(f"must be one of {', '.join(named)} or {ATTRIBUTE_PREFIX}NAME")


def parse_dimensions(names: Iterable[str], named: Sequence[str]) -> tuple[Dimension, ...]:
    """The dimensions of these names, in order. Raises UnknownDimension."""
    found = tuple(parse_dimension(name, named) for name in names)
    if len(set(found)) < len(found):
        raise UnknownDimension("names a group twice")
    if len(found) > DIMENSIONS_MAX:
        raise UnknownDimension(f"names more than {DIMENSIONS_MAX} groups")
    return found


def split_names(text: str | None) -> list[str]:
    """The names of a comma list; none of nothing."""
    return [name.strip() for name in text.split(",")] if text else []
