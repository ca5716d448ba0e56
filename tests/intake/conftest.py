"""Intake in one process over a migrated database of its own, called over HTTP. Its relay runs only in tests that need Kafka."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
import yaml
from tests.conftest import DatabaseFactory

import intake
from accord.http.auth import SCOPES, key_entry
from accord.migrations.run import upgrade_sync
from accord.service import create_app
from intake.main import build
from intake.settings import Settings

MIGRATIONS = Path(intake.__file__).parent / "migrations"
KEYS = {
    "marketing": "acc_marketing",
    "sales": "acc_sales",
    "reader": "acc_reader",
    "public": "acc_public",
    "writer": "acc_writer",
}
TEMPLATE = Path(__file__).parents[2] / "deploy" / "agreements" / "policy.yaml"


class Caller:
    """An HTTP client of one app, with one key."""

    def __init__(self, app: httpx.ASGITransport, key: str) -> None:
        self.http = httpx.AsyncClient(
            transport=app, base_url="http://intake", headers={"Authorization": f"Bearer {KEYS[key]}"}
        )

    async def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        return await self.http.post(path, json=body, headers=headers)

    async def get(self, path: str, **params: str) -> httpx.Response:
        return await self.http.get(path, params=params)


class Running:
    """A running intake: callers by key, and SQL on its database."""

    def __init__(self, transport: httpx.ASGITransport, dsn: str) -> None:
        self.transport = transport
        self.dsn = dsn
        self.marketing = Caller(transport, "marketing")
        self.sales = Caller(transport, "sales")

    def caller(self, key: str) -> Caller:
        return Caller(self.transport, key)

    async def rows(self, sql: str, *values: object) -> list[dict[str, Any]]:
        connection = await asyncpg.connect(self.dsn)
        try:
            return [dict(row) for row in await connection.fetch(sql, *values)]
        finally:
            await connection.close()

    async def events(self, type_: str | None = None) -> list[dict[str, Any]]:
        """What waits to be published, in order."""
        rows = await self.rows("SELECT type, key, convert_from(payload, 'UTF8') AS data FROM outbox ORDER BY id")
        found = [{"type": row["type"], "key": row["key"], **yaml.safe_load(row["data"])} for row in rows]
        return [event for event in found if type_ is None or event["type"] == type_]

    async def sign(self, content: Mapping[str, Any]) -> None:
        """Bring a policy into force."""
        draft = (await self.marketing.post("/v1/policy/versions", content)).raise_for_status().json()
        path = f"/v1/policy/versions/{draft['version']}"
        sha = (await self.marketing.post(f"{path}/propose", None)).raise_for_status().json()["content_sha256"]
        for caller in (self.marketing, self.sales):
            (await caller.post(f"{path}/signatures", {"content_sha256": sha})).raise_for_status()


@pytest.fixture(scope="session")
def keys_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "keys.yaml"
    scopes = sorted(SCOPES)
    entries = [
        key_entry("marketing", KEYS["marketing"], "marketing", scopes),
        key_entry("sales", KEYS["sales"], "sales", scopes),
        key_entry("reader", KEYS["reader"], None, ["leads:read", "personal:read"]),
        key_entry("public", KEYS["public"], None, ["leads:read"]),
        key_entry("writer", KEYS["writer"], None, ["leads:read", "leads:write"]),
    ]
    path.write_text(yaml.safe_dump({"keys": [dict(entry) for entry in entries]}))
    return path


@pytest.fixture
def database_url(database_factory: DatabaseFactory) -> str:
    return database_factory("intake", lambda url: upgrade_sync(MIGRATIONS, url))


@asynccontextmanager
async def running(url: str, keys: Path) -> AsyncIterator[Running]:
    """Intake with its group commits running. Its locks are waited for long, so that a busy machine is not taken for a deadlock, which
    PostgreSQL itself finds after a second."""
    settings = Settings(
        database_url=url, kafka_bootstrap_servers="127.0.0.1:1", api_keys_file=keys, database_lock_timeout_s=60
    )
    service = build(settings)
    stop = asyncio.Event()
    workers = [asyncio.create_task(worker.run(stop)) for worker in service.api_workers]
    try:
        yield Running(httpx.ASGITransport(create_app(service)), url.replace("postgresql+asyncpg", "postgresql"))
    finally:
        stop.set()
        await asyncio.gather(*workers)
        await service.database.dispose()


@pytest.fixture
async def accord(database_url: str, keys_file: Path) -> AsyncIterator[Running]:
    async with running(database_url, keys_file) as one:
        yield one


@pytest.fixture
def template() -> dict[str, Any]:
    """The policy template that ships with the project."""
    content: dict[str, Any] = yaml.safe_load(TEMPLATE.read_text())
    return content
