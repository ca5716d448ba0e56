"""Statements for many rows, made from a table: what they write, and how many rows they say they have written."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy import (
    ARRAY,
    BigInteger,
    Column,
    DateTime,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    create_mock_engine,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql import UUID as UUID_TYPE

from accord.db import bulk
from accord_local.postgres import PostgresServer

EVENT = Table(
    "bulk event",
    MetaData(),
    Column("id", UUID_TYPE, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("by", Text),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("content", JSONB),
    Column("keys", ARRAY(Text)),
    Column("revision", Integer, nullable=False),
    PrimaryKeyConstraint("id", name="event_pkey"),
)
COLUMNS = [column.name for column in EVENT.columns]
NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)


def make_row(number: int, **changed: object) -> dict[str, object]:
    row: dict[str, object] = {
        "id": UUID(int=number),
        "offset": 10 * number,
        "by": "sales",
        "at": NOON + timedelta(minutes=number),
        "content": '{"n": 1}',
        "keys": ["a"],
        "revision": 1,
    }
    return row | changed


@pytest.fixture
async def connection(postgres_server: PostgresServer) -> AsyncIterator[asyncpg.Connection]:
    made = await asyncpg.connect(postgres_server.url("postgres").replace("+asyncpg", ""))
    statements: list[str] = []
    engine = create_mock_engine("postgresql://", lambda ddl, *_, **__: statements.append(str(ddl.compile(engine))))
    EVENT.metadata.create_all(engine, checkfirst=False)
    transaction = made.transaction()
    await transaction.start()
    for statement in statements:
        await made.execute(statement)
    yield made
    await transaction.rollback()
    await made.close()


async def read(connection: asyncpg.Connection) -> list[dict[str, object]]:
    return [dict(row) for row in await connection.fetch('SELECT * FROM "bulk event" ORDER BY id')]


class TestInsert:
    async def test_writes_rows_of_every_type_as_they_were_given(self, connection: asyncpg.Connection) -> None:
        rows = [make_row(1), make_row(2, by=None, content=None, keys=[]), make_row(3, keys=None)]
        assert await bulk.insert(EVENT).execute(connection, rows) == 3
        assert await read(connection) == rows

    @pytest.mark.parametrize("word", ['"', "\\", "a,b", "{}", "NULL", "", " ", "ä\n"])
    async def test_keeps_words_of_arrays_whole(self, connection: asyncpg.Connection, word: str) -> None:
        await bulk.insert(EVENT, COLUMNS).execute(connection, [make_row(1, keys=[word, "b"])])
        assert (await read(connection))[0]["keys"] == [word, "b"]

    async def test_leaves_rows_that_are_there_on_conflict(self, connection: asyncpg.Connection) -> None:
        statement = bulk.insert(EVENT, COLUMNS, on_conflict="DO NOTHING")
        await statement.execute(connection, [make_row(1)])
        assert await statement.execute(connection, [make_row(1, by="marketing"), make_row(2)]) == 1
        assert await read(connection) == [make_row(1), make_row(2)]

    async def test_returns_what_was_written_and_not_what_was_there(self, connection: asyncpg.Connection) -> None:
        statement = bulk.insert(EVENT, COLUMNS, on_conflict="DO NOTHING", returning=["offset"])
        await statement.execute(connection, [make_row(1)])
        assert [row["offset"] for row in await statement.fetch(connection, [make_row(1), make_row(2)])] == [20]
        assert await statement.fetch(connection, []) == []

    async def test_sends_nothing_without_rows(self, connection: asyncpg.Connection) -> None:
        await connection.execute('DROP TABLE "bulk event"')  # so a statement would fail
        assert await bulk.insert(EVENT, COLUMNS).execute(connection, []) == 0


class TestUpsert:
    async def test_changes_only_the_named_columns_and_only_where_the_condition_holds(
        self, connection: asyncpg.Connection
    ) -> None:
        statement = bulk.upsert(
            EVENT, COLUMNS, key=["id"], changing=["by", "revision"], where='excluded.revision > "bulk event".revision'
        )
        await statement.execute(connection, [make_row(1), make_row(2, revision=5)])
        newer = [make_row(1, by="x", offset=7, revision=2), make_row(2, by="x", revision=4), make_row(3)]
        assert await statement.execute(connection, newer) == 2
        assert await read(connection) == [make_row(1, by="x", revision=2), make_row(2, revision=5), make_row(3)]

    async def test_keeps_the_stored_value_where_null_is_given_for_a_column_unless_null(
        self, connection: asyncpg.Connection
    ) -> None:
        statement = bulk.upsert(EVENT, COLUMNS, key=["id"], changing=["revision"], unless_null=["by", "content"])
        await statement.execute(connection, [make_row(1)])
        await statement.execute(connection, [make_row(1, by=None, content='{"n": 2}', revision=2)])
        assert await read(connection) == [make_row(1, content='{"n": 2}', revision=2)]


class TestUpdate:
    async def test_writes_the_rows_whose_condition_holds_and_says_how_many(
        self, connection: asyncpg.Connection
    ) -> None:
        await bulk.insert(EVENT, COLUMNS).execute(connection, [make_row(1), make_row(2)])
        statement = bulk.update(
            EVENT,
            ["id"],
            ["by", "content", "keys", "revision"],
            beside={"revision_before": "revision"},
            where='"bulk event".revision = new.revision_before',
        )
        changed = [
            make_row(1, by=None, content='{"n": 2}', keys=["b", "c"], revision=2, revision_before=1),
            make_row(2, by=None, revision=9, revision_before=8),
            make_row(3, revision_before=1),
        ]
        assert await statement.execute(connection, changed) == 1
        assert await read(connection) == [
            make_row(1, by=None, content='{"n": 2}', keys=["b", "c"], revision=2),
            make_row(2),
        ]


class TestDelete:
    async def test_deletes_rows_by_their_key(self, connection: asyncpg.Connection) -> None:
        await bulk.insert(EVENT, COLUMNS).execute(connection, [make_row(1), make_row(2), make_row(3)])
        assert await bulk.delete(EVENT, ["id", "offset"]).execute(connection, [make_row(1), make_row(2, offset=0)]) == 1
        assert await read(connection) == [make_row(2), make_row(3)]


def test_column_that_the_table_has_not_is_refused_at_import() -> None:
    with pytest.raises(KeyError):
        bulk.insert(EVENT, ["id", "no_such_column"])
