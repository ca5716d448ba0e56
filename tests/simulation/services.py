"""Three small services, chained as the real ones are: intake tells, qualification follows, the SLA monitor keeps clocks.

What they do is simple enough for a straight-line model (see model.py). How events come and go between them is the real
code of accord.messaging, and whether a clock is answered or breached is the real code of sla_monitor.domain.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg
from msgspec import Struct
from msgspec.structs import replace

from accord.contracts.topics import INTAKE_EVENTS, QUALIFICATION_EVENTS
from accord.db import is_transient
from accord.messaging.consumer import Consumer, PoisonEvent, PoisonLimits
from accord.messaging.frontier import Consumed
from accord.messaging.handler import Received
from accord.messaging.ports import ConsumedWatermarks
from accord.messaging.relay import Relay
from accord.messaging.watermark_reader import ChangeGate, WatermarkReader
from accord.retry import Backoff
from accord.workers import pause
from sla_monitor.domain.clock import Clock, create_clock, settle_clock, start_clock, with_fact, with_facts
from sla_monitor.domain.facts import Fact
from sla_monitor.domain.rules import ClauseRule, Deadline, Pattern
from sla_monitor.usecases.fire import claim_due_leads, fire_clocks
from tests.simulation.database import Server, Session
from tests.simulation.events import LeadAdded, LeadReacted, LeadReported
from tests.simulation.log import MemoryLog
from tests.simulation.process import Process
from tests.simulation.store import (
    MemoryConsumerStore,
    MemoryDatabase,
    MemoryRelayStore,
    MemoryUnitOfWork,
    progress_of,
)

if TYPE_CHECKING:
    from tests.simulation.world import World

INTAKE, QUALIFICATION, SLA_MONITOR = "intake", "qualification", "sla-monitor"

Run = Callable[[asyncio.Event], Awaitable[None]]

_TIMEKEEPING_EVERY_S = 0.25
_FIRING_EVERY_S = 0.25
_LOOKS_EVERY_S = 1.0
_CLOCKS_MAX = 5


class Lead(Struct, frozen=True):
    """What a service keeps of a lead. `sequence` counts what it told of the lead itself."""

    sequence: int = 0
    state_sequence: int = 0
    """Of the newest state that intake told, which is all that the simulated state is."""
    stops: tuple[datetime, ...] = ()
    facts: tuple[Fact, ...] = ()


class Instance(ABC):
    """One process of a service: its workers, made of the real parts over the world's servers."""

    def __init__(self, world: World, process: Process, service: str) -> None:
        self.world = world
        self.process = process
        self.service = service
        self.server: Server = world.servers[service]
        self.database = MemoryDatabase(self.server, process)
        self.log = world.faults.log(MemoryLog(world.cluster, process), self)
        self.stop = asyncio.Event()

    @abstractmethod
    def workers(self) -> list[Run]: ...

    def _relay(self, consumed: Consumed | None, owed: Any = None) -> Run:
        store = MemoryRelayStore(self.database, owed) if owed else MemoryRelayStore(self.database)
        return Relay(
            self.world.faults.relay_store(store, self),
            self.log,
            self.service,  # type: ignore[arg-type]
            consumed,
            lanes=self.world.plan.lanes,
            batch_rows_max=self.world.plan.batch_rows_max,
            poll_s=0.25,
            idle_poll_s=0.5,
            gather_s=0.01,
            announce_every_s=0.4,
            idle_announce_every_s=0.6,
        ).run


class ConsumingInstance(Instance):
    """A process of a service that applies events of others."""

    @abstractmethod
    async def handle(self, unit_of_work: MemoryUnitOfWork, received: Sequence[Received]) -> None: ...

    @property
    def store(self) -> Any:
        """Of its consumer."""
        return MemoryConsumerStore(self.database, self.service)

    def _watermarks(self, topics: Sequence[str]) -> MemoryWatermarks:
        watermarks = MemoryWatermarks(self.log, consumer=self.service, topics=topics, now=self.server.now)
        watermarks.world = self.world
        watermarks.board = self.world.faults.board(watermarks.board)
        return watermarks

    def _consumer(self, watermarks: MemoryWatermarks) -> Run:
        return Consumer(
            self.world.faults.consumer_store(self.store, self),
            self.log,
            group=self.service,
            topics=watermarks.topics,
            handle=self.handle,
            progress=watermarks,
            batch_rows_max=self.world.plan.batch_rows_max,
            gather_s=0.01,
            poison=PoisonLimits(consecutive_max=1000),
        ).run

    async def _lock_leads(self, session: Session, received: Sequence[Received]) -> dict[str, Lead]:
        leads = {}
        for lead in sorted({one.event.data.key for one in received}):
            leads[lead] = await session.lock("lead", lead) or Lead()
        return leads

    def _refuse_poison(self, one: Received) -> None:
        data = one.event.data
        if (
            isinstance(data, LeadReported)
            and self.service in data.poison
            and (self.service, one.event.id) not in self.world.is_repaired
        ):
            if self.world.environment.rng.random() < 0.5:
                raise PoisonEvent("it cannot be applied", one)
            raise ValueError("it cannot be applied")


class MemoryWatermarks(WatermarkReader):
    """The real worker and board; progress is read from the session of a unit of work in memory."""

    world: World

    async def read(self, conn: Any) -> ConsumedWatermarks:
        reached = self.reached(await conn.call(lambda: progress_of(conn, [self.consumer])))
        self.world.check_reached(self.consumer, reached)
        return reached


class Intake(Instance):
    """Writes what happens with leads."""

    def workers(self) -> list[Run]:
        return [self._relay(None), *[self._write for _ in range(self.world.plan.writers)]]

    async def _write(self, stop: asyncio.Event) -> None:
        world, rng = self.world, self.world.environment.rng
        while not stop.is_set():
            if world.writes_left <= 0:
                await stop.wait()
                return
            await asyncio.sleep(world.plan.write_every_s * 2 * rng.random())
            if world.writes_left <= 0:
                continue
            world.writes_left -= 1
            leads = sorted(rng.sample(world.leads, 2 if rng.random() < 0.15 else 1))
            try:
                written = await self._write_events(leads)
            except Exception as error:
                if not is_transient(error):
                    raise
                world.writes_left += 1
                continue
            world.acknowledged.extend(written)

    async def _write_events(self, leads: Sequence[str]) -> list[tuple[str, int]]:
        """Record events of these leads in one transaction; the lead and sequence of each."""
        rng, written = self.world.environment.rng, []
        async with self.database.write_transaction() as unit_of_work:
            for lead in leads:
                await unit_of_work.conn.call(lambda: None)
                before = await unit_of_work.conn.lock("lead", lead) or Lead()
                sequence = before.sequence
                for _ in range(2 if rng.random() < 0.2 else 1):
                    sequence += 1
                    unit_of_work.publish(self._event(lead, sequence, unit_of_work.now))
                    written.append((lead, sequence))
                unit_of_work.conn.put("lead", lead, replace(before, sequence=sequence))
            if rng.random() < 0.15:
                await asyncio.sleep(0.6 * rng.random())
            if rng.random() < 0.05:
                raise TimeoutError
        return written

    def _event(self, lead: str, sequence: int, now: datetime) -> LeadReported | LeadAdded:
        plan, rng = self.world.plan, self.world.environment.rng
        base: dict[str, Any] = {"lead_id": UUID(lead), "sequence": sequence, "recorded_at": now, "occurred_at": now}
        if rng.random() < plan.unknown_odds:
            return LeadAdded(**base)
        roll = rng.random()
        what = "open" if roll < 0.45 else "answer" if roll < 0.65 else "act" if roll < 0.85 else "note"
        if what == "answer" and rng.random() < plan.late_report_odds:
            base["occurred_at"] = now - timedelta(seconds=rng.random())
        poison = tuple(
            service for service in (QUALIFICATION, SLA_MONITOR) if self.world.environment.happens(plan.poison_odds)
        )
        due_ms = rng.randint(20, 900) if what == "open" else 0
        owes_ms = rng.randint(20, 900) if what == "open" and rng.random() < 0.5 else 0
        return LeadReported(**base, what=what, due_ms=due_ms, owes_ms=owes_ms, poison=poison)


class Qualification(ConsumingInstance):
    """Follows what intake tells: some of it at once, some of it when time has passed without an answer."""

    def workers(self) -> list[Run]:
        self.watermarks = self._watermarks([INTAKE_EVENTS])
        consumed = Consumed(self.watermarks.board, [INTAKE_EVENTS], [QUALIFICATION])
        return [
            self._relay(consumed, owed_at),
            self.watermarks.run,
            self._consumer(self.watermarks),
            self._keep_time,
        ]

    async def handle(self, unit_of_work: MemoryUnitOfWork, received: Sequence[Received]) -> None:
        session = unit_of_work.conn
        leads = await self._lock_leads(session, received)
        if self.world.plan.slow_handling_s and not self.world.is_quiet:
            await asyncio.sleep(self.world.plan.slow_handling_s * self.world.environment.rng.random())
        for one in received:
            self._refuse_poison(one)
            self.world.record_delivery(self.service, session, one)
            data = one.event.data
            lead = leads[data.key]
            lead = replace(lead, state_sequence=self.world.faults.newer_state(lead.state_sequence, data.sequence))
            if isinstance(data, LeadReported):
                lead = self._react(unit_of_work, lead, data)
            leads[data.key] = lead
        for key, lead in leads.items():
            session.put("lead", key, lead)

    def _react(self, unit_of_work: MemoryUnitOfWork, lead: Lead, reported: LeadReported) -> Lead:
        session, key, at = unit_of_work.conn, reported.key, reported.recorded_at
        if reported.what in ("answer", "act"):
            lead = replace(lead, stops=(*lead.stops, at))
            for (owing, sequence), (opened_at, due_at) in list(session.rows("owed").items()):
                if owing == key and opened_at <= at <= due_at:
                    session.delete("owed", (owing, sequence))
        if reported.what == "act":
            lead = self._publish(unit_of_work, lead, reported.key, "acted", reported.sequence, reported.occurred_at, at)
        if reported.owes_ms:
            due_at = at + timedelta(milliseconds=reported.owes_ms)
            if not any(at <= stop <= due_at for stop in lead.stops):
                session.put("owed", (key, reported.sequence), (at, due_at))
        return lead

    def _publish(
        self,
        unit_of_work: MemoryUnitOfWork,
        lead: Lead,
        key: str,
        what: str,
        cause: int,
        occurred_at: datetime,
        root: datetime,
    ) -> Lead:
        sequence = lead.sequence + 1
        unit_of_work.publish(
            LeadReacted(
                lead_id=UUID(key),
                sequence=sequence,
                occurred_at=occurred_at,
                recorded_at=unit_of_work.now,
                what=what,
                cause=cause,
                root_at=root,
            )
        )
        return replace(lead, sequence=sequence)

    async def _keep_time(self, stop: asyncio.Event) -> None:
        """Bring about what is owed up to the consumed watermark, a few at a time."""
        await _repeat(stop, _TIMEKEEPING_EVERY_S, self._pass_time, ChangeGate(self.watermarks, _LOOKS_EVERY_S))

    async def _pass_time(self) -> bool | None:
        async with self.database.write_transaction() as unit_of_work:
            session = unit_of_work.conn
            reached = await self.watermarks.read(session)
            until = reached.until(self.watermarks.topics)
            if until is None:
                return None
            due = await session.call(lambda: self._due(session, until, reached.held))
            for lead_key, sequence in due:
                lead = await session.lock("lead", lead_key) or Lead()
                owed = session.get("owed", (lead_key, sequence))
                if owed is not None:
                    session.delete("owed", (lead_key, sequence))
                    lead = self._publish(unit_of_work, lead, lead_key, "aged", sequence, owed[1], owed[1])
                    session.put("lead", lead_key, lead)
        return False if due else None

    def _due(self, session: Session, until: datetime, held: frozenset[str]) -> list[tuple[str, int]]:
        found = [key for key, (_, due_at) in session.rows("owed").items() if due_at < until and key[0] not in held]
        return sorted(found)[: self.world.plan.owed_at_once]


def owed_at(session: Session, until: datetime, held: frozenset[str]) -> datetime | None:
    """The earliest moment up to `until` that time still has to bring about for leads that are not held."""
    owed = session.rows("owed").items()
    return min((due_at for (lead, _), (_, due_at) in owed if due_at <= until and lead not in held), default=None)


class SlaMonitor(ConsumingInstance):
    """Keeps a clock for each lead that was opened, and fires it when all that could have answered it in time was read."""

    def workers(self) -> list[Run]:
        topics = [INTAKE_EVENTS] + [QUALIFICATION_EVENTS] * (QUALIFICATION in self.world.servers)
        self.watermarks = self._watermarks(topics)
        return [self.watermarks.run, self._consumer(self.watermarks), self._fire]

    async def handle(self, unit_of_work: MemoryUnitOfWork, received: Sequence[Received]) -> None:
        session = unit_of_work.conn
        leads = await self._lock_leads(session, received)
        for one in received:
            self._refuse_poison(one)
            self.world.record_delivery(self.service, session, one)
            data = one.event.data
            if isinstance(data, LeadAdded):
                continue
            fact = fact_of(data)
            lead = leads[data.key]
            if any(known.key == fact.key for known in lead.facts):
                continue  # told again by a service that was restored
            for clock in await self._clocks(session, data.key):
                transition = settle_clock(clock, with_fact(clock, rule_of(clock), fact), unit_of_work.now)
                session.put("clock", key_of(clock), transition.clock)
                unit_of_work.publish(*transition.events)
            if isinstance(data, LeadReported) and data.what == "open":
                self._open(unit_of_work, lead, data, fact)
            leads[data.key] = replace(lead, facts=(*lead.facts, fact))
        for key, lead in leads.items():
            session.put("lead", key, lead)

    def _open(self, unit_of_work: MemoryUnitOfWork, lead: Lead, reported: LeadReported, fact: Fact) -> None:
        rule = _rule_of(timedelta(milliseconds=reported.due_ms))
        clock = with_facts(create_clock(rule, 1, reported.lead_id, fact), rule, lead.facts)
        transition = start_clock(clock, unit_of_work.now)
        unit_of_work.conn.put("clock", key_of(transition.clock), transition.clock)
        unit_of_work.publish(*transition.events)

    async def _clocks(self, session: Session, lead: str) -> list[Clock]:
        """The clocks of a lead, locked."""
        keys = sorted(key for key in session.rows("clock") if key[0] == lead)
        return [clock for key in keys if (clock := await session.lock("clock", key)) is not None]

    async def _fire(self, stop: asyncio.Event) -> None:
        await _repeat(stop, _FIRING_EVERY_S, self._fire_due, ChangeGate(self.watermarks, _LOOKS_EVERY_S))

    async def _fire_due(self) -> bool | None:
        async with self.database.write_transaction() as unit_of_work:
            firing = self.world.faults.firing(MemoryFiring(unit_of_work, self.watermarks))
            claimed = await claim_due_leads(firing, _CLOCKS_MAX)
            if claimed.lead_ids:
                await fire_clocks(firing, claimed)
        return False if claimed.lead_ids else None


class MemoryFiring:
    """A unit of work, as firing sees it."""

    def __init__(self, unit_of_work: MemoryUnitOfWork, watermarks: MemoryWatermarks) -> None:
        self.unit_of_work = unit_of_work
        self.session = unit_of_work.conn
        self.now = unit_of_work.now
        self.publish = unit_of_work.publish
        self._watermarks = watermarks

    async def reached(self) -> ConsumedWatermarks:
        # A service without qualification has no such topic to wait for.
        reached = await self._watermarks.read(self.session)
        topics = {QUALIFICATION_EVENTS: datetime.max.replace(tzinfo=UTC)} if len(self._watermarks.topics) == 1 else {}
        return replace(reached, topics={**topics, **reached.topics})

    async def claim_leads(
        self, until: datetime, held: frozenset[str], clocks_max: int, only: Sequence[UUID] | None
    ) -> Sequence[UUID]:
        def statement() -> list[UUID]:
            due = self._due(until, lambda clock: str(clock.lead_id) not in held)[:clocks_max]
            return sorted({clock.lead_id for clock in due})

        return await self.session.call(statement)

    async def lock_due_clocks(self, lead_ids: Sequence[UUID], until: datetime) -> Sequence[Clock]:
        return await self.session.call(lambda: self._due(until, lambda clock: clock.lead_id in lead_ids))

    def _due(self, until: datetime, is_asked_for: Callable[[Clock], bool]) -> list[Clock]:
        """Clocks with something due, locked, without those that another transaction has locked."""
        found = []
        for key, clock in sorted(self.session.rows("clock").items()):
            at = clock.next_at
            if at is not None and at < until and is_asked_for(clock) and self.session.can_lock("clock", key):
                self.session.take_lock(("clock", key))
                found.append(clock)
        return found

    def get_rule(self, clock: Clock) -> ClauseRule:
        return rule_of(clock)

    async def update_clocks(self, moved: Sequence[tuple[Clock, Clock]]) -> None:
        await self.session.call(lambda: None)
        for was, becomes in moved:
            found = await self.session.lock("clock", key_of(was))
            if found is None or found.event_count != was.event_count:
                raise asyncpg.SerializationError("another transaction changed a clock")
            self.session.put("clock", key_of(was), becomes)


def key_of(clock: Clock) -> tuple[str, int]:
    """A clock's key: its lead and the sequence of what opened it."""
    return str(clock.lead_id), clock.trigger.sequence


async def _repeat(
    stop: asyncio.Event, every_s: float, work: Callable[[], Awaitable[bool | None]], gate: ChangeGate
) -> None:
    """Look again and again for what the watermark has brought."""
    backoff = Backoff(first_s=0.1, max_s=0.5)
    while not stop.is_set():
        try:
            await gate.run_if_changed(work)
            backoff.reset()
        except Exception as error:
            if not is_transient(error):
                raise
            await backoff.wait(stop)
            continue
        await pause(stop, every_s)


def fact_of(data: LeadReported | LeadReacted) -> Fact:
    """The fact that a clock sees in an event."""
    if isinstance(data, LeadReported):
        key, name = f"told/{data.sequence}", data.what
    else:
        key, name = f"{data.what}/{data.cause}", "answer"
    return Fact("activity", key, name, data.occurred_at, data.recorded_at, data.sequence)


def rule_of(clock: Clock) -> ClauseRule:
    """The clause of a clock: something has to come before it is due."""
    return _rule_of(clock.due_at - clock.started_at)


@cache
def _rule_of(after: timedelta) -> ClauseRule:
    return ClauseRule(
        key="answer",
        obliges="sales",
        start=Pattern("activity", frozenset({"open"})),
        answer=Pattern("activity", frozenset({"answer"})),
        deadline=Deadline(None, after),
        warn_at=(),
        where=None,
        needs_profile=False,
        needs_qualification_state=False,
    )
