"""Groups leads with the same path into tallies. domain/funnel.py decides what a path counts for."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Integer, Row, Select, func, literal_column, null, select
from sqlalchemy.ext.asyncio import AsyncConnection

from metrics.domain.funnel import StagePath, Tally
from metrics.domain.report_query import ReportQuery
from metrics.queries.selection import group_columns, group_key, group_names, period_condition, selection_condition
from metrics.tables import lead, stage_entry

STAGE_BEFORE_CAPTURE = "stage_before_capture"
"""An entry is dated before the lead's capture."""
STAGE_OUT_OF_ORDER = "stage_out_of_order"
"""Otherwise: an entry is dated before the one that it followed."""


async def fetch_tallies(conn: AsyncConnection, query: ReportQuery) -> list[Tally]:
    """Fetch the selected leads, as one tally for each group, path and anomalies."""
    groups = group_names(query)
    rows = await conn.execute(_select_cohort(query) if query.mode == "cohort" else _select_period(query))
    return [_tally_from_row(row, len(groups)) for row in rows]


async def fetch_anomalies(
    conn: AsyncConnection, query: ReportQuery
) -> tuple[dict[tuple[Any, ...], int], dict[str, int]]:
    """Fetch the number of selected leads by group, and of leads with an anomaly by kind."""
    leads: dict[tuple[Any, ...], int] = {}
    anomalies: dict[str, int] = {}
    flagged = _select_flagged(query)
    statement = select(
        *(flagged.c[name] for name in group_names(query)),
        flagged.c.before_capture,
        flagged.c.is_out_of_order,
        func.count(),
    ).group_by(*(literal_column(str(number + 1), Integer) for number in range(len(query.by) + 2)))
    for *values, before_capture, is_out_of_order, count in await conn.execute(statement):
        key = group_key(values)
        leads[key] = leads.get(key, 0) + count
        for kind in _list_anomalies(before_capture, is_out_of_order):
            anomalies[kind] = anomalies.get(kind, 0) + count
    return leads, dict(sorted(anomalies.items()))


async def count_uncaptured(conn: AsyncConnection) -> int:
    """Count leads of other services' events that intake's topic has not reached yet: they are in no group."""
    statement = (
        select(func.count()).select_from(lead).where(lead.c.captured_at.is_(None), lead.c.first_entered_at.is_not(None))
    )
    return int((await conn.execute(statement)).scalar_one())


def _select_flagged(query: ReportQuery) -> Any:
    return (
        select(
            *group_columns(query),
            lead.c.lead_id,
            lead.c.path,
            func.coalesce(lead.c.first_entered_at < lead.c.captured_at, False).label("before_capture"),
            lead.c.is_out_of_order,
        )
        .where(selection_condition(query))
        .subquery("flagged")
    )


def _select_tallies(flagged: Any, query: ReportQuery, counted: Any) -> Select[Any]:
    columns = [flagged.c[name] for name in group_names(query)]
    columns += [flagged.c.path, flagged.c.before_capture, flagged.c.is_out_of_order, counted]
    numbers = [literal_column(str(number + 1), Integer) for number in range(len(columns))]
    return select(*columns, func.count().label("leads")).group_by(*numbers)


def _select_cohort(query: ReportQuery) -> Select[Any]:
    return _select_tallies(_select_flagged(query), query, null().label("counted"))


def _select_period(query: ReportQuery) -> Select[Any]:
    inside = (
        select(stage_entry.c.lead_id, func.array_agg(stage_entry.c.position).label("counted"))
        .where(stage_entry.c.position.is_not(None), period_condition(query))
        .group_by(stage_entry.c.lead_id)
        .subquery("inside")
    )
    flagged = _select_flagged(query)
    return _select_tallies(flagged, query, inside.c.counted).join_from(
        flagged, inside, flagged.c.lead_id == inside.c.lead_id
    )


def _tally_from_row(row: Row[Any], groups: int) -> Tally:
    stages, before_capture, is_out_of_order, counted, leads = row[groups:]
    path = StagePath(tuple(stages), None if counted is None else frozenset(counted))
    return Tally(group_key(row[:groups]), path, leads, frozenset(_list_anomalies(before_capture, is_out_of_order)))


def _list_anomalies(before_capture: bool, is_out_of_order: bool) -> list[str]:
    """At most one kind for each lead, so that the counts add up to the leads with an anomaly."""
    if before_capture:
        return [STAGE_BEFORE_CAPTURE]
    return [STAGE_OUT_OF_ORDER] if is_out_of_order else []
