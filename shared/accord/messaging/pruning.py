"""Deletes what messaging no longer needs, so that no table of it grows for ever."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from accord.database import Database
from accord.workers import Periodic

INBOX_KEPT = timedelta(days=7)
"""A consumer never reads before its stored position, so its inbox only has to know what a relay sent twice: within
minutes of an outage, and here with a wide margin."""

SETTLED_KEPT = timedelta(days=30)
_EVERY_S = 60.0
_ROWS_MAX = 10_000

# By the primary key: ids of events are UUIDv7, so the oldest come first. Others, of foreign records, stay.
_PRUNE_INBOX = """
DELETE FROM inbox WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM inbox WHERE event_id < $3 AND received_at < $1 ORDER BY event_id LIMIT $2
))
"""
_PRUNE_LETTERS = """
DELETE FROM dead_letter WHERE id = ANY (ARRAY(SELECT id FROM dead_letter WHERE settled_at < $1 LIMIT $2))
"""


async def prune(database: Database, rows_max: int = _ROWS_MAX) -> int:
    """Delete up to so many old rows of each table; the most that one of them had."""
    async with database.recording() as recording:
        driver = await recording.driver()
        before = recording.now - INBOX_KEPT
        inbox = await driver.execute(_PRUNE_INBOX, before, rows_max, _first_id_of(before))
        letters = await driver.execute(_PRUNE_LETTERS, recording.now - SETTLED_KEPT, rows_max)
    return max(int(done.rpartition(" ")[2]) for done in (inbox, letters))


def _first_id_of(moment: datetime) -> UUID:
    """The lowest UUIDv7 of a moment."""
    return UUID(int=(int(moment.timestamp() * 1000) << 80) | (0x7 << 76) | (0x2 << 62))


def prune_worker(database: Database) -> Periodic:
    """The worker that does it."""

    async def work() -> bool:
        return await prune(database) >= _ROWS_MAX

    return Periodic("prune-messages", _EVERY_S, work)
