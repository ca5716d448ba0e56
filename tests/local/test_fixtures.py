"""The shared servers and the database factory do what the tests of the services count on."""

import asyncio

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from accord_local.kafka import KafkaServer
from accord_local.postgres import PostgresServer


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
