"""The whole house under load: from a POST to the lead's stage, readable in Kafka, and the memory of each service meanwhile."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

from tests.bench.house import SPECS, House, rss_mib
from tests.bench.load import Load
from tests.bench.meter import Meter
from tests.bench.reading import Listener, listened, occurred_at
from tests.bench.report import Figure, median

RATE_PER_S = 500.0
ROUNDS = 4
ROUND_S = 8.0
RSS_MIB_MAX = 200.0
FLAT_SHARE_MAX = 0.1


def whole_way(house: House) -> list[Figure]:
    """All four services, each with its own workers, under one steady load of new leads."""
    with ExitStack() as stack:
        services = {name: stack.enter_context(house.service(name, prefix="whole-")) for name in SPECS}
        for spec in SPECS.values():
            house.sql(spec.database, "ANALYZE")
        house.sql("intake", "TRUNCATE outbox")
        house.settle()
        memory = {name: [rss_mib(service)] for name, service in services.items()}
        pids = [*(service.pid or 0 for service in services.values()), house.postgres_pid]
        p50s, p99s, statuses, others = [], [], [], []
        for _ in range(ROUNDS):
            load = Load(
                services["intake"].port,
                house.keys["ACCORD_MARKETING_KEY"],
                house.next_run(),
                rate_per_s=RATE_PER_S,
                connections=128,
                seconds=ROUND_S,
                occurred_at=True,
            )
            meter = Meter(pids)
            listener, answered = asyncio.run(
                listened(house, load, "whole-qualification-events", Listener("lead.stage_changed.v1", occurred_at))
            )
            meter.stop()
            p50s.append(listener.percentile_ms(0.5))
            p99s.append(listener.percentile_ms(0.99))
            statuses.append({**answered, "stages": len(listener.latencies_ms)})
            others.append(round(meter.others_cores, 2))
            for name, service in services.items():
                memory[name].append(rss_mib(service))
    way = Figure(
        "POST to lead.stage_changed readable, p99 at 500 leads/s",
        "ms",
        median(p99s),
        most=300.0,
        limit="four services, two servers and the generator on the same cores",
        detail={"p50_ms": p50s, "p99_ms": p99s, "rounds": statuses, "others_cores": others},
    )
    return [way, *(_memory(name, found) for name, found in memory.items())]


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
