"""Activities per lead: kept whether the lead is known or not, moved when leads merge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

_APPEND = """
INSERT INTO activity (lead_id, kind, occurred_at, activity_id, by, recorded_for)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::uuid[], $5::text[], $6::uuid[])
ON CONFLICT DO NOTHING
"""

_MOVE = """
UPDATE activity SET lead_id = $2, recorded_for = coalesce(recorded_for, lead_id) WHERE lead_id = $1
"""

_MOVE_BACK = """
UPDATE activity SET lead_id = $3, recorded_for = nullif(recorded_for, $3)
WHERE lead_id = $2 AND recorded_for = ANY ($1::uuid[])
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One activity. `recorded_for` is the lead it came for, where that one had been merged into `lead_id`."""

    lead_id: UUID
    kind: str
    occurred_at: datetime
    activity_id: UUID
    by: str
    recorded_for: UUID | None


async def append(connection: asyncpg.Connection, rows: Sequence[Row]) -> None:
    """Keep these activities, by one statement."""
    if not rows:
        return
    await connection.execute(
        _APPEND,
        [row.lead_id for row in rows],
        [row.kind for row in rows],
        [row.occurred_at for row in rows],
        [row.activity_id for row in rows],
        [row.by for row in rows],
        [row.recorded_for for row in rows],
    )


async def move(connection: asyncpg.Connection, merged: UUID, survivor: UUID) -> None:
    """Make the activities of a merged lead those of its survivor."""
    await connection.execute(_MOVE, merged, survivor)


async def move_back(connection: asyncpg.Connection, lead_ids: Sequence[UUID], survivor: UUID, restored: UUID) -> None:
    """Give a lead that was merged its activities back, with those of the leads that had been merged into it."""
    await connection.execute(_MOVE_BACK, lead_ids, survivor, restored)
