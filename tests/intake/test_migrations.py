"""The tables that the code knows are the tables that the migrations make, and stored JSON is rewritten with them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from uuid import UUID

import asyncpg
from alembic import command
from tests.intake.conftest import MIGRATIONS
from tests.tables import differences

from accord.migrations.run import alembic_config
from intake import tables
from intake.imports.domain.rows import Plan

ID = UUID(int=1)
PLAN = {
    "format": "ndjson",
    "encoding": "utf-8",
    "kept_as": "utf-8",
    "encoding_said": True,
    "mapping_from": "form",
    "marked": True,
}
BEFORE = {"person": {}, "attributes": {}, "stamps": {"email": "2026-01-04T15:30:00Z"}, "external_keys": []}


def test_tables_equal_migrations(database_url: str) -> None:
    assert differences(database_url, tables.metadata) == []


async def test_stored_json_is_rewritten_under_new_names(database_factory: Callable[..., str]) -> None:
    url = database_factory("intake-0005", lambda found: command.upgrade(alembic_config(MIGRATIONS, found), "0005"))
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    await connection.execute(
        "INSERT INTO import_job (import_id, source, caller, state, dry_run, plan, bytes_received, bytes_done, row_number, counts,"
        " cancel_requested, created_at, touched_at) VALUES ($1, 's', 'c', 'finished', false, $2, 0, 0, 0, '{}', false, now(), now())",
        ID,
        json.dumps(PLAN),
    )
    await connection.execute(
        "INSERT INTO merge (survivor_id, merge_id, merged_lead_id, survivor_before, keys_moved, activities_moved, recorded_at)"
        " VALUES ($1, $1, $1, $2, '[]', '{}', now())",
        ID,
        json.dumps(BEFORE),
    )
    await connection.execute(
        "INSERT INTO quarantine_decision (submission_id, decision_id, action, caller, failed, recorded_at)"
        " VALUES ($1, $1, 'kept', 'c', '[]', now())",
        ID,
    )
    await asyncio.to_thread(command.upgrade, alembic_config(MIGRATIONS, url), "head")

    plan = Plan.model_validate_json(await connection.fetchval("SELECT plan::text FROM import_job"))
    assert (plan.stored_encoding, plan.encoding_declared, plan.is_error_file) == ("utf-8", True, True)
    assert plan.mapping_from == "submissions"
    before = json.loads(await connection.fetchval("SELECT survivor_before::text FROM merge"))
    assert before["field_timestamps"] == BEFORE["stamps"]
    assert "stamps" not in before
    assert await connection.fetchval("SELECT action FROM quarantine_decision") == "requarantined"
    await connection.close()
