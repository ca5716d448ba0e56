"""What-ifs as they are stored: what was asked, how far it has come, its report, and the leads that differ. Decides nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal
from uuid import UUID

import asyncpg
import msgspec
import orjson
from msgspec import Struct

from accord.db import from_json
from qualification.analysis.domain.report import Report
from qualification.analysis.domain.what_if import Difference, Sums

State = Literal["queued", "running", "done", "failed", "cancelled"]

FIRST_LEAD = UUID(int=0)
_SUMS = msgspec.json.Decoder(Sums)
_REPORT = msgspec.json.Decoder(Report)

# One writer to the queue, so that its bound holds.
_LOCK_QUEUE = "SELECT pg_advisory_xact_lock(hashtextextended('accord-what-if-queue', 0))"

# Whoever holds it is at work; it goes with the transaction, also where the process dies.
_LOCK_WORKER = "SELECT pg_try_advisory_lock(hashtextextended('accord-what-if-work', 0))"

_COLUMNS = """
    what_if_id, version, content_sha256, since, until, grouped_by, state, requested_by, requested_at, started_at, finished_at, after, leads,
    leads_done, leads_per_s, error
"""

_OPEN_COUNT = "SELECT count(*) FROM what_if WHERE state IN ('queued', 'running')"

_ADD = """
INSERT INTO what_if (
    what_if_id, version, content, content_sha256, since, until, grouped_by, state, requested_by, requested_at, after, leads_done
)
VALUES ($1, $2, $3::jsonb, $4, $5, $6, $7::jsonb, 'queued', $8, $9, $10, 0)
"""

# Those that have ended, but for the newest.
_DROP = """
WITH gone AS (
    DELETE FROM what_if WHERE what_if_id IN (
        SELECT what_if_id FROM what_if WHERE state NOT IN ('queued', 'running') ORDER BY what_if_id DESC OFFSET $1
    ) RETURNING what_if_id
)
DELETE FROM what_if_lead WHERE what_if_id IN (SELECT what_if_id FROM gone)
"""

_FIND = f"SELECT {_COLUMNS} FROM what_if WHERE what_if_id = $1"
_REPORT_OF = "SELECT report::text FROM what_if WHERE what_if_id = $1"
_PAGE = f"SELECT {_COLUMNS} FROM what_if WHERE what_if_id < $1 ORDER BY what_if_id DESC LIMIT $2"
_NEXT = f"SELECT {_COLUMNS} FROM what_if WHERE state IN ('queued', 'running') ORDER BY what_if_id LIMIT 1"
_CONTENT = "SELECT content::text FROM what_if WHERE what_if_id = $1"
_SUMS_OF = "SELECT sums::text FROM what_if WHERE what_if_id = $1"

_CANCEL = """
UPDATE what_if SET state = 'cancelled', finished_at = $2, sums = NULL WHERE what_if_id = $1 AND state IN ('queued', 'running')
"""
_FAIL = """
UPDATE what_if SET state = 'failed', finished_at = $2, sums = NULL, error = $3 WHERE what_if_id = $1 AND state IN ('queued', 'running')
"""

# A merged lead is part of its survivor, and an erased one of nothing.
CAPTURED = """
    lead.profile IS NOT NULL AND lead.merged_into IS NULL AND NOT lead.erased
    AND (lead.profile ->> 'captured_at')::timestamptz >= $1 AND (lead.profile ->> 'captured_at')::timestamptz < $2
"""

_COUNT = f"SELECT count(*) FROM lead WHERE {CAPTURED}"

_ACTIVITIES_COUNTED_MAX = 20_000
ACTIVITY_COUNT = f"""
    (SELECT count(*) FROM (SELECT FROM activity WHERE activity.lead_id = lead.lead_id LIMIT {_ACTIVITIES_COUNTED_MAX}) AS newest
    ) AS activities
"""

_LEADS = f"""
SELECT lead_id, {ACTIVITY_COUNT}
FROM lead WHERE {CAPTURED} AND lead_id > $3
ORDER BY lead_id LIMIT $4
"""

_BEGIN = "UPDATE what_if SET state = 'running', started_at = $2, leads = $3 WHERE what_if_id = $1 AND state = 'queued'"

# Whoever finds another place than it left has been overtaken, or it was cancelled: nothing is counted twice.
_ADVANCE = """
UPDATE what_if SET after = $3, leads_done = leads_done + $4, leads_per_s = $5, sums = $6::jsonb
WHERE what_if_id = $1 AND after = $2 AND state = 'running'
"""

_LIST = """
INSERT INTO what_if_lead (what_if_id, stage, lead_id, did_enter_at, would_enter_at)
SELECT $1, stage, lead_id, did_enter_at, would_enter_at
FROM unnest($2::text[], $3::uuid[], $4::timestamptz[], $5::timestamptz[]) AS row (stage, lead_id, did_enter_at, would_enter_at)
ORDER BY stage, lead_id
"""

_FINISH = """
UPDATE what_if SET state = 'done', finished_at = $3, sums = NULL, report = $4::jsonb
WHERE what_if_id = $1 AND after = $2 AND state = 'running'
"""

# Of a person erased since nothing is shown.
_DIFFERING = """
SELECT row.stage, row.lead_id, row.did_enter_at, row.would_enter_at
FROM what_if_lead AS row
JOIN lead ON lead.lead_id = row.lead_id AND NOT lead.erased
WHERE row.what_if_id = $1 AND ($2::text IS NULL OR row.stage = $2) AND (row.stage, row.lead_id) > ($3, $4)
ORDER BY row.stage, row.lead_id LIMIT $5
"""


class WhatIf(Struct, frozen=True):
    """One what-if as it stands. The period is [since, until) of capture; the leads after `after` are still to be judged.

    `leads` is how many there were when it began, `leads_per_s` the rate of late.
    """

    what_if_id: UUID
    version: int
    content_sha256: str
    since: datetime
    until: datetime
    by: tuple[str, ...]
    state: State
    requested_by: str
    requested_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    after: UUID
    leads: int | None
    leads_done: int
    leads_per_s: float | None
    error: str | None


class NewWhatIf(Struct, frozen=True):
    """A what-if that is to be queued."""

    what_if_id: UUID
    version: int
    content: str
    content_sha256: str
    since: datetime
    until: datetime
    by: Sequence[str]
    requested_by: str
    requested_at: datetime


def _parse_what_if(row: asyncpg.Record) -> WhatIf:
    values = {name: row[name] for name in WhatIf.__struct_fields__ if name != "by"}
    return WhatIf(**values, by=tuple(from_json(row["grouped_by"])))


async def lock_and_count_open(connection: asyncpg.Connection) -> int:
    """How many wait or are being worked on; nobody else adds one before this transaction ends."""
    await connection.execute(_LOCK_QUEUE)
    return int(await connection.fetchval(_OPEN_COUNT))


async def insert(connection: asyncpg.Connection, new: NewWhatIf, ended_max: int) -> None:
    """Queue it. Of those that have ended the newest so many are kept."""
    await connection.execute(_DROP, ended_max)
    await connection.execute(
        _ADD,
        new.what_if_id,
        new.version,
        new.content,
        new.content_sha256,
        new.since,
        new.until,
        orjson.dumps(new.by).decode(),
        new.requested_by,
        new.requested_at,
        FIRST_LEAD,
    )


async def read(connection: asyncpg.Connection, what_if_id: UUID) -> WhatIf | None:
    """The what-if with this id."""
    row = await connection.fetchrow(_FIND, what_if_id)
    return None if row is None else _parse_what_if(row)


async def read_report(connection: asyncpg.Connection, what_if_id: UUID) -> Report | None:
    """Its report, None before it is done."""
    stored = await connection.fetchval(_REPORT_OF, what_if_id)
    return None if stored is None else _REPORT.decode(stored)


async def fetch_page(connection: asyncpg.Connection, before: UUID, rows_max: int) -> list[WhatIf]:
    """Those asked before this one, latest first."""
    return [_parse_what_if(row) for row in await connection.fetch(_PAGE, before, rows_max)]


async def cancel(connection: asyncpg.Connection, what_if_id: UUID, now: datetime) -> None:
    """It ends here, if it has not ended."""
    await connection.execute(_CANCEL, what_if_id, now)


async def fail(connection: asyncpg.Connection, what_if_id: UUID, now: datetime, error: str) -> None:
    """It ends here with an error, if it has not ended."""
    await connection.execute(_FAIL, what_if_id, now, error)


async def fetch_differences(
    connection: asyncpg.Connection, what_if_id: UUID, stage: str | None, after: tuple[str, UUID], rows_max: int
) -> list[Difference]:
    """The leads that differ, by stage and id, after this place."""
    return [Difference(*row) for row in await connection.fetch(_DIFFERING, what_if_id, stage, *after, rows_max)]


# --- For the worker ---


async def try_lock_worker(session: asyncpg.Connection) -> bool:
    """Whether this session is, until it ends, the only one at work, here or in another process."""
    return bool(await session.fetchval(_LOCK_WORKER))


async def read_next_open(connection: asyncpg.Connection) -> WhatIf | None:
    """The oldest that has not ended."""
    row = await connection.fetchrow(_NEXT)
    return None if row is None else _parse_what_if(row)


async def read_content(connection: asyncpg.Connection, what_if_id: UUID) -> str:
    """The content of the version that was asked about, as JSON."""
    return str(await connection.fetchval(_CONTENT, what_if_id))


async def read_sums(connection: asyncpg.Connection, what_if_id: UUID) -> Sums:
    """What is counted so far."""
    stored = await connection.fetchval(_SUMS_OF, what_if_id)
    return Sums() if stored is None else _SUMS.decode(stored)


async def count_leads(connection: asyncpg.Connection, since: datetime, until: datetime) -> int:
    """How many leads were captured in the period."""
    return int(await connection.fetchval(_COUNT, since, until))


async def fetch_leads(
    connection: asyncpg.Connection, since: datetime, until: datetime, after: UUID, rows_max: int
) -> list[tuple[UUID, int]]:
    """The next leads captured in the period, in the order of their ids, each with how many activities are folded of it."""
    return [
        (row["lead_id"], row["activities"]) for row in await connection.fetch(_LEADS, since, until, after, rows_max)
    ]


async def begin(connection: asyncpg.Connection, what_if_id: UUID, now: datetime, leads_count: int) -> None:
    """From here on it is running."""
    await connection.execute(_BEGIN, what_if_id, now, leads_count)


async def advance(
    connection: asyncpg.Connection,
    before: WhatIf,
    after: UUID,
    leads_done: int,
    leads_per_s: float,
    counted: Sums,
    differences: Sequence[Difference],
) -> bool:
    """Save what is counted by now, of so many more leads; False if somebody else has, or has cancelled it, and nothing was saved."""
    sums_json = msgspec.json.encode(counted).decode()
    moved = await connection.execute(
        _ADVANCE, before.what_if_id, before.after, after, leads_done, leads_per_s, sums_json
    )
    if moved == "UPDATE 0":
        return False
    if differences:
        await connection.execute(_LIST, before.what_if_id, *(list(column) for column in zip(*differences, strict=True)))
    return True


async def finish(connection: asyncpg.Connection, what_if: WhatIf, now: datetime, report: Report) -> None:
    """It is done, and this is what came of it."""
    await connection.execute(_FINISH, what_if.what_if_id, what_if.after, now, msgspec.json.encode(report).decode())
