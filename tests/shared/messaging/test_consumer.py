"""Each event takes effect once, whatever fails; what cannot be applied is set aside and holds nobody up."""

import asyncio
import random
from collections import defaultdict
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete
from aiokafka.record.util import calc_crc32c
from prometheus_client import REGISTRY
from sqlalchemy import text

from accord.contracts.envelope import Event, encode
from accord.contracts.intake_events import ActivityRecorded, LeadErased
from accord.contracts.values import utc
from accord.db import connection_of
from accord.messaging import consumer as consumer_module
from accord.messaging import dead_letters
from accord.messaging.consumer import DeadLetterFailed, PoisonEvent, PoisonLimits, TooManyPoisonEvents
from accord.messaging.consumer_store import PostgresConsumerStore, read_progress, restart
from accord.messaging.kafka import client_options, ensure_topics
from accord.messaging.kafka_log import KafkaLog
from accord.messaging.ports import REACHES_NOTHING, LogPositionLost, Move, Position
from accord.messaging.watermark_reader import WatermarkReader
from accord.partitioning import hash_key

RECORDED = utc(2027, 1, 4, 9, 31)
KEYS = [uuid4() for _ in range(12)]


def event(lead=None, sequence=1, kind="email.clicked"):
    data = ActivityRecorded(
        occurred_at=RECORDED,
        recorded_at=RECORDED,
        lead_id=lead or uuid4(),
        sequence=sequence,
        activity_id=uuid4(),
        kind=kind,
        by="lead",
    )
    return Event(uuid4(), "/intake", data)


async def send(producer, topic, *events):
    """Send in order, each to the partition of its key."""
    sent = []
    for one in events:
        key, value, headers = encode(one)
        sent.append(await producer.send(topic, value=value, key=key, headers=headers))
    await asyncio.gather(*sent)


async def keep(unit_of_work, received):
    """The effect of the tests: one row per event."""
    connection = await unit_of_work.connection()
    await connection.executemany(
        "INSERT INTO effect (event_id, key, sequence) VALUES ($1, $2, $3)",
        [(one.event.id, one.event.data.key, one.event.data.sequence) for one in received],
    )


async def effects(database):
    async with database.read_transaction() as conn:
        return (await conn.execute(text("SELECT event_id, key, sequence FROM effect ORDER BY place"))).all()


async def letters(database, state="new"):
    async with database.read_transaction() as conn:
        return await dead_letters.list_dead_letters(conn, limit=100, state=state)


def reached(database, count):
    async def enough():
        found = await effects(database)
        return found if len(found) >= count else None

    return enough


def by_key(rows):
    order = defaultdict(list)
    for row in rows:
        order[row.key].append(row.sequence)
    return order


@pytest.fixture
def make_consumer(database, cluster, new_consumer):
    def make(handle=keep, **options):
        return new_consumer(database, cluster, group="test", topics=["intake-events"], handle=handle, **options)

    return make


async def test_events_written_before_the_group_existed_are_applied_in_order(
    database, producer, intake_topic, make_consumer, run_workers, eventually
):
    await send(producer, intake_topic, *(event(key, n) for n in range(1, 31) for key in KEYS))
    async with run_workers(make_consumer()):
        rows = await eventually(reached(database, 360))
    assert by_key(rows) == {str(key): list(range(1, 31)) for key in KEYS}


async def test_a_second_consumer_begins_where_the_first_has_committed(
    database, producer, intake_topic, make_consumer, run_workers, eventually
):
    await send(producer, intake_topic, *(event() for _ in range(20)))
    async with run_workers(make_consumer()):
        await eventually(reached(database, 20))
    calls = []

    async def note(unit_of_work, received):
        calls.extend(received)
        await keep(unit_of_work, received)

    last = event()
    await send(producer, intake_topic, last)
    async with run_workers(make_consumer(note)):
        await eventually(reached(database, 21))
    assert [one.event for one in calls] == [last]


async def test_the_same_event_twice_takes_effect_once(
    database, producer, intake_topic, make_consumer, run_workers, eventually
):
    twice = [event(KEYS[n % 3], n) for n in range(1, 50)]
    await send(producer, intake_topic, *twice, *twice[10:30], event(KEYS[0], 99))
    async with run_workers(make_consumer()):
        rows = await eventually(reached(database, 50))
        await asyncio.sleep(0)
    assert len(rows) == 50
    assert len({row.event_id for row in rows}) == 50


async def test_a_position_is_what_the_database_says_whatever_offset_the_log_has(
    database, cluster, producer, intake_topic, make_consumer, run_workers, eventually
):
    """A failover of the log forgets the last commits, or keeps too many of them: neither matters."""
    await send(producer, intake_topic, *(event() for _ in range(30)))
    async with run_workers(make_consumer()):
        await eventually(reached(database, 30))
    await send(producer, intake_topic, *(event() for _ in range(10)))
    reader = await KafkaLog(cluster).open_reader(["intake-events"], "test")
    ends = {("intake-events", partition): 10_000 for partition in range(3)}
    reader.assign(dict.fromkeys(ends, 0))
    await reader.commit(ends)
    await reader.close()
    async with run_workers(make_consumer()):
        rows = await eventually(reached(database, 40))
    assert len({row.event_id for row in rows}) == 40


async def test_a_database_restored_from_a_backup_reads_again_what_it_lost(
    database, producer, intake_topic, make_consumer, run_workers, eventually
):
    await send(producer, intake_topic, *(event(KEYS[0], n) for n in range(1, 21)))
    async with run_workers(make_consumer()):
        await eventually(reached(database, 20))
    kept = await snapshot(database)
    await send(producer, intake_topic, *(event(KEYS[0], n) for n in range(21, 41)))
    async with run_workers(make_consumer()):
        await eventually(reached(database, 40))
    await restore(database, kept)
    async with run_workers(make_consumer()):
        rows = await eventually(reached(database, 40))
    assert by_key(rows) == {str(KEYS[0]): list(range(1, 41))}


async def test_a_database_that_is_created_again_reads_everything_again_whatever_offset_kafka_has(
    database, other_database, producer, intake_topic, cluster, new_consumer, run_workers, eventually
):
    await send(producer, intake_topic, *(event(KEYS[0], n) for n in range(1, 21)))
    for each in (database, other_database):
        async with run_workers(new_consumer(each, cluster, group="test", topics=["intake-events"], handle=keep)):
            rows = await eventually(reached(each, 20))
            await asyncio.sleep(0)
        assert by_key(rows) == {str(KEYS[0]): list(range(1, 21))}


TABLES = ("effect", "inbox", "consumer_position")


async def snapshot(database):
    async with database.read_transaction() as conn:
        return {name: (await conn.execute(text(f"SELECT * FROM {name}"))).mappings().all() for name in TABLES}


async def restore(database, kept):
    async with database.write_transaction() as unit_of_work:
        for name, rows in kept.items():
            await unit_of_work.conn.execute(text(f"TRUNCATE {name}"))
            for row in rows:
                columns = ", ".join(row)
                values = ", ".join(f":{column}" for column in row)
                await unit_of_work.conn.execute(
                    text(f"INSERT INTO {name} ({columns}) OVERRIDING SYSTEM VALUE VALUES ({values})"), dict(row)
                )


async def test_the_first_start_after_the_upgrade_goes_on_at_the_offset_of_kafka(
    database, cluster, producer, intake_topic, make_consumer, run_workers, eventually
):
    old, new = [event(KEYS[0], n) for n in range(1, 11)], [event(KEYS[0], n) for n in range(11, 15)]
    await send(producer, intake_topic, *old)
    before = AIOKafkaConsumer(
        **client_options(cluster), group_id=cluster.topic_prefix + "test", enable_auto_commit=False
    )
    await before.start()
    part = TopicPartition(intake_topic, hash_key(str(KEYS[0]).encode()) % 3)
    before.assign([part])
    await before.commit({part: 10})
    await before.stop()
    await send(producer, intake_topic, *new)
    async with run_workers(make_consumer()):
        rows = await eventually(reached(database, 4))
    assert by_key(rows) == {str(KEYS[0]): [11, 12, 13, 14]}


async def test_of_two_that_read_one_partition_only_one_commits_a_batch(
    database, producer, intake_topic, make_consumer, run_workers, eventually
):
    """A process that was stopped and goes on believes in a position that another has moved."""
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def pause(unit_of_work, received):
        entered.set()
        await go_on.wait()
        await keep(unit_of_work, received)

    paused = make_consumer(pause)
    await send(producer, intake_topic, *(event(KEYS[0], n) for n in range(1, 21)))
    async with run_workers(paused):
        await entered.wait()
        part = ("intake-events", hash_key(str(KEYS[0]).encode()) % 3)
        async with PostgresConsumerStore(database, "test").begin() as transaction:
            await transaction.advance({part: Move(0, Position(20))})
        go_on.set()
        await eventually(lambda: as_awaitable(value_of("accord_consumer_retries_total", "PositionConflict")))
    assert await effects(database) == []


def value_of(name, cause):
    return REGISTRY.get_sample_value(name, {"consumer": "test", "cause": cause})


async def test_a_topic_that_was_created_again_is_noticed_before_anything_is_passed_over(
    database, cluster, producer, intake_topic, make_consumer, run_workers, eventually
):
    await send(producer, intake_topic, *(event() for _ in range(9)))
    async with run_workers(make_consumer()):
        await eventually(reached(database, 9))
    admin = AIOKafkaAdminClient(**client_options(cluster))
    await admin.start()
    await admin.delete_topics([intake_topic])

    async def is_gone():
        return intake_topic not in await admin.list_topics()

    await eventually(is_gone)
    await admin.close()
    await ensure_topics(cluster, ["intake-events"], partitions=3)
    await producer.client.force_metadata_update()
    for _ in range(20):
        for partition in range(3):
            key, value, headers = encode(event())
            await producer.send_and_wait(intake_topic, value=value, key=key, headers=headers, partition=partition)
    for _ in range(2):
        with pytest.raises(LogPositionLost, match="created again"):
            await make_consumer().run(asyncio.Event())
    assert len(await effects(database)) == 9
    assert REACHES_NOTHING in await reached_offsets(database), "what was read of the old topic counts for nothing"
    assert await restart(database, "test", "intake-events") == 3  # as an operator does, once it is known what happened
    async with run_workers(make_consumer()):
        await eventually(reached(database, 69))


async def reached_offsets(database):
    positions = await PostgresConsumerStore(database, "test").read_positions()
    return [position.reached_offset for _, position in sorted(positions.items())]


async def test_topic_that_holds_again_what_was_read_is_read_on(
    database, producer, intake_topic, make_consumer, run_workers, eventually
):
    await send(producer, intake_topic, *(event() for _ in range(9)))
    async with run_workers(make_consumer()):
        await eventually(reached(database, 9))
    before = await reached_offsets(database)
    store = PostgresConsumerStore(database, "test")
    stored = await store.read_positions()
    await store.set_lost(
        {part: position.next_offset for part, position in stored.items() if position.last_event_id}, True
    )
    assert await reached_offsets(database) != before

    async def found():
        return await reached_offsets(database) == before

    async with run_workers(make_consumer()):
        await eventually(found)
        await send(producer, intake_topic, event())
        await eventually(reached(database, 10))


async def test_running_consumer_verifies_its_positions_when_the_topic_is_in_doubt(
    database, producer, intake_topic, make_consumer, run_workers, eventually
):
    class Progress(WatermarkReader):
        doubts = 0

    progress = Progress(None, consumer="test", topics=["intake-events"])
    await send(producer, intake_topic, *(event() for _ in range(9)))
    consumer = make_consumer(progress=progress)
    running = asyncio.create_task(consumer.run(asyncio.Event()))
    await eventually(reached(database, 9))
    async with database.write_transaction() as unit_of_work:  # another event than the one that stands there
        await unit_of_work.conn.execute(
            text("UPDATE consumer_position SET last_event_id = gen_random_uuid() WHERE next_offset > 0")
        )
    assert not running.done()
    progress.doubts += 1
    with pytest.raises(LogPositionLost, match="created again"):
        await running


async def test_records_that_retention_took_before_they_were_read_stop_the_consumer(
    database, cluster, producer, intake_topic, make_consumer, run_workers, eventually
):
    await send(producer, intake_topic, *(event(KEYS[0], n) for n in range(1, 11)))
    async with run_workers(make_consumer()):
        await eventually(reached(database, 10))
    await send(producer, intake_topic, *(event(KEYS[0], n) for n in range(11, 31)))
    part = TopicPartition(intake_topic, hash_key(str(KEYS[0]).encode()) % 3)
    admin = AIOKafkaAdminClient(**client_options(cluster))
    await admin.start()
    await admin.delete_records({part: RecordsToDelete(10)})  # all that were read, and no other
    async with run_workers(make_consumer()):
        await eventually(reached(database, 30))
    await send(producer, intake_topic, *(event(KEYS[0], n) for n in range(31, 51)))
    await admin.delete_records({part: RecordsToDelete(45)})
    await admin.close()
    with pytest.raises(LogPositionLost):
        await make_consumer().run(asyncio.Event())


async def test_a_poison_event_becomes_a_dead_letter_and_its_neighbours_are_applied(
    database, producer, intake_topic, make_consumer, run_workers, eventually
):
    events = [event(key, n) for n in range(1, 21) for key in KEYS]
    bad = events[100]

    async def handle(unit_of_work, received):
        await keep(unit_of_work, received)
        for one in received:
            if one.event.id == bad.id:
                raise ValueError("cannot apply")

    await send(producer, intake_topic, *events)
    async with run_workers(make_consumer(handle)):
        rows = await eventually(reached(database, 239))
        [letter] = await eventually(lambda: letters(database))
    assert {row.event_id for row in rows} == {one.id for one in events} - {bad.id}
    assert all(sequences == sorted(sequences) for sequences in by_key(rows).values())
    assert (letter.event_id, letter.topic, letter.type) == (bad.id, "intake-events", "activity.recorded.v1")
    assert letter.error == "ValueError: cannot apply"
    assert letter.key == str(bad.data.lead_id)


async def test_dead_letters_of_an_erased_person_go_with_the_erasure(
    database, producer, intake_topic, make_consumer, run_workers, eventually
):
    """Settled or not; those of others stay."""
    erased, other = event(KEYS[0], 1), event(KEYS[1], 1)

    async def handle(unit_of_work, received):
        for one in received:
            if one.event.id in (erased.id, other.id):
                raise ValueError("cannot apply")
        await keep(unit_of_work, received)

    async def none_of_the_erased():
        found = await letters(database)
        return found if [letter.event_id for letter in found] == [other.id] else None

    await send(producer, intake_topic, erased, other)
    async with run_workers(make_consumer(handle)):
        await eventually(lambda: two(database))
        gone = LeadErased(lead_id=KEYS[0], sequence=2, occurred_at=RECORDED, recorded_at=RECORDED)
        await send(producer, intake_topic, Event(uuid4(), "/intake", gone))
        await eventually(none_of_the_erased)


async def two(database):
    found = await letters(database)
    return found if len(found) == 2 else None


async def test_a_handler_that_names_the_poison_event_spares_the_bisecting(
    database, producer, intake_topic, make_consumer, run_workers, eventually
):
    events = [event(KEYS[0], n) for n in range(1, 101)]
    calls = []

    async def handle(unit_of_work, received):
        calls.append(len(received))
        for one in received:
            if one.event.id == events[70].id:
                raise PoisonEvent("not for us", one)
        await keep(unit_of_work, received)

    await send(producer, intake_topic, *events)
    async with run_workers(make_consumer(handle)):
        await eventually(reached(database, 99))
        [letter] = await eventually(lambda: letters(database))
    assert letter.event_id == events[70].id
    assert len(calls) <= 5


async def test_a_bad_record_of_any_kind_becomes_a_dead_letter_and_the_others_are_applied(
    database, producer, intake_topic, make_consumer, run_workers, eventually
):
    good, later = event(KEYS[0], 1), event(KEYS[0], 2)
    key, value, headers = encode(good)
    await send(producer, intake_topic, good)

    def with_header(name, content):
        return [(known, content if known == name else text_) for known, text_ in headers]

    bad = [
        (key, b"{\x00", headers),
        (b"\x00\xff", b"\xff", [("ce_type", b"\x00")]),
        (None, b"", []),
        (key, None, headers),
        (key, value, with_header("content-type", None)),
        (key, value, with_header("content-type", b"text/plain")),
        (key, value, with_header("ce_id", b"\xff")),
        (key, value, with_header("ce_type", None)),
        (key, value, with_header("ce_specversion", b"0.3")),
        (key, b"[" * 100_000, headers),
        (key, value.replace(b"2027", b"9999"), headers),
        (key, value, [*headers, ("traceparent", b"\xff\xfe")]),  # the event itself is good
    ]
    for number, (bad_key, bad_value, bad_headers) in enumerate(bad):
        own = [
            (name, str(uuid4()).encode() if name == "ce_id" and text_ and text_.isascii() else text_)
            for name, text_ in bad_headers
        ]
        await producer.send_and_wait(intake_topic, value=bad_value, key=bad_key, headers=own, partition=number % 3)
    await send(producer, intake_topic, later)
    async with run_workers(make_consumer()):
        await eventually(reached(database, 3))
        found = await eventually(lambda: enough_letters(database, len(bad) - 1))
    assert {letter.kind for letter in found} == {"malformed"}
    assert all(letter.error for letter in found)


async def test_a_header_whose_name_is_no_text_becomes_a_dead_letter_by_its_place(
    database, cluster, producer, intake_topic, make_consumer, run_workers, eventually, monkeypatch
):
    """aiokafka cannot take such a record apart, nor those behind it in its batch; none of our producers writes one."""
    await send(producer, intake_topic, event(KEYS[0], 1))
    batch = producer.create_batch()
    key, value, headers = encode(event(KEYS[0], 2))
    batch.append(timestamp=None, key=key, value=value, headers=[("bad-name", b"x"), *headers])
    built = batch._build
    monkeypatch.setattr(batch, "_build", lambda: bytes_with_crc(built(), b"bad-name", b"bad-\xff\xfe\xfd\xfc"))
    partition = hash_key(str(KEYS[0]).encode()) % 3
    await (await producer.send_batch(batch, intake_topic, partition=partition))
    await send(producer, intake_topic, event(KEYS[0], 3), *(event() for _ in range(10)))
    async with run_workers(make_consumer()):
        rows = await eventually(reached(database, 12))
        [letter] = await eventually(lambda: letters(database))
    assert by_key(rows)[str(KEYS[0])] == [1, 3]
    assert (letter.kind, letter.partition, letter.offset) == ("malformed", partition, 1)


def bytes_with_crc(built, old, new):
    """A record batch with some bytes replaced and its CRC-32C made right again (bytes 17 to 21, over all that follow)."""
    body = bytes(built).replace(old, new)
    return body[:17] + calc_crc32c(body[21:]).to_bytes(4, "big") + body[21:]


async def test_an_event_of_a_type_nobody_knows_yet_is_kept_for_the_version_that_does(
    database, producer, intake_topic, make_consumer, run_workers, eventually, monkeypatch
):
    first, second = event(KEYS[0], 1), event(KEYS[0], 2)
    key, value, headers = encode(event(KEYS[0], 3))
    unknown = [(name, b"lead.sang.v9" if name == "ce_type" else text_) for name, text_ in headers]
    await send(producer, intake_topic, first)
    await producer.send_and_wait(intake_topic, value=value, key=key, headers=unknown)
    await send(producer, intake_topic, second)
    async with run_workers(make_consumer()):
        await eventually(reached(database, 2))
        [letter] = await eventually(lambda: letters(database))
    assert (letter.kind, letter.type) == ("unknown", "lead.sang.v9")
    async with database.read_transaction() as conn:
        progress = await read_progress(await connection_of(conn), ["test"])
    assert (progress.held, progress.holds_all) == (frozenset(), False), "no rule of this version knows it"

    await make_known(database)
    async with run_workers(make_consumer()):
        rows = await eventually(reached(database, 3))
    assert [row.sequence for row in rows] == [1, 2, 3]
    assert await letters(database) == []


async def make_known(database):
    """Have the next version call an unknown event by the name of a type that it knows."""
    async with database.write_transaction() as unit_of_work:
        await unit_of_work.conn.execute(
            text(
                "UPDATE dead_letter SET type = 'activity.recorded.v1',"
                " headers = replace(headers::text, 'lead.sang.v9', 'activity.recorded.v1')::json"
            )
        )


async def test_what_an_older_process_stores_as_unknown_is_replayed_by_a_newer_one_that_runs(
    database, producer, intake_topic, make_consumer, run_workers, eventually, monkeypatch
):
    monkeypatch.setattr(consumer_module, "_REPLAY_EVERY_S", 0.0)
    key, value, headers = encode(event(KEYS[0], 1))
    unknown = [(name, b"lead.sang.v9" if name == "ce_type" else text_) for name, text_ in headers]
    async with run_workers(make_consumer()):
        await producer.send_and_wait(intake_topic, value=value, key=key, headers=unknown)
        await eventually(lambda: letters(database))
        await make_known(database)
        [row] = await eventually(reached(database, 1))
    assert row.sequence == 1
    assert await letters(database) == []


async def enough_letters(database, count):
    found = await letters(database)
    return found if len(found) >= count else None


async def test_if_the_dead_letter_cannot_be_written_the_consumer_stops_and_passes_nothing(
    database, producer, intake_topic, make_consumer, run_workers, eventually
):
    async with database.write_transaction() as unit_of_work:
        await unit_of_work.conn.execute(text("ALTER TABLE dead_letter ADD CONSTRAINT refuses CHECK (false)"))

    async def refuse(_unit_of_work, _received):
        raise ValueError

    await send(producer, intake_topic, event())
    with pytest.raises(DeadLetterFailed):
        await make_consumer(refuse).run(asyncio.Event())
    async with run_workers(make_consumer()):
        assert len(await eventually(reached(database, 1))) == 1


async def test_too_many_poison_events_in_a_row_stop_the_consumer_and_the_next_start_goes_on_behind_them(
    database, producer, intake_topic, make_consumer, run_workers, eventually
):
    async def refuse(_unit_of_work, _received):
        raise ValueError

    await send(producer, intake_topic, *(event() for _ in range(50)))
    for start in (1, 2):
        with pytest.raises(TooManyPoisonEvents, match="in a row"):
            await make_consumer(refuse, poison=PoisonLimits(consecutive_max=5)).run(asyncio.Event())
        assert len(await letters(database)) == 5 * start
    async with run_workers(make_consumer()):
        await eventually(reached(database, 40))


async def test_more_unsettled_dead_letters_than_anybody_looks_at_stop_the_consumer(
    database, producer, intake_topic, make_consumer
):
    async def refuse_some(unit_of_work, received):
        if any(one.event.data.sequence % 2 for one in received):
            raise ValueError
        await keep(unit_of_work, received)

    await send(producer, intake_topic, *(event(KEYS[0], n) for n in range(1, 41)))
    with pytest.raises(TooManyPoisonEvents, match="7 dead letters wait"):
        await make_consumer(refuse_some, poison=PoisonLimits(unsettled_max=7)).run(asyncio.Event())


async def test_too_large_a_share_of_poison_events_stops_the_consumer(database, producer, intake_topic, make_consumer):
    async def refuse_some(unit_of_work, received):
        if any(one.event.data.sequence % 3 for one in received):
            raise ValueError
        await keep(unit_of_work, received)

    await send(producer, intake_topic, *(event(KEYS[0], n) for n in range(1, 101)))
    limits = PoisonLimits(consecutive_max=5, share_max=0.5, window_events_min=30)
    with pytest.raises(TooManyPoisonEvents, match="of the last"):
        await make_consumer(refuse_some, poison=limits).run(asyncio.Event())


async def test_transient_failures_are_tried_again_in_smaller_parts_until_they_pass(
    database, producer, intake_topic, make_consumer, run_workers, eventually
):
    """A batch that is always too much for a time-out gets through by halves."""
    sizes = []

    async def slow(unit_of_work, received):
        sizes.append(len(received))
        if len(received) > 10:
            raise TimeoutError
        await keep(unit_of_work, received)

    await send(producer, intake_topic, *(event(KEYS[0], n) for n in range(1, 101)))
    async with run_workers(make_consumer(slow)):
        rows = await eventually(reached(database, 100))
    assert by_key(rows) == {str(KEYS[0]): list(range(1, 101))}
    assert await letters(database) == []
    assert max(sizes) > 10


async def test_a_database_that_cuts_connections_costs_no_event_and_repeats_none(
    database, producer, intake_topic, make_consumer, run_workers, eventually, postgres_server
):
    async def slow(unit_of_work, received):
        await keep(unit_of_work, received)
        await asyncio.sleep(0.01)

    events = [event(key, n) for n in range(1, 101) for key in KEYS]
    await send(producer, intake_topic, *events)
    async with run_workers(make_consumer(slow, batch_rows_max=50)):
        for count in (100, 400, 700):
            await eventually(lambda count=count: reconnecting(reached(database, count)))
            postgres_server.execute(
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database.url.database}'"
            )
        rows = await eventually(lambda: reconnecting(reached(database, 1200)))
    assert by_key(rows) == {str(key): list(range(1, 101)) for key in KEYS}


async def reconnecting(condition):
    try:
        return await condition()
    except Exception as error:
        if not consumer_module.is_transient(error):
            raise
        return None


async def test_members_that_come_and_go_repeat_no_effect_and_keep_the_order(
    database, producer, intake_topic, make_consumer, run_workers, eventually
):
    async def slow(unit_of_work, received):
        await keep(unit_of_work, received)
        await asyncio.sleep(0.02)

    async def produce():
        for n in range(1, 201):
            await send(producer, intake_topic, *(event(key, n) for key in KEYS))
            await asyncio.sleep(0.01)

    producing = asyncio.create_task(produce())
    async with run_workers(make_consumer(slow, batch_rows_max=40)):
        for count in (200, 900):
            await eventually(reached(database, count))
            async with run_workers(make_consumer(slow, batch_rows_max=40)):
                await eventually(reached(database, count + 500))
        await producing
        rows = await eventually(reached(database, 2400), within_s=60)
    assert by_key(rows) == {str(key): list(range(1, 201)) for key in KEYS}


async def test_stopping_finishes_the_batch_in_hand(
    database, producer, intake_topic, make_consumer, run_workers, eventually
):
    begun = asyncio.Event()

    async def slow(unit_of_work, received):
        begun.set()
        await asyncio.sleep(0.3)
        await keep(unit_of_work, received)

    await send(producer, intake_topic, event())
    async with run_workers(make_consumer(slow)):
        await begun.wait()
    assert len(await effects(database)) == 1
    calls = []

    async def note(_unit_of_work, received):
        calls.extend(received)

    async with run_workers(make_consumer(note)):
        await send(producer, intake_topic, event())
        await eventually(lambda: as_awaitable(calls))
    assert len(calls) == 1


async def as_awaitable(value):
    return value


async def test_records_that_wait_without_progress_are_a_problem_but_a_known_outage_is_not_so_soon(
    database, producer, intake_topic, make_consumer, run_workers, eventually
):
    release, hangs = asyncio.Event(), asyncio.Event()
    failures = iter([ConnectionResetError()] * 3)

    async def handle(unit_of_work, received):
        if error := next(failures, None):
            raise error
        hangs.set()
        await release.wait()
        await keep(unit_of_work, received)

    await send(producer, intake_topic, *(event() for _ in range(5)))
    consumer = make_consumer(handle, stuck_after_s=4.0)
    assert consumer.problem() is None
    async with run_workers(consumer):
        while not hangs.is_set():
            assert consumer.problem() is None
            await asyncio.sleep(0.01)
        assert "records wait" in await eventually(lambda: as_awaitable(consumer.problem()))
        release.set()
        await eventually(reached(database, 5))
        await eventually(lambda: as_awaitable(consumer.problem() is None))


async def test_what_a_handler_publishes_is_committed_with_its_effects(
    database, cluster, producer, intake_topic, make_consumer, run_workers, eventually, reader, new_activity, new_relay
):
    async def answer(unit_of_work, received):
        await keep(unit_of_work, received)
        unit_of_work.publish(*(new_activity(unit_of_work, one.event.data.lead_id) for one in received))

    leads = [uuid4() for _ in range(20)]
    await send(producer, intake_topic, *(event(lead) for lead in leads))
    async with run_workers(make_consumer(answer), new_relay(database, cluster, "qualification")):
        await eventually(reached(database, 20))

        async def published():
            events = [one for _, one in await reader("qualification-events").events()]
            found = {one.data.lead_id for one in events if one.type == "activity.recorded.v1"}
            return found == set(leads)

        await eventually(published)


@pytest.mark.parametrize("seed", range(3))
async def test_any_set_of_poison_events_becomes_a_dead_letter_and_all_others_applied_in_order(
    database, producer, intake_topic, make_consumer, run_workers, eventually, seed
):
    chance = random.Random(seed)
    events = [event(key, n) for n in range(1, 26) for key in KEYS]
    poison = {one.id for one in chance.sample(events, 12)}

    async def handle(unit_of_work, received):
        if any(one.event.id in poison for one in received):
            raise LookupError
        await keep(unit_of_work, received)

    await send(producer, intake_topic, *events)
    async with run_workers(make_consumer(handle, batch_rows_max=chance.choice([7, 64, 2000]))):
        rows = await eventually(reached(database, 288))
        found = await eventually(lambda: enough_letters(database, 12))
    assert {letter.event_id for letter in found} == poison
    expected = defaultdict(list)
    for one in events:
        if one.id not in poison:
            expected[one.data.key].append(one.data.sequence)
    assert by_key(rows) == expected
