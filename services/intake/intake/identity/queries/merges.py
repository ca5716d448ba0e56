"""SQL on merges: what each recorded, and reverting one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
from msgspec import Struct

from accord.contracts.codec import from_object
from accord.contracts.values import Campaign
from accord.db import from_json
from intake.identity.domain.merge_revert import SurvivorSnapshot
from intake.leads.domain.keys import IdentityKey
from intake.leads.domain.lead import Lead
from intake.leads.queries.leads import encode_snapshot

_SHOWN = "m.merge_id, m.survivor_id, m.merged_lead_id, m.submission_id, m.caller, m.recorded_at, m.reverted_at, m.reverted_by"
_READ = f"SELECT {_SHOWN}, m.survivor_before, m.keys_moved, m.activities_moved FROM merge m WHERE m.merge_id = $1"
_PAGE = f"""
SELECT {_SHOWN} FROM merge m
WHERE (m.survivor_id = ANY ($1::uuid[]) OR m.merged_lead_id = ANY ($1::uuid[])) AND ($2::uuid IS NULL OR m.merge_id < $2)
ORDER BY m.merge_id DESC LIMIT $3
"""
# By the time of the transaction; of one transaction, by the ids, which are made in its order.
_LATER = f"""
SELECT {_SHOWN}, m.survivor_before, m.keys_moved, m.activities_moved
FROM merge m
WHERE m.survivor_id = $1 AND m.reverted_at IS NULL AND (m.recorded_at, m.merge_id) > ($2, $3::uuid)
ORDER BY m.recorded_at, m.merge_id
"""
_OF_GONE = f"SELECT {_SHOWN} FROM merge m WHERE m.merged_lead_id = $1 AND m.reverted_at IS NULL ORDER BY m.recorded_at DESC LIMIT 1"
_REWRITE = """
UPDATE merge SET survivor_before = u.before::jsonb
FROM unnest($1::uuid[], $2::text[]) AS u (merge_id, before) WHERE merge.merge_id = u.merge_id
"""
# Who is not one person any more leaves nothing of the other behind: what a merge recorded was needed to revert it.
_REVERTED = """
UPDATE merge SET reverted_at = $2, reverted_by = $3, survivor_before = '{}', keys_moved = '[]', activities_moved = '{}'
WHERE merge_id = $1
"""
# Keys that meanwhile belong to nobody are inserted anew, those of the survivor go back.
_RETURN_KEYS = """
INSERT INTO identity_key (kind, value, lead_id)
SELECT kind, value, $3 FROM unnest($1::text[], $2::text[]) AS k (kind, value) ORDER BY kind, value
ON CONFLICT (kind, value) DO UPDATE SET lead_id = excluded.lead_id
"""
_RETURN_ACTIVITIES = "UPDATE activity SET lead_id = $2 WHERE lead_id = $1 AND activity_id = ANY ($3::uuid[])"
_NOTHING: dict[str, Any] = {
    "person": {},
    "attributes": {},
    "field_timestamps": {},
    "account_id": None,
    "campaign": None,
    "external_keys": [],
}
"""What a merge that was reverted remembers."""
_ADD_PAIR = """
INSERT INTO do_not_merge (lead_id, other_id, merge_id, caller, recorded_at)
VALUES ($1, $2, $3, $4, $5), ($2, $1, $3, $4, $5)
ON CONFLICT (lead_id, other_id) DO UPDATE SET merge_id = excluded.merge_id, caller = excluded.caller, recorded_at = excluded.recorded_at
"""


class MergeRecord(Struct, frozen=True):
    """A merge as it is shown: which two leads, what joined them, and whether it was reverted."""

    merge_id: UUID
    survivor_id: UUID
    merged_lead_id: UUID
    submission_id: UUID | None
    caller: str | None
    recorded_at: datetime
    reverted_at: datetime | None
    reverted_by: str | None


class RevertibleMerge(Struct, frozen=True):
    """A merge with what is needed to revert it."""

    record: MergeRecord
    before: SurvivorSnapshot
    keys_moved: tuple[IdentityKey, ...]
    activities_moved: tuple[UUID, ...]


async def read(connection: asyncpg.Connection, merge_id: UUID) -> RevertibleMerge | None:
    """One merge."""
    row = await connection.fetchrow(_READ, merge_id)
    return None if row is None else _revertible(row)


async def find_later(connection: asyncpg.Connection, record: MergeRecord) -> list[RevertibleMerge]:
    """The merges of the same survivor that came after this one and stand, in order."""
    return [
        _revertible(row)
        for row in await connection.fetch(_LATER, record.survivor_id, record.recorded_at, record.merge_id)
    ]


async def find_absorbing_merge(connection: asyncpg.Connection, lead_id: UUID) -> MergeRecord | None:
    """The merge that stands by which this lead went into another."""
    row = await connection.fetchrow(_OF_GONE, lead_id)
    return None if row is None else _record(row)


async def page(
    connection: asyncpg.Connection, lead_ids: Sequence[UUID], after: UUID | None, rows_max: int
) -> list[MergeRecord]:
    """The merges in which any of these leads took part, newest first."""
    return [_record(row) for row in await connection.fetch(_PAGE, lead_ids, after, rows_max)]


async def update_snapshots(
    connection: asyncpg.Connection, survivor: Lead, befores: Mapping[UUID, SurvivorSnapshot]
) -> None:
    """Let merges of this survivor that stand remember it as it would have been."""
    if befores:
        remembered = [encode_snapshot(before.apply_to(survivor)) for before in befores.values()]
        await connection.execute(_REWRITE, list(befores), remembered)


async def revert_merge(
    connection: asyncpg.Connection,
    revertible: RevertibleMerge,
    keys: Collection[IdentityKey],
    caller: str,
    now: datetime,
) -> None:
    """Move these keys, and the activities that are still there, back to the merged lead, and let no submission merge the two again."""
    record = revertible.record
    await connection.execute(_REVERTED, record.merge_id, now, caller)
    if keys:
        wanted = list(keys)
        await connection.execute(
            _RETURN_KEYS, [key[0] for key in wanted], [key[1] for key in wanted], record.merged_lead_id
        )
    await connection.execute(_RETURN_ACTIVITIES, record.survivor_id, record.merged_lead_id, revertible.activities_moved)
    await connection.execute(_ADD_PAIR, record.survivor_id, record.merged_lead_id, record.merge_id, caller, now)


def _record(row: asyncpg.Record) -> MergeRecord:
    return MergeRecord(
        row["merge_id"],
        row["survivor_id"],
        row["merged_lead_id"],
        row["submission_id"],
        row["caller"],
        row["recorded_at"],
        row["reverted_at"],
        row["reverted_by"],
    )


def _revertible(row: asyncpg.Record) -> RevertibleMerge:
    before = from_json(row["survivor_before"]) or _NOTHING
    campaign, account_id = before["campaign"], before["account_id"]
    return RevertibleMerge(
        _record(row),
        SurvivorSnapshot(
            person=before["person"],
            attributes=before["attributes"],
            field_timestamps={name: datetime.fromisoformat(at) for name, at in before["field_timestamps"].items()},
            account_id=None if account_id is None else UUID(account_id),
            campaign=None if campaign is None else from_object(Campaign, campaign),
            external_keys=tuple(before["external_keys"]),
        ),
        tuple((kind, value) for kind, value in from_json(row["keys_moved"])),
        tuple(row["activities_moved"]),
    )
