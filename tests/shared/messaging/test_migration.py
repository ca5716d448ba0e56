"""Letters of the version before hold those whom they concern, once messaging has been migrated."""

from __future__ import annotations

from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine

from accord.db import async_url
from accord.migrations import v0001, v0003_messaging

_LETTER = """
INSERT INTO dead_letter (id, consumer, topic, partition, "offset", event_id, type, key, headers, error, failed_at)
VALUES (gen_random_uuid(), 'test', 'intake-events', 0, :offset, gen_random_uuid(), :type, :key, '[]', 'ValueError', now())
"""


async def test_old_dead_letters_hold_their_key_and_those_of_merges_hold_all(kit_database: str) -> None:
    letters = [
        ("activity.recorded.v1", "a"),
        ("lead.merged.v1", "b"),
        ("lead.unmerged.v1", "c"),
        ("lead.captured.v1", ""),
        (None, "d"),
    ]

    def migrate(connection: Connection) -> list[object]:
        connection.execute(text("CREATE SCHEMA before"))
        connection.execute(text("SET LOCAL search_path TO before"))
        op = Operations(MigrationContext.configure(connection))
        v0001.upgrade(op)
        for offset, (type_, key) in enumerate(letters):
            connection.execute(text(_LETTER), {"offset": offset, "type": type_, "key": key})
        v0003_messaging.upgrade(op)
        return list(connection.execute(text('SELECT keys FROM dead_letter ORDER BY "offset"')).scalars())

    engine = create_async_engine(async_url(kit_database))
    async with engine.begin() as conn:
        keys = await conn.run_sync(migrate)
    await engine.dispose()
    assert keys == [["a"], None, None, None, ["d"]]
