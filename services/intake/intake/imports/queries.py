"""SQL on imports: the job, the blocks of its file, and what became of its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import orjson
from msgspec import Struct
from msgspec.structs import asdict

from accord.db import from_json
from intake.imports.domain.imports import Counts, Failure, Record, Report, State
from intake.imports.domain.rows import Plan

_COLUMNS = (
    "import_id, source, caller, state, dry_run, plan, bytes_received, bytes_done, row_number, counts, quality, rows_per_s,"
    " bytes_per_s, error, cancel_requested, created_at, started_at, finished_at, updated_at"
)
_CREATE = """
INSERT INTO import_job (import_id, source, caller, state, dry_run, bytes_received, bytes_done, row_number, counts,
                        cancel_requested, created_at, updated_at)
VALUES ($1, $2, $3, 'receiving', $4, 0, 0, 0, '{}', false, $5, $5)
"""
_ADD_BLOCK = """
WITH receiving AS (
    UPDATE import_job SET bytes_received = $2::bigint + octet_length($3::bytea), updated_at = $4
    WHERE import_id = $1 AND state = 'receiving' RETURNING import_id
)
INSERT INTO import_block (import_id, first_byte, content) SELECT import_id, $2::bigint, $3::bytea FROM receiving
"""
_QUEUE = """
UPDATE import_job SET state = 'queued', plan = $2::jsonb, bytes_done = $3, row_number = $4, updated_at = $5
WHERE import_id = $1 AND state = 'receiving'
"""
_FIND = f"SELECT {_COLUMNS} FROM import_job WHERE import_id = $1"
_LOCK = f"{_FIND} FOR UPDATE"
_PAGE = f"SELECT {_COLUMNS} FROM import_job WHERE import_id < $1 AND ($3::text IS NULL OR source = $3) ORDER BY import_id DESC LIMIT $2"
# A lock that can be had for a moment is held by nobody. PostgreSQL asks for it only where the conditions before hold.
_OPEN = """
SELECT import_id FROM (
    SELECT import_id FROM import_job WHERE state IN ('queued', 'running') AND import_id <> ALL ($1::uuid[])
    ORDER BY import_id LIMIT 100
) AS waiting
WHERE pg_try_advisory_xact_lock(hashtextextended('accord-import:' || import_id, 0)) LIMIT $2
"""
_LEASE = "SELECT pg_try_advisory_lock(hashtextextended('accord-import:' || $1::uuid, 0))"
_BEGIN = """
UPDATE import_job SET state = 'running', started_at = coalesce(started_at, $2), updated_at = $2
WHERE import_id = $1 AND state IN ('queued', 'running')
"""
# Whoever finds another place than it left has been overtaken; nothing is taken twice.
_ADVANCE = """
UPDATE import_job SET bytes_done = $3, row_number = $4, counts = $5::jsonb, quality = $6::jsonb, rows_per_s = $7,
                      bytes_per_s = $8, updated_at = $9
WHERE import_id = $1 AND bytes_done = $2 AND state = 'running' RETURNING cancel_requested
"""
_RESTART = """
UPDATE import_job SET bytes_done = $2, row_number = $3, counts = '{}', quality = NULL, updated_at = $4 WHERE import_id = $1
"""
_END = """
UPDATE import_job SET state = $2, error = $3, finished_at = $4, updated_at = $4, rows_per_s = $5
WHERE import_id = $1
"""
_GIVE_UP = """
UPDATE import_job SET state = 'failed', error = $2, finished_at = $3, updated_at = $3, plan = NULL, counts = '{}', quality = NULL
WHERE import_id = $1
"""
_REMOVE = "DELETE FROM import_job WHERE import_id = $1"
_OPEN_COUNTS = """
SELECT count(*) AS every, count(*) FILTER (WHERE caller = $1) AS own FROM import_job WHERE state IN ('receiving', 'queued', 'running')
"""
_LOCK_OPENING = "SELECT pg_advisory_xact_lock(hashtextextended('accord-import-opening', 0))"
_REQUEST_CANCEL = "UPDATE import_job SET cancel_requested = true WHERE import_id = $1"
_ABANDONED = """
SELECT import_id FROM import_job WHERE state = 'receiving' AND updated_at < $1 ORDER BY import_id LIMIT 100
FOR UPDATE SKIP LOCKED
"""
_BLOCK = """
SELECT first_byte, content FROM import_block
WHERE import_id = $1 AND first_byte >= coalesce(
    (SELECT max(first_byte) FROM import_block WHERE import_id = $1 AND first_byte <= $2), $2)
ORDER BY first_byte LIMIT 1
"""
_DROP_BLOCKS = "DELETE FROM import_block WHERE import_id = $1 AND first_byte < $2"
_SAVE_CHUNK = "INSERT INTO import_chunk (import_id, first_row, outcomes, results) VALUES ($1, $2, $3, $4)"
_CHUNKS = """
SELECT first_row, results FROM import_chunk
WHERE import_id = $1 AND outcomes & $3 <> 0 AND first_row > $4 AND first_row >= coalesce(
    (SELECT max(first_row) FROM import_chunk WHERE import_id = $1 AND first_row <= $2), $2)
ORDER BY first_row LIMIT $5
"""
_FAILURE_COLUMNS = ("import_id", "row_number", "outcome", "error", "content", "keys")
_FAILURES = """
SELECT row_number, outcome, error, content FROM import_failure WHERE import_id = $1 AND row_number > $2
ORDER BY row_number LIMIT $3
"""
_DROP_FAILURES = "DELETE FROM import_failure WHERE import_id = $1"
_PRUNE_CHUNKS = """
DELETE FROM import_chunk WHERE (import_id, first_row) IN (
    SELECT c.import_id, c.first_row FROM import_chunk c JOIN import_job j USING (import_id) WHERE j.finished_at < $1 LIMIT $2)
"""
_BEGIN_PREVIEW = """
CREATE TEMPORARY TABLE IF NOT EXISTS preview_key (key_hash bigint PRIMARY KEY, lead text NOT NULL);
TRUNCATE preview_key
"""
_FIND_PREVIEWED = "SELECT key_hash, lead FROM preview_key WHERE key_hash = ANY ($1::bigint[])"
_SAVE_PREVIEWED = "INSERT INTO preview_key SELECT * FROM unnest($1::bigint[], $2::text[]) ON CONFLICT DO NOTHING"
# One look-up by index for each row, whatever the planner thinks of the table's size.
_UNCHANGED = """
SELECT t.place, found.verdict
FROM unnest($1::int[], $2::text[], $3::text[], $4::bytea[]) AS t (place, record_key, source, digest),
     LATERAL (SELECT r.verdict FROM import_record r
              WHERE r.record_key = t.record_key AND r.source = t.source AND r.digest = t.digest
                AND r.policy_version IS NOT DISTINCT FROM $5::int AND r.import_id <> $6 LIMIT 1) AS found
"""
_SAVE_RECORDS = """
INSERT INTO import_record (record_key, source, digest, verdict, import_id, policy_version)
SELECT record_key, source, digest, verdict, $5, $6
FROM unnest($1::text[], $2::text[], $3::bytea[], $4::text[]) AS t (record_key, source, digest, verdict)
ON CONFLICT (record_key, source) DO UPDATE
SET digest = excluded.digest, verdict = excluded.verdict, import_id = excluded.import_id, policy_version = excluded.policy_version
"""
_PRUNE_RECORDS = """
DELETE FROM import_record WHERE (record_key, source) IN (
    SELECT record_key, source FROM import_record WHERE import_id < $1 LIMIT $2)
"""


class Job(Struct, frozen=True):
    """One import as it stands. `bytes_done` and `row_number`: the place up to which rows were taken."""

    import_id: UUID
    source: str
    caller: str
    state: State
    dry_run: bool
    plan: Plan | None
    bytes_received: int
    bytes_done: int
    row_number: int
    counts: Counts
    quality: Report
    rows_per_s: float | None
    bytes_per_s: float | None
    error: str | None
    cancel_requested: bool
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    updated_at: datetime


class Progress(Struct, frozen=True):
    """Where an import stands after some more rows. `from_byte`: the byte where they began."""

    from_byte: int
    bytes_done: int
    row_number: int
    counts: Counts
    quality: Report
    rows_per_s: float
    bytes_per_s: float


# the job -----------------------------------------------------------------------------------------------------------
async def create(
    connection: asyncpg.Connection, import_id: UUID, source: str, caller: str, *, dry_run: bool, now: datetime
) -> None:
    """A new job, whose file is being received."""
    await connection.execute(_CREATE, import_id, source, caller, dry_run, now)


async def queue(connection: asyncpg.Connection, import_id: UUID, plan: Plan, now: datetime) -> bool:
    """The whole file is there; False if it is not awaited any more."""
    done = await connection.execute(_QUEUE, import_id, plan.model_dump_json(), plan.start, plan.number, now)
    return bool(done == "UPDATE 1")


async def find(connection: asyncpg.Connection, import_id: UUID, *, lock: bool = False) -> Job | None:
    """The job with this id; locked until the commit if asked."""
    row = await connection.fetchrow(_LOCK if lock else _FIND, import_id)
    return None if row is None else _job(row)


async def give_up(connection: asyncpg.Connection, import_id: UUID, now: datetime, error: str) -> None:
    """Have an import failed of which something that was kept cannot be read, without that, so that it can be shown."""
    await connection.execute(_GIVE_UP, import_id, error, now)


async def page(connection: asyncpg.Connection, before: UUID, rows: int, source: str | None) -> list[Job]:
    """Jobs that began before the one with this id, latest first."""
    return [_job(row) for row in await connection.fetch(_PAGE, before, rows, source)]


async def find_waiting(connection: asyncpg.Connection, excluding: Sequence[UUID], rows: int) -> list[UUID]:
    """Imports but these that have rows to be taken and that nobody works on, oldest first."""
    return [row["import_id"] for row in await connection.fetch(_OPEN, excluding, rows)]


async def lease(session: asyncpg.Connection, import_id: UUID) -> bool:
    """Take the lease of an import, which lasts as long as this connection; False if somebody has it."""
    taken: bool = await session.fetchval(_LEASE, import_id)
    return taken


async def begin(connection: asyncpg.Connection, import_id: UUID, now: datetime) -> bool:
    """Say that it is worked on; False if there is nothing to be done."""
    return bool(await connection.execute(_BEGIN, import_id, now) == "UPDATE 1")


async def advance(connection: asyncpg.Connection, import_id: UUID, progress: Progress, now: datetime) -> bool | None:
    """Move on; whether somebody has asked to cancel it. None: it is not where `from_byte` says, so nothing may be written."""
    row = await connection.fetchrow(
        _ADVANCE,
        import_id,
        progress.from_byte,
        progress.bytes_done,
        progress.row_number,
        _text(asdict(progress.counts)),
        _text(progress.quality.document()),
        progress.rows_per_s,
        progress.bytes_per_s,
        now,
    )
    return None if row is None else row["cancel_requested"]


async def restart(connection: asyncpg.Connection, import_id: UUID, plan: Plan, now: datetime) -> None:
    """Back to the first row, as only a dry run may."""
    await connection.execute(_RESTART, import_id, plan.start, plan.number, now)
    await connection.execute(_DROP_FAILURES, import_id)


async def end(
    connection: asyncpg.Connection,
    import_id: UUID,
    state: State,
    now: datetime,
    *,
    error: str | None = None,
    rows_per_s: float | None = None,
) -> None:
    """It came to its end; what is left of its file goes."""
    await connection.execute(_END, import_id, state, error, now, rows_per_s)
    await connection.execute(_DROP_BLOCKS, import_id, 2**62)


async def remove(connection: asyncpg.Connection, import_id: UUID) -> None:
    """As if it had never been: the request is answered by an earlier one."""
    await connection.execute(_REMOVE, import_id)
    await connection.execute(_DROP_BLOCKS, import_id, 2**62)


async def open_counts(connection: asyncpg.Connection, caller: str) -> tuple[int, int]:
    """Imports that have not ended: all, and those of this caller."""
    (row,) = await connection.fetch(_OPEN_COUNTS, caller)
    return row["every"], row["own"]


async def lock_opening(connection: asyncpg.Connection) -> None:
    """Let no other import begin before this transaction has ended, so that those that are open can be counted."""
    await connection.execute(_LOCK_OPENING)


async def request_cancel(connection: asyncpg.Connection, import_id: UUID) -> None:
    """Whoever works on it will stop."""
    await connection.execute(_REQUEST_CANCEL, import_id)


async def find_abandoned(connection: asyncpg.Connection, before: datetime) -> list[UUID]:
    """Imports of whose file nothing has come since then, locked."""
    return [row["import_id"] for row in await connection.fetch(_ABANDONED, before)]


# its file ----------------------------------------------------------------------------------------------------------
async def add_block(
    connection: asyncpg.Connection, import_id: UUID, first_byte: int, content: bytes, now: datetime
) -> bool:
    """Keep the next block; False if it is not awaited any more."""
    return bool(await connection.execute(_ADD_BLOCK, import_id, first_byte, content, now) == "INSERT 0 1")


async def block_at(connection: asyncpg.Connection, import_id: UUID, byte: int) -> tuple[int, bytes] | None:
    """First byte and content of the block in which `byte` is; None behind the last one."""
    row = await connection.fetchrow(_BLOCK, import_id, byte)
    if row is None or byte >= row["first_byte"] + len(row["content"]):
        return None
    return row["first_byte"], row["content"]


async def drop_blocks(connection: asyncpg.Connection, import_id: UUID, before: int) -> None:
    """Blocks that begin before this byte are done with."""
    await connection.execute(_DROP_BLOCKS, import_id, before)


# its rows ----------------------------------------------------------------------------------------------------------
async def save_chunk(
    connection: asyncpg.Connection, import_id: UUID, first_row: int, outcomes: int, results: bytes
) -> None:
    """What became of some rows, from this one on: which outcomes there are (bits), and the packed results."""
    await connection.execute(_SAVE_CHUNK, import_id, first_row, outcomes, results)


async def chunks(
    connection: asyncpg.Connection, import_id: UUID, from_row: int, outcomes: int, behind: int, limit: int
) -> list[tuple[int, bytes]]:
    """First row and packed results of the chunks that hold that row and later ones and have one of these outcomes (bits), in order; those
    whose first row comes after `behind`."""
    found = await connection.fetch(_CHUNKS, import_id, from_row, outcomes, behind, limit)
    return [(row["first_row"], row["results"]) for row in found]


async def save_failures(connection: asyncpg.Connection, import_id: UUID, failures: Sequence[Failure]) -> None:
    """Keep rows for the file of errors."""
    if failures:
        records = [(import_id, *failure[:4], list(failure.keys)) for failure in failures]
        await connection.copy_records_to_table("import_failure", records=records, columns=_FAILURE_COLUMNS)


async def failures(connection: asyncpg.Connection, import_id: UUID, after: int, limit: int) -> list[Failure]:
    """Rows for the file of errors, those behind row `after`."""
    found = await connection.fetch(_FAILURES, import_id, after, limit)
    return [Failure(row["row_number"], row["outcome"], row["error"], row["content"]) for row in found]


async def prune_chunks(connection: asyncpg.Connection, before: datetime, rows: int) -> int:
    """Drop what became of single rows of imports that ended before then, so many chunks at most; how many."""
    return int((await connection.execute(_PRUNE_CHUNKS, before, rows)).rpartition(" ")[2])


# what would become of its rows -------------------------------------------------------------------------------------
async def begin_preview(session: asyncpg.Connection) -> None:
    """Nothing is foreseen yet. What is foreseen lasts as long as this connection."""
    await session.execute(_BEGIN_PREVIEW)


async def find_previewed(session: asyncpg.Connection, hashes: Sequence[int]) -> dict[int, str]:
    """What stands for the leads of keys that earlier rows would have taken, by the keys' hashes."""
    return {row["key_hash"]: row["lead"] for row in await session.fetch(_FIND_PREVIEWED, hashes)}


async def save_previewed(session: asyncpg.Connection, taken: Mapping[int, str]) -> None:
    """Rows would take these keys."""
    await session.execute(_SAVE_PREVIEWED, list(taken), list(taken.values()))


async def find_unchanged(
    connection: asyncpg.Connection, import_id: UUID, records: Mapping[int, Record], policy_version: int | None
) -> dict[int, str]:
    """Of records by row those of which their source said the same last, in an earlier import and under the same policy: row → verdict."""
    rows = [(number, *record) for number, record in records.items()]
    found = (
        await connection.fetch(_UNCHANGED, *map(list, zip(*rows, strict=True)), policy_version, import_id)
        if rows
        else []
    )
    return {row["place"]: row["verdict"] for row in found}


async def save_records(
    connection: asyncpg.Connection, import_id: UUID, records: Sequence[tuple[Record, str]], policy_version: int | None
) -> None:
    """What was said last of these, and the verdict on it. The last of several of one record counts."""
    last = {(record.key, record.source): (record.digest, verdict) for record, verdict in records}
    if last:
        rows = [(*key, *last[key]) for key in sorted(last)]
        await connection.execute(_SAVE_RECORDS, *map(list, zip(*rows, strict=True)), import_id, policy_version)


async def prune_records(connection: asyncpg.Connection, before: UUID, rows: int) -> int:
    """Forget what was said in imports that began before this id was made, so many records at most; how many."""
    return int((await connection.execute(_PRUNE_RECORDS, before, rows)).rpartition(" ")[2])


def _job(row: asyncpg.Record) -> Job:
    values: dict[str, Any] = dict(row)
    plan = from_json(values["plan"])
    values["plan"] = None if plan is None else Plan.model_validate(plan)
    values["counts"] = Counts(**from_json(values["counts"]))
    values["quality"] = Report.of(from_json(values["quality"]))
    return Job(**values)


def _text(value: object) -> str:
    return orjson.dumps(value).decode()
