"""Workers that walk many rows: where one of them raises, the batch is halved until it is alone, and that row rests. The others go on.

It knows no table but its own, `stuck_row`, and it decides about no row.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from uuid import UUID

import structlog
from msgspec import Struct
from prometheus_client import Counter, Gauge
from sqlalchemy import Column, DateTime, Index, Integer, MetaData, PrimaryKeyConstraint, Table, Text
from sqlalchemy.dialects.postgresql import UUID as UUID_TYPE

from accord.collectors import Collector
from accord.db import Database, UnitOfWork, connection_of, is_transient
from accord.telemetry import describe

log = structlog.get_logger(__name__)

REST_MIN = timedelta(minutes=1)
REST_MAX = timedelta(days=1)

ROWS_FAILED = Counter("accord_worker_rows_failed_total", "Rows that raised in a worker and rest since.", ["worker"])
ROWS_STUCK = Gauge(
    "accord_worker_rows_stuck",
    "Rows that raised in a worker and have not come through since, by the database.",
    ["worker"],
)

Claim = Callable[[UnitOfWork, Sequence[UUID] | None], Awaitable[Sequence[UUID] | None]]
"""Lock the rows that are due, of these where some are given, without those at rest, and answer their ids; None if it cannot be known
yet what is due. It reads nothing else of a row, so that no row can make it raise."""

Work = Callable[[UnitOfWork, Sequence[UUID]], Awaitable[None]]
"""Do what is due of rows that were claimed in this transaction."""

_REST = """
INSERT INTO stuck_row AS known (worker, key, error, failed_at, attempts, retry_at)
VALUES ($1, $2, $3, $4::timestamptz, 1, $4::timestamptz + $5::interval)
ON CONFLICT (worker, key) DO UPDATE SET
    error = excluded.error,
    failed_at = excluded.failed_at,
    attempts = known.attempts + 1,
    retry_at = $4::timestamptz + least($6::interval, $5::interval * power(2, least(known.attempts, 30)))
RETURNING attempts, retry_at
"""

_DELETE_RECOVERED = "DELETE FROM stuck_row WHERE worker = $1 AND key = ANY ($2::uuid[])"

_DELETE_NOT_DUE = "DELETE FROM stuck_row WHERE worker = $1 AND retry_at <= now() AND NOT {is_due}"

_STUCK = "SELECT worker, count(*) AS rows FROM stuck_row GROUP BY worker"


def define_tables(metadata: MetaData) -> None:
    """Add stuck_row to a service's metadata. The DDL that really runs is frozen in accord/migrations/v0004_isolation.py."""
    Table(
        "stuck_row",
        metadata,
        Column("worker", Text, nullable=False),
        Column("key", UUID_TYPE, nullable=False),
        Column("error", Text, nullable=False),
        Column("failed_at", DateTime(timezone=True), nullable=False),
        Column("attempts", Integer, nullable=False),
        Column("retry_at", DateTime(timezone=True), nullable=False),
        PrimaryKeyConstraint("worker", "key", name="stuck_row_pkey"),
        Index("stuck_row_retry_idx", "worker", "retry_at"),
    )


def is_resting(worker: str, key: str) -> str:
    """The SQL condition that the row with this key is not to be claimed by this worker yet. Both are constants of ours."""
    return f"EXISTS (SELECT FROM stuck_row WHERE worker = '{worker}' AND stuck_row.key = {key} AND retry_at > now())"


def is_stuck(worker: str, key: str) -> str:
    """The SQL condition that the row with this key raised in this worker and has not come through since, resting or not."""
    return f"EXISTS (SELECT FROM stuck_row WHERE worker = '{worker}' AND stuck_row.key = {key})"


async def process_isolated(
    database: Database,
    worker: str,
    is_due: str,
    claim: Claim,
    work: Work,
    passes: Callable[[BaseException], bool] = is_transient,
) -> int:
    """Claim rows and do what is due of them, in one transaction; how many were claimed.

    `is_due` is the SQL condition, a constant of ours, that something is or may be due of the row `stuck_row.key`: also where a claim
    passes over it, since it is locked or held. Of what is stuck and not due, nothing is left to come through.

    If that raises what does not pass (see accord.db.errors.is_transient), nothing is written, and each half is tried by itself until the
    row is alone. It then rests, from a minute to a day, and is in `stuck_row` until it comes through or nothing is due of it. An error
    outside of any row, in `claim`, is raised, and so is what passes: the worker tries again.
    """
    isolation = _Isolation(database, worker, is_due, claim, work, passes)
    return len(await isolation.process(None))


class _Isolation(Struct, frozen=True):
    database: Database
    worker: str
    is_due: str
    claim: Claim
    work: Work
    passes: Callable[[BaseException], bool]

    async def process(self, only: Sequence[UUID] | None) -> Sequence[UUID]:
        claimed: Sequence[UUID] = ()
        failure: Exception | None = None
        try:
            async with self.database.write_transaction() as unit_of_work:
                found = await self.claim(unit_of_work, only)
                if found is None:
                    return ()
                claimed = found
                connection = await unit_of_work.connection()
                if claimed:
                    await self.work(unit_of_work, claimed)
                    await connection.execute(_DELETE_RECOVERED, self.worker, claimed)
                if only is None:
                    await connection.execute(_DELETE_NOT_DUE.format(is_due=self.is_due), self.worker)
        except Exception as error:
            if not claimed or self.passes(error):
                raise
            failure = error
        if failure is not None and len(claimed) == 1:
            await self._rest(claimed[0], failure)
        elif failure is not None:
            middle = len(claimed) // 2
            for half in (claimed[:middle], claimed[middle:]):
                await self.process(half)
        return claimed

    async def _rest(self, key: UUID, error: Exception) -> None:
        async with self.database.write_transaction() as unit_of_work:
            connection = await unit_of_work.connection()
            values = (self.worker, key, describe(error), unit_of_work.now, REST_MIN, REST_MAX)
            ((attempts, retry_at),) = await connection.fetch(_REST, *values)
        ROWS_FAILED.labels(self.worker).inc()
        log.error(
            "row_failed",
            worker=self.worker,
            key=str(key),
            attempts=attempts,
            retry_at=retry_at.isoformat(),
            exc_info=error,
        )


def stuck_rows_collector(database: Database, workers: Sequence[str]) -> Collector:
    """How many rows of these workers are stuck, by the database."""

    async def collect() -> None:
        async with database.read_transaction() as conn:
            counts = {row["worker"]: row["rows"] for row in await (await connection_of(conn)).fetch(_STUCK)}
        for worker in workers:
            ROWS_STUCK.labels(worker).set(counts.get(worker, 0))

    return Collector(name="stuck_rows", gauges=[ROWS_STUCK], collect=collect)
