"""SQL that finds the leads with which one is compared: those of its account, and those of its last name. Both are bounded."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import asyncpg

from intake.identity.domain.similarity import Person
from intake.leads.domain.lead import PERSON_FIELDS, Lead

CANDIDATES_MAX = 500
"""Leads that are compared of each kind, the newest of them."""
_COLUMNS = ", ".join(("lead_id", "account_id", *PERSON_FIELDS))
_CANDIDATES = f"""
SELECT {_COLUMNS} FROM (
    (SELECT {_COLUMNS} FROM lead WHERE account_id = $2 AND merged_into IS NULL ORDER BY lead_id DESC LIMIT $4)
    UNION
    (SELECT {_COLUMNS} FROM lead
     WHERE last_name IS NOT NULL AND lower(last_name) = lower($3) AND merged_into IS NULL LIMIT $4)
) AS found WHERE lead_id <> $1
"""


async def candidates(connection: asyncpg.Connection, lead: Lead) -> Sequence[Person]:
    """The leads that may be the same person as this one."""
    rows = await connection.fetch(
        _CANDIDATES, lead.lead_id, lead.account_id, lead.person.get("last_name"), CANDIDATES_MAX
    )
    return [_person(row["lead_id"], row["account_id"], row) for row in rows]


def person_of(lead: Lead) -> Person:
    """A lead as it is compared."""
    return Person(lead.lead_id, lead.account_id, lead.person)


def _person(lead_id: UUID, account_id: UUID | None, row: asyncpg.Record) -> Person:
    return Person(lead_id, account_id, {name: row[name] for name in PERSON_FIELDS if row[name] is not None})
