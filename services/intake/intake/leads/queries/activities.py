"""SQL on activities."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import asyncpg
import orjson
from msgspec import Struct

from accord.db import bulk
from intake import tables
from intake.leads.domain.submission import ActivityIn

_SAVE = bulk.insert(tables.activity)


class Row(Struct, frozen=True):
    """One activity of one lead."""

    lead_id: UUID
    activity_id: UUID
    activity: ActivityIn
    caller: str
    occurred_at: datetime


async def save(connection: asyncpg.Connection, rows: Sequence[Row], now: datetime) -> None:
    """Insert all of them in one statement."""
    given: list[dict[str, object]] = [
        {
            "lead_id": row.lead_id,
            "activity_id": row.activity_id,
            "caller": row.caller,
            "kind": row.activity.kind,
            "by": row.activity.by,
            "actor": row.activity.actor,
            "actor_kind": row.activity.actor_kind,
            "campaign": None
            if row.activity.campaign is None
            else row.activity.campaign.model_dump_json(exclude_none=True),
            "properties": orjson.dumps(row.activity.properties).decode(),
            "occurred_at": row.occurred_at,
            "recorded_at": now,
        }
        for row in rows
    ]
    await _SAVE.execute(connection, given)
