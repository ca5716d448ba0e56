"""A watermark never claims too much: all recorded before it is published, all that it rests on was consumed."""

import asyncio
from datetime import timedelta
from uuid import uuid4

import pytest
from sqlalchemy import text

from accord.contracts.watermarks import WatermarkAdvanced
from accord.messaging import watermark
from accord.messaging.consumer import Consumer
from accord.messaging.relay import Relay
from accord.messaging.watermark import Frontier

QUICK = {"watermark_every_s": 0.05, "poll_s": 0.02}


@pytest.fixture
async def own(database):
    """A relay's own connection."""
    driver = await database.connect()
    yield driver
    await driver.close()


async def server_time(driver):
    return await driver.fetchval("SELECT clock_timestamp()")


async def test_with_nothing_to_publish_it_is_now(database, own):
    before = await server_time(own)
    assert before <= await Frontier([]).advance(own) <= await server_time(own)


async def test_an_open_recording_holds_it_back_and_its_rows_do_until_published(database, own, new_activity):
    frontier = Frontier([])
    async with database.recording() as recording:
        recording.publish(new_activity(recording))
        while_open = await frontier.advance(own)
        assert while_open <= recording.now
    assert await frontier.advance(own) <= recording.now
    await own.execute("DELETE FROM outbox")
    assert await frontier.advance(own) > recording.now


async def test_of_several_writers_the_oldest_counts(database, another_database, own):
    async with database.recording() as first:
        async with another_database.recording():
            pass
        async with another_database.recording():
            assert await Frontier([]).advance(own) <= first.now


async def test_readers_and_other_transactions_do_not_hold_it_back(database, own):
    async with database.reading() as conn, database.engine.begin() as other:
        await conn.execute(text("SELECT 1"))
        await other.execute(text("SELECT 1"))
        before = await server_time(own)
        assert await Frontier([]).advance(own) >= before


async def test_a_writer_of_a_role_that_cannot_be_seen_withholds_it(database, own, postgres_server):
    await own.execute("CREATE ROLE stranger LOGIN; CREATE ROLE watcher LOGIN")
    try:
        stranger, watcher = await database.connect(), await database.connect()
        await watcher.execute("GRANT SELECT ON outbox TO watcher")
        await stranger.execute("SET SESSION AUTHORIZATION stranger")
        await watcher.execute("SET SESSION AUTHORIZATION watcher")
        assert await Frontier([]).advance(watcher) is not None
        async with stranger.transaction():
            await stranger.execute(f"SELECT pg_advisory_xact_lock_shared({watermark.RECORDING_LOCK})")
            assert await Frontier([]).advance(watcher) is None
        assert await Frontier([]).advance(watcher) is not None
        await stranger.close()
        await watcher.close()
    finally:
        await own.execute("DROP OWNED BY watcher; DROP ROLE stranger; DROP ROLE watcher")


async def test_it_never_goes_back(database, own, new_activity):
    frontier = Frontier([])
    first = await frontier.advance(own)
    async with database.recording() as recording:
        recording.publish(new_activity(recording))
    await own.execute("UPDATE outbox SET recorded_at = recorded_at - interval '1 hour'")
    assert await frontier.advance(own) >= first


async def test_what_was_consumed_bounds_it_once_its_consequences_are_published(database, own, new_activity):
    frontier = Frontier(["intake-events"])
    assert await frontier.advance(own) is None, "nothing is known yet"
    async with database.recording() as recording:
        driver = await recording.driver()
        consumed = recording.now - timedelta(minutes=1)
        await watermark.store(driver, "test", {("intake-events", 0): consumed, ("intake-events", 1): None})
    assert await frontier.advance(own) is None, "one partition is unknown"
    async with database.recording() as recording:
        driver = await recording.driver()
        await watermark.store(driver, "test", {("intake-events", 1): consumed + timedelta(seconds=1)})
        recording.publish(new_activity(recording))
    assert await frontier.advance(own) is None, "a consequence is not published yet"
    await own.execute("DELETE FROM outbox")
    assert await frontier.advance(own) == consumed


async def test_a_consumed_watermark_never_counts_before_rows_that_were_there_with_it(database, own, new_activity):
    """The consequence is recorded after W but belongs to what W covers: without waiting for it, W would be a lie."""
    frontier = Frontier(["intake-events"])
    base = await server_time(own) - timedelta(hours=1)

    async def consume(minutes, *, consequences):
        async with database.recording() as recording:
            driver = await recording.driver()
            await watermark.store(driver, "test", {("intake-events", 0): base + timedelta(minutes=minutes)})
            recording.publish(*(new_activity(recording) for _ in range(consequences)))

    await consume(1, consequences=0)
    assert await frontier.advance(own) == base + timedelta(minutes=1)
    await consume(2, consequences=2)
    assert await frontier.advance(own) == base + timedelta(minutes=1)
    await own.execute("DELETE FROM outbox WHERE id = (SELECT min(id) FROM outbox)")
    await consume(3, consequences=1)
    assert await frontier.advance(own) == base + timedelta(minutes=1)
    await own.execute("DELETE FROM outbox WHERE id = (SELECT min(id) FROM outbox)")
    assert await frontier.advance(own) == base + timedelta(minutes=2), "the row of minute 3 is not of minute 2"
    await own.execute("DELETE FROM outbox")
    assert await frontier.advance(own) == base + timedelta(minutes=3)


async def test_every_partition_gets_it_after_the_rows_before_it(
    database, cluster, new_activity, run_workers, eventually, reader
):
    async def write():
        for n in range(1, 300):
            async with database.recording() as recording:
                recording.publish(*(new_activity(recording, uuid4(), n) for _ in range(5)))

    async with run_workers(Relay(database, cluster, "intake", **QUICK)):
        await write()
        async with database.reading() as conn:
            written_until = (await conn.execute(text("SELECT clock_timestamp()"))).scalar_one()

        async def all_reached():
            events = await reader("intake-events").events()
            last = {part: one.data.watermark_at for part, one in events if isinstance(one.data, WatermarkAdvanced)}
            return len(last) == 12 and min(last.values()) > written_until

        await eventually(all_reached)
    events = await reader("intake-events").events()
    said = {}
    marks = 0
    for part, one in events:
        if isinstance(one.data, WatermarkAdvanced):
            said[part] = one.data.watermark_at
            marks += 1
        else:
            assert one.data.recorded_at >= said.get(part, one.data.recorded_at)
    assert marks > 24


async def test_a_stopped_relay_holds_the_consumer_s_watermark(database, cluster, run_workers, eventually, new_activity):
    async def ignore(_recording, _received):
        return

    async def known():
        async with database.reading() as conn:
            return await watermark.watermark(conn, ["intake-events"])

    consumer = Consumer(database, cluster, group="test", topics=["intake-events"], handle=ignore)
    assert await known() is None
    async with run_workers(consumer):
        async with run_workers(Relay(database, cluster, "intake", **QUICK)):
            await eventually(known)
        async with database.recording() as recording:
            recording.publish(new_activity(recording))
        held = await known()
        assert held <= recording.now

        async def past():
            return await known() > recording.now

        async with run_workers(Relay(database, cluster, "intake", **QUICK)):
            await eventually(past)


async def test_a_service_that_consumes_announces_nothing_beyond_what_it_has_read(
    database, other_database, cluster, run_workers, eventually, reader
):
    async def ignore(_recording, _received):
        return

    intake = Relay(database, cluster, "intake", **QUICK)
    consumer = Consumer(other_database, cluster, group="qualification", topics=["intake-events"], handle=ignore)
    qualification = Relay(other_database, cluster, "qualification", consumed=["intake-events"], **QUICK)

    async def announced():
        events = await reader("qualification-events").events()
        return [one.data.watermark_at for _, one in events]

    async with run_workers(consumer, qualification):
        async with run_workers(intake):
            await eventually(announced)
        # intake's relay has stopped: qualification's watermark comes to rest at the last that it has consumed.
        last = max(one.data.watermark_at for _, one in await reader("intake-events").events())

        async def rests():
            async with other_database.reading() as conn:
                return await watermark.watermark(conn, ["intake-events"]) == last and max(await announced()) == last

        await eventually(rests)
    assert all(moment <= last for moment in await announced())


async def test_all_partitions_are_unknown_until_the_first_watermark_and_it_is_kept_with_the_batch(
    database, cluster, run_workers, eventually, intake_topic
):
    async def ignore(_recording, _received):
        return

    consumer = Consumer(database, cluster, group="test", topics=["intake-events"], handle=ignore)

    async def rows():
        async with database.reading() as conn:
            return (await conn.execute(text("SELECT partition, watermark_at FROM watermark ORDER BY 1"))).all()

    async with run_workers(consumer):
        assert [tuple(row) for row in await eventually(rows)] == [(0, None), (1, None), (2, None)]
    async with database.reading() as conn:
        assert await watermark.watermark(conn, ["intake-events"]) is None
        assert await watermark.watermark(conn, ["intake-events", "sla-events"]) is None


async def test_a_watermark_is_not_kept_when_the_batch_fails(database):
    with pytest.raises(RuntimeError):  # noqa: PT012
        async with database.recording() as recording:
            await watermark.store(await recording.driver(), "test", {("intake-events", 0): recording.now})
            raise RuntimeError
    async with database.reading() as conn:
        assert await watermark.watermark(conn, ["intake-events"]) is None


async def test_a_strict_watermark_under_concurrent_writers(database, own):
    """Nothing is ever recorded before a moment that was announced, whoever writes."""
    announced = []
    stop = asyncio.Event()

    async def write():
        while not stop.is_set():
            async with database.recording() as recording:
                before = announced[-1] if announced else None
                assert before is None or recording.now >= before
                await asyncio.sleep(0.001)
                assert all(moment <= recording.now for moment in announced)

    writers = [asyncio.create_task(write()) for _ in range(6)]
    frontier = Frontier([])
    for _ in range(300):
        announced.append(await frontier.advance(own))  # noqa: PERF401
    stop.set()
    await asyncio.gather(*writers)
