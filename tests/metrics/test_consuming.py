"""From Kafka to the tables: each event counts once, `as_of` is the watermark, a poison event becomes a dead letter."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from sqlalchemy import make_url, text
from tests.watermarks import announce
from uuid_utils.compat import uuid7

from accord.contracts.base import EventData
from accord.contracts.envelope import Event, encode
from accord.db import Database
from accord.messaging import dead_letters
from accord.messaging.kafka import client_options, ensure_topics, physical_name
from accord.settings import KafkaSettings
from accord.workers import Worker
from metrics import tables
from metrics.domain.report_query import ReportQuery
from metrics.handlers import CONSUMED
from metrics.main import build
from metrics.settings import Settings
from metrics.usecases.reports import StagePair, get_funnel, get_velocity

AS_OF = datetime.now(UTC)
"""Not ahead of the clock: such a watermark is refused."""

TOPIC = {"intake": "intake-events", "qualification": "qualification-events", "sla": "sla-events"}


@pytest.fixture
def cluster(kafka_server: Any, kafka_topic_prefix: str) -> KafkaSettings:
    return KafkaSettings(bootstrap_servers=kafka_server.bootstrap_servers, topic_prefix=kafka_topic_prefix)


@pytest.fixture
async def consumer(metrics_url: str, cluster: KafkaSettings) -> AsyncIterator[Worker]:
    """The service's own consumer, as main.py builds it, running."""
    async with consuming(metrics_url, cluster) as worker:
        yield worker


@asynccontextmanager
async def consuming(metrics_url: str, cluster: KafkaSettings) -> AsyncIterator[Worker]:
    settings = Settings.model_validate(
        {
            "database_url": metrics_url,
            "kafka_bootstrap_servers": cluster.bootstrap_servers,
            "kafka_topic_prefix": cluster.topic_prefix,
            "consumer_batch_rows_max": 50,
        }
    )
    service = build(settings)
    workers = {worker.name: worker for worker in service.workers}
    stop = asyncio.Event()
    running = [asyncio.create_task(workers[name].run(stop)) for name in ("watermarks", "consumer-metrics")]
    yield workers["consumer-metrics"]
    stop.set()
    await asyncio.gather(*running)
    await service.database.dispose()


async def tables_of(url: str) -> dict[str, list[str]]:
    """What the projections hold, row by row as text, and how far the topics were read."""
    database = Database(url, application_name="test")
    names = [*tables.RETENTION, "consumer_position"]
    try:
        async with database.read_transaction() as conn:
            found = {
                name: (await conn.execute(text(f"SELECT t::text FROM {name} t ORDER BY 1"))).scalars().all()
                for name in names
            }
    finally:
        await database.dispose()
    return {name: list(rows) for name, rows in found.items()}


async def test_database_restored_from_a_backup_catches_up_to_the_exact_state(
    metrics_url: str, cluster: KafkaSettings, postgres_server: Any, make_history: Callable[[int], Any]
) -> None:
    history = make_history(5).generate(40)
    history.define()
    earlier = {name: events[: len(events) // 2] for name, events in history.topics.items()}
    later = {name: events[len(events) // 2 :] for name, events in history.topics.items()}

    async def read_to_the_end() -> bool:
        found = await tables_of(metrics_url)
        offsets = [int(row.strip("()").split(",")[3]) for row in found["consumer_position"]]
        return len(offsets) == 3 * 12 and sum(offsets) == published

    published = await publish(cluster, earlier)
    async with consuming(metrics_url, cluster):
        await until(read_to_the_end)
    name = make_url(metrics_url).database
    backup = f"{name}_backup"
    await asyncio.to_thread(postgres_server.execute, f"CREATE DATABASE {backup} TEMPLATE {name}")
    try:
        half = await tables_of(metrics_url)
        published += await publish(cluster, later)
        async with consuming(metrics_url, cluster):
            await until(read_to_the_end)
        whole = await tables_of(metrics_url)
        assert whole != half
        restored_url = make_url(metrics_url).set(database=backup).render_as_string(hide_password=False)
        assert await tables_of(restored_url) == half

        async def caught_up() -> bool:
            return (await tables_of(restored_url))["consumer_position"] == whole["consumer_position"]

        async with consuming(restored_url, cluster):
            await until(caught_up)
        assert await tables_of(restored_url) == whole
    finally:
        await asyncio.to_thread(postgres_server.execute, f"DROP DATABASE {backup} WITH (FORCE)")


async def publish(cluster: KafkaSettings, topics: dict[str, list[EventData]], *, twice: bool = False) -> int:
    """Send each topic's events by their key, as the services' relays do, and announce their watermarks; how many were sent."""
    await ensure_topics(cluster, CONSUMED)
    producer = AIOKafkaProducer(**client_options(cluster), acks="all", enable_idempotence=True)
    await producer.start()
    try:
        for name, events in topics.items():
            topic = physical_name(cluster, TOPIC[name])
            for data in events:
                key, value, headers = encode(Event(uuid7(), f"/{name}", data))
                for _ in range(2 if twice else 1):
                    await producer.send(topic, value, key=key, headers=headers)
            await producer.flush()
            await announce(cluster, TOPIC[name], AS_OF)
        await producer.flush()
    finally:
        await producer.stop()
    return sum(map(len, topics.values())) * (2 if twice else 1)


async def until(condition: Callable[[], Any]) -> None:
    for _ in range(1200):
        if await condition():
            return
        await asyncio.sleep(0.05)
    pytest.fail("it has not come true within 60 s")


async def test_duplicate_events_count_once_and_as_of_is_the_watermark(
    database: Database,
    other_database: Database,
    consumer: Worker,
    cluster: KafkaSettings,
    make_history: Callable[[int], Any],
    apply: Callable[..., Any],
    set_watermark: Callable[..., Any],
) -> None:
    history = make_history(21).generate(60)
    history.define()
    await publish(cluster, history.topics, twice=True)

    async def is_all_read() -> bool:
        return (await get_funnel(database, ReportQuery())).as_of == AS_OF

    await until(is_all_read)
    await apply(other_database, history.events)
    await set_watermark(other_database, AS_OF)
    for between in (None, StagePair("inquiry", "won")):
        assert await get_velocity(database, ReportQuery(), between) == await get_velocity(
            other_database, ReportQuery(), between
        )
    assert await get_funnel(database, ReportQuery()) == await get_funnel(other_database, ReportQuery())
    assert consumer.problem() is None


async def test_invalid_definition_becomes_a_dead_letter_and_other_events_are_projected(
    database: Database, consumer: Worker, cluster: KafkaSettings, history: Any
) -> None:
    leads = [history.capture() for _ in range(5)]
    for lead_id in leads:
        history.move(lead_id, "inquiry", 0)
    history.define({"stages": "none"}, version=1)
    history.define(version=2)
    await publish(cluster, history.topics)

    async def is_all_read() -> bool:
        return (await get_funnel(database, ReportQuery())).as_of == AS_OF

    await until(is_all_read)
    report = await get_funnel(database, ReportQuery())
    assert (report.stages.version, report.funnel.leads, report.funnel.anomalies) == (2, 5, {})
    async with database.read_transaction() as conn:
        (letter,) = await dead_letters.list_dead_letters(conn, limit=10)
    assert (letter.type, letter.topic, letter.state) == ("agreement.activated.v1", "qualification-events", "new")
