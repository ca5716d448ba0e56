"""Intake with its import worker, in this process, and what a sender of files does."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from tests.intake.conftest import Running

from accord.service import create_app, serve
from intake.main import build
from intake.settings import Settings

CSV = {"Content-Type": "text/csv"}
NDJSON = {"Content-Type": "application/x-ndjson"}
ENDED = ("finished", "cancelled", "failed")
PATIENCE_S = 60.0


class ImportClient(Running):
    """A running intake, and the import worker if it was asked for."""

    settings: Settings

    async def send(self, body: Any, headers: dict[str, str] | None = None, **params: Any) -> httpx.Response:
        """POST a file."""
        return await self.marketing.http.post(
            "/v1/imports", content=body, headers=headers or CSV, params={"source": "list", **params}
        )

    async def import_file(self, body: Any, headers: dict[str, str] | None = None, **params: Any) -> dict[str, Any]:
        """POST a file and wait until its import has ended; the import."""
        sent = await self.send(body, headers, **params)
        assert sent.status_code == 202, sent.text
        return await self.wait_until_ended(sent.json()["import_id"])

    async def get_import(self, import_id: str) -> dict[str, Any]:
        found: dict[str, Any] = (await self.marketing.get(f"/v1/imports/{import_id}")).raise_for_status().json()
        return found

    async def wait_until_ended(self, import_id: str) -> dict[str, Any]:
        return await self.until(import_id, lambda found: found["state"] in ENDED)

    async def until(self, import_id: str, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                found = await self.get_import(import_id)
                if holds(found):
                    return found
                await asyncio.sleep(0.02)

    async def list_imports(self, holds: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
        """The list of imports, once this holds of it."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                found: list[dict[str, Any]] = (
                    (await self.marketing.get("/v1/imports")).raise_for_status().json()["items"]
                )
                if holds(found):
                    return found
                await asyncio.sleep(0.02)

    async def wait_until_empty(self, table: str) -> None:
        """Wait until there is no row in a table."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                if not await self.rows(f"SELECT 1 FROM {table} LIMIT 1"):
                    return
                await asyncio.sleep(0.02)

    async def errors(self, import_id: str) -> str:
        answer = (await self.marketing.get(f"/v1/imports/{import_id}/errors")).raise_for_status()
        return answer.text.removeprefix("\ufeff")

    async def results(self, import_id: str, **params: str) -> list[dict[str, Any]]:
        """All rows, through all pages."""
        found: list[dict[str, Any]] = []
        cursor: dict[str, str] = {}
        while True:
            path = f"/v1/imports/{import_id}/rows"
            page = (await self.marketing.get(path, **params, **cursor)).raise_for_status().json()
            found += page["items"]
            if page["next_cursor"] is None:
                return found
            cursor = {"cursor": page["next_cursor"]}


def count_rows(found: dict[str, Any]) -> dict[str, int]:
    """The counts of an import that are not zero."""
    return {name: count for name, count in found["rows"].items() if count}


def people(count: int, *, doubled: int = 0, bad: int = 0) -> bytes:
    """A file of new people, the first of them twice, and rows that fail."""
    rows = [f"p{n}@initech.example,Title {n}" for n in range(count)]
    rows += rows[:doubled]
    rows += [f"nobody {n},x" for n in range(bad)]
    return "\n".join(["email,title", *random.Random(5).sample(rows, len(rows)), ""]).encode()


@asynccontextmanager
async def listening(accord: ImportClient) -> AsyncIterator[int]:
    """The same app behind a real socket; its port."""
    server = serve(accord.transport.app, accord.settings)
    with socket.create_server(("127.0.0.1", 0)) as bound:
        serving = asyncio.create_task(server.serve_on(bound))
        try:
            yield bound.getsockname()[1]
        finally:
            server.should_exit = True
            await serving


@asynccontextmanager
async def running_import_client(
    url: str, keys: Path, *, works: bool = True, **options: Any
) -> AsyncIterator[ImportClient]:
    """Intake with its group commits running, and its import worker unless it shall not work."""
    settings = Settings(database_url=url, kafka_bootstrap_servers="127.0.0.1:1", api_keys_file=keys, **options)
    service = build(settings)
    stop = asyncio.Event()
    workers = [*service.api_workers, *(one for one in service.workers if works and one.name == "imports")]
    tasks = [asyncio.create_task(worker.run(stop)) for worker in workers]
    try:
        accord = ImportClient(httpx.ASGITransport(create_app(service)), url.replace("postgresql+asyncpg", "postgresql"))
        accord.settings = settings
        yield accord
    finally:
        stop.set()
        await asyncio.gather(*tasks)
        await service.database.dispose()
