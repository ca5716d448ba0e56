"""Of every table somebody has said how long its rows stay, and where that is a number of days, a worker sees to it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from types import ModuleType
from uuid import UUID

import pytest
from shared_kit import until

import intake.main
import intake.tables
import metrics.main
import metrics.tables
import qualification.main
import qualification.tables
import sla_monitor.main
import sla_monitor.tables
from accord.agreements import tables as agreements
from accord.clock import utc_now
from accord.http import tables as http
from accord.messaging import tables as messaging
from accord.migrations.run import upgrade_sync
from accord.notifications import tables as notifications

SHARED = messaging.RETENTION | agreements.RETENTION | http.RETENTION | notifications.RETENTION
SERVICES: dict[str, tuple[ModuleType, ModuleType]] = {
    "intake": (intake.main, intake.tables),
    "qualification": (qualification.main, qualification.tables),
    "sla-monitor": (sla_monitor.main, sla_monitor.tables),
    "metrics": (metrics.main, metrics.tables),
}


@dataclass(frozen=True)
class Pruned:
    """The worker that deletes, and how a row of a moment ($1) is made, with an id of that moment ($2)."""

    worker: str
    row: str
    holds: str = "true"
    """Which rows hold what is to be deleted, where the row itself stays."""


_JOB = """INSERT INTO import_job (import_id, source, caller, state, dry_run, bytes_received, bytes_done, row_number, counts,
    cancel_requested, created_at, finished_at, updated_at) VALUES ($2, 's', 'c', 'finished', false, 0, 0, 0, '{}', false, $1, $1, $1)"""
PRUNED = {
    "inbox": Pruned("prune-messages", "INSERT INTO inbox (event_id, consumer, received_at) VALUES ($2, 'c', $1)"),
    "dead_letter": Pruned(
        "prune-messages",
        """INSERT INTO dead_letter (id, consumer, topic, partition, "offset", event_id, headers, error, failed_at, state, settled_at)
        VALUES ($2, 'c', 't', 0, 0, $2, '[]', 'e', $1, 'discarded', $1)""",
    ),
    "idempotency_key": Pruned(
        "idempotency-prune",
        "INSERT INTO idempotency_key (caller, key_name, request_sha256, created_at) VALUES ('c', $2::uuid::text, '', $1)",
    ),
    "delivery": Pruned(
        "notifications-prune",
        """INSERT INTO delivery (delivery_id, subscription_id, event_type, body, state, created_at)
        VALUES ($2, $2, 'accord.test', '', 'delivered', $1)""",
    ),
    "fact": Pruned(
        "prune-facts",
        """INSERT INTO fact (lead_id, occurred_at, key, kind, name, recorded_at, sequence)
        VALUES ($2, $1, 'k', 'activity', 'call.made', $1, 0)""",
    ),
    "submission": Pruned(
        "retention",
        """INSERT INTO submission (submission_id, source, caller, verdict, failed, content, occurred_at, recorded_at)
        VALUES ($2, 's', 'c', 'accepted', '[]', '{}', $1, $1)""",
        "content IS NOT NULL",
    ),
    "hook_event": Pruned(
        "hook-events-prune",
        """INSERT INTO hook_event (hook_event_id, source, event_id, action, reference, keys, content, state, attempts, due_at, occurred_at,
        recorded_at, updated_at) VALUES ($2, 's', $2::uuid::text, 'submit', '{}', '{}', '{}', 'failed', 0, $1, $1, $1, $1)""",
    ),
    "import_chunk": Pruned(
        "import-prune",
        f"""WITH job AS ({_JOB} RETURNING import_id)
        INSERT INTO import_chunk (import_id, first_row, outcomes, results) SELECT import_id, 0, 0, '' FROM job""",
    ),
    "import_failure": Pruned(
        "retention",
        f"""WITH job AS ({_JOB} RETURNING import_id)
        INSERT INTO import_failure (import_id, row_number, outcome, error, content, keys)
        SELECT import_id, 0, 'failed', 'e', '{{}}', '{{}}' FROM job""",
    ),
    "import_record": Pruned(
        "import-prune",
        """INSERT INTO import_record (record_key, source, import_id, digest, policy_version, verdict)
        VALUES ($1::timestamptz::text, 's', $2, '', 1, 'accepted')""",
    ),
}


def retention_rules(service: str) -> dict[str, str]:
    return SHARED | SERVICES[service][1].RETENTION  # type: ignore[no-any-return]


def id_at(moment: datetime) -> UUID:
    return UUID(int=(int(moment.timestamp() * 1000) << 80) | (0x7 << 76) | (0x2 << 62))


@pytest.mark.parametrize("service", SERVICES)
def test_every_table_says_how_long_its_rows_stay_and_no_other_does(service: str) -> None:
    assert set(retention_rules(service)) == set(SERVICES[service][1].metadata.tables)
    assert all(retention_rules(service).values())


@pytest.mark.parametrize(
    ("service", "table"),
    [(name, table) for name in SERVICES for table, rule in retention_rules(name).items() if "days" in rule],
)
async def test_what_stays_for_days_is_gone_after_them_and_no_sooner(
    service: str, table: str, database_factory: Callable[..., str]
) -> None:
    main = SERVICES[service][0]
    pruned = PRUNED[table]
    days = re.search(r"(\d+) days", retention_rules(service)[table])
    over, under = (
        (int(days[1]) + 1, int(days[1]) - 1) if days else (400, 1)
    )  # those of a setting are 90, if nobody says otherwise
    url = database_factory(service, partial(upgrade_sync, main.MIGRATIONS))
    settings = main.Settings(database_url=url, kafka_bootstrap_servers="127.0.0.1:1")
    made = main.build(settings)
    (worker,) = (worker for worker in made.workers if worker.name == pruned.worker)
    database = made.database
    async with database.write_transaction() as unit_of_work:
        connection = await unit_of_work.connection()
        for moment in (utc_now() - timedelta(days=over), utc_now() - timedelta(days=under)):
            await connection.execute(pruned.row, moment, id_at(moment))

    async def is_one_left() -> bool:
        async with database.read_transaction() as conn:
            found = await conn.exec_driver_sql(f"SELECT count(*) FROM {table} WHERE {pruned.holds}")
            return bool(found.scalar_one() == 1)

    assert not await is_one_left()
    stop = asyncio.Event()
    working = asyncio.create_task(worker.run(stop))
    await until(is_one_left)
    stop.set()
    await working
    await database.dispose()
