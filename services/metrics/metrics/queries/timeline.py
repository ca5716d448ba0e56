"""Fetches one lead's stages, clocks and activities, in time order and page by page."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from msgspec import Struct
from sqlalchemy import ColumnElement, Row, select, text, true, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from metrics.tables import activity, clock, lead, opportunity, stage_entry

# A merged lead's activities are the survivor's, through any number of merges; UNION ends a cycle.
_MERGED_LEADS = text("""
    WITH RECURSIVE merged (lead_id) AS (
        SELECT CAST(:lead_id AS uuid)
        UNION SELECT lead.lead_id FROM lead JOIN merged ON lead.merged_into = merged.lead_id
    )
    SELECT lead_id FROM merged LIMIT 1000
""")


_HISTORY_ENTRIES_MAX = 1_000

ItemType = Literal["captured", "stage", "clock", "activity"]
RANK: dict[ItemType, int] = {"captured": 0, "stage": 1, "clock": 2, "activity": 3}
"""The order of items at the same moment."""


class TimelineCursor(Struct, frozen=True):
    """The last item of a page: its time, type and id. A stage's id is its position in the history."""

    at: datetime
    type: ItemType
    id: str


def _after(
    type_: ItemType, at: ColumnElement[Any], id_: ColumnElement[Any], cursor: TimelineCursor | None
) -> ColumnElement[bool]:
    """Whether an item of this type comes after the cursor."""
    if cursor is None:
        return true()
    if RANK[type_] > RANK[cursor.type]:
        return at >= cursor.at
    if RANK[type_] < RANK[cursor.type]:
        return at > cursor.at
    return tuple_(at, id_) > tuple_(cursor.at, int(cursor.id) if type_ == "stage" else UUID(cursor.id))


async def fetch_lead(conn: AsyncConnection, lead_id: UUID) -> Row[Any] | None:
    """Fetch the lead with its opportunity."""
    statement = (
        select(lead, opportunity.c.amount, opportunity.c.currency, opportunity.c.expected_close)
        .outerjoin_from(lead, opportunity, opportunity.c.lead_id == lead.c.lead_id)
        .where(lead.c.lead_id == lead_id)
    )
    return (await conn.execute(statement)).one_or_none()


async def fetch_stages(
    conn: AsyncConnection, lead_id: UUID, after: TimelineCursor | None, limit: int
) -> Sequence[Row[Any]]:
    """Fetch the lead's entries by time; those at one moment in the order of the history."""
    at, id_ = stage_entry.c.entered_at, stage_entry.c.position
    statement = select(stage_entry).where(stage_entry.c.lead_id == lead_id, id_.is_not(None))
    statement = statement.where(_after("stage", at, id_, after)).order_by(at, id_).limit(limit)
    return (await conn.execute(statement)).all()


async def fetch_stage_history(conn: AsyncConnection, lead_id: UUID) -> Sequence[Row[Any]]:
    """Fetch the lead's first thousand entries in the order of its history."""
    statement = select(stage_entry).where(stage_entry.c.lead_id == lead_id, stage_entry.c.position.is_not(None))
    return (await conn.execute(statement.order_by(stage_entry.c.position).limit(_HISTORY_ENTRIES_MAX))).all()


async def fetch_clocks(
    conn: AsyncConnection, lead_id: UUID, after: TimelineCursor | None, limit: int
) -> Sequence[Row[Any]]:
    """Fetch the lead's clocks by their start."""
    at, id_ = clock.c.started_at, clock.c.clock_id
    statement = select(clock).where(clock.c.lead_id == lead_id, _after("clock", at, id_, after))
    return (await conn.execute(statement.order_by(at, id_).limit(limit))).all()


async def fetch_activities(
    conn: AsyncConnection, lead_id: UUID, after: TimelineCursor | None, limit: int
) -> Sequence[Row[Any]]:
    """Fetch activities of the lead and of those merged into it, by time."""
    lead_ids = (await conn.execute(_MERGED_LEADS, {"lead_id": lead_id})).scalars().all()
    at, id_ = activity.c.occurred_at, activity.c.activity_id
    statement = select(activity).where(activity.c.lead_id.in_(lead_ids), _after("activity", at, id_, after))
    return (await conn.execute(statement.order_by(at, id_).limit(limit))).all()
