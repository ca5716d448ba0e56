"""The log as Apache Kafka has it, by aiokafka. It knows topics and offsets, and no event.

Readers are assigned their partitions and positions by the consumer: Kafka's group protocol is not used, so there is no
rebalance to wait for. The position that a reader commits is for tools that show lag.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import NoOffsetForPartitionError, OffsetOutOfRangeError
from aiokafka.structs import OffsetAndMetadata

from accord.contracts.watermarks import WATERMARKS
from accord.messaging.kafka import (
    abandon_producer,
    client_options,
    close_quietly,
    ensure_topics,
    physical_name,
    start_client,
)
from accord.messaging.ports import LogPositionLost, LogReader, LogRecord, LogWriter, OutgoingRecord, Partition
from accord.settings import KafkaSettings

log = structlog.get_logger(__name__)

_BATCH_BYTES_MAX = 512 * 1024
_REQUEST_TIMEOUT_S = 8.0
_ACK_TIMEOUT_S = 3 * _REQUEST_TIMEOUT_S
_METADATA_AGE_S = 30.0
_FETCH_WAIT_S = 2.5
"""A fetch of a quiet topic waits so long at the broker; it ends with the first record."""

_SINGLE_FETCH_MS = 300

_FOR_TOOLS = "accord.consumer_position"
"""Metadata of the offsets that are committed for tools. Nothing begins at them: a database that was restored from before its
first position would pass over everything until there."""


class KafkaLog:
    """The cluster that the settings name."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self.settings = kafka

    async def prepare(self, topics: Sequence[str]) -> None:
        await ensure_topics(self.settings, topics)

    async def open_writer(self, topic: str) -> LogWriter:
        producer = AIOKafkaProducer(
            **client_options(self.settings),
            acks="all",
            enable_idempotence=True,
            max_batch_size=_BATCH_BYTES_MAX,
            request_timeout_ms=int(_REQUEST_TIMEOUT_S * 1000),
            metadata_max_age_ms=int(_METADATA_AGE_S * 1000),
        )
        name = physical_name(self.settings, topic)
        try:
            async with asyncio.timeout(_ACK_TIMEOUT_S):
                await start_client(producer)
                await producer.partitions_for(name)
        except BaseException:
            await abandon_producer(producer)
            raise
        return KafkaWriter(self.settings, producer, name)

    async def open_reader(self, topics: Sequence[str], group: str | None) -> LogReader:
        client = AIOKafkaConsumer(
            **client_options(self.settings),
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_uncommitted",
            request_timeout_ms=int(_REQUEST_TIMEOUT_S * 1000),
            consumer_timeout_ms=5_000,
            fetch_max_wait_ms=int(_FETCH_WAIT_S * 1000),
            max_partition_fetch_bytes=1_048_576,
            metadata_max_age_ms=int(_METADATA_AGE_S * 1000),
        )
        try:
            await start_client(client)
        except BaseException:
            await close_quietly(client)
            raise
        return KafkaReader(self.settings, client, topics, group)


class KafkaWriter:
    """One producer. After a failure its sequence numbers cannot be trusted (aiokafka#1017), so it is given up."""

    def __init__(self, kafka: KafkaSettings, producer: AIOKafkaProducer, topic: str) -> None:
        self._kafka = kafka
        self._producer = producer
        self._topic = topic
        self._watermarks = physical_name(kafka, WATERMARKS)
        self._asking: AIOKafkaConsumer | None = None
        self._is_asking = False

    @property
    def partitions(self) -> int:
        return len(self._producer.client.cluster.partitions_for_topic(self._topic) or ())

    async def ends(self) -> list[int]:
        parts = [TopicPartition(self._topic, partition) for partition in range(self.partitions)]
        if self._asking is None:
            self._asking = AIOKafkaConsumer(
                **client_options(self._kafka),
                request_timeout_ms=int(_REQUEST_TIMEOUT_S * 1000),
                enable_auto_commit=False,
            )
        try:
            if not self._is_asking:
                await start_client(self._asking)
                self._is_asking = True
            found = await self._asking.end_offsets(parts)
        except BaseException:
            await self._stop_asking()
            raise
        return [found[part] for part in parts]

    async def _stop_asking(self) -> None:
        asking, self._asking, self._is_asking = self._asking, None, False
        if asking is not None:
            await close_quietly(asking)

    async def append(self, partition: int, records: Sequence[OutgoingRecord]) -> int:
        batch, count = self._producer.create_batch(), 0
        for key, value, headers in records:
            if batch.append(timestamp=None, key=key, value=value, headers=headers) is None:
                break
            count += 1
        async with asyncio.timeout(_ACK_TIMEOUT_S):
            acknowledged = await self._producer.send_batch(batch, self._topic, partition=partition)
            await acknowledged
        return count

    async def announce(self, key: bytes, value: bytes) -> None:
        batch = self._producer.create_batch()
        batch.append(timestamp=None, key=key, value=value, headers=[])
        async with asyncio.timeout(_ACK_TIMEOUT_S):
            await (await self._producer.send_batch(batch, self._watermarks, partition=0))

    async def close(self) -> None:
        await self._stop_asking()
        await abandon_producer(self._producer)


class KafkaReader:
    """One consumer client with partitions assigned by hand, and for what it tells Kafka of its position another one.

    The client that reads has no group: aiokafka's coordinator would raise into its polls while a broker is away.
    """

    def __init__(
        self, kafka: KafkaSettings, client: AIOKafkaConsumer, topics: Sequence[str], group: str | None
    ) -> None:
        self._kafka = kafka
        self._client = client
        self._group = None if group is None else physical_name(kafka, group)
        self._committer: AIOKafkaConsumer | None = None
        self._names = {topic: physical_name(kafka, topic) for topic in topics}
        self._topics = {name: topic for topic, name in self._names.items()}
        self._next: dict[TopicPartition, int] = {}
        """The offset after what was handed on last, by partition."""
        self._counts: Mapping[str, int] = {}
        self._counted_until = 0.0

    async def partitions(self) -> Mapping[str, int]:
        if not self._counts or time.monotonic() >= self._counted_until:
            cluster = await self._client._client.fetch_all_metadata()  # noqa: SLF001 - the only way that asks anew
            counts = {topic: len(cluster.partitions_for_topic(name) or ()) for topic, name in self._names.items()}
            # A topic that is being made anew has none for a moment: what it had before stays until then.
            self._counts = {topic: count or self._counts.get(topic, 0) for topic, count in counts.items()}
            self._counted_until = time.monotonic() + _METADATA_AGE_S
        return self._counts

    async def beginnings(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        if not partitions:
            return {}
        found = await self._client.beginning_offsets([self._part(partition) for partition in partitions])
        return {partition: found[self._part(partition)] for partition in partitions}

    async def committed(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        admin = AIOKafkaAdminClient(**client_options(self._kafka), request_timeout_ms=int(_REQUEST_TIMEOUT_S * 1000))
        try:
            await admin.start()
            found = await admin.list_consumer_group_offsets(self._group)
        finally:
            await admin.close()
        known = {partition: found.get(self._part(partition)) for partition in partitions}
        return {
            partition: committed.offset
            for partition, committed in known.items()
            if committed is not None and committed.offset >= 0 and committed.metadata != _FOR_TOOLS
        }

    def assign(self, positions: Mapping[Partition, int]) -> None:
        self._next = {self._part(partition): offset for partition, offset in positions.items()}
        if not positions:
            self._client.unsubscribe()
            return
        self._client.assign(list(self._next))
        self._seek()

    async def poll(self, timeout_s: float, records_max: int) -> Sequence[LogRecord]:
        try:
            found = await self._client.getmany(timeout_ms=max(1, int(timeout_s * 1000)), max_records=records_max)
        except (OffsetOutOfRangeError, NoOffsetForPartitionError) as error:
            parts = error.args[0] if isinstance(error.args[0], dict) else self._next
            lost = [(self._topics[part.topic], part.partition) for part in parts]
            raise LogPositionLost(f"{type(error).__name__}: {error}"[:300], lost) from error
        except UnicodeDecodeError as error:
            return await self._poll_singly(error.reason)
        return [record for part, records in found.items() for record in self._received(part, records)]

    async def _poll_singly(self, reason: str) -> Sequence[LogRecord]:
        """The next record of one partition, or the one that cannot be taken apart.

        aiokafka decodes names of headers as UTF-8, which Kafka does not ask for, and raises out of the whole fetch;
        what it had in hand by then is lost to it, so each partition is read again from what was handed on.
        """
        self._seek()
        for part in sorted(self._next):
            try:
                found = await self._client.getmany(part, timeout_ms=_SINGLE_FETCH_MS, max_records=1)
            except UnicodeDecodeError:
                offset = self._next[part]
                self._next[part] = offset + 1
                self._client.seek(part, offset + 1)
                topic = self._topics[part.topic]
                return [LogRecord(topic, part.partition, offset, None, None, (), datetime.now(UTC), reason)]
            if found:
                return self._received(part, found[part])
        return []

    def _received(self, part: TopicPartition, records: Sequence[ConsumerRecord]) -> list[LogRecord]:
        topic, number = self._topics[part.topic], part.partition
        self._next[part] = records[-1].offset + 1
        return [
            LogRecord(topic, number, one.offset, one.key, one.value, one.headers, _moment(one.timestamp))
            for one in records
        ]

    def _seek(self) -> None:
        for part, offset in self._next.items():
            self._client.seek(part, offset)

    def lag(self) -> Mapping[str, int]:
        by_topic = dict.fromkeys(self._topics.values(), 0)
        for part in self._client.assignment():
            end = self._client.highwater(part)
            state = self._client._subscription.subscription.assignment.state_value(part)  # noqa: SLF001 - position() may wait
            if end is not None and state is not None and state.has_valid_position:
                by_topic[self._topics[part.topic]] += max(0, end - state.position)
        return by_topic

    async def commit(self, positions: Mapping[Partition, int]) -> None:
        offsets = {
            self._part(partition): OffsetAndMetadata(offset, _FOR_TOOLS) for partition, offset in positions.items()
        }
        try:
            await (await self._group_client(list(offsets))).commit(offsets)
        except BaseException:
            await self._close_committer()
            raise

    async def _group_client(self, parts: Sequence[TopicPartition]) -> AIOKafkaConsumer:
        """A member of the group that reads nothing: only who has partitions may commit."""
        if self._committer is None:
            self._committer = AIOKafkaConsumer(
                **client_options(self._kafka),
                group_id=self._group,
                enable_auto_commit=False,
                request_timeout_ms=int(_REQUEST_TIMEOUT_S * 1000),
                consumer_timeout_ms=int(_METADATA_AGE_S * 1000),
            )
            await start_client(self._committer)
        if self._committer.assignment() != set(parts):
            self._committer.assign(parts)
            for part in parts:
                self._committer.seek(part, 0)
            self._committer.pause(*parts)
        return self._committer

    async def _close_committer(self) -> None:
        committer, self._committer = self._committer, None
        if committer is not None:
            await close_quietly(committer)

    async def close(self) -> None:
        await self._close_committer()
        await close_quietly(self._client)

    def _part(self, partition: Partition) -> TopicPartition:
        topic, number = partition
        return TopicPartition(self._names[topic], number)


def _moment(timestamp_ms: int) -> datetime:
    try:
        return datetime.fromtimestamp(timestamp_ms / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return datetime.fromtimestamp(0, UTC)
