"""The shared servers and the database factory do what the tests of the services count on."""

import asyncio

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

from accord_local.kafka import KafkaServer
from accord_local.postgres import PostgresServer
from tests.databases import Databases


def _migrate(url: str) -> None:
    async def create() -> None:
        engine = create_async_engine(url)
        async with engine.begin() as connection:
            await connection.execute(text("CREATE TABLE lead (id int)"))
        await engine.dispose()

    asyncio.run(create())


@pytest.mark.parametrize("turn", [1, 2])
async def test_each_test_has_an_own_copy_of_a_migrated_database(database_factory, turn) -> None:
    engine = create_async_engine(database_factory("intake", _migrate))
    async with engine.begin() as connection:
        await connection.execute(text("INSERT INTO lead VALUES (:turn)"), {"turn": turn})
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT id FROM lead"))).scalars().all() == [turn]
        assert (await connection.execute(text("SELECT current_user"))).scalar() == "intake"
    await engine.dispose()


def test_a_database_that_was_given_back_is_as_it_was_made(postgres_server: PostgresServer) -> None:
    databases, sql = Databases(postgres_server), postgres_server.execute
    contents = (
        "SELECT (SELECT array_agg(kept) FROM kept), (SELECT array_agg(stage) FROM stage), (SELECT count(*) FROM lead),"
        " (SELECT last_value FROM lead_id_seq), (SELECT last_value FROM kept_id_seq)"
    )

    def migrate(url: str) -> None:
        sql(
            "CREATE TABLE kept (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, word text, facts jsonb);"
            "INSERT INTO kept (word, facts) VALUES ('one', '{}'), ('two', NULL);"
            "CREATE TABLE stage (key text); INSERT INTO stage VALUES ('mql');"
            "CREATE TABLE lead (id int GENERATED ALWAYS AS IDENTITY, kept int REFERENCES kept (id))",
            str(make_url(url).database),
        )

    first = databases.take("kind", "intake", migrate)
    made = sql(contents, first)
    for change in (
        "INSERT INTO lead (kept) VALUES (1), (2)",
        "UPDATE kept SET word = 'three' WHERE id = 1",
        "INSERT INTO lead (kept) VALUES (1); DELETE FROM lead; DELETE FROM kept; DELETE FROM stage",
        "CREATE TEMPORARY TABLE passing (id int); INSERT INTO kept (word) VALUES ('four')",
        "SELECT nextval('lead_id_seq')",
    ):
        sql(change, first)
        databases.give_back("kind", "intake", first)
        second = databases.take("kind", "intake", migrate)
        assert second != first
        assert sql(f"SELECT count(*) FROM pg_database WHERE datname = '{first}'") == "0"
        assert sql(contents, second) == made, change
        first = second


@pytest.mark.parametrize("change", ["ALTER TABLE lead ADD word text", "CREATE TABLE more (id int)", "DROP TABLE lead"])
def test_a_database_whose_tables_were_changed_is_not_given_to_another_test(
    postgres_server: PostgresServer, change: str
) -> None:
    databases = Databases(postgres_server)
    changed = databases.take("kind", "intake", _migrate)
    postgres_server.execute(change, changed)
    databases.give_back("kind", "intake", changed)
    other = databases.take("kind", "intake", _migrate)
    assert postgres_server.execute(f"SELECT count(*) FROM pg_database WHERE datname = '{changed}'") == "0"
    columns = "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
    assert postgres_server.execute(columns, other) == "lead|id"


def test_one_service_cannot_open_the_database_of_another(postgres_server: PostgresServer) -> None:
    assert postgres_server.execute("SELECT has_database_privilege('intake', 'metrics', 'CONNECT')") == "f"
    assert postgres_server.execute("SELECT has_database_privilege('metrics', 'metrics', 'CONNECT')") == "t"


async def test_kafka_makes_no_topic_by_itself(kafka_server: KafkaServer, kafka_topic_prefix: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_server.bootstrap_servers)
    await admin.start()
    try:
        described = await admin.describe_topics([f"{kafka_topic_prefix}nothing"])
        assert described[0]["error_code"] == 3  # unknown topic or partition
        assert f"{kafka_topic_prefix}nothing" not in await admin.list_topics()
    finally:
        await admin.close()
