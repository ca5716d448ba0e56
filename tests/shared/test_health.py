"""Probes: liveness is about the process, readiness about what this role needs."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from shared_kit import Kit
from starlette.applications import Starlette

from accord import health as health_module
from accord.health import Health
from accord.supervision import SupervisedWorker


class Silent:
    """A worker that runs and is stuck."""

    name = "silent"

    async def run(self, stop: asyncio.Event) -> None:
        await stop.wait()

    def problem(self) -> str | None:
        return "silent: stuck"


class Server:
    """Something outside: it answers, refuses or hangs."""

    def __init__(self) -> None:
        self.state = "ok"

    async def check(self) -> None:
        if self.state == "refuses":
            raise ConnectionRefusedError
        if self.state == "hangs":
            await asyncio.sleep(3600)


async def asked(health: Health, path: str) -> tuple[int, dict[str, Any]]:
    transport = httpx.ASGITransport(Starlette(routes=health.routes()))
    async with httpx.AsyncClient(transport=transport, base_url="http://probes") as client:
        answer = await client.get(path)
    return answer.status_code, answer.json()


@pytest.fixture
def each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks are asked at each probe."""
    monkeypatch.setattr(health_module, "SharedRun", lambda check: check)


@pytest.mark.usefixtures("each_time")
@pytest.mark.parametrize(
    ("database", "kafka", "code", "status"),
    [
        ("ok", "ok", 200, "ready"),
        ("ok", "refuses", 200, "degraded"),
        ("ok", "hangs", 200, "degraded"),
        ("refuses", "ok", 503, "not ready"),
        ("refuses", "refuses", 503, "not ready"),
    ],
)
async def test_only_what_is_needed_makes_it_unready(
    database: str, kafka: str, code: int, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_module, "_INFORMATION_S_MAX", 0.01)
    needed, used = Server(), Server()
    needed.state, used.state = database, kafka
    answer = await asked(Health({"database": needed.check}, optional={"kafka": used.check}), "/readyz")
    assert (answer[0], answer[1]["status"]) == (code, status)
    assert (answer[1]["checks"]["kafka"] == "ok") is (kafka == "ok")


@pytest.mark.usefixtures("each_time")
async def test_a_worker_that_is_silent_in_an_outage_fails_no_liveness_and_one_that_is_silent_afterwards_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [0.0]
    monkeypatch.setattr(health_module, "monotonic", lambda: clock[0])
    monkeypatch.setattr(health_module, "_LIVENESS_CHECK_S_MAX", 0.01)
    database, kafka = Server(), Server()
    worker = SupervisedWorker(Silent(), restarts=True)
    health = Health({"database": database.check}, [worker], optional={"kafka": kafka.check})
    stop = asyncio.Event()
    running = asyncio.create_task(worker.run(stop))
    await asyncio.sleep(0)
    assert await asked(health, "/livez") == (503, {"status": "stuck", "problems": ["silent: stuck"]})
    for server, state in ((kafka, "refuses"), (database, "hangs")):
        server.state = state
        for _ in range(6 * 60):
            clock[0] += 60.0
            assert await asked(health, "/livez") == (200, {"status": "waiting", "problems": ["silent: stuck"]})
        server.state = "ok"
        clock[0] += health_module._RECOVERY_S / 2
        assert (await asked(health, "/livez"))[0] == 200
        clock[0] += health_module._RECOVERY_S
        assert (await asked(health, "/livez"))[0] == 503
    stop.set()
    await running


async def test_probes_at_once_ask_a_server_once() -> None:
    asks = 0
    release = asyncio.Event()

    async def check() -> None:
        nonlocal asks
        asks += 1
        await release.wait()

    health = Health({"database": check})
    probes = [asyncio.create_task(asked(health, "/readyz")) for _ in range(20)]
    while not asks:  # noqa: ASYNC110 - set by the check itself
        await asyncio.sleep(0)
    release.set()
    assert {code for code, _ in await asyncio.gather(*probes)} == {200}
    assert asks == 1


async def test_process_that_holds_all_of_its_own_connections_is_stuck(kit: Kit) -> None:
    worker = SupervisedWorker(Silent(), restarts=True)
    stop = asyncio.Event()
    running = asyncio.create_task(worker.run(stop))
    async with AsyncExitStack() as held:
        for _ in range(kit.database.engine.pool.size()):  # type: ignore[attr-defined]
            await held.enter_async_context(kit.database.engine.connect())
        assert await asked(kit.service.health("api", [worker]), "/livez") == (
            503,
            {"status": "stuck", "problems": ["silent: stuck"]},
        )
    stop.set()
    await running
