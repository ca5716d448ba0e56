"""The outbox: events written in the same transaction as the state they tell of. It sends nothing.

Published rows are deleted at once, by the batch, not marked and pruned later. A mark would be an UPDATE that can
never be heap-only (the index of the unpublished depends on it), so each event would leave two dead rows and need a
second pass; a delete leaves one, and the primary key is the index of what is unpublished. What was published is
in Kafka, whose topics keep everything. The relay vacuums the table after each 50,000 deleted rows (some 25 MB), since
autovacuum looks only once a minute; so the table keeps the size of its largest backlog, whatever passes through it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import asyncpg
from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from accord.contracts.base import EventData
from accord.contracts.codec import encode_value
from accord.ids import new_id
from accord.partitioning import hash_key

PAYLOAD_BYTES_MAX = 900_000
"""Below Kafka's default `message.max.bytes`: a larger record would be refused for ever and block the relay."""

DEPTH_COUNTED_MAX = 100_000

DEPTH = f"""
SELECT (SELECT count(*) FROM (SELECT FROM outbox LIMIT {DEPTH_COUNTED_MAX}) AS counted) AS rows,
       oldest_at, extract(epoch FROM clock_timestamp() - oldest_at)::float8 AS oldest_age_s
FROM (SELECT min(recorded_at) AS oldest_at FROM outbox) AS oldest
"""  # noqa: S608 - a constant of ours
"""How much waits: rows (counted up to DEPTH_COUNTED_MAX), the oldest's time and its age in seconds."""


class Depth(Struct, frozen=True):
    rows: int
    oldest_at: datetime | None
    oldest_age_s: float | None


class Row(NamedTuple):
    """One event on its way into the outbox. The fields are columns of the table."""

    event_id: UUID
    type: str
    key: str
    key_hash: int
    occurred_at: datetime
    recorded_at: datetime
    traceparent: str | None
    payload: bytes


def row_of(event: EventData, now: datetime, traceparent: str | None) -> Row:
    """The row of one event recorded at `now`. Raises ValueError if it was dated otherwise, does not fit its type or is too large."""
    if event.recorded_at != now:
        raise ValueError(f"{event.type}: recorded_at must be the unit of work's now")
    payload = encode_value(event)
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise ValueError(
            f"{event.type}: {len(payload)} bytes are more than the {PAYLOAD_BYTES_MAX} that a record may have"
        )
    key = event.key
    return Row(new_id(), event.type, key, hash_key(key.encode()), event.occurred_at, now, traceparent, payload)


async def append(connection: asyncpg.Connection, rows: Sequence[Row]) -> None:
    """Insert rows of one unit of work, in order. COPY numbers them as they come, and takes two thirds of the time of an INSERT."""
    await connection.copy_records_to_table("outbox", records=rows, columns=Row._fields)


async def depth(conn: AsyncConnection) -> Depth:
    """How much waits to be published."""
    found = (await conn.exec_driver_sql(DEPTH)).one()
    return Depth(found.rows, found.oldest_at, found.oldest_age_s)
