"""The selection and grouping of a query's leads, as SQL. domain/report_query.py defines their meaning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, case, func, literal, select, true
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import Numeric

from accord.contracts.values import AttributeValue
from accord.terms.dimensions import Dimension
from metrics.domain.funnel import GroupKey
from metrics.domain.report_query import SIZE_BANDS, Filter, ReportQuery
from metrics.tables import lead, stage_entry

_JSON_NULL = literal(None, JSONB(none_as_null=False))


def group_columns(query: ReportQuery) -> list[ColumnElement[Any]]:
    """One column for each dimension, named g0, g1, …"""
    return [dimension_value(dimension).label(f"g{number}") for number, dimension in enumerate(query.by)]


def group_names(query: ReportQuery) -> list[str]:
    return [f"g{number}" for number in range(len(query.by))]


def group_key(values: Sequence[Any]) -> GroupKey:
    """The key of a row's group values. A list becomes a tuple, so that it is hashable."""
    return tuple(_hashable(value) for value in values)


def _hashable(value: AttributeValue) -> Any:
    return tuple(value) if isinstance(value, list) else value


def dimension_value(dimension: Dimension) -> ColumnElement[Any]:
    """The lead's value of a dimension, with its own type; NULL when unknown."""
    if dimension.attribute is not None:
        return func.nullif(lead.c.attributes[dimension.attribute], _JSON_NULL, type_=JSONB)
    if dimension.name == "size_band":
        return _size_band()
    return lead.c[dimension.name]


def _size_band() -> ColumnElement[Any]:
    count = lead.c.attributes["employee_count"]
    number = count.astext.cast(Numeric)
    bands = case(*[(number >= minimum, name) for minimum, name in reversed(SIZE_BANDS)])
    # Nested, so that the cast never runs on a value that is no number.
    return case((func.jsonb_typeof(count) == "number", bands))


def _matches(filter_: Filter) -> ColumnElement[bool]:
    dimension = filter_.dimension
    if filter_.value is None:
        return dimension_value(dimension).is_(None)
    if dimension.attribute is not None:
        value: ColumnElement[Any] = lead.c.attributes[dimension.attribute].astext
        return value == filter_.value
    return dimension_value(dimension) == filter_.value


def selection_condition(query: ReportQuery) -> ColumnElement[bool]:
    """Whether a lead counts: captured, not merged, with the filters' values, and in a cohort captured in the period."""
    conditions: list[ColumnElement[bool]] = [lead.c.captured_at.is_not(None), lead.c.merged_into.is_(None)]
    conditions += [_matches(filter_) for filter_ in query.where]
    if query.mode == "cohort":
        if query.since:
            conditions.append(lead.c.captured_at >= query.since)
        if query.until:
            conditions.append(lead.c.captured_at < query.until)
    return and_(*conditions)


def period_condition(query: ReportQuery) -> ColumnElement[bool]:
    """Whether an entry is dated in the period, if the query's mode is period; otherwise every entry."""
    conditions: list[ColumnElement[bool]] = []
    if query.mode == "period":
        if query.since:
            conditions.append(stage_entry.c.entered_at >= query.since)
        if query.until:
            conditions.append(stage_entry.c.entered_at < query.until)
    return and_(true(), *conditions)


def entry_condition(query: ReportQuery) -> ColumnElement[bool]:
    """Whether an entry is the lead's first or last into its stage, as the query selects."""
    return stage_entry.c.is_first if query.entry == "first" else stage_entry.c.is_last


def select_leads(query: ReportQuery) -> Select[Any]:
    """Select the leads with their groups."""
    return select(lead.c.lead_id, *group_columns(query)).where(selection_condition(query))
