"""Real relays and Kafka: a producer that is stopped over a deadline delays a breach and never causes one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
import yaml
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from uuid_utils.compat import uuid7

from accord.contracts.base import EventData
from accord.contracts.intake_events import LeadCaptured, LeadState
from accord.contracts.qualification_events import LeadDecided, LeadStageChanged
from accord.contracts.topics import ServiceName
from accord.db import Database, UnitOfWork, async_url
from accord.messaging.kafka_log import KafkaLog
from accord.messaging.relay import Relay
from accord.messaging.relay_store import PostgresRelayStore
from accord.migrations import v0001, v0003_messaging
from accord.migrations.run import upgrade_sync
from accord.service import create_app
from accord.settings import KafkaSettings
from accord.workers import Worker
from sla_monitor.main import MIGRATIONS, build
from sla_monitor.settings import Settings

ALLOWED_S = 10
SLA = {
    "kind": "sla",
    "title": "Ten seconds",
    "clauses": [
        {
            "key": "accept-mql",
            "obliges": "sales",
            "kind": "response",
            "from": {"stage": "mql"},
            "to": {"decision": ["accept", "reject"]},
            "within": {"elapsed": f"PT{ALLOWED_S}S"},
            "warn_at": [0.5],
        }
    ],
}
KEYS = {
    "marketing": ("marketing", ["agreements:write", "agreements:sign", "sla:read"]),
    "sales": ("sales", ["agreements:sign"]),
}


def bearer(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer key-of-{name}"}


def migrate_messaging(url: str) -> None:
    """The tables that a relay needs, and nothing else of the service that it stands for."""

    async def upgrade() -> None:
        engine = create_async_engine(async_url(url))
        async with engine.begin() as conn:
            for version in (v0001, v0003_messaging):
                await conn.run_sync(lambda sync, v=version: v.upgrade(Operations(MigrationContext.configure(sync))))
        await engine.dispose()

    asyncio.run(upgrade())


async def until(condition: Callable[[], Awaitable[Any]], within_s: float = 60.0) -> Any:
    """The first true answer of `condition`."""
    async with asyncio.timeout(within_s):
        while not (answer := await condition()):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        return answer


class Running:
    """Workers that can be stopped and started again."""

    def __init__(self, make: Callable[[], Sequence[Worker]]) -> None:
        self._make = make
        self._tasks: list[asyncio.Task[None]] = []
        self._stop = asyncio.Event()

    def start(self) -> None:
        self._stop = asyncio.Event()
        self._tasks = [asyncio.create_task(worker.run(self._stop)) for worker in self._make()]

    async def stop(self) -> None:
        """Ends them; what one of them raised is raised here."""
        self._stop.set()
        await asyncio.gather(*self._tasks)
        self._tasks = []


@dataclass
class Producer:
    """One of the other services: its database and its relay."""

    database: Database
    relay: Running

    async def record(self, make: Callable[[UnitOfWork], Sequence[EventData]]) -> None:
        async with self.database.write_transaction() as unit_of_work:
            unit_of_work.publish(*make(unit_of_work))


@dataclass
class World:
    intake: Producer
    qualification: Producer
    http: httpx.AsyncClient
    database: Database

    async def read(self, path: str, **query: str) -> Any:
        answer = await self.http.get(path, params=query, headers=bearer("marketing"))
        return answer.json() if answer.status_code == 200 else {"items": [], "status": answer.status_code}

    async def clock(self, lead_id: UUID) -> dict[str, Any] | None:
        items = (await self.read(f"/v1/leads/{lead_id}/clocks"))["items"]
        return items[0] if items else None

    async def in_state(self, lead_id: UUID, state: str) -> dict[str, Any]:
        async def found() -> dict[str, Any] | None:
            clock = await self.clock(lead_id)
            return clock if clock and clock["state"] == state else None

        clock: dict[str, Any] = await until(found)
        return clock

    async def as_of(self) -> datetime | None:
        text_ = (await self.read("/v1/clocks"))["as_of"]
        return datetime.fromisoformat(text_) if text_ else None

    async def now(self) -> datetime:
        async with self.database.read_transaction() as conn:
            now: datetime = (await conn.execute(text("SELECT clock_timestamp()"))).scalar_one()
            return now

    async def breaches(self) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = (await self.read("/v1/breaches"))["items"]
        return items

    async def enter(self) -> UUID:
        """A lead is captured and becomes an MQL at this moment."""
        lead_id: UUID = uuid7()
        await self.intake.record(lambda unit_of_work: [captured(lead_id, unit_of_work.now)])
        await self.qualification.record(lambda unit_of_work: [became_mql(lead_id, unit_of_work.now)])
        return lead_id

    async def sign(self) -> None:
        drafted = await self.http.post("/v1/sla/versions", json=SLA, headers=bearer("marketing"))
        assert drafted.status_code == 201, drafted.text
        at, sha = f"/v1/sla/versions/{drafted.json()['version']}", drafted.json()["content_sha256"]
        assert (await self.http.post(f"{at}/propose", headers=bearer("marketing"))).is_success
        for name in KEYS:
            signed = await self.http.post(f"{at}/signatures", json={"content_sha256": sha}, headers=bearer(name))
            assert signed.is_success, signed.text


def captured(lead_id: UUID, now: datetime) -> LeadCaptured:
    state = LeadState(source="website", captured_at=now, attributes={"employee_count": 250}, verdict="accepted")
    return LeadCaptured(lead_id=lead_id, sequence=1, occurred_at=now, recorded_at=now, state=state)


def became_mql(lead_id: UUID, now: datetime) -> LeadStageChanged:
    return LeadStageChanged(
        lead_id=lead_id,
        sequence=1,
        occurred_at=now,
        recorded_at=now,
        definition_version=1,
        stage="mql",
        stage_kind="open",
        stage_rank=1,
        stage_owner="marketing",
        visit=1,
        cause="automatic",
    )


def accepted(lead_id: UUID, occurred_at: datetime, now: datetime) -> LeadDecided:
    return LeadDecided(
        lead_id=lead_id,
        sequence=2,
        occurred_at=occurred_at,
        recorded_at=now,
        decision_id=uuid7(),
        definition_version=1,
        decision="accept",
        from_stage="mql",
        stage="sal",
        department="sales",
        actor="ann",
    )


@asynccontextmanager
async def producing(url: str, kafka: KafkaSettings, service: ServiceName) -> AsyncIterator[Producer]:
    database = Database(url, application_name=service)
    relay = Running(lambda: [Relay(PostgresRelayStore(database), KafkaLog(kafka), service)])
    relay.start()
    try:
        yield Producer(database, relay)
    finally:
        await relay.stop()
        await database.dispose()


@pytest.fixture
def settings(
    database_factory: Callable[..., str], kafka_server: Any, kafka_topic_prefix: str, tmp_path: Path
) -> Settings:
    keys = [
        {"name": name, "sha256": sha256(f"key-of-{name}".encode()).hexdigest(), "department": part, "scopes": scopes}
        for name, (part, scopes) in KEYS.items()
    ]
    (tmp_path / "keys.yaml").write_text(yaml.safe_dump({"keys": keys}))
    return Settings(
        database_url=database_factory("sla", partial(upgrade_sync, MIGRATIONS)),
        kafka_bootstrap_servers=kafka_server.bootstrap_servers,
        kafka_topic_prefix=kafka_topic_prefix,
        api_keys_file=tmp_path / "keys.yaml",
    )


@pytest.fixture
async def world(settings: Settings, database_factory: Callable[..., str]) -> AsyncIterator[World]:
    service = build(settings)
    monitor = Running(lambda: service.background_workers("all"))
    async with AsyncExitStack() as stack:
        intake = await stack.enter_async_context(
            producing(database_factory("producer", migrate_messaging), settings.kafka, "intake")
        )
        qualification = await stack.enter_async_context(
            producing(database_factory("producer", migrate_messaging), settings.kafka, "qualification")
        )
        transport = httpx.ASGITransport(app=create_app(service))
        http = await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url="http://sla"))
        stack.push_async_callback(service.database.dispose)
        monitor.start()
        stack.push_async_callback(monitor.stop)
        world = World(intake, qualification, http, service.database)
        await world.sign()
        await until(world.as_of)  # every partition of both topics has a watermark
        yield world


@pytest.mark.slow
async def test_relay_stopped_over_the_deadline_delays_the_breach_and_causes_none(world: World) -> None:
    answered, ignored = await world.enter(), await world.enter()
    clock = await world.in_state(answered, "running")
    await world.in_state(ignored, "running")
    due_at, in_time = datetime.fromisoformat(clock["due_at"]), datetime.fromisoformat(clock["started_at"])
    assert due_at - in_time == timedelta(seconds=ALLOWED_S)

    await world.qualification.relay.stop()
    await world.qualification.record(
        lambda unit_of_work: [accepted(answered, in_time + timedelta(seconds=1), unit_of_work.now)]
    )

    async def deadline_long_past() -> bool:
        return await world.now() > due_at + timedelta(seconds=3)

    await until(deadline_long_past)
    as_of = await world.as_of()
    assert as_of is not None
    assert as_of < due_at
    assert await world.breaches() == []
    for lead_id in (answered, ignored):
        found = await world.clock(lead_id)
        assert found is not None
        assert found["state"] == "running"

    world.qualification.relay.start()
    await world.in_state(answered, "met")
    await world.in_state(ignored, "breached")
    breaches = await world.breaches()
    assert [breach["lead_id"] for breach in breaches] == [str(ignored)]
    assert breaches[0]["clause"] == "accept-mql"
    assert breaches[0]["obliges"] == "sales"


@pytest.mark.slow
async def test_late_report_of_an_action_in_time_withdraws_the_breach(world: World) -> None:
    lead_id = await world.enter()
    clock = await world.in_state(lead_id, "breached")
    in_time = datetime.fromisoformat(clock["started_at"]) + timedelta(seconds=2)
    await world.qualification.record(lambda unit_of_work: [accepted(lead_id, in_time, unit_of_work.now)])
    await world.in_state(lead_id, "met")
    attainment = (await world.read("/v1/attainment", by="clause"))["groups"]
    assert [(group["met"], group["breached"]) for group in attainment] == [(1, 0)]
