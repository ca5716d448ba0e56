"""A new version of the definition: how many leads a second are judged by it in the background, and what live traffic feels of it.

ACCORD_BENCH_LEADS is how many leads there are, 50,000 by default; 1000000 is the whole target and takes some minutes to prepare.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime

from aiokafka import AIOKafkaProducer

from accord.contracts.envelope import Event, encode
from accord.ids import new_id
from accord_local.demo.client import Client
from accord_local.services import Service
from tests.bench.environment import DEFINITION, BenchEnvironment
from tests.bench.events import captured
from tests.bench.meter import Meter
from tests.bench.qualifying import fill, measure_throughput
from tests.bench.reading import SETTLE_S, Listener, occurred_at, open_reader
from tests.bench.report import Figure

LEADS = int(os.environ.get("ACCORD_BENCH_LEADS", "50000"))
MODELS = 2_500
"""So many leads come in as they do in life; the others are copies of them."""

LIVE_PER_S = 20.0
IDLE_S = 20.0
WAIT_S_MAX = 900.0
POLL_S = 1.0
PER_S_MIN = 1_000_000 / 300
P99_TIMES_MAX = 2.0
_PREFIX = "again-"

_COPIES = """
CREATE TEMPORARY TABLE copied AS
SELECT lead_id AS was, (lpad(to_hex(16 + copy), 8, '0') || substr(md5(lead_id::text || copy), 9))::uuid AS lead_id
FROM lead, generate_series({first}, {last}) AS copy WHERE lead_id > '01000000-0000-0000-0000-000000000000';
CREATE INDEX ON copied (was);
ANALYZE copied;
INSERT INTO lead SELECT (jsonb_populate_record(lead, jsonb_build_object('lead_id', copied.lead_id))).*
FROM copied JOIN lead ON lead.lead_id = copied.was ORDER BY copied.lead_id;
INSERT INTO activity (lead_id, kind, occurred_at, activity_id, by)
SELECT copied.lead_id, kind, occurred_at, activity_id, by
FROM copied JOIN activity ON activity.lead_id = copied.was ORDER BY copied.lead_id;
INSERT INTO stage_entry SELECT (jsonb_populate_record(entry, jsonb_build_object('lead_id', copied.lead_id))).*
FROM copied JOIN stage_entry AS entry ON entry.lead_id = copied.was ORDER BY copied.lead_id;
"""
"""Of the models, whose ids are of today; those of copies are smaller, and each round of copies lies together as leads of one day do."""

_COPIES_AT_ONCE = 20


def reevaluation(bench: BenchEnvironment) -> list[Figure]:
    """The background worker, with the relay and live traffic in the same process."""
    with bench.service("qualification", prefix="prepare-"):
        pass  # migrated, and the first version signed
    asyncio.run(fill(bench, f"{_PREFIX}intake-events", MODELS * 4, 0))
    with bench.service("qualification", prefix=_PREFIX) as service:
        asyncio.run(
            measure_throughput(
                bench, f"{_PREFIX}intake-events", f"{_PREFIX}qualification", MODELS * 4, service.pid or 0
            )
        )
        _copy_leads(bench, max(1, LEADS // MODELS - 1))
        bench.settle()
        return asyncio.run(_measured(bench, service))


def _copy_leads(bench: BenchEnvironment, copies: int) -> None:
    for first in range(1, copies + 1, _COPIES_AT_ONCE):
        last = min(copies, first + _COPIES_AT_ONCE - 1)
        bench.sql("qualification", _COPIES.format(first=first, last=last))
    bench.sql("qualification", "TRUNCATE outbox; ANALYZE")


async def _measured(bench: BenchEnvironment, service: Service) -> list[Figure]:
    listener, stop = Listener("lead.stage_changed.v1", _of_live), asyncio.Event()
    topic = f"{_PREFIX}qualification-events"
    async with open_reader(bench.bootstrap_servers, topic):
        pass
    tasks = [
        asyncio.create_task(listener.listen(bench.bootstrap_servers, topic, stop)),
        asyncio.create_task(_live(bench, stop)),
    ]
    try:
        await asyncio.sleep(SETTLE_S)
        begins = len(listener.latencies_ms)
        await asyncio.sleep(IDLE_S)
        idle = sorted(listener.latencies_ms[begins:])
        version = await asyncio.to_thread(_sign_another, bench, service)
        await _until(lambda: _state(bench, version) is not None)
        begins, meter = len(listener.latencies_ms), Meter([service.pid or 0, bench.postgres_pid])
        await _until(lambda: (_state(bench, version) or {}).get("done") == "t")
        meter.stop()
        busy = sorted(listener.latencies_ms[begins:])
    finally:
        stop.set()
        await asyncio.gather(*tasks)
    state = _state(bench, version) or {}
    processed, seconds = int(state["processed"]), float(state["seconds"])
    detail = {
        "leads": processed,
        "judged": int(state["judged"]),
        "entered another stage": int(state["changed"]),
        "seconds": seconds,
        "live_per_s": LIVE_PER_S,
        "others_cores": round(meter.others_cores, 2),
    }
    return [
        Figure(
            "re-evaluation by a new version, in the background",
            "leads/s",
            processed / seconds,
            least=PER_S_MIN,
            cpu_us={"ours": meter.cpu_s / processed * 1e6},
            limit="Python's processor time, and what is told meanwhile goes first",
            detail=detail,
        ),
        Figure(
            "… live capture to stage readable meanwhile, p99 (baseline: without it)",
            "ms",
            _p(busy, 0.99),
            _p(idle, 0.99),
            most=P99_TIMES_MAX * _p(idle, 0.99),
            limit="an event waits for a round of re-evaluation in the same process",
            detail={"p50_ms": _p(busy, 0.5), "idle_p50_ms": _p(idle, 0.5), "events": len(busy), "idle": len(idle)},
        ),
    ]


def _of_live(value: bytes, headers: dict[str, bytes]) -> str | None:
    """Only captures are live; entries by the new version are dated when that came into force."""
    return occurred_at(value, headers) if b'"cause":"capture"' in value else None


async def _live(bench: BenchEnvironment, stop: asyncio.Event) -> None:
    """New leads at a steady rate, each dated when it was due to be sent."""
    producer = AIOKafkaProducer(bootstrap_servers=bench.bootstrap_servers, acks="all", linger_ms=1)
    await producer.start()
    try:
        began, n = time.monotonic(), 0
        while not stop.is_set():
            await asyncio.sleep(max(0.0, began + n / LIVE_PER_S - time.monotonic()))
            key, value, headers = encode(Event(new_id(), "/intake", captured(datetime.now(UTC), n)))
            await producer.send(f"{_PREFIX}intake-events", value=value, key=key, headers=headers)
            n += 1
    finally:
        await producer.stop()


def _sign_another(bench: BenchEnvironment, service: Service) -> int:
    """A version by which every lead has other points and some enter another stage; its number."""
    text = (
        DEFINITION.read_text()
        .replace("points: 40}\n", "points: 45}\n", 1)
        .replace("gte, value: 20}", "gte, value: 12}")
    )
    versions = f"{service.url}/v1/definition/versions"
    keys = bench.keys
    with Client(keys["ACCORD_MARKETING_KEY"]) as marketing, Client(keys["ACCORD_SALES_KEY"]) as sales:
        draft = marketing.post(versions, content=text.encode(), headers={"Content-Type": "application/yaml"})
        version = f"{versions}/{draft['version']}"
        proposed = marketing.post(f"{version}/propose")
        for caller in (marketing, sales):
            caller.post(f"{version}/signatures", {"content_sha256": proposed["content_sha256"]})
    return int(draft["version"])


def _state(bench: BenchEnvironment, version: int) -> dict[str, str] | None:
    found = bench.sql(
        "qualification",
        "SELECT processed, evaluated, changed, done_at IS NOT NULL, extract(epoch FROM coalesce(done_at, now()) - started_at)"
        f" FROM reevaluation WHERE version = {version}",
    ).strip()
    if not found:
        return None
    return dict(zip(("processed", "evaluated", "changed", "done", "seconds"), found.split("|"), strict=True))


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S_MAX):
        while not await asyncio.to_thread(holds):  # noqa: ASYNC110 - only asking tells
            await asyncio.sleep(POLL_S)


def _p(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("nan")
