"""Fetches deals as of a moment: where each stood and what it was worth. domain/pipeline.py decides what they count for."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from msgspec import Struct
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.ext.asyncio import AsyncConnection

from metrics.domain.pipeline import DealState
from metrics.domain.report_query import ReportQuery
from metrics.queries.selection import selection_condition
from metrics.tables import lead, opportunity_change, stage_entry


class Deal(Struct, frozen=True, gc=False):
    """One lead's deal as of a moment, when it entered its stage, and when the lead entered its first."""

    lead_id: UUID
    state: DealState
    entered_at: datetime
    first_entered_at: datetime


async def fetch_deals(conn: AsyncConnection, query: ReportQuery, at: datetime) -> list[Deal]:
    """Fetch the query's leads that had a deal and a stage before a moment."""
    change = opportunity_change.c
    worth = (
        select(change.lead_id, change.amount, change.currency, change.expected_close)
        .ext(distinct_on(change.lead_id))
        .where(change.occurred_at < at)
        .order_by(change.lead_id, change.sequence.desc())
        .subquery("worth")
    )
    entry = stage_entry.c
    stood = (
        select(entry.lead_id, entry.stage, entry.entered_at)
        .ext(distinct_on(entry.lead_id))
        .where(
            entry.position.is_not(None),
            entry.entered_at < at,
            entry.lead_id.in_(select(change.lead_id)),
        )
        .order_by(entry.lead_id, entry.position.desc())
        .subquery("stood")
    )
    statement = (
        select(
            lead.c.lead_id,
            stood.c.stage,
            worth.c.amount,
            worth.c.currency,
            worth.c.expected_close,
            stood.c.entered_at,
            lead.c.first_entered_at,
        )
        .join_from(lead, worth, worth.c.lead_id == lead.c.lead_id)
        .join(stood, stood.c.lead_id == lead.c.lead_id)
        .where(selection_condition(query))
        .order_by(lead.c.lead_id)
    )
    return [Deal(row[0], DealState(*row[1:5]), *row[5:]) for row in await conn.execute(statement)]
