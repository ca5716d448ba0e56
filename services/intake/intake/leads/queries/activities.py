"""SQL on activities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg
import orjson

from intake.leads.domain.submission import ActivityIn

_SAVE = """
INSERT INTO activity (lead_id, activity_id, kind, by, actor, campaign, properties, caller, occurred_at, recorded_at)
SELECT lead_id, activity_id, kind, by, actor, campaign::jsonb, properties::jsonb, caller, occurred_at, $10
FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::timestamptz[])
     AS a (lead_id, activity_id, kind, by, actor, campaign, properties, caller, occurred_at)
"""


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
    if not rows:
        return
    await connection.execute(
        _SAVE,
        [row.lead_id for row in rows],
        [row.activity_id for row in rows],
        [row.said.kind for row in rows],
        [row.said.by for row in rows],
        [row.said.actor for row in rows],
        [None if row.said.campaign is None else row.said.campaign.model_dump_json(exclude_none=True) for row in rows],
        [orjson.dumps(row.said.properties).decode() for row in rows],
        [row.caller for row in rows],
        [row.occurred_at for row in rows],
        now,
    )
