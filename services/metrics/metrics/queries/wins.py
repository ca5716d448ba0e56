"""Fetches wins and their amounts: leads whose last entry into a stage is dated in the query's period.

A lead that has left a won stage again is no win. Amounts of different currencies are never added.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from msgspec import Struct
from sqlalchemy import Select, case, func, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from metrics.domain.report_query import ReportQuery
from metrics.queries.selection import entry_condition, period_condition, selection_condition
from metrics.tables import lead, opportunity, stage_entry


class Revenue(Struct, frozen=True, gc=False):
    """The amounts of one currency; without one, leads of which no amount is known."""

    currency: str | None
    leads: int
    amount: Decimal | None


class WinCursor(Struct, frozen=True):
    """The last win of the previous page."""

    won_at: datetime
    lead_id: UUID


class Win(Struct, frozen=True):
    """One win."""

    lead_id: UUID
    source: str | None
    won_at: datetime
    amount: Decimal | None
    currency: str | None
    expected_close: date | None


def select_period(since: datetime, until: datetime) -> ReportQuery:
    """The query of what was entered last in a period."""
    return ReportQuery(mode="period", entry="last", since=since, until=until)


def _select_wins(query: ReportQuery, stage: str, *columns: Any) -> Select[Any]:
    return (
        select(*columns)
        .select_from(stage_entry)
        .join(lead, lead.c.lead_id == stage_entry.c.lead_id)
        .outerjoin(opportunity, opportunity.c.lead_id == stage_entry.c.lead_id)
        .where(
            stage_entry.c.stage == stage,
            stage_entry.c.position.is_not(None),
            or_(stage_entry.c.exited_at.is_(None), stage_entry.c.stage_kind != "won"),
            entry_condition(query),
            period_condition(query),
            selection_condition(query),
        )
    )


async def sum_revenue(conn: AsyncConnection, query: ReportQuery, stage: str) -> list[Revenue]:
    """Sum the wins' amounts by currency."""
    deal = opportunity.c
    statement = _select_wins(query, stage, deal.currency, func.count(), func.sum(deal.amount))
    rows = await conn.execute(statement.group_by(deal.currency).order_by(deal.currency))
    return [Revenue(currency, count, amount) for currency, count, amount in rows]


async def sum_revenue_by_source(
    conn: AsyncConnection, query: ReportQuery, stage: str, currency: str
) -> Mapping[str | None, tuple[int, Decimal]]:
    """Count all wins by source, and sum the amounts in one currency."""
    amount = case((opportunity.c.currency == currency, opportunity.c.amount), else_=0)
    statement = _select_wins(query, stage, lead.c.source, func.count(), func.sum(amount)).group_by(lead.c.source)
    return {source: (wins, revenue) for source, wins, revenue in await conn.execute(statement)}


async def fetch_wins(
    conn: AsyncConnection, query: ReportQuery, stage: str, *, after: WinCursor | None, limit: int
) -> Sequence[Win]:
    """Fetch the wins, the first ones first."""
    deal, won_at = opportunity.c, stage_entry.c.entered_at
    columns = (lead.c.lead_id, lead.c.source, won_at, deal.amount, deal.currency, deal.expected_close)
    statement = _select_wins(query, stage, *columns)
    if after is not None:
        statement = statement.where(tuple_(won_at, lead.c.lead_id) > (after.won_at, after.lead_id))
    statement = statement.order_by(won_at, lead.c.lead_id).limit(limit)
    return [Win(*row) for row in await conn.execute(statement)]
