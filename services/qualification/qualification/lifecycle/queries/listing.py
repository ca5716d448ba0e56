"""Pages of leads for lists, in the order of their ids, which is that of their capture at intake. Read-only."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import asyncpg
from msgspec import Struct

_PAGE = """
SELECT lead_id, profile ->> 'source' AS source, (profile ->> 'captured_at')::timestamptz AS captured_at, stage, stage_since,
    visits::text AS visits, owner, fit, engagement, grade, definition_version
FROM lead
WHERE profile IS NOT NULL AND merged_into IS NULL AND NOT erased
"""

_FILTERS = {
    "stage": "stage = ${}",
    "owner": "owner = ${}",
    "grade": "grade = ${}",
    "since": "stage_since >= ${}",
    "after": "lead_id > ${}",
}


class Filter(Struct, frozen=True):
    """Which leads are asked for; None asks for all. `since` is of the present stage, `after` the last lead of the page before."""

    stage: str | None = None
    owner: str | None = None
    grade: str | None = None
    since: datetime | None = None
    after: UUID | None = None


async def fetch_page(connection: asyncpg.Connection, filters: Filter, rows_max: int) -> list[asyncpg.Record]:
    """The next leads, at most so many. Merged and erased ones are left out."""
    conditions, values = [], []
    for name, condition in _FILTERS.items():
        value = getattr(filters, name)
        if value is not None:
            values.append(value)
            conditions.append(" AND " + condition.format(len(values)))
    statement = _PAGE + "".join(conditions) + f" ORDER BY lead_id LIMIT ${len(values) + 1}"
    rows: list[asyncpg.Record] = await connection.fetch(statement, *values, rows_max)
    return rows
