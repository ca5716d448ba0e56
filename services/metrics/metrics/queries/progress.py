"""Counts entries into stages in a period, and how many of them went on."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import Select, and_, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from metrics.domain.report_query import ReportQuery
from metrics.queries.selection import entry_condition, period_condition, selection_condition
from metrics.tables import lead, stage_entry


def _select_entries(stage: str, since: datetime, until: datetime) -> Select[tuple[object]]:
    """Select the leads whose first entry into a stage is dated in the period."""
    query = ReportQuery(mode="period", entry="first", since=since, until=until)
    return (
        select(stage_entry.c.lead_id)
        .join_from(stage_entry, lead, lead.c.lead_id == stage_entry.c.lead_id)
        .where(
            stage_entry.c.stage == stage,
            stage_entry.c.position.is_not(None),
            entry_condition(query),
            period_condition(query),
            selection_condition(query),
        )
    )


async def count_entries(conn: AsyncConnection, stage: str, since: datetime, until: datetime) -> int:
    """Count leads whose first entry into a stage is dated in the period."""
    entered = _select_entries(stage, since, until).subquery()
    return int((await conn.execute(select(func.count()).select_from(entered))).scalar_one())


async def count_conversions(
    conn: AsyncConnection, start: str, ends: Collection[str], since: datetime, until: datetime
) -> tuple[int, int]:
    """Count leads whose first entry into a stage is dated in the period, and those that entered one of others after it."""
    entered = _select_entries(start, since, until).add_columns(stage_entry.c.position).subquery("entered")
    later = stage_entry.alias("later")
    converted = (
        select(func.count(later.c.lead_id.distinct()))
        .join_from(entered, later, and_(later.c.lead_id == entered.c.lead_id, later.c.position > entered.c.position))
        .where(later.c.stage.in_(ends))
    )
    total = (await conn.execute(select(func.count()).select_from(entered))).scalar_one()
    return int(total), int((await conn.execute(converted)).scalar_one())
