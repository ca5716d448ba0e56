"""The relay publishes everything, in order per key, at least once."""

import asyncio
import random
import zlib
from collections import defaultdict
from uuid import uuid4

import asyncpg
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from sqlalchemy import text

from accord.contracts.watermarks import WatermarkAdvanced
from accord.ids import new_id
from accord.messaging import relay as relay_module
from accord.messaging.kafka import client_options
from accord.messaging.kafka_log import KafkaLog
from accord.messaging.relay import Relay
from accord.messaging.relay_store import LANES, PostgresRelayStore
from accord.partitioning import hash_key


async def depth(database):
    async with database.read_transaction() as conn:
        return (await conn.execute(text("SELECT count(*) FROM outbox"))).scalar_one()


def business(events):
    return [event for _, event in events if not isinstance(event.data, WatermarkAdvanced)]


def first_sightings(events):
    seen, order = set(), defaultdict(list)
    for event in business(events):
        if event.id not in seen:
            seen.add(event.id)
            order[event.data.lead_id].append(event.data.sequence)
    return order


async def write(database, new_activity, lead, sequences):
    async with database.write_transaction() as unit_of_work:
        unit_of_work.publish(*(new_activity(unit_of_work, lead, n) for n in sequences))


async def test_what_was_recorded_is_in_kafka_and_gone_from_the_outbox(
    database, cluster, new_activity, run_workers, eventually, reader, new_relay
):
    leads = [uuid4() for _ in range(50)]
    for n in range(1, 11):
        async with database.write_transaction() as unit_of_work:
            unit_of_work.publish(*(new_activity(unit_of_work, lead, n) for lead in leads))
    async with run_workers(new_relay(database, cluster, "intake")):
        await eventually(lambda: empty(database))
    order = first_sightings(await reader("intake-events").events())
    assert order == {lead: list(range(1, 11)) for lead in leads}


async def empty(database):
    return await depth(database) == 0


async def test_an_event_in_kafka_carries_its_envelope_and_trace(
    database, cluster, new_activity, run_workers, eventually, reader, new_relay
):
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with database.write_transaction() as unit_of_work:
        event = new_activity(unit_of_work)
        unit_of_work.publish(event, traceparent=traceparent)
    async with run_workers(new_relay(database, cluster, "intake")):
        await eventually(lambda: empty(database))
    [published] = business(await reader("intake-events").events())
    assert published.data == event
    assert published.source == "/intake"
    assert published.traceparent == traceparent
    assert published.id.version == 7


async def test_an_id_that_commits_late_is_published_after_higher_ones(
    database, cluster, new_activity, run_workers, eventually, reader, new_relay
):
    early, late = uuid4(), uuid4()
    async with run_workers(new_relay(database, cluster, "intake")):
        async with database.write_transaction() as slow:
            connection = await slow.connection()
            low = await connection.fetchval("SELECT nextval(pg_get_serial_sequence('outbox', 'id'))")
            await asyncio.create_task(write(database, new_activity, early, [1]))
            await asyncio.create_task(eventually(lambda: empty(database)))
            published = business(await reader("intake-events").events())
            assert [event.data.lead_id for event in published] == [early]
            slow.publish(new_activity(slow, late))
            row, slow.pending = slow.pending[0], []
            await connection.execute(
                "INSERT INTO outbox (id, event_id, type, key, occurred_at, recorded_at, payload)"
                " OVERRIDING SYSTEM VALUE VALUES ($1, $2, $3, $4, $5, $6, $7)",
                low, row.event_id, row.type, row.key, row.occurred_at, row.recorded_at, row.payload,
            )  # fmt: skip
        await eventually(lambda: empty(database))
    published = business(await reader("intake-events").events())
    assert {event.data.lead_id for event in published} == {early, late}


async def lane_holders(database):
    """Backend pids of the sessions that publish a lane."""
    async with database.read_transaction() as conn:
        return (
            await conn.execute(
                text(
                    "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 2"
                    " AND mode = 'ExclusiveLock' AND classid = :lane"
                    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
                ),
                {"lane": zlib.crc32(f"{LANES}/lane".encode()) & 0x7FFF_FFFF},
            )
        ).scalars().all()  # fmt: skip


async def test_only_one_relay_publishes_a_lane_and_the_other_takes_over(
    database, cluster, new_activity, run_workers, eventually, reader, new_relay
):
    lead = uuid4()
    async with run_workers(new_relay(database, cluster, "intake"), new_relay(database, cluster, "intake")):
        [first] = await eventually(lambda: lane_holders(database))
        for n in range(1, 20):
            await write(database, new_activity, lead, [n])
        async with database.write_transaction() as unit_of_work:
            await unit_of_work.conn.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": first})
        for n in range(20, 40):
            await write(database, new_activity, lead, [n])
        assert len(await eventually(lambda: lane_holders(database))) == 1
        await eventually(lambda: empty(database))
    order = first_sightings(await reader("intake-events").events())
    assert order[lead] == list(range(1, 40))


async def test_relays_share_lanes_and_together_publish_everything_in_order(
    database, cluster, new_activity, run_workers, eventually, reader, new_relay
):
    leads = [uuid4() for _ in range(40)]
    relays = [new_relay(database, cluster, "intake", lanes=4) for _ in range(2)]

    async def shared():
        holders = await lane_holders(database)
        return len(holders) == 4 and len(set(holders)) == 2

    async with run_workers(*relays):
        await eventually(shared)
        for n in range(1, 11):
            async with database.write_transaction() as unit_of_work:
                unit_of_work.publish(*(new_activity(unit_of_work, lead, n) for lead in leads))
        await eventually(lambda: empty(database))
    assert first_sightings(await reader("intake-events").events()) == {lead: list(range(1, 11)) for lead in leads}


class FaultyLog(KafkaLog):
    """A log whose acknowledgements get lost: `faults(partition)` says before an append whether it arrives and is answered."""

    def __init__(self, cluster, faults):
        super().__init__(cluster)
        self.opened = 0
        self._faults = faults

    async def open_writer(self, topic):
        self.opened += 1
        writer = await super().open_writer(topic)
        append = writer.append

        async def faulty(partition, records):
            arrives, answers = self._faults(partition)
            if not arrives:
                raise TimeoutError
            answer = await append(partition, records[:7])
            if not answers:
                raise TimeoutError
            return answer

        writer.append = faulty
        return writer


async def test_appends_that_fail_halfway_make_no_gap_and_no_reordering(
    database, cluster, new_activity, run_workers, eventually, reader
):
    chance = random.Random(3)
    leads = [uuid4() for _ in range(5)]
    for n in range(1, 41):
        async with database.write_transaction() as unit_of_work:
            unit_of_work.publish(*(new_activity(unit_of_work, lead, n) for lead in leads))
    left = 12

    def faults(_partition):
        nonlocal left
        left -= 1
        return (True, True) if left < 0 else chance.choice([(False, False), (True, False), (True, True)])

    log = FaultyLog(cluster, faults)
    relay = Relay(PostgresRelayStore(database), log, "intake", batch_rows_max=70)
    async with run_workers(relay):
        await eventually(lambda: empty(database))
    events = await reader("intake-events").events()
    assert log.opened > 1, "a writer that failed is given up"
    assert len(business(events)) > 200, "some are published twice"
    assert first_sightings(events) == {lead: list(range(1, 41)) for lead in leads}


async def test_a_partition_that_is_not_available_does_not_hold_up_the_others(
    database, cluster, new_activity, run_workers, eventually, reader
):
    leads = [uuid4() for _ in range(60)]
    broken = hash_key(str(leads[0]).encode()) % 12
    available = False
    mine = {lead for lead in leads if hash_key(str(lead).encode()) % 12 == broken}

    log = FaultyLog(cluster, lambda partition: (available, True) if partition == broken else (True, True))
    relay = Relay(PostgresRelayStore(database), log, "intake", batch_rows_max=40)
    for n in range(1, 6):
        await write_each(database, new_activity, leads, n)

    async def only_its_rows_wait():
        async with database.read_transaction() as conn:
            keys = set((await conn.execute(text("SELECT DISTINCT key FROM outbox"))).scalars())
        return keys == {str(lead) for lead in mine}

    async with run_workers(relay):
        await eventually(only_its_rows_wait)
        await write_each(database, new_activity, leads, 6)
        await eventually(only_its_rows_wait)
        available = True
        await eventually(lambda: empty(database), within_s=60)
    assert first_sightings(await reader("intake-events").events()) == {lead: list(range(1, 7)) for lead in leads}


async def write_each(database, new_activity, leads, n):
    async with database.write_transaction() as unit_of_work:
        unit_of_work.publish(*(new_activity(unit_of_work, lead, n) for lead in leads))


async def test_rows_of_the_version_before_are_published_beside_new_ones(
    database, cluster, new_activity, run_workers, eventually, reader, new_relay
):
    lead = uuid4()
    await write(database, new_activity, lead, [1, 2])
    async with database.write_transaction() as unit_of_work:
        await unit_of_work.conn.execute(text("UPDATE outbox SET key_hash = NULL"))
    await write(database, new_activity, lead, [3])
    async with run_workers(new_relay(database, cluster, "intake")):
        await eventually(lambda: empty(database))
    events = await reader("intake-events").events()
    assert first_sightings(events) == {lead: [1, 2, 3]}
    assert len({partition for partition, _ in events}) == 1


async def test_added_partitions_take_new_leads_only(
    database, cluster, new_activity, run_workers, eventually, reader, new_relay
):
    """After its time a layout is used, and a lead that was there before stays in its partition."""
    old = new_id()
    async with run_workers(new_relay(database, cluster, "intake")):
        await write(database, new_activity, old, [1])
        await eventually(lambda: empty(database))
    admin = AIOKafkaAdminClient(**client_options(cluster))
    await admin.start()
    await admin.create_partitions({cluster.topic_prefix + "intake-events": NewPartitions(40)})
    await admin.close()

    async def layouts():
        async with database.read_transaction() as conn:
            found = (await conn.execute(text("SELECT partitions FROM partition_layout ORDER BY 1"))).scalars().all()
        return found if len(found) == 2 else None

    async with run_workers(new_relay(database, cluster, "intake")):
        await write(database, new_activity, old, [2])
        assert await eventually(layouts) == [12, 40]
        await eventually(lambda: empty(database))
    async with database.write_transaction() as unit_of_work:
        await unit_of_work.conn.execute(
            text("UPDATE partition_layout SET since = since - interval '5 minutes' WHERE partitions = 40")
        )
    young = [new_id() for _ in range(30)]
    async with run_workers(new_relay(database, cluster, "intake")):
        await write(database, new_activity, old, [3])
        await write_each(database, new_activity, young, 1)
        await eventually(lambda: empty(database))
    events = await reader("intake-events").events()
    assert first_sightings(events)[old] == [1, 2, 3]
    assert len({partition for partition, event in events if event.data.lead_id == old}) == 1
    assert max(partition for partition, event in events if event.data.lead_id in young) >= 12


async def test_a_relay_that_meets_a_programming_error_ends(database, cluster, new_activity, new_relay):
    async with database.write_transaction() as unit_of_work:
        unit_of_work.publish(new_activity(unit_of_work))
        await unit_of_work.conn.execute(text("ALTER TABLE outbox RENAME COLUMN payload TO body"))
        unit_of_work.pending.clear()
    with pytest.raises(asyncpg.UndefinedColumnError):
        await new_relay(database, cluster, "intake").run(asyncio.Event())


class SlowToReclaim(PostgresRelayStore):
    """VACUUM takes minutes, as on a table that was never vacuumed."""

    begun = ended = 0

    async def reclaim_space(self):
        self.begun += 1
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)  # as it takes to close a connection
            self.ended += 1


async def test_reclaiming_space_for_minutes_holds_up_nothing(
    database, cluster, new_activity, run_workers, eventually, monkeypatch
):
    monkeypatch.setattr(relay_module, "_RECLAIM_AFTER_ROWS", 10)
    store = SlowToReclaim(database)
    leads = [uuid4() for _ in range(20)]

    async def has_begun():
        return store.begun

    async with run_workers(Relay(store, KafkaLog(cluster), "intake")):
        for n in range(1, 4):
            await write_each(database, new_activity, leads, n)
            await eventually(lambda: empty(database))
            assert await eventually(has_begun) == 1, "one at a time"
    assert store.ended == 1, "the worker has waited for it"


class GoneServer:
    """A connection whose server does not answer any more, and the database that makes it."""

    terminated = False

    async def connect(self, **_):
        return self

    async def execute(self, _):
        raise ConnectionResetError

    async def close(self, timeout):
        raise TimeoutError

    def terminate(self):
        self.terminated = True


async def test_connection_that_reclaims_space_is_ended_when_its_server_is_gone():
    gone = GoneServer()
    gone.written = asyncio.Event()
    with pytest.raises(ConnectionResetError):
        await PostgresRelayStore(gone).reclaim_space()
    assert gone.terminated
