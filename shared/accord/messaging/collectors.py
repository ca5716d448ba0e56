"""The collectors of messaging: what waits in outbox and dead letters, and how old watermarks are, whether Kafka is there or not."""

from __future__ import annotations

import math

from accord.clock import utc_now
from accord.collectors import Collector
from accord.db import Database, outbox
from accord.messaging import dead_letters, instruments
from accord.messaging.relay import Relay
from accord.messaging.watermark_reader import WatermarkReader


def outbox_collector(database: Database) -> Collector:
    """How many events wait to be published, and for how long."""

    async def collect() -> None:
        async with database.read_transaction() as conn:
            depth = await outbox.depth(conn)
        instruments.OUTBOX_ROWS.set(depth.rows)
        instruments.OUTBOX_AGE_S.set(depth.oldest_age_s or 0.0)

    return Collector(name="outbox", gauges=[instruments.OUTBOX_ROWS, instruments.OUTBOX_AGE_S], collect=collect)


def announced_collector(relay: Relay) -> Collector:
    """How old the watermark is that this process announced last; NaN where it publishes nothing."""

    async def collect() -> None:
        announced = relay.announced
        instruments.WATERMARK_AGE_S.set(math.nan if announced is None else (utc_now() - announced).total_seconds())

    return Collector(name="announced", gauges=[instruments.WATERMARK_AGE_S], collect=collect)


def consumed_collector(database: Database, watermarks: WatermarkReader) -> Collector:
    """How old the watermark of each topic is that has been consumed; NaN before one was heard, as in the role `api`."""

    async def collect() -> None:
        async with database.read_transaction() as conn:
            reached = await watermarks.read(conn)
        for topic in watermarks.topics:
            known = reached.topics.get(topic)
            age_s = math.nan if known is None else (utc_now() - known).total_seconds()
            instruments.CONSUMER_WATERMARK_AGE_S.labels(watermarks.consumer, topic).set(age_s)

    return Collector(name="consumed", gauges=[instruments.CONSUMER_WATERMARK_AGE_S], collect=collect)


def dead_letter_collector(database: Database) -> Collector:
    """How many dead letters wait, and for how long the oldest of them does."""

    async def collect() -> None:
        async with database.read_transaction() as conn:
            backlog = await dead_letters.count_waiting(conn)
        instruments.DEAD_LETTERS_WAITING.set(backlog.count)
        instruments.DEAD_LETTERS_WAITING_AGE_S.set(backlog.oldest_age_s)

    gauges = [instruments.DEAD_LETTERS_WAITING, instruments.DEAD_LETTERS_WAITING_AGE_S]
    return Collector(name="dead_letters", gauges=gauges, collect=collect)
