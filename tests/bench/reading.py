"""What is readable in Kafka: how many records, and how long after a moment that each event carries. It commits no offsets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition

from accord.messaging.kafka import ensure_topics
from accord.settings import KafkaSettings
from tests.bench.environment import BenchEnvironment
from tests.bench.load import Load

SAMPLE_S = 0.02
SETTLE_S = 1.5
Moment = Callable[[bytes, dict[str, bytes]], str | None]
"""The ISO moment from which an event's way counts, of its value and headers; None for one that does not count."""


class Reader:
    """The end of a topic, seen from outside."""

    def __init__(self, client: AIOKafkaConsumer, topic: str) -> None:
        self._client = client
        self.parts = [TopicPartition(topic, n) for n in sorted(client.partitions_for_topic(topic) or ())]

    async def records(self) -> int:
        """How many records the topic holds."""
        return int(sum((await self._client.end_offsets(self.parts)).values()))

    async def reaches(self, records: int, *, timeout_s: float) -> float:
        """Wait until there are so many; the moment (`time.monotonic()`) at which they were seen."""
        async with asyncio.timeout(timeout_s):
            while await self.records() < records:  # noqa: ASYNC110 - only asking tells
                await asyncio.sleep(SAMPLE_S)
        return time.monotonic()

    async def committed(self) -> int:
        """How many records of the topic the reader's group has passed."""
        offsets = [await self._client.committed(part) for part in self.parts]
        return sum(offset or 0 for offset in offsets)


@asynccontextmanager
async def open_reader(bootstrap_servers: str, topic: str, *, group: str | None = None) -> AsyncIterator[Reader]:
    """A reader at the end of the topic, which is made if it is missing."""
    await ensure_topics(KafkaSettings(bootstrap_servers=bootstrap_servers), [topic])
    client = AIOKafkaConsumer(bootstrap_servers=bootstrap_servers, group_id=group, enable_auto_commit=False)
    await client.start()
    try:
        client._client.add_topic(topic)  # the only way to know a topic without subscribing
        await client._client.force_metadata_update()
        yield Reader(client, topic)
    finally:
        await client.stop()


class Listener:
    """Reads a topic as it grows and notes how late each event of one type is."""

    def __init__(self, type_: str, moment: Moment) -> None:
        self._type = type_.encode()
        self._moment = moment
        self.latencies_ms: list[float] = []

    async def listen(self, bootstrap_servers: str, topic: str, stop: asyncio.Event) -> None:
        """Read until `stop`."""
        client = AIOKafkaConsumer(bootstrap_servers=bootstrap_servers, enable_auto_commit=False)
        await client.start()
        try:
            async with open_reader(bootstrap_servers, topic) as reader:
                client.assign(reader.parts)
            await client.seek_to_end()
            while not stop.is_set():
                for records in (await client.getmany(timeout_ms=100)).values():
                    now = time.time()
                    for record in records:
                        headers = dict(record.headers)
                        moment = self._moment(record.value, headers) if headers["ce_type"] == self._type else None
                        if moment is not None:
                            self.latencies_ms.append((now - datetime.fromisoformat(moment).timestamp()) * 1000)
        finally:
            await client.stop()

    def percentile_ms(self, share: float) -> float:
        """So many were as quick as this or quicker."""
        ordered = sorted(self.latencies_ms)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("nan")


def occurred_at(_: bytes, headers: dict[str, bytes]) -> str:
    """When it happened; the bench's submissions say the moment at which they were due to be sent."""
    return headers["ce_time"].decode()


def recorded_at(value: bytes, _: dict[str, bytes]) -> str:
    """When its transaction began, so a little before the commit."""
    return str(orjson.loads(value)["recorded_at"])


async def listen_for(
    bench: BenchEnvironment, load: Load, topic: str, listener: Listener
) -> tuple[Listener, dict[str, int]]:
    """Send a load while the listener reads the topic; the listener, and the counts of the answers by status."""
    stop = asyncio.Event()
    reader = asyncio.create_task(listener.listen(bench.bootstrap_servers, topic, stop))
    await asyncio.sleep(SETTLE_S)
    measured = await asyncio.to_thread(bench.load, load)
    await asyncio.sleep(SETTLE_S)
    stop.set()
    await reader
    return listener, measured.statuses
