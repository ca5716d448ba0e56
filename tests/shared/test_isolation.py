"""One row that raises stops neither the others nor the process: it rests, is seen, and comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from accord.db import Database, UnitOfWork, async_url
from accord.isolation import is_resting, process_isolated, stuck_rows_collector
from accord.metric_names import REGISTRY
from accord.migrations import v0001, v0004_isolation

ROWS_MAX = 10
_CLAIM = f"""
SELECT key FROM todo WHERE NOT done AND ($1::uuid[] IS NULL OR key = ANY ($1)) AND NOT {is_resting("tester", "todo.key")}
ORDER BY key LIMIT {ROWS_MAX} FOR UPDATE SKIP LOCKED
"""


_IS_DUE = "EXISTS (SELECT FROM todo WHERE todo.key = stuck_row.key AND NOT done)"


def migrate(url: str) -> None:
    async def upgrade() -> None:
        engine = create_async_engine(async_url(url))
        async with engine.begin() as conn:
            for migration in (v0001, v0004_isolation):
                await conn.run_sync(
                    lambda sync, made=migration: made.upgrade(Operations(MigrationContext.configure(sync)))
                )
            await conn.execute(text("CREATE TABLE todo (key uuid PRIMARY KEY, done bool NOT NULL DEFAULT false)"))
        await engine.dispose()

    asyncio.run(upgrade())


@pytest.fixture
async def database(database_factory: Callable[..., str]) -> AsyncIterator[Database]:
    made = Database(database_factory("isolation", migrate), application_name="isolation", pool_size=1)
    yield made
    await made.dispose()


async def rows_of(database: Database, statement: str) -> list[Any]:
    async with database.write_transaction() as unit_of_work:
        return list(await (await unit_of_work.connection()).fetch(statement))


async def todo(database: Database, count: int) -> list[UUID]:
    keys = [UUID(int=number) for number in range(1, count + 1)]
    async with database.write_transaction() as unit_of_work:
        await (await unit_of_work.connection()).execute("INSERT INTO todo (key) SELECT * FROM unnest($1::uuid[])", keys)
    return keys


async def claim(unit_of_work: UnitOfWork, only: Sequence[UUID] | None) -> list[UUID]:
    return [row[0] for row in await (await unit_of_work.connection()).fetch(_CLAIM, only)]


class Working:
    """Does rows, and raises what it is told to for some of them."""

    def __init__(self, bad: dict[UUID, Exception] | None = None) -> None:
        self.bad = bad or {}
        self.batches: list[int] = []

    async def __call__(self, unit_of_work: UnitOfWork, keys: Sequence[UUID]) -> None:
        self.batches.append(len(keys))
        await (await unit_of_work.connection()).execute("UPDATE todo SET done = true WHERE key = ANY ($1)", keys)
        for key in keys:
            if key in self.bad:
                raise self.bad[key]

    async def round(self, database: Database) -> int:
        return await process_isolated(database, "tester", _IS_DUE, claim, self)


async def test_rows_without_a_fault_share_one_transaction(database: Database) -> None:
    await todo(database, 12)
    working = Working()
    assert [await working.round(database) for _ in range(3)] == [10, 2, 0]
    assert working.batches == [10, 2]


async def test_row_that_raises_rests_and_all_others_are_done(database: Database) -> None:
    keys = await todo(database, 10)
    before = REGISTRY.get_sample_value("accord_worker_rows_failed_total", {"worker": "tester"}) or 0
    working = Working({keys[3]: LookupError("a secret"), keys[7]: ValueError("another")})
    assert await working.round(database) == 10
    assert [row[0] for row in await rows_of(database, "SELECT key FROM todo WHERE NOT done")] == [keys[3], keys[7]]
    stuck = await rows_of(
        database,
        "SELECT key, error, attempts, extract(epoch FROM retry_at - failed_at)::int FROM stuck_row ORDER BY key",
    )
    assert [tuple(row) for row in stuck] == [(keys[3], "LookupError", 1, 60), (keys[7], "ValueError", 1, 60)]
    assert REGISTRY.get_sample_value("accord_worker_rows_failed_total", {"worker": "tester"}) == before + 2
    working.batches.clear()
    assert await working.round(database) == 0
    assert working.batches == []


async def test_rest_doubles_up_to_a_day(database: Database) -> None:
    (key,) = await todo(database, 1)
    working = Working({key: ValueError()})
    rests = []
    for _ in range(13):
        await working.round(database)
        row = (await rows_of(database, "SELECT extract(epoch FROM retry_at - failed_at)::int FROM stuck_row"))[0]
        rests.append(row[0])
        await rows_of(database, "UPDATE stuck_row SET retry_at = now()")
    assert rests == [60 * 2**number for number in range(11)] + [86_400, 86_400]


async def test_row_that_comes_through_after_its_rest_is_stuck_no_more(database: Database) -> None:
    keys = await todo(database, 4)
    await Working({keys[1]: ValueError()}).round(database)
    assert [row[0] for row in await rows_of(database, "SELECT key FROM stuck_row")] == [keys[1]]
    await rows_of(database, "UPDATE stuck_row SET retry_at = now()")
    assert await Working().round(database) == 1
    assert await rows_of(database, "SELECT 1 FROM stuck_row") == []


async def test_row_of_which_nothing_is_due_any_more_is_stuck_no_more(database: Database) -> None:
    keys = await todo(database, 1)
    await Working({keys[0]: ValueError()}).round(database)
    await rows_of(database, "UPDATE todo SET done = true")
    await Working().round(database)
    assert len(await rows_of(database, "SELECT 1 FROM stuck_row")) == 1  # its rest is not over
    await rows_of(database, "UPDATE stuck_row SET retry_at = now()")
    await Working().round(database)
    assert await rows_of(database, "SELECT 1 FROM stuck_row") == []


async def test_row_that_is_locked_after_its_rest_stays_stuck_until_it_comes_through(database: Database) -> None:
    keys = await todo(database, 2)
    await Working({keys[0]: ValueError()}).round(database)
    await rows_of(database, "UPDATE stuck_row SET retry_at = now()")
    holder = await database.connect()
    try:
        async with holder.transaction():
            await holder.execute("SELECT FROM todo WHERE key = $1 FOR UPDATE", keys[0])
            assert await Working().round(database) == 0
            assert len(await rows_of(database, "SELECT 1 FROM stuck_row")) == 1
    finally:
        await holder.close()
    assert await Working().round(database) == 1
    assert await rows_of(database, "SELECT 1 FROM stuck_row") == []


async def test_passing_failure_is_raised_and_no_row_rests(database: Database) -> None:
    keys = await todo(database, 4)
    working = Working({keys[1]: asyncpg.DeadlockDetectedError("deadlock")})
    with pytest.raises(asyncpg.DeadlockDetectedError):
        await working.round(database)
    assert working.batches == [4]
    assert await rows_of(database, "SELECT 1 FROM stuck_row") == []


async def test_error_outside_of_any_row_is_raised(database: Database) -> None:
    async def broken(_: UnitOfWork, __: Sequence[UUID] | None) -> list[UUID]:
        raise RuntimeError("no row's fault")

    with pytest.raises(RuntimeError, match="no row's fault"):
        await process_isolated(database, "tester", _IS_DUE, broken, Working())


async def test_stuck_rows_are_counted_from_the_database(database: Database) -> None:
    keys = await todo(database, 3)
    await Working({key: ValueError() for key in keys}).round(database)
    await stuck_rows_collector(database, ["tester", "other"]).collect()

    def measured(worker: str) -> float | None:
        return REGISTRY.get_sample_value("accord_worker_rows_stuck", {"worker": worker})

    assert (measured("tester"), measured("other")) == (3, 0)
