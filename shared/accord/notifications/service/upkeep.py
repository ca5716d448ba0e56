"""Deletes old deliveries, drops those that nobody delivers, and re-encrypts secrets once the keys have changed."""

from __future__ import annotations

from datetime import timedelta

from accord.collectors import Collector
from accord.db import Database, connection_of
from accord.notifications import queries
from accord.notifications.metric_names import DISABLED, WAITING, WAITING_AGE_S
from accord.notifications.service.subscriptions import Subscriptions
from accord.workers import Periodic

RETENTION = timedelta(days=30)
_EVERY_S = 60.0
_REENCRYPT_EVERY_S = 3_600.0
_ROWS_MAX = 5_000
_CHANNELS = ("webhook", "email", "slack", "teams")


def prune_worker(database: Database) -> Periodic:
    """The worker that keeps the table of deliveries small."""

    async def prune() -> bool:
        async with database.write_transaction() as unit_of_work:
            connection, now = await unit_of_work.connection(), unit_of_work.now
            await queries.drop_orphans(connection, now, _ROWS_MAX)
            return await queries.prune_deliveries(connection, now - RETENTION, _ROWS_MAX) >= _ROWS_MAX

    return Periodic("notifications-prune", _EVERY_S, prune)


def reencryption_worker(subscriptions: Subscriptions) -> Periodic:
    """The worker after which a key that is no longer the first can be taken away."""

    async def reencrypt() -> None:
        await subscriptions.reencrypt()

    return Periodic("notifications-reencrypt", _REENCRYPT_EVERY_S, reencrypt)


def waiting_collector(database: Database) -> Collector:
    """What waits, and how many subscriptions are disabled."""

    async def collect() -> None:
        async with database.read_transaction() as conn:
            connection = await connection_of(conn)
            waiting = {channel: (rows, age_s) for channel, rows, age_s in await queries.count_waiting(connection)}
            disabled = await queries.count_disabled(connection)
        for channel in _CHANNELS:
            rows, age_s = waiting.get(channel, (0, 0.0))
            WAITING.labels(channel).set(rows)
            WAITING_AGE_S.labels(channel).set(age_s)
        DISABLED.set(disabled)

    return Collector(name="notifications", gauges=[WAITING, WAITING_AGE_S, DISABLED], collect=collect)
