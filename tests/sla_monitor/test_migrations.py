"""The tables that the code knows are the tables that the migrations make."""

from __future__ import annotations

import asyncio
from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from accord.database import async_url
from sla_monitor import tables


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
