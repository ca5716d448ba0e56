"""Keys go where Kafka's own clients send them; topics are there when several services make them at once."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.partitioner import murmur2 as aiokafka_murmur2
from hypothesis import given
from hypothesis import strategies as st

from accord.contracts.watermarks import WATERMARKS
from accord.ids import new_id
from accord.messaging.kafka import client_options, ensure_topics
from accord.messaging.ports import FiniteRetention, Layout
from accord.partitioning import Partitioner, _words, hash_key, murmur2


@given(st.binary(max_size=80))
def test_our_murmur2_is_aiokafka_s(data):
    assert murmur2(data) == aiokafka_murmur2(data)


@given(st.binary(max_size=40).filter(lambda data: len(data) % 4 == 0))
def test_words_are_the_same_on_a_machine_of_the_other_byte_order(data):
    assert _words(data) == list(memoryview(data).cast("I"))


def test_a_known_key_has_the_partition_that_kafka_gives_it():
    # murmur2("foobar") = -790332482 in Kafka's UtilsTest.
    assert murmur2(b"foobar") == -790332482 & 0xFFFF_FFFF
    assert hash_key(b"foobar") == -790332482 & 0x7FFF_FFFF


async def test_services_that_start_at_once_make_each_topic_once(cluster):
    await asyncio.gather(*(ensure_topics(cluster, ["intake-events", "sla-events"]) for _ in range(4)))
    await ensure_topics(cluster, ["intake-events"])
    admin = AIOKafkaAdminClient(**client_options(cluster))
    await admin.start()
    try:
        topics = await admin.describe_topics([cluster.topic_prefix + "intake-events"])
    finally:
        await admin.close()
    assert len(topics[0]["partitions"]) == 12


EPOCH = datetime.fromtimestamp(0, UTC)
keys = st.lists(st.uuids(version=4) | st.builds(new_id), min_size=1, max_size=20)


@given(keys)
def test_keys_that_were_there_before_partitions_were_added_stay_where_they_are(ids):
    before = Partitioner([Layout(EPOCH, 12)])
    after = Partitioner([Layout(EPOCH, 12), Layout(datetime.now(UTC) + timedelta(minutes=5), 20)])
    for key in map(str, ids):
        place = before.partition_of(key, hash_key(key.encode()))
        assert place == hash_key(key.encode()) % 12
        if UUID(key).version == 7:
            assert after.partition_of(key, hash_key(key.encode())) == place


def test_a_lead_that_comes_after_partitions_were_added_may_take_them():
    layouts = [Layout(EPOCH, 2), Layout(datetime.now(UTC) - timedelta(minutes=1), 20)]
    leads = [str(new_id()) for _ in range(100)]
    places = {Partitioner(layouts).partition_of(lead, hash_key(lead.encode())) for lead in leads}
    assert max(places) >= 2
    assert Partitioner(layouts).partition_of("definition", hash_key(b"definition")) < 2, "no lead stays"


async def test_a_topic_that_would_lose_events_is_refused(cluster):
    await ensure_topics(cluster, ["intake-events"])
    admin = AIOKafkaAdminClient(**client_options(cluster))
    await admin.start()
    try:
        name = cluster.topic_prefix + "intake-events"
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, {"retention.ms": "604800000"})])

        async def is_refused():
            try:
                await ensure_topics(cluster, ["intake-events"])
            except FiniteRetention as error:
                return "retention.ms=604800000" in str(error)
            return False

        await eventually_true(is_refused)
    finally:
        await admin.close()


async def test_watermarks_are_kept_by_key_and_dated_by_the_broker(cluster):
    await ensure_topics(cluster, [WATERMARKS])
    admin = AIOKafkaAdminClient(**client_options(cluster))
    await admin.start()
    try:
        name = cluster.topic_prefix + WATERMARKS
        [topic] = await admin.describe_topics([name])
        [answer] = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)])
    finally:
        await admin.close()
    found = {entry[0]: entry[1] for entry in answer.resources[0][4]}
    assert len(topic["partitions"]) == 1
    assert (found["cleanup.policy"], found["message.timestamp.type"]) == ("compact", "LogAppendTime")


async def eventually_true(condition):
    async with asyncio.timeout(20):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.05)
