"""One lead's stages, clocks and activities, in time order and page by page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import ColumnElement, Row, select, text, true, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from metrics.tables import activity, clock, lead, opportunity, stage_entry

# A merged lead's activities are the survivor's, through as many merges as there were; UNION ends a circle.
_ABSORBED = text("""
    WITH RECURSIVE absorbed (lead_id) AS (
        SELECT CAST(:lead_id AS uuid)
        UNION SELECT lead.lead_id FROM lead JOIN absorbed ON lead.merged_into = absorbed.lead_id
    )
    SELECT lead_id FROM absorbed LIMIT 1000
""")


_CHAIN_MAX = 1_000

Type = Literal["captured", "stage", "clock", "activity"]
RANK: dict[Type, int] = {"captured": 0, "stage": 1, "clock": 2, "activity": 3}
"""Of items at the same moment, which comes first."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page ends: time, type and id of its last item. A stage's id is its position in the chain."""

    at: datetime
    type: Type
    id: str


def _after(type_: Type, at: ColumnElement[Any], id_: ColumnElement[Any], place: Place | None) -> ColumnElement[bool]:
    """Items of this type that come after the place."""
    if place is None:
        return true()
    if RANK[type_] > RANK[place.type]:
        return at >= place.at
    if RANK[type_] < RANK[place.type]:
        return at > place.at
    return tuple_(at, id_) > tuple_(place.at, int(place.id) if type_ == "stage" else UUID(place.id))


async def lead_row(conn: AsyncConnection, lead_id: UUID) -> Row[Any] | None:
    """What is known of the lead, with its deal."""
    statement = (
        select(lead, opportunity.c.amount, opportunity.c.currency, opportunity.c.expected_close)
        .outerjoin_from(lead, opportunity, opportunity.c.lead_id == lead.c.lead_id)
        .where(lead.c.lead_id == lead_id)
    )
    return (await conn.execute(statement)).one_or_none()


async def stages(conn: AsyncConnection, lead_id: UUID, after: Place | None, limit: int) -> Sequence[Row[Any]]:
    """The lead's entries by time; those at one moment in the order of the chain."""
    at, id_ = stage_entry.c.entered_at, stage_entry.c.position
    statement = select(stage_entry).where(stage_entry.c.lead_id == lead_id, id_.is_not(None))
    statement = statement.where(_after("stage", at, id_, after)).order_by(at, id_).limit(limit)
    return (await conn.execute(statement)).all()


async def chain(conn: AsyncConnection, lead_id: UUID) -> Sequence[Row[Any]]:
    """The lead's entries in the order of its chain; of an endless to and fro the first thousand."""
    statement = select(stage_entry).where(stage_entry.c.lead_id == lead_id, stage_entry.c.position.is_not(None))
    return (await conn.execute(statement.order_by(stage_entry.c.position).limit(_CHAIN_MAX))).all()


async def clocks(conn: AsyncConnection, lead_id: UUID, after: Place | None, limit: int) -> Sequence[Row[Any]]:
    """The lead's clocks by their start."""
    at, id_ = clock.c.started_at, clock.c.clock_id
    statement = select(clock).where(clock.c.lead_id == lead_id, _after("clock", at, id_, after))
    return (await conn.execute(statement.order_by(at, id_).limit(limit))).all()


async def activities(conn: AsyncConnection, lead_id: UUID, after: Place | None, limit: int) -> Sequence[Row[Any]]:
    """Activities of the lead and of those merged into it, by time."""
    own = (await conn.execute(_ABSORBED, {"lead_id": lead_id})).scalars().all()
    at, id_ = activity.c.occurred_at, activity.c.activity_id
    statement = select(activity).where(activity.c.lead_id.in_(own), _after("activity", at, id_, after))
    return (await conn.execute(statement.order_by(at, id_).limit(limit))).all()
