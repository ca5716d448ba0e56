"""Intake with keys that seal secrets and with its worker for events of tools, and tools that send to it."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
from tests.intake.conftest import Running
from tests.intake.tools import TOOLS

from accord.service import Service, create_app
from intake.hooks.service.processing import HookEventProcessor
from intake.main import build
from intake.settings import Settings

SEALING_KEY = base64.b64encode(b"a key of thirty-two bytes, just s").decode()[:43] + "="


def settings_of(url: str, keys: Path, **changes: Any) -> Settings:
    """Settings with a key that seals secrets."""
    values: dict[str, Any] = {
        "database_url": url,
        "kafka_bootstrap_servers": "127.0.0.1:1",
        "api_keys_file": keys,
        "secrets_keys": SEALING_KEY,
        **changes,
    }
    return Settings(**{name: value for name, value in values.items() if value is not None})


class HookClient(Running):
    """A running intake to which tools can be connected."""

    def __init__(self, service: Service, transport: httpx.ASGITransport, dsn: str) -> None:
        super().__init__(transport, dsn)
        self.service = service
        self.admin = self.marketing
        self.plain = httpx.AsyncClient(transport=transport, base_url="http://intake")
        """A client without any key, as tools are."""

    async def put(self, name: str, body: dict[str, Any], **headers: str) -> httpx.Response:
        return await self.admin.http.put(f"/v1/sources/{name}", json=body, headers=headers)

    async def connect(self, tool: str, name: str | None = None, **more: Any) -> str:
        """Configure a source for a tool with its secret; the source's name."""
        known = TOOLS[tool]
        secrets = {known.use: known.secret, **more.pop("secrets", {})}
        source = name or tool
        (await self.put(source, {"adapter": tool, "secrets": secrets, **more})).raise_for_status()
        return source

    async def send(
        self,
        tool: str,
        source: str | None = None,
        body: bytes | None = None,
        *,
        secret: str | None = None,
        at: datetime | None = None,
    ) -> httpx.Response:
        """Have the tool call, signed as it signs."""
        call = TOOLS[tool].call(source or tool, body, secret=secret, at=at)
        return await self.plain.post(call.path, content=call.body, headers=dict(call.headers))

    async def leads(self) -> list[dict[str, Any]]:
        return await self.rows("SELECT * FROM lead WHERE merged_into IS NULL ORDER BY lead_id")

    async def events_of(self, source: str, state: str) -> list[dict[str, Any]]:
        found = await self.admin.get(f"/v1/sources/{source}/events", state=state)
        items: list[dict[str, Any]] = found.raise_for_status().json()["items"]
        return items

    @property
    def hook_work(self) -> HookEventProcessor:
        worker = next(worker for worker in self.service.workers if worker.name == "hook-events")
        work: HookEventProcessor = worker._work.__self__  # type: ignore[attr-defined]
        return work

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """The worker runs that does what could not be done at once."""
        stop = asyncio.Event()
        worker = next(worker for worker in self.service.workers if worker.name == "hook-events")
        task = asyncio.create_task(worker.run(stop))
        try:
            yield
        finally:
            stop.set()
            await task


def outcomes(answer: httpx.Response) -> list[str]:
    """What became of each event of a call, in order."""
    assert answer.status_code == 200, answer.text
    return [one["outcome"] for one in answer.json()["results"]]


def left_out(result: dict[str, Any]) -> list[str]:
    """The pointers to what was left out of one event."""
    return [one["pointer"] for one in result.get("left_out", [])]


async def until(look: Callable[[], Awaitable[Any]], within_s: float = 15.0) -> Any:
    """What `look` gives, once it gives something."""
    async with asyncio.timeout(within_s):
        while not (found := await look()):  # noqa: ASYNC110 - it holds in the database or another process
            await asyncio.sleep(0.02)
    return found


@asynccontextmanager
async def running_hook_client(url: str, keys: Path, **changes: Any) -> AsyncIterator[HookClient]:
    """Intake with its group commits running."""
    service = build(settings_of(url, keys, **changes))
    stop = asyncio.Event()
    workers = [asyncio.create_task(worker.run(stop)) for worker in service.api_workers]
    try:
        yield HookClient(
            service, httpx.ASGITransport(create_app(service)), url.replace("postgresql+asyncpg", "postgresql")
        )
    finally:
        stop.set()
        await asyncio.gather(*workers)
        if service.close is not None:
            await service.close()
        await service.database.dispose()
