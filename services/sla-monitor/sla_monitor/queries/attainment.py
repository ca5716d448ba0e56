"""Attainment: met against breached, of the clocks that were due in a period. Read-only."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import asyncpg
from msgspec import Struct

from accord.contracts.values import Department
from sla_monitor.domain.clock import Clock
from sla_monitor.queries.cases import CLOCK_COLUMNS, clock_from_row

By = Literal["clause", "department", "owner", "source", "actor_kind", "month"]

COUNTED_AT = "(due_at - CASE WHEN trigger_kind = 'period' THEN interval '1 microsecond' ELSE interval '0' END)"
"""The moment by which a clock belongs to a month: its deadline; a period's clock belongs to its period, which ends before that."""

_GROUPS: dict[By, str] = {
    "clause": "clause",
    "department": "obliges",
    "owner": "owner",
    "source": "source",
    "actor_kind": "actor_kind",
    "month": f"to_char({COUNTED_AT} AT TIME ZONE $4, 'YYYY-MM')",
}

_COUNTS = """
       count(*) FILTER (WHERE state = 'met') AS met,
       count(*) FILTER (WHERE state IN ('breached', 'met_late')) AS breached,
       count(*) FILTER (WHERE state = 'met_late') AS met_late,
       count(*) FILTER (WHERE state IN ('running', 'paused')) AS running,
       count(*) FILTER (WHERE state = 'cancelled') AS cancelled,
       count(*) FILTER (WHERE backfill AND state IN ('met', 'breached', 'met_late')) AS backfill
"""

_ATTAINMENT = """
SELECT {group} AS name,
{counts}FROM clock
WHERE event_count > 0 AND $4::text IS NOT NULL AND ($1::timestamptz IS NULL OR (due_at >= $1 AND {at} >= $1))
    AND ($2::timestamptz IS NULL OR (due_at <= $2 AND {at} < $2))
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
    connection: asyncpg.Connection, since: datetime | None, until: datetime | None, by: By | None, zone: str
) -> list[AttainmentCounts]:
    """Fetch the groups in order of their names; without `by` a single one, whose name is None. Months are of the zone."""
    group = "NULL::text" if by is None else _GROUPS[by]
    statement = _ATTAINMENT.format(group=group, counts=_COUNTS, at=COUNTED_AT)
    rows = await connection.fetch(statement, since, until, GROUPS_MAX, zone)
    return [AttainmentCounts(**dict(row)) for row in rows]


_BY_CLAUSE_AND_MONTH = f"""
SELECT obliges, clause, to_char({COUNTED_AT} AT TIME ZONE $3, 'YYYY-MM') AS month,{_COUNTS}
FROM clock
WHERE event_count > 0 AND due_at >= $1 AND due_at <= $2 AND {COUNTED_AT} < $2 AND {COUNTED_AT} >= $1
GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""

_LATEST_ANSWERS = f"""
SELECT {CLOCK_COLUMNS} FROM clock
WHERE breach_id IS NOT NULL AND withdrawn_at IS NULL AND due_at >= $1 AND due_at <= $2
    AND {COUNTED_AT} < $2 AND {COUNTED_AT} >= $1
ORDER BY coalesce(answered_at, 'infinity') - due_at DESC, due_at, clock_id LIMIT $3
"""


class ClauseMonth(Struct, frozen=True):
    """The counts of one clause in one month."""

    department: Department
    clause: str
    month: str
    counts: AttainmentCounts


async def fetch_clause_months(
    connection: asyncpg.Connection, since: datetime, until: datetime, zone: str
) -> list[ClauseMonth]:
    """Fetch the counts by clause and month of the zone."""
    rows = await connection.fetch(_BY_CLAUSE_AND_MONTH, since, until, zone)
    return [
        ClauseMonth(row["obliges"], row["clause"], row["month"], AttainmentCounts(row["clause"], *list(row)[3:]))
        for row in rows
    ]


async def fetch_latest_answers(
    connection: asyncpg.Connection, since: datetime, until: datetime, rows_max: int
) -> list[Clock]:
    """Fetch the breaches of a time that were answered latest; unanswered ones first."""
    return [clock_from_row(row) for row in await connection.fetch(_LATEST_ANSWERS, since, until, rows_max)]
