"""The collectors of messaging: what the outbox holds, whoever is the active relay and whether Kafka is there."""

from __future__ import annotations

from accord.collectors import Collector
from accord.database import Database
from accord.messaging import instruments, outbox


def outbox_collector(database: Database) -> Collector:
    """How many events wait to be published, and for how long."""

    async def collect() -> None:
        async with database.reading() as conn:
            depth = await outbox.depth(conn)
        instruments.OUTBOX_ROWS.set(depth.rows)
        instruments.OUTBOX_AGE_S.set(depth.oldest_age_s or 0.0)

    return Collector(name="outbox", gauges=[instruments.OUTBOX_ROWS, instruments.OUTBOX_AGE_S], collect=collect)
