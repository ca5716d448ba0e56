"""Evaluates pending triggers and fires clocks as the watermark passes them. The wall clock decides nothing.

Clocks are claimed in batches with SKIP LOCKED, so that several replicas share the work and none waits for another. Held leads
are left out: one of their events that was recorded before the watermark is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

from msgspec import Struct

from accord.contracts.base import EventData
from accord.db import Database, UnitOfWork
from accord.isolation import process_isolated
from accord.messaging.consumer_store import store_watermarks
from accord.messaging.ports import ConsumedWatermarks
from accord.messaging.watermark_reader import ChangeGate, WatermarkReader
from accord.workers import Periodic
from sla_monitor.domain.case import SlaVersions
from sla_monitor.domain.clock import Clock, fire_clock
from sla_monitor.domain.rules import ClauseRule
from sla_monitor.queries import cases, due
from sla_monitor.usecases.agreements import SlaVersionCache
from sla_monitor.usecases.process_events import CONSUMED, evaluate_triggers, read_reached

BATCH_CLOCKS_MAX = 500
BATCH_FACTS_MAX = 5_000
_PRUNE_EVERY_S = 60.0


class FiringTransaction(Protocol):
    """One transaction of the fire worker, as a protocol that a simulator can implement."""

    @property
    def now(self) -> datetime: ...

    async def reached(self) -> ConsumedWatermarks:
        """How far the two topics have been consumed, as this transaction sees it."""
        ...

    async def claim_leads(
        self, until: datetime, held: frozenset[str], clocks_max: int, only: Sequence[UUID] | None
    ) -> Sequence[UUID]:
        """Claim leads with clocks that are due before `until`, except held ones. The clocks are locked."""
        ...

    async def lock_due_clocks(self, lead_ids: Sequence[UUID], until: datetime) -> Sequence[Clock]:
        """Lock the clocks of these leads that are due before `until`."""
        ...

    def get_rule(self, clock: Clock) -> ClauseRule:
        """The clause that the clock runs for."""
        ...

    async def update_clocks(self, changed: Sequence[tuple[Clock, Clock]]) -> None:
        """Update clocks: pairs of each as it was read and as it is now."""
        ...

    def publish(self, *events: EventData) -> None: ...


class ClaimedLeads(Struct, frozen=True):
    """Leads with locked clocks, and the watermark by which they were due and not held."""

    lead_ids: Sequence[UUID] = ()
    until: datetime | None = None


async def claim_due_leads(
    transaction: FiringTransaction, clocks_max: int, only: Sequence[UUID] | None = None
) -> ClaimedLeads:
    """Claim leads of at most `clocks_max` clocks whose next moment the watermark has passed."""
    reached = await transaction.reached()
    until = reached.until(CONSUMED)
    if until is None:
        return ClaimedLeads()
    return ClaimedLeads(await transaction.claim_leads(until, reached.held, clocks_max, only), until)


async def fire_clocks(transaction: FiringTransaction, claimed: ClaimedLeads) -> None:
    """Fire the due clocks of leads that were claimed in this transaction.

    The watermark of the claim applies. A later one may cover an event that became a dead letter meanwhile, so that a claimed
    lead would be held by then.
    """
    until = claimed.until
    if until is None:
        return
    clocks = await transaction.lock_due_clocks(claimed.lead_ids, until)
    transitions = [fire_clock(clock, transaction.get_rule(clock), until, transaction.now) for clock in clocks]
    for transition in transitions:
        transaction.publish(*transition.events)
    await transaction.update_clocks(
        [(clock, transition.clock) for clock, transition in zip(clocks, transitions, strict=True)]
    )


class PostgresFiringTransaction:
    """The firing transaction over PostgreSQL. `slas` are the versions that clocks run under; claiming needs none."""

    def __init__(self, unit_of_work: UnitOfWork, watermarks: WatermarkReader, slas: SlaVersions | None = None) -> None:
        self._unit_of_work = unit_of_work
        self._watermarks = watermarks
        self._slas = slas

    @property
    def now(self) -> datetime:
        return self._unit_of_work.now

    async def reached(self) -> ConsumedWatermarks:
        return await read_reached(self._unit_of_work, self._watermarks)

    async def claim_leads(
        self, until: datetime, held: frozenset[str], clocks_max: int, only: Sequence[UUID] | None
    ) -> Sequence[UUID]:
        return await due.claim_leads(await self._unit_of_work.connection(), until, sorted(held), clocks_max, only)

    async def lock_due_clocks(self, lead_ids: Sequence[UUID], until: datetime) -> Sequence[Clock]:
        return await due.lock_due_clocks(await self._unit_of_work.connection(), lead_ids, until)

    def get_rule(self, clock: Clock) -> ClauseRule:
        if self._slas is None:
            raise RuntimeError("firing needs the versions of the SLA")
        return self._slas.get_clause(clock)

    async def update_clocks(self, changed: Sequence[tuple[Clock, Clock]]) -> None:
        await cases.update_fired_clocks(await self._unit_of_work.connection(), changed)

    def publish(self, *events: EventData) -> None:
        self._unit_of_work.publish(*events)


async def fire_due_clocks(
    database: Database, sla_cache: SlaVersionCache, watermarks: WatermarkReader, clocks_max: int = BATCH_CLOCKS_MAX
) -> int:
    """Fire at most `clocks_max` clocks, those of a lead together; the number of leads.

    A lead whose clock raises rests (see accord.isolation), and all others fire.
    """

    claimed = ClaimedLeads()

    async def claim(unit_of_work: UnitOfWork, only: Sequence[UUID] | None) -> Sequence[UUID] | None:
        nonlocal claimed
        claimed = await claim_due_leads(PostgresFiringTransaction(unit_of_work, watermarks), clocks_max, only)
        return None if claimed.until is None else claimed.lead_ids

    async def work(unit_of_work: UnitOfWork, _: Sequence[UUID]) -> None:
        transaction = PostgresFiringTransaction(unit_of_work, watermarks, await sla_cache.load(unit_of_work.conn))
        await fire_clocks(transaction, claimed)
        # A response's `as_of` must not lie before what it shows.
        await store_watermarks(await unit_of_work.connection(), await transaction.reached())

    return await process_isolated(database, due.FIRE_WORKER, due.IS_TO_FIRE, claim, work)


async def evaluate_pending(
    database: Database, sla_cache: SlaVersionCache, watermarks: WatermarkReader, leads_max: int = BATCH_CLOCKS_MAX
) -> int:
    """Evaluate the pending triggers of at most `leads_max` leads that the watermark has passed; the number of leads."""

    async def claim(unit_of_work: UnitOfWork, only: Sequence[UUID] | None) -> Sequence[UUID] | None:
        reached = await read_reached(unit_of_work, watermarks)
        until = reached.until(CONSUMED)
        if until is None:
            return None
        return await due.fetch_pending_leads(
            await unit_of_work.connection(), until, sorted(reached.held), leads_max, only
        )

    async def work(unit_of_work: UnitOfWork, lead_ids: Sequence[UUID]) -> None:
        await evaluate_triggers(unit_of_work, lead_ids, sla_cache, watermarks)

    return await process_isolated(database, due.EVALUATE_WORKER, due.IS_TO_EVALUATE, claim, work)


async def prune_facts(unit_of_work: UnitOfWork, retention: timedelta, rows_max: int = BATCH_FACTS_MAX) -> int:
    """Delete facts that no new clock will look back at; the number of them."""
    return await due.prune_facts(await unit_of_work.connection(), unit_of_work.now - retention, rows_max)


def fire_worker(
    database: Database, sla_cache: SlaVersionCache, watermarks: WatermarkReader, every_s: float
) -> Periodic:
    """The worker that evaluates pending triggers and fires clocks."""

    gate = ChangeGate(watermarks)

    async def work() -> bool | None:
        evaluated = await evaluate_pending(database, sla_cache, watermarks)
        fired = await fire_due_clocks(database, sla_cache, watermarks)
        return fired > 0 or evaluated >= BATCH_CLOCKS_MAX if evaluated or fired else None

    return Periodic("fire-clocks", every_s, lambda: gate.run_if_changed(work))


def prune_facts_worker(database: Database, retention: timedelta) -> Periodic:
    """The worker that prunes facts."""

    async def work() -> bool:
        async with database.write_transaction() as unit_of_work:
            return await prune_facts(unit_of_work, retention) >= BATCH_FACTS_MAX

    return Periodic("prune-facts", _PRUNE_EVERY_S, work)
