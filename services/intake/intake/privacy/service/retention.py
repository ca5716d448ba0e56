"""Drops raw records after their time, in bounded rounds. What was judged of them stays, since numbers are built on it."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from accord.batching import Overloaded
from accord.db import Database
from accord.ids import id_at
from accord.workers import Periodic
from intake.metric_names import RETENTION_DROPPED
from intake.privacy.queries import retention
from intake.quarantine.service import Quarantine

EVERY_S = 300.0
ROWS_MAX = 1_000
QUARANTINED_MAX = 50
"""Waiting submissions that one round lets go; their leads and keys are locked for it."""


class Retention:
    """The use case: one `round` at a time."""

    def __init__(self, database: Database, quarantine: Quarantine, retention_period: timedelta) -> None:
        self._database = database
        self._quarantine = quarantine
        self._retention_period = retention_period

    async def run_once(self) -> bool:
        """Drop what is due, a bounded part of it; whether there is more."""
        async with self._database.read_transaction() as conn:
            now: datetime = (await conn.exec_driver_sql("SELECT now()")).scalar_one()
        before = now - self._retention_period
        expired = await self._expire(id_at(before))
        seen = await self._drop(id_at(before))
        rows = await self._drop_import_rows(before)
        return expired == QUARANTINED_MAX or ROWS_MAX in (seen, rows)

    def worker(self) -> Periodic:
        """The worker that does this for ever."""
        return Periodic("retention", EVERY_S, self.run_once)

    async def _expire(self, before: UUID) -> int:
        try:
            expired = await self._quarantine.expire(before, QUARANTINED_MAX)
        except Overloaded:
            return 0  # the same people are coming in right now; the next round will do
        RETENTION_DROPPED.labels("quarantined").inc(expired)
        return expired

    async def _drop(self, before: UUID) -> int:
        async with self._database.write_transaction() as unit_of_work:
            connection = await unit_of_work.connection()
            seen, dropped = await retention.drop_submissions(connection, before, ROWS_MAX, unit_of_work.now)
        RETENTION_DROPPED.labels("submission").inc(dropped)
        return seen

    async def _drop_import_rows(self, before: datetime) -> int:
        async with self._database.write_transaction() as unit_of_work:
            dropped = await retention.drop_import_failures(await unit_of_work.connection(), before, ROWS_MAX)
        RETENTION_DROPPED.labels("import_row").inc(dropped)
        return dropped
