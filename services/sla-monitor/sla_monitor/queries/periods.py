"""Periods of clauses: what counts in them, and their clocks, which stand in the table of clocks.

A change of what counts has the clock judged again, where its period is over. The change locks the clock before the
judgement counts, or after it: so none is missed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from uuid import UUID

import asyncpg

from accord.db import bulk
from sla_monitor import tables
from sla_monitor.domain.clock import Clock, Tally
from sla_monitor.domain.period import Entry, subject_of
from sla_monitor.queries.cases import CLOCK_COLUMNS, clock_from_row

_INSERT = bulk.insert(tables.period_entry, on_conflict="DO NOTHING")
_DELETE = bulk.delete(tables.period_entry, ["lead_id", "key"])

_ENTRIES_OF = """
SELECT DISTINCT clause, sla_version, occurred_at FROM period_entry
WHERE lead_id = ANY ($1::uuid[]) AND ($2::text[] IS NULL OR key = ANY ($2))
"""

_JUDGE_AGAIN = """
UPDATE clock SET next_at = clock.due_at
FROM unnest($1::uuid[], $2::text[], $3::int[], $4::timestamptz[]) AS entry (subject, clause, sla_version, occurred_at)
WHERE clock.lead_id = entry.subject AND clock.sla_version = entry.sla_version AND trigger_kind = 'period'
    AND clock.started_at <= entry.occurred_at AND entry.occurred_at < clock.due_at AND clock.due_at <= clock_timestamp()
"""

_LATEST = """
SELECT clause, sla_version, max(started_at) FROM clock WHERE lead_id = ANY ($1::uuid[]) AND trigger_kind = 'period' GROUP BY 1, 2
"""

_LOCK_DUE = f"""
SELECT {CLOCK_COLUMNS} FROM clock WHERE trigger_kind = 'period' AND next_at < $1 ORDER BY next_at, clock_id LIMIT $2
FOR UPDATE SKIP LOCKED
"""

_COUNT = """
SELECT count(*) FILTER (WHERE is_of) AS of, count(*) FILTER (WHERE is_over) AS over
FROM period_entry JOIN lead USING (lead_id)
WHERE clause = $1 AND sla_version = $2 AND occurred_at >= $3 AND occurred_at < $4
    AND (lead.merged_into IS NULL OR lead.merged_at >= $5)
"""

_IS_WAITED_FOR = """
SELECT EXISTS (SELECT FROM pending_trigger WHERE clause = $1 AND sla_version = $2 AND started_at >= $3 AND started_at < $4)
"""


async def save_entries(connection: asyncpg.Connection, entries: Mapping[UUID, Sequence[Entry]]) -> None:
    """Save what counts, by lead, and have periods that are over judged again."""
    rows = [
        {
            "lead_id": lead_id,
            "clause": entry.clause,
            "sla_version": entry.sla_version,
            "key": entry.key,
            "occurred_at": entry.occurred_at,
            "is_of": entry.is_of,
            "is_over": entry.is_over,
        }
        for lead_id, of_lead in entries.items()
        for entry in of_lead
    ]
    await _INSERT.execute(connection, rows)
    await _judge_again(
        connection,
        {(entry.clause, entry.sla_version, entry.occurred_at) for each in entries.values() for entry in each},
    )


async def delete_entries(connection: asyncpg.Connection, removed: Sequence[tuple[UUID, str]]) -> None:
    """Delete the entries of facts that a correction removed, by lead and key."""
    if removed:
        lead_ids, keys = [lead_id for lead_id, _ in removed], [key for _, key in removed]
        found = {tuple(row) for row in await connection.fetch(_ENTRIES_OF, lead_ids, keys)}
        await _DELETE.execute(connection, [{"lead_id": lead_id, "key": key} for lead_id, key in removed])
        await _judge_again(connection, found)


async def judge_leads_again(connection: asyncpg.Connection, lead_ids: Iterable[UUID]) -> None:
    """Have the periods judged again in which these leads count: they were merged, or their merge was reverted."""
    ordered = sorted(set(lead_ids))
    if ordered:
        await _judge_again(connection, {tuple(row) for row in await connection.fetch(_ENTRIES_OF, ordered, None)})


async def _judge_again(connection: asyncpg.Connection, entries: Iterable[tuple[str, int, datetime]]) -> None:
    ordered = sorted(entries)
    if ordered:
        clauses, versions, moments = zip(*ordered, strict=True)
        await connection.execute(_JUDGE_AGAIN, list(map(subject_of, clauses)), clauses, versions, moments)


async def fetch_latest_periods(
    connection: asyncpg.Connection, clauses: Iterable[str]
) -> dict[tuple[str, int], datetime]:
    """Fetch the begin of the latest period that has a clock, by clause and version."""
    subjects = sorted(map(subject_of, clauses))
    return {(row[0], row[1]): row[2] for row in await connection.fetch(_LATEST, subjects)}


async def lock_due_periods(connection: asyncpg.Connection, watermark: datetime, rows_max: int) -> list[Clock]:
    """Lock the clocks of periods with something due before the watermark; those that are locked already are skipped."""
    return [clock_from_row(row) for row in await connection.fetch(_LOCK_DUE, watermark, rows_max)]


async def count_entries(connection: asyncpg.Connection, clock: Clock, until: datetime) -> Tally:
    """Count what happened in a period up to a moment. Leads that were merged before the period's end do not count."""
    start, end = clock.started_at, clock.due_at
    (row,) = await connection.fetch(_COUNT, clock.clause, clock.sla_version, start, until, end)
    before = clock.tally or Tally(0, 0, 0)
    return Tally(row["of"], row["over"], before.at_least, before.is_rate)


async def is_waited_for(connection: asyncpg.Connection, clock: Clock) -> bool:
    """Whether it is not known yet of something in a period whether it counts."""
    found: bool = await connection.fetchval(
        _IS_WAITED_FOR, clock.clause, clock.sla_version, clock.started_at, clock.due_at
    )
    return found
