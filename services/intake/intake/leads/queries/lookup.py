"""SQL for those who read one lead: by id, or by one of its keys."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import asyncpg
from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from accord.db import connection_of
from intake.leads.domain.keys import IdentityKey, IdentityKind
from intake.leads.domain.lead import Lead
from intake.leads.queries.leads import find_key_owners, read_lead, read_leads
from intake.leads.queries.merge_group import find_survivors

_TRIES_MAX = 20
"""For a lead that is merged again between two statements."""
_MERGED_SHOWN_MAX = 100
_EXTERNAL = """
SELECT wanted.lead_id, k.source, k.external_id AS id
FROM unnest($1::uuid[]) AS wanted (lead_id),
     LATERAL (SELECT source, external_id FROM identity_key i
              WHERE i.lead_id = wanted.lead_id AND kind = 'external' AND external_id IS NOT NULL
              ORDER BY source, external_id LIMIT 100) k
"""
_MERGED = """
WITH RECURSIVE gone AS (
    SELECT merged_into AS root, lead_id FROM lead WHERE merged_into = ANY ($1::uuid[])
    UNION SELECT gone.root, lead.lead_id FROM lead JOIN gone ON lead.merged_into = gone.lead_id
)
SELECT root, lead_id FROM gone ORDER BY root, lead_id
"""
_HAS_KEYS = "SELECT EXISTS (SELECT FROM identity_key WHERE lead_id = $1)"


class FoundLead(Struct, frozen=True):
    """A lead with the ids that other systems gave it, and the leads that were merged into it."""

    lead: Lead
    external: list[dict[str, str]]
    merged: list[UUID]


async def find_lead(conn: AsyncConnection, lead_id: UUID) -> FoundLead | None:
    """The lead, or the one into which it was merged."""
    connection = await connection_of(conn)
    lead = await read_lead(connection, lead_id)
    for _ in range(_TRIES_MAX):
        if lead is None or lead.merged_into is None:
            break
        survivors = await find_survivors(connection, [lead.lead_id])
        lead = await read_lead(connection, survivors.get(lead.lead_id, lead.merged_into))
    return None if lead is None else await load_details(connection, lead)


async def load_details(connection: asyncpg.Connection, lead: Lead) -> FoundLead:
    """An unmerged lead with its external ids and the leads merged into it."""
    (one,) = await _add_details(connection, [lead])
    return one


async def find_leads(connection: asyncpg.Connection, lead_ids: Sequence[UUID]) -> list[FoundLead]:
    """Unmerged leads, in the order of the ids; unknown ids are left out."""
    leads = await read_leads(connection, lead_ids)
    return await _add_details(connection, [leads[one] for one in lead_ids if one in leads])


async def _add_details(connection: asyncpg.Connection, leads: Sequence[Lead]) -> list[FoundLead]:
    ids = [lead.lead_id for lead in leads]
    external: dict[UUID, list[dict[str, str]]] = {}
    for row in await connection.fetch(_EXTERNAL, ids):
        external.setdefault(row["lead_id"], []).append({"source": row["source"], "id": row["id"]})
    merged: dict[UUID, list[UUID]] = {}
    for row in await connection.fetch(_MERGED, ids):
        merged.setdefault(row["root"], []).append(row["lead_id"])
    return [
        FoundLead(lead, external.get(lead.lead_id, []), merged.get(lead.lead_id, [])[:_MERGED_SHOWN_MAX])
        for lead in leads
    ]


async def has_keys(connection: asyncpg.Connection, lead_id: UUID) -> bool:
    """Whether the lead can be found by anything but its id."""
    return bool(await connection.fetchval(_HAS_KEYS, lead_id))


async def find_lead_by_key(conn: AsyncConnection, kind: IdentityKind, value: str) -> FoundLead | None:
    """The lead that this key names."""
    key: IdentityKey = (kind, value)
    owners = await find_key_owners(await connection_of(conn), [key])
    return await find_lead(conn, owners[key]) if owners else None
