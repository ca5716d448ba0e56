"""SQL that drops what is kept for a time only. Submissions are walked in the order of their ids, which is the order in which they came,
from where the last round stopped; so no round looks at what was dropped before. What still waits in quarantine is passed over: when it
is let go, its content goes with it.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import asyncpg

WHAT = "submission"
_PLACE = "SELECT dropped_to FROM retention WHERE kind = $1"
_DROP = """
WITH due AS (
    SELECT submission_id, verdict, verdict = 'quarantined' AND settled IS NULL AS waits
    FROM submission WHERE submission_id > $1 AND submission_id < $2
    ORDER BY submission_id LIMIT $3 FOR UPDATE
), dropped AS (
    UPDATE submission s SET content = NULL, canonical = NULL, keys = NULL FROM due
    WHERE s.submission_id = due.submission_id AND NOT due.waits AND (s.content IS NOT NULL OR s.canonical IS NOT NULL OR s.keys IS NOT NULL)
    RETURNING s.submission_id
), notes AS (
    UPDATE quarantine_decision d SET note = NULL, fields = NULL FROM due
    WHERE d.submission_id = due.submission_id AND due.verdict = 'quarantined'
)
SELECT (SELECT count(*) FROM due) AS seen, (SELECT count(*) FROM dropped) AS dropped,
       (SELECT submission_id FROM due ORDER BY submission_id DESC LIMIT 1) AS last
"""
_REACHED = """
INSERT INTO retention (kind, dropped_to, recorded_at) VALUES ($1, $2, $3)
ON CONFLICT (kind) DO UPDATE SET dropped_to = excluded.dropped_to, recorded_at = excluded.recorded_at
"""
_IMPORT_FAILURES = """
DELETE FROM import_failure f USING (
    SELECT i.import_id, i.row_number FROM import_failure i JOIN import_job j USING (import_id)
    WHERE j.finished_at < $1 ORDER BY i.import_id, i.row_number LIMIT $2
) AS due
WHERE f.import_id = due.import_id AND f.row_number = due.row_number
"""
_FIRST = UUID(int=0)


async def drop_submissions(
    connection: asyncpg.Connection, before: UUID, rows_max: int, now: datetime
) -> tuple[int, int]:
    """Drop the content of the next submissions that came before this id was made: how many were looked at, and how many had any."""
    place = await connection.fetchval(_PLACE, WHAT) or _FIRST
    (row,) = await connection.fetch(_DROP, place, before, rows_max)
    if row["last"] is not None:
        await connection.execute(_REACHED, WHAT, row["last"], now)
    return row["seen"], row["dropped"]


async def drop_import_failures(connection: asyncpg.Connection, before: datetime, rows_max: int) -> int:
    """Drop rows that imports could not take, of imports that ended before this."""
    return int((await connection.execute(_IMPORT_FAILURES, before, rows_max)).rpartition(" ")[2])
