"""Deletes what messaging no longer needs, so that no table of it grows for ever."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from accord.db import Database
from accord.workers import Periodic

INBOX_RETENTION = timedelta(days=7)
"""A consumer never reads before its stored position, so its inbox only has to know what a relay sent twice: within
minutes of an outage, and here with a wide margin."""

SETTLED_RETENTION = timedelta(days=30)
_EVERY_S = 60.0
_ROWS_MAX = 10_000
_BEGINNING = UUID(int=0)

# By the primary key: ids of events are UUIDv7, so the oldest come first. Others, of foreign records, stay. A page of so many rows is
# looked at, whatever is to go of it: old events that were received again stay for a week, and there may be millions of them.
_PRUNE_INBOX = """
WITH page AS MATERIALIZED (
    SELECT ctid, event_id, received_at FROM inbox WHERE event_id > $4 AND event_id < $3 ORDER BY event_id LIMIT $2
), gone AS (
    DELETE FROM inbox WHERE ctid = ANY (ARRAY(SELECT ctid FROM page WHERE received_at < $1)) RETURNING 1
)
SELECT (SELECT count(*) FROM gone), (SELECT count(*) FROM page), (SELECT event_id FROM page ORDER BY event_id DESC LIMIT 1)
"""
_PRUNE_DEAD_LETTERS = """
DELETE FROM dead_letter WHERE id = ANY (ARRAY(SELECT id FROM dead_letter WHERE settled_at < $1 LIMIT $2))
"""


class Pruner:
    """Goes through the inbox page by page, from its oldest event to the first that is too young, and then again."""

    def __init__(self, database: Database, rows_max: int = _ROWS_MAX) -> None:
        self._database = database
        self._rows_max = rows_max
        self._after = _BEGINNING

    async def prune(self) -> bool:
        """Look at so many rows of each table and delete those that are old; whether it is worth going on at once."""
        async with self._database.write_transaction() as unit_of_work:
            connection = await unit_of_work.connection()
            before = unit_of_work.now - INBOX_RETENTION
            pages = await connection.fetch(_PRUNE_INBOX, before, self._rows_max, _first_id_of(before), self._after)
            letters = await connection.execute(
                _PRUNE_DEAD_LETTERS, unit_of_work.now - SETTLED_RETENTION, self._rows_max
            )
        gone, looked_at, last_id = pages[0]
        is_full = looked_at >= self._rows_max
        self._after = last_id if is_full else _BEGINNING
        return (is_full and gone > 0) or int(letters.rpartition(" ")[2]) >= self._rows_max


def _first_id_of(moment: datetime) -> UUID:
    """The lowest UUIDv7 of a moment."""
    return UUID(int=(int(moment.timestamp() * 1000) << 80) | (0x7 << 76) | (0x2 << 62))


def prune_worker(database: Database) -> Periodic:
    """The worker that does it."""
    return Periodic("prune-messages", _EVERY_S, Pruner(database).prune)
