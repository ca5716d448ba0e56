"""Which leads a question is about and how they are grouped, as SQL. What the words mean is in domain/choices.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, case, func, literal, select, true
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import Numeric

from accord.contracts.values import AttributeValue
from accord.terms.dimensions import Dimension
from metrics.domain.choices import SIZE_BANDS, Choices, Filter
from metrics.domain.funnel import GroupKey
from metrics.tables import lead, stage_entry

_JSON_NULL = literal(None, JSONB(none_as_null=False))


def group_columns(choices: Choices) -> list[ColumnElement[Any]]:
    """One column a dimension, named g0, g1, …"""
    return [value_of(dimension).label(f"g{place}") for place, dimension in enumerate(choices.by)]


def group_names(choices: Choices) -> list[str]:
    return [f"g{place}" for place in range(len(choices.by))]


def group_key(values: Sequence[Any]) -> GroupKey:
    """The key of a row's group values. A list is held as a tuple, so that it can be one."""
    return tuple(_hashable(value) for value in values)


def _hashable(value: AttributeValue) -> Any:
    return tuple(value) if isinstance(value, list) else value


def value_of(dimension: Dimension) -> ColumnElement[Any]:
    """The lead's value of a dimension, with its own type; NULL when unknown."""
    if dimension.attribute is not None:
        return func.nullif(lead.c.attributes[dimension.attribute], _JSON_NULL, type_=JSONB)
    if dimension.name == "size_band":
        return _size_band()
    return lead.c[dimension.name]


def _size_band() -> ColumnElement[Any]:
    count = lead.c.attributes["employee_count"]
    number = count.astext.cast(Numeric)
    bands = case(*[(number >= least, name) for least, name in reversed(SIZE_BANDS)])
    # Nested, so that the cast is never tried on what is no number.
    return case((func.jsonb_typeof(count) == "number", bands))


def _matches(filter_: Filter) -> ColumnElement[bool]:
    dimension = filter_.dimension
    if filter_.value is None:
        return value_of(dimension).is_(None)
    if dimension.attribute is not None:
        value: ColumnElement[Any] = lead.c.attributes[dimension.attribute].astext
        return value == filter_.value
    return value_of(dimension) == filter_.value


def selected(choices: Choices) -> ColumnElement[bool]:
    """Leads that count: captured, not merged into another, of the filters' values, and in a cohort captured in the
    period."""
    conditions: list[ColumnElement[bool]] = [lead.c.captured_at.is_not(None), lead.c.merged_into.is_(None)]
    conditions += [_matches(filter_) for filter_ in choices.where]
    if choices.mode == "cohort":
        if choices.since:
            conditions.append(lead.c.captured_at >= choices.since)
        if choices.until:
            conditions.append(lead.c.captured_at < choices.until)
    return and_(*conditions)


def entered_in_period(choices: Choices) -> ColumnElement[bool]:
    """Entries dated in the period, where the question is about a period; else all."""
    conditions: list[ColumnElement[bool]] = []
    if choices.mode == "period":
        if choices.since:
            conditions.append(stage_entry.c.entered_at >= choices.since)
        if choices.until:
            conditions.append(stage_entry.c.entered_at < choices.until)
    return and_(true(), *conditions)


def chosen_entry(choices: Choices) -> ColumnElement[bool]:
    """The lead's first or last entry into each stage."""
    return stage_entry.c.is_first if choices.entry == "first" else stage_entry.c.is_last


def leads(choices: Choices) -> Select[Any]:
    """The selected leads with their groups."""
    return select(lead.c.lead_id, *group_columns(choices)).where(selected(choices))
