"""Who was given which lead and why, appended once; leads that wait for somebody; and pages of one person's leads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import asyncpg
from msgspec import Struct
from msgspec.structs import asdict

from accord.db import bulk
from accord.isolation import is_resting
from qualification import tables

_INSERT = bulk.insert(tables.assignment)

_GIVE = """
UPDATE lead SET owner = given.owner, sequence = given.sequence, revision = lead.revision + $4, changed_at = $5
FROM unnest($1::uuid[], $2::text[], $3::bigint[]) AS given (lead_id, owner, sequence)
WHERE lead.lead_id = given.lead_id
"""

_RELEASE = "UPDATE lead SET owner = NULL WHERE lead_id = ANY ($1::uuid[]) AND owner IS NOT NULL"
_FORGET = """
UPDATE assignment SET explanation = NULL, reason = NULL
WHERE (explanation IS NOT NULL OR reason IS NOT NULL)
    AND lead_id IN (SELECT lead_id FROM lead WHERE lead_id = ANY ($1::uuid[]) OR merged_into = ANY ($1::uuid[]))
"""

_LAST = """
SELECT DISTINCT ON (lead_id) lead_id, assignment_id, owner, previous_owner, occurred_at FROM assignment WHERE lead_id = ANY ($1::uuid[])
ORDER BY lead_id, sequence DESC
"""

_ANSWERED = """
SELECT breach_id FROM assignment WHERE breach_id = ANY ($1::uuid[])
UNION
SELECT breach_id FROM waiting_lead WHERE breach_id = ANY ($1::uuid[])
"""

_PAGE = """
SELECT assignment_id, sequence, owner, previous_owner, pool, cause, reason, actor, clause, breach_id, routing_version, why,
    explanation::text, occurred_at, recorded_at
FROM assignment WHERE lead_id = $1 AND sequence > $2 ORDER BY sequence LIMIT $3
"""

_WAIT = bulk.upsert(
    tables.waiting_lead,
    [column.name for column in tables.waiting_lead.columns],
    key=["lead_id"],
    changing=["pool", "tried_at", "routing_version", "avoid", "clause", "breach_id", "clock_id"],
)

_WAIT_NO_MORE = "DELETE FROM waiting_lead WHERE lead_id = ANY ($1::uuid[])"
_BREACH_IS_OVER = "DELETE FROM waiting_lead WHERE clock_id = ANY ($1::uuid[])"
_WAITING = """
SELECT lead_id, pool, routing_version, avoid, clause, breach_id, clock_id FROM waiting_lead WHERE lead_id = ANY ($1::uuid[])
"""
_IN_POOLS = """
SELECT DISTINCT pool FROM unnest($1::text[]) AS asked (pool)
WHERE EXISTS (SELECT FROM waiting_lead WHERE waiting_lead.pool = asked.pool)
"""
ASSIGNMENT_WORKER = "assign-waiting-leads"
"""The worker by whose name leads rest."""

IS_WAITING = "EXISTS (SELECT FROM waiting_lead WHERE waiting_lead.lead_id = stuck_row.key)"
"""Whether a lead that rests still waits for somebody."""

_MAY_BE_NEXT = (
    f"($4::uuid[] IS NULL OR lead_id = ANY ($4)) AND NOT {is_resting(ASSIGNMENT_WORKER, 'waiting_lead.lead_id')}"
)
_NEXT = f"""
(SELECT lead_id FROM waiting_lead WHERE routing_version < $2 AND {_MAY_BE_NEXT} LIMIT $3)
UNION
SELECT next.lead_id FROM unnest($1::text[]) AS asked (pool)
CROSS JOIN LATERAL (
    SELECT lead_id FROM waiting_lead WHERE waiting_lead.pool = asked.pool AND {_MAY_BE_NEXT} ORDER BY tried_at LIMIT $3
) AS next
LIMIT $3
"""
_COUNT = """
SELECT asked.pool, counted.leads FROM unnest($1::text[]) AS asked (pool)
CROSS JOIN LATERAL (
    SELECT count(*) AS leads FROM (SELECT 1 FROM waiting_lead WHERE waiting_lead.pool = asked.pool LIMIT $2) AS first
) AS counted
"""
_WAITS = """
SELECT asked.wait, count(waiting.lead_id), coalesce(extract(epoch FROM clock_timestamp() - min(waiting.since)), 0)::float8
FROM (VALUES ('owner', false), ('another', true)) AS asked (wait, owned)
LEFT JOIN waiting_lead AS waiting ON (waiting.breach_id IS NOT NULL) = asked.owned
GROUP BY asked.wait
"""

_OWNED = """
SELECT lead_id, profile ->> 'source' AS source, (profile ->> 'captured_at')::timestamptz AS captured_at, stage, stage_since,
    visits::text AS visits, owner, fit, engagement, grade, definition_version
FROM lead
WHERE owner = $1 AND profile IS NOT NULL AND coalesce(stage = ANY ($2::text[]), false) = $3 AND lead_id > $4
ORDER BY lead_id
LIMIT $5
"""


class AssignmentRow(Struct, frozen=True):
    """One assignment, made at `occurred_at`. `explanation` is JSON text, None where a person or a merge decided."""

    lead_id: UUID
    assignment_id: UUID
    sequence: int
    owner: str | None
    previous_owner: str | None
    pool: str | None
    cause: str
    why: str
    occurred_at: datetime
    reason: str | None = None
    actor: str | None = None
    clause: str | None = None
    breach_id: UUID | None = None
    routing_version: int | None = None
    explanation: str | None = None


class Waiting(Struct, frozen=True):
    """A lead that nobody could be given, or that could not be taken away from `avoid` after a breach.

    `pool` is empty until somebody has been looked for at all.
    """

    lead_id: UUID
    pool: str
    routing_version: int
    avoid: str | None = None
    clause: str | None = None
    breach_id: UUID | None = None
    clock_id: UUID | None = None


async def insert(
    connection: asyncpg.Connection, rows: Sequence[AssignmentRow], now: datetime, *, bump_revision: bool
) -> None:
    """Keep these assignments and write the owners and sequences of their leads, by one statement each; of several of a lead the last.

    `bump_revision`: the leads' revision grows by one; else another statement of the transaction has seen to that.
    """
    if not rows:
        return
    await _INSERT.execute(connection, [{**asdict(row), "recorded_at": now} for row in rows])
    last = {row.lead_id: row for row in rows}
    owners, sequences = [row.owner for row in last.values()], [row.sequence for row in last.values()]
    await connection.execute(_GIVE, list(last), owners, sequences, 1 if bump_revision else 0, now)


async def release(connection: asyncpg.Connection, lead_ids: Sequence[UUID]) -> None:
    """Let nobody have these leads, without a word: they are gone."""
    if lead_ids:
        await connection.execute(_RELEASE, lead_ids)


async def erase(connection: asyncpg.Connection, lead_ids: Sequence[UUID]) -> None:
    """Drop the explanations about erased persons, which quote attributes, and the words of those who gave them away, also under leads
    that were merged into theirs. They wait for nobody."""
    if lead_ids:
        await connection.execute(_FORGET, lead_ids)
        await delete_waiting(connection, lead_ids)


class LastAssignment(NamedTuple):
    """The newest assignment of a lead."""

    assignment_id: UUID
    owner: str | None
    previous_owner: str | None
    occurred_at: datetime


async def find_last_assignments(connection: asyncpg.Connection, lead_ids: Sequence[UUID]) -> dict[UUID, LastAssignment]:
    """How these leads were last given to somebody, under their own ids."""
    rows = await connection.fetch(_LAST, lead_ids)
    return {row[0]: LastAssignment(*row[1:]) for row in rows}


async def find_handled_breaches(connection: asyncpg.Connection, breaches: Iterable[UUID]) -> set[UUID]:
    """Those of these breaches after which a lead was given to somebody else already, or waits to be."""
    return {row[0] for row in await connection.fetch(_ANSWERED, sorted(breaches))}


async def fetch_page(connection: asyncpg.Connection, lead_id: UUID, after: int, rows_max: int) -> list[asyncpg.Record]:
    """Assignments of one lead after a sequence, oldest first."""
    rows: list[asyncpg.Record] = await connection.fetch(_PAGE, lead_id, after, rows_max)
    return rows


async def upsert_waiting(connection: asyncpg.Connection, rows: Sequence[Waiting], now: datetime) -> None:
    """Have these leads wait; those that do already are noted as tried."""
    times = {"since": now, "tried_at": now}
    ordered = sorted(rows, key=lambda row: row.lead_id)
    await _WAIT.execute(connection, [{**asdict(row), **times} for row in ordered])


async def delete_waiting(connection: asyncpg.Connection, lead_ids: Sequence[UUID]) -> None:
    """Have these leads wait no longer."""
    if lead_ids:
        await connection.execute(_WAIT_NO_MORE, lead_ids)


async def measure_waiting(connection: asyncpg.Connection) -> dict[str, tuple[int, float]]:
    """How many leads wait for an `owner` or for `another`, and for how many seconds the oldest has."""
    return {upsert_waiting: (count, age_s) for upsert_waiting, count, age_s in await connection.fetch(_WAITS)}


async def delete_waiting_of_clocks(connection: asyncpg.Connection, clocks: Sequence[UUID]) -> None:
    """Forget what waits only because these clocks were breached."""
    if clocks:
        await connection.execute(_BREACH_IS_OVER, clocks)


async def find_waiting(connection: asyncpg.Connection, lead_ids: Sequence[UUID]) -> dict[UUID, Waiting]:
    """Those of these leads that wait, and why."""
    return {row["lead_id"]: Waiting(*row) for row in await connection.fetch(_WAITING, lead_ids)}


async def find_pools_waited_for(connection: asyncpg.Connection, pools: Iterable[str]) -> list[str]:
    """Those of these pools in which any lead waits."""
    return [row[0] for row in await connection.fetch(_IN_POOLS, sorted(pools))]


async def claim_waiting(
    connection: asyncpg.Connection,
    pools: Sequence[str],
    version: int,
    rows_max: int,
    only: Sequence[UUID] | None = None,
) -> list[UUID]:
    """Leads to try next: those last tried under an older version, and those tried longest ago in these pools; none that rests.

    `only` asks for some.
    """
    return [row[0] for row in await connection.fetch(_NEXT, pools, version, rows_max, only)]


async def count_waiting(connection: asyncpg.Connection, pools: Iterable[str], counted_max: int) -> dict[str, int]:
    """How many leads wait in each of these pools, up to so many."""
    return {row["pool"]: row["leads"] for row in await connection.fetch(_COUNT, sorted(pools), counted_max)}


async def fetch_owned(
    connection: asyncpg.Connection, owner: str, stages: Sequence[str], after: UUID, rows_max: int, *, opened: bool
) -> list[asyncpg.Record]:
    """The next leads of one person that are in these stages (`opened`), or in others."""
    rows: list[asyncpg.Record] = await connection.fetch(_OWNED, owner, stages, opened, after, rows_max)
    return rows
