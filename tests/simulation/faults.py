"""Planted faults: each breaks one rule that the real code keeps, so that a test can show that the simulator would notice.

They wrap the ports, or the little that the simulated services do themselves; nothing in production code knows of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

import asyncpg
from aiokafka.errors import KafkaError
from msgspec.structs import replace
from msgspec.structs import replace as replace_fields

from accord.contracts.envelope import event_id_of
from accord.contracts.watermarks import Announcement, decode_announcement, encode_announcement
from accord.messaging.announcement_board import AnnouncementBoard
from accord.messaging.ports import (
    ConsumedWatermarks,
    Debts,
    EventLog,
    Lane,
    Layout,
    Move,
    NewDeadLetter,
    OutgoingRecord,
    Partition,
    Position,
    Progress,
    Resting,
    Writers,
)
from tests.simulation.database import Server

if TYPE_CHECKING:
    from tests.simulation.services import Instance

T = TypeVar("T")


class Faults:
    """None: everything as it should be."""

    name = "none"

    def log(self, log: EventLog, instance: Instance) -> EventLog:
        return log

    def relay_store(self, store: Any, instance: Instance) -> Any:
        return store

    def consumer_store(self, store: Any, instance: Instance) -> Any:
        return store

    def server(self, server: Server) -> None:
        """Change what a server does."""

    def newer_state(self, known: int, reported: int) -> int:
        """Which of two states of a lead holds, by their sequences."""
        return max(known, reported)

    def firing(self, firing: Any) -> Any:
        return firing

    def board(self, board: AnnouncementBoard) -> AnnouncementBoard:
        return board


class Wrapped:
    """A port with some of its methods replaced."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


PLANTED: dict[str, type[Faults]] = {}


def planted(cls: type[Faults]) -> type[Faults]:
    """Register a fault under its name."""
    PLANTED[cls.name] = cls
    return cls


def by_name(name: str) -> Faults:
    """A planted fault, or none."""
    return Faults() if name == "none" else PLANTED[name]()


# -- in the consumer's store


class _ConsumerFault(Faults):
    transaction: type[Wrapped]

    def consumer_store(self, store: Any, instance: Instance) -> Any:
        return _ConsumerStore(store, self.transaction)


class _ConsumerStore(Wrapped):
    def __init__(self, inner: Any, transaction: type[Wrapped]) -> None:
        super().__init__(inner)
        self._transaction = transaction

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Any]:
        async with self.inner.begin() as transaction:
            yield self._transaction(transaction)


class _WithoutInbox(Wrapped):
    async def claim_events(self, event_ids: Sequence[UUID]) -> set[UUID]:
        return set(event_ids)


@planted
class InboxSkipped(_ConsumerFault):
    """Every event counts as new."""

    name = "inbox-skipped"
    transaction = _WithoutInbox


class _WithoutLetters(Wrapped):
    async def add_dead_letters(self, letters: Sequence[NewDeadLetter]) -> int:
        return 0


@planted
class DeadLetterLost(_ConsumerFault):
    """What cannot be applied is passed over."""

    name = "dead-letter-lost"
    transaction = _WithoutLetters


class _WithoutUnknown(Wrapped):
    async def add_dead_letters(self, letters: Sequence[NewDeadLetter]) -> int:
        kept: int = await self.inner.add_dead_letters([letter for letter in letters if letter.kind != "unknown"])
        return kept


@planted
class UnknownTypePassedOver(_ConsumerFault):
    """Events of types that come with the next version are not kept for it."""

    name = "unknown-type-passed-over"
    transaction = _WithoutUnknown


class _WithoutCompare(Wrapped):
    async def advance(self, moves: Mapping[Partition, Move]) -> None:
        session = self.inner.unit_of_work.conn
        for part in sorted(moves):
            await session.lock("position", (self.inner.consumer, part))
            session.put("position", (self.inner.consumer, part), moves[part].to)


@planted
class PositionWithoutCompareAndSet(_ConsumerFault):
    """A position is moved wherever it was."""

    name = "position-without-compare-and-set"
    transaction = _WithoutCompare


class _WithoutLastEvent(Wrapped):
    async def advance(self, moves: Mapping[Partition, Move]) -> None:
        await self.inner.advance(
            {part: Move(move.expected, Position(move.to.next_offset)) for part, move in moves.items()}
        )


@planted
class PositionWithoutItsEvent(_ConsumerFault):
    """It is not known which event stands right before a position, so another log is read on in."""

    name = "position-without-its-event"
    transaction = _WithoutLastEvent


class _StoreThatForgetsLoss(Wrapped):
    async def set_lost(self, offsets: Mapping[Partition, int], is_lost: bool) -> None:
        """It is not marked."""


@planted
class LostPositionNotMarked(Faults):
    """What was read of a topic that was created again still counts as read."""

    name = "lost-position-not-marked"

    def consumer_store(self, store: Any, instance: Instance) -> Any:
        return _StoreThatForgetsLoss(store)


class _TrustingBoard(AnnouncementBoard):
    def add(self, topic: str, lane: int, announcement: Announcement) -> None:
        self._lanes.pop((topic, lane), None)
        super().add(topic, lane, announcement)

    def reached(self, topics: Iterable[str], positions: Mapping[Partition, int]) -> ConsumedWatermarks:
        self._first_looks.clear()
        for topic in topics:
            super().reached([topic], {})
        return super().reached(topics, positions)


@planted
class ShorterTopicCounts(Faults):
    """Positions beyond the end of a topic that was created again count until the consumer has noticed."""

    name = "shorter-topic-counts"

    def board(self, board: AnnouncementBoard) -> AnnouncementBoard:
        return _TrustingBoard()


class _MovedBefore(Wrapped):
    async def advance(self, moves: Mapping[Partition, Move]) -> None:
        """It was moved already."""


@planted
class OffsetBeforeTransaction(Faults):
    """The offset is committed by itself, before the transaction with what was read."""

    name = "offset-before-transaction"

    def consumer_store(self, store: Any, instance: Instance) -> Any:
        return _ConsumerStore(store, _MovedBefore)

    def log(self, log: EventLog, instance: Instance) -> Any:
        return _LogOfEagerReaders(log, instance)


class _LogOfEagerReaders(Wrapped):
    def __init__(self, inner: Any, instance: Instance) -> None:
        super().__init__(inner)
        self._instance = instance

    async def open_reader(self, topics: Sequence[str], group: str | None) -> Any:
        reader = await self.inner.open_reader(topics, group)
        return reader if group is None else _EagerReader(reader, self._instance)


class _EagerReader(Wrapped):
    def __init__(self, inner: Any, instance: Instance) -> None:
        super().__init__(inner)
        self._instance = instance

    async def poll(self, timeout_s: float, records_max: int) -> Any:
        records = await self.inner.poll(timeout_s, records_max)
        if records:
            async with self._instance.database.write_transaction() as unit_of_work:
                for record in records:
                    key = (self._instance.service, (record.topic, record.partition))
                    position = Position(record.offset + 1, event_id_of(record.headers))
                    await unit_of_work.conn.lock("position", key)
                    unit_of_work.conn.put("position", key, position)
        return records


# -- in the relay's store


class _RelayFault(Faults):
    session: type[Wrapped]

    def relay_store(self, store: Any, instance: Instance) -> Any:
        return _RelayStore(store, self.session)


class _RelayStore(Wrapped):
    def __init__(self, inner: Any, session: type[Wrapped]) -> None:
        super().__init__(inner)
        self._session = session

    async def open_session(self) -> Any:
        return self._session(await self.inner.open_session())


class _HighWaterMark(Wrapped):
    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self._read_until: dict[Lane, int] = {}

    async def read_rows(self, lane: Lane, after_id: int, resting: Resting, rows_max: int, bytes_max: int) -> Any:
        after_id = max(after_id, self._read_until.get(lane, 0))
        rows = await self.inner.read_rows(lane, after_id, resting, rows_max, bytes_max)
        self._read_until[lane] = max((row.id for row in rows), default=after_id)
        return rows


@planted
class OutboxByHighWaterMark(_RelayFault):
    """Only rows beyond the highest id that was read are looked at."""

    name = "outbox-by-high-water-mark"
    session = _HighWaterMark


class _WithoutWriters(Wrapped):
    async def read_writers(self) -> Writers:
        return Writers(0, None)


@planted
class WatermarkAheadOfOpenRecording(_RelayFault):
    """Whoever still writes is not asked."""

    name = "watermark-ahead-of-open-unit-of-work"
    session = _WithoutWriters


class _WithoutLettersInProgress(Wrapped):
    async def read_progress(self, consumers: Sequence[str]) -> Progress:
        progress: Progress = await self.inner.read_progress(consumers)
        return replace(progress, held=frozenset(), holds_all=False)


@planted
class WatermarkPastDeadLetter(_RelayFault):
    """A service announces that all is there of leads of which it could not apply something."""

    name = "watermark-past-dead-letter"
    session = _WithoutLettersInProgress


class _WithoutOwed(Wrapped):
    async def read_debts(self, consumed_at: datetime, held: frozenset[str]) -> Debts:
        debts: Debts = await self.inner.read_debts(consumed_at, held)
        return replace(debts, owed_at=None)


@planted
class WatermarkPastOwedTime(_RelayFault):
    """A service announces a time at which it has not yet brought about what time alone brings."""

    name = "watermark-past-owed-time"
    session = _WithoutOwed


class _WithoutRowsInDebts(Wrapped):
    async def read_debts(self, consumed_at: datetime, held: frozenset[str]) -> Debts:
        debts: Debts = await self.inner.read_debts(consumed_at, held)
        return replace(debts, last_id=0)


@planted
class WatermarkPastConsequences(_RelayFault):
    """A consumed watermark counts at once, before what followed from what was consumed is published."""

    name = "watermark-past-consequences"
    session = _WithoutRowsInDebts


class _AllLayoutsAtOnce(Wrapped):
    async def read_layouts(self) -> list[Layout]:
        layouts: list[Layout] = await self.inner.read_layouts()
        return [replace(layouts[0], partitions=layouts[-1].partitions)] if layouts else []


@planted
class PartitionAddedWithoutTelling(_RelayFault):
    """Added partitions are used for all keys at once."""

    name = "partition-added-without-telling"
    session = _AllLayoutsAtOnce


_GOES_ON_S = 1.0


class _GoesOn(Wrapped):
    """Once the connection is lost, it answers from memory for a while: no rows, no writers, all lanes held."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self._lost_at: float | None = None

    async def _or(self, call: Awaitable[T], remembered: Callable[[], T]) -> T:
        now = asyncio.get_running_loop().time()
        try:
            return await call
        except asyncpg.PostgresConnectionError:
            self._lost_at = self._lost_at or now
            if now > self._lost_at + _GOES_ON_S:
                raise
            await asyncio.sleep(0.002)
            return remembered()

    @property
    def lanes(self) -> Any:
        return _LanesGoOn(self.inner.lanes, self)

    async def read_rows(self, lane: Lane, after_id: int, resting: Resting, rows_max: int, bytes_max: int) -> Any:
        return await self._or(self.inner.read_rows(lane, after_id, resting, rows_max, bytes_max), list)

    async def delete_rows(self, ids: Sequence[int]) -> None:
        await self._or(self.inner.delete_rows(ids), lambda: None)

    async def read_clock(self) -> tuple[int, datetime]:
        server = self.inner._server
        return await self._or(self.inner.read_clock(), lambda: (server.sequence, server.now()))

    async def read_writers(self) -> Writers:
        return await self._or(self.inner.read_writers(), lambda: Writers(0, None))

    async def oldest_recorded_at(self, lane: Lane, since: datetime) -> datetime | None:
        return await self._or(self.inner.oldest_recorded_at(lane, since), lambda: None)

    async def first_id(self, lane: Lane, after_id: int) -> int | None:
        return await self._or(self.inner.first_id(lane, after_id), lambda: None)

    async def read_layouts(self) -> list[Layout]:
        layouts = self.inner._server.tables["layout"]
        return await self._or(self.inner.read_layouts(), lambda: list(layouts.values()))


class _LanesGoOn(Wrapped):
    def __init__(self, inner: Any, session: _GoesOn) -> None:
        super().__init__(inner)
        self._session = session

    async def members(self) -> int:
        return await self._session._or(self.inner.members(), lambda: 1)

    async def claim(self, item: Partition) -> bool:
        return await self._session._or(self.inner.claim(item), lambda: False)

    async def release(self, item: Partition) -> None:
        await self._session._or(self.inner.release(item), lambda: None)


@planted
class ExLeaderGoesOn(_RelayFault):
    """A relay that has lost its lock, and with it the sight of its rows, announces that all is published."""

    name = "ex-leader-goes-on"
    session = _GoesOn


# -- in the log


class _WriterFault(Faults):
    writer: type[Wrapped]

    def log(self, log: EventLog, instance: Instance) -> Any:
        return _LogOfWriters(log, self.writer)


class _LogOfWriters(Wrapped):
    def __init__(self, inner: Any, writer: type[Wrapped]) -> None:
        super().__init__(inner)
        self._writer = writer

    async def open_writer(self, topic: str) -> Any:
        writer = self._writer(await self.inner.open_writer(topic))
        writer.reopen = lambda: self.inner.open_writer(topic)
        return writer


class _WithoutEnds(Wrapped):
    async def announce(self, key: bytes, value: bytes) -> None:
        topic, lane, announcement = decode_announcement(key, value)
        await self.inner.announce(
            *encode_announcement(topic, lane, replace_fields(announcement, ends=[0] * len(announcement.ends)))
        )


@planted
class WatermarkWithoutEnds(_WriterFault):
    """A watermark counts whether or not what it speaks of was read."""

    name = "watermark-without-ends"
    writer = _WithoutEnds


class _WithoutAcknowledgement(Wrapped):
    async def append(self, partition: int, records: Sequence[OutgoingRecord]) -> int:
        try:
            appended: int = await self.inner.append(partition, records)
        except KafkaError:
            self.inner = await self.reopen()
            return len(records)
        return appended


@planted
class PublishedWithoutAcknowledgement(_WriterFault):
    """What was sent counts as published."""

    name = "published-without-acknowledgement"
    writer = _WithoutAcknowledgement


# -- in the unit of work


@planted
class LockReleasedBeforeVisible(Faults):
    """The unit of work lock ends before the commit can be seen."""

    name = "lock-released-before-visible"

    def server(self, server: Server) -> None:
        server.releases_lock_early = True


@planted
class TimeReadBeforeLock(Faults):
    """A unit of work reads its time before it takes the unit of work lock."""

    name = "time-read-before-lock"

    def server(self, server: Server) -> None:
        server.reads_time_early = True


# -- in the services


@planted
class StaleStateApplied(Faults):
    """The state that comes last holds, however old it is."""

    name = "stale-state-applied"

    def newer_state(self, known: int, reported: int) -> int:
        return reported


class _WithoutLocks(Wrapped):
    async def claim_leads(
        self, until: datetime, held: frozenset[str], clocks_max: int, only: Sequence[UUID] | None
    ) -> Sequence[UUID]:
        return await self.inner.session.call(
            lambda: sorted({clock.lead_id for clock in self._due(until) if str(clock.lead_id) not in held})
        )

    async def lock_due_clocks(self, lead_ids: Sequence[UUID], until: datetime) -> Sequence[Any]:
        return await self.inner.session.call(lambda: [clock for clock in self._due(until) if clock.lead_id in lead_ids])

    def _due(self, until: datetime) -> list[Any]:
        clocks = self.inner.session.rows("clock").values()
        return [clock for clock in clocks if clock.next_at is not None and clock.next_at < until]

    async def update_clocks(self, moved: Sequence[tuple[Any, Any]]) -> None:
        session = self.inner.session
        await session.call(lambda: None)
        for _, becomes in moved:
            key = (str(becomes.lead_id), becomes.trigger.sequence)
            await session.lock("clock", key)
            session.put("clock", key, becomes)


@planted
class FiringWithoutCompareAndSet(Faults):
    """Clocks are neither locked nor compared when they are moved on."""

    name = "firing-without-compare-and-set"

    def firing(self, firing: Any) -> Any:
        return _WithoutLocks(firing)


class _WithoutHeld(Wrapped):
    async def reached(self) -> Any:
        return replace(await self.inner.reached(), held=frozenset())


@planted
class FiringOfHeldLeads(Faults):
    """Clocks fire although something of their lead could not be applied."""

    name = "firing-of-held-leads"

    def firing(self, firing: Any) -> Any:
        return _WithoutHeld(firing)
