"""How PostgreSQL does a statement where there are many rows."""

from __future__ import annotations

from accord.db import Database


async def plan_among_many(database: Database, table: str, insert: str, statement: str, *values: object) -> str:
    """The plan with a table that `insert` has filled, which is gone afterwards, statistics and all. Its indexes have other names."""
    connection = await database.connect()
    try:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("CREATE SCHEMA many; SET LOCAL search_path TO many, public")
        await connection.execute(f"CREATE TABLE many.{table} (LIKE public.{table} INCLUDING ALL)")
        await connection.execute(insert)
        await connection.execute(f"ANALYZE many.{table}")
        plan = "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN {statement}", *values))
        await transaction.rollback()
    finally:
        await connection.close()
    return plan
