"""Groups leads with the same path into tallies, and lists them. domain/funnel.py decides what a path counts for."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any
from uuid import UUID

from msgspec import Struct
from sqlalchemy import (
    Integer,
    Row,
    Select,
    Subquery,
    and_,
    cast,
    func,
    literal,
    literal_column,
    null,
    select,
    tuple_,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, aggregate_order_by
from sqlalchemy.ext.asyncio import AsyncConnection

from metrics.domain.funnel import GroupKey, StagePath, Tally
from metrics.domain.report_query import ReportQuery
from metrics.queries.selection import (
    entry_condition,
    group_columns,
    group_key,
    group_names,
    period_condition,
    selection_condition,
)
from metrics.tables import lead, stage_entry

STAGE_BEFORE_CAPTURE = "stage_before_capture"
"""An entry is dated before the lead's capture."""
STAGE_OUT_OF_ORDER = "stage_out_of_order"
"""Otherwise: an entry is dated before the one that it followed."""


class FunnelCursor(Struct, frozen=True):
    """The last lead of the previous page."""

    captured_at: datetime
    lead_id: UUID


class FunnelLead(Struct, frozen=True):
    """One lead behind a figure. `entered_at` is its counted entry into the stage itself, if it has one."""

    lead_id: UUID
    group: GroupKey
    captured_at: datetime
    entered_at: datetime | None
    stage: str | None
    """The stage in which it stands."""


async def fetch_tallies(conn: AsyncConnection, query: ReportQuery) -> list[Tally]:
    """Fetch the selected leads, as one tally for each group, path and anomalies."""
    groups = group_names(query)
    rows = await conn.execute(_select_tallies(query))
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


def _select_flagged(query: ReportQuery) -> Subquery:
    """Select the leads that count with their anomalies; `counted` are the positions of a period's entries, else NULL."""
    flagged = select(
        *group_columns(query),
        lead.c.lead_id,
        lead.c.captured_at,
        lead.c.path,
        func.coalesce(lead.c.first_entered_at < lead.c.captured_at, False).label("before_capture"),
        lead.c.is_out_of_order,
    ).where(selection_condition(query))
    if query.mode == "cohort":
        return flagged.add_columns(cast(null(), ARRAY(Integer)).label("counted")).subquery("flagged")
    position = stage_entry.c.position
    inside = (
        select(stage_entry.c.lead_id, func.array_agg(aggregate_order_by(position, position)).label("counted"))
        .where(position.is_not(None), period_condition(query))
        .group_by(stage_entry.c.lead_id)
        .subquery("inside")
    )
    return (
        flagged.add_columns(inside.c.counted)
        .join_from(lead, inside, lead.c.lead_id == inside.c.lead_id)
        .subquery("flagged")
    )


def _select_tallies(query: ReportQuery) -> Select[Any]:
    flagged = _select_flagged(query)
    columns = [flagged.c[name] for name in group_names(query)]
    columns += [flagged.c.path, flagged.c.before_capture, flagged.c.is_out_of_order, flagged.c.counted]
    numbers = [literal_column(str(number + 1), Integer) for number in range(len(columns))]
    return select(*columns, func.count().label("leads")).group_by(*numbers)


async def fetch_leads(
    conn: AsyncConnection,
    query: ReportQuery,
    stage: str,
    paths: Collection[StagePath],
    *,
    after: FunnelCursor | None,
    limit: int,
) -> list[FunnelLead]:
    """Fetch the selected leads with one of these paths, the first captured first."""
    flagged = _select_flagged(query)
    keys = [[path.stages, None if path.counted is None else sorted(path.counted)] for path in paths]
    wanted = select(func.jsonb_array_elements(literal(keys, JSONB)))
    statement = (
        select(
            flagged.c.lead_id,
            flagged.c.captured_at,
            flagged.c.path,
            stage_entry.c.entered_at,
            *(flagged.c[name] for name in group_names(query)),
        )
        .outerjoin_from(
            flagged,
            stage_entry,
            and_(
                stage_entry.c.lead_id == flagged.c.lead_id,
                stage_entry.c.stage == stage,
                stage_entry.c.position.is_not(None),
                entry_condition(query),
                period_condition(query),
            ),
        )
        .where(func.jsonb_build_array(flagged.c.path, func.to_jsonb(flagged.c.counted)).in_(wanted))
        .order_by(flagged.c.captured_at, flagged.c.lead_id)
        .limit(limit)
    )
    if after is not None:
        statement = statement.where(
            tuple_(flagged.c.captured_at, flagged.c.lead_id) > (after.captured_at, after.lead_id)
        )
    return [
        FunnelLead(lead_id, group_key(values), captured_at, entered_at, path[-1] if path else None)
        for lead_id, captured_at, path, entered_at, *values in await conn.execute(statement)
    ]


def _tally_from_row(row: Row[Any], groups: int) -> Tally:
    stages, before_capture, is_out_of_order, counted, leads = row[groups:]
    path = StagePath(tuple(stages), None if counted is None else frozenset(counted))
    return Tally(group_key(row[:groups]), path, leads, frozenset(_list_anomalies(before_capture, is_out_of_order)))


def _list_anomalies(before_capture: bool, is_out_of_order: bool) -> list[str]:
    """At most one kind for each lead, so that the counts add up to the leads with an anomaly."""
    if before_capture:
        return [STAGE_BEFORE_CAPTURE]
    return [STAGE_OUT_OF_ORDER] if is_out_of_order else []
