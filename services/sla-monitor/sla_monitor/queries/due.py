"""What the watermark has passed: clocks to fire, triggers to judge, and facts too old to look back at."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import asyncpg

from sla_monitor.domain.clock import Clock
from sla_monitor.queries.cases import CLOCK_COLUMNS, clock_of

_CLAIM = f"""
SELECT {CLOCK_COLUMNS} FROM clock WHERE state = 'running' AND next_at < $1 ORDER BY next_at LIMIT $2 FOR UPDATE SKIP LOCKED
"""

_WAITING = """
SELECT DISTINCT lead_id FROM (
    SELECT waiting.lead_id FROM waiting JOIN lead USING (lead_id)
    WHERE waiting.recorded_at < $1 AND lead.profiles <> '[]'
    ORDER BY waiting.recorded_at LIMIT $2
) AS ripe
"""

_PRUNE = """
DELETE FROM fact WHERE ctid = ANY (ARRAY(SELECT ctid FROM fact WHERE recorded_at < $1 LIMIT $2))
"""


async def claim(driver: asyncpg.Connection, watermark: datetime, rows_max: int) -> list[Clock]:
    """Up to so many clocks with something due before the watermark, locked; those that others hold are passed over."""
    return [clock_of(row) for row in await driver.fetch(_CLAIM, watermark, rows_max)]


async def waiting(driver: asyncpg.Connection, watermark: datetime, rows_max: int) -> Sequence[UUID]:
    """Leads with triggers that were recorded before the watermark, so that they can be judged."""
    return [row[0] for row in await driver.fetch(_WAITING, watermark, rows_max)]


async def prune(driver: asyncpg.Connection, before: datetime, rows_max: int) -> int:
    """Delete up to so many facts that were recorded before a moment; how many there were."""
    return int((await driver.execute(_PRUNE, before, rows_max)).rsplit(" ", 1)[1])
