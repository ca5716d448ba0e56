"""Servers that crash and come back cost nothing: what was recorded is published and applied, once and in order."""

import asyncio
import os
import random
import signal
import socket
import sys
import uuid
from collections import defaultdict
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import text
from starlette.requests import Request

from accord.contracts.watermarks import WATERMARKS
from accord.db import Database, is_transient
from accord.health import Health
from accord.messaging.kafka_log import KafkaLog
from accord.messaging.ports import OutgoingRecord
from accord.messaging.reachability import kafka_check
from accord.settings import KafkaSettings
from accord.supervision import SupervisedWorker
from accord_local.kafka import KafkaServer
from accord_local.postgres import PostgresServer

pytestmark = [pytest.mark.slow, pytest.mark.chaos, pytest.mark.timeout(180)]

LEADS = [uuid.uuid4() for _ in range(20)]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def own_kafka(tmp_path):
    with KafkaServer(tmp_path / "kafka", free_port()) as server:
        yield server


@pytest.fixture
def own_postgres(tmp_path):
    with PostgresServer(tmp_path / "postgres") as server:
        yield server


@pytest.fixture
def tools(new_activity, run_workers, eventually, new_relay, new_consumer):
    return new_activity, run_workers, eventually, new_relay, new_consumer


async def keep(unit_of_work, received):
    connection = await unit_of_work.connection()
    await connection.executemany(
        "INSERT INTO effect (event_id, key, sequence) VALUES ($1, $2, $3)",
        [(one.event.id, one.event.data.key, one.event.data.sequence) for one in received],
    )


async def effects(database):
    async with database.read_transaction() as conn:
        rows = (await conn.execute(text("SELECT key, sequence FROM effect ORDER BY place"))).all()
    order = defaultdict(list)
    for key, sequence in rows:
        order[key].append(sequence)
    return order


async def fewest(database):
    """How many effects each lead has at least; asked often, so it reads no more than a number."""
    counts = "SELECT count(*) AS n FROM effect GROUP BY key"
    async with database.read_transaction() as conn:
        all_leads, least = (await conn.execute(text(f"SELECT count(*), min(n) FROM ({counts}) counted"))).one()
    return least if all_leads == len(LEADS) else 0


async def if_up(asked):
    """The answer, or nothing while the server is away."""
    try:
        return await asked
    except Exception as error:
        if not is_transient(error):
            raise
        return None


class Writer:
    """Records events of all leads, round by round, until told to stop; remembers what was acknowledged."""

    def __init__(self, database, new_activity):
        self.rounds = 0
        self._database = database
        self._new_activity = new_activity

    async def run(self, stop):
        while not stop.is_set():
            try:
                async with self._database.write_transaction() as unit_of_work:
                    [known] = (await unit_of_work.conn.execute(text("SELECT count(*) FROM ledger"))).scalars()
                    await unit_of_work.conn.execute(text("INSERT INTO ledger VALUES (:round)"), {"round": known + 1})
                    unit_of_work.publish(*(self._new_activity(unit_of_work, lead, known + 1) for lead in LEADS))
                self.rounds = known + 1
            except Exception as error:
                if not is_transient(error):
                    raise
            await asyncio.sleep(0.01)


def all_rounds(rounds):
    return {str(lead): list(range(1, rounds + 1)) for lead in LEADS}


async def flow(database, other, kafka, fixtures, outages):
    """Write while servers fail and return; then everything recorded must arrive."""
    new_activity, run_workers, eventually, new_relay, new_consumer = fixtures
    async with database.engine.begin() as conn:
        await conn.execute(text("CREATE TABLE ledger (round int PRIMARY KEY)"))
    writer = Writer(database, new_activity)
    writer.name = "writer"
    relay = new_relay(database, kafka, "intake")
    consumer = new_consumer(other, kafka, group="test", topics=["intake-events"], handle=keep)
    async with run_workers(relay, consumer):
        async with run_workers(writer):
            await eventually(lambda: if_up(fewest(other)))
            for outage in outages:
                before = writer.rounds
                await asyncio.to_thread(outage)

                async def flows(before=before):
                    return (await if_up(fewest(other)) or 0) > before + 5

                await eventually(flows, within_s=60)

        async def complete():
            async with database.read_transaction() as conn:
                recorded = (await conn.execute(text("SELECT count(*) FROM ledger"))).scalar_one()
            arrived = recorded >= writer.rounds and (await if_up(fewest(other)) or 0) >= recorded
            return arrived and await if_up(effects(other)) == all_rounds(recorded)

        await eventually(complete, within_s=60)


async def test_kafka_that_stops_and_crashes_under_load_costs_no_event(database, other_database, own_kafka, tools):
    def restart():
        own_kafka.stop()
        own_kafka.start()

    def crash():
        own_kafka.kill()
        own_kafka.start()

    kafka = KafkaSettings(bootstrap_servers=own_kafka.bootstrap_servers)
    await flow(database, other_database, kafka, tools, [restart, crash])


async def test_postgresql_that_stops_and_crashes_under_load_costs_no_acknowledged_event(
    own_postgres, cluster, tools, migrated
):
    def restart():
        own_postgres.stop()
        own_postgres.start()

    def crash():
        own_postgres.kill()
        own_postgres.start()

    urls = [await migrated(own_postgres, name) for name in ("one", "two")]
    database, other = (Database(url, application_name="test") for url in urls)
    try:
        await flow(database, other, cluster, tools, [restart, crash])
    finally:
        await database.dispose()
        await other.dispose()


@asynccontextmanager
async def victim(*arguments):
    """A process with relay and consumer; killed with SIGKILL at the end of the block."""
    script = Path(__file__).with_name("worker_process.py")
    process = await asyncio.create_subprocess_exec(sys.executable, script, *arguments)
    try:
        yield process
        assert process.returncode is None, "it ended by itself"
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_workers_killed_at_any_moment_lose_no_event_and_repeat_no_effect(
    database, other_database, cluster, new_activity, run_workers, eventually
):
    """SIGKILL lands between send and mark, and between commit and offset commit, as it happens."""
    chance = random.Random(7)
    async with database.engine.begin() as conn:
        await conn.execute(text("CREATE TABLE ledger (round int PRIMARY KEY)"))
    writer = Writer(database, new_activity)
    urls = [each.url.render_as_string(hide_password=False) for each in (database, other_database)]
    arguments = (*urls, cluster.bootstrap_servers, cluster.topic_prefix)

    async def flows(before):
        return await fewest(other_database) > before

    async with run_workers(writer):
        for _ in range(4):
            before = writer.rounds
            async with victim(*arguments):
                await eventually(lambda before=before: flows(before), within_s=40)
                await asyncio.sleep(chance.uniform(0, 0.3))
    rounds = writer.rounds
    async with victim(*arguments):

        async def complete():
            return await fewest(other_database) >= rounds and await effects(other_database) == all_rounds(rounds)

        await eventually(complete, within_s=40)


async def test_writing_goes_on_while_kafka_is_down_and_workers_wait_without_ending(
    database, new_activity, run_workers, eventually, new_relay, new_consumer
):
    nowhere = KafkaSettings(bootstrap_servers=f"127.0.0.1:{free_port()}")
    consumer = new_consumer(database, nowhere, group="test", topics=["intake-events"], handle=keep)
    async with run_workers(new_relay(database, nowhere, "intake"), consumer):
        for n in range(1, 20):
            async with database.write_transaction() as unit_of_work:
                unit_of_work.publish(new_activity(unit_of_work, LEADS[0], n))
    async with database.read_transaction() as conn:
        assert (await conn.execute(text("SELECT count(*) FROM outbox"))).scalar_one() == 19


async def test_a_writer_whose_cluster_does_not_answer_is_given_up_with_all_its_tasks(own_kafka):
    """A batch that cannot be delivered never expires; closing must not leave a sender behind that tries for ever."""
    log = KafkaLog(KafkaSettings(bootstrap_servers=own_kafka.bootstrap_servers))
    await log.prepare(["intake-events", WATERMARKS])
    before = asyncio.all_tasks()
    writer = await log.open_writer("intake-events")
    os.kill(own_kafka.pid, signal.SIGSTOP)
    try:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await writer.append(0, [OutgoingRecord(b"k", b"v", [])])
        await writer.close()
    finally:
        os.kill(own_kafka.pid, signal.SIGCONT)
    assert {task for task in asyncio.all_tasks() - before if not task.done()} == set()


async def test_a_consumer_that_an_outage_meets_with_records_in_hand_fails_no_liveness(
    database, own_kafka, new_activity, eventually, new_relay, new_consumer
):
    """What was fetched is applied all the same: nothing of it needs Kafka."""
    applied, kafka = [], KafkaSettings(bootstrap_servers=own_kafka.bootstrap_servers)

    async def apply(_unit_of_work, received):
        applied.extend(received)
        await asyncio.sleep(0.01)

    consumer = new_consumer(
        database, kafka, group="test", topics=["intake-events"], handle=apply, batch_rows_max=1, stuck_after_s=0.5
    )
    workers = [SupervisedWorker(worker, restarts=True) for worker in (consumer, new_relay(database, kafka, "intake"))]
    health = Health({}, workers, optional={"kafka": kafka_check(kafka)})
    async with database.write_transaction() as unit_of_work:
        unit_of_work.publish(*(new_activity(unit_of_work, lead, n) for lead in LEADS for n in range(1, 200)))

    async def has_begun():
        return applied

    async def goes_on():
        answer = await health.livez(Request({"type": "http"}))
        assert answer.status_code == 200
        return len(applied) > before + 100

    running = [asyncio.create_task(worker.run(asyncio.Event())) for worker in workers]
    await eventually(has_begun)
    await asyncio.to_thread(own_kafka.kill)
    before = len(applied)
    await eventually(goes_on)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
