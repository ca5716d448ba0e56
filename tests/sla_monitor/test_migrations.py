"""The tables in the code equal those of the migrations."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import asyncpg
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool
from tests.sla_monitor.conftest import bearer

from accord.contracts.values import utc
from accord.db import async_url
from accord.migrations.run import upgrade_sync
from sla_monitor import tables
from sla_monitor.domain.clock import MERGE_REVERTED
from sla_monitor.main import MIGRATIONS


def test_tables_equal_migrations(database_url):
    def compare(connection: Connection) -> list[Any]:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        return compare_metadata(context, tables.metadata)

    async def differences() -> list[Any]:
        engine = create_async_engine(async_url(database_url), poolclass=NullPool)
        async with engine.connect() as conn:
            found = await conn.run_sync(compare)
        await engine.dispose()
        return found

    assert asyncio.run(differences()) == []


async def downgrade_to_0007(connection: asyncpg.Connection) -> None:
    """Give tables, columns and stored words what they had before migrations 0008 to 0010."""
    for statement in (
        "DROP TABLE subscription, delivery",
        "DROP TABLE period_entry",
        "ALTER TABLE fact DROP COLUMN actor_kind",
        "DROP INDEX clock_breach_id_idx, clock_next_idx",
        "ALTER TABLE clock ADD COLUMN warnings jsonb",
        "UPDATE clock SET warnings = progress -> 0, next_at = CASE WHEN state = 'running' THEN next_at END",
        """
        ALTER TABLE clock ALTER COLUMN warnings SET NOT NULL, DROP COLUMN count, DROP COLUMN progress,
            DROP COLUMN actor_kind, DROP COLUMN ended_key, DROP COLUMN severity, DROP COLUMN breach_due_at,
            DROP COLUMN acknowledged_at, DROP COLUMN acknowledged_by, DROP COLUMN acknowledged_note,
            DROP CONSTRAINT clock_state_check, DROP CONSTRAINT clock_next_check,
            ADD CONSTRAINT clock_state_check CHECK (state IN ('running', 'met', 'breached', 'met_late', 'cancelled')),
            ADD CONSTRAINT clock_next_check CHECK ((state = 'running') = (next_at IS NOT NULL))
        """,
        "CREATE INDEX clock_next_idx ON clock (next_at) WHERE state = 'running'",
        "UPDATE stuck_row SET worker = 'judge-triggers' WHERE worker = 'evaluate-triggers'",
        f"""
        UPDATE clock SET ended_why = 'the merge that had brought it was taken back' WHERE ended_why = '{MERGE_REVERTED}'
        """,
        """
        UPDATE pending_trigger
        SET inputs = inputs - 'qualification_state' || jsonb_build_object('standing', inputs -> 'qualification_state')
        """,
        "ALTER INDEX fact_not_activity_idx RENAME TO fact_moves_idx",
        "ALTER INDEX pending_trigger_recorded_idx RENAME TO waiting_recorded_idx",
        "ALTER TABLE pending_trigger RENAME CONSTRAINT pending_trigger_pkey TO waiting_pkey",
        "ALTER TABLE pending_trigger RENAME COLUMN inputs TO judged_of",
        "ALTER TABLE pending_trigger RENAME TO waiting",
        "ALTER TABLE clock RENAME COLUMN event_count TO said",
        "ALTER TABLE lead RENAME COLUMN qualification_states TO standings",
        "UPDATE alembic_version SET version_num = '0007'",
    ):
        await connection.execute(statement)


async def test_pending_triggers_and_ended_clocks_survive_the_new_words(signed, make_lead, database_url):
    waiting, restored, survivor = make_lead(), make_lead(), make_lead()
    start = utc(2027, 3, 1, 15)
    await signed.apply(waiting.captured(start, size=100), waiting.entered("mql", start))
    merge = survivor.merged(restored.lead_id, start + timedelta(minutes=5))
    requested = restored.did("demo.requested", start, by="lead")
    await signed.apply(restored.captured(start), requested, merge)
    await signed.apply(survivor.unmerged(merge, start + timedelta(minutes=6)))
    async with signed.database.write_transaction() as unit_of_work:
        connection = await unit_of_work.connection()
        await connection.execute(
            "INSERT INTO stuck_row (worker, key, error, failed_at, attempts, retry_at)"
            " VALUES ('evaluate-triggers', $1, 'e', now(), 1, 'infinity')",
            survivor.lead_id,
        )
        await downgrade_to_0007(connection)
    await asyncio.to_thread(upgrade_sync, MIGRATIONS, database_url)
    assert [row.worker for row in await signed.rows("SELECT worker FROM stuck_row")] == ["evaluate-triggers"]
    assert (await signed.clocks(survivor.lead_id))["demo"]["ended_why"] == MERGE_REVERTED
    await signed.apply(survivor.merged(restored.lead_id, start + timedelta(minutes=7)))
    assert await signed.states(survivor.lead_id) == {"demo": "running"}
    await signed.read_until(start + timedelta(minutes=10))
    assert await signed.states(waiting.lead_id) == {"accept-mql": "running", "first-touch": "running"}


async def test_profile_out_of_range_is_migrated_to_the_first_moment(signed, make_lead, database_url):
    broken, other = make_lead(), make_lead()
    start = utc(2027, 3, 1, 15)
    for lead in (broken, other):
        await signed.apply(lead.captured(start, size=100))
    await signed.apply(broken.updated(start + timedelta(hours=1), size=120))
    async with signed.database.write_transaction() as unit_of_work:
        connection = await unit_of_work.connection()
        statement = "UPDATE lead SET profiles = jsonb_set(profiles, '{0,captured_at}', $2) WHERE lead_id = $1"
        await connection.execute(statement, broken.lead_id, '"0001-01-01T00:00:00+00:00"')
        before = {
            row["lead_id"]: row["profiles"]
            for row in await connection.fetch("SELECT lead_id, profiles::text FROM lead")
        }
        await downgrade_to_0007(connection)
        await connection.execute("UPDATE alembic_version SET version_num = '0006'")
    await asyncio.to_thread(upgrade_sync, MIGRATIONS, database_url)
    rows = {row.lead_id: row.profiles for row in await signed.rows("SELECT lead_id, profiles::text FROM lead")}
    read = [json.loads(text) for text in (before[broken.lead_id], rows[broken.lead_id])]
    read[0][0]["captured_at"] = "1970-01-01T00:00:00+00:00"
    assert read[0] == read[1]
    assert json.loads(rows[other.lead_id]) == json.loads(before[other.lead_id])
    await signed.apply(broken.entered("mql", start))
    await signed.read_until(start + timedelta(hours=5))
    assert (await signed.http.get(f"/v1/leads/{broken.lead_id}/clocks", headers=bearer("reader"))).status_code == 200


async def test_clocks_of_the_version_before_go_on(signed, make_lead, database_url):
    running, met, late = make_lead(), make_lead(), make_lead()
    start = utc(2027, 3, 1, 15)
    for lead in (running, met, late):
        await signed.apply(lead.captured(start, size=10), lead.entered("mql", start))
    await signed.apply(met.decided("accept", start + timedelta(minutes=5)))
    async with signed.database.write_transaction() as unit_of_work:
        await downgrade_to_0007(await unit_of_work.connection())
    await asyncio.to_thread(upgrade_sync, MIGRATIONS, database_url)
    await signed.read_until(start + timedelta(minutes=61))
    await signed.apply(late.decided("accept", start + timedelta(minutes=70)))
    states = [(await signed.clocks(lead.lead_id))["accept-mql"] for lead in (running, met, late)]
    assert [state["state"] for state in states] == ["breached", "met", "met_late"]
    assert states[1]["answered_at"] == "2027-03-01T15:05:00Z"
    assert await signed.event_names(running.lead_id) == ["clock_started", "breached"]
