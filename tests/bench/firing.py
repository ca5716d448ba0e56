"""Deadlines that pass: how many clocks a second become breaches with their events in the outbox, of a million that run."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Any, cast

import asyncpg
import orjson

from accord.contracts.topics import INTAKE_EVENTS, QUALIFICATION_EVENTS
from accord.db import Database
from accord.ids import new_id
from accord.migrations.run import upgrade_sync
from sla_monitor.domain.case import SlaVersions
from sla_monitor.domain.rules import compile_sla
from sla_monitor.domain.sla import Sla
from sla_monitor.main import MIGRATIONS
from sla_monitor.usecases.fire import fire_due_clocks
from tests.bench.environment import BenchEnvironment
from tests.bench.meter import Meter
from tests.bench.report import Figure, median
from tests.watermarks import FixedWatermarks

ROUNDS = 3
RUNNING = 1_000_000
DUE = 20_000
BATCH = 500
PER_S_MIN = 10_000.0
RATIO_MIN = 1.0
_UNTIL = datetime(2026, 6, 1, tzinfo=UTC)
_SLA: dict[str, Any] = {
    "kind": "sla",
    "title": "SLA",
    "clauses": [
        {
            "key": "call",
            "obliges": "sales",
            "kind": "response",
            "from": {"stage": "mql"},
            "to": {"activity": "call.attempted", "by": "sales"},
            "within": {"elapsed": "P1D"},
        }
    ],
}
_CLOCKS = """
INSERT INTO clock (lead_id, clock_id, clause, obliges, sla_version, trigger_kind, trigger_key, trigger_sequence, trigger_recorded_at,
    started_at, due_at, count, progress, backfill, owner, source, state, event_count, next_at)
SELECT gen_random_uuid(), gen_random_uuid(), 'call', 'sales', 1, 'stage', 'stage/mql/1', 1, $3::timestamptz - interval '2 days',
    at - interval '1 day', at, 1, '[[], [], [], [], null]', false, 'ann', 'website', 'running', 1, at
FROM generate_series(1, $1::int) AS n, LATERAL (SELECT $2::timestamptz + n * interval '1 millisecond' AS at) AS due
"""
_PLAIN_CLAIM = """
SELECT lead_id, clock_id, clause, due_at FROM clock WHERE state = 'running' AND due_at < $1 ORDER BY due_at LIMIT $2 FOR UPDATE SKIP LOCKED
"""
_PLAIN_UPDATE = (
    "UPDATE clock SET state = 'breached', breached_at = now(), next_at = NULL WHERE lead_id = $1 AND clock_id = $2"
)
_PLAIN_EVENT = """
INSERT INTO outbox (event_id, type, key, occurred_at, recorded_at, payload) VALUES ($1, 'sla.breached.v1', $2, $3, now(), $4)
"""


class _SignedSla:
    """Stands for the cache of versions: one version, in force since ever."""

    def __init__(self) -> None:
        rules = compile_sla(1, Sla.model_validate(_SLA), lambda country, subdivision: {})
        self._versions = SlaVersions({1: rules}, lambda moment: 1)

    async def load(self, conn: object) -> SlaVersions:
        return self._versions


def firing(bench: BenchEnvironment) -> list[Figure]:
    """A backlog of deadlines below the watermark, taken in batches by one process, ours and a plain worker in turn."""
    upgrade_sync(MIGRATIONS, bench.database_url("sla"))
    ours, plain, costs = asyncio.run(_measure(bench))
    return [
        Figure(
            f"firing {DUE:,} deadlines of {RUNNING:,} clocks",
            "clocks/s",
            median(ours),
            median(plain) if plain else None,
            least=PER_S_MIN,
            ratio_least=RATIO_MIN,
            cpu_us={name: median(values) for name, values in costs.items() if values},
            limit="Python: reading, judging and writing each clock",
            detail={"ours": ours, "plain": plain},
        )
    ]


async def _measure(bench: BenchEnvironment) -> tuple[list[float], list[float], dict[str, list[float]]]:
    connection = await asyncpg.connect(bench.dsn("sla"))
    database = Database(bench.database_url("sla"), application_name="bench-firing", pool_size=2)
    rates: dict[str, list[float]] = {"ours": [], "baseline": []}
    costs: dict[str, list[float]] = {"ours": [], "baseline": []}
    await connection.execute("TRUNCATE clock, outbox")
    await connection.execute(_CLOCKS, RUNNING, _UNTIL.replace(year=2027), _UNTIL, timeout=600)
    for _ in range(ROUNDS):
        for name in bench.sides:
            await connection.execute("DELETE FROM clock WHERE due_at < $1", _UNTIL)
            await connection.execute("TRUNCATE outbox")
            await connection.execute(_CLOCKS, DUE, _UNTIL.replace(month=5), _UNTIL)
            await connection.execute("VACUUM ANALYZE clock", timeout=600)
            meter, began, before = Meter([bench.postgres_pid]), time.monotonic(), time.process_time()
            await (_fire(database) if name == "ours" else _fire_plain(bench))
            rates[name].append(DUE / (time.monotonic() - began))
            costs[name].append((meter.stop().cpu_s + time.process_time() - before) / DUE * 1e6)
            if await connection.fetchval("SELECT count(*) FROM outbox WHERE type = 'sla.breached.v1'") != DUE:
                raise RuntimeError("not every deadline has its event")
    await database.dispose()
    await connection.close()
    return rates["ours"], rates["baseline"], costs


async def _fire(database: Database) -> None:
    watermarks = FixedWatermarks()
    watermarks.reached = dict.fromkeys((INTAKE_EVENTS, QUALIFICATION_EVENTS), _UNTIL)
    while await fire_due_clocks(database, cast("Any", _SignedSla()), cast("Any", watermarks), BATCH):
        pass


async def _fire_plain(bench: BenchEnvironment) -> None:
    """What one writes first: the due rows of a batch, and two statements for each."""
    connection = await asyncpg.connect(bench.dsn("sla"))
    while True:
        async with connection.transaction():
            rows = await connection.fetch(_PLAIN_CLAIM, _UNTIL, BATCH)
            for row in rows:
                payload = orjson.dumps(
                    {"lead_id": str(row["lead_id"]), "clause": row["clause"], "due_at": row["due_at"]}
                )
                await connection.execute(_PLAIN_UPDATE, row["lead_id"], row["clock_id"])
                await connection.execute(_PLAIN_EVENT, new_id(), str(row["lead_id"]), row["due_at"], payload)
        if not rows:
            break
    await connection.close()
