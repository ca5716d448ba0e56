"""The tables that the code knows are the tables that the migrations make, and rows from before can be read after them."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from importlib import import_module

from tests.tables import differences

from accord.migrations.run import upgrade_sync
from qualification import tables
from qualification.main import MIGRATIONS

RENAMED = import_module("qualification.migrations.versions.0009_standard_words").RENAMED


def test_tables_equal_migrations(database_url: str) -> None:
    assert differences(database_url, tables.metadata) == []


async def test_lead_with_moments_that_are_refused_by_now_is_answered_and_decided_after_the_migration(
    stack, content, new_lead, day, auth, database_url
):
    await stack.activate(content)
    about = new_lead()
    await stack.apply_events(about.captured(day(0), employee_count=90), about.did("demo.requested", day(1)))
    at = f"/v1/leads/{about.lead_id}"
    bant = {"budget": True, "authority": "yes", "need": True, "timing": "q3"}
    deal = {"amount": {"amount": "10", "currency": "USD"}, "expected_close": "2024-06-01"}
    for decision, fields in (("accept", {}), ("qualify", bant), ("open_opportunity", deal)):
        body = {"decision": decision, "fields": fields}
        assert (await stack.http.post(f"{at}/decisions", json=body, headers=auth("sales"))).status_code == 201
    never, begin = '"9999-12-31"', '"0001-01-01T00:00:00Z"'
    await before_release(
        stack,
        f"UPDATE lead SET deal = jsonb_set(deal, '{{expected_close}}', '{never}')",
        f"UPDATE decision SET fields = jsonb_set(fields, '{{expected_close}}', '{never}') WHERE fields ? 'expected_close'",
        f"UPDATE lead SET profile = jsonb_set(profile, '{{captured_at}}', '{begin}')",
        f"UPDATE lead SET profile = jsonb_set(profile, '{{attributes,until}}', '{never}')",
        f"UPDATE lead_fact SET fact = jsonb_set(fact, '{{state,captured_at}}', '{begin}') WHERE fact ->> 'kind' = 'profile'",
        *(f"ALTER TABLE {table} RENAME COLUMN {now} TO {before}" for table, before, now in RENAMED),
        "DROP INDEX lead_waiting_captured_idx",
        "DROP TABLE subscription, delivery",
        "UPDATE alembic_version SET version_num = '0006'",
    )
    await asyncio.to_thread(upgrade_sync, MIGRATIONS, database_url)
    lead = (await stack.http.get(at, headers=auth("reader"))).json()
    assert (lead["expected_close"], lead["captured_at"]) == ("2199-12-31", "1970-01-01T00:00:00Z")
    (listed,) = (await stack.http.get("/v1/leads", headers=auth("reader"))).json()["items"]
    assert listed["captured_at"] == "1970-01-01T00:00:00Z"
    (row,) = await stack.rows(
        "SELECT profile #>> '{attributes,until}' AS until, fields::text FROM lead, decision WHERE fields ? 'amount'"
    )
    assert row.until == "9999-12-31"  # what people have written is theirs
    assert json.loads(row.fields)["expected_close"] == "2199-12-31"
    await stack.apply_events(
        about.did("demo.requested", day(0) - timedelta(days=1))
    )  # told late, so all of it is folded anew
    win = {"decision": "win", "fields": {"amount": deal["amount"]}}
    assert (await stack.http.post(f"{at}/decisions", json=win, headers=auth("sales"))).status_code == 201


async def before_release(stack, *statements: str) -> None:
    """Bring rows into the state in which a release before left them."""
    async with stack.database.write_transaction() as unit_of_work:
        for statement in statements:
            await (await unit_of_work.connection()).execute(statement)
