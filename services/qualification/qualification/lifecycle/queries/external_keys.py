"""The ids that other systems gave to leads, as digests: lets a CRM name a lead without the raw id being kept here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from uuid import UUID

import asyncpg

_PUT = """
INSERT INTO external_key AS held (key, lead_id)
SELECT decode(key, 'hex'), lead_id FROM unnest($1::text[], $2::uuid[]) AS row (key, lead_id) ORDER BY key
ON CONFLICT (key) DO UPDATE SET lead_id = excluded.lead_id WHERE held.lead_id <> excluded.lead_id
"""

_FIND = """
SELECT encode(key, 'hex'), lead_id FROM external_key
WHERE key IN (SELECT decode(key, 'hex') FROM unnest($1::text[]) AS asked (key))
"""

_DROP = """
DELETE FROM external_key
WHERE lead_id IN (SELECT lead_id FROM lead WHERE lead_id = ANY ($1::uuid[]) OR merged_into = ANY ($1::uuid[]))
"""


async def upsert(connection: asyncpg.Connection, keys: Mapping[str, UUID]) -> None:
    """Let these keys (hex digests) name these leads from now on."""
    if keys:
        await connection.execute(_PUT, list(keys), list(keys.values()))


async def find(connection: asyncpg.Connection, keys: Iterable[str]) -> dict[str, UUID]:
    """The leads that these keys name; a key that is not known is left out."""
    asked = sorted(set(keys))
    return {row[0]: row[1] for row in await connection.fetch(_FIND, asked)} if asked else {}


async def resolve(connection: asyncpg.Connection, reference: UUID | str) -> UUID | None:
    """The lead of a reference: an id as it is, else what the digest names; None if it names none."""
    return reference if isinstance(reference, UUID) else (await find(connection, [reference])).get(reference)


async def delete(connection: asyncpg.Connection, lead_ids: Sequence[UUID]) -> None:
    """Forget every key of erased persons."""
    await connection.execute(_DROP, lead_ids)
