"""A watermark never claims too much: all recorded before it is published, all that it rests on was consumed."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import text

from accord.contracts.watermarks import (
    WATERMARKS,
    Announcement,
    InvalidAnnouncement,
    decode_announcement,
    encode_announcement,
)
from accord.db import WRITERS_LOCK
from accord.messaging import dead_letters
from accord.messaging.announcement_board import ENTRIES_MAX, AnnouncementBoard
from accord.messaging.consumer_store import PostgresConsumerStore, watermark
from accord.messaging.frontier import Bound, Consumed, Frontier
from accord.messaging.kafka_log import KafkaLog
from accord.messaging.ports import ConsumedWatermarks, Lane, LogRecord, Move, NewDeadLetter, Position
from accord.messaging.relay_store import PostgresRelayStore
from accord.messaging.watermark_reader import ChangeGate, WatermarkReader
from accord.partitioning import hash_key

QUICK = {"announce_every_s": 0.05, "idle_announce_every_s": 0.05, "poll_s": 0.02}
INTAKE = "intake-events"
T = datetime(2027, 1, 4, 9, 30, tzinfo=UTC)


def announced(minutes, *ends, lanes=1, held=()):
    return Announcement(at=T + timedelta(minutes=minutes), lanes=lanes, ends=list(ends), held=list(held))


def until(board, positions, topics=(INTAKE,)):
    return board.reached(topics, {(INTAKE, partition): offset for partition, offset in enumerate(positions)}).until(
        topics
    )


class TestBoard:
    """What was announced counts once the stored positions have reached its ends."""

    def test_nothing_is_known_before_anything_was_heard(self):
        assert until(AnnouncementBoard(), [0, 0]) is None

    def test_it_counts_once_every_end_is_reached(self):
        board = AnnouncementBoard()
        board.add(INTAKE, 0, announced(1, 5, 7))
        assert until(board, [5, 6]) is None
        assert until(board, [5, 7]) == T + timedelta(minutes=1)

    def test_a_partition_that_the_consumer_does_not_know_is_not_read(self):
        board = AnnouncementBoard()
        board.add(INTAKE, 0, announced(1, 5, 7, 0))
        assert until(board, [5, 7]) == T + timedelta(minutes=1), "nothing stands in the third"
        board.add(INTAKE, 0, announced(2, 5, 7, 1))
        assert until(board, [5, 7]) == T + timedelta(minutes=1)
        assert until(board, [5, 7, 1]) == T + timedelta(minutes=2)

    def test_the_newest_that_is_reached_counts_while_a_consumer_is_always_a_little_behind(self):
        board = AnnouncementBoard()
        for minute in range(1, 1_000):
            board.add(INTAKE, 0, announced(minute, minute * 10))
            reached = until(board, [max(0, minute * 10 - 25)])
            assert minute < 4 or reached == T + timedelta(minutes=minute - 3)

    def test_what_waits_is_bounded_and_never_claims_more(self):
        board = AnnouncementBoard()
        for minute in range(1, 100_000):
            board.add(INTAKE, 0, announced(minute, minute))
        assert sum(len(lane.entries) for lane in board._lanes.values()) <= ENTRIES_MAX
        found = until(board, [50_000])
        assert found is None or found <= T + timedelta(minutes=50_000)
        assert until(board, [99_999]) == T + timedelta(minutes=99_999)

    @pytest.mark.parametrize("ends", [(5, 6), (0, 0), (12,)])
    def test_topic_that_became_shorter_counts_as_unread_until_it_ends_where_it_did(self, ends):
        board = AnnouncementBoard()
        board.add(INTAKE, 0, announced(1, 5, 7))
        assert until(board, [5, 7]) == T + timedelta(minutes=1)
        board.add(INTAKE, 0, announced(1.1, *ends))
        board.add(INTAKE, 0, announced(1.2, *ends))
        assert until(board, [5, 7]) is None
        assert board.doubts == 1
        board.add(INTAKE, 0, announced(1.3, 5, 7))
        assert until(board, [5, 7]) == T + timedelta(minutes=1.3)

    def test_topic_that_stays_shorter_is_taken_as_it_is_after_a_minute(self):
        board = AnnouncementBoard()
        board.add(INTAKE, 0, announced(1, 10**12, 10**12))
        for second in range(60):
            board.add(INTAKE, 0, announced(2 + second / 60, 5, 7))
            assert until(board, [5, 7]) is None
        board.add(INTAKE, 0, announced(3, 5, 7))
        assert until(board, [5, 7]) == T + timedelta(minutes=3)

    def test_positions_beyond_the_ends_that_are_heard_first_do_not_count(self):
        """The topic was created again while this process was down."""
        board = AnnouncementBoard()
        assert until(board, [5_000, 3]) is None
        board.add(INTAKE, 0, announced(1, 20, 4))
        assert until(board, [5_000, 3]) is None
        assert until(board, [-1, 3]) is None, "the consumer has noticed"
        board.add(INTAKE, 0, announced(2, 21, 4))
        assert until(board, [20, 4]) is None
        assert until(board, [21, 4]) == T + timedelta(minutes=2)

    def test_positions_that_were_ahead_of_what_was_announced_count_from_the_next_announcement(self):
        board = AnnouncementBoard()
        board.add(INTAKE, 0, announced(1, 20, 4))
        assert until(board, [25, 4]) is None
        board.add(INTAKE, 0, announced(1.1, 30, 4))
        assert until(board, [25, 4]) == T + timedelta(minutes=1)

    def test_older_announcement_that_is_heard_again_is_no_doubt(self):
        board = AnnouncementBoard()
        for minute in (1, 2, 3, 1, 2, 3, 4):
            board.add(INTAKE, 0, announced(minute, minute))
        assert board.doubts == 0
        assert until(board, [4]) == T + timedelta(minutes=4)

    def test_topic_with_a_lost_position_is_not_read_until_it_is_announced_and_read_again(self):
        board = AnnouncementBoard()
        board.add(INTAKE, 0, announced(1, 5, 7))
        assert until(board, [5, -1]) is None
        assert until(board, [0, 0]) is None, "what was announced of the old topic is forgotten"
        board.add(INTAKE, 0, announced(2, 1, 2))
        assert until(board, [1, 1]) is None
        assert until(board, [1, 2]) == T + timedelta(minutes=2)

    def test_a_restored_database_whose_positions_went_back_knows_less_again(self):
        board = AnnouncementBoard()
        board.add(INTAKE, 0, announced(1, 5))
        board.add(INTAKE, 0, announced(2, 9))
        assert until(board, [9]) == T + timedelta(minutes=2)
        assert until(board, [3]) is None

    def test_of_several_lanes_the_least_counts_and_all_must_be_heard(self):
        board = AnnouncementBoard()
        board.add(INTAKE, 0, announced(9, 5, lanes=2))
        assert until(board, [5]) is None
        board.add(INTAKE, 1, announced(4, 3, lanes=2))
        assert until(board, [5]) == T + timedelta(minutes=4)

    def test_a_lane_that_is_no_more_does_not_count(self):
        board = AnnouncementBoard()
        board.add(INTAKE, 1, announced(1, 0, lanes=2))
        board.add(INTAKE, 0, announced(9, 5, lanes=1))
        assert until(board, [5]) == T + timedelta(minutes=9)

    def test_held_keys_come_with_the_entry_that_counts(self):
        board = AnnouncementBoard()
        board.add(INTAKE, 0, announced(1, 5, held=["a"]))
        board.add(INTAKE, 0, announced(2, 9))
        assert board.reached([INTAKE], {(INTAKE, 0): 6}).held == {"a"}
        assert board.reached([INTAKE], {(INTAKE, 0): 9}).held == frozenset()

    def test_while_everything_is_held_nothing_is_known(self):
        assert ConsumedWatermarks({INTAKE: T}, holds_all=True).until([INTAKE]) is None


class TestRecord:
    """What stands in the topic."""

    def test_it_comes_back_as_it_was(self):
        announcement = announced(1, 5, 7, lanes=3, held=["b", "a"])
        assert decode_announcement(*encode_announcement(INTAKE, 2, announcement)) == (INTAKE, 2, announcement)

    @pytest.mark.parametrize(
        ("key", "value"),
        [(None, b"{}"), (b"intake-events", b"{}"), (b"\xff/0", b"{}"), (b"a/0", b"{}"), (b"a/0", None), (b"a/0", b"[1]"),
         (b"a/0", b'{"at": 1, "ends": []}'), (b"a/0", b'{"at": "2027-01-04T09:30:00Z", "ends": ["x"]}'),
         (b"a/0", b'{"at": "2027-01-04T09:30:00Z", "ends": [1], "held": ["\\u0000"]}'),
         (b"a/0", b'{"at": "2027-01-04T09:30:00Z", "ends": [1], "held": [""]}')],
    )  # fmt: skip
    def test_anything_else_is_invalid(self, key, value):
        with pytest.raises(InvalidAnnouncement):
            decode_announcement(key, value)


@pytest.fixture
async def session(database):
    """A relay's own connection."""
    session = await PostgresRelayStore(database).open_session()
    yield session
    await session.close()


WHOLE = Lane(0, 1)


async def at(frontier, session):
    claim = await frontier.advance(session)
    return None if claim is None else claim.at


async def test_with_nothing_to_publish_it_is_now(session):
    _, before = await session.read_clock()
    assert before <= await at(Frontier(WHOLE), session) <= (await session.read_clock())[1]


async def test_an_open_unit_of_work_holds_it_back_and_its_rows_do_until_published(database, session, new_activity):
    frontier = Frontier(WHOLE)
    async with database.write_transaction() as unit_of_work:
        unit_of_work.publish(new_activity(unit_of_work))
        assert await at(frontier, session) <= unit_of_work.now
    assert await at(frontier, session) <= unit_of_work.now
    await publish_everything(session)
    assert await at(frontier, session) > unit_of_work.now


async def publish_everything(session):
    await session._connection.execute("DELETE FROM outbox")


async def test_of_several_writers_the_oldest_counts(database, session):
    opened, go_on = asyncio.Event(), asyncio.Event()

    async def write():
        async with database.write_transaction() as unit_of_work:
            opened.set()
            await go_on.wait()
        return unit_of_work.now

    first = asyncio.create_task(write())
    await opened.wait()
    async with database.write_transaction():
        pass
    found = await at(Frontier(WHOLE), session)
    go_on.set()
    assert found <= await first


async def test_readers_and_other_transactions_do_not_hold_it_back(database, session):
    async with database.engine.begin() as other:
        await other.execute(text("SELECT 1"))
        _, before = await session.read_clock()
        assert await at(Frontier(WHOLE), session) >= before


async def test_a_writer_of_a_role_that_cannot_be_seen_withholds_it(database, session):
    own = session._connection
    await own.execute("CREATE ROLE stranger LOGIN; CREATE ROLE watcher LOGIN")
    stranger = await database.connect()
    watcher = await PostgresRelayStore(database).open_session()
    try:
        await own.execute("GRANT SELECT ON outbox, outbox_id_seq TO watcher")
        await stranger.execute("SET SESSION AUTHORIZATION stranger")
        await watcher._connection.execute("SET SESSION AUTHORIZATION watcher")
        assert await Frontier(WHOLE).advance(watcher) is not None
        async with stranger.transaction():
            await stranger.execute(f"SELECT pg_advisory_xact_lock_shared({WRITERS_LOCK})")
            assert await Frontier(WHOLE).advance(watcher) is None
        assert await Frontier(WHOLE).advance(watcher) is not None
    finally:
        await stranger.close()
        await watcher.close()
        await own.execute("DROP OWNED BY watcher; DROP ROLE stranger; DROP ROLE watcher")


async def test_a_writer_whose_activity_is_not_tracked_withholds_it(database, session):
    stranger = await database.connect()
    try:
        await stranger.execute("SET track_activities = off")
        async with stranger.transaction():
            await stranger.execute(f"SELECT pg_advisory_xact_lock_shared({WRITERS_LOCK})")
            assert await Frontier(WHOLE).advance(session) is None
        assert await Frontier(WHOLE).advance(session) is not None
    finally:
        await stranger.close()


async def test_rows_below_the_floor_are_published_and_none_comes_there_any_more(
    database, session, new_activity, monkeypatch
):
    """A long snapshot keeps dead rows in the table; the floor spares walking over them, a minute behind the clock."""
    monkeypatch.setattr("accord.messaging.frontier._CLOCK_STEP_MAX", timedelta(0))
    frontier = Frontier(WHOLE)
    opened, go_on = asyncio.Event(), asyncio.Event()

    async def write_late():
        async with database.write_transaction() as unit_of_work:
            unit_of_work.publish(new_activity(unit_of_work))
            opened.set()
            await go_on.wait()

    late = asyncio.create_task(write_late())
    await opened.wait()
    for _ in range(5):
        async with database.write_transaction() as unit_of_work:
            unit_of_work.publish(new_activity(unit_of_work))
        await session._connection.execute("DELETE FROM outbox")
        await frontier.advance(session)
    assert frontier.floor_id == 0, "a unit of work from before is still open"
    go_on.set()
    await late
    await frontier.advance(session)
    assert await session.first_id(WHOLE, frontier.floor_id) is not None, "its row is above the floor"
    await publish_everything(session)
    await frontier.advance(session)
    await frontier.advance(session)
    assert frontier.floor_id >= 5


async def test_the_very_first_row_of_an_outbox_is_above_the_floor(database, session, new_activity):
    frontier = Frontier(WHOLE)
    for _ in range(3):
        await frontier.advance(session)
    async with database.write_transaction() as unit_of_work:
        unit_of_work.publish(new_activity(unit_of_work))
    assert await session.first_id(WHOLE, frontier.floor_id) == 1


class Consuming:
    """A service that has read intake's events up to some offset, and what was announced of them."""

    def __init__(self, database):
        self.board = AnnouncementBoard()
        self.store = PostgresConsumerStore(database, "test")
        self.frontier = Frontier(WHOLE, Consumed(self.board, [INTAKE], ["test"]))
        self.part = (INTAKE, 0)
        self._offset = 0

    async def begin(self):
        await self.store.create_positions({self.part: 0})
        return self

    async def consume(self, offset, *publishing):
        async with self.store.begin() as transaction:
            transaction.unit_of_work.publish(*(make(transaction.unit_of_work) for make in publishing))
            await transaction.advance({self.part: Move(self._offset, Position(offset))})
        self._offset = offset

    def announce(self, moment, end, held=()):
        self.board.add(INTAKE, 0, Announcement(at=moment, ends=[end], held=list(held)))


@pytest.fixture
async def consuming(database):
    return await Consuming(database).begin()


async def test_what_was_consumed_bounds_it_once_its_consequences_are_published(consuming, session, new_activity):
    """The consequence is recorded after W but belongs to what W covers: without waiting for it, W would be a lie."""
    base = (await session.read_clock())[1] - timedelta(hours=1)
    assert await consuming.frontier.advance(session) is None, "nothing is known yet"
    consuming.announce(base, 1)
    assert await consuming.frontier.advance(session) is None, "it is not read yet"
    await consuming.consume(1, new_activity, new_activity)
    assert await consuming.frontier.advance(session) is None, "a consequence is not published yet"
    consuming.announce(base + timedelta(minutes=1), 2)
    await consuming.consume(2, new_activity)
    await session._connection.execute("DELETE FROM outbox WHERE id < (SELECT max(id) FROM outbox)")
    assert await at(consuming.frontier, session) == base, "the row that is left belongs to a later one"
    await publish_everything(session)
    await consuming.frontier.advance(session)
    assert await at(consuming.frontier, session) == base + timedelta(minutes=1)


async def test_what_time_still_owes_bounds_it(database, consuming, session):
    base = (await session.read_clock())[1] - timedelta(hours=1)
    await session._connection.execute("CREATE TABLE owed (due_at timestamptz)")
    await session._connection.execute(
        "INSERT INTO owed VALUES ($1), ($2)", base - timedelta(minutes=3), base + timedelta(1)
    )
    owing = await PostgresRelayStore(
        database, "SELECT min(due_at) FROM owed WHERE due_at <= $1 AND $2::text[] IS NOT NULL"
    ).open_session()
    try:
        consuming.announce(base, 1)
        await consuming.consume(1)
        assert await at(consuming.frontier, owing) == base - timedelta(minutes=3)
        await session._connection.execute("DELETE FROM owed WHERE due_at < $1", base)
        assert await at(consuming.frontier, owing) == base
    finally:
        await owing.close()


async def test_keys_that_are_held_with_others_owe_nothing_and_are_announced_as_held(database, consuming, session):
    base = (await session.read_clock())[1] - timedelta(hours=1)
    await session._connection.execute("CREATE TABLE owed (key text, due_at timestamptz)")
    await session._connection.execute("INSERT INTO owed VALUES ('survivor', $1)", base - timedelta(minutes=3))
    owing = await PostgresRelayStore(
        database,
        "SELECT min(due_at) FROM owed WHERE due_at <= $1 AND key <> ALL ($2::text[])",
        "SELECT unnest($1::text[]) UNION SELECT 'survivor' WHERE 'merged' = ANY ($1)",
    ).open_session()
    try:
        consuming.announce(base, 1, held=["merged"])
        await consuming.consume(1)
        assert await consuming.frontier.advance(owing) == Bound(base, frozenset({"merged", "survivor"}))
    finally:
        await owing.close()


async def test_an_unsettled_dead_letter_holds_its_lead_and_one_without_a_key_holds_all(database, consuming, session):
    base = (await session.read_clock())[1] - timedelta(hours=1)

    async def set_aside(keys, offset):
        record = LogRecord(INTAKE, 0, offset, None, b"", (), T)
        async with consuming.store.begin() as transaction:
            await transaction.add_dead_letters(
                [NewDeadLetter("poison", record, uuid4(), "activity.recorded.v1", keys, "ValueError")]
            )

    consuming.announce(base, 1, held=["theirs"])
    await consuming.consume(1)
    await set_aside(("lead", "merged"), 0)
    assert await consuming.frontier.advance(session) == Bound(base, frozenset({"lead", "merged", "theirs"}))
    await set_aside(None, 1)
    consuming.announce(base + timedelta(minutes=1), 2)
    await consuming.consume(2)
    assert await at(consuming.frontier, session) == base, "nothing more is claimed"
    async with database.read_transaction() as conn:
        letters = await dead_letters.list_dead_letters(conn, limit=10)
    for one in letters:
        await dead_letters.discard(consuming.store, one.id)
    assert await consuming.frontier.advance(session) == Bound(base + timedelta(minutes=1))


async def test_everything_recorded_before_it_stands_before_its_ends(
    database, cluster, new_activity, run_workers, eventually, reader, new_relay, new_watermarks
):
    heard = new_watermarks(cluster, "test", [INTAKE])
    async with run_workers(new_relay(database, cluster, "intake", lanes=2, **QUICK), heard):
        for n in range(1, 200):
            async with database.write_transaction() as unit_of_work:
                unit_of_work.publish(*(new_activity(unit_of_work, uuid4(), n) for _ in range(5)))

        async def all_announced():
            newest = heard.board.newest(INTAKE)
            return newest is not None and newest > unit_of_work.now

        await eventually(all_announced)
    events = await reader(INTAKE).events()
    assert len(events) == 995
    entries = [entry for lane in heard.board._lanes.values() for entry in lane.entries]
    assert len(entries) >= 4
    counted = dict.fromkeys(range(12), 0)
    offsets = []
    for partition, event in events:
        offsets.append((partition, counted[partition], event))
        counted[partition] += 1
    for lane, entry in ((lane, entry) for (_, lane), found in heard.board._lanes.items() for entry in found.entries):
        for partition, offset, event in offsets:
            if hash_lane(event, 2) == lane and event.data.recorded_at < entry.at:
                assert offset < entry.ends[partition]


def hash_lane(event, lanes):
    return hash_key(event.data.key.encode()) % lanes


async def test_a_stopped_relay_holds_the_consumer_s_watermark(
    database, cluster, run_workers, eventually, new_activity, new_relay, new_consumer, new_watermarks
):
    async def ignore(_unit_of_work, _received):
        return

    heard = new_watermarks(cluster, "test", [INTAKE])

    async def known():
        async with database.read_transaction() as conn:
            return (await heard.read(conn)).until([INTAKE])

    async with run_workers(
        heard, new_consumer(database, cluster, group="test", topics=[INTAKE], handle=ignore, progress=heard)
    ):
        assert await known() is None
        async with run_workers(new_relay(database, cluster, "intake", **QUICK)):
            await eventually(known)
        async with database.write_transaction() as unit_of_work:
            unit_of_work.publish(new_activity(unit_of_work))
        assert await known() <= unit_of_work.now

        async def past():
            return await known() > unit_of_work.now

        async with run_workers(new_relay(database, cluster, "intake", **QUICK)):
            await eventually(past)

        async def noted():
            async with database.read_transaction() as conn:
                return await watermark(conn, [INTAKE])

        assert await eventually(noted) <= await known()


async def test_a_service_that_consumes_announces_nothing_beyond_what_it_has_read(
    database, other_database, cluster, run_workers, eventually, new_relay, new_consumer, new_watermarks, consumed
):
    async def ignore(_unit_of_work, _received):
        return

    heard = new_watermarks(cluster, "qualification", [INTAKE])
    listener = new_watermarks(cluster, "listener", ["qualification-events"])
    consumer = new_consumer(other_database, cluster, group="qualification", topics=[INTAKE], handle=ignore)
    qualification = new_relay(other_database, cluster, "qualification", consumed=consumed(heard), **QUICK)

    async def announced_by_it():
        return listener.board.newest("qualification-events")

    async with run_workers(consumer, qualification, heard, listener):
        async with run_workers(new_relay(database, cluster, "intake", **QUICK)):
            await eventually(announced_by_it)
        # intake's relay has stopped: qualification's watermark comes to rest at the last that it has consumed.

        async def rests():
            return await announced_by_it() == heard.board.newest(INTAKE)

        await eventually(rests)
        assert await announced_by_it() == heard.board.newest(INTAKE)


@pytest.mark.parametrize("ahead", [timedelta(minutes=1), timedelta(days=26_000)])
async def test_a_watermark_ahead_of_the_clock_is_refused(cluster, run_workers, eventually, new_watermarks, ahead):
    """One forged record, or a server whose clock is set forward, would break every promise at once."""
    log = KafkaLog(cluster)
    await log.prepare([INTAKE, WATERMARKS])
    writer = await log.open_writer(INTAKE)
    now = datetime.now(UTC)
    try:
        for moment in (now + ahead, now):
            await writer.announce(*encode_announcement(INTAKE, 0, Announcement(at=moment, ends=[])))
    finally:
        await writer.close()
    heard = new_watermarks(cluster, "test", [INTAKE])

    async def newest():
        return heard.board.newest(INTAKE)

    async with run_workers(heard):
        assert await eventually(newest) == now
    assert heard.board.changes == 1


async def test_a_strict_watermark_under_concurrent_writers(database, session):
    """Nothing is ever recorded before a moment that was announced, whoever writes."""
    announced_moments = []
    stop = asyncio.Event()

    async def write():
        while not stop.is_set():
            async with database.write_transaction() as unit_of_work:
                before = announced_moments[-1] if announced_moments else None
                assert before is None or unit_of_work.now >= before
                await asyncio.sleep(0.001)
                assert all(moment <= unit_of_work.now for moment in announced_moments)

    writers = [asyncio.create_task(write()) for _ in range(6)]
    frontier = Frontier(WHOLE)
    for _ in range(300):
        announced_moments.append(await at(frontier, session))  # noqa: PERF401
    stop.set()
    await asyncio.gather(*writers)


class StillWatermarks:
    """Of which none moves unless a test says so."""

    changes = 0


async def test_look_that_found_nothing_is_made_again_when_something_has_changed():
    watermarks, looks = StillWatermarks(), []
    gate = ChangeGate(watermarks, every_s=3600)

    async def find_nothing():
        looks.append(watermarks.changes)

    assert not await gate.run_if_changed(find_nothing)
    assert not await gate.run_if_changed(find_nothing)
    assert looks == [0]
    watermarks.changes += 1
    await gate.run_if_changed(find_nothing)
    assert looks == [0, 1]


@pytest.mark.parametrize("more", [True, False])
async def test_look_that_found_something_is_made_again(more):
    looks = 0

    async def find():
        nonlocal looks
        looks += 1
        return more

    gate = ChangeGate(StillWatermarks(), every_s=3600)
    assert [await gate.run_if_changed(find) for _ in range(2)] == [more, more]
    assert looks == 2


async def test_look_that_failed_is_made_again_though_nothing_has_changed():
    outcomes = iter([TimeoutError(), True])

    async def fail_once():
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    gate = ChangeGate(StillWatermarks(), every_s=3600)
    with pytest.raises(TimeoutError):
        await gate.run_if_changed(fail_once)
    assert await gate.run_if_changed(fail_once)


class SilentLog:
    """A log and its reader, to which nothing is ever added."""

    def __init__(self):
        self.polls = asyncio.Event()
        self.ended = False

    async def prepare(self, topics):
        pass

    async def open_reader(self, topics, group):
        return self

    async def beginnings(self, partitions):
        return dict.fromkeys(partitions, 0)

    def assign(self, positions):
        pass

    async def poll(self, timeout_s, records_max):
        self.polls.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended = True

    async def close(self):
        assert self.ended, "a poll is under way on a reader that is closed"


async def test_worker_that_is_cancelled_leaves_no_poll_behind():
    log = SilentLog()
    working = asyncio.create_task(WatermarkReader(log, consumer="test", topics=[INTAKE]).run(asyncio.Event()))
    await log.polls.wait()
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    assert log.ended
