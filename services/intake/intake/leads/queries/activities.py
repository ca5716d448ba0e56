"""SQL on activities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg
import orjson

from accord.db import bulk
from intake import tables
from intake.leads.domain.submission import ActivityIn

_SAVE = bulk.insert(tables.activity)


@dataclass(frozen=True, slots=True)
class Row:
    """One activity of one lead."""

    lead_id: UUID
    activity_id: UUID
    said: ActivityIn
    caller: str
    occurred_at: datetime


async def save(connection: asyncpg.Connection, rows: Sequence[Row], now: datetime) -> None:
    """Insert all of them in one statement."""
    given: list[dict[str, object]] = [
        {
            "lead_id": row.lead_id,
            "activity_id": row.activity_id,
            "caller": row.caller,
            "kind": row.said.kind,
            "by": row.said.by,
            "actor": row.said.actor,
            "campaign": None if row.said.campaign is None else row.said.campaign.model_dump_json(exclude_none=True),
            "properties": orjson.dumps(row.said.properties).decode(),
            "occurred_at": row.occurred_at,
            "recorded_at": now,
        }
        for row in rows
    ]
    await _SAVE.execute(connection, given)
