"""What the watermark brings: triggers that waited are judged, clocks warn and are breached. The wall clock decides nothing.

Clocks are claimed in batches with SKIP LOCKED, so that several replicas share the work and none waits for another.
"""

from __future__ import annotations

from datetime import timedelta

from accord.database import Database, Recording
from accord.messaging.watermarks import Watermarks
from accord.workers import Periodic
from sla_monitor.domain.clock import fire
from sla_monitor.queries import cases, due
from sla_monitor.usecases.agreements import SlaBook
from sla_monitor.usecases.follow import CONSUMED, judge_waiting

BATCH_CLOCKS_MAX = 500
BATCH_FACTS_MAX = 5_000
_PRUNE_EVERY_S = 60.0


async def fire_due(
    database: Database, book: SlaBook, watermarks: Watermarks, clocks_max: int = BATCH_CLOCKS_MAX
) -> int:
    """Fire up to so many clocks, in one recording; how many there were."""
    async with database.recording() as recording:
        until = (await watermarks.read(recording.conn)).until(CONSUMED)
        if until is None:
            return 0
        driver = await recording.driver()
        claimed = await due.claim(driver, until, clocks_max)
        slas = await book.open(recording.conn)
        turns = [fire(clock, until, recording.now, reassign=slas.clause(clock).reassign) for clock in claimed]
        for turn in turns:
            recording.publish(*turn.events)
        moved = [(clock, turn.clock) for clock, turn in zip(claimed, turns, strict=True)]
        await cases.move_clocks(driver, moved)
    return len(claimed)


async def judge_ripe(
    database: Database, book: SlaBook, watermarks: Watermarks, leads_max: int = BATCH_CLOCKS_MAX
) -> int:
    """Judge the triggers of up to so many leads that waited for the watermark; how many leads there were."""
    async with database.recording() as recording:
        until = (await watermarks.read(recording.conn)).until(CONSUMED)
        ripe = await due.waiting(await recording.driver(), until, leads_max) if until is not None else []
        if ripe:
            await judge_waiting(recording, ripe, book, watermarks)
    return len(ripe)


async def forget_old_facts(recording: Recording, kept: timedelta, rows_max: int = BATCH_FACTS_MAX) -> int:
    """Delete facts that no new clock will look back at; how many there were."""
    return await due.prune(await recording.driver(), recording.now - kept, rows_max)


def firing(database: Database, book: SlaBook, watermarks: Watermarks, every_s: float) -> Periodic:
    """The worker that judges and fires."""

    async def work() -> bool:
        judged = await judge_ripe(database, book, watermarks)
        fired = await fire_due(database, book, watermarks)
        return max(judged, fired) >= BATCH_CLOCKS_MAX

    return Periodic("fire-clocks", every_s, work)


def forgetting(database: Database, kept: timedelta) -> Periodic:
    """The worker that deletes old facts."""

    async def work() -> bool:
        async with database.recording() as recording:
            return await forget_old_facts(recording, kept) >= BATCH_FACTS_MAX

    return Periodic("forget-old-facts", _PRUNE_EVERY_S, work)
