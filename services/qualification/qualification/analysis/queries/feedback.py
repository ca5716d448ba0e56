"""What sales decided about leads that it was handed, and which leads it was not: counted, and listed for a closer look. Decides nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

import asyncpg

from accord.terms.dimensions import Dimension
from qualification.analysis.domain.feedback import DecisionRow
from qualification.analysis.domain.groups import VALUE_CHARS_MAX
from qualification.analysis.queries.what_ifs import ACTIVITY_COUNT, CAPTURED

_FIXED = {"source": "lead.profile ->> 'source'", "campaign": "lead.profile #>> '{campaign,name}'"}

# A merged lead is told apart by its survivor's values. Of an erased one the source and the decisions stay, as counts.
_COUNTS = """
SELECT floor(extract(epoch FROM decision.occurred_at - $1) / $3::float8)::int AS step, decision.definition_version, decision.from_stage,
    decision.stage, decision.reason, {values}, count(*)
FROM decision
JOIN lead AS own ON own.lead_id = decision.lead_id
JOIN lead ON lead.lead_id = coalesce(own.merged_into, own.lead_id)
WHERE decision.occurred_at >= $1 AND decision.occurred_at < $2 AND decision.from_stage = ANY ($4::text[])
GROUP BY 1, 2, 3, 4, 5, 6
LIMIT $5
"""

_DECIDED = f"""
SELECT decision.lead_id, lead.lead_id AS survivor_id, decision.decision_id, decision.from_stage, decision.stage,
    decision.definition_version, {ACTIVITY_COUNT}
FROM decision
JOIN lead AS own ON own.lead_id = decision.lead_id
JOIN lead ON lead.lead_id = coalesce(own.merged_into, own.lead_id)
WHERE decision.occurred_at >= $1 AND decision.occurred_at < $2 AND decision.from_stage = ANY ($3::text[]) AND NOT lead.erased
    AND decision.effective_at IS NOT NULL
ORDER BY decision.occurred_at DESC, decision.decision_id DESC
LIMIT $4
"""

_NOT_ENTERED = f"""
SELECT lead_id, {ACTIVITY_COUNT}
FROM lead WHERE {CAPTURED} AND lead.stage IS NOT NULL AND NOT lead.visits ?| $3::text[]
ORDER BY lead_id DESC
LIMIT $4
"""


class ExaminedDecision(NamedTuple):
    """A decision of a lead, which lives as `living` by now."""

    lead_id: UUID
    survivor_id: UUID
    decision_id: UUID
    from_stage: str
    to_stage: str
    version: int


async def count_decisions(
    connection: asyncpg.Connection,
    since: datetime,
    until: datetime,
    step: timedelta,
    stages: Sequence[str],
    by: Sequence[Dimension],
    rows_max: int,
) -> list[DecisionRow]:
    """The decisions taken in [since, until) that led out of these stages, counted."""
    values, attributes = [], []
    for dimension in by:
        expression = _FIXED.get(dimension.name)
        if expression is None:
            attributes.append(dimension.attribute)
            expression = f"lead.profile -> 'attributes' ->> ${5 + len(attributes)}::text"
        values.append(f"left({expression}, {VALUE_CHARS_MAX})")
    statement = _COUNTS.format(values=f"ARRAY[{', '.join(values)}]::text[]")
    rows = await connection.fetch(statement, since, until, step.total_seconds(), list(stages), rows_max, *attributes)
    return [
        DecisionRow(number, version, from_stage, to_stage, reason, tuple(group), count)
        for number, version, from_stage, to_stage, reason, group, count in rows
    ]


async def fetch_decisions(
    connection: asyncpg.Connection, since: datetime, until: datetime, stages: Sequence[str], rows_max: int
) -> list[tuple[ExaminedDecision, int]]:
    """The newest of them, each with how many activities are folded of the lead."""
    rows = await connection.fetch(_DECIDED, since, until, list(stages), rows_max)
    return [(ExaminedDecision(*row[:6]), row["activities"]) for row in rows]


async def fetch_not_entered(
    connection: asyncpg.Connection, since: datetime, until: datetime, stages: Sequence[str], rows_max: int
) -> list[tuple[UUID, int]]:
    """The leads captured last in [since, until) that have been in none of these stages, each with how many activities are folded."""
    rows = await connection.fetch(_NOT_ENTERED, since, until, list(stages), rows_max)
    return [(row["lead_id"], row["activities"]) for row in rows]
