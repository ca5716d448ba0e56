"""SQL that removes a person: every row of every table of intake's database in which they are, and the record that stays."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import asyncpg
import orjson
from msgspec import Struct

from intake.leads.domain.keys import IdentityKey
from intake.leads.domain.lead import Lead
from intake.leads.queries import merge_group
from intake.leads.queries.leads import ConcurrentMerge, delete_leads, execute_counting, lock_keys, lock_leads
from intake.privacy.domain import ErasureRecord, PersonRecord

KEYS_LOCKED_MAX = 1_000
"""Identity keys of one person that are locked at most; the server has some thousands of such locks for everybody. Beyond them the locked
rows of the leads keep the order, since whoever decides about a key locks its lead too."""

_ALONE = "SELECT pg_advisory_xact_lock(hashtextextended('accord-erasure:' || $1, 0))"
_KEYS = "SELECT kind, value FROM identity_key WHERE lead_id = ANY ($1::uuid[])"
# Those of the leads, and those that wait, were refused or discarded and name one of the person's keys, also where they hang on another.
_SUBMISSIONS = """
SELECT submission_id, lead_id, verdict = 'quarantined' AND settled IS NULL AS waits FROM submission
WHERE lead_id = ANY ($1::uuid[]) OR (keys IS NOT NULL AND keys && $2::text[])
ORDER BY submission_id FOR UPDATE
"""
_HELD_ONCE = (
    "SELECT DISTINCT lead_id FROM quarantine_decision WHERE submission_id = ANY ($1::uuid[]) AND lead_id IS NOT NULL"
)

_OF_SUBMISSIONS = {
    "quarantine_decisions": "DELETE FROM quarantine_decision WHERE submission_id = ANY ($1::uuid[])",
    "submissions": "DELETE FROM submission WHERE submission_id = ANY ($1::uuid[])",
}
_OF_KEYS = {
    "hook_events": "DELETE FROM hook_event WHERE keys && $1::text[]",
    "import_failures": "DELETE FROM import_failure WHERE keys && $1::text[]",
    "import_records": "DELETE FROM import_record WHERE record_key = ANY ($1::text[])",
}
_DEAD_LETTERS = "DELETE FROM dead_letter WHERE key = ANY ($1::text[])"
# A company's name is what somebody typed; where nobody else is of it, it may be that person's own.
_ACCOUNTS = """
UPDATE account a SET name = NULL
WHERE a.account_id = ANY ($1::uuid[]) AND a.name IS NOT NULL
  AND NOT EXISTS (SELECT FROM lead l WHERE l.account_id = a.account_id AND l.merged_into IS NULL)
"""
_TOMBSTONES = """
INSERT INTO erased_id (id, kind, erasure_id)
SELECT id, kind, $3 FROM unnest($1::uuid[], $2::text[]) AS t (id, kind) ORDER BY id ON CONFLICT (id) DO NOTHING
"""
_PROVE = """
INSERT INTO erasure (erasure_id, lead_ids, reason, caller, policy_version, removed, recorded_at)
VALUES ($1, $2, $3, $4, $5, $6::jsonb, $7)
"""
_PROOF = (
    "SELECT erasure_id, lead_ids, reason, caller, policy_version, removed::text AS removed, recorded_at FROM erasure"
)
_ONE = f"{_PROOF} WHERE erasure_id = $1"
_PAGE = f"{_PROOF} WHERE ($1::uuid IS NULL OR erasure_id < $1) ORDER BY erasure_id DESC LIMIT $2"


class Submissions(Struct, frozen=True):
    """A person's submissions: all, those of them that still wait, and the leads that were once pending for them."""

    all: list[UUID]
    waiting: list[UUID]
    former_lead_ids: list[UUID]
    waiting_elsewhere: list[UUID]
    """Those of `waiting` that hang on somebody else's lead, by a key that both have."""


async def lock_erasure(connection: asyncpg.Connection, lead_id: UUID) -> None:
    """Let nobody else erase the person under this id until the commit: two who do would meet in saved answers in no order."""
    ids = await merge_group.find_lead_ids(connection, lead_id)
    await connection.fetch(_ALONE, str(ids[0] if ids else lead_id))


async def find_person(
    connection: asyncpg.Connection, lead_id: UUID
) -> tuple[list[UUID], frozenset[IdentityKey]] | None:
    """The leads and keys of the person under this id as they are at this moment, without a lock."""
    ids = await merge_group.find_lead_ids(connection, lead_id)
    return (ids, await _keys_of(connection, ids)) if ids else None


async def lock_person(connection: asyncpg.Connection, ids: list[UUID], keys: frozenset[IdentityKey]) -> PersonRecord:
    """Lock all of a person: keys first, then leads, as everybody does. Raises ConcurrentMerge if it has changed since it was found."""
    await lock_keys(connection, sorted(keys)[:KEYS_LOCKED_MAX])
    leads: dict[UUID, Lead] = await lock_leads(connection, ids)
    now = await find_person(connection, ids[0])
    if now is None or now[0] != ids or now[1] != keys or len(leads) != len(ids):
        raise ConcurrentMerge
    return PersonRecord(ids[0], leads, keys)


async def submissions(connection: asyncpg.Connection, person: PersonRecord) -> Submissions:
    """The submissions of a locked person, locked."""
    rows = await connection.fetch(_SUBMISSIONS, person.lead_ids, person.key_words)
    ids = [row["submission_id"] for row in rows]
    execute_once = await connection.fetch(_HELD_ONCE, ids) if ids else []
    waiting = [row for row in rows if row["waits"]]
    return Submissions(
        ids,
        [row["submission_id"] for row in waiting],
        [row[0] for row in execute_once],
        [row["submission_id"] for row in waiting if row["lead_id"] and row["lead_id"] not in person.leads],
    )


async def delete_person(
    connection: asyncpg.Connection, person: PersonRecord, submissions: Submissions
) -> dict[str, int]:
    """Delete all of a locked person; how many rows of what."""
    removed = {name: await execute_counting(connection, sql, person.key_words) for name, sql in _OF_KEYS.items()}
    removed |= {name: await execute_counting(connection, sql, submissions.all) for name, sql in _OF_SUBMISSIONS.items()}
    removed["dead_letters"] = await execute_counting(
        connection, _DEAD_LETTERS, [str(lead_id) for lead_id in person.lead_ids]
    )
    removed |= await delete_leads(connection, person.lead_ids)
    accounts = {lead.account_id for lead in person.leads.values() if lead.account_id is not None}
    removed["account_names"] = await execute_counting(connection, _ACCOUNTS, sorted(accounts))
    return removed


async def save_erasure(connection: asyncpg.Connection, erasure: ErasureRecord, submission_ids: Sequence[UUID]) -> None:
    """Save the record, and the ids as erased."""
    ids = [*erasure.lead_ids, *submission_ids]
    what = ["lead"] * len(erasure.lead_ids) + ["submission"] * len(submission_ids)
    await connection.execute(_TOMBSTONES, ids, what, erasure.erasure_id)
    await connection.execute(
        _PROVE,
        erasure.erasure_id,
        list(erasure.lead_ids),
        erasure.reason,
        erasure.caller,
        erasure.policy_version,
        orjson.dumps(dict(erasure.removed)).decode(),
        erasure.recorded_at,
    )


async def find_erasure(connection: asyncpg.Connection, erasure_id: UUID) -> ErasureRecord | None:
    """One erasure."""
    row = await connection.fetchrow(_ONE, erasure_id)
    return None if row is None else _erasure(row)


async def page(connection: asyncpg.Connection, after: UUID | None, rows_max: int) -> list[ErasureRecord]:
    """Erasures, newest first."""
    return [_erasure(row) for row in await connection.fetch(_PAGE, after, rows_max)]


async def _keys_of(connection: asyncpg.Connection, lead_ids: list[UUID]) -> frozenset[IdentityKey]:
    return frozenset((row[0], row[1]) for row in await connection.fetch(_KEYS, lead_ids))


def _erasure(row: asyncpg.Record) -> ErasureRecord:
    return ErasureRecord(
        row["erasure_id"],
        tuple(row["lead_ids"]),
        row["reason"],
        row["caller"],
        row["policy_version"],
        orjson.loads(row["removed"]),
        row["recorded_at"],
    )
