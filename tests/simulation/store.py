"""A service's database in memory, behind the ports of accord.messaging.ports and the unit of work that handlers get."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from accord.contracts.base import EventData
from accord.contracts.codec import encode_value
from accord.messaging.ports import (
    Claims,
    ConsumedWatermarks,
    ConsumerTransaction,
    DeadLetterState,
    Debts,
    Lane,
    Layout,
    Move,
    NewDeadLetter,
    OutboxRow,
    Partition,
    Position,
    PositionConflict,
    Progress,
    RelaySession,
    Resting,
    StoredDeadLetter,
    Writers,
)
from accord.partitioning import hash_key
from tests.simulation.database import Server, Session
from tests.simulation.process import EPOCH, Process

LAYOUT_AHEAD = timedelta(seconds=1.5)
"""Added partitions are used from so much later on."""

HELD_KEYS_MAX = 500

Owed = Callable[[Session, datetime, frozenset[str]], datetime | None]
"""The earliest moment up to the consumed watermark that time still has to bring about, but for the keys that are held."""


class StoredRow(Struct, frozen=True):
    """One row of the outbox."""

    row: OutboxRow
    recorded_at: datetime
    event: EventData


class StoredLetter(NewDeadLetter, frozen=True):
    """One row of the dead letters."""

    id: UUID
    consumer: str
    state: DeadLetterState = "new"


class MemoryUnitOfWork:
    """What handlers get: `now`, `publish`, and the session as `conn`."""

    def __init__(self, conn: Session, now: datetime) -> None:
        self.conn = conn
        self.now = now
        self.pending: list[EventData] = []

    def publish(self, *events: EventData, traceparent: str | None = None) -> None:
        self.pending.extend(events)


class MemoryDatabase:
    """The pool of one process."""

    def __init__(self, server: Server, process: Process) -> None:
        self.server = server
        self.process = process
        self.written = asyncio.Event()

    @asynccontextmanager
    async def write_transaction(self) -> AsyncIterator[MemoryUnitOfWork]:
        session = self.server.take_pooled(self.process)
        try:
            unit_of_work = MemoryUnitOfWork(session, await session.begin(unit_of_work=True))
            yield unit_of_work
            if unit_of_work.pending:
                await session.call(_append_rows, session, unit_of_work)
            await session.commit()
        except BaseException:
            await session.close()
            raise
        if unit_of_work.pending:
            self.written.set()

    @asynccontextmanager
    async def read_transaction(self) -> AsyncIterator[Session]:
        session = self.server.take_pooled(self.process)
        try:
            await session.begin(unit_of_work=False)
            yield session
        finally:
            session.drop()


def _append_rows(session: Session, unit_of_work: MemoryUnitOfWork) -> None:
    """Ids come from the sequence as the statement runs, so they commit in any order."""
    server = session.server
    for event in unit_of_work.pending:
        server.sequence += 1
        key = event.key
        row = OutboxRow(
            server.sequence,
            server.environment.new_id(),
            event.type,
            key,
            hash_key(key.encode()),
            event.occurred_at,
            None,
            encode_value(event),
        )
        session.put("outbox", row.id, StoredRow(row, unit_of_work.now, event))


class MemoryClaims:
    """Session locks."""

    def __init__(self, session: Session, pool: str) -> None:
        self._session = session
        self._pool = pool
        session.pools.append(pool)

    async def members(self) -> int:
        sessions = self._session.server.sessions
        return await self._session.call(
            lambda: max(1, sum(self._pool in session.pools for session in sessions.values()))
        )

    async def claim(self, item: Partition) -> bool:
        session, claims, at = self._session, self._session.server.claims, (self._pool, item)
        return await session.call(lambda: claims.setdefault(at, session) is session)

    async def release(self, item: Partition) -> None:
        await self._session.call(self._session.server.claims.pop, (self._pool, item), None)

    async def close(self) -> None:
        await self._session.close()


class MemoryRelaySession:
    """A connection of its own; each call is a snapshot of its own."""

    def __init__(self, session: Session, owed: Owed) -> None:
        self._session = session
        self._server = session.server
        self._owed = owed
        self._claims = MemoryClaims(session, "relay")

    @property
    def lanes(self) -> Claims:
        return self._claims

    async def read_layouts(self) -> list[Layout]:
        return await self._session.call(lambda: sorted(self._server.tables["layout"].values(), key=_since))

    async def add_layout(self, partitions: int) -> None:
        await self._session.call(self._add_layout, partitions)

    def _add_layout(self, partitions: int) -> None:
        layouts = self._server.tables["layout"]
        if partitions not in layouts:
            since = self._server.now() + LAYOUT_AHEAD if layouts else EPOCH - timedelta(days=365)
            layouts[partitions] = Layout(since, partitions)

    async def read_rows(
        self, lane: Lane, after_id: int, resting: Resting, rows_max: int, bytes_max: int
    ) -> Sequence[OutboxRow]:
        return await self._session.call(self._read_rows, lane, after_id, resting, rows_max)

    def _read_rows(self, lane: Lane, after_id: int, resting: Resting, rows_max: int) -> list[OutboxRow]:
        resting_now = frozenset(resting.partitions)
        found = []
        for stored in self._rows(lane):
            row = stored.row
            key_hash = row.key_hash or 0
            if row.id > after_id and not any(key_hash % count in resting_now for count in resting.layouts):
                found.append(row)
        return sorted(found, key=_row_id)[:rows_max]

    def _rows(self, lane: Lane) -> list[StoredRow]:
        rows = self._server.tables["outbox"].values()
        return [stored for stored in rows if (stored.row.key_hash or 0) % lane.count == lane.number]

    async def delete_rows(self, ids: Sequence[int]) -> None:
        await self._session.call(self._delete_rows, ids)

    def _delete_rows(self, ids: Sequence[int]) -> None:
        for id_ in ids:
            self._server.tables["outbox"].pop(id_, None)

    async def read_clock(self) -> tuple[int, datetime]:
        return await self._session.call(lambda: (self._server.sequence, self._server.now()))

    async def read_writers(self) -> Writers:
        return await self._session.call(self._read_writers)

    def _read_writers(self) -> Writers:
        environment = self._server.environment
        if environment.happens(environment.odds.hide_writers):
            return Writers(1, None)
        writing = [
            session.xact_start for session in self._server.unit_of_work.values() if session.xact_start is not None
        ]
        return Writers(0, min(writing, default=None))

    async def oldest_recorded_at(self, lane: Lane, since: datetime) -> datetime | None:
        return await self._session.call(
            lambda: min((one.recorded_at for one in self._rows(lane) if one.recorded_at >= since), default=None)
        )

    async def first_id(self, lane: Lane, after_id: int) -> int | None:
        return await self._session.call(
            lambda: min((one.row.id for one in self._rows(lane) if one.row.id > after_id), default=None)
        )

    async def read_progress(self, consumers: Sequence[str]) -> Progress:
        return await self._session.call(lambda: progress_of(self._session, consumers))

    async def read_debts(self, consumed_at: datetime, held: frozenset[str]) -> Debts:
        return await self._session.call(self._read_debts, consumed_at, held)

    def _read_debts(self, consumed_at: datetime, held: frozenset[str]) -> Debts:
        last_id = max(self._server.tables["outbox"], default=0)
        return Debts(last_id, self._owed(self._session, consumed_at, held), held)

    async def close(self) -> None:
        await self._session.close()


class MemoryRelayStore:
    """A service's database, for its relay."""

    def __init__(self, database: MemoryDatabase, owed: Owed = lambda *_: None) -> None:
        self._database = database
        self._owed = owed
        self.written = database.written

    async def open_session(self) -> RelaySession:
        session = await self._database.server.connect(self._database.process)
        return MemoryRelaySession(session, self._owed)

    async def reclaim_space(self) -> None:
        await self._database.process.step()


class MemoryConsumerTransaction:
    """One unit of work, and the consumer's own rows in it."""

    def __init__(self, unit_of_work: MemoryUnitOfWork, consumer: str) -> None:
        self.unit_of_work = unit_of_work
        self._session = unit_of_work.conn
        self.consumer = consumer

    async def claim_events(self, event_ids: Sequence[UUID]) -> set[UUID]:
        session, claimed = self._session, set[UUID]()
        await session.call(lambda: None)
        for event_id in sorted(set(event_ids)):
            if await session.lock("inbox", (self.consumer, event_id)) is None:
                session.put("inbox", (self.consumer, event_id), True)
                claimed.add(event_id)
        return claimed

    async def advance(self, moves: Mapping[Partition, Move]) -> None:
        session = self._session
        await session.call(lambda: None)
        for part in sorted(moves):
            move = moves[part]
            stored = await session.lock("position", (self.consumer, part))
            if stored is None or stored.next_offset != move.expected or stored.is_lost:
                raise PositionConflict(f"{self.consumer}: {part} is not at {move.expected}")
            session.put("position", (self.consumer, part), move.to)

    async def add_dead_letters(self, letters: Sequence[NewDeadLetter]) -> int:
        session = self._session
        await session.call(lambda: None)
        for letter in letters:
            record = letter.record
            place = (record.topic, record.partition, record.offset)
            unique = (self.consumer, letter.event_id or place)
            if await session.lock("letter_key", unique) is not None:
                continue
            id_ = session.server.environment.new_id()
            session.put("letter_key", unique, id_)
            stored = StoredLetter(
                letter.kind, record, letter.event_id, letter.type, letter.keys, letter.error, id_, self.consumer
            )
            session.put("letter", id_, stored)
        return sum(one.state == "new" for one in session.rows("letter").values() if one.consumer == self.consumer)

    async def lock_dead_letter(self, id_: UUID) -> StoredDeadLetter | None:
        session = self._session
        await session.call(lambda: None)
        letter = await session.lock("letter", id_)
        if letter is None or letter.consumer != self.consumer:
            return None
        return StoredDeadLetter(letter.record._replace(key=None), letter.event_id, letter.state)

    async def settle_dead_letter(self, id_: UUID, state: DeadLetterState) -> None:
        session = self._session
        await session.call(lambda: None)
        session.put("letter", id_, replace(await session.lock("letter", id_), state=state))

    async def delete_dead_letters(self, keys: Collection[str]) -> None:
        session = self._session
        await session.call(lambda: None)
        for id_, letter in list(session.rows("letter").items()):
            if (
                letter.consumer == self.consumer
                and letter.record.key is not None
                and letter.record.key.decode() in keys
            ):
                await session.lock("letter", id_)
                session.delete("letter", id_)
                place = (letter.record.topic, letter.record.partition, letter.record.offset)
                session.delete("letter_key", (self.consumer, letter.event_id or place))

    async def store_watermarks(self, reached: ConsumedWatermarks) -> None:
        session = self._session
        await session.call(lambda: None)
        for topic in sorted(reached.topics):
            known = await session.lock("consumed", topic)
            at = reached.topics[topic]
            session.put("consumed", topic, at if known is None else max(known, at))


class MemoryConsumerStore:
    """A service's database, for one consumer."""

    def __init__(self, database: MemoryDatabase, consumer: str) -> None:
        self._database = database
        self.consumer = consumer

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[ConsumerTransaction]:
        async with self._database.write_transaction() as unit_of_work:
            yield MemoryConsumerTransaction(unit_of_work, self.consumer)

    async def open_claims(self) -> Claims:
        session = await self._database.server.connect(self._database.process)
        return MemoryClaims(session, f"consumer-{self.consumer}")

    async def read_positions(self) -> Mapping[Partition, Position]:
        async with self._database.read_transaction() as session:
            return await session.call(
                lambda: {
                    part: position
                    for (consumer, part), position in session.rows("position").items()
                    if consumer == self.consumer
                }
            )

    async def set_lost(self, offsets: Mapping[Partition, int], is_lost: bool) -> None:
        async with self._database.write_transaction() as unit_of_work:
            session = unit_of_work.conn
            await session.call(lambda: None)
            for part in sorted(offsets):
                position = await session.lock("position", (self.consumer, part))
                if position is not None and position.next_offset == offsets[part]:
                    session.put("position", (self.consumer, part), replace(position, is_lost=is_lost))

    async def create_positions(self, positions: Mapping[Partition, int]) -> None:
        async with self._database.write_transaction() as unit_of_work:
            session = unit_of_work.conn
            await session.call(lambda: None)
            for part in sorted(positions):
                if await session.lock("position", (self.consumer, part)) is None:
                    session.put("position", (self.consumer, part), Position(positions[part]))

    async def count_unsettled(self) -> int:
        async with self._database.read_transaction() as session:
            return len(await session.call(lambda: unsettled(session, [self.consumer])))

    async def replayable(self, types: Sequence[str], limit: int) -> Sequence[UUID]:
        async with self._database.read_transaction() as session:
            found = await session.call(lambda: unsettled(session, [self.consumer]))
            return [letter.id for letter in found if letter.kind == "unknown" and letter.type in types][:limit]


def unsettled(session: Session, consumers: Collection[str]) -> list[StoredLetter]:
    """Dead letters of these consumers that nobody has settled, oldest first."""
    found = (one for one in session.rows("letter").values() if one.state == "new" and one.consumer in consumers)
    return sorted(found, key=_letter_id)


def progress_of(session: Session, consumers: Collection[str]) -> Progress:
    """Positions and what is held, as one statement. Letters of unknown types hold nobody."""
    positions = {
        part: position.reached_offset
        for (consumer, part), position in session.rows("position").items()
        if consumer in consumers
    }
    held, holds_all = set[str](), False
    for letter in unsettled(session, consumers):
        if letter.kind == "unknown" and not session.process.knows(letter.type or ""):
            continue
        if letter.keys is None:
            holds_all = True
        else:
            held.update(letter.keys)
    return Progress(positions, frozenset(held), holds_all)


def _since(layout: Layout) -> datetime:
    return layout.since


def _row_id(row: OutboxRow) -> int:
    return row.id


def _letter_id(letter: StoredLetter) -> UUID:
    return letter.id
