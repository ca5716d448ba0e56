"""SQL on leads and their identity keys: locked and read for a batch, written as one statement per table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import orjson

from accord.contracts.codec import from_object, to_object
from accord.contracts.values import Campaign
from accord.db import bulk, from_json
from intake import tables
from intake.leads.domain.keys import IdentityKey
from intake.leads.domain.lead import PERSON_FIELDS, Lead
from intake.leads.domain.unit_of_work import Merge

_COLUMNS = (
    *(
        "lead_id",
        "source",
        "captured_at",
        "verdict",
        *PERSON_FIELDS,
        "attributes",
        "field_timestamps",
        "account_id",
        "campaign",
    ),
    *("external_keys", "policy_version", "quality_score", "pending", "merged_into", "sequence"),
)
_FIXED = frozenset({"lead_id", "source", "captured_at"})
"""What never changes of a lead."""
_NAMES = ", ".join(_COLUMNS)
# Whoever decides about a key holds its lock until the commit, so the same person posted twice at one instant is decided one
# after the other, in any process. The locks are taken in one order everywhere, so batches do not deadlock.
_LOCK_KEYS = """
SELECT pg_advisory_xact_lock(hash)
FROM (SELECT DISTINCT hashtextextended(kind || ':' || value, 7) AS hash
      FROM unnest($1::text[], $2::text[]) AS k (kind, value) ORDER BY hash) AS sorted
"""
# A lookup by index for each key, whatever the planner thinks of the table's size: it would read all of a smaller one.
_FIND_KEYS = """
SELECT k.kind, k.value, i.lead_id
FROM unnest($1::text[], $2::text[]) AS k (kind, value),
     LATERAL (SELECT lead_id FROM identity_key i WHERE i.kind = k.kind AND i.value = k.value LIMIT 1) i
"""
_DELETE_KEYS = bulk.delete(tables.identity_key, ["kind", "value", "lead_id"])
_LOCK_LEADS = f"SELECT {_NAMES} FROM lead WHERE lead_id = ANY ($1::uuid[]) ORDER BY lead_id FOR UPDATE"
_READ = f"SELECT {_NAMES} FROM lead WHERE lead_id = $1"
_READ_MANY = f"SELECT {_NAMES} FROM lead WHERE lead_id = ANY ($1::uuid[])"
_UPDATE = bulk.update(tables.lead, ["lead_id"], [*(name for name in _COLUMNS if name not in _FIXED), "recorded_at"])
_COUNT = bulk.update(tables.lead, ["lead_id"], ["sequence"])
_SAVE_ACCOUNTS = bulk.insert(
    tables.account,
    ["account_id", "domain", "name", "recorded_at"],
    on_conflict="(account_id) DO NOTHING",
    returning=["account_id"],
)
_MERGE = """
WITH moved_keys AS (
    UPDATE identity_key SET lead_id = $1 WHERE lead_id = $2 RETURNING kind, value
), moved_activities AS (
    UPDATE activity SET lead_id = $1 WHERE lead_id = $2 RETURNING activity_id
)
INSERT INTO merge (survivor_id, merge_id, merged_lead_id, submission_id, survivor_before, keys_moved, activities_moved, recorded_at,
                   caller)
SELECT $1, $3, $2, $4, $5::jsonb,
       $7::jsonb || (SELECT coalesce(jsonb_agg(jsonb_build_array(kind, value)), '[]') FROM moved_keys),
       (SELECT coalesce(array_agg(activity_id), '{}') FROM moved_activities), $6, $8
"""
_DELETE_BY_LEAD = {
    "activities": "DELETE FROM activity WHERE lead_id = ANY ($1::uuid[])",
    "consents": "DELETE FROM consent WHERE lead_id = ANY ($1::uuid[])",
    "merges": "DELETE FROM merge WHERE survivor_id = ANY ($1::uuid[]) OR merged_lead_id = ANY ($1::uuid[])",
    "do_not_merge_pairs": "DELETE FROM do_not_merge WHERE lead_id = ANY ($1::uuid[]) OR other_id = ANY ($1::uuid[])",
    "identity_keys": "DELETE FROM identity_key WHERE lead_id = ANY ($1::uuid[])",
    "leads": "DELETE FROM lead WHERE lead_id = ANY ($1::uuid[])",
}
_REREADS_MAX = 10


class ConcurrentMerge(Exception):
    """The leads that these keys name kept changing while they were locked; the transaction may be tried again."""


async def lock_matches(
    connection: asyncpg.Connection, keys: Iterable[IdentityKey]
) -> tuple[dict[IdentityKey, UUID], dict[UUID, Lead]]:
    """Lock these keys and the leads that they name; both as they are until the commit.

    A lead may be merged into another between finding and locking it, so it is read again until nothing has moved.
    Raises ConcurrentMerge after a bounded number of reads.
    """
    wanted = sorted(set(keys))
    if not wanted:
        return {}, {}
    kinds, values = [kind for kind, _ in wanted], [value for _, value in wanted]
    await connection.fetch(_LOCK_KEYS, kinds, values)
    found = await _find_owners(connection, kinds, values)
    for _ in range(_REREADS_MAX):
        if not found:
            return {}, {}
        leads = await lock_leads(connection, set(found.values()))
        again = await _find_owners(connection, kinds, values)
        if again == found:
            return found, leads
        found = again
    raise ConcurrentMerge


async def _find_owners(
    connection: asyncpg.Connection, kinds: Sequence[str], values: Sequence[str]
) -> dict[IdentityKey, UUID]:
    rows = await connection.fetch(_FIND_KEYS, kinds, values)
    return {(row[0], row[1]): row[2] for row in rows}


async def find_key_owners(connection: asyncpg.Connection, keys: Iterable[IdentityKey]) -> dict[IdentityKey, UUID]:
    """The leads that these keys name, without a lock."""
    wanted = sorted(set(keys))
    return (
        await _find_owners(connection, [kind for kind, _ in wanted], [value for _, value in wanted]) if wanted else {}
    )


async def lock_leads(connection: asyncpg.Connection, lead_ids: Iterable[UUID]) -> dict[UUID, Lead]:
    """These leads, locked in the order of their ids."""
    rows = await connection.fetch(_LOCK_LEADS, list(lead_ids))
    return {row["lead_id"]: _lead(row) for row in rows}


async def read_lead(connection: asyncpg.Connection, lead_id: UUID) -> Lead | None:
    """One lead as it is, also one that was merged into another."""
    row = await connection.fetchrow(_READ, lead_id)
    return None if row is None else _lead(row)


async def read_leads(connection: asyncpg.Connection, lead_ids: Sequence[UUID]) -> dict[UUID, Lead]:
    """These leads as they are, without a lock."""
    rows = await connection.fetch(_READ_MANY, lead_ids)
    return {row["lead_id"]: _lead(row) for row in rows}


async def insert_leads(connection: asyncpg.Connection, leads: Sequence[Lead], now: datetime) -> None:
    """Insert leads that are new."""
    if leads:
        records = [(*_values(lead), now) for lead in leads]
        await connection.copy_records_to_table("lead", records=records, columns=[*_COLUMNS, "recorded_at"])


async def update_leads(connection: asyncpg.Connection, leads: Sequence[Lead], now: datetime) -> None:
    """Update leads that are there, and locked, by one statement."""
    rows = [dict(zip(_COLUMNS, _values(lead), strict=True), recorded_at=now) for lead in leads]
    await _UPDATE.execute(connection, rows)


async def save_sequences(connection: asyncpg.Connection, leads: Sequence[Lead]) -> None:
    """Save how many events of these leads were published, where nothing else of them changed. The leads are locked."""
    await _COUNT.execute(connection, [{"lead_id": lead.lead_id, "sequence": lead.sequence} for lead in leads])


def _values(lead: Lead) -> tuple[object, ...]:
    """The values of _COLUMNS."""
    person = lead.person.get
    return (
        lead.lead_id,
        lead.source,
        lead.captured_at,
        lead.verdict,
        *[person(name) for name in PERSON_FIELDS],
        orjson.dumps(lead.attributes).decode(),
        orjson.dumps(lead.field_timestamps).decode(),
        lead.account_id,
        None if lead.campaign is None else _campaign(lead.campaign),
        lead.external_keys,
        lead.policy_version,
        lead.quality_score,
        lead.pending,
        lead.merged_into,
        lead.sequence,
    )


def _campaign(campaign: Campaign) -> str:
    return orjson.dumps({name: word for name, word in to_object(campaign).items() if word is not None}).decode()


async def insert_keys(
    connection: asyncpg.Connection, keys: Mapping[IdentityKey, UUID], external: Mapping[str, tuple[str, str]]
) -> None:
    """Give keys that nobody has to their leads. The keys are locked. `external`: source and id of which a key is the digest."""
    if keys:
        nothing = (None, None)
        records = [(kind, value, lead_id, *external.get(value, nothing)) for (kind, value), lead_id in keys.items()]
        columns = ["kind", "value", "lead_id", "source", "external_id"]
        await connection.copy_records_to_table("identity_key", records=records, columns=columns)


async def lock_keys(connection: asyncpg.Connection, keys: Iterable[IdentityKey]) -> None:
    """Decide about these keys alone until the commit, in the order in which everybody takes them."""
    wanted = sorted(set(keys))
    if wanted:
        await connection.fetch(_LOCK_KEYS, [kind for kind, _ in wanted], [value for _, value in wanted])


async def delete_keys(connection: asyncpg.Connection, keys: Mapping[IdentityKey, UUID]) -> None:
    """Take these keys from their leads. The keys are locked."""
    rows: list[dict[str, object]] = [
        {"kind": kind, "value": value, "lead_id": lead_id} for (kind, value), lead_id in keys.items()
    ]
    await _DELETE_KEYS.execute(connection, rows)


async def save_accounts(
    connection: asyncpg.Connection, accounts: Mapping[UUID, tuple[str, str | None]], now: datetime
) -> set[UUID]:
    """Accounts by id: domain and the company's name as first heard. The ids of those that were there before."""
    rows: list[dict[str, object]] = [
        {"account_id": account_id, "domain": domain, "name": name, "recorded_at": now}
        for account_id, (domain, name) in sorted(accounts.items())
    ]
    return set(accounts) - {row["account_id"] for row in await _SAVE_ACCOUNTS.fetch(connection, rows)}


async def save_merge(connection: asyncpg.Connection, merge: Merge, now: datetime) -> None:
    """Move keys and activities to the survivor, and keep what is needed to move them back."""
    await connection.execute(
        _MERGE,
        merge.survivor.lead_id,
        merge.other.lead_id,
        merge.merge_id,
        merge.submission_id,
        encode_snapshot(merge.survivor),
        now,
        orjson.dumps(merge.new_keys).decode(),
        merge.caller,
    )


def encode_snapshot(lead: Lead) -> str:
    """All of a lead that a merge can change, as JSON."""
    return orjson.dumps(
        {
            "person": dict(lead.person),
            "attributes": lead.attributes,
            "field_timestamps": dict(lead.field_timestamps),
            "account_id": lead.account_id,
            "campaign": None if lead.campaign is None else to_object(lead.campaign),
            "external_keys": lead.external_keys,
        },
        default=str,
    ).decode()


def _lead(row: asyncpg.Record) -> Lead:
    campaign: Any = row["campaign"]
    return Lead(
        lead_id=row["lead_id"],
        source=row["source"],
        captured_at=row["captured_at"],
        verdict=row["verdict"],
        person={name: row[name] for name in PERSON_FIELDS if row[name] is not None},
        attributes=from_json(row["attributes"]),
        field_timestamps={name: datetime.fromisoformat(at) for name, at in from_json(row["field_timestamps"]).items()},
        account_id=row["account_id"],
        campaign=None if campaign is None else from_object(Campaign, from_json(campaign)),
        external_keys=tuple(row["external_keys"]),
        policy_version=row["policy_version"],
        quality_score=row["quality_score"],
        pending=row["pending"],
        merged_into=row["merged_into"],
        sequence=row["sequence"],
    )


async def delete_leads(connection: asyncpg.Connection, lead_ids: Sequence[UUID]) -> dict[str, int]:
    """Delete locked leads with all that hangs on them but their submissions; how many rows of what."""
    return {name: await execute_counting(connection, sql, lead_ids) for name, sql in _DELETE_BY_LEAD.items()}


async def execute_counting(connection: asyncpg.Connection, sql: str, values: Sequence[object]) -> int:
    """Rows that a statement touched; nothing is asked where there is nothing to look for."""
    return int((await connection.execute(sql, list(values))).rpartition(" ")[2]) if values else 0
