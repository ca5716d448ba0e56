"""The relay publishes everything, in order per key, at least once."""

import asyncio
from collections import defaultdict
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy import text

from accord.contracts.watermarks import WatermarkAdvanced
from accord.messaging.relay import RELAY_LOCK, Relay


async def depth(database):
    async with database.reading() as conn:
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
    async with database.recording() as recording:
        recording.publish(*(new_activity(recording, lead, n) for n in sequences))


async def test_what_was_recorded_is_in_kafka_and_gone_from_the_outbox(
    database, cluster, new_activity, run_workers, eventually, reader
):
    leads = [uuid4() for _ in range(50)]
    for n in range(1, 11):
        async with database.recording() as recording:
            recording.publish(*(new_activity(recording, lead, n) for lead in leads))
    async with run_workers(Relay(database, cluster, "intake")):
        await eventually(lambda: empty(database))
    order = first_sightings(await reader("intake-events").events())
    assert order == {lead: list(range(1, 11)) for lead in leads}


async def empty(database):
    return await depth(database) == 0


async def test_an_event_in_kafka_carries_its_envelope_and_trace(
    database, cluster, new_activity, run_workers, eventually, reader
):
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with database.recording() as recording:
        event = new_activity(recording)
        recording.publish(event, traceparent=traceparent)
    async with run_workers(Relay(database, cluster, "intake")):
        await eventually(lambda: empty(database))
    [published] = business(await reader("intake-events").events())
    assert published.data == event
    assert published.source == "/intake"
    assert published.traceparent == traceparent
    assert published.id.version == 7


async def test_an_id_that_commits_late_is_published_after_higher_ones(
    database, cluster, new_activity, run_workers, eventually, reader
):
    early, late = uuid4(), uuid4()
    async with run_workers(Relay(database, cluster, "intake")):
        async with database.recording() as slow:
            driver = await slow.driver()
            low = await driver.fetchval("SELECT nextval(pg_get_serial_sequence('outbox', 'id'))")
            await asyncio.create_task(write(database, new_activity, early, [1]))
            await asyncio.create_task(eventually(lambda: empty(database)))
            published = business(await reader("intake-events").events())
            assert [event.data.lead_id for event in published] == [early]
            slow.publish(new_activity(slow, late))
            row, slow.pending = slow.pending[0], []
            await driver.execute(
                "INSERT INTO outbox (id, event_id, type, key, occurred_at, recorded_at, payload)"
                " OVERRIDING SYSTEM VALUE VALUES ($1, $2, $3, $4, $5, $6, $7)",
                low, row.event_id, row.type, row.key, row.occurred_at, row.recorded_at, row.payload,
            )  # fmt: skip
        await eventually(lambda: empty(database))
    published = business(await reader("intake-events").events())
    assert {event.data.lead_id for event in published} == {early, late}


async def test_only_one_relay_of_a_service_is_active_and_the_other_takes_over(
    database, cluster, new_activity, run_workers, eventually, reader
):
    lead = uuid4()

    async def leaders():
        async with database.reading() as conn:
            return (
                await conn.execute(
                    text(
                        "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND objid::bigint = :lock"
                        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
                    ),
                    {"lock": RELAY_LOCK},
                )
            ).scalars().all()  # fmt: skip

    async with run_workers(Relay(database, cluster, "intake"), Relay(database, cluster, "intake")):
        [first] = await eventually(leaders)
        for n in range(1, 20):
            await write(database, new_activity, lead, [n])
        async with database.recording() as recording:
            await recording.conn.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": first})
        for n in range(20, 40):
            await write(database, new_activity, lead, [n])
        assert len(await eventually(leaders)) == 1
        await eventually(lambda: empty(database))
    order = first_sightings(await reader("intake-events").events())
    assert order[lead] == list(range(1, 40))


class FailingRelay(Relay):
    """A relay whose acknowledgements get lost now and then, after or before Kafka has the batch."""

    failures = 6

    async def _deliver(self, producer, batch, partition):
        self.failures -= 1
        if self.failures >= 0 and self.failures % 2:
            raise TimeoutError
        await super()._deliver(producer, batch, partition)
        if self.failures >= 0:
            raise TimeoutError


async def test_a_send_that_fails_halfway_makes_no_gap_and_no_reordering(
    database, cluster, new_activity, run_workers, eventually, reader, monkeypatch
):
    monkeypatch.setattr("accord.messaging.relay._KAFKA_BATCH_BYTES_MAX", 4096)
    leads = [uuid4() for _ in range(5)]
    for n in range(1, 41):
        async with database.recording() as recording:
            recording.publish(*(new_activity(recording, lead, n) for lead in leads))
    async with run_workers(FailingRelay(database, cluster, "intake", batch_rows_max=70)):
        await eventually(lambda: empty(database))
    events = await reader("intake-events").events()
    assert len(business(events)) > 200, "some are published twice"
    assert first_sightings(events) == {lead: list(range(1, 41)) for lead in leads}


async def test_a_producer_that_lost_its_sequence_is_replaced(
    database, cluster, new_activity, run_workers, eventually, reader
):
    lead = uuid4()
    relay = Relay(database, cluster, "intake")
    async with run_workers(relay):
        await write(database, new_activity, lead, range(1, 4))
        await eventually(lambda: empty(database))
        broken = relay._producer
        for part in range(12):
            from aiokafka import TopicPartition

            broken._txn_manager.increment_sequence_number(TopicPartition(relay._topic, part), 1000)
        await write(database, new_activity, lead, range(4, 7))
        await eventually(lambda: empty(database))
        assert relay._producer is not broken
    assert first_sightings(await reader("intake-events").events())[lead] == [1, 2, 3, 4, 5, 6]


async def test_a_relay_that_meets_a_programming_error_ends(database, cluster, new_activity):
    async with database.recording() as recording:
        recording.publish(new_activity(recording))
        await recording.conn.execute(text("ALTER TABLE outbox RENAME COLUMN payload TO body"))
        recording.pending.clear()
    with pytest.raises(asyncpg.UndefinedColumnError):
        await Relay(database, cluster, "intake").run(asyncio.Event())
