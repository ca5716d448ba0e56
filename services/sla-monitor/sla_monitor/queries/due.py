"""What the watermark has passed: clocks to fire, triggers to judge, and facts too old to look back at."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import asyncpg

from accord.db import uuid_of
from accord.isolation import is_resting, is_stuck
from sla_monitor.domain.clock import Clock
from sla_monitor.queries.cases import CLOCK_COLUMNS, clock_of

FIRING = "fire-clocks"
JUDGING = "judge-triggers"
"""The workers by whose names leads rest."""

IS_TO_FIRE = "EXISTS (SELECT FROM clock WHERE clock.lead_id = stuck_row.key AND clock.state = 'running' AND clock.next_at < now())"
IS_TO_JUDGE = "EXISTS (SELECT FROM waiting WHERE waiting.lead_id = stuck_row.key)"
"""Whether there is something to do for these of a lead that rests, locked or held as it may be."""

_CLAIM = f"""
WITH due AS (
    SELECT lead_id FROM clock
    WHERE state = 'running' AND next_at < $1 AND lead_id::text <> ALL ($2::text[]) AND ($3::uuid[] IS NULL OR lead_id = ANY ($3))
        AND NOT {is_resting(FIRING, "clock.lead_id")}
    ORDER BY next_at LIMIT $4 FOR UPDATE OF clock SKIP LOCKED
)
SELECT DISTINCT lead_id FROM due
"""

_DUE_OF = f"""
SELECT {CLOCK_COLUMNS} FROM clock
WHERE lead_id = ANY ($1::uuid[]) AND state = 'running' AND next_at < $2 ORDER BY next_at FOR UPDATE SKIP LOCKED
"""

_WAITING = f"""
SELECT DISTINCT lead_id FROM (
    SELECT waiting.lead_id FROM waiting JOIN lead USING (lead_id)
    WHERE waiting.recorded_at < $1 AND lead.profiles <> '[]' AND lead_id::text <> ALL ($2::text[])
        AND ($3::uuid[] IS NULL OR lead_id = ANY ($3)) AND NOT {is_resting(JUDGING, "waiting.lead_id")}
    ORDER BY waiting.recorded_at LIMIT $4
) AS ripe
"""

HELD = f"""
WITH RECURSIVE reached (lead_id) AS (
    SELECT {uuid_of("held.key")} FROM unnest($1::text[]) AS held (key)
    UNION SELECT lead.merged_into FROM reached JOIN lead USING (lead_id) WHERE lead.merged_into IS NOT NULL
)
SELECT unnest($1::text[]) UNION SELECT lead_id::text FROM reached WHERE lead_id IS NOT NULL
"""
"""These keys ($1), and the leads that they were merged into, one after another: what is missing of one is missing of the others."""

OWED = f"""
SELECT least(
    (SELECT next_at FROM clock
     WHERE state = 'running' AND next_at < $1::timestamptz AND lead_id::text <> ALL ($2::text[])
        AND NOT {is_stuck(FIRING, "clock.lead_id")}
     ORDER BY next_at LIMIT 1),
    (SELECT min(least(waiting.started_at, waiting.recorded_at)) FROM waiting JOIN lead USING (lead_id)
     WHERE waiting.recorded_at < $1::timestamptz AND lead.profiles <> '[]' AND lead_id::text <> ALL ($2::text[])
        AND NOT {is_stuck(JUDGING, "waiting.lead_id")})
)
"""
"""The earliest moment that this service still owes, when all before the watermark $1 has been consumed: of a clock that has not fired
yet, or of a trigger that has not been judged yet, whose clock starts then. NULL if it owes none.

A lead that is held ($2), or that is stuck, bounds nothing, since it may be so for ever: it is announced as held instead.
"""

_PRUNE = """
DELETE FROM fact WHERE ctid = ANY (ARRAY(SELECT ctid FROM fact WHERE recorded_at < $1 LIMIT $2))
"""


async def with_survivors(driver: asyncpg.Connection, held: Sequence[str]) -> Sequence[str]:
    """These leads, and those that they were merged into."""
    return [row[0] for row in await driver.fetch(HELD, held)]


async def claim(
    driver: asyncpg.Connection,
    watermark: datetime,
    held: Sequence[str],
    rows_max: int,
    only: Sequence[UUID] | None = None,
) -> list[UUID]:
    """Leads of up to so many clocks with something due before the watermark, which are locked; those that others hold are passed over.

    Leads that are `held` are left out, and those at rest; `only` asks for some.
    """
    return [row[0] for row in await driver.fetch(_CLAIM, watermark, held, only, rows_max)]


async def clocks_of(driver: asyncpg.Connection, lead_ids: Sequence[UUID], watermark: datetime) -> list[Clock]:
    """The clocks of these leads with something due before the watermark, locked; those that others hold are passed over."""
    return [clock_of(row) for row in await driver.fetch(_DUE_OF, lead_ids, watermark)]


async def waiting(
    driver: asyncpg.Connection,
    watermark: datetime,
    held: Sequence[str],
    rows_max: int,
    only: Sequence[UUID] | None = None,
) -> Sequence[UUID]:
    """Leads with triggers that were recorded before the watermark, so that they can be judged.

    Leads that are `held` are left out, and those at rest; `only` asks for some.
    """
    return [row[0] for row in await driver.fetch(_WAITING, watermark, held, only, rows_max)]


async def prune(driver: asyncpg.Connection, before: datetime, rows_max: int) -> int:
    """Delete up to so many facts that were recorded before a moment; how many there were."""
    return int((await driver.execute(_PRUNE, before, rows_max)).rsplit(" ", 1)[1])
