"""Keys go where Kafka's own clients send them; topics are there when several services make them at once."""

import asyncio

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.partitioner import murmur2 as aiokafka_murmur2
from hypothesis import given
from hypothesis import strategies as st

from accord.messaging.kafka import _words, client_options, ensure_topics, murmur2, partition_of
from accord.messaging.offsets import Place, first_offsets, lag, next_offsets


@given(st.binary(max_size=80))
def test_our_murmur2_is_aiokafka_s(data):
    assert murmur2(data) == aiokafka_murmur2(data)


@given(st.binary(max_size=40).filter(lambda data: len(data) % 4 == 0))
def test_words_are_the_same_on_a_machine_of_the_other_byte_order(data):
    assert _words(data) == list(memoryview(data).cast("I"))


def test_a_known_key_has_the_partition_that_kafka_gives_it():
    # murmur2("foobar") = -790332482 in Kafka's UtilsTest.
    assert murmur2(b"foobar") == -790332482 & 0xFFFF_FFFF
    assert partition_of(b"foobar", 12) == (-790332482 & 0x7FFF_FFFF) % 12


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


places = st.lists(st.builds(Place, st.sampled_from(["a", "b"]), st.integers(0, 3), st.integers(0, 50)), max_size=60)


@given(places)
def test_a_commit_passes_every_record_of_the_batch_and_no_more(batch):
    for (topic, partition), offset in next_offsets(batch).items():
        mine = [place.offset for place in batch if place[:2] == (topic, partition)]
        assert offset == max(mine) + 1


@given(places)
def test_going_back_reads_every_record_of_the_batch_again(batch):
    for (topic, partition), offset in first_offsets(batch).items():
        assert offset == min(place.offset for place in batch if place[:2] == (topic, partition))


@given(st.dictionaries(st.tuples(st.just("a"), st.integers(0, 5)), st.integers(0, 100)))
def test_lag_is_never_negative_and_counts_known_ends_only(positions):
    assert lag(positions, {}) == 0
    assert lag(positions, positions) == 0
    assert lag(positions, {part: at + 2 for part, at in positions.items()}) == 2 * len(positions)
    assert lag(positions, {part: at - 2 for part, at in positions.items()}) == 0
