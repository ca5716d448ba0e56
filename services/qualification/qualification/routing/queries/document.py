"""The routing document's versions, the pointers of its pools, and what routing asks of all leads. Decides nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import orjson
from msgspec import Struct

from qualification.definition.domain.definition import ACTIVITIES_PER_KIND_MAX
from qualification.lifecycle.domain.lead import Activities, microseconds
from qualification.routing.domain.document import CAPACITY_MAX
from qualification.routing.domain.pointer import Pointer

OPEN_COUNTED_MAX = CAPACITY_MAX
"""So many open leads of one person are counted and no more, so that a batch costs the same however many there are."""

_VERSION = "SELECT version, content::text, content_sha256, written_at, written_by FROM routing"
_NEWEST = f"{_VERSION} ORDER BY version DESC LIMIT 1"
_AT = f"{_VERSION} WHERE version = $1"
_NEWEST_NUMBER = "SELECT max(version) FROM routing"
_LIST = "SELECT version, content_sha256, written_at, written_by FROM routing WHERE version < $1 ORDER BY version DESC LIMIT $2"
_WRITE = "INSERT INTO routing (version, content, content_sha256, written_at, written_by) VALUES ($1, $2, $3, $4, $5)"
_POOLS = """
INSERT INTO routing_pool (pool, total, currents) SELECT pool, 0, '{}' FROM unnest($1::text[]) AS named (pool) ORDER BY pool
ON CONFLICT (pool) DO NOTHING
"""
_SWEEP = "INSERT INTO routing_sweep (version, after_stage, after_lead, done) VALUES ($1, '', $2, false)"
_SWEPT_BEFORE = "DELETE FROM routing_sweep WHERE version < $1"

# Writers of documents one after another; readers and pointers are not held up.
_ONE_WRITER = "SELECT pg_advisory_xact_lock(hashtextextended('accord-routing-document', 0))"

_LOCK_POINTERS = "SELECT pool, total, currents::text FROM routing_pool ORDER BY pool FOR UPDATE"
_READ_POINTERS = "SELECT pool, total, currents::text FROM routing_pool"
_MOVE_POINTERS = """
UPDATE routing_pool SET total = moved.total, currents = moved.currents::jsonb
FROM unnest($1::text[], $2::bigint[], $3::text[]) AS moved (pool, total, currents)
WHERE routing_pool.pool = moved.pool
"""

# One short range of the index for each person and open stage.
_OPEN = """
SELECT person.owner, counted.leads
FROM unnest($1::text[]) AS person (owner)
CROSS JOIN LATERAL (
    SELECT count(*) AS leads
    FROM (SELECT 1 FROM lead WHERE lead.owner = person.owner AND lead.stage = ANY ($2::text[]) LIMIT $3) AS first
) AS counted
WHERE counted.leads > 0
"""

_ACCOUNTS = "SELECT account_id, owner FROM account_owner WHERE account_id = ANY ($1::uuid[])"
_KEEP_ACCOUNTS = """
INSERT INTO account_owner AS kept (account_id, owner, since)
SELECT account_id, owner, $3 FROM unnest($1::uuid[], $2::text[]) AS row (account_id, owner)
ORDER BY account_id
ON CONFLICT (account_id) DO UPDATE SET owner = excluded.owner, since = excluded.since
"""

_ACTIVITIES = f"""
SELECT wanted.lead_id, asked.kind, newest.occurred_at
FROM unnest($1::uuid[]) AS wanted (lead_id)
CROSS JOIN unnest($2::text[]) AS asked (kind)
CROSS JOIN LATERAL (
    SELECT activity.occurred_at FROM activity
    WHERE activity.lead_id = wanted.lead_id AND activity.kind = asked.kind
    ORDER BY activity.occurred_at DESC
    LIMIT {ACTIVITIES_PER_KIND_MAX}
) AS newest
"""

_SWEEP_STATE = (
    "SELECT after_stage, after_lead FROM routing_sweep WHERE version = $1 AND NOT done FOR UPDATE SKIP LOCKED"
)
_SWEEP_PAGE = """
SELECT stage, lead_id, owner, stage_since FROM lead
WHERE stage = ANY ($1::text[]) AND stage IS NOT NULL AND (stage, lead_id) > ($2, $3) AND merged_into IS NULL AND NOT erased
ORDER BY stage, lead_id
LIMIT $4
"""
_SWEPT = "UPDATE routing_sweep SET after_stage = $2, after_lead = $3, done = $4 WHERE version = $1"


class Version(Struct, frozen=True):
    """One version of the document, as it was written."""

    version: int
    content: Mapping[str, Any]
    sha256: str
    written_at: datetime
    written_by: str


async def read_newest_number(connection: asyncpg.Connection) -> int | None:
    """The number of the version in force; None while there is none."""
    number: int | None = await connection.fetchval(_NEWEST_NUMBER)
    return number


async def read_newest(connection: asyncpg.Connection) -> Version | None:
    """The version in force."""
    return _version(await connection.fetchrow(_NEWEST))


async def read_version(connection: asyncpg.Connection, number: int) -> Version | None:
    """One version."""
    return _version(await connection.fetchrow(_AT, number))


async def fetch_page(connection: asyncpg.Connection, before: int, rows_max: int) -> list[asyncpg.Record]:
    """Versions below a number, the newest first, without their content."""
    rows: list[asyncpg.Record] = await connection.fetch(_LIST, before, rows_max)
    return rows


async def lock_writers(connection: asyncpg.Connection) -> None:
    """Wait until nobody else writes a document."""
    await connection.execute(_ONE_WRITER)


async def insert_version(connection: asyncpg.Connection, written: Version, pools: Iterable[str]) -> None:
    """Keep a new version, with a pointer for each new pool and all leads without an owner to be looked at."""
    content = orjson.dumps(written.content).decode()
    await connection.execute(_WRITE, written.version, content, written.sha256, written.written_at, written.written_by)
    await connection.execute(_POOLS, sorted(pools))
    await connection.execute(_SWEPT_BEFORE, written.version)
    await connection.execute(_SWEEP, written.version, UUID(int=0))


async def lock_pointers(connection: asyncpg.Connection) -> dict[str, Pointer]:
    """Every pool's pointer, locked until the transaction ends, and with them all that depends on counts of open leads."""
    return {row["pool"]: _pointer(row) for row in await connection.fetch(_LOCK_POINTERS)}


async def read_pointers(connection: asyncpg.Connection) -> dict[str, Pointer]:
    """Every pool's pointer as it stands."""
    return {row["pool"]: _pointer(row) for row in await connection.fetch(_READ_POINTERS)}


async def move_pointers(connection: asyncpg.Connection, moved: Mapping[str, Pointer]) -> None:
    """Write these pointers back."""
    if moved:
        await connection.execute(
            _MOVE_POINTERS,
            list(moved),
            [pointer.total for pointer in moved.values()],
            [orjson.dumps(dict(pointer.currents)).decode() for pointer in moved.values()],
        )


async def count_open_leads(
    connection: asyncpg.Connection, owners: Iterable[str], stages: Iterable[str]
) -> dict[str, int]:
    """How many leads in these stages each person has, up to OPEN_COUNTED_MAX."""
    rows = await connection.fetch(_OPEN, sorted(set(owners)), sorted(stages), OPEN_COUNTED_MAX)
    return {row["owner"]: row["leads"] for row in rows}


async def find_account_owners(connection: asyncpg.Connection, accounts: Iterable[UUID]) -> dict[UUID, str]:
    """Who was last given a lead of these accounts."""
    asked = sorted(set(accounts))
    return {row["account_id"]: row["owner"] for row in await connection.fetch(_ACCOUNTS, asked)} if asked else {}


async def save_account_owners(connection: asyncpg.Connection, given: Mapping[UUID, str], now: datetime) -> None:
    """Note who was given a lead of which account: account → owner. Which lead is not kept: it may be erased, the account not."""
    if given:
        await connection.execute(_KEEP_ACCOUNTS, list(given), list(given.values()), now)


async def load_activities(
    connection: asyncpg.Connection, lead_ids: Sequence[UUID], kinds: Iterable[str]
) -> dict[UUID, Activities]:
    """The newest activities of these kinds, by lead."""
    asked = sorted(kinds)
    if not asked:
        return {}
    found: dict[UUID, dict[str, list[int]]] = {}
    for lead_id, kind, occurred_at in await connection.fetch(_ACTIVITIES, lead_ids, asked):
        found.setdefault(lead_id, {}).setdefault(kind, []).append(microseconds(occurred_at))
    return {lead_id: Activities(moments) for lead_id, moments in found.items()}


async def lock_sweep(connection: asyncpg.Connection, number: int) -> tuple[str, UUID] | None:
    """How far leads without an owner have been looked at for this version; None if all have, or somebody else is at it."""
    row = await connection.fetchrow(_SWEEP_STATE, number)
    return (row["after_stage"], row["after_lead"]) if row is not None else None


async def fetch_sweep_page(
    connection: asyncpg.Connection, stages: Iterable[str], after: tuple[str, UUID], rows_max: int
) -> list[asyncpg.Record]:
    """The next leads in these stages, whoever has them."""
    rows: list[asyncpg.Record] = await connection.fetch(_SWEEP_PAGE, sorted(stages), *after, rows_max)
    return rows


async def save_sweep(connection: asyncpg.Connection, number: int, until: tuple[str, UUID], *, done: bool) -> None:
    """Note how far they have been looked at."""
    await connection.execute(_SWEPT, number, *until, done)


def _pointer(row: asyncpg.Record) -> Pointer:
    return Pointer(row["total"], orjson.loads(row["currents"]))


def _version(row: asyncpg.Record | None) -> Version | None:
    if row is None:
        return None
    return Version(
        row["version"], orjson.loads(row["content"]), row["content_sha256"], row["written_at"], row["written_by"]
    )
