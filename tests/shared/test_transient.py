"""However a statement meets the end of its connection, the error counts as one that may not come again."""

import asyncio
from uuid import uuid4

import asyncpg
import pytest

from accord.db import Database, is_transient
from accord_local.postgres import PostgresServer

TURNS_MAX = 8


@pytest.mark.parametrize("turns_count", range(TURNS_MAX))
async def test_a_statement_on_a_connection_that_the_server_ends_fails_for_a_passing_reason(
    turns_count: int, postgres_server: PostgresServer
) -> None:
    """The server's last words and the end of the stream wait in the socket; the loop takes in one of them a turn."""
    connection = await asyncpg.connect(postgres_server.url("postgres").replace("+asyncpg", ""))
    pid = await connection.fetchval("SELECT pg_backend_pid()")
    postgres_server.execute(
        f"SELECT pg_terminate_backend({pid}, 10000)"
    )  # it blocks the loop until the backend is gone
    for _ in range(turns_count):
        await asyncio.sleep(0)
    with pytest.raises(Exception) as failed:  # noqa: PT011 - which one it is depends on the turn
        await connection.execute("SELECT 1")
    assert is_transient(failed.value), repr(failed.value)
    connection.terminate()


@pytest.mark.parametrize("copies", [False, True])
@pytest.mark.parametrize("turns_count", range(TURNS_MAX))
async def test_a_unit_of_work_whose_connection_the_server_ends_fails_for_a_passing_reason_and_the_next_goes_well(
    turns_count: int, copies: bool, postgres_server: PostgresServer
) -> None:
    database = Database(postgres_server.url("postgres"), application_name="ended", pool_size=1)

    async def record(*, ended: bool) -> None:
        async with database.write_transaction() as unit_of_work:
            connection = await unit_of_work.connection()
            await connection.execute("CREATE TEMPORARY TABLE kept (n int) ON COMMIT DROP")
            if ended:
                pid = await connection.fetchval("SELECT pg_backend_pid()")
                postgres_server.execute(f"SELECT pg_terminate_backend({pid}, 10000)")
                for _ in range(turns_count):
                    await asyncio.sleep(0)
            if copies:
                await connection.copy_records_to_table("kept", records=[(1,)], columns=("n",))
            await unit_of_work.conn.exec_driver_sql("SELECT 1")

    await record(ended=False)
    with pytest.raises(Exception) as failed:  # noqa: PT011 - which one it is depends on the turn
        await record(ended=True)
    assert is_transient(failed.value), repr(failed.value)
    await record(ended=False)
    await database.dispose()


async def test_database_that_takes_no_connections_is_a_passing_reason(postgres_server: PostgresServer) -> None:
    name = f"closed_{uuid4().hex}"
    postgres_server.execute(f"CREATE DATABASE {name}")
    postgres_server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    try:
        with pytest.raises(asyncpg.ObjectNotInPrerequisiteStateError) as refused:
            await asyncpg.connect(postgres_server.url(name).replace("+asyncpg", ""))
        assert is_transient(refused.value)
    finally:
        postgres_server.execute(f"DROP DATABASE {name}")
