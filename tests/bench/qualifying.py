"""Qualification as a whole process: a backlog of intake's events through inbox, state and outbox, under a
definition of 20 criteria."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack

from aiokafka import AIOKafkaProducer

from tests.bench.environment import BenchEnvironment
from tests.bench.events import history
from tests.bench.meter import Meter
from tests.bench.reading import Reader, open_reader
from tests.bench.report import Figure, median

ROUNDS = 3
EVENTS = {"ours": 40_000, "baseline": 4_000}
WAIT_S_MAX = 240.0
SAMPLE_S = 0.05


def throughput(bench: BenchEnvironment) -> list[Figure]:
    """From the first committed offset of a backlog to the last."""
    rates: dict[str, list[float]] = {who: [] for who in bench.sides}
    costs: dict[str, list[float]] = {who: [] for who in bench.sides}
    others: list[float] = []
    with bench.service("qualification", prefix="prepare-"):
        pass  # migrated, and the definition signed
    for nth in range(ROUNDS):
        for who in bench.sides:
            prefix = f"{who}-{nth}-"
            asyncio.run(fill(bench, f"{prefix}intake-events", EVENTS[who], nth))
            bench.sql("qualification", "ANALYZE")
            bench.settle()
            with ExitStack() as stack:
                if who == "ours":
                    pid = stack.enter_context(bench.service("qualification", prefix=prefix)).pid or 0
                else:
                    pid = stack.enter_context(bench.baseline("consume", "qualification", prefix=prefix))[1]
                topic = f"{prefix}intake-events"
                group = f"{prefix}qualification" if who == "ours" else "baseline"
                rate, cpu_us, taken = asyncio.run(measure_throughput(bench, topic, group, EVENTS[who], pid))
            rates[who].append(rate)
            costs[who].append(cpu_us)
            others.append(taken)
            bench.sql("qualification", "TRUNCATE outbox")
    return [
        Figure(
            "qualification, events through inbox, 20 criteria, state and outbox",
            "events/s",
            median(rates["ours"]),
            median(rates["baseline"]) if "baseline" in rates else None,
            least=5_000,
            ratio_least=8 if "baseline" in rates else None,
            cpu_us={who: median(of) for who, of in costs.items()},
            limit="Python's processor time in its process",
            detail={"rates": rates, "cpu_us": costs, "others_cores": others},
        )
    ]


async def fill(bench: BenchEnvironment, topic: str, events: int, seed: int) -> None:
    """Write so many of intake's events."""
    async with open_reader(bench.bootstrap_servers, topic):
        producer = AIOKafkaProducer(bootstrap_servers=bench.bootstrap_servers, acks="all", linger_ms=5)
        await producer.start()
        try:
            sent = [
                await producer.send(topic, value=value, key=key, headers=headers)
                for key, value, headers in history(events, seed)
            ]
            await asyncio.gather(*sent)
        finally:
            await producer.stop()


async def measure_throughput(
    bench: BenchEnvironment, topic: str, group: str, events: int, pid: int
) -> tuple[float, float, float]:
    """Events per second, processor time an event in µs, and the cores that others took."""
    async with open_reader(bench.bootstrap_servers, topic, group=group) as reader:
        first = await _reach(reader, 1)
        began, meter = time.monotonic(), Meter([pid, bench.postgres_pid])
        last = await _reach(reader, events)
        ended = time.monotonic()
        meter.stop()
    moved = max(1, last - first)
    return moved / (ended - began), meter.cpu_s / moved * 1e6, round(meter.others_cores, 2)


async def _reach(reader: Reader, offset: int) -> int:
    async with asyncio.timeout(WAIT_S_MAX):
        while (measure_throughput := await reader.committed()) < offset:  # noqa: ASYNC110 - only asking tells
            await asyncio.sleep(SAMPLE_S)
    return measure_throughput
