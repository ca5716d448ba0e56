"""What the watermark brings: triggers that waited are judged, clocks warn and are breached. The wall clock decides nothing.

Clocks are claimed in batches with SKIP LOCKED, so that several replicas share the work and none waits for another.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from accord.database import Database, Recording
from accord.isolation import process_isolated
from accord.messaging.watermark import watermark
from accord.workers import Periodic
from sla_monitor.domain.clock import fire
from sla_monitor.queries import cases, due
from sla_monitor.usecases.agreements import SlaBook
from sla_monitor.usecases.follow import CONSUMED, judge_waiting

BATCH_CLOCKS_MAX = 500
BATCH_FACTS_MAX = 5_000
_PRUNE_EVERY_S = 60.0


async def fire_due(database: Database, book: SlaBook, clocks_max: int = BATCH_CLOCKS_MAX) -> int:
    """Fire up to so many clocks, those of a lead together; how many leads they are of.

    A lead of which one raises rests (see accord.isolation), and all others fire.
    """

    async def claim(recording: Recording, only: Sequence[UUID] | None) -> Sequence[UUID]:
        until = await watermark(recording.conn, CONSUMED)
        if until is None:
            return ()
        return await due.claim(await recording.driver(), until, await held_leads(recording), clocks_max, only)

    async def work(recording: Recording, lead_ids: Sequence[UUID]) -> None:
        until = await watermark(recording.conn, CONSUMED)
        if until is None:
            return
        driver = await recording.driver()
        clocks = await due.clocks_of(driver, lead_ids, until)
        slas = await book.open(recording.conn)
        turns = [fire(clock, until, recording.now, reassign=slas.clause(clock).reassign) for clock in clocks]
        for turn in turns:
            recording.publish(*turn.events)
        moved = [(clock, turn.clock) for clock, turn in zip(clocks, turns, strict=True)]
        await cases.move_clocks(driver, moved)

    return await process_isolated(database, due.FIRING, clocks_max, claim, work)


async def judge_ripe(database: Database, book: SlaBook, leads_max: int = BATCH_CLOCKS_MAX) -> int:
    """Judge the triggers of up to so many leads that waited for the watermark; how many leads there were."""

    async def claim(recording: Recording, only: Sequence[UUID] | None) -> Sequence[UUID]:
        until = await watermark(recording.conn, CONSUMED)
        if until is None:
            return ()
        return await due.waiting(await recording.driver(), until, await held_leads(recording), leads_max, only)

    async def work(recording: Recording, lead_ids: Sequence[UUID]) -> None:
        await judge_waiting(recording, lead_ids, book)

    return await process_isolated(database, due.JUDGING, leads_max, claim, work)


async def held_leads(recording: Recording) -> Sequence[UUID]:
    """Leads of which something is missing that was recorded before the watermark, so that nothing may be concluded about them."""
    return []


async def forget_old_facts(recording: Recording, kept: timedelta, rows_max: int = BATCH_FACTS_MAX) -> int:
    """Delete facts that no new clock will look back at; how many there were."""
    return await due.prune(await recording.driver(), recording.now - kept, rows_max)


def firing(database: Database, book: SlaBook, every_s: float) -> Periodic:
    """The worker that judges and fires."""

    async def work() -> bool:
        judged = await judge_ripe(database, book)
        fired = await fire_due(database, book)
        return fired > 0 or judged >= BATCH_CLOCKS_MAX

    return Periodic("fire-clocks", every_s, work)


def forgetting(database: Database, kept: timedelta) -> Periodic:
    """The worker that deletes old facts."""

    async def work() -> bool:
        async with database.recording() as recording:
            return await forget_old_facts(recording, kept) >= BATCH_FACTS_MAX

    return Periodic("forget-old-facts", _PRUNE_EVERY_S, work)
