"""The inbox: which events a consumer has already applied, in the same transaction as their effects."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import asyncpg

_CLAIM = """
INSERT INTO inbox (event_id, consumer, received_at)
SELECT DISTINCT event_id, $2, $3::timestamptz FROM unnest($1::uuid[]) AS batch (event_id) ORDER BY event_id
ON CONFLICT DO NOTHING
RETURNING event_id
"""


async def claim(connection: asyncpg.Connection, consumer: str, event_ids: Sequence[UUID], now: datetime) -> set[UUID]:
    """Those of the ids that are new to this consumer, now marked as received.

    Another transaction that holds the same id makes this one wait for its end, so that two processes which meet on a
    partition apply each event once and in order. Ids are inserted sorted: they cannot deadlock.
    """
    rows = await connection.fetch(_CLAIM, event_ids, consumer, now)
    return {row[0] for row in rows}
