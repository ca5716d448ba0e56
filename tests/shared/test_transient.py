"""However a statement meets the end of its connection, the error counts as one that may not come again."""

import asyncio

import asyncpg
import pytest

from accord.database import is_transient
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
