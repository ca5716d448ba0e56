"""What waits between the services, seen from outside: rows in outboxes, and records that consumer groups have yet to pass."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from tests.bench.environment import SPECS, BenchEnvironment

SAMPLE_S = 0.5


class Backlog:
    """The queues of all services whose topics and groups have one prefix."""

    def __init__(
        self,
        admin: AIOKafkaAdminClient,
        consumer: AIOKafkaConsumer,
        databases: dict[str, asyncpg.Connection],
        prefix: str,
    ) -> None:
        self._admin = admin
        self._consumer = consumer
        self._databases = databases
        self._prefix = prefix

    async def measure(self) -> dict[str, int]:
        """Queue → how many wait in it; outboxes by service, records by group."""
        waiting = {
            f"outbox of {name}": int(await connection.fetchval("SELECT count(*) FROM outbox"))
            for name, connection in self._databases.items()
        }
        for group, *_ in await self._admin.list_consumer_groups():
            if group.startswith(self._prefix):
                waiting[f"group {group.removeprefix(self._prefix)}"] = await self._measure_lag(group)
        return waiting

    async def _measure_lag(self, group: str) -> int:
        committed = await self._admin.list_consumer_group_offsets(group)
        topics = {part.topic for part in committed}
        parts = [
            TopicPartition(topic, number)
            for topic in topics
            for number in self._consumer.partitions_for_topic(topic) or ()
        ]
        ends = await self._consumer.end_offsets(parts)
        passed: defaultdict[TopicPartition, int] = defaultdict(int)
        passed.update({part: max(0, found.offset) for part, found in committed.items()})
        return sum(end - passed[part] for part, end in ends.items())

    async def drain(self, *, timeout_s: float) -> None:
        """Wait until nothing waits, twice in a row: between two queues an event is in neither for a moment."""
        empty = 0
        async with asyncio.timeout(timeout_s):
            while empty < 2:
                empty = 0 if any((await self.measure()).values()) else empty + 1
                await asyncio.sleep(SAMPLE_S)


@asynccontextmanager
async def open_backlog(bench: BenchEnvironment, prefix: str) -> AsyncIterator[Backlog]:
    """The queues as they are now; topics must be there."""
    async with AsyncExitStack() as stack:
        admin = AIOKafkaAdminClient(bootstrap_servers=bench.bootstrap_servers)
        await admin.start()
        stack.push_async_callback(admin.close)
        consumer = AIOKafkaConsumer(bootstrap_servers=bench.bootstrap_servers, enable_auto_commit=False)
        await consumer.start()
        stack.push_async_callback(consumer.stop)
        for topic in await admin.list_topics():
            if topic.startswith(prefix):
                consumer._client.add_topic(topic)  # the only way to know a topic without subscribing
        await consumer._client.force_metadata_update()
        databases = {}
        for name, spec in SPECS.items():
            databases[name] = await asyncpg.connect(bench.dsn(spec.database))
            stack.push_async_callback(databases[name].close)
        yield Backlog(admin, consumer, databases, prefix)
