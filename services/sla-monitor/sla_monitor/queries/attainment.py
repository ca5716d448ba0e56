"""Attainment: met against breached, of the clocks that were due in a period. Read-only."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import asyncpg
from msgspec import Struct

By = Literal["clause", "department", "owner", "source", "actor_kind", "month"]

_GROUPS: dict[By, str] = {
    "clause": "clause",
    "department": "obliges",
    "owner": "owner",
    "source": "source",
    "actor_kind": "actor_kind",
    "month": "to_char(due_at AT TIME ZONE 'UTC', 'YYYY-MM')",
}

_ATTAINMENT = """
SELECT {group} AS name,
       count(*) FILTER (WHERE state = 'met') AS met,
       count(*) FILTER (WHERE state IN ('breached', 'met_late')) AS breached,
       count(*) FILTER (WHERE state = 'met_late') AS met_late,
       count(*) FILTER (WHERE state IN ('running', 'paused')) AS running,
       count(*) FILTER (WHERE state = 'cancelled') AS cancelled,
       count(*) FILTER (WHERE backfill AND state IN ('met', 'breached', 'met_late')) AS backfill
FROM clock
WHERE event_count > 0 AND ($1::timestamptz IS NULL OR due_at >= $1) AND ($2::timestamptz IS NULL OR due_at < $2)
GROUP BY 1
ORDER BY 1 NULLS LAST
LIMIT $3
"""

GROUPS_MAX = 5_000


class AttainmentCounts(Struct, frozen=True):
    """The counts of one group. `breached` includes those met late; `backfill` counts imported history among met and breached."""

    name: str | None
    met: int
    breached: int
    met_late: int
    running: int
    cancelled: int
    backfill: int

    @property
    def attainment(self) -> float | None:
        """Met / (met + breached); None if nothing was due."""
        settled = self.met + self.breached
        return self.met / settled if settled else None


async def fetch_attainment(
    connection: asyncpg.Connection, since: datetime | None, until: datetime | None, by: By | None
) -> list[AttainmentCounts]:
    """Fetch the groups in order of their names; without `by` a single one, whose name is None."""
    group = "NULL::text" if by is None else _GROUPS[by]
    rows = await connection.fetch(_ATTAINMENT.format(group=group), since, until, GROUPS_MAX)
    return [AttainmentCounts(**dict(row)) for row in rows]
