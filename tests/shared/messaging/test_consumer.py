"""Each event takes effect once, whatever fails; what cannot be applied is set aside and holds nobody up."""

import asyncio
import random
from collections import defaultdict
from uuid import uuid4

import pytest
from sqlalchemy import text

from accord.contracts.envelope import Event, encode
from accord.contracts.intake_events import ActivityRecorded
from accord.contracts.values import utc
from accord.messaging import consumer as consumer_module
from accord.messaging import dead_letters
from accord.messaging.consumer import Consumer, DeadLetterFailed, Poison, PoisonLimits, TooManyPoisonEvents

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


async def keep(recording, received):
    """The effect of the tests: one row per event."""
    driver = await recording.driver()
    await driver.executemany(
        "INSERT INTO effect (event_id, key, sequence) VALUES ($1, $2, $3)",
        [(one.event.id, one.event.data.key, one.event.data.sequence) for one in received],
    )


async def effects(database):
    async with database.reading() as conn:
        return (await conn.execute(text("SELECT event_id, key, sequence FROM effect ORDER BY place"))).all()


async def letters(database, state="new"):
    async with database.reading() as conn:
        return await dead_letters.listed(conn, limit=100, state=state)


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

    async def note(recording, received):
        calls.extend(received)
        await keep(recording, received)

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


async def test_a_crash_between_commit_and_offset_commit_repeats_no_effect(
    database, producer, intake_topic, make_consumer, run_workers, eventually, monkeypatch
):
    await send(producer, intake_topic, *(event() for _ in range(30)))

    async def crash(self, client, records):
        raise RuntimeError("killed")

    monkeypatch.setattr(Consumer, "_commit", crash)
    with pytest.raises(RuntimeError, match="killed"):
        await make_consumer().run(asyncio.Event())
    monkeypatch.undo()
    assert await effects(database)
    await send(producer, intake_topic, event())
    async with run_workers(make_consumer()):
        rows = await eventually(reached(database, 31))
    assert len(rows) == 31


async def test_a_poison_event_is_set_aside_and_its_neighbours_are_applied(
    database, producer, intake_topic, make_consumer, run_workers, eventually
):
    events = [event(key, n) for n in range(1, 21) for key in KEYS]
    bad = events[100]

    async def handle(recording, received):
        await keep(recording, received)
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


async def test_a_handler_that_names_the_poison_event_spares_the_bisecting(
    database, producer, intake_topic, make_consumer, run_workers, eventually
):
    events = [event(KEYS[0], n) for n in range(1, 101)]
    calls = []

    async def handle(recording, received):
        calls.append(len(received))
        for one in received:
            if one.event.id == events[70].id:
                raise Poison("not for us", one)
        await keep(recording, received)

    await send(producer, intake_topic, *events)
    async with run_workers(make_consumer(handle)):
        await eventually(reached(database, 99))
        [letter] = await eventually(lambda: letters(database))
    assert letter.event_id == events[70].id
    assert len(calls) <= 5


async def test_a_malformed_record_is_set_aside_and_an_unknown_type_passed_over(
    database, producer, intake_topic, make_consumer, run_workers, eventually
):
    good, later = event(KEYS[0], 1), event(KEYS[0], 2)
    key, value, headers = encode(good)
    await send(producer, intake_topic, good)
    await producer.send_and_wait(intake_topic, value=b"{\x00", key=key, headers=headers)
    await producer.send_and_wait(intake_topic, value=b"\xff", key=b"\x00\xff", headers=[("ce_type", b"\x00")])
    unknown = [(name, b"lead.sang.v9" if name == "ce_type" else text_) for name, text_ in headers]
    await producer.send_and_wait(intake_topic, value=value, key=key, headers=unknown)
    await send(producer, intake_topic, later)
    async with run_workers(make_consumer()):
        await eventually(reached(database, 2))
        found = await eventually(lambda: enough_letters(database, 2))
    assert {letter.error.split(":")[0] for letter in found} == {"MalformedEvent"}


async def enough_letters(database, count):
    found = await letters(database)
    return found if len(found) >= count else None


async def test_if_the_dead_letter_cannot_be_written_the_consumer_stops_and_passes_nothing(
    database, producer, intake_topic, make_consumer, run_workers, eventually
):
    async with database.recording() as recording:
        await recording.conn.execute(text("ALTER TABLE dead_letter RENAME TO elsewhere"))

    async def refuse(_recording, _received):
        raise ValueError

    await send(producer, intake_topic, event())
    with pytest.raises(DeadLetterFailed):
        await make_consumer(refuse).run(asyncio.Event())
    async with run_workers(make_consumer()):
        assert len(await eventually(reached(database, 1))) == 1


async def test_too_many_poison_events_in_a_row_stop_the_consumer(database, producer, intake_topic, make_consumer):
    async def refuse(_recording, _received):
        raise ValueError

    await send(producer, intake_topic, *(event() for _ in range(50)))
    with pytest.raises(TooManyPoisonEvents, match="in a row"):
        await make_consumer(refuse, poison=PoisonLimits(in_a_row_max=5)).run(asyncio.Event())
    assert len(await letters(database)) == 5


async def test_too_large_a_share_of_poison_events_stops_the_consumer(database, producer, intake_topic, make_consumer):
    async def refuse_some(recording, received):
        if any(one.event.data.sequence % 3 for one in received):
            raise ValueError
        await keep(recording, received)

    await send(producer, intake_topic, *(event(KEYS[0], n) for n in range(1, 101)))
    limits = PoisonLimits(in_a_row_max=5, share_max=0.5, window_events_min=30)
    with pytest.raises(TooManyPoisonEvents, match="of the last"):
        await make_consumer(refuse_some, poison=limits).run(asyncio.Event())


async def test_transient_failures_are_tried_again_until_they_pass_and_keep_the_membership(
    database, producer, intake_topic, make_consumer, run_workers, eventually
):
    failures = iter([ConnectionResetError(), TimeoutError(), OSError("gone")])
    joined = 0

    async def shaky(recording, received):
        if error := next(failures, None):
            raise error
        await keep(recording, received)

    class Watched(Consumer):
        async def assigned(self, parts):
            nonlocal joined
            joined += 1
            await super().assigned(parts)

    consumer = make_consumer(shaky)
    consumer.__class__ = Watched
    await send(producer, intake_topic, *(event(KEYS[0], n) for n in range(1, 101)))
    async with run_workers(consumer):
        rows = await eventually(reached(database, 100))
    assert by_key(rows) == {str(KEYS[0]): list(range(1, 101))}
    assert await letters(database) == []
    assert joined == 1


async def test_a_database_that_cuts_connections_costs_no_event_and_repeats_none(
    database, producer, intake_topic, make_consumer, run_workers, eventually, postgres_server
):
    async def slow(recording, received):
        await keep(recording, received)
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
    async def slow(recording, received):
        await keep(recording, received)
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


async def test_an_exception_in_a_rebalance_ends_the_consumer(database, producer, intake_topic, make_consumer):
    class Broken(Consumer):
        async def assigned(self, parts):
            raise RuntimeError("cannot take over")

    consumer = make_consumer()
    consumer.__class__ = Broken
    with pytest.raises(RuntimeError, match="cannot take over"):
        await consumer.run(asyncio.Event())


async def test_stopping_finishes_the_batch_in_hand(
    database, producer, intake_topic, make_consumer, run_workers, eventually
):
    begun = asyncio.Event()

    async def slow(recording, received):
        begun.set()
        await asyncio.sleep(0.3)
        await keep(recording, received)

    await send(producer, intake_topic, event())
    async with run_workers(make_consumer(slow)):
        await begun.wait()
    assert len(await effects(database)) == 1
    calls = []

    async def note(_recording, received):
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

    async def handle(recording, received):
        if error := next(failures, None):
            raise error
        hangs.set()
        await release.wait()
        await keep(recording, received)

    await send(producer, intake_topic, *(event() for _ in range(5)))
    consumer = make_consumer(handle, stuck_after_s=1.0)
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
    async def answer(recording, received):
        await keep(recording, received)
        recording.publish(*(new_activity(recording, one.event.data.lead_id) for one in received))

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
async def test_any_set_of_poison_events_is_set_aside_and_all_others_applied_in_order(
    database, producer, intake_topic, make_consumer, run_workers, eventually, seed
):
    chance = random.Random(seed)
    events = [event(key, n) for n in range(1, 26) for key in KEYS]
    poison = {one.id for one in chance.sample(events, 12)}

    async def handle(recording, received):
        if any(one.event.id in poison for one in received):
            raise LookupError
        await keep(recording, received)

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
