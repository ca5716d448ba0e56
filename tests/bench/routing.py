"""Qualification with leads to give out: the backlog of qualifying.py, with nobody to give leads to and with twenty people in two pools."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tests.bench.environment import BenchEnvironment
from tests.bench.qualifying import fill, measure_throughput
from tests.bench.report import Figure, median

ROUNDS = 3
EVENTS = 40_000
PEOPLE = 20


def _document() -> dict[str, Any]:
    people = [{"owner": f"person-{number}"} for number in range(PEOPLE)]
    return {
        "kind": "routing",
        "title": "Two pools",
        "pools": {
            "large": {"members": people[: PEOPLE // 2]},
            "others": {"method": "least_open", "members": people[PEOPLE // 2 :]},
        },
        "rules": [
            {
                "key": "large",
                "when": {
                    "all": [
                        {"path": "attributes.employee_count", "op": "gte", "value": 200},
                        {"path": "scores.fit", "op": "gte", "value": 30},
                    ]
                },
                "pool": "large",
            },
            {"key": "everyone-else", "pool": "others"},
        ],
        "fallback": "others",
    }


def routed(bench: BenchEnvironment) -> list[Figure]:
    """Events per second, and what an assignment adds in processor time."""
    with bench.service("qualification", prefix="prepare-"):
        pass  # migrated, and the definition signed
    rates: dict[str, list[float]] = {"without": [], "with": []}
    costs: dict[str, list[float]] = {"without": [], "with": []}
    for who in ("without", "with"):
        if who == "with":
            _write(bench)
        for nth in range(ROUNDS):
            prefix = f"routing-{who}-{nth}-"
            topic = f"{prefix}intake-events"
            asyncio.run(fill(bench, topic, EVENTS, nth))
            bench.sql("qualification", "ANALYZE")
            bench.settle()
            with bench.service("qualification", prefix=prefix) as service:
                group = f"{prefix}qualification"
                rate, cpu_us, _ = asyncio.run(measure_throughput(bench, topic, group, EVENTS, service.pid or 0))
            rates[who].append(rate)
            costs[who].append(cpu_us)
            bench.sql("qualification", "TRUNCATE outbox")
    given = int(str(bench.sql("qualification", "SELECT count(*) FROM assignment")).strip() or 0)
    added_us = (median(costs["with"]) - median(costs["without"])) * EVENTS * ROUNDS / max(1, given)
    return [
        Figure(
            "qualification, events with every lead of sales given out",
            "events/s",
            median(rates["with"]),
            median(rates["without"]),
            ratio_least=0.8,
            cpu_us={"ours": median(costs["with"]), "baseline": median(costs["without"])},
            limit="the baseline is ourselves without a routing document",
            detail={"rates": rates, "cpu_us": costs, "assignments": given, "cpu_us_an_assignment": round(added_us)},
        )
    ]


def _write(bench: BenchEnvironment) -> None:
    """As PUT /v1/routing does; the bench has no key of an administrator."""
    document = _document()
    values = json.dumps(document).replace("'", "''")
    bench.sql("qualification", f"INSERT INTO routing VALUES (1, '{values}', '', now(), 'bench')")
    for pool in document["pools"]:
        bench.sql("qualification", f"INSERT INTO routing_pool VALUES ('{pool}', 0, '{{}}')")
