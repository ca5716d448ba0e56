"""SQL on a lead with all that were merged into it, and on ids of those who were erased."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

import asyncpg

_DEPTH_MAX = 1_000
"""Merges after merges that are followed. A chain of merges is as long as one person was met in different shapes."""
_MERGE_GROUP = f"""
WITH RECURSIVE up AS (
    SELECT lead_id, merged_into, 0 AS depth FROM lead WHERE lead_id = $1
    UNION ALL
    SELECT l.lead_id, l.merged_into, up.depth + 1 FROM up JOIN lead l ON l.lead_id = up.merged_into WHERE up.depth < {_DEPTH_MAX}
), members AS (
    SELECT lead_id, 0 AS depth FROM up WHERE merged_into IS NULL
    UNION ALL
    SELECT l.lead_id, members.depth + 1 FROM members JOIN lead l ON l.merged_into = members.lead_id WHERE members.depth < {_DEPTH_MAX}
)
SELECT lead_id FROM members ORDER BY depth, lead_id
"""
_SURVIVORS = f"""
WITH RECURSIVE up AS (
    SELECT lead_id AS asked, lead_id, merged_into, 0 AS depth FROM lead WHERE lead_id = ANY ($1::uuid[])
    UNION ALL
    SELECT up.asked, l.lead_id, l.merged_into, up.depth + 1 FROM up JOIN lead l ON l.lead_id = up.merged_into
    WHERE up.depth < {_DEPTH_MAX}
)
SELECT asked, lead_id FROM up WHERE merged_into IS NULL
"""
_ERASED = "SELECT id FROM erased_id WHERE id = ANY ($1::uuid[])"


async def find_lead_ids(connection: asyncpg.Connection, lead_id: UUID) -> list[UUID]:
    """The survivor under this id first, and all that were merged into it; none if there is no such lead."""
    return [row[0] for row in await connection.fetch(_MERGE_GROUP, lead_id)]


async def find_survivors(connection: asyncpg.Connection, lead_ids: Collection[UUID]) -> dict[UUID, UUID]:
    """The survivor under each of these ids that is known; itself where it was not merged."""
    return {row[0]: row[1] for row in await connection.fetch(_SURVIVORS, list(lead_ids))}


async def find_erased(connection: asyncpg.Connection, ids: list[UUID]) -> set[UUID]:
    """Those of these ids (of leads, or of submissions that waited) that were erased."""
    return {row[0] for row in await connection.fetch(_ERASED, ids)} if ids else set()
