"""A database with nothing but the messaging tables, topics of the test's own, and workers that end with the test."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from accord.contracts.envelope import Event, decode
from accord.contracts.intake_events import ActivityRecorded
from accord.contracts.values import utc
from accord.db import Database, UnitOfWork, async_url
from accord.messaging.consumer import Consumer
from accord.messaging.consumer_store import PostgresConsumerStore
from accord.messaging.frontier import Consumed
from accord.messaging.kafka import client_options, ensure_topics
from accord.messaging.kafka_log import KafkaLog
from accord.messaging.relay import Relay
from accord.messaging.relay_store import PostgresRelayStore
from accord.messaging.watermark_reader import WatermarkReader
from accord.migrations import v0001, v0003_messaging
from accord.settings import KafkaSettings
from accord.workers import Worker

OCCURRED = utc(2027, 1, 4, 9, 30)


def migrate(url: str) -> None:
    async def upgrade() -> None:
        engine = create_async_engine(async_url(url))
        async with engine.begin() as conn:
            for version in (v0001, v0003_messaging):
                await conn.run_sync(lambda sync, v=version: v.upgrade(Operations(MigrationContext.configure(sync))))
            await conn.execute(
                text(
                    "CREATE TABLE effect (place bigint GENERATED ALWAYS AS IDENTITY,"
                    " event_id uuid, key text, sequence int)"
                )
            )
        await engine.dispose()

    asyncio.run(upgrade())


@pytest.fixture
def cluster(kafka_server: Any, kafka_topic_prefix: str) -> KafkaSettings:
    return KafkaSettings(bootstrap_servers=kafka_server.bootstrap_servers, topic_prefix=kafka_topic_prefix)


@pytest.fixture
def database_url(database_factory: Callable[..., str]) -> str:
    return database_factory("messaging", migrate)


@pytest.fixture
async def another_database(database_url: str) -> AsyncIterator[Database]:
    """The same database as another process has it, so that a test can hold a transaction of each."""
    database = Database(database_url, application_name="another")
    yield database
    await database.dispose()


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url, application_name="test")
    yield database
    await database.dispose()


@pytest.fixture
async def other_database(database_factory: Callable[..., str]) -> AsyncIterator[Database]:
    """The database of a second service."""
    database = Database(database_factory("messaging", migrate), application_name="other")
    yield database
    await database.dispose()


def relay_of(database: Database, cluster: KafkaSettings, service: Any, **options: Any) -> Relay:
    """A relay with the servers that production uses."""
    return Relay(PostgresRelayStore(database), KafkaLog(cluster), service, **options)


def consumer_of(database: Database, cluster: KafkaSettings, *, group: str, **options: Any) -> Consumer:
    """A consumer with the servers that production uses."""
    return Consumer(PostgresConsumerStore(database, group), KafkaLog(cluster), group=group, **options)


def watermarks_of(cluster: KafkaSettings, group: str, topics: Sequence[str]) -> WatermarkReader:
    return WatermarkReader(KafkaLog(cluster), consumer=group, topics=topics)


@pytest.fixture
def new_relay() -> Callable[..., Relay]:
    return relay_of


@pytest.fixture
def new_consumer() -> Callable[..., Consumer]:
    return consumer_of


@pytest.fixture
def new_watermarks() -> Callable[..., WatermarkReader]:
    return watermarks_of


@pytest.fixture
def consumed() -> Callable[[WatermarkReader], Consumed]:
    """What a relay waits for, of a reader of watermarks."""
    return lambda watermarks: Consumed(watermarks.board, watermarks.topics, [watermarks.consumer])


@pytest.fixture
def new_activity() -> Callable[..., ActivityRecorded]:
    return activity


def activity(unit_of_work: UnitOfWork, lead_id: UUID | None = None, sequence: int = 1) -> ActivityRecorded:
    """An event recorded now, of a lead."""
    return ActivityRecorded(
        occurred_at=OCCURRED,
        recorded_at=unit_of_work.now,
        lead_id=lead_id or uuid4(),
        sequence=sequence,
        activity_id=uuid4(),
        kind="email.clicked",
        by="lead",
    )


@asynccontextmanager
async def running(*workers: Worker) -> AsyncIterator[asyncio.Event]:
    """Run workers for the block; what they raise is raised here."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for worker in workers:
            group.create_task(worker.run(stop))
        try:
            yield stop
        finally:
            stop.set()


@pytest.fixture
def run_workers() -> Callable[..., Any]:
    return running


async def until(condition: Callable[[], Awaitable[Any]], *, within_s: float = 30.0) -> Any:
    """The first true answer of `condition`."""
    async with asyncio.timeout(within_s):
        while not (answer := await condition()):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        return answer


@pytest.fixture
def eventually() -> Callable[..., Any]:
    return until


class Reader:
    """Everything in a topic, in order per partition, read without a group."""

    def __init__(self, cluster: KafkaSettings, topic: str) -> None:
        self._cluster = cluster
        self._topic = cluster.topic_prefix + topic

    async def events(self) -> list[tuple[int, Event]]:
        """(partition, event) of all records up to the present end."""
        client = AIOKafkaConsumer(
            self._topic, **client_options(self._cluster), auto_offset_reset="earliest", enable_auto_commit=False
        )
        await client.start()
        try:
            parts = sorted(client.assignment())
            ends = await client.end_offsets(parts)
            found: list[tuple[int, Event]] = []
            while any([await client.position(part) < ends[part] for part in parts]):
                for part, records in (await client.getmany(timeout_ms=100)).items():
                    found += [(part.partition, decode(record.value, record.headers)) for record in records]
            return found
        finally:
            await client.stop()


@pytest.fixture
def reader(cluster: KafkaSettings) -> Callable[[str], Reader]:
    return lambda topic: Reader(cluster, topic)


@pytest.fixture
async def producer(cluster: KafkaSettings) -> AsyncIterator[AIOKafkaProducer]:
    client = AIOKafkaProducer(**client_options(cluster), acks="all")
    await client.start()
    yield client
    await client.stop()


@pytest.fixture
async def intake_topic(cluster: KafkaSettings) -> str:
    await ensure_topics(cluster, ["intake-events"], partitions=3)
    return cluster.topic_prefix + "intake-events"


@pytest.fixture
def migrated() -> Callable[..., Awaitable[str]]:
    """Make a database on a server of the test's own."""

    async def make(server: Any, name: str) -> str:
        await asyncio.to_thread(server.execute, f"CREATE DATABASE {name}")
        url: str = server.url(name)
        await asyncio.to_thread(migrate, url)
        return url

    return make
