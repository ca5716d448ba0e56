"""A process with a relay and a consumer, to be killed: `python worker_process.py DATABASE OTHER BOOTSTRAP PREFIX`."""

import asyncio
import sys

import uvloop

from accord.db import Database
from accord.messaging.consumer import Consumer
from accord.messaging.consumer_store import PostgresConsumerStore
from accord.messaging.kafka_log import KafkaLog
from accord.messaging.relay import Relay
from accord.messaging.relay_store import PostgresRelayStore
from accord.settings import KafkaSettings


async def keep(unit_of_work, received):
    connection = await unit_of_work.connection()
    await connection.executemany(
        "INSERT INTO effect (event_id, key, sequence) VALUES ($1, $2, $3)",
        [(one.event.id, one.event.data.key, one.event.data.sequence) for one in received],
    )


async def main(url: str, other_url: str, bootstrap: str, prefix: str) -> None:
    kafka = KafkaSettings(bootstrap_servers=bootstrap, topic_prefix=prefix)
    database, other = (Database(each, application_name="victim") for each in (url, other_url))
    log, stop = KafkaLog(kafka), asyncio.Event()
    await asyncio.gather(
        Relay(PostgresRelayStore(database), log, "intake").run(stop),
        Consumer(
            PostgresConsumerStore(other, "test"),
            log,
            group="test",
            topics=["intake-events"],
            handle=keep,
            batch_rows_max=100,
        ).run(stop),
    )


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
