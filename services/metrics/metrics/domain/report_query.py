"""The query of a report: which leads, which entries and which groups it selects."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from msgspec import Struct

from accord.terms.dimensions import Dimension, UnknownDimension, parse_dimension, split_names
from accord.terms.dimensions import parse_dimensions as named_dimensions

Mode = Literal["cohort", "period"]
Order = Literal["any", "strict"]
Visit = Literal["first", "last"]

DimensionName = Literal["source", "campaign", "country", "industry", "owner", "size_band"]
DIMENSION_NAMES: tuple[DimensionName, ...] = ("source", "campaign", "country", "industry", "owner", "size_band")

SIZE_BANDS: tuple[tuple[int, str], ...] = ((1, "1-9"), (10, "10-49"), (50, "50-249"), (250, "250-999"), (1000, "1000+"))
"""The minimum employee count of each band; the bounds at 10, 50 and 250 are those of the EU's definition of small and
medium enterprises."""


def parse_dimensions(text: str | None) -> tuple[Dimension, ...]:
    """Parse the dimensions of a comma list. Raises UnknownDimension."""
    return named_dimensions(split_names(text), DIMENSION_NAMES)


def classify_size(employee_count: object) -> str | None:
    """Classify an employee count by size band; None when it is unknown or no positive number."""
    if isinstance(employee_count, bool) or not isinstance(employee_count, int | float):
        return None
    band = None
    for minimum, name in SIZE_BANDS:
        if employee_count >= minimum:
            band = name
    return band


class Filter(Struct, frozen=True, gc=False):
    """Only leads whose value of a dimension, as text, is this one; None selects those whose value is unknown."""

    dimension: Dimension
    value: str | None


def parse_filter(text: str) -> Filter:
    """Parse the filter `DIMENSION=VALUE`. An empty value selects the leads whose value is unknown. Raises UnknownDimension."""
    name, sign, value = text.partition("=")
    if not sign:
        raise UnknownDimension("must be DIMENSION=VALUE")
    return Filter(parse_dimension(name.strip(), DIMENSION_NAMES), value or None)


class ReportQuery(Struct, frozen=True, gc=False):
    """The query of one report. `since` is included and `until` is not; None leaves that side open."""

    mode: Mode = "cohort"
    order: Order = "any"
    entry: Visit = "first"
    since: datetime | None = None
    until: datetime | None = None
    by: tuple[Dimension, ...] = ()
    where: tuple[Filter, ...] = ()
    timezone: str = "UTC"
    """The zone in which the days of the query begin."""

    def __post_init__(self) -> None:
        if self.since and self.until and self.since >= self.until:
            raise ValueError("from must be before to")

    @property
    def dimensions(self) -> frozenset[Dimension]:
        """The dimensions by which it groups or filters."""
        return frozenset(self.by) | {filter_.dimension for filter_ in self.where}


OWNER_DESCRIPTION = (
    "Owner: who held the lead at its last counted entry. Of a won, lost or disqualified lead that is the owner at that "
    "entry, of any other the owner until it left the stage, in a period at most until the period's end. Who gets the lead "
    "later does not change it."
)
PRESENT_VALUES_DESCRIPTION = (
    "Groups and filters other than owner use what is known of the lead by now: a corrected value moves its past too."
)


def describe_dimensions(query: ReportQuery) -> list[str]:
    """Describe as of when the groups and filters of the query are, in plain sentences."""
    owner = Dimension("owner")
    words = [OWNER_DESCRIPTION] if owner in query.dimensions else []
    return words + ([PRESENT_VALUES_DESCRIPTION] if query.dimensions - {owner} else [])
