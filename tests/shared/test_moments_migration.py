"""Rows with moments that nobody could mean, written before they were refused, can be read again after the migration."""

from __future__ import annotations

import asyncpg
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine

from accord.contracts.values import MOMENT_MAX, MOMENT_MIN, utc
from accord.db import async_url
from accord.migrations import v0005_moments

USUAL = utc(2027, 1, 4)


async def test_moments_outside_range_are_brought_into_it(kit_database: str) -> None:
    conn = await asyncpg.connect(kit_database.replace("+asyncpg", ""))
    try:
        await conn.execute("CREATE TABLE event (id int PRIMARY KEY, at timestamptz, ended_at timestamptz, day date)")
        await conn.execute("CREATE TABLE plain (id int)")
        await conn.execute(
            """
            INSERT INTO event VALUES
                (1, '-infinity', NULL, NULL),
                (2, '2027-01-04T00:00Z', 'infinity', '0001-01-01'),
                (3, '0001-01-01T00:00Z', '9999-12-31T23:59:59.999999Z', '9999-12-31'),
                (4, '2027-01-04T00:00Z', NULL, '2027-01-04')
            """
        )
        await migrate(kit_database)
        found = await conn.fetch("SELECT at, ended_at, day FROM event ORDER BY id")
        untouched = await conn.fetchval(
            "SELECT age(xmin) > (SELECT age(xmin) FROM event WHERE id = 1) FROM event WHERE id = 4"
        )
    finally:
        await conn.close()
    assert [tuple(row) for row in found] == [
        (MOMENT_MIN, None, None),
        (USUAL, MOMENT_MAX, MOMENT_MIN.date()),
        (MOMENT_MIN, MOMENT_MAX, MOMENT_MAX.date()),
        (USUAL, None, USUAL.date()),
    ]
    assert untouched


async def migrate(url: str) -> None:
    def change(connection: Connection) -> None:
        v0005_moments.upgrade(Operations(MigrationContext.configure(connection)))

    engine = create_async_engine(async_url(url))
    async with engine.begin() as conn:
        await conn.run_sync(change)
    await engine.dispose()
