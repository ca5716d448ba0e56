"""Whatever ended a worker, it can be run again and goes on from where things stand."""

import asyncio
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy import text

from accord.batching import GroupCommit
from accord.messaging.consumer import DeadLetterFailed
from accord.workers import Periodic


async def rename(database, table, name):
    async with database.engine.begin() as conn:
        await conn.execute(text(f"ALTER TABLE {table} RENAME TO {name}"))


async def change(database, how):
    async with database.engine.begin() as conn:
        await conn.execute(text(f"ALTER TABLE dead_letter {how}"))


async def count(database, table):
    async with database.read_transaction() as conn:
        return (await conn.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one()


async def test_a_relay_whose_table_was_missing_publishes_once_it_is_back(
    database, cluster, intake_topic, new_activity, run_workers, eventually, reader, new_relay
):
    lead = uuid4()
    async with database.write_transaction() as unit_of_work:
        unit_of_work.publish(new_activity(unit_of_work, lead))
    relay = new_relay(database, cluster, "intake")
    await rename(database, "outbox", "outbox_away")
    with pytest.raises(asyncpg.UndefinedTableError):
        await relay.run(asyncio.Event())
    assert relay.problem() is None
    await rename(database, "outbox_away", "outbox")

    async def published():
        return await count(database, "outbox") == 0

    async with run_workers(relay):
        await eventually(published)
    keys = [event.data.key for _, event in await reader("intake-events").events() if event.data.key == str(lead)]
    assert keys == [str(lead)]


async def test_a_consumer_that_could_not_set_an_event_aside_does_so_once_it_can(
    database, cluster, producer, intake_topic, run_workers, eventually, new_consumer
):
    async def never(_unit_of_work, _received):
        raise AssertionError("there is nothing to apply")

    await producer.send_and_wait(intake_topic, value=b"?", headers=[])
    consumer = new_consumer(database, cluster, group="test", topics=["intake-events"], handle=never)
    await change(database, "ADD CONSTRAINT refuses CHECK (false)")
    with pytest.raises(DeadLetterFailed):
        await consumer.run(asyncio.Event())
    assert consumer.problem() is None
    await change(database, "DROP CONSTRAINT refuses")

    async def has_dead_letter():
        return await count(database, "dead_letter") == 1

    async with run_workers(consumer):
        await eventually(has_dead_letter)


async def test_a_periodic_worker_goes_on_after_its_failure():
    failures = iter([LookupError()])
    stop = asyncio.Event()

    async def work():
        if error := next(failures, None):
            raise error
        stop.set()
        return False

    worker = Periodic("p", 3600, work)
    with pytest.raises(LookupError):
        await worker.run(stop)
    await asyncio.wait_for(worker.run(stop), 10)


async def test_a_group_commit_answers_again_after_its_end():
    async def apply(words):
        return [word.upper() for word in words]

    commits = GroupCommit(apply)
    for _ in range(2):
        stop = asyncio.Event()
        running = asyncio.create_task(commits.run(stop))
        await asyncio.sleep(0)
        assert await commits.submit("a") == "A"
        stop.set()
        await running
