"""Fetches what was reached of a plan's goals in a period: entries, conversions and revenue."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from decimal import Decimal

from msgspec import Struct
from sqlalchemy import Select, and_, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from metrics.domain.report_query import ReportQuery, Visit
from metrics.queries.selection import entry_condition, period_condition, selection_condition
from metrics.tables import lead, opportunity, stage_entry


class Revenue(Struct, frozen=True, gc=False):
    """The amounts of one currency, never added to another; without one, leads of which no amount is known."""

    currency: str | None
    leads: int
    amount: Decimal | None


def _select_entries(stage: str, since: datetime, until: datetime, entry: Visit) -> Select[tuple[object]]:
    """Select the leads with a counted entry into a stage that is dated in the period."""
    query = ReportQuery(mode="period", entry=entry, since=since, until=until)
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
    entered = _select_entries(stage, since, until, "first").subquery()
    return int((await conn.execute(select(func.count()).select_from(entered))).scalar_one())


async def count_conversions(
    conn: AsyncConnection, start: str, ends: Collection[str], since: datetime, until: datetime
) -> tuple[int, int]:
    """Count leads whose first entry into a stage is dated in the period, and those that entered one of others after it."""
    entered = _select_entries(start, since, until, "first").add_columns(stage_entry.c.position).subquery("entered")
    later = stage_entry.alias("later")
    converted = (
        select(func.count(later.c.lead_id.distinct()))
        .join_from(entered, later, and_(later.c.lead_id == entered.c.lead_id, later.c.position > entered.c.position))
        .where(later.c.stage.in_(ends))
    )
    total = (await conn.execute(select(func.count()).select_from(entered))).scalar_one()
    return int(total), int((await conn.execute(converted)).scalar_one())


async def sum_revenue(conn: AsyncConnection, stage: str, since: datetime, until: datetime) -> list[Revenue]:
    """Sum the amounts of leads whose last entry into a stage is dated in the period, by currency.

    A lead that has left a won stage again is no win.
    """
    entered = (
        _select_entries(stage, since, until, "last")
        .where(or_(stage_entry.c.exited_at.is_(None), stage_entry.c.stage_kind != "won"))
        .subquery("entered")
    )
    deal = opportunity.c
    statement = (
        select(deal.currency, func.count(), func.sum(deal.amount))
        .select_from(entered)
        .outerjoin(opportunity, deal.lead_id == entered.c.lead_id)
        .group_by(deal.currency)
        .order_by(deal.currency)
    )
    return [Revenue(currency, count, amount) for currency, count, amount in await conn.execute(statement)]
