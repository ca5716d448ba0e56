"""What the watermark has passed: clocks to fire and triggers to evaluate. Also prunes facts that no clock looks back at."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import asyncpg

from accord.db import uuid_sql
from accord.isolation import is_resting, is_stuck
from sla_monitor.domain.clock import Clock
from sla_monitor.queries.cases import CLOCK_COLUMNS, clock_from_row

FIRE_WORKER = "fire-clocks"
EVALUATE_WORKER = "evaluate-triggers"
"""The workers whose stuck leads rest under these names."""

IS_TO_FIRE = "EXISTS (SELECT FROM clock WHERE clock.lead_id = stuck_row.key AND clock.next_at < now())"
IS_TO_EVALUATE = "EXISTS (SELECT FROM pending_trigger WHERE pending_trigger.lead_id = stuck_row.key)"
"""SQL conditions: whether a resting lead has something to do for the worker, also while it is locked or held."""

_CLAIM_LEADS = f"""
WITH due AS (
    SELECT lead_id FROM clock
    WHERE next_at < $1 AND trigger_kind <> 'period' AND lead_id::text <> ALL ($2::text[]) AND ($3::uuid[] IS NULL OR lead_id = ANY ($3))
        AND NOT {is_resting(FIRE_WORKER, "clock.lead_id")}
    ORDER BY next_at LIMIT $4 FOR UPDATE OF clock SKIP LOCKED
)
SELECT DISTINCT lead_id FROM due
"""

_DUE_CLOCKS = f"""
SELECT {CLOCK_COLUMNS} FROM clock
WHERE lead_id = ANY ($1::uuid[]) AND next_at < $2 ORDER BY next_at FOR UPDATE SKIP LOCKED
"""

_PENDING_LEADS = f"""
SELECT DISTINCT lead_id FROM (
    SELECT pending_trigger.lead_id FROM pending_trigger JOIN lead USING (lead_id)
    WHERE pending_trigger.recorded_at < $1 AND lead.profiles <> '[]' AND lead_id::text <> ALL ($2::text[])
        AND ($3::uuid[] IS NULL OR lead_id = ANY ($3)) AND NOT {is_resting(EVALUATE_WORKER, "pending_trigger.lead_id")}
    ORDER BY pending_trigger.recorded_at LIMIT $4
) AS ready
"""

HELD = f"""
WITH RECURSIVE reached (lead_id) AS (
    SELECT {uuid_sql("held.key")} FROM unnest($1::text[]) AS held (key)
    UNION SELECT lead.merged_into FROM reached JOIN lead USING (lead_id) WHERE lead.merged_into IS NOT NULL
)
SELECT unnest($1::text[]) UNION SELECT lead_id::text FROM reached WHERE lead_id IS NOT NULL
"""
"""These keys ($1) and the leads that they were merged into, transitively: an event that one lacks, its survivors lack too."""

OWED = f"""
SELECT least(
    (SELECT next_at FROM clock
     WHERE next_at < $1::timestamptz AND lead_id::text <> ALL ($2::text[])
        AND NOT {is_stuck(FIRE_WORKER, "clock.lead_id")}
     ORDER BY next_at LIMIT 1),
    (SELECT min(least(pending_trigger.started_at, pending_trigger.recorded_at)) FROM pending_trigger JOIN lead USING (lead_id)
     WHERE pending_trigger.recorded_at < $1::timestamptz AND lead.profiles <> '[]' AND lead_id::text <> ALL ($2::text[])
        AND NOT {is_stuck(EVALUATE_WORKER, "pending_trigger.lead_id")})
)
"""
"""The earliest moment of an event that this service still owes below the consumed watermark $1: of a clock that has not fired, or of
a trigger that has not been evaluated, whose clock starts then. NULL if it owes none.

A lead that is held ($2) or stuck may stay so for ever. So it bounds nothing and is announced as held instead.
"""

_PRUNE_FACTS = """
DELETE FROM fact WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM fact
    WHERE recorded_at < $1
        AND NOT EXISTS (SELECT FROM clock WHERE clock.lead_id = fact.lead_id AND state IN ('running', 'paused'))
    LIMIT $2
))
"""
"""An open clock rests on the facts of its lead: a correction, or a pause, is seen by all of them."""


async def fetch_with_survivors(connection: asyncpg.Connection, held: Sequence[str]) -> Sequence[str]:
    """Fetch these leads and those that they were merged into."""
    return [row[0] for row in await connection.fetch(HELD, held)]


async def claim_leads(
    connection: asyncpg.Connection,
    watermark: datetime,
    held: Sequence[str],
    rows_max: int,
    only: Sequence[UUID] | None = None,
) -> list[UUID]:
    """Claim leads of at most `rows_max` clocks that are due before the watermark. The clocks are locked; locked ones are skipped.

    Leads that are `held` or at rest are left out; `only` limits the claim to some.
    """
    return [row[0] for row in await connection.fetch(_CLAIM_LEADS, watermark, held, only, rows_max)]


async def lock_due_clocks(connection: asyncpg.Connection, lead_ids: Sequence[UUID], watermark: datetime) -> list[Clock]:
    """Lock the clocks of these leads that are due before the watermark; those that are locked already are skipped."""
    return [clock_from_row(row) for row in await connection.fetch(_DUE_CLOCKS, lead_ids, watermark)]


async def fetch_pending_leads(
    connection: asyncpg.Connection,
    watermark: datetime,
    held: Sequence[str],
    rows_max: int,
    only: Sequence[UUID] | None = None,
) -> Sequence[UUID]:
    """Fetch leads with triggers that were recorded before the watermark, so that they can be evaluated.

    Leads that are `held` or at rest are left out; `only` limits the result to some.
    """
    return [row[0] for row in await connection.fetch(_PENDING_LEADS, watermark, held, only, rows_max)]


async def prune_facts(connection: asyncpg.Connection, before: datetime, rows_max: int) -> int:
    """Delete at most `rows_max` facts that were recorded before a moment; the number of them."""
    return int((await connection.execute(_PRUNE_FACTS, before, rows_max)).rsplit(" ", 1)[1])
