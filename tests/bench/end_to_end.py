"""The whole bench under load: from a POST to the lead's stage, readable in Kafka; the memory of each service meanwhile; what a
lead costs in each process; and the rate at which everything keeps up. It knows HTTP, topics, outboxes and processes alone.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass

from accord_local.services import Service
from tests.bench.backlog import SAMPLE_S, Backlog, open_backlog
from tests.bench.environment import SPECS, BenchEnvironment, rss_mib
from tests.bench.load import Load, Measured
from tests.bench.meter import Meter
from tests.bench.reading import Listener, listen_for, occurred_at
from tests.bench.report import Figure, median

RATE_PER_S = 500.0
ROUNDS = 4
ROUND_S = 8.0
RSS_MIB_MAX = 200.0
FLAT_SHARE_MAX = 0.1

COST_RATE_PER_S = 250.0
COST_WINDOWS = 3
COST_WINDOW_S = 8.0

SEARCH_FIRST_PER_S = 300.0
SEARCH_FACTOR = 1.5
SEARCH_PRECISION = 1.1
SEARCH_STEPS_MAX = 8
STEP_S = 10.0
STEP_WARM_UP_S = 2.0
GROWTH_SHARE_MAX = 0.1
"""A queue may grow by so many of the leads that come; more, and who reads it falls behind."""

ANSWER_MS_MAX = 1_000.0
DRAIN_S_MAX = 120.0
LATENCY_S = 12.0
CONNECTIONS = 128
_PREFIX = "whole-"
_TOPIC = f"{_PREFIX}qualification-events"


def end_to_end(bench: BenchEnvironment) -> list[Figure]:
    """All four services, each with its own workers, under steady loads of new leads."""
    with ExitStack() as stack:
        services = {name: stack.enter_context(bench.service(name, prefix=_PREFIX)) for name in SPECS}
        for spec in SPECS.values():
            bench.sql(spec.database, "ANALYZE")
        bench.sql("intake", "TRUNCATE outbox")
        bench.settle()
        memory = {name: [rss_mib(service)] for name, service in services.items()}
        pids = [*(service.pid or 0 for service in services.values()), bench.postgres_pid]
        p50s, p99s, statuses, others = [], [], [], []
        for _ in range(ROUNDS):
            meter = Meter(pids)
            listener, answered = _listen(bench, _make_load(bench, services, RATE_PER_S, ROUND_S))
            meter.stop()
            p50s.append(listener.percentile_ms(0.5))
            p99s.append(listener.percentile_ms(0.99))
            statuses.append({**answered, "stages": len(listener.latencies_ms)})
            others.append(round(meter.others_cores, 2))
            for name, service in services.items():
                memory[name].append(rss_mib(service))
        way = Figure(
            f"POST to lead.stage_changed readable, p99 at {RATE_PER_S:.0f} leads/s",
            "ms",
            median(p99s),
            most=300.0,
            limit="four services, two servers and the generator on the same cores",
            detail={"p50_ms": p50s, "p99_ms": p99s, "rounds": statuses, "others_cores": others},
        )
        return [
            way,
            *(_memory(name, found) for name, found in memory.items()),
            *asyncio.run(_measure_costs(bench, services)),
            *_measure_sustained(bench, services),
        ]


def _make_load(bench: BenchEnvironment, services: Mapping[str, Service], rate_per_s: float, seconds: float) -> Load:
    return Load(
        services["intake"].port,
        bench.keys["ACCORD_MARKETING_KEY"],
        bench.next_run(),
        rate_per_s=rate_per_s,
        connections=CONNECTIONS,
        seconds=seconds,
        occurred_at=True,
    )


def _listen(bench: BenchEnvironment, load: Load) -> tuple[Listener, dict[str, int]]:
    return asyncio.run(listen_for(bench, load, _TOPIC, Listener("lead.stage_changed.v1", occurred_at)))


def _memory(name: str, found: list[float]) -> Figure:
    """At the start, and after each round: the first round fills caches and pools, after that nothing may grow."""
    growth = (found[-1] - found[1]) / found[1]
    return Figure(
        f"memory of {name} after the load",
        "MiB",
        max(found),
        most=RSS_MIB_MAX,
        limit=f"{found[0]:.0f} at the start, {growth:+.0%} after the first round",
        detail={"rss_mib": [round(one, 1) for one in found], "flat": growth <= FLAT_SHARE_MAX},
    )


# --- What a lead costs ---


async def _measure_costs(bench: BenchEnvironment, services: Mapping[str, Service]) -> list[Figure]:
    """Processor time of a lead in each process, at one moderate rate: what idles is part of it, so the rate is too."""
    async with open_backlog(bench, _PREFIX) as backlog:
        await backlog.drain(timeout_s=DRAIN_S_MAX)
    bench.settle()
    pids = {name: service.pid or 0 for name, service in services.items()}
    pids |= {"PostgreSQL": bench.postgres_pid, "Kafka": bench.kafka_pid}
    load = _make_load(bench, services, COST_RATE_PER_S, (COST_WINDOWS + 1) * COST_WINDOW_S)
    costs: dict[str, list[float]] = {name: [] for name in pids}
    others: list[float] = []
    sending = asyncio.create_task(asyncio.to_thread(bench.load, load))
    await asyncio.sleep(load.warm_up_s + COST_WINDOW_S / 2)
    for _ in range(COST_WINDOWS):
        meters = {name: Meter([pid]) for name, pid in pids.items()}
        await asyncio.sleep(COST_WINDOW_S)
        for name, meter in meters.items():
            costs[name].append(meter.stop().cpu_s / meter.seconds)
        others.append(round(meter.others_cores, 2))
    measured = await sending
    costs = {name: [share / measured.rows_per_s * 1e6 for share in shares] for name, shares in costs.items()}
    totals = [sum(window) for window in zip(*costs.values(), strict=True)]
    detail = {"leads_per_s": measured.rows_per_s, "statuses": measured.statuses, "others_cores": others}
    name = f"processor time of a lead at {COST_RATE_PER_S:.0f} leads/s"
    return [
        Figure(
            f"{name}, through everything",
            "µs",
            median(totals),
            limit="without the generator",
            detail={"windows_us": totals, **detail},
        ),
        *(
            Figure(f"… {station}, at {COST_RATE_PER_S:.0f} leads/s", "µs", median(found), detail={"windows_us": found})
            for station, found in costs.items()
        ),
    ]


# --- How many leads a second ---


@dataclass(frozen=True)
class Step:
    """One rate that was tried. `behind` names what did not keep up, empty when everything did."""

    rate_per_s: float
    behind: str
    answer_p99_ms: float
    growth_per_lead: dict[str, float]


def _measure_sustained(bench: BenchEnvironment, services: Mapping[str, Service]) -> list[Figure]:
    steps = asyncio.run(_search_rate(bench, services))
    kept = [step.rate_per_s for step in steps if not step.behind]
    sustained = max(kept, default=0.0)
    over = min((step for step in steps if step.behind), key=lambda step: step.rate_per_s, default=None)
    figures = [
        Figure(
            "leads at which everything keeps up",
            "leads/s",
            sustained,
            limit=f"at {over.rate_per_s:.0f}/s: {over.behind}" if over else "not reached",
            detail={"steps": [asdict(step) for step in steps]},
        )
    ]
    if sustained:
        listener, statuses = _listen(bench, _make_load(bench, services, sustained / 3, LATENCY_S))
        detail = {"leads_per_s": sustained / 3, "stages": len(listener.latencies_ms), "statuses": statuses}
        figures += [
            Figure(
                f"POST to lead.stage_changed readable, p{share * 100:.0f} at a third of that",
                "ms",
                listener.percentile_ms(share),
                detail=detail,
            )
            for share in (0.5, 0.99)
        ]
    return figures


async def _search_rate(bench: BenchEnvironment, services: Mapping[str, Service]) -> list[Step]:
    """Up by a factor until something falls behind, then between the two until they are near each other."""
    steps: list[Step] = []
    low, high, rate = 0.0, math.inf, SEARCH_FIRST_PER_S
    async with open_backlog(bench, _PREFIX) as backlog:
        for _ in range(SEARCH_STEPS_MAX):
            await backlog.drain(timeout_s=DRAIN_S_MAX)
            bench.settle()
            step = await _try_rate(bench, services, backlog, rate)
            steps.append(step)
            low, high = (low, rate) if step.behind else (rate, high)
            if low and high / low <= SEARCH_PRECISION:
                break
            rate = low * SEARCH_FACTOR if high == math.inf else math.sqrt(low * high) if low else high / SEARCH_FACTOR
        await backlog.drain(timeout_s=DRAIN_S_MAX)
    return steps


async def _try_rate(
    bench: BenchEnvironment, services: Mapping[str, Service], backlog: Backlog, rate_per_s: float
) -> Step:
    load = _make_load(bench, services, rate_per_s, STEP_WARM_UP_S + STEP_S)
    sending = asyncio.create_task(asyncio.to_thread(bench.load, load))
    await asyncio.sleep(load.warm_up_s + STEP_WARM_UP_S)
    began, samples = time.monotonic(), []
    while time.monotonic() < began + STEP_S:
        samples.append((time.monotonic(), await backlog.measure()))
        # Kafka is told the positions at intervals, so an even pace would see that saw and not the queue.
        await asyncio.sleep(random.uniform(0.2, 1.0) * SAMPLE_S)
    measured = await sending
    growth = _compute_growth(samples, rate_per_s)
    p99_ms = measured.percentile_ms(0.99)
    behind = _find_limits(measured, p99_ms, growth)
    return Step(round(rate_per_s, 1), behind, round(p99_ms, 1), {name: round(one, 3) for name, one in growth.items()})


def _compute_growth(samples: Sequence[tuple[float, Mapping[str, int]]], rate_per_s: float) -> dict[str, float]:
    """By how many a queue grew with each lead: the mean of its last third against that of its first."""
    third = max(1, len(samples) // 3)
    first, last = samples[:third], samples[-third:]
    passed_s = sum(at for at, _ in last) / third - sum(at for at, _ in first) / third
    means = {
        name: [sum(waiting.get(name, 0) for _, waiting in part) / third for part in (first, last)]
        for name in samples[-1][1]
    }
    return {name: (after - before) / (rate_per_s * max(passed_s, SAMPLE_S)) for name, (before, after) in means.items()}


def _find_limits(measured: Measured, p99_ms: float, growth: Mapping[str, float]) -> str:
    refused = {status: count for status, count in measured.statuses.items() if status not in ("200", "201")}
    if refused:
        return f"answers of intake: {refused}"
    if measured.late_ms_max > ANSWER_MS_MAX:
        return "the generator itself"
    if not p99_ms <= ANSWER_MS_MAX:
        return f"answers of intake, p99 {p99_ms:.0f} ms"
    name, most = max(growth.items(), key=lambda one: one[1])
    return f"{name} grows by {most:.2f} a lead" if most > GROWTH_SHARE_MAX else ""
