"""Activities per lead: kept whether the lead is known or not, moved when leads merge."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import asyncpg

from accord.db import bulk
from qualification import tables

_INSERT = bulk.insert(tables.activity, on_conflict="DO NOTHING")

_MOVE = """
UPDATE activity SET lead_id = $2, recorded_for = coalesce(recorded_for, lead_id) WHERE lead_id = $1
"""

_MOVE_BACK = """
UPDATE activity SET lead_id = $3, recorded_for = nullif(recorded_for, $3)
WHERE lead_id = $2 AND recorded_for = ANY ($1::uuid[])
"""


class ActivityRow(NamedTuple):
    """One activity. `recorded_for` is the lead it came for, where that one had been merged into `lead_id`."""

    lead_id: UUID
    kind: str
    occurred_at: datetime
    activity_id: UUID
    by: str
    recorded_for: UUID | None


async def insert(connection: asyncpg.Connection, rows: Sequence[ActivityRow]) -> None:
    """Keep these activities, by one statement."""
    await _INSERT.execute(connection, [row._asdict() for row in rows])


async def move_to_survivor(connection: asyncpg.Connection, merged: UUID, survivor: UUID) -> None:
    """Make the activities of a merged lead those of its survivor."""
    await connection.execute(_MOVE, merged, survivor)


async def restore_to_merged(
    connection: asyncpg.Connection, lead_ids: Sequence[UUID], survivor: UUID, restored: UUID
) -> None:
    """Give a lead that was merged its activities back, with those of the leads that had been merged into it."""
    await connection.execute(_MOVE_BACK, lead_ids, survivor, restored)
