"""The tables that the code knows are the tables that the migrations make."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

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


async def test_profile_from_a_time_that_is_refused_by_now_is_read_from_its_first_moment(signed, teller, database_url):
    one, other = teller(), teller()
    start = utc(2027, 3, 1, 15)
    for lead in (one, other):
        await signed.tell(lead.captured(start, size=100))
    await signed.tell(one.updated(start + timedelta(hours=1), size=120))
    async with signed.database.recording() as recording:
        driver = await recording.driver()
        broken = "UPDATE lead SET profiles = jsonb_set(profiles, '{0,captured_at}', $2) WHERE lead_id = $1"
        await driver.execute(broken, one.lead_id, '"0001-01-01T00:00:00+00:00"')
        before = {
            row["lead_id"]: row["profiles"] for row in await driver.fetch("SELECT lead_id, profiles::text FROM lead")
        }
        await driver.execute("UPDATE alembic_version SET version_num = '0006'")
    await asyncio.to_thread(upgrade_sync, MIGRATIONS, database_url)
    rows = {row.lead_id: row.profiles for row in await signed.rows("SELECT lead_id, profiles::text FROM lead")}
    read = [json.loads(text) for text in (before[one.lead_id], rows[one.lead_id])]
    read[0][0]["captured_at"] = "1970-01-01T00:00:00+00:00"
    assert read[0] == read[1]
    assert json.loads(rows[other.lead_id]) == json.loads(before[other.lead_id])
    await signed.tell(one.entered("mql", start))
    await signed.read_until(start + timedelta(hours=5))
    assert (await signed.http.get(f"/v1/leads/{one.lead_id}/clocks", headers=bearer("reader"))).status_code == 200
