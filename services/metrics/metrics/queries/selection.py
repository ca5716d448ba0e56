"""The selection and grouping of a query's leads, as SQL. domain/report_query.py defines their meaning."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Column, ColumnElement, Select, and_, case, func, literal, literal_column, select, true
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.sql.base import ReadOnlyColumnCollection
from sqlalchemy.types import Numeric

from accord.contracts.values import AttributeValue
from accord.terms.dimensions import Dimension
from metrics.domain.funnel import GroupKey
from metrics.domain.report_query import SIZE_BANDS, Filter, ReportQuery
from metrics.domain.stage_history import MICROSECOND
from metrics.domain.velocity import RESTING_KINDS
from metrics.tables import assignment, lead, stage_entry

_JSON_NULL = literal(None, JSONB(none_as_null=False))
_INFINITY: ColumnElement[datetime] = literal_column("'infinity'::timestamptz")

Columns = ReadOnlyColumnCollection[str, Column[Any]]


def group_columns(query: ReportQuery) -> list[ColumnElement[Any]]:
    """One column for each dimension, named g0, g1, …"""
    return [dimension_value(dimension, query).label(f"g{number}") for number, dimension in enumerate(query.by)]


def group_names(query: ReportQuery) -> list[str]:
    return [f"g{number}" for number in range(len(query.by))]


def group_key(values: Sequence[Any]) -> GroupKey:
    """The key of a row's group values. A list becomes a tuple, so that it is hashable."""
    return tuple(_hashable(value) for value in values)


def _hashable(value: AttributeValue) -> Any:
    return tuple(value) if isinstance(value, list) else value


def dimension_value(dimension: Dimension, query: ReportQuery) -> ColumnElement[Any]:
    """The lead's value of a dimension, with its own type; NULL when unknown."""
    if dimension.attribute is not None:
        return func.nullif(lead.c.attributes[dimension.attribute], _JSON_NULL, type_=JSONB)
    if dimension.name == "size_band":
        return _size_band()
    if dimension.name == "owner":
        return _owner_at_last_entry(query)
    return lead.c[dimension.name]


def _owner_at_last_entry(query: ReportQuery) -> ColumnElement[Any]:
    """Who held the lead at its last counted entry, as OWNER_DESCRIPTION says."""
    entry = stage_entry.alias("held")
    until = query.until if query.mode == "period" else None
    left_at = entry.c.exited_at if until is None else func.least(entry.c.exited_at, until - MICROSECOND)
    moment = (
        select(case((entry.c.stage_kind.in_(sorted(RESTING_KINDS)), entry.c.entered_at), else_=left_at))
        .where(entry.c.lead_id == lead.c.lead_id, entry.c.position.is_not(None), period_condition(query, entry.c))
        .order_by(entry.c.position.desc())
        .limit(1)
        .correlate(lead)
        .scalar_subquery()
    )
    return (
        select(assignment.c.owner)
        .where(
            assignment.c.lead_id == lead.c.lead_id,
            assignment.c.assigned_at <= func.coalesce(moment, _INFINITY),
        )
        .order_by(assignment.c.assigned_at.desc(), assignment.c.sequence.desc())
        .limit(1)
        .correlate(lead)
        .scalar_subquery()
    )


def _size_band() -> ColumnElement[Any]:
    count = lead.c.attributes["employee_count"]
    number = count.astext.cast(Numeric)
    bands = case(*[(number >= minimum, name) for minimum, name in reversed(SIZE_BANDS)])
    # Nested, so that the cast never runs on a value that is no number.
    return case((func.jsonb_typeof(count) == "number", bands))


def _matches(filter_: Filter, query: ReportQuery) -> ColumnElement[bool]:
    dimension = filter_.dimension
    if filter_.value is None:
        return dimension_value(dimension, query).is_(None)
    if dimension.attribute is not None:
        value: ColumnElement[Any] = lead.c.attributes[dimension.attribute].astext
        return value == filter_.value
    return dimension_value(dimension, query) == filter_.value


def selection_condition(query: ReportQuery) -> ColumnElement[bool]:
    """Whether a lead counts: captured, not merged, with the filters' values, and in a cohort captured in the period."""
    conditions: list[ColumnElement[bool]] = [lead.c.captured_at.is_not(None), lead.c.merged_into.is_(None)]
    conditions += [_matches(filter_, query) for filter_ in query.where]
    if query.mode == "cohort":
        if query.since:
            conditions.append(lead.c.captured_at >= query.since)
        if query.until:
            conditions.append(lead.c.captured_at < query.until)
    return and_(*conditions)


def period_condition(query: ReportQuery, entry: Columns = stage_entry.c) -> ColumnElement[bool]:
    """Whether an entry is dated in the period, if the query's mode is period; otherwise every entry."""
    conditions: list[ColumnElement[bool]] = []
    if query.mode == "period":
        if query.since:
            conditions.append(entry.entered_at >= query.since)
        if query.until:
            conditions.append(entry.entered_at < query.until)
    return and_(true(), *conditions)


def entry_condition(query: ReportQuery) -> ColumnElement[bool]:
    """Whether an entry is the lead's first or last into its stage, as the query selects."""
    return stage_entry.c.is_first if query.entry == "first" else stage_entry.c.is_last


def select_leads(query: ReportQuery) -> Select[Any]:
    """Select the leads with their groups."""
    return select(lead.c.lead_id, *group_columns(query)).where(selection_condition(query))
