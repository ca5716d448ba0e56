"""What a question chooses: which leads, which entries, which groups. Each choice can say in words what it means."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Mode = Literal["cohort", "period"]
Order = Literal["any", "strict"]
Visit = Literal["first", "last"]

Named = Literal["source", "campaign", "country", "industry", "owner", "size_band"]
NAMED: tuple[Named, ...] = ("source", "campaign", "country", "industry", "owner", "size_band")
ATTRIBUTE_PREFIX = "attribute:"
DIMENSIONS_MAX = 4
_ATTRIBUTE = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,99}")

SIZE_BANDS: tuple[tuple[int, str], ...] = ((1, "1-9"), (10, "10-49"), (50, "50-249"), (250, "250-999"), (1000, "1000+"))
"""Least employee count of each band; the bounds at 10, 50 and 250 are those of the EU's definition of small and
medium enterprises."""


class UnknownDimension(ValueError):
    """A group that does not exist. The message says which do."""


@dataclass(frozen=True, slots=True)
class Dimension:
    """One way to split leads: a named one, or a public attribute. `name` is as the caller wrote it."""

    name: str

    @property
    def attribute(self) -> str | None:
        """The attribute this dimension reads directly, or None for `source`, `campaign`, `owner` and `size_band`."""
        if self.name.startswith(ATTRIBUTE_PREFIX):
            return self.name.removeprefix(ATTRIBUTE_PREFIX)
        return self.name if self.name in ("country", "industry") else None


def dimension(name: str) -> Dimension:
    """The dimension of that name. Raises UnknownDimension."""
    if name in NAMED or (
        name.startswith(ATTRIBUTE_PREFIX) and _ATTRIBUTE.fullmatch(name.removeprefix(ATTRIBUTE_PREFIX))
    ):
        return Dimension(name)
    raise UnknownDimension(f"must be one of {', '.join(NAMED)} or {ATTRIBUTE_PREFIX}NAME")


def dimensions(text: str | None) -> tuple[Dimension, ...]:
    """The dimensions of a comma list. Raises UnknownDimension, also when one is named twice or there are too many."""
    if not text:
        return ()
    found = tuple(dimension(name.strip()) for name in text.split(","))
    if len(set(found)) < len(found):
        raise UnknownDimension("names a group twice")
    if len(found) > DIMENSIONS_MAX:
        raise UnknownDimension(f"names more than {DIMENSIONS_MAX} groups")
    return found


def size_band(employee_count: object) -> str | None:
    """The size band of an employee count; None when it is unknown or no positive number."""
    if isinstance(employee_count, bool) or not isinstance(employee_count, int | float):
        return None
    band = None
    for least, name in SIZE_BANDS:
        if employee_count >= least:
            band = name
    return band


@dataclass(frozen=True, slots=True)
class Filter:
    """Only leads whose value of a dimension, as text, is this one; None selects those whose value is unknown."""

    dimension: Dimension
    value: str | None


def filter_of(text: str) -> Filter:
    """The filter `DIMENSION=VALUE`; nothing after the sign selects the leads whose value is unknown. Raises
    UnknownDimension."""
    name, sign, value = text.partition("=")
    if not sign:
        raise UnknownDimension("must be DIMENSION=VALUE")
    return Filter(dimension(name.strip()), value or None)


@dataclass(frozen=True, slots=True)
class Choices:
    """One question. `since` is included and `until` is not; None leaves that side open."""

    mode: Mode = "cohort"
    order: Order = "any"
    entry: Visit = "first"
    since: datetime | None = None
    until: datetime | None = None
    by: tuple[Dimension, ...] = ()
    where: tuple[Filter, ...] = ()

    def __post_init__(self) -> None:
        if self.since and self.until and self.since >= self.until:
            raise ValueError("from must be before to")
