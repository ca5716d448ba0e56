"""The contract of the ports, over the servers that production uses and over those of the simulator: what the simulator
shows of messaging holds in production as far as both behave alike here.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeVar
from uuid import UUID, uuid4

import pytest
from aiokafka.errors import GroupCoordinatorNotAvailableError
from msgspec.structs import replace
from sqlalchemy import text
from tests.simulation.database import Server
from tests.simulation.log import Cluster, MemoryLog
from tests.simulation.process import Environment, Process
from tests.simulation.store import MemoryConsumerStore, MemoryDatabase, MemoryRelayStore

from accord.contracts.intake_events import ActivityRecorded
from accord.db import Database, is_transient
from accord.messaging.consumer_store import PostgresConsumerStore
from accord.messaging.kafka_log import KafkaLog
from accord.messaging.ports import (
    REACHES_NOTHING,
    ConsumerStore,
    Debts,
    EventLog,
    Lane,
    LogPositionLost,
    LogReader,
    LogRecord,
    LogWriter,
    Move,
    NewDeadLetter,
    OutgoingRecord,
    Partition,
    Position,
    PositionConflict,
    Progress,
    RelaySession,
    RelayStore,
    Resting,
)
from accord.messaging.relay_store import PostgresRelayStore
from accord.partitioning import hash_key
from accord.settings import KafkaSettings

NewActivity = Callable[..., ActivityRecorded]

T = TypeVar("T")

TOPIC = "intake-events"
PART: Partition = (TOPIC, 0)
WHOLE = Lane(0, 1)
NOTHING_RESTS = Resting((), ())
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
WATERMARKS = "watermarks"
UNKNOWN = "sim.noted.v2"
"""A type that neither side knows."""


class Servers(Protocol):
    """A log and a service's database, of one kind or the other."""

    log: EventLog

    def relay_store(self) -> RelayStore: ...

    def consumer_store(self, consumer: str) -> ConsumerStore: ...

    def write_transaction(self) -> AbstractAsyncContextManager[Any]: ...

    async def end_sessions(self) -> None:
        """Have the database end every session, as after a restart."""
        ...


class RealServers:
    def __init__(self, database: Database, kafka: KafkaSettings) -> None:
        self._database = database
        self.log = KafkaLog(kafka)

    def relay_store(self) -> RelayStore:
        return PostgresRelayStore(self._database)

    def consumer_store(self, consumer: str) -> ConsumerStore:
        return PostgresConsumerStore(self._database, consumer)

    def write_transaction(self) -> AbstractAsyncContextManager[Any]:
        return self._database.write_transaction()

    async def end_sessions(self) -> None:
        async with self._database.engine.connect() as conn:
            await conn.execute(
                text(
                    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            )


class RealTime:
    """The running loop, as the servers in memory ask for it."""

    def time(self) -> float:
        return asyncio.get_running_loop().time()

    def sleep(self, delay: float) -> Awaitable[None]:
        return asyncio.sleep(delay)

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> object:
        return asyncio.get_running_loop().call_later(delay, callback, *args)

    def create_future(self) -> "asyncio.Future[None]":
        return asyncio.get_running_loop().create_future()


class MemoryServers:
    def __init__(self) -> None:
        environment = Environment(0, loop=RealTime())
        process = Process(environment, "test", version=1)
        self._server = Server(environment, "test", timedelta())
        self._database = MemoryDatabase(self._server, process)
        cluster = Cluster(environment)
        cluster.partitions_default = 2
        self.log = MemoryLog(cluster, process)

    def relay_store(self) -> RelayStore:
        return MemoryRelayStore(self._database)

    def consumer_store(self, consumer: str) -> ConsumerStore:
        return MemoryConsumerStore(self._database, consumer)

    def write_transaction(self) -> AbstractAsyncContextManager[Any]:
        return self._database.write_transaction()

    async def end_sessions(self) -> None:
        self._server.drop_all()


@pytest.fixture(params=["memory", "postgres-and-kafka"])
def servers(request: pytest.FixtureRequest) -> Servers:
    if request.param == "memory":
        return MemoryServers()
    cluster: KafkaSettings = request.getfixturevalue("cluster")
    return RealServers(request.getfixturevalue("database"), cluster.model_copy(update={"partitions": 2}))


@pytest.fixture
async def session(servers: Servers) -> AsyncIterator[RelaySession]:
    session = await servers.relay_store().open_session()
    yield session
    await session.close()


@pytest.fixture
def store(servers: Servers) -> ConsumerStore:
    return servers.consumer_store("test")


async def publish(servers: Servers, new_activity: NewActivity, *leads: UUID) -> datetime:
    """Record an event of each lead in one transaction; its time."""
    async with servers.write_transaction() as unit_of_work:
        unit_of_work.publish(*(new_activity(unit_of_work, lead) for lead in leads))
    now: datetime = unit_of_work.now
    return now


async def rows_of(session: RelaySession, lane: Lane = WHOLE, after_id: int = 0, rows_max: int = 100) -> list[Any]:
    return list(await session.read_rows(lane, after_id, NOTHING_RESTS, rows_max, 1_000_000))


class Undone(Exception):
    """Ends a transaction that is not to be committed."""


@asynccontextmanager
async def undone(transaction: AbstractAsyncContextManager[Any]) -> AsyncIterator[Any]:
    """A transaction that fails at its end."""
    async with transaction as opened:
        yield opened
        raise Undone


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


# -- claims


async def test_item_is_held_by_one_session_until_released(servers: Servers, session: RelaySession) -> None:
    other = await servers.relay_store().open_session()
    assert await session.lanes.claim(("lane", 1))
    assert not await other.lanes.claim(("lane", 1))
    assert await other.lanes.claim(("lane", 2))
    await session.lanes.release(("lane", 1))
    assert await other.lanes.claim(("lane", 1))
    await other.close()


async def test_closed_session_gives_its_items_back(servers: Servers, session: RelaySession) -> None:
    other = await servers.relay_store().open_session()
    assert await other.lanes.claim(("lane", 1))
    assert await session.lanes.members() == 2
    await other.close()
    await eventually(lambda: session.lanes.claim(("lane", 1)))
    assert await session.lanes.members() == 1


async def test_session_that_the_server_ended_fails_and_holds_nothing(servers: Servers) -> None:
    ended = await servers.relay_store().open_session()
    assert await ended.lanes.claim(("lane", 1))
    await servers.end_sessions()
    with pytest.raises(Exception) as raised:  # noqa: PT011 - is_transient tells which
        await ended.read_clock()
    assert is_transient(raised.value)
    await ended.close()
    after = await servers.relay_store().open_session()
    await eventually(lambda: after.lanes.claim(("lane", 1)))
    await after.close()


async def test_pools_of_lanes_and_consumers_are_apart(servers: Servers, session: RelaySession) -> None:
    claims = await servers.consumer_store("one").open_claims()
    others = await servers.consumer_store("two").open_claims()
    assert await claims.claim(PART)
    assert await others.claim(PART)
    assert await session.lanes.claim(PART)
    assert await claims.members() == await others.members() == await session.lanes.members() == 1
    await claims.close()
    await others.close()


# -- the outbox


async def test_rows_come_in_the_order_in_which_they_were_published(
    servers: Servers, session: RelaySession, new_activity: NewActivity
) -> None:
    leads = [uuid4() for _ in range(5)]
    await publish(servers, new_activity, *leads)
    rows = await rows_of(session)
    assert [row.key for row in rows] == [str(lead) for lead in leads]
    assert [row.id for row in rows] == sorted(row.id for row in rows)
    assert await rows_of(session, rows_max=2) == rows[:2]
    assert await rows_of(session, after_id=rows[1].id) == rows[2:]
    assert all(row.key_hash == hash_key(row.key.encode()) for row in rows)


async def test_rows_are_seen_once_committed_and_gone_once_deleted(
    servers: Servers, session: RelaySession, new_activity: NewActivity
) -> None:
    with pytest.raises(Undone):
        async with undone(servers.write_transaction()) as unit_of_work:
            unit_of_work.publish(new_activity(unit_of_work))
    async with servers.write_transaction() as unit_of_work:
        unit_of_work.publish(new_activity(unit_of_work), new_activity(unit_of_work))
        assert await rows_of(session) == []
    rows = await rows_of(session)
    assert len(rows) == 2
    await session.delete_rows([rows[0].id])
    assert await rows_of(session) == rows[1:]


async def test_each_row_is_in_one_lane(servers: Servers, session: RelaySession, new_activity: NewActivity) -> None:
    await publish(servers, new_activity, *(uuid4() for _ in range(20)))
    lanes = [await rows_of(session, Lane(number, 3)) for number in range(3)]
    ids = [row.id for rows in lanes for row in rows]
    assert sorted(ids) == [row.id for row in await rows_of(session)]
    assert all(rows == sorted(rows, key=lambda row: row.id) for rows in lanes)


async def test_rows_of_resting_partitions_are_left_out_under_every_layout(
    servers: Servers, session: RelaySession, new_activity: NewActivity
) -> None:
    await publish(servers, new_activity, *(uuid4() for _ in range(20)))
    rows = await session.read_rows(WHOLE, 0, Resting([1], [2, 3]), 100, 1_000_000)
    expected = [row for row in await rows_of(session) if row.key_hash % 2 != 1 and row.key_hash % 3 != 1]
    assert list(rows) == expected


async def test_outbox_tells_its_oldest_and_its_first(
    servers: Servers, session: RelaySession, new_activity: NewActivity
) -> None:
    assert await session.oldest_recorded_at(WHOLE, LONG_AGO) is None
    assert await session.first_id(WHOLE, 0) is None
    first_at = await publish(servers, new_activity, uuid4())
    second_at = await publish(servers, new_activity, uuid4())
    rows = await rows_of(session)
    assert await session.oldest_recorded_at(WHOLE, LONG_AGO) == first_at
    assert await session.oldest_recorded_at(WHOLE, second_at) == second_at
    assert await session.first_id(WHOLE, 0) == rows[0].id
    assert await session.first_id(WHOLE, rows[0].id) == rows[1].id


async def test_clock_is_read_after_the_last_id(
    servers: Servers, session: RelaySession, new_activity: NewActivity
) -> None:
    recorded_at = await publish(servers, new_activity, uuid4(), uuid4())
    last_id, now = await session.read_clock()
    assert last_id >= (await rows_of(session))[-1].id
    assert now >= recorded_at


async def test_open_unit_of_work_is_a_writer_until_its_rows_are_visible(
    servers: Servers, session: RelaySession, new_activity: NewActivity
) -> None:
    assert (await session.read_writers()).writing_since is None
    async with servers.write_transaction() as unit_of_work:
        unit_of_work.publish(new_activity(unit_of_work))
        writers = await session.read_writers()
        assert writers.hidden == 0
        assert writers.writing_since is not None
        assert writers.writing_since <= unit_of_work.now

    async def nobody_writes() -> bool:
        return (await session.read_writers()).writing_since is None

    await eventually(nobody_writes)
    assert len(await rows_of(session)) == 1


async def test_first_layout_holds_for_all_and_later_ones_only_from_then_on(session: RelaySession) -> None:
    assert await session.read_layouts() == []
    await session.add_layout(2)
    await session.add_layout(4)
    await session.add_layout(4)
    first, second = await session.read_layouts()
    _, now = await session.read_clock()
    assert (first.partitions, second.partitions) == (2, 4)
    assert first.since < LONG_AGO + timedelta(days=2300)
    assert second.since > now


# -- what a consumer stores


async def test_event_is_claimed_once_for_each_consumer(servers: Servers, store: ConsumerStore) -> None:
    first, second = uuid4(), uuid4()
    async with store.begin() as transaction:
        assert await transaction.claim_events([first, first]) == {first}
    async with store.begin() as transaction:
        assert await transaction.claim_events([first, second]) == {second}
    async with servers.consumer_store("other").begin() as transaction:
        assert await transaction.claim_events([first]) == {first}


async def test_claim_is_undone_with_its_transaction(store: ConsumerStore) -> None:
    event_id = uuid4()
    with pytest.raises(Undone):
        async with undone(store.begin()) as transaction:
            assert await transaction.claim_events([event_id]) == {event_id}
    async with store.begin() as transaction:
        assert await transaction.claim_events([event_id]) == {event_id}


@pytest.mark.parametrize("commits", [True, False])
async def test_claim_waits_for_another_that_is_not_over(store: ConsumerStore, commits: bool) -> None:
    event_id, claimed, finish = uuid4(), asyncio.Event(), asyncio.Event()

    async def claim_first() -> None:
        async with store.begin() as transaction:
            await transaction.claim_events([event_id])
            claimed.set()
            await finish.wait()
            if not commits:
                raise Undone

    async def claim_second() -> set[UUID]:
        async with store.begin() as transaction:
            return await transaction.claim_events([event_id])

    first = asyncio.create_task(claim_first())
    await claimed.wait()
    second = asyncio.create_task(claim_second())
    await asyncio.sleep(0.1)  # long enough for the second to have an answer if it did not wait
    assert not second.done()
    finish.set()
    assert await second == (set() if commits else {event_id})
    await asyncio.gather(first, return_exceptions=True)


async def test_positions_are_created_once_and_moved_from_where_they_are(store: ConsumerStore) -> None:
    event_id = uuid4()
    await store.create_positions({PART: 3})
    await store.create_positions({PART: 7, (TOPIC, 1): 0})
    assert await store.read_positions() == {PART: Position(3), (TOPIC, 1): Position(0)}
    async with store.begin() as transaction:
        await transaction.advance({PART: Move(3, Position(9, event_id))})
    assert (await store.read_positions())[PART] == Position(9, event_id)


async def test_move_from_elsewhere_undoes_the_whole_transaction(servers: Servers, store: ConsumerStore) -> None:
    event_id = uuid4()

    async def move(moves: dict[Partition, Move]) -> None:
        async with store.begin() as transaction:
            await transaction.claim_events([event_id])
            await transaction.advance(moves)

    await store.create_positions({PART: 3, (TOPIC, 1): 0})
    for moves in (
        {PART: Move(2, Position(4))},
        {PART: Move(3, Position(4)), (TOPIC, 1): Move(1, Position(2))},
        {(TOPIC, 7): Move(0, Position(1))},
    ):
        with pytest.raises(PositionConflict):
            await move(moves)
    assert await store.read_positions() == {PART: Position(3), (TOPIC, 1): Position(0)}
    async with store.begin() as transaction:
        assert await transaction.claim_events([event_id]) == {event_id}


async def test_lost_position_reaches_nothing_and_is_not_moved_until_it_is_found(
    session: RelaySession, store: ConsumerStore
) -> None:
    await store.create_positions({PART: 3, (TOPIC, 1): 4})
    await store.set_lost({PART: 3, (TOPIC, 1): 5}, True)
    assert await store.read_positions() == {PART: Position(3, None, is_lost=True), (TOPIC, 1): Position(4)}
    assert (await session.read_progress(["test"])).positions == {PART: REACHES_NOTHING, (TOPIC, 1): 4}
    with pytest.raises(PositionConflict):
        async with store.begin() as transaction:
            await transaction.advance({PART: Move(3, Position(9))})
    await store.set_lost({PART: 3, (TOPIC, 7): 0}, False)
    assert await store.read_positions() == {PART: Position(3), (TOPIC, 1): Position(4)}


async def test_of_two_moves_at_once_one_counts(store: ConsumerStore) -> None:
    await store.create_positions({PART: 0})
    moved, finish = asyncio.Event(), asyncio.Event()

    async def move_first() -> None:
        async with store.begin() as transaction:
            await transaction.advance({PART: Move(0, Position(5))})
            moved.set()
            await finish.wait()

    async def move_second() -> None:
        async with store.begin() as transaction:
            await transaction.advance({PART: Move(0, Position(3))})

    first = asyncio.create_task(move_first())
    await moved.wait()
    second = asyncio.create_task(move_second())
    finish.set()
    await first
    with pytest.raises(PositionConflict):
        await second
    assert (await store.read_positions())[PART] == Position(5)


def make_dead_letter(
    offset: int, *, kind: Any = "poison", event_id: UUID | None = None, type_: str = "t.v1", keys: Any = ("k",)
) -> NewDeadLetter:
    record = LogRecord(TOPIC, 0, offset, b"k", b"{}", [("ce_type", type_.encode()), ("empty", None)], LONG_AGO)
    return NewDeadLetter(kind, record, event_id, type_, keys, "ValueError: no")


async def test_dead_letter_is_kept_once_for_its_event_or_else_its_place(store: ConsumerStore) -> None:
    event_id = uuid4()
    async with store.begin() as transaction:
        assert await transaction.add_dead_letters([make_dead_letter(1, event_id=event_id), make_dead_letter(2)]) == 2
    async with store.begin() as transaction:
        again = [make_dead_letter(9, event_id=event_id), make_dead_letter(2), make_dead_letter(1, event_id=uuid4())]
        assert await transaction.add_dead_letters(again) == 3


async def test_unknown_types_are_listed_for_the_version_that_knows_them(store: ConsumerStore) -> None:
    letters = [make_dead_letter(at, kind="unknown", event_id=uuid4(), type_=f"t.v{at}") for at in (1, 2, 3)]
    async with store.begin() as transaction:
        await transaction.add_dead_letters([*letters, make_dead_letter(4, type_="t.v1")])
    found = await store.replayable(["t.v1", "t.v3"], 10)
    assert len(found) == 2
    assert await store.replayable(["t.v1", "t.v3"], 1) == found[:1]
    async with store.begin() as transaction:
        letter = await transaction.lock_dead_letter(found[0])
        assert letter is not None
        assert (letter.event_id, letter.state) == (letters[0].event_id, "new")
        assert letter.record.value == b"{}"
        assert list(letter.record.headers) == list(letters[0].record.headers)
        await transaction.settle_dead_letter(found[0], "replayed")
    assert await store.replayable(["t.v1", "t.v3"], 10) == found[1:]
    async with store.begin() as transaction:
        settled = await transaction.lock_dead_letter(found[0])
        assert settled is not None
        assert settled.state == "replayed"


async def test_dead_letters_of_a_key_are_deleted_settled_or_not(servers: Servers, store: ConsumerStore) -> None:
    event_ids = [uuid4() for _ in range(3)]
    letters = [make_dead_letter(at, kind="unknown", event_id=event_ids[at]) for at in range(2)]
    other_key = make_dead_letter(2, kind="unknown", event_id=event_ids[2])
    other_key = replace(other_key, record=other_key.record._replace(key=b"other"))
    async with store.begin() as transaction:
        await transaction.add_dead_letters([*letters, other_key])
    settled, *_ = before = await store.replayable(["t.v1"], 10)
    async with store.begin() as transaction:
        await transaction.settle_dead_letter(settled, "discarded")
    elsewhere = servers.consumer_store("elsewhere")
    async with elsewhere.begin() as transaction:
        await transaction.add_dead_letters([make_dead_letter(7, kind="unknown", event_id=uuid4())])
    async with store.begin() as transaction:
        await transaction.delete_dead_letters(["k", "nobody"])
    async with store.begin() as transaction:
        left = [id_ for id_ in before if await transaction.lock_dead_letter(id_) is not None]
    assert left == await store.replayable(["t.v1"], 10)
    assert len(left) == 1
    assert len(await elsewhere.replayable(["t.v1"], 10)) == 1


async def test_dead_letter_is_taken_only_by_its_consumer(servers: Servers, store: ConsumerStore) -> None:
    async with store.begin() as transaction:
        await transaction.add_dead_letters([make_dead_letter(1, kind="unknown")])
    (id_,) = await store.replayable(["t.v1"], 10)
    async with servers.consumer_store("other").begin() as transaction:
        assert await transaction.lock_dead_letter(id_) is None
    async with store.begin() as transaction:
        assert await transaction.lock_dead_letter(uuid4()) is None


async def test_relay_sees_positions_and_held_keys_of_the_consumers_it_waits_for(
    servers: Servers, session: RelaySession, store: ConsumerStore, new_activity: NewActivity
) -> None:
    await store.create_positions({PART: 4})
    async with store.begin() as transaction:
        await transaction.add_dead_letters(
            [make_dead_letter(1, keys=("a", "b")), make_dead_letter(2, kind="unknown", type_=UNKNOWN, keys=("c",))]
        )
    await publish(servers, new_activity, uuid4())
    assert await session.read_progress(["test"]) == Progress({PART: 4}, frozenset("ab"), holds_all=False)
    assert await session.read_progress(["other"]) == Progress({}, frozenset(), holds_all=False)
    debts = await session.read_debts(LONG_AGO, frozenset("ab"))
    assert debts == Debts((await rows_of(session))[-1].id, None, frozenset("ab"))


async def test_dead_letter_without_keys_holds_all_until_it_is_settled(
    session: RelaySession, store: ConsumerStore
) -> None:
    async with store.begin() as transaction:
        await transaction.add_dead_letters([make_dead_letter(1, kind="malformed", keys=None)])
    assert (await session.read_progress(["test"])).holds_all


# -- the log


@pytest.fixture
async def writer(servers: Servers) -> AsyncIterator[LogWriter]:
    await servers.log.prepare([TOPIC, WATERMARKS])
    writer = await servers.log.open_writer(TOPIC)
    yield writer
    await writer.close()


@asynccontextmanager
async def reading(servers: Servers, *topics: str, group: str | None = "test") -> AsyncIterator[LogReader]:
    reader = await servers.log.open_reader(topics or [TOPIC], group)
    try:
        yield reader
    finally:
        await reader.close()


def records_of(*values: str) -> list[OutgoingRecord]:
    return [OutgoingRecord(b"key", value.encode(), [("name", b"header")]) for value in values]


async def append_all(writer: LogWriter, partition: int, *values: str) -> int:
    """Append, by as many batches as it takes; the offset after the last."""
    left = records_of(*values)
    while left:
        count = await writer.append(partition, left)
        assert count >= 1
        left = left[count:]
    return (await writer.ends())[partition]


async def read(reader: LogReader, count: int) -> list[LogRecord]:
    """The next so many records."""
    found: list[LogRecord] = []
    async with asyncio.timeout(20):
        while len(found) < count:
            found += await reader.poll(1.0, count - len(found))
    return found


async def test_records_stand_in_the_order_in_which_they_were_appended(servers: Servers, writer: LogWriter) -> None:
    assert writer.partitions == 2
    assert await writer.ends() == [0, 0]
    assert await append_all(writer, 1, "a", "b", "c") == 3
    assert await append_all(writer, 1, "d") == 4
    assert await writer.ends() == [0, 4]
    async with reading(servers) as reader:
        assert dict(await reader.partitions()) == {TOPIC: 2}
        assert dict(await reader.beginnings([PART, (TOPIC, 1)])) == {PART: 0, (TOPIC, 1): 0}
        reader.assign({PART: 0, (TOPIC, 1): 1})
        found = await read(reader, 3)
        assert [(one.topic, one.partition, one.offset, one.value) for one in found] == [
            (TOPIC, 1, 1, b"b"),
            (TOPIC, 1, 2, b"c"),
            (TOPIC, 1, 3, b"d"),
        ]
        assert [(one.key, list(one.headers), one.unreadable) for one in found] == [
            (b"key", [("name", b"header")], None)
        ] * 3
        assert list(await reader.poll(0.05, 10)) == []


async def test_reassigned_a_reader_goes_on_from_there(servers: Servers, writer: LogWriter) -> None:
    await append_all(writer, 0, "a", "b", "c", "d")
    async with reading(servers) as reader:
        reader.assign({PART: 0})
        assert [one.value for one in await read(reader, 1)] == [b"a"]
        reader.assign({PART: 2, (TOPIC, 1): 0})
        assert [one.value for one in await read(reader, 2)] == [b"c", b"d"]
        reader.assign({PART: 0})
        assert [one.offset for one in await read(reader, 4)] == [0, 1, 2, 3]


async def test_cancelled_poll_loses_nothing(servers: Servers, writer: LogWriter) -> None:
    async with reading(servers) as reader:
        reader.assign({PART: 0, (TOPIC, 1): 0})
        polling = asyncio.create_task(reader.poll(30.0, 10))
        await asyncio.sleep(0.05)
        polling.cancel()
        await asyncio.gather(polling, return_exceptions=True)
        await append_all(writer, 0, "a", "b")
        assert [one.value for one in await read(reader, 2)] == [b"a", b"b"]


async def test_position_beyond_the_end_is_lost(servers: Servers, writer: LogWriter) -> None:
    await append_all(writer, 0, "a")
    async with reading(servers) as reader:
        reader.assign({PART: 5})
        with pytest.raises(LogPositionLost) as lost:
            await read(reader, 1)
    assert lost.value.partitions == (PART,)


async def test_lag_counts_what_is_not_handed_on(servers: Servers, writer: LogWriter) -> None:
    await append_all(writer, 0, "a", "b", "c")
    async with reading(servers) as reader:
        reader.assign({PART: 0})
        await read(reader, 1)
        assert dict(reader.lag()) == {TOPIC: 2}
        await read(reader, 2)
        assert dict(reader.lag()) == {TOPIC: 0}


async def patiently(call: Callable[[], Awaitable[T]]) -> T:
    """The answer of a call that a broker refuses for a moment, while it makes its first group."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await call()
            except GroupCoordinatorNotAvailableError:
                await asyncio.sleep(0.1)


async def test_what_readers_commit_is_for_others_to_see(servers: Servers, writer: LogWriter) -> None:
    """A new or restored database must not begin where a commit of ours stands: it would pass over all before."""
    await append_all(writer, 0, "a", "b")
    async with reading(servers) as reader:
        assert not await patiently(lambda: reader.committed([PART]))
        reader.assign({PART: 0})
        await read(reader, 2)
        await patiently(lambda: reader.commit({PART: 2}))
    async with reading(servers) as reader:
        assert not await patiently(lambda: reader.committed([PART]))


async def test_announcement_stands_in_the_topic_of_watermarks(servers: Servers, writer: LogWriter) -> None:
    await writer.announce(b"intake-events/0", b"first")
    await writer.announce(b"intake-events/0", b"second")
    async with reading(servers, WATERMARKS, group=None) as reader:
        assert dict(await reader.partitions()) == {WATERMARKS: 1}
        reader.assign(await reader.beginnings([(WATERMARKS, 0)]))
        found = await read(reader, 2)
    assert [(one.key, one.value) for one in found] == [(b"intake-events/0", b"first"), (b"intake-events/0", b"second")]
