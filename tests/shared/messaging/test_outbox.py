"""State and events are saved together or not at all."""

import asyncio
import json
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from asyncpg.pgproto import pgproto
from msgspec.structs import asdict, replace
from pydantic import TypeAdapter
from sqlalchemy import text

from accord.contracts.codec import decode_value, encode_value
from accord.contracts.examples import EXAMPLES
from accord.contracts.intake_events import ActivityRecorded


async def outbox(database):
    async with database.read_transaction() as conn:
        return (await conn.execute(text("SELECT * FROM outbox ORDER BY id"))).mappings().all()


async def test_events_of_a_unit_of_work_are_in_the_outbox_in_their_order(database, new_activity):
    lead = uuid4()
    async with database.write_transaction() as unit_of_work:
        unit_of_work.publish(*(new_activity(unit_of_work, lead, n) for n in range(1, 4)))
        unit_of_work.publish(new_activity(unit_of_work, lead, 4))
    rows = await outbox(database)
    assert [decode_value(ActivityRecorded, row["payload"]).sequence for row in rows] == [1, 2, 3, 4]
    assert {row["key"] for row in rows} == {str(lead)}
    assert {row["recorded_at"] for row in rows} == {unit_of_work.now}
    assert database.written.is_set()


async def test_a_unit_of_work_that_raises_leaves_nothing(database, new_activity):
    with pytest.raises(RuntimeError, match="no"):  # noqa: PT012
        async with database.write_transaction() as unit_of_work:
            await unit_of_work.conn.execute(text("INSERT INTO effect (sequence) VALUES (1)"))
            unit_of_work.publish(new_activity(unit_of_work))
            raise RuntimeError("no")
    assert await outbox(database) == []
    async with database.read_transaction() as conn:
        assert (await conn.execute(text("SELECT count(*) FROM effect"))).scalar_one() == 0
    assert not database.written.is_set()


async def test_a_commit_that_fails_raises_to_the_caller_and_wakes_nobody(database, new_activity):
    async with database.write_transaction() as unit_of_work:
        await unit_of_work.conn.execute(text("CREATE TABLE parent (id int PRIMARY KEY)"))
        await unit_of_work.conn.execute(
            text("CREATE TABLE child (id int REFERENCES parent DEFERRABLE INITIALLY DEFERRED)")
        )
    with pytest.raises(Exception, match="foreign key"):  # noqa: PT012
        async with database.write_transaction() as unit_of_work:
            await unit_of_work.conn.execute(text("INSERT INTO child VALUES (1)"))
            unit_of_work.publish(new_activity(unit_of_work))
    assert await outbox(database) == []
    assert not database.written.is_set()


async def test_an_event_dated_otherwise_than_its_unit_of_work_is_refused(database, new_activity):
    with pytest.raises(ValueError, match="recorded_at"):  # noqa: PT012
        async with database.write_transaction() as unit_of_work:
            event = new_activity(unit_of_work)
            unit_of_work.publish(replace(event, recorded_at=unit_of_work.now - timedelta(seconds=1)))


async def test_the_connection_is_inside_the_transaction_of_the_unit_of_work(database):
    with pytest.raises(RuntimeError):  # noqa: PT012
        async with database.write_transaction() as unit_of_work:
            connection = await unit_of_work.connection()
            assert connection.is_in_transaction()
            await connection.execute("INSERT INTO effect (sequence) VALUES (1)")
            raise RuntimeError
    async with database.read_transaction() as conn:
        assert (await conn.execute(text("SELECT count(*) FROM effect"))).scalar_one() == 0


async def test_reading_cannot_write(database):
    with pytest.raises(Exception, match="read-only"):
        async with database.read_transaction() as conn:
            await conn.execute(text("INSERT INTO effect (sequence) VALUES (1)"))


async def test_a_unit_of_work_survives_that_the_pool_s_connections_were_cut(database, postgres_server):
    async with database.engine.connect() as one, database.engine.connect() as two:
        await one.execute(text("SELECT 1"))
        await two.execute(text("SELECT 1"))
    postgres_server.execute(
        f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{database.url.database}'"
    )
    await asyncio.gather(*(write_one(database) for _ in range(4)))
    async with database.read_transaction() as conn:
        assert (await conn.execute(text("SELECT count(*) FROM effect"))).scalar_one() == 4


async def write_one(database):
    async with database.write_transaction() as unit_of_work:
        await unit_of_work.conn.execute(text("INSERT INTO effect (sequence) VALUES (1)"))


async def test_the_tables_are_what_the_migration_makes(database):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext
    from sqlalchemy import MetaData

    from accord.messaging import tables

    metadata = MetaData()
    tables.define_tables(metadata)

    def differences(sync):
        mine = lambda name, type_, _parents: type_ != "table" or name in metadata.tables  # noqa: E731
        context = MigrationContext.configure(sync, opts={"compare_type": True, "include_name": mine})
        return compare_metadata(context, metadata)

    async with database.read_transaction() as conn:
        assert await conn.run_sync(differences) == []


@pytest.mark.parametrize("event", EXAMPLES.values(), ids=EXAMPLES.keys())
def test_an_event_is_written_byte_for_byte_as_its_model_writes_it(event):
    of_the_driver = {
        name: pgproto.UUID(value.bytes) for name, value in asdict(event).items() if isinstance(value, UUID)
    }
    by_model = TypeAdapter(type(event)).dump_json(event)
    assert encode_value(event) == by_model
    assert encode_value(replace(event, **of_the_driver)) == by_model


def test_a_number_beyond_64_bits_in_an_agreement_is_written_too():
    event = replace(EXAMPLES["agreement.activated.v1"], content={"n": 2**70})
    assert json.loads(encode_value(event))["content"] == {"n": 2**70}
