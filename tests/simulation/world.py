"""One simulated instance: a plan drawn from the seed, processes that come and go, what goes wrong, and what must hold.

Safety is looked at all the time, liveness after the faults have ended: then everything must come to rest, and what came
out must be what the straight-line model says.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from msgspec import Struct

from accord.contracts.envelope import event_id_of
from accord.contracts.sla_events import ClockBreached, ClockEvent
from accord.contracts.topics import INTAKE_EVENTS, QUALIFICATION_EVENTS, TOPIC_OF
from accord.contracts.watermarks import WATERMARKS
from accord.messaging import dead_letters
from accord.messaging.handler import Received
from accord.messaging.ports import ConsumedWatermarks, LogPositionLost, OutgoingRecord, Position
from tests.simulation import model
from tests.simulation.database import Row, Server, Session
from tests.simulation.events import LeadReacted
from tests.simulation.faults import Faults
from tests.simulation.log import Cluster
from tests.simulation.process import CURRENT, Environment, Odds, Process, ProcessKilled
from tests.simulation.services import INTAKE, QUALIFICATION, SLA_MONITOR, Instance, Intake, Qualification, SlaMonitor
from tests.simulation.store import StoredRow

CONVERGED_WITHIN_S = 60.0
"""After the faults have ended; back-off and late notice of dead sessions take their part of it."""

_PRODUCER_OF = {topic: service for service, topic in TOPIC_OF.items()}
_SERVICES: dict[str, type[Instance]] = {INTAKE: Intake, QUALIFICATION: Qualification, SLA_MONITOR: SlaMonitor}


class Plan(Struct, frozen=True):
    """What a seed makes of its run. Each kind of fault is there in some runs only, so that they also meet alone."""

    services: tuple[str, ...]
    processes: Mapping[str, int]
    lanes: int
    partitions: int
    batch_rows_max: int
    writers: int
    writes: int
    write_every_s: float
    leads: int
    late_leads: int
    poison_odds: float
    unknown_odds: float
    late_report_odds: float
    owed_at_once: int
    slow_handling_s: float
    """Qualification takes up to so long for a batch, so that it lags behind what the SLA monitor reads of intake."""
    trouble_until_s: float
    trouble_every_s: float
    troubles: tuple[str, ...]
    recreates: bool
    """A topic is deleted and created again; consumers must refuse to go on."""
    odds: Odds
    offsets: Mapping[str, float]

    @classmethod
    def draw(cls, rng: random.Random) -> Plan:
        services = (INTAKE, SLA_MONITOR) if rng.random() < 0.4 else (INTAKE, QUALIFICATION, SLA_MONITOR)

        def maybe(odds: float, value: float) -> float:
            return value * rng.random() if rng.random() < odds else 0.0

        troubles = tuple(name for name in sorted(TROUBLES) if rng.random() < 0.45)
        recreates = rng.random() < 0.04
        if recreates:  # what was read is told by what was stored of it, which these two would change
            troubles = tuple(name for name in troubles if name not in ("restore", "write garbage"))
        return cls(
            services=services,
            processes={service: 2 if rng.random() < 0.5 else 1 for service in services},
            lanes=rng.choice([1, 1, 2, 3]),
            partitions=rng.choice([1, 2, 3]),
            batch_rows_max=rng.choice([1, 3, 10, 100]),
            writers=rng.choice([1, 2, 4]),
            writes=rng.randint(6, 18),
            write_every_s=rng.choice([0.05, 0.15, 0.3]),
            leads=rng.randint(2, 5),
            late_leads=rng.choice([0, 2]),
            poison_odds=maybe(0.4, 0.3),
            unknown_odds=maybe(0.3, 0.4),
            late_report_odds=maybe(0.2, 0.5),
            owed_at_once=rng.choice([1, 10]),
            slow_handling_s=maybe(0.4, 0.5),
            trouble_until_s=1.0 + 2.0 * rng.random(),
            trouble_every_s=rng.choice([0.15, 0.3, 0.8]),
            troubles=troubles,
            recreates=recreates,
            odds=Odds(
                kill=maybe(0.4, 0.01),
                lose_connection=maybe(0.4, 0.02),
                slow=maybe(0.5, 0.1),
                lose_ack=maybe(0.4, 0.2),
                fail_append=maybe(0.4, 0.2),
                hide_writers=maybe(0.2, 0.2),
            ),
            # A lead's id tells by some clock when it came, and added partitions are announced so far ahead that no clock
            # is that far off: five minutes in production, LAYOUT_AHEAD here.
            offsets={
                service: rng.uniform(-1, 1) * (0.4 if "add partitions" in troubles else 2) for service in services
            },
        )


class World:
    """Everything of one run."""

    def __init__(self, environment: Environment, faults: Faults) -> None:
        self.environment = environment
        self.faults = faults
        self.plan = plan = Plan.draw(environment.rng)
        self.cluster = Cluster(environment)
        self.cluster.partitions_default = plan.partitions
        self.servers = {
            service: Server(environment, service, timedelta(seconds=plan.offsets[service])) for service in plan.services
        }
        for service, server in self.servers.items():
            server.on_commit = self._committed_by(service)
            faults.server(server)
        self.leads: list[str] = []
        self.writes_left = plan.writes
        self.acknowledged: list[tuple[str, int]] = []
        self.reported: dict[UUID, tuple[str, Any]] = {}
        """Everything that services committed to tell, by event id: the service and the event."""
        self.is_repaired: set[tuple[str, UUID | None]] = set()
        """Events that a service can apply since its handler was mended."""
        self.restored: set[str] = set()
        """Services whose database has gone back in time."""
        self.upgraded = False
        self.recreated: str | None = None
        """The topic that was created again."""
        self.recreated_at = datetime.max.replace(tzinfo=UTC)
        self.read_before: dict[str, dict[int, Position]] = {}
        """How far its partitions had been read before that, by consumer."""
        self.refused: set[str] = set()
        self.is_over = False
        self.is_quiet = False
        self.instances: dict[tuple[str, int], Instance] = {}
        self._backups: dict[str, Any] = {}
        self._stepped: set[Server] = set()

    # -- promises that are looked at all the time

    def _committed_by(self, service: str) -> Callable[[Mapping[tuple[str, Any], Row]], None]:
        def committed(writes: Mapping[tuple[str, Any], Row]) -> None:
            for (table, key), row in writes.items():
                if table == "outbox" and isinstance(row, StoredRow):
                    self.reported[row.row.event_id] = (service, row.event)
                elif table == "disorder":
                    self.environment.violated(f"{service} applied {row}")
                elif table == "gap":
                    self._check_gap(service, key, row)

        return committed

    def record_delivery(self, consumer: str, session: Session, one: Received) -> None:
        """An event is being applied: once, and among first sightings after all that came before it of its lead."""
        session.check_alive()  # or else it is no matter what the handler does: its transaction is gone
        event, data = one.event, one.event.data
        source, lead, sequence = event.source[1:], data.key, data.sequence
        is_replay = session.get("letter_key", (consumer, event.id)) is not None
        if one.topic == self.recreated and not is_replay and self._is_another(consumer, one.partition):
            self.environment.violated(f"{consumer} read on in {one.topic}/{one.partition}, which was created again")
        if self.environment.trace:
            again = " again" if is_replay else ""
            self.environment.trace(f"applies{again} {lead[-4:]} #{sequence} of {source} {str(event.id)[-4:]}")
        if session.get("applied", (consumer, event.id)) is not None:
            self.environment.violated(f"{consumer} applied {lead[-4:]} #{sequence} of {source} twice")
        session.put("applied", (consumer, event.id), (source, lead, sequence))
        if source in self.restored or one.topic == self.recreated:
            return  # what came before is gone, and a request to the topic of before may still arrive
        at = (consumer, source, lead)
        last = session.get("seen", at) or 0
        if sequence > last:
            session.put("seen", at, sequence)
            if sequence > last + 1:
                session.put("gap", (*at, sequence), frozenset(range(last + 1, sequence)))
        elif not is_replay:
            session.put("disorder", (consumer, event.id), f"{lead[-4:]} #{sequence} of {source} after #{last}")

    def _check_gap(self, consumer: str, at: tuple[str, str, str, int], missing: frozenset[int]) -> None:
        """What is missing before an applied event must be among the dead letters, once the transaction has committed."""
        _, source, lead, sequence = at
        for letter in self.servers[consumer].tables["letter"].values():
            reported = self.reported.get(letter.event_id)
            if reported is not None and reported[0] == source and reported[1].key == lead:
                missing -= {reported[1].sequence}
        if missing and source not in self.restored and self.recreated is None:
            self.environment.violated(
                f"{consumer} applied {lead[-4:]} #{sequence} of {source} before {sorted(missing)}"
            )

    # -- running

    async def run(self) -> None:
        """The whole run: work with trouble, then quiet until everything has come to rest, then the model's judgement."""
        plan, loop = self.plan, self.environment.loop
        for _ in range(plan.leads):
            self._new_lead()
        slots = [(service, number) for service in plan.services for number in range(plan.processes[service])]
        tasks = [loop.create_task(self._keep_alive(service, number)) for service, number in slots]
        tasks += [loop.create_task(self._operate()), loop.create_task(self._inject_faults())]
        if plan.late_leads:
            tasks.append(loop.create_task(self._add_leads()))
        await asyncio.sleep(plan.trouble_until_s)
        self._end_faults()
        if plan.recreates:
            self._recreate()
        until = loop.time() + CONVERGED_WITHIN_S
        while not self.environment.violations and (unrest := self._unrest()):
            if loop.time() > until:
                self.environment.violated(f"not at rest after {CONVERGED_WITHIN_S:.0f} s: {unrest}")
            await asyncio.sleep(0.2)
        for service in self.refused:
            self._check_lost(service)
        self.is_over = True
        for instance in self.instances.values():
            instance.process.kill()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await asyncio.sleep(0.1)
        if not self.environment.violations and self.recreated is None:
            self._check()

    def _new_lead(self) -> None:
        milliseconds = int(self.servers[INTAKE].now().timestamp() * 1000 + self.environment.rng.uniform(-150, 150))
        self.leads.append(
            str(UUID(int=milliseconds << 80 | 0x7 << 76 | 0x2 << 62 | self.environment.rng.getrandbits(60)))
        )

    async def _add_leads(self) -> None:
        for _ in range(self.plan.late_leads):
            await asyncio.sleep(self.environment.rng.random() * 2.5)
            self._new_lead()

    async def _keep_alive(self, service: str, number: int) -> None:
        """Start a process, and another whenever it has ended."""
        loop, rng, count = self.environment.loop, self.environment.rng, 0
        while not self.is_over:
            if service != INTAKE and self.recreated is not None:
                await asyncio.sleep(
                    2.0 * rng.random()
                )  # it takes a while, so that the new log may be longer than the old
            count += 1
            process = Process(self.environment, f"{service}-{number}.{count}", version=2 if self.upgraded else 1)
            instance = self.instances[(service, number)] = _SERVICES[service](self, process, service)
            context = contextvars.copy_context()
            context.run(CURRENT.set, process)
            task = loop.create_task(self._live(instance), context=context)
            await asyncio.wait([task])
            self._check_instance(instance, task)
            process.kill()
            await asyncio.sleep(0.05 + 0.3 * rng.random())

    async def _live(self, instance: Instance) -> None:
        """One process, from its start to its end."""
        tasks = [asyncio.create_task(run(instance.stop)) for run in instance.workers()]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for task in tasks:
                if task.done():
                    self._check_instance(instance, task)
                else:
                    task.cancel()

    def _check_instance(self, instance: Instance, task: asyncio.Task[None]) -> None:
        """A worker may end because it was told to, or with its process; nothing else is planned."""
        error = None if task.cancelled() else task.exception()
        if isinstance(error, LogPositionLost) and self.recreated is not None:
            self.refused.add(instance.service)
            return
        if error is not None and not isinstance(error, ProcessKilled) and instance.process.is_alive:
            self.environment.violated(f"{instance.process.name} ended by {type(error).__name__}: {error}")
            if self.environment.trace:
                import traceback

                traceback.print_exception(error)

    async def _operate(self) -> None:
        """Somebody looks at the dead letters now and then, and has handlers mended."""
        rng = self.environment.rng
        while not self.is_over:
            await asyncio.sleep(0.2 + 0.8 * rng.random())
            for service in (QUALIFICATION, SLA_MONITOR):
                if service not in self.servers:
                    continue
                letters = [one for one in self.servers[service].tables["letter"].values() if one.state == "new"]
                process = Process(self.environment, f"operator-{service}", version=2)
                instance = _SERVICES[service](self, process, service)
                for letter in letters:
                    if letter.kind == "unknown" or (rng.random() < 0.5 and not self.is_quiet):
                        continue
                    try:
                        # Decided in the same way again where a database has gone back in time.
                        fate = random.Random(f"{service} {letter.event_id}").random()
                        if letter.kind == "malformed" or fate < 0.3:
                            await dead_letters.discard(instance.store, letter.id)
                        else:
                            self.is_repaired.add((service, letter.event_id))
                            await dead_letters.replay(instance.store, instance.handle, letter.id)
                    except (Exception, ProcessKilled):  # noqa: BLE001 - it is tried again
                        break
                process.kill()

    # -- trouble

    async def _inject_faults(self) -> None:
        environment, plan = self.environment, self.plan
        environment.odds = plan.odds
        if not plan.troubles:
            return
        while not self.is_quiet:
            await asyncio.sleep(plan.trouble_every_s * 2 * environment.rng.random())
            if self.is_quiet:
                return
            name = environment.rng.choice(plan.troubles)
            if environment.trace:
                environment.trace("trouble:", name)
            TROUBLES[name](self)

    def _end_faults(self) -> None:
        if self.environment.trace:
            self.environment.trace("quiet from now on")
        self.is_quiet = True
        self.environment.odds = Odds()
        self.cluster.is_up = True
        self.cluster.unavailable.clear()
        for server in self.servers.values():
            server.is_up = True
        for instance in self.instances.values():
            instance.process.resume()
        self.upgrade()

    def upgrade(self) -> None:
        """Start all processes anew from the next version of the program, some at once and some only when they have drained."""
        if self.upgraded:
            return
        self.upgraded = True
        for instance in self.instances.values():
            if self.environment.rng.random() < 0.5:
                instance.process.kill()
            else:
                instance.stop.set()

    def _instance(self) -> Instance:
        return self.environment.rng.choice(list(self.instances.values()))

    def _server(self) -> Server:
        return self.environment.rng.choice(list(self.servers.values()))

    def _later(self, delay_s: float, what: Callable[[], None]) -> None:
        self.environment.loop.call_later(delay_s * self.environment.rng.random(), what)

    def _kill(self) -> None:
        self._instance().process.kill()

    def _restart(self) -> None:
        self._instance().stop.set()

    def _suspend(self) -> None:
        """It stands still, and servers may give its sessions up in the meantime; then it goes on."""
        instance = self._instance()
        instance.process.suspend()
        self._later(1.5, instance.process.resume)
        if self.environment.rng.random() < 0.5:
            for session in list(instance.server.sessions.values()):
                if session.process is instance.process:
                    self._later(0.3, session.drop)

    def _drop_session(self) -> None:
        sessions = list(self._server().sessions.values())
        if sessions:
            self.environment.rng.choice(sessions).drop()

    def _restart_server(self) -> None:
        server = self._server()
        server.is_up = False
        server.drop_all()
        self._later(0.5, lambda: setattr(server, "is_up", True))

    def _stop_cluster(self) -> None:
        self.cluster.is_up = False
        self._later(0.6, lambda: setattr(self.cluster, "is_up", True))

    def _stop_partition(self) -> None:
        topic = self.environment.rng.choice([INTAKE_EVENTS, QUALIFICATION_EVENTS, QUALIFICATION_EVENTS])
        parts = {(topic, number) for number in range(self.plan.partitions) if self.environment.rng.random() < 0.7}
        self.cluster.unavailable |= parts
        self._later(1.5, lambda: self.cluster.unavailable.difference_update(parts))

    def _add_partitions(self) -> None:
        topic = self.environment.rng.choice([INTAKE_EVENTS, QUALIFICATION_EVENTS])
        if topic in self.cluster.topics and len(self.cluster.topics[topic]) < 6:
            self.cluster.add_partitions(topic, len(self.cluster.topics[topic]) + self.environment.rng.randint(1, 2))

    def _compact(self) -> None:
        self.cluster.compact(WATERMARKS)

    def _write_garbage(self) -> None:
        rng = self.environment.rng
        topic = rng.choice([INTAKE_EVENTS, INTAKE_EVENTS, WATERMARKS])
        if topic not in self.cluster.topics:
            return
        if topic == WATERMARKS:
            forged = f'{{"at":"{rng.choice(["2099-01-01T00:00:00Z", "soon"])}","ends":[0,0]}}'
            self.cluster.append(topic, 0, [OutgoingRecord(f"{INTAKE_EVENTS}/0".encode(), forged.encode(), [])])
            return
        key = rng.choice([b"", b"\xff\xfe", rng.choice(self.leads).encode()])
        headers = rng.choice(
            [[], [("content-type", None)], [("ce_specversion", b"1.0"), ("ce_type", b"sim.told.v1"), ("ce_id", b"no")]]
        )
        record = OutgoingRecord(key, b"{", headers)  # type: ignore[arg-type]
        self.cluster.append(topic, rng.randrange(len(self.cluster.topics[topic])), [record])

    def _recreate(self) -> None:
        """A topic is deleted and created again while its consumers are down."""
        topics = [topic for topic in self.cluster.topics if topic != WATERMARKS]
        if not topics:
            return
        topic = self.environment.rng.choice(topics)
        for service, server in self.servers.items():
            positions = server.tables["position"].items()
            self.read_before[service] = {part[1]: at for (_, part), at in positions if part[0] == topic}
        for instance in self.instances.values():
            instance.process.kill()
        self.cluster.topics[topic] = [[] for _ in self.cluster.topics[topic]]
        self.recreated = topic
        self.recreated_at = self.servers[_PRODUCER_OF[topic]].now()
        self.writes_left += 25  # enough for the new log to reach where the old one was read until
        if self.environment.trace:
            self.environment.trace("created again:", topic)

    def _check_lost(self, service: str) -> None:
        """What was read of the old topic says nothing of the new one, so nobody may act by it. A relay that had no answer appends its
        rows again, so the new topic can have the event that was read last at the same place; then nobody can tell."""
        positions = {
            part[1]: at
            for (_, part), at in self.servers[service].tables["position"].items()
            if part[0] == self.recreated
        }
        is_another = any(self._is_another(service, partition) for partition in positions)
        if is_another and all(position.reached_offset >= 0 for position in positions.values()):
            self.environment.violated(f"{service} counts {self.recreated} as read, which was created again")

    def check_reached(self, consumer: str, reached: ConsumedWatermarks) -> None:
        """Somebody is about to act by this: nothing that was announced of a new topic may count while that is shorter than what was
        read of the old one. Once it is as long, only the consumer can tell, a moment later."""
        topic = self.recreated
        if topic is None or reached.topics.get(topic, self.recreated_at) <= self.recreated_at:
            return
        stored = self.cluster.topics[topic]
        if any(len(stored[partition]) < at.next_offset for partition, at in self.read_before[consumer].items()):
            self.environment.violated(
                f"{consumer} acts by a watermark of {topic}, which was created again and not read"
            )

    def _is_another(self, consumer: str, partition: int) -> bool:
        """Whether a partition can be seen not to be what a consumer had read before its topic was created again."""
        before = self.read_before[consumer].get(partition)
        stored = self.cluster.topics[self.recreated or ""][partition]
        if before is None or before.next_offset == 0 or len(stored) == before.next_offset - 1:
            return False
        last = stored[before.next_offset - 1] if len(stored) >= before.next_offset else None
        return last is None or event_id_of(last.headers) != before.last_event_id

    def _back_up(self) -> None:
        service = self.environment.rng.choice([one for one in self.plan.services if one != INTAKE])
        self._backups[service] = self.servers[service].copy()

    def _restore(self) -> None:
        """Another server takes over with what it has, which is not all; or a backup is restored. Not intake's: what
        that has lost nobody can have again."""
        for service, backup in self._backups.items():
            self.restored.add(service)
            self.servers[service].restore(backup)

    def _step_clock(self) -> None:
        server = self._server()
        if server not in self._stepped:
            self._stepped.add(server)
            server.offset += timedelta(seconds=0.4 * self.environment.rng.random())

    # -- the end

    def _unrest(self) -> str | None:
        """What is still to come; None if nothing is."""
        if self.recreated is not None:
            expected = {
                service
                for service, positions in self.read_before.items()
                if any(self._is_another(service, partition) for partition in positions)
            }
            return "refusals" if self.writes_left > 0 or expected - self.refused else None
        if self.writes_left > 0:
            return "writes"
        for service, server in self.servers.items():
            tables = server.tables
            waiting = {
                "outbox": bool(tables["outbox"]) and service != SLA_MONITOR,  # nobody reads what that tells
                "owed": bool(tables["owed"]),
                "dead letters": any(letter.state == "new" for letter in tables["letter"].values()),
                "clocks": any(clock.state == "running" for clock in tables["clock"].values()),
            }
            found = next((what for what, waits in waiting.items() if waits), None) or self._unread(service)
            if found:
                return f"{service}: {found}"
        return None

    def _unread(self, service: str) -> str | None:
        """A partition that a service has not read to its end."""
        for topic in self._consumed_by(service):
            for number, stored in enumerate(self.cluster.topics.get(topic, ())):
                position = self.servers[service].tables["position"].get((service, (topic, number)))
                if position is None or position.next_offset < len(stored):
                    return f"{topic}/{number} at {position} of {len(stored)}"
        return None

    def _consumed_by(self, service: str) -> list[str]:
        if service == INTAKE:
            return []
        follows = service == SLA_MONITOR and QUALIFICATION in self.servers
        return [INTAKE_EVENTS, QUALIFICATION_EVENTS] if follows else [INTAKE_EVENTS]

    def _check(self) -> None:
        """Compare what came out with the model."""
        reported = [(id_, event) for id_, (service, event) in self.reported.items() if service == INTAKE]
        follows: dict[tuple[str, str, int], model.Answer] = {}
        if QUALIFICATION in self.servers:
            follows = model.compute_reactions(reported, self._discarded(QUALIFICATION))
        expected = model.clocks(reported, follows, self._discarded(SLA_MONITOR))
        self._check_applied(INTAKE, {id_ for id_, _ in reported})
        if QUALIFICATION in self.servers:
            self._check_reactions(follows)
            self._check_states(reported)
        self._check_clocks(expected)
        self._check_breaches(expected)

    def _check_applied(self, source: str, ids: set[UUID]) -> None:
        sequences = {(event.key, event.sequence) for service, event in self.reported.values() if service == source}
        for lead, sequence in self.acknowledged:
            if (lead, sequence) not in sequences:
                self.environment.violated(f"what was acknowledged is gone: {lead[-4:]} #{sequence}")
        for service, server in self.servers.items():
            if service == source:
                continue
            applied = {id_ for consumer, id_ in server.tables["applied"] if consumer == service}
            missing = ids - applied - self._discarded(service)
            for id_ in sorted(missing)[:3]:
                event = self.reported[id_][1]
                self.environment.violated(f"{service} never applied {event.key[-4:]} #{event.sequence} of {source}")

    def _discarded(self, service: str) -> set[UUID]:
        letters = self.servers[service].tables["letter"].values()
        return {letter.event_id for letter in letters if letter.state == "discarded" and letter.event_id is not None}

    def _check_reactions(self, expected: Mapping[tuple[str, str, int], model.Answer]) -> None:
        found: dict[tuple[str, str, int], int] = {}
        for service, event in self.reported.values():
            if service == QUALIFICATION and isinstance(event, LeadReacted):
                key = (event.key, event.what, event.cause)
                found[key] = found.get(key, 0) + 1
        self._compare(f"{QUALIFICATION} told", set(expected), set(found))
        twice = [key for key, count in found.items() if count > 1]
        if twice and QUALIFICATION not in self.restored:
            self.environment.violated(f"{QUALIFICATION} told twice: {twice}")

    def _check_states(self, reported: model.Intake) -> None:
        newest: dict[str, int] = {}
        for id_, event in reported:
            if id_ not in self._discarded(QUALIFICATION):
                newest[event.key] = max(event.sequence, newest.get(event.key, 0))
        for lead, row in self.servers[QUALIFICATION].tables["lead"].items():
            if row.state_sequence != newest.get(lead, 0):
                self.environment.violated(
                    f"{lead[-4:]} has state #{row.state_sequence}, told was #{newest.get(lead, 0)}"
                )

    def _check_clocks(self, expected: Mapping[tuple[str, int], model.ExpectedClock]) -> None:
        clocks = self.servers[SLA_MONITOR].tables["clock"]
        self._compare("clocks", set(expected), set(clocks))
        for at, clock in expected.items():
            if at in clocks and clocks[at].state != clock.state:
                self.environment.violated(
                    f"clock {at[0][-4:]} #{at[1]} is {clocks[at].state}, it should be {clock.state}"
                )

    def _check_breaches(self, expected: Mapping[tuple[str, int], model.ExpectedClock]) -> None:
        by_id = {
            clock.clock_id: at for at, clock in self.servers[SLA_MONITOR].tables["clock"].items() if at in expected
        }
        seen = set()
        for service, event in self.reported.values():
            if service != SLA_MONITOR or not isinstance(event, ClockEvent):
                continue
            at = by_id.get(event.clock_id)
            if at is None:
                continue  # of a clock that was opened anew after its database had gone back in time
            if isinstance(event, ClockBreached) and not expected[at].is_breach_true:
                self.environment.violated(f"clock {at[0][-4:]} #{at[1]}: a false breach was told")
            if (event.clock_id, event.sequence) in seen and SLA_MONITOR not in self.restored:
                self.environment.violated(f"clock {at[0][-4:]} #{at[1]}: told twice under sequence {event.sequence}")
            seen.add((event.clock_id, event.sequence))

    def _compare(self, what: str, expected: set[Any], found: set[Any]) -> None:
        if found != expected:
            self.environment.violated(
                f"{what}: missing {sorted(expected - found)}, too many {sorted(found - expected)}"
            )


TROUBLES: dict[str, Callable[[World], None]] = {
    "kill a process": World._kill,
    "restart a process": World._restart,
    "suspend a process": World._suspend,
    "drop a session": World._drop_session,
    "restart a database": World._restart_server,
    "stop the brokers": World._stop_cluster,
    "stop a partition": World._stop_partition,
    "add partitions": World._add_partitions,
    "compact": World._compact,
    "write garbage": World._write_garbage,
    "back up": World._back_up,
    "restore": World._restore,
    "step a clock": World._step_clock,
    "upgrade": World.upgrade,
}
