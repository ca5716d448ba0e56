"""What operators measure follows what happens."""

from uuid import uuid4

from prometheus_client import REGISTRY

from accord.messaging.collectors import (
    announced_collector,
    consumed_collector,
    dead_letter_collector,
    outbox_collector,
)


def value(name, **labels):
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def test_published_applied_lag_and_watermark_are_measured(
    database, other_database, cluster, new_activity, run_workers, eventually, new_relay, new_consumer, new_watermarks
):
    group = f"measured-{uuid4().hex[:8]}"
    applied = []

    async def note(_unit_of_work, received):
        applied.extend(received)

    async def measured(name, **labels):
        return value(name, consumer=group, **labels)

    published = value("accord_relay_published_total")
    async with database.write_transaction() as unit_of_work:
        unit_of_work.publish(*(new_activity(unit_of_work) for _ in range(10)))
    heard = new_watermarks(cluster, group, ["intake-events"])
    consumer = new_consumer(other_database, cluster, group=group, topics=["intake-events"], handle=note, progress=heard)
    relay = new_relay(database, cluster, "intake", announce_every_s=0.05)

    async def watermark_age():
        await consumed_collector(other_database, heard).collect()
        return await measured("accord_consumer_watermark_age_seconds", topic="intake-events") > 0

    async with run_workers(relay, heard, consumer):
        await eventually(watermark_age)
        await announced_collector(relay).collect()
        assert 0 < value("accord_watermark_age_seconds") < 60
        assert value("accord_relay_leader") == 1
    assert len(applied) == 10
    assert value("accord_relay_published_total") == published + 10
    assert value("accord_consumer_events_total", consumer=group, outcome="applied") == 10
    assert value("accord_consumer_batch_rows_count", consumer=group) >= 1
    assert value("accord_relay_leader") == 0
    await outbox_collector(database).collect()
    assert value("accord_outbox_rows") == 0


async def test_poison_is_counted_apart_from_malformed_records(
    database, cluster, producer, intake_topic, new_activity, run_workers, eventually, new_consumer
):
    group = f"measured-{uuid4().hex[:8]}"

    async def refuse(_unit_of_work, _received):
        raise ValueError

    await producer.send_and_wait(intake_topic, value=b"?", headers=[])

    async def set_aside():
        return value("accord_dead_letters_total", consumer=group, kind="malformed") == 1

    async with run_workers(new_consumer(database, cluster, group=group, topics=["intake-events"], handle=refuse)):
        await eventually(set_aside)
    assert value("accord_dead_letters_total", consumer=group, kind="poison") == 0
    await dead_letter_collector(database).collect()
    assert value("accord_dead_letters_waiting") == 1
    assert value("accord_dead_letters_waiting_age_seconds") > 0
