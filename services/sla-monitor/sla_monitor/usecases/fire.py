"""What the watermark brings: triggers that waited are judged, clocks warn and are breached. The wall clock decides nothing.

Clocks are claimed in batches with SKIP LOCKED, so that several replicas share the work and none waits for another. Nothing
is concluded about leads that are held: something of them that was recorded before the watermark is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

from accord.contracts.base import EventData
from accord.db import Database, Recording
from accord.isolation import process_isolated
from accord.messaging.consumer_store import note_watermarks
from accord.messaging.ports import Reached
from accord.messaging.watermarks import ChangeGate, Watermarks
from accord.workers import Periodic
from sla_monitor.domain.case import Slas
from sla_monitor.domain.clock import Clock, fire
from sla_monitor.queries import cases, due
from sla_monitor.usecases.agreements import SlaBook
from sla_monitor.usecases.follow import CONSUMED, judge_waiting, read_reached

BATCH_CLOCKS_MAX = 500
BATCH_FACTS_MAX = 5_000
_PRUNE_EVERY_S = 60.0


class FiringTransaction(Protocol):
    """What firing needs of one transaction, so that a simulator can run it."""

    @property
    def now(self) -> datetime: ...

    async def reached(self) -> Reached:
        """How far the two topics have been consumed, as this transaction sees it."""
        ...

    async def claim_leads(
        self, until: datetime, held: frozenset[str], clocks_max: int, only: Sequence[UUID] | None
    ) -> Sequence[UUID]:
        """Leads with clocks that have something due before `until`, which are locked; without those that are held."""
        ...

    async def due_clocks(self, lead_ids: Sequence[UUID], until: datetime) -> Sequence[Clock]:
        """Their clocks with something due, locked."""
        ...

    def reassigns(self, clock: Clock) -> bool:
        """Whether the clause of the clock takes the lead away at a breach."""
        ...

    async def move_clocks(self, moved: Sequence[tuple[Clock, Clock]]) -> None:
        """Write clocks back: as they were read, and as they are now."""
        ...

    def publish(self, *events: EventData) -> None: ...


@dataclass(frozen=True, slots=True)
class Claimed:
    """Leads that are locked, and the watermark by which they were found to be due and not held."""

    lead_ids: Sequence[UUID] = ()
    until: datetime | None = None


async def claim_due(transaction: FiringTransaction, clocks_max: int, only: Sequence[UUID] | None = None) -> Claimed:
    """Claim leads of up to so many clocks whose moment the watermark has passed."""
    reached = await transaction.reached()
    until = reached.until(CONSUMED)
    if until is None:
        return Claimed()
    return Claimed(await transaction.claim_leads(until, reached.held, clocks_max, only), until)


async def fire_clocks(transaction: FiringTransaction, claimed: Claimed) -> None:
    """Warn and breach what is due of leads that were claimed in this transaction.

    By the watermark of the claim: one that is read later may cover an event that was set aside meanwhile, so that a lead
    which was claimed is held by then.
    """
    until = claimed.until
    if until is None:
        return
    clocks = await transaction.due_clocks(claimed.lead_ids, until)
    turns = [fire(clock, until, transaction.now, reassign=transaction.reassigns(clock)) for clock in clocks]
    for turn in turns:
        transaction.publish(*turn.events)
    await transaction.move_clocks([(clock, turn.clock) for clock, turn in zip(clocks, turns, strict=True)])


class PostgresFiring:
    """A recording, as firing sees it. `slas` are the versions that clocks run under; claiming needs none."""

    def __init__(self, recording: Recording, watermarks: Watermarks, slas: Slas | None = None) -> None:
        self._recording = recording
        self._watermarks = watermarks
        self._slas = slas

    @property
    def now(self) -> datetime:
        return self._recording.now

    async def reached(self) -> Reached:
        return await read_reached(self._recording, self._watermarks)

    async def claim_leads(
        self, until: datetime, held: frozenset[str], clocks_max: int, only: Sequence[UUID] | None
    ) -> Sequence[UUID]:
        return await due.claim(await self._recording.driver(), until, sorted(held), clocks_max, only)

    async def due_clocks(self, lead_ids: Sequence[UUID], until: datetime) -> Sequence[Clock]:
        return await due.clocks_of(await self._recording.driver(), lead_ids, until)

    def reassigns(self, clock: Clock) -> bool:
        if self._slas is None:
            raise RuntimeError("clocks are fired under the versions they run under")
        return self._slas.clause(clock).reassign

    async def move_clocks(self, moved: Sequence[tuple[Clock, Clock]]) -> None:
        await cases.move_clocks(await self._recording.driver(), moved)

    def publish(self, *events: EventData) -> None:
        self._recording.publish(*events)


async def fire_due(
    database: Database, book: SlaBook, watermarks: Watermarks, clocks_max: int = BATCH_CLOCKS_MAX
) -> int:
    """Fire up to so many clocks, those of a lead together; how many leads they are of.

    A lead of which one raises rests (see accord.isolation), and all others fire.
    """

    claimed = Claimed()

    async def claim(recording: Recording, only: Sequence[UUID] | None) -> Sequence[UUID] | None:
        nonlocal claimed
        claimed = await claim_due(PostgresFiring(recording, watermarks), clocks_max, only)
        return None if claimed.until is None else claimed.lead_ids

    async def work(recording: Recording, _: Sequence[UUID]) -> None:
        firing = PostgresFiring(recording, watermarks, await book.open(recording.conn))
        await fire_clocks(firing, claimed)
        # Answers must not be as of before what they show.
        await note_watermarks(await recording.driver(), await firing.reached())

    return await process_isolated(database, due.FIRING, due.IS_TO_FIRE, claim, work)


async def judge_ripe(
    database: Database, book: SlaBook, watermarks: Watermarks, leads_max: int = BATCH_CLOCKS_MAX
) -> int:
    """Judge the triggers of up to so many leads that waited for the watermark; how many leads there were."""

    async def claim(recording: Recording, only: Sequence[UUID] | None) -> Sequence[UUID] | None:
        reached = await read_reached(recording, watermarks)
        until = reached.until(CONSUMED)
        if until is None:
            return None
        return await due.waiting(await recording.driver(), until, sorted(reached.held), leads_max, only)

    async def work(recording: Recording, lead_ids: Sequence[UUID]) -> None:
        await judge_waiting(recording, lead_ids, book, watermarks)

    return await process_isolated(database, due.JUDGING, due.IS_TO_JUDGE, claim, work)


async def forget_old_facts(recording: Recording, kept: timedelta, rows_max: int = BATCH_FACTS_MAX) -> int:
    """Delete facts that no new clock will look back at; how many there were."""
    return await due.prune(await recording.driver(), recording.now - kept, rows_max)


def firing(database: Database, book: SlaBook, watermarks: Watermarks, every_s: float) -> Periodic:
    """The worker that judges and fires."""

    gate = ChangeGate(watermarks)

    async def work() -> bool | None:
        judged = await judge_ripe(database, book, watermarks)
        fired = await fire_due(database, book, watermarks)
        return fired > 0 or judged >= BATCH_CLOCKS_MAX if judged or fired else None

    return Periodic("fire-clocks", every_s, lambda: gate.run_if_changed(work))


def forgetting(database: Database, kept: timedelta) -> Periodic:
    """The worker that deletes old facts."""

    async def work() -> bool:
        async with database.recording() as recording:
            return await forget_old_facts(recording, kept) >= BATCH_FACTS_MAX

    return Periodic("forget-old-facts", _PRUNE_EVERY_S, work)
