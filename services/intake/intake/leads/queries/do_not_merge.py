"""SQL on pairs of leads that a person has separated: no submission makes one of them."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

import asyncpg

# A pair stays so when one of the two is merged into a third: it is looked up by all that an unmerged lead has absorbed.
# Where there is no pair, as is usual, that is not looked up.
_MEMBERS = """
WITH RECURSIVE members AS (
    SELECT lead_id AS root, lead_id FROM unnest($1::uuid[]) AS l (lead_id) WHERE EXISTS (SELECT FROM do_not_merge)
    UNION SELECT members.root, lead.lead_id FROM members JOIN lead ON lead.merged_into = members.lead_id
)
"""
_PAIRS = f"""
{_MEMBERS}
SELECT DISTINCT one.root AS one, other.root AS other
FROM members one JOIN do_not_merge d ON d.lead_id = one.lead_id JOIN members other ON other.lead_id = d.other_id
WHERE one.root < other.root
"""
_REMOVE = f"""
{_MEMBERS}
DELETE FROM do_not_merge d USING members one, members other
WHERE d.lead_id = one.lead_id AND d.other_id = other.lead_id AND one.root <> other.root
"""


async def find_pairs(connection: asyncpg.Connection, lead_ids: Iterable[UUID]) -> set[frozenset[UUID]]:
    """Pairs of these unmerged leads that a person has separated, they or what they have absorbed."""
    return {frozenset((row["one"], row["other"])) for row in await connection.fetch(_PAIRS, list(lead_ids))}


async def remove_pair(connection: asyncpg.Connection, one: UUID, other: UUID) -> None:
    """Let submissions merge these two unmerged leads again."""
    await connection.execute(_REMOVE, [one, other])
