"""The whole process with real Kafka, PostgreSQL and relays: a relay that stops over a deadline causes no breach."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import httpx
import orjson
import pytest
from aiokafka import AIOKafkaConsumer

from accord.contracts.envelope import decode
from accord.contracts.intake_events import ActivityRecorded
from accord.contracts.qualification_events import LeadStageChanged
from accord.contracts.sla_events import ClockEvent
from accord.contracts.topics import ServiceName
from accord.db import Database
from accord.messaging.consumer_store import watermark
from accord.messaging.kafka_log import KafkaLog
from accord.messaging.relay import Relay
from accord.messaging.relay_store import PostgresRelayStore
from accord.migrations.run import upgrade_sync
from accord.settings import KafkaSettings
from sla_monitor.main import MIGRATIONS

AWAITED_S = 60.0

CONTENT: dict[str, Any] = {
    "kind": "sla",
    "title": "Quick",
    "clauses": [
        {
            "key": "call",
            "obliges": "sales",
            "kind": "response",
            "from": {"stage": "mql"},
            "to": {"activity": "call.attempted", "by": "sales"},
            "within": {"elapsed": "PT4S"},
        }
    ],
}


@asynccontextmanager
async def running(environment: dict[str, str]) -> AsyncIterator[tuple[httpx.AsyncClient, asyncio.subprocess.Process]]:
    """The service in the role `all`, asked to stop at the end; it must end with exit code 0."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sla_monitor.main", "all", env=environment, stdout=asyncio.subprocess.PIPE
    )
    port = await asyncio.wait_for(_port(process), AWAITED_S)
    assert process.stdout is not None
    drain = asyncio.create_task(process.stdout.read())
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
            yield http, process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        code = await asyncio.wait_for(process.wait(), AWAITED_S)
        output = (await drain).decode()
    assert code in (0, -signal.SIGKILL), output


async def _port(process: asyncio.subprocess.Process) -> int:
    assert process.stdout is not None
    while line := await process.stdout.readline():
        entry = orjson.loads(line)
        if entry.get("event") == "started":
            return int(entry["port"])
    raise AssertionError("the service did not start")


@pytest.fixture
def environment(database_url, kafka_server, kafka_topic_prefix, keys_file) -> dict[str, str]:
    return {
        **os.environ,
        "ACCORD_DATABASE_URL": database_url,
        "ACCORD_KAFKA_BOOTSTRAP_SERVERS": kafka_server.bootstrap_servers,
        "ACCORD_KAFKA_TOPIC_PREFIX": kafka_topic_prefix,
        "ACCORD_API_KEYS_FILE": str(keys_file),
        "ACCORD_PORT": "0",
    }


class Producer:
    """A service that records events and publishes them by the real relay, which can be stopped and started."""

    def __init__(self, database: Database, kafka: KafkaSettings, name: ServiceName) -> None:
        self._database, self._kafka, self._name = database, kafka, name
        self._task: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()
        self._sequences: dict[UUID, int] = {}

    def start(self) -> None:
        self._stop = asyncio.Event()
        relay = Relay(
            PostgresRelayStore(self._database),
            KafkaLog(self._kafka),
            self._name,
            announce_every_s=0.2,
            idle_announce_every_s=0.2,
        )
        self._task = asyncio.create_task(relay.run(self._stop))

    async def stop(self) -> None:
        self._stop.set()
        if self._task is not None:
            await asyncio.wait_for(self._task, AWAITED_S)

    async def record(self, event: type[Any], lead_id: UUID, /, **more: Any) -> datetime:
        """Record an event that happens now; when that was."""
        self._sequences[lead_id] = sequence = self._sequences.get(lead_id, 0) + 1
        async with self._database.write_transaction() as unit_of_work:
            base = {
                "lead_id": lead_id,
                "sequence": sequence,
                "occurred_at": unit_of_work.now,
                "recorded_at": unit_of_work.now,
            }
            unit_of_work.publish(event(**base, **more))
        return unit_of_work.now


@pytest.fixture
async def producers(database_factory, kafka_server, kafka_topic_prefix):
    kafka = KafkaSettings(bootstrap_servers=kafka_server.bootstrap_servers, topic_prefix=kafka_topic_prefix)
    databases = [
        Database(database_factory("sla", partial(upgrade_sync, MIGRATIONS)), application_name=name, pool_size=2)
        for name in ("intake", "qualification")
    ]
    both = [Producer(databases[0], kafka, "intake"), Producer(databases[1], kafka, "qualification")]
    for producer in both:
        producer.start()
    yield both
    for producer in both:
        await producer.stop()
    for database in databases:
        await database.dispose()


async def until(condition: Callable[[], Awaitable[Any]]) -> Any:
    """The first true answer."""
    async with asyncio.timeout(AWAITED_S):
        while not (answer := await condition()):  # noqa: ASYNC110 - it comes true in another process
            await asyncio.sleep(0.05)
        return answer


async def sign(http: httpx.AsyncClient, auth) -> None:
    drafted = (await http.post("/v1/sla/versions", json=CONTENT, headers=auth("marketing"))).json()
    at = f"/v1/sla/versions/{drafted['version']}"
    await http.post(f"{at}/propose", headers=auth("marketing"))
    for department in ("marketing", "sales"):
        signed = await http.post(
            f"{at}/signatures", json={"content_sha256": drafted["content_sha256"]}, headers=auth(department)
        )
        assert signed.is_success, signed.text


async def mql(qualification: Producer, lead_id: UUID) -> datetime:
    return await qualification.record(
        LeadStageChanged,
        lead_id,
        definition_version=1,
        stage="mql",
        stage_kind="open",
        stage_rank=1,
        stage_owner="marketing",
        visit=1,
        cause="automatic",
    )


async def published(kafka_server: Any, prefix: str) -> list[ClockEvent]:
    """Everything in the service's topic up to its present end."""
    client = AIOKafkaConsumer(
        f"{prefix}sla-events", bootstrap_servers=kafka_server.bootstrap_servers, auto_offset_reset="earliest"
    )
    await client.start()
    try:
        parts = sorted(client.assignment())
        ends = await client.end_offsets(parts)
        found = []
        while any([await client.position(part) < ends[part] for part in parts]):
            for records in (await client.getmany(timeout_ms=100)).values():
                found += [decode(record.value, record.headers).data for record in records]
        return [data for data in found if isinstance(data, ClockEvent)]
    finally:
        await client.stop()


@pytest.mark.slow
async def test_relay_stopped_over_a_deadline_causes_no_breach(
    environment, producers, database_url, kafka_server, kafka_topic_prefix, auth
):
    intake, qualification = producers
    called, forgotten = uuid4(), uuid4()
    database = Database(database_url, application_name="test", pool_size=1)

    async with running(environment) as (http, _):

        async def states() -> dict[str, str]:
            items = (await http.get("/v1/clocks", headers=auth("reader"))).json()["items"]
            return {item["lead_id"]: item["state"] for item in items}

        async def qualification_read_until() -> datetime | None:
            async with database.read_transaction() as conn:
                return await watermark(conn, ["qualification-events"])

        await sign(http, auth)
        await until(qualification_read_until)  # the service reads
        await intake.stop()
        await mql(qualification, called)
        await mql(qualification, forgotten)
        answered = await intake.record(ActivityRecorded, called, activity_id=uuid4(), kind="call.attempted", by="sales")

        async def both_run() -> bool:
            return len(await states()) == 2

        await until(both_run)
        clocks = (await http.get("/v1/clocks", headers=auth("reader"))).json()["items"]
        last_due = max(datetime.fromisoformat(item["due_at"]) for item in clocks)
        assert answered < min(datetime.fromisoformat(item["due_at"]) for item in clocks)

        async def over() -> bool:
            read = await qualification_read_until()
            return read is not None and read > last_due

        await until(over)  # the other topic has been read past both deadlines
        assert await states() == {str(called): "running", str(forgotten): "running"}

        intake.start()
        settled = {str(called): "met", str(forgotten): "breached"}

        async def all_settled() -> bool:
            return await states() == settled

        await until(all_settled)
        breaches = (await http.get("/v1/breaches", headers=auth("reader"))).json()
        assert [item["lead_id"] for item in breaches["items"]] == [str(forgotten)]
        assert datetime.fromisoformat(breaches["as_of"]) > last_due

        async def all_published() -> bool:
            outbox = await http.get("/v1/admin/outbox", headers=auth("admin"))
            return outbox.json()["unpublished"] == 0

        await until(all_published)
        events = [(event.lead_id, event.type) for event in await published(kafka_server, kafka_topic_prefix)]
        assert [kind for lead, kind in events if lead == called] == ["sla.clock_started.v1", "sla.met.v1"]
        assert [kind for lead, kind in events if lead == forgotten] == ["sla.clock_started.v1", "sla.breached.v1"]
        for path in ("/livez", "/readyz", "/metrics"):
            assert (await http.get(path)).status_code == 200
    await database.dispose()


@pytest.mark.slow
async def test_killed_service_starts_each_clock_once(environment, producers, kafka_server, kafka_topic_prefix, auth):
    _, qualification = producers
    leads = [uuid4() for _ in range(100)]

    async with running(environment) as (http, process):
        await sign(http, auth)
        for lead in leads[:50]:
            await mql(qualification, lead)

        async def begun() -> bool:
            return bool((await http.get("/v1/clocks", headers=auth("reader"))).json()["items"])

        await until(begun)
        process.kill()
        await process.wait()
    for lead in leads[50:]:
        await mql(qualification, lead)
    async with running(environment) as (http, _):

        async def all_breached() -> bool:
            items = (await http.get("/v1/breaches?limit=500", headers=auth("reader"))).json()["items"]
            return len(items) == 100

        await until(all_breached)

        async def all_published() -> bool:
            outbox = await http.get("/v1/admin/outbox", headers=auth("admin"))
            return outbox.json()["unpublished"] == 0

        await until(all_published)
    published_by_lead = {}
    for event in await published(kafka_server, kafka_topic_prefix):
        published_by_lead.setdefault(event.lead_id, {})[event.sequence] = event.type
    assert set(published_by_lead) == set(leads)
    assert all(events == {1: "sla.clock_started.v1", 2: "sla.breached.v1"} for events in published_by_lead.values())
