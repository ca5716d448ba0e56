"""Notifications of the SLA monitor: its database, its routes and the worker, which a test steps or runs."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
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
from tests.notifications.receivers import HttpReceiver, http_receiver
from uuid_utils.compat import uuid7

from accord.contracts.base import EventData
from accord.contracts.sla_events import (
    BreachAcknowledged,
    ClockAtRisk,
    ClockBreached,
    ClockCancelled,
    ClockMet,
    ClockStarted,
)
from accord.db import Database
from accord.migrations.run import upgrade_sync
from accord.notifications import NotificationEngine
from accord.outbound import LookUp, look_up
from accord.service import Service, create_app
from sla_monitor.main import MIGRATIONS
from sla_monitor.settings import Settings

KEYS: dict[str, tuple[str | None, list[str]]] = {
    "admin": (None, ["admin"]),
    "sales": ("sales", ["sla:read"]),
    "stranger": (None, ["sla:read"]),
}
ENCRYPTION_KEY = base64.b64encode(bytes(range(32))).decode()


@dataclass
class Desk:
    """The engine in a service, with a client that has the key `admin`."""

    engine: NotificationEngine
    database: Database
    http: httpx.AsyncClient

    async def subscribe(self, address: str, **content: Any) -> dict[str, Any]:
        body = {"name": f"s-{uuid7()}", "channel": "webhook", "address": address, "event_types": ["*"], **content}
        answer = await self.http.post("/v1/subscriptions", json=body)
        assert answer.status_code == 201, answer.text
        return answer.json()

    async def publish(self, *makes: Callable[[datetime], EventData]) -> list[UUID]:
        """Publish in one unit of work; the ids of the events."""
        async with self.database.write_transaction() as unit_of_work:
            unit_of_work.publish(*(make(unit_of_work.now) for make in makes))
        return [row.event_id for row in unit_of_work.pending]

    async def step(self, rounds: int = 3) -> None:
        """Deliver what is due, and await its end."""
        for _ in range(rounds):
            began = await self.engine.delivery.deliver_due()
            await self.engine.delivery.finish()
            if not began:
                break

    async def pass_time(self, by: timedelta) -> None:
        """Make all deliveries older, as if so much time had passed."""
        await self.execute(
            "UPDATE delivery SET created_at = created_at - $1::interval, due_at = due_at - $1::interval,"
            " attempted_at = attempted_at - $1::interval",
            by,
        )
        await self.execute(
            "UPDATE subscription SET failing_since = failing_since - $1::interval, last_failed_at = last_failed_at - $1::interval",
            by,
        )
        self.free()

    def free(self) -> None:
        """Let endpoints forget when they may be asked again."""
        for endpoint in self.engine.delivery._endpoints.values():
            endpoint.free_at = 0.0

    async def execute(self, statement: str, *values: Any) -> None:
        async with self.database.write_transaction() as unit_of_work:
            await (await unit_of_work.connection()).execute(statement, *values)

    async def deliveries(self, **query: Any) -> list[dict[str, Any]]:
        """Deliveries as HTTP lists them, the oldest first."""
        answer = await self.http.get("/v1/deliveries", params=query)
        assert answer.status_code == 200, answer.text
        return list(reversed(answer.json()["items"]))

    async def delivery(self, delivery_id: str) -> dict[str, Any]:
        answer = await self.http.get(f"/v1/deliveries/{delivery_id}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def only_delivery(self) -> dict[str, Any]:
        (found,) = await self.deliveries()
        return await self.delivery(found["delivery_id"])

    async def subscription(self, subscription_id: str) -> dict[str, Any]:
        return (await self.http.get(f"/v1/subscriptions/{subscription_id}")).json()

    async def until(self, holds: Callable[[], Awaitable[bool]] | Callable[[], bool], within_s: float = 30.0) -> None:
        async with asyncio.timeout(within_s):
            while True:
                found = holds()
                if found if isinstance(found, bool) else await found:
                    return
                await asyncio.sleep(0.02)


_BASE = {"clause": "accept-mql", "obliges": "sales", "sla_version": 1, "owner": "ann", "source": "website"}


def _make(type_: Any, clock_id: UUID | None, fields: dict[str, Any]) -> Callable[[datetime], EventData]:
    clock = clock_id or uuid7()

    def make(now: datetime) -> EventData:
        values = {
            **_BASE,
            "clock_id": clock,
            "lead_id": uuid7(),
            "sequence": 1,
            "started_at": now - timedelta(hours=1),
            "due_at": now + timedelta(hours=1),
            "occurred_at": now,
            "recorded_at": now,
        }
        return type_(**values | fields)

    return make


def started(clock_id: UUID | None = None, **fields: Any) -> Callable[[datetime], EventData]:
    return _make(ClockStarted, clock_id, fields)


def at_risk(clock_id: UUID | None = None, **fields: Any) -> Callable[[datetime], EventData]:
    return _make(ClockAtRisk, clock_id, {"fraction": 0.75} | fields)


def breached(clock_id: UUID | None = None, **fields: Any) -> Callable[[datetime], EventData]:
    return _make(ClockBreached, clock_id, {"breach_id": uuid7()} | fields)


def met(clock_id: UUID | None = None, **fields: Any) -> Callable[[datetime], EventData]:
    return _make(ClockMet, clock_id, {"late": False} | fields)


def acknowledged(clock_id: UUID | None = None, **fields: Any) -> Callable[[datetime], EventData]:
    return _make(BreachAcknowledged, clock_id, {"breach_id": uuid7(), "acknowledged_by": "boss", **fields})


def cancelled(clock_id: UUID | None = None, **fields: Any) -> Callable[[datetime], EventData]:
    return _make(ClockCancelled, clock_id, {"why": "the lead was disqualified"} | fields)


@pytest.fixture
def database_url(database_factory: Callable[..., str]) -> str:
    return database_factory("sla", partial(upgrade_sync, MIGRATIONS))


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    entries = [
        {
            "name": name,
            "sha256": sha256(f"key-of-{name}".encode()).hexdigest(),
            "department": department,
            "scopes": scopes,
        }
        for name, (department, scopes) in KEYS.items()
    ]
    path = tmp_path / "keys.yaml"
    path.write_text(yaml.safe_dump({"keys": entries}))
    return path


MakeDesk = Callable[..., Awaitable[Desk]]


@pytest.fixture
async def make_desk(database_url: str, keys_file: Path) -> AsyncIterator[MakeDesk]:
    """Makes a process of the service; several share the database. Private addresses are allowed unless a test says otherwise."""
    made: list[Desk] = []

    async def make(*, look_up: LookUp = look_up, **options: Any) -> Desk:
        settings = Settings(
            database_url=database_url,
            kafka_bootstrap_servers="127.0.0.1:1",
            api_keys_file=keys_file,
            **{"outbound_allow_private": True, "secrets_keys": ENCRYPTION_KEY, **options},
        )
        database = Database(database_url, application_name="notifications", pool_size=5)
        engine = NotificationEngine("sla-monitor", database, settings, look_up=look_up)
        service = Service(
            name="sla-monitor",
            title="Desk",
            settings=settings,
            database=database,
            migrations=MIGRATIONS,
            routers=[engine.router()],
        )
        transport = httpx.ASGITransport(create_app(service))
        http = httpx.AsyncClient(transport=transport, base_url="http://desk", headers=bearer("admin"))
        made.append(Desk(engine, database, http))
        return made[-1]

    yield make
    for desk in made:
        await desk.http.aclose()
        await desk.database.dispose()


@pytest.fixture
async def desk(make_desk: MakeDesk) -> Desk:
    return await make_desk()


@pytest.fixture
async def receiver() -> AsyncIterator[HttpReceiver]:
    async with http_receiver() as one:
        yield one


def bearer(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer key-of-{name}"}


def outcomes(delivery: dict[str, Any]) -> Sequence[str]:
    return [attempt["outcome"] for attempt in delivery["log"]]
