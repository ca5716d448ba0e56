"""The relay: how much it publishes in a second out of a full outbox, and how soon an event is readable after its commit."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack

import asyncpg

from tests.bench.environment import BenchEnvironment
from tests.bench.events import outbox_rows
from tests.bench.load import Load
from tests.bench.meter import Meter
from tests.bench.reading import Listener, Reader, listen_for, open_reader, recorded_at
from tests.bench.report import Figure, median

ROUNDS = 3
EVENTS = {"ours": 100_000, "baseline": 30_000}
DRAIN_S_MAX = 120.0
LATENCY_RATE_PER_S = 1_000.0
LATENCY_S = 8.0
_COLUMNS = ("event_id", "type", "key", "occurred_at", "recorded_at", "payload")


def throughput(bench: BenchEnvironment) -> list[Figure]:
    """A full outbox, committed at once, until all of it is in Kafka."""
    rates: dict[str, list[float]] = {who: [] for who in bench.sides}
    costs: dict[str, list[float]] = {who: [] for who in bench.sides}
    others: list[float] = []
    for _ in range(ROUNDS):
        for who in bench.sides:
            with ExitStack() as stack:
                topic = f"{who}-intake-events"
                if who == "ours":
                    pid = stack.enter_context(bench.service("intake", role="relay", prefix="ours-")).pid or 0
                else:
                    pid = stack.enter_context(bench.baseline("relay", "intake", prefix="baseline-"))[1]
                bench.settle()
                rate, meter = asyncio.run(_drain(bench, topic, EVENTS[who], [pid, bench.postgres_pid]))
                rates[who].append(rate)
                costs[who].append(meter.cpu_s / EVENTS[who] * 1e6)
                others.append(round(meter.others_cores, 2))
    return [
        Figure(
            "relay, outbox to Kafka",
            "events/s",
            median(rates["ours"]),
            median(rates["baseline"]) if "baseline" in rates else None,
            least=20_000,
            cpu_us={who: median(of) for who, of in costs.items()},
            limit="Python's processor time: headers and record batches",
            detail={"rates": rates, "cpu_us": costs, "others_cores": others},
        )
    ]


def latency(bench: BenchEnvironment) -> list[Figure]:
    """Submissions at 1,000 a second: from the beginning of each one's transaction to a consumer that has read it."""
    with bench.service("intake", prefix="live-") as service:
        bench.sql("intake", "TRUNCATE outbox; ANALYZE")
        load = Load(
            service.port,
            bench.keys["ACCORD_MARKETING_KEY"],
            bench.next_run(),
            rate_per_s=LATENCY_RATE_PER_S,
            connections=128,
            seconds=LATENCY_S,
        )
        meter = Meter([service.pid or 0, bench.postgres_pid])
        listener, statuses = asyncio.run(
            listen_for(bench, load, "live-intake-events", Listener("lead.captured.v1", recorded_at))
        )
        meter.stop()
    return [
        Figure(
            "commit to readable in Kafka, p99 at 1,000/s",
            "ms",
            listener.percentile_ms(0.99),
            most=150.0,
            limit="rounds of the relay between the batches of intake",
            detail={
                "p50_ms": listener.percentile_ms(0.5),
                "events": len(listener.latencies_ms),
                "statuses": statuses,
                "others_cores": round(meter.others_cores, 2),
            },
        )
    ]


async def _drain(bench: BenchEnvironment, topic: str, events: int, pids: list[int]) -> tuple[float, Meter]:
    connection = await asyncpg.connect(bench.dsn("intake"))
    try:
        await connection.execute("TRUNCATE outbox")
        async with open_reader(bench.bootstrap_servers, topic) as reader:
            await _warm_up(connection, reader)
            before = await reader.records()
            async with connection.transaction():
                await connection.copy_records_to_table("outbox", records=outbox_rows(events), columns=_COLUMNS)
            began, meter = time.monotonic(), Meter(pids)
            ended = await reader.reaches(before + events, timeout_s=DRAIN_S_MAX)
            return events / (ended - began), meter.stop()
    finally:
        await connection.close()


async def _warm_up(connection: asyncpg.Connection, reader: Reader) -> None:
    """The relay leads and has its producer once it has published something."""
    before = await reader.records()
    await connection.copy_records_to_table("outbox", records=outbox_rows(100), columns=_COLUMNS)
    await reader.reaches(before + 100, timeout_s=DRAIN_S_MAX)
