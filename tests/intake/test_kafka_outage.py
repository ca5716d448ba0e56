"""Intake needs PostgreSQL and not Kafka: an outage of hours fails no probe, loses no lead and leaves nothing behind in memory."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from pathlib import Path

import httpx
import pytest
from prometheus_client import REGISTRY
from tests.intake.conftest import Running

from accord import health, supervision, workers
from accord.retry import Backoff
from accord.service import create_app
from accord.supervision import SupervisedWorker
from accord.telemetry import configure_logging
from intake.main import build
from intake.settings import Settings

HOURS = 6
ROUND_S = 30.0
WARM_UP_ROUNDS = 60


class Outage:
    """A clock of the test's own: each time the relay waits to try again, half a minute has gone by."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 1_000.0
        self.rounds = 0
        self._reached = asyncio.Condition()
        for module in (workers, supervision, health):
            monkeypatch.setattr(module, "monotonic", lambda: self.now_s)
        monkeypatch.setattr("accord.messaging.relay._now", lambda: self.now_s)
        monkeypatch.setattr(Backoff, "wait", lambda _, stop: self._wait(stop))

    async def _wait(self, stop: asyncio.Event) -> None:
        self.now_s += ROUND_S
        self.rounds += 1
        async with self._reached:
            self._reached.notify_all()
        await asyncio.sleep(0.0 if not stop.is_set() else 0.01)

    async def until(self, rounds: int) -> None:
        async with self._reached:
            await self._reached.wait_for(lambda: self.rounds >= rounds)


def left_in_memory() -> Counter[str]:
    """Objects of Kafka's client, and tasks, by type."""
    gc.collect()
    kinds = Counter(f"{type(one).__module__}.{type(one).__name__}" for one in gc.get_objects())
    found = Counter({kind: count for kind, count in kinds.items() if kind.startswith("aiokafka.")})
    found["tasks"] = len(asyncio.all_tasks())
    return found


async def test_hours_without_kafka_fail_no_probe_and_leave_nothing_behind(
    database_url: str, keys_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure_logging("info")  # pytest's own handlers would keep every record, and with it what its arguments hold
    outage = Outage(monkeypatch)
    service = build(Settings(database_url=database_url, kafka_bootstrap_servers="127.0.0.1:1", api_keys_file=keys_file))
    own = [SupervisedWorker(worker, restarts=True) for worker in (*service.relays, *service.api_workers)]
    app = httpx.ASGITransport(create_app(service, service.health("all", own)))
    intake = Running(app, database_url.replace("postgresql+asyncpg", "postgresql"))
    stop = asyncio.Event()
    running = [asyncio.create_task(worker.run(stop)) for worker in own]
    taken = 0
    before: Counter[str] = Counter()
    for rounds in range(WARM_UP_ROUNDS, int(HOURS * 3600 / ROUND_S) + 1, WARM_UP_ROUNDS):
        await outage.until(rounds)
        before = before or left_in_memory()
        lead = {"source": "website", "email": f"p{taken}@initech.example"}
        assert (await intake.marketing.post("/v1/leads", lead)).status_code == 201
        taken += 1
        assert (await intake.marketing.get("/livez")).json() == {"status": "ok", "problems": []}
    ready = await intake.marketing.get("/readyz")
    assert ready.status_code == 200
    assert ready.json()["checks"]["kafka"].startswith("degraded")
    assert ready.json()["workers"] == {}
    await intake.marketing.get("/metrics")
    assert REGISTRY.get_sample_value("accord_outbox_rows") == taken
    grown = left_in_memory() - before
    assert not {kind: count for kind, count in grown.items() if count > 3}, grown
    stop.set()
    await asyncio.gather(*running)
    await service.database.dispose()
