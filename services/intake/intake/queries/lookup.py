"""SQL for those who read one lead: by id, or by one of its keys."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from accord.database import driver_of
from intake.domain.capture import IdentityKey, IdentityKind
from intake.domain.lead import Lead
from intake.queries.leads import find_keys, read_lead

_MERGES_FOLLOWED_MAX = 20
_EXTERNAL = """
SELECT source, external_id AS id FROM identity_key WHERE lead_id = $1 AND kind = 'external' AND external_id IS NOT NULL
ORDER BY source, external_id LIMIT 100
"""
_MERGED = """
WITH RECURSIVE gone AS (
    SELECT lead_id FROM lead WHERE merged_into = $1
    UNION SELECT lead.lead_id FROM lead JOIN gone ON lead.merged_into = gone.lead_id
)
SELECT lead_id FROM gone ORDER BY lead_id LIMIT 100
"""


@dataclass(frozen=True, slots=True)
class Found:
    """A lead with the ids that other systems gave it, and the leads that were merged into it."""

    lead: Lead
    external: list[dict[str, str]]
    merged: list[UUID]


async def by_id(conn: AsyncConnection, lead_id: UUID) -> Found | None:
    """The lead, or the one into which it was merged."""
    driver = await driver_of(conn)
    lead = await read_lead(driver, lead_id)
    for _ in range(_MERGES_FOLLOWED_MAX):
        if lead is None or lead.merged_into is None:
            break
        lead = await read_lead(driver, lead.merged_into)
    if lead is None:
        return None
    merged = [row["lead_id"] for row in await driver.fetch(_MERGED, lead.lead_id)]
    external = await driver.fetch(_EXTERNAL, lead.lead_id)
    return Found(lead, [{"source": row["source"], "id": row["id"]} for row in external], merged)


async def by_key(conn: AsyncConnection, kind: IdentityKind, value: str) -> Found | None:
    """The lead that this key names."""
    key: IdentityKey = (kind, value)
    found = await find_keys(await driver_of(conn), [key])
    return await by_id(conn, found[key]) if found else None
