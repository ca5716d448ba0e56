"""SQL on accounts: companies, by id or domain, with their leads."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import asyncpg
from msgspec import Struct

# The name as first heard. Where the first submission had none, that of the oldest lead that has one.
_READ = """
SELECT a.account_id, a.domain, a.recorded_at,
       coalesce(a.name, (SELECT company FROM lead WHERE account_id = a.account_id AND merged_into IS NULL AND company IS NOT NULL
                         ORDER BY lead_id LIMIT 1)) AS name,
       (SELECT count(*) FROM lead WHERE account_id = a.account_id AND merged_into IS NULL) AS leads
FROM account a WHERE a.account_id = $1
"""
_LEADS = """
SELECT lead_id FROM lead
WHERE account_id = $1 AND merged_into IS NULL AND ($2::uuid IS NULL OR lead_id > $2) ORDER BY lead_id LIMIT $3
"""


class Account(Struct, frozen=True):
    """A company. `leads` counts merged ones once."""

    account_id: UUID
    domain: str
    name: str | None
    first_seen_at: datetime
    leads: int


async def read(connection: asyncpg.Connection, account_id: UUID) -> Account | None:
    """One account."""
    row = await connection.fetchrow(_READ, account_id)
    return (
        None
        if row is None
        else Account(row["account_id"], row["domain"], row["name"], row["recorded_at"], row["leads"])
    )


async def lead_ids(
    connection: asyncpg.Connection, account_id: UUID, after: UUID | None, rows_max: int
) -> Sequence[UUID]:
    """The account's leads after a place, in the order of their ids, which is that in which they were first heard of."""
    return [row[0] for row in await connection.fetch(_LEADS, account_id, after, rows_max)]
