"""SQL on pairs of leads that a person has parted: no submission makes one of them."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

import asyncpg

# A pair stays apart when one of the two is merged into a third: the mark is looked up by all that a living lead has taken in.
# Where nothing is apart, as is usual, that is not looked up.
_FAMILIES = """
WITH RECURSIVE family AS (
    SELECT lead_id AS root, lead_id FROM unnest($1::uuid[]) AS l (lead_id) WHERE EXISTS (SELECT FROM apart)
    UNION SELECT family.root, lead.lead_id FROM family JOIN lead ON lead.merged_into = family.lead_id
)
"""
_APART = f"""
{_FAMILIES}
SELECT DISTINCT one.root AS one, other.root AS other
FROM family one JOIN apart ON apart.lead_id = one.lead_id JOIN family other ON other.lead_id = apart.other_id
WHERE one.root < other.root
"""
_JOIN_AGAIN = f"""
{_FAMILIES}
DELETE FROM apart USING family one, family other
WHERE apart.lead_id = one.lead_id AND apart.other_id = other.lead_id AND one.root <> other.root
"""


async def find_separated_pairs(connection: asyncpg.Connection, lead_ids: Iterable[UUID]) -> set[frozenset[UUID]]:
    """Pairs of these living leads that a person has parted, they or what they have taken in."""
    return {frozenset((row["one"], row["other"])) for row in await connection.fetch(_APART, list(lead_ids))}


async def join_again(connection: asyncpg.Connection, one: UUID, other: UUID) -> None:
    """Two living leads are not apart any more."""
    await connection.execute(_JOIN_AGAIN, [one, other])
