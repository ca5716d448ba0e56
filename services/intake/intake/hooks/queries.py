"""SQL on stored events of tools: records to be fetched, activities of people not known yet, erasures, and what
was given up. A row holds the event only as long as it is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, NamedTuple
from uuid import UUID

import asyncpg
import orjson
from pydantic import JsonValue

from accord.db import bulk
from intake import tables

HookAction = Literal["fetch", "submit", "update", "activity", "link", "erase"]
State = Literal["waiting", "done", "failed"]

_COLUMNS = (
    "hook_event_id, source, event_id, action, reference::text AS reference, keys, content, state, attempts, due_at, error, lead_id,"
    " occurred_at, recorded_at, updated_at"
)
_INSERT = bulk.insert(
    tables.hook_event,
    [column.name for column in tables.hook_event.columns if column.name != "lead_id"],
    on_conflict="(source, event_id) DO NOTHING",
    returning=["event_id"],
)
_CLAIM = f"""
UPDATE hook_event SET attempts = attempts + 1, due_at = $1::timestamptz + $2 * interval '1 second', updated_at = $1
WHERE hook_event_id IN (
    SELECT hook_event_id FROM hook_event
    WHERE state = 'waiting' AND action <> 'fetch' AND due_at <= $1
    ORDER BY due_at, hook_event_id LIMIT $3 FOR UPDATE SKIP LOCKED
)
RETURNING {_COLUMNS}
"""
# Source by source along the index, so that what waits for one tool costs nothing where others are looked for.
_CLAIM_FETCHES = f"""
WITH RECURSIVE waiting AS (
    SELECT min(source) AS source FROM hook_event WHERE state = 'waiting' AND action = 'fetch'
    UNION ALL
    SELECT (SELECT min(source) FROM hook_event WHERE state = 'waiting' AND action = 'fetch' AND source > waiting.source)
    FROM waiting WHERE waiting.source IS NOT NULL
), due AS MATERIALIZED (
    SELECT event.hook_event_id FROM waiting, LATERAL (
        SELECT hook_event_id, due_at FROM hook_event
        WHERE state = 'waiting' AND action = 'fetch' AND source = waiting.source AND due_at <= $1
        ORDER BY due_at LIMIT $3 FOR UPDATE SKIP LOCKED
    ) event
    WHERE waiting.source IS NOT NULL AND NOT waiting.source = ANY ($4::text[])
    ORDER BY event.due_at LIMIT $5
)
UPDATE hook_event SET attempts = attempts + 1, due_at = $1::timestamptz + $2 * interval '1 second', updated_at = $1
WHERE hook_event_id IN (SELECT hook_event_id FROM due)
RETURNING {_COLUMNS}
"""
_LOCK_CLAIMED = (
    "SELECT true FROM hook_event WHERE hook_event_id = $1 AND state = 'waiting' AND attempts = $2 FOR UPDATE"
)
_COMPLETE = """
UPDATE hook_event SET state = 'done', error = $3, lead_id = $2, content = '', reference = '{}', updated_at = $4
WHERE hook_event_id = $1
"""
_POSTPONE = """
UPDATE hook_event SET state = $3, due_at = $4, error = $5, updated_at = $6
WHERE hook_event_id = $1 AND state = 'waiting' AND attempts = $2
"""
_DROP_SUPERSEDED = """
UPDATE hook_event SET state = 'done', error = 'deleted', content = '', reference = '{}', updated_at = $4
WHERE source = $1 AND keys && $2::text[] AND state <> 'done' AND action <> 'erase' AND hook_event_id <= $3
"""
_IS_SUPERSEDED = """
SELECT EXISTS (
    SELECT FROM hook_event
    WHERE source = $1 AND keys && $2::text[] AND (action = 'link' OR (action = 'fetch' AND occurred_at > $3))
)
"""
_ONE = f"SELECT {_COLUMNS} FROM hook_event WHERE source = $1 AND hook_event_id = $2"
_PAGE = f"""
SELECT {_COLUMNS} FROM hook_event
WHERE source = $1 AND state = $2 AND ($3::uuid IS NULL OR hook_event_id < $3)
ORDER BY hook_event_id DESC LIMIT $4
"""
_REQUEUE = f"""
UPDATE hook_event SET state = 'waiting', attempts = 0, due_at = $3, error = NULL, recorded_at = $3, updated_at = $3
WHERE source = $1 AND hook_event_id = $2 AND state = 'failed'
RETURNING {_COLUMNS}
"""
_DISCARD = f"""
UPDATE hook_event SET state = 'done', error = 'discarded', content = '', reference = '{{}}', keys = '{{}}', updated_at = $3
WHERE source = $1 AND hook_event_id = $2 AND state <> 'done'
RETURNING {_COLUMNS}
"""
_COUNT = (
    "SELECT state, count(*) FROM (SELECT state FROM hook_event WHERE state <> 'done' LIMIT 100000) AS e GROUP BY state"
)
_PRUNE = """
DELETE FROM hook_event WHERE hook_event_id IN (
    SELECT hook_event_id FROM hook_event
    WHERE (state = 'done' AND updated_at < $1) OR (state = 'failed' AND updated_at < $2)
    LIMIT $3
)
"""


class NewEvent(NamedTuple):
    """An event to be kept. `keys` are identity keys as words (`leads.domain.keys.format_key`), by which an erasure finds it."""

    hook_event_id: UUID
    source: str
    event_id: str
    action: HookAction
    reference: JsonValue
    keys: Sequence[str]
    content: str
    state: State
    due_at: datetime
    error: str | None
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class HookEvent:
    """One kept event. `reference` is what the act needs; it and `content` are empty once it is done."""

    hook_event_id: UUID
    source: str
    event_id: str
    action: HookAction
    reference: JsonValue = field(repr=False)
    keys: Sequence[str] = field(repr=False)
    content: str = field(repr=False)
    state: State
    attempts: int
    due_at: datetime
    error: str | None
    lead_id: UUID | None
    occurred_at: datetime
    recorded_at: datetime
    updated_at: datetime


async def insert(connection: asyncpg.Connection, rows: Sequence[NewEvent], now: datetime) -> set[str]:
    """Keep these events; the ids of those that were not there yet."""
    given = [
        {
            **row._asdict(),
            "reference": orjson.dumps(row.reference).decode(),
            "attempts": 0,
            "recorded_at": now,
            "updated_at": now,
        }
        for row in sorted(rows, key=lambda row: (row.source, row.event_id))
    ]
    return {row["event_id"] for row in await _INSERT.fetch(connection, given)}


async def claim(connection: asyncpg.Connection, now: datetime, lease_s: float, rows: int) -> list[HookEvent]:
    """Events that are due and ask no tool, each for one worker until its lease is over; one that dies leaves them to be claimed again."""
    return [_event(row) for row in await connection.fetch(_CLAIM, now, lease_s, rows)]


async def claim_fetches(
    connection: asyncpg.Connection, now: datetime, lease_s: float, per_source: int, excluded: Sequence[str], rows: int
) -> list[HookEvent]:
    """Fetches that are due, in the same way: `per_source` of one tool at most, none of those that are not to be asked at the moment."""
    found = await connection.fetch(_CLAIM_FETCHES, now, lease_s, per_source, list(excluded), rows)
    return [_event(row) for row in found]


async def lock_claimed(connection: asyncpg.Connection, event: HookEvent) -> bool:
    """Lock a claimed event; False if it is no longer this claim's, so that nothing is done twice."""
    return bool(await connection.fetchval(_LOCK_CLAIMED, event.hook_event_id, event.attempts))


async def complete(
    connection: asyncpg.Connection, event_id: UUID, lead_id: UUID | None, note: str | None, now: datetime
) -> None:
    """It is done with, and nothing of its content is needed any more."""
    await connection.execute(_COMPLETE, event_id, lead_id, note, now)


async def postpone(
    connection: asyncpg.Connection, event: HookEvent, state: State, due_at: datetime, error: str, now: datetime
) -> None:
    """Try again at a time, or give it up."""
    await connection.execute(_POSTPONE, event.hook_event_id, event.attempts, state, due_at, error, now)


async def drop_superseded(connection: asyncpg.Connection, event: HookEvent, now: datetime) -> None:
    """Drop what waits or was given up of a record that has been deleted since."""
    await connection.execute(_DROP_SUPERSEDED, event.source, list(event.keys), event.hook_event_id, now)


async def is_superseded(connection: asyncpg.Connection, deletion: HookEvent) -> bool:
    """Whether the record of a deletion was merged into another, or has changed since, so that it is there again."""
    return bool(await connection.fetchval(_IS_SUPERSEDED, deletion.source, list(deletion.keys), deletion.occurred_at))


async def fetch_event(connection: asyncpg.Connection, source: str, event_id: UUID) -> HookEvent | None:
    """One kept event of a source."""
    row = await connection.fetchrow(_ONE, source, event_id)
    return None if row is None else _event(row)


async def page(
    connection: asyncpg.Connection, source: str, state: State, before: UUID | None, rows: int
) -> list[HookEvent]:
    """Kept events of a source in a state, the newest first."""
    return [_event(row) for row in await connection.fetch(_PAGE, source, state, before, rows)]


async def requeue(connection: asyncpg.Connection, source: str, event_id: UUID, now: datetime) -> HookEvent | None:
    """Have an event that was given up tried again, for as long as a new one; None if it is not there or not given up."""
    row = await connection.fetchrow(_REQUEUE, source, event_id, now)
    return None if row is None else _event(row)


async def discard(connection: asyncpg.Connection, source: str, event_id: UUID, now: datetime) -> HookEvent | None:
    """Give an event up for good; None if it is not there or done."""
    row = await connection.fetchrow(_DISCARD, source, event_id, now)
    return None if row is None else _event(row)


async def count_by_state(connection: asyncpg.Connection) -> dict[str, int]:
    """How many are in each state but done, counted up to 100,000."""
    return {row["state"]: row["count"] for row in await connection.fetch(_COUNT)}


async def prune(connection: asyncpg.Connection, done_before: datetime, failed_before: datetime, rows: int) -> int:
    """Forget old ones; how many."""
    status: str = await connection.execute(_PRUNE, done_before, failed_before, rows)
    return int(status.rpartition(" ")[2])


def _event(row: asyncpg.Record) -> HookEvent:
    return HookEvent(**{**row, "reference": orjson.loads(row["reference"])})
