"""The pool holds only connections that can write, no task holds two of them, and a change of the schema is no error of the caller."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import asyncpg
import pytest
from shared_kit import MIGRATIONS
from sqlalchemy import make_url, text

from accord.db import Database, NestedTransaction, connection_of, is_transient
from accord.migrations.run import upgrade
from accord_local.postgres import PostgresServer
from accord_local.processes import free_ports

DatabaseFactory = Callable[[str, Callable[[str], None]], str]


class Standby(PostgresServer):
    """A server whose databases are there already and cannot be written to."""

    def _create_databases(self) -> None:
        pass


@pytest.fixture
def data_dir() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="accord-test-"))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
async def database(postgres_server: PostgresServer) -> AsyncIterator[Database]:
    made = Database(postgres_server.url("postgres"), application_name="pool", pool_size=1)
    yield made
    await made.dispose()


# --- One connection a task ---


@pytest.mark.parametrize("outer", ["write", "read"])
@pytest.mark.parametrize("inner", ["write", "read"])
async def test_second_transaction_in_one_task_is_refused(database: Database, outer: str, inner: str) -> None:
    def opened(kind: str) -> AbstractAsyncContextManager[object]:
        return database.write_transaction() if kind == "write" else database.read_transaction()

    async with opened(outer):
        with pytest.raises(NestedTransaction):
            async with opened(inner):
                pass
    async with opened(inner):
        pass


async def test_transaction_after_a_failed_one_is_not_refused(database: Database) -> None:
    with pytest.raises(LookupError):
        async with database.write_transaction():
            raise LookupError
    async with database.write_transaction():
        pass


async def test_other_task_waits_for_its_turn_instead(database: Database) -> None:
    async def read() -> int:
        async with database.read_transaction() as conn:
            return int((await conn.execute(text("SELECT 1"))).scalar_one())

    async with database.write_transaction():
        other = asyncio.create_task(read())
        await asyncio.sleep(0)
    assert await other == 1


# --- A server that can be written to ---


def make_standby(data_dir: Path) -> Standby:
    """A hot standby of a server that made its databases and was stopped."""
    with PostgresServer(data_dir):
        pass
    signal_path = data_dir / "data" / "standby.signal"
    signal_path.touch()
    owner = signal_path.parent.stat()
    os.chown(signal_path, owner.st_uid, owner.st_gid)
    return Standby(data_dir)


async def test_hot_standby_is_refused_until_it_is_promoted(data_dir: Path) -> None:
    with make_standby(data_dir) as server:
        assert server.execute("SELECT pg_is_in_recovery()") == "t"
        database = Database(server.url("intake"), application_name="standby")
        for attempt in (lambda: begin_unit_of_work(database), database.connect):
            with pytest.raises(Exception, match="target attribute") as refused:
                await attempt()
            assert is_transient(refused.value)
        server.execute("SELECT pg_promote()")
        await begin_unit_of_work(database)
        await (await database.connect()).close()
        await database.dispose()


async def test_of_several_hosts_the_one_that_can_be_written_to_is_used(
    data_dir: Path, postgres_server: PostgresServer
) -> None:
    with make_standby(data_dir) as standby:
        hosts = [f"host={server.socket_dir}:{server._socket_port}" for server in (standby, postgres_server)]
        database = Database(f"postgresql://postgres@/postgres?{'&'.join(hosts)}", application_name="hosts")
        await begin_unit_of_work(database)
        session = await database.connect()
        assert await session.fetchval("SELECT pg_is_in_recovery()") is False
        await session.close()
        await database.dispose()


async def test_of_several_hosts_the_one_that_can_be_written_to_is_migrated(data_dir: Path) -> None:
    for name in ("standby", "primary"):
        (data_dir / name).mkdir()
    with make_standby(data_dir / "standby") as standby, PostgresServer(data_dir / "primary") as primary:
        hosts = [f"host={server.socket_dir}:{server._socket_port}" for server in (standby, primary)]
        await upgrade(MIGRATIONS, f"postgresql://intake@/intake?{'&'.join(hosts)}")
        assert primary.execute("SELECT count(*) FROM alembic_version", "intake") == "1"


async def begin_unit_of_work(database: Database) -> None:
    async with database.write_transaction():
        pass


async def test_connection_that_cannot_write_any_more_leaves_the_pool(database: Database) -> None:
    async def write(before: str = "SELECT 1") -> None:
        async with database.write_transaction() as unit_of_work:
            connection = await unit_of_work.connection()
            await connection.execute("CREATE TEMPORARY TABLE kept (n int) ON COMMIT DROP")
            await connection.execute(before)

    await write("SET SESSION default_transaction_read_only = on")
    with pytest.raises(asyncpg.ReadOnlySQLTransactionError) as refused:
        async with database.write_transaction() as unit_of_work:
            await (await unit_of_work.connection()).execute("CREATE TABLE never (n int)")
    assert is_transient(refused.value)
    await write()


# --- A peer that has vanished ---


async def test_both_ends_find_out_that_the_other_has_vanished(data_dir: Path) -> None:
    port = free_ports(1)[0]
    with PostgresServer(data_dir, port) as server:
        database = Database(server.tcp_url("intake"), application_name="kept-alive")
        session = await database.connect()
        async with database.read_transaction() as conn:
            for connection in (session, await connection_of(conn)):
                assert await connection.fetchval("SHOW tcp_keepalives_idle") == "10"
                assert await connection.fetchval("SHOW tcp_keepalives_interval") == "5"
                assert await connection.fetchval("SHOW tcp_keepalives_count") == "3"
                assert await connection.fetchval("SHOW tcp_user_timeout") == "25000"
                ours = connection._transport.get_extra_info("socket")
                assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
                assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 10
                assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 25_000
        await session.close()
        await database.dispose()


# --- A table that has changed ---


@pytest.fixture
def changing_url(database_factory: DatabaseFactory) -> str:
    return database_factory("changing", lambda url: None)


@pytest.mark.parametrize("by_driver", [True, False])
async def test_changed_result_type_passes_after_one_failure_of_the_process(
    by_driver: bool, changing_url: str, postgres_server: PostgresServer
) -> None:
    name = make_url(changing_url).database or ""
    database = Database(changing_url, application_name="changing", pool_size=2)

    async def read() -> list[object]:
        async with database.write_transaction() as unit_of_work:
            if by_driver:
                return list((await (await unit_of_work.connection()).fetch("SELECT * FROM changed"))[0])
            return list((await unit_of_work.conn.execute(text("SELECT * FROM changed"))).one())

    postgres_server.execute("CREATE TABLE changed AS SELECT 1 AS n; GRANT ALL ON changed TO PUBLIC", name)
    async with database.write_transaction() as unit_of_work:  # so that both connections have prepared the statement
        await unit_of_work.conn.execute(text("SELECT 1"))
        assert await asyncio.create_task(read()) == [1]
    assert await read() == [1]
    assert await read() == [1]
    postgres_server.execute("ALTER TABLE changed ADD COLUMN m text", name)
    with pytest.raises(Exception) as failed:  # noqa: PT011 - SQLAlchemy's or asyncpg's, by parameter
        await read()
    assert is_transient(failed.value), repr(failed.value)
    async with database.write_transaction():
        assert await asyncio.create_task(read()) == [1, None]
    assert await read() == [1, None]
    await database.dispose()
