"""Takes the rows of imports in, a few hundred in one transaction with what became of them and the place in the file, so that a process can
can end at any moment and no row is lost or taken twice. An import has one transaction at a time; meanwhile its next rows are read and
normalized, and another import has its own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from typing import Literal
from uuid import UUID
from zoneinfo import ZoneInfo

import asyncpg
import orjson
import structlog
from msgspec import Struct
from msgspec.structs import replace

from accord.agreements import ActiveCache
from accord.batching import Overloaded
from accord.db import Database, connection_of, is_transient
from accord.ids import id_at
from accord.retry import Backoff
from accord.workers import Periodic, StallDetector, pause
from intake.capture.service.capture import Capture
from intake.imports import queries
from intake.imports.domain.formats import FORMATS
from intake.imports.domain.imports import EndState
from intake.imports.queries import Job
from intake.imports.service.imports import end_import
from intake.imports.service.reading import Chunk, Line, ReadAhead
from intake.imports.service.writers import ChunkWriter, DryRun, ImportWriter, StaleOffset
from intake.leads.service.unit_of_work import retry_on_conflict
from intake.metric_names import IMPORTS_ENDED
from intake.policy.domain.evaluator import PolicyEvaluator

log = structlog.get_logger(__name__)

CONCURRENT_MAX = 4
"""Imports that one process works on, turn by turn, so that a short one does not wait for a long one or for one that is throttled."""
_TRANSACTIONS_MAX = 2
"""Transactions of different imports that one process has open: each holds up to three advisory locks a row."""
_LOOK_EVERY_S = 1.0
_SWEEP_EVERY_S = 60.0
_RECEIVING_IDLE_MAX = timedelta(minutes=10)
"""After so long without a block nobody is sending any more."""
_STUCK_AFTER_S = 120.0
_PRUNE_EVERY_S = 600.0
_PRUNE_CHUNKS = 1_000
_PRUNE_RECORDS = 5_000
_WENT_WRONG = "Something went wrong here; it is logged under the import's id."


class Limits(Struct, frozen=True):
    """How much at once. `rows_per_s_max` is for one process; `failures_max`: an import of which more rows than that fail or are rejected
    is stopped."""

    chunk_rows_max: int = 500
    failures_max: int = 1_000_000
    rows_per_s_max: int | None = None


class _RateLimiter:
    """Holds back so that no more rows a second are taken than may be; None: it never does."""

    def __init__(self, rows_per_s_max: int | None) -> None:
        self._rows_per_s_max = rows_per_s_max
        self._next_free_at = 0.0

    def next_free_at(self, rows: int) -> float:
        """From when on the next rows may be taken after these, on the monotonic clock."""
        if self._rows_per_s_max is not None:
            self._next_free_at = max(self._next_free_at, time.monotonic()) + rows / self._rows_per_s_max
        return self._next_free_at


class ImportWorker:
    """Works on imports, some at a time in each process, oldest first. Whoever holds an import's lease works on it, and a lease ends with
    its process. Should two ever hold one, the place in the file, which both would move, lets only one commit."""

    name = "imports"

    def __init__(
        self,
        database: Database,
        capture: Capture,
        policies: ActiveCache[PolicyEvaluator],
        arrived: asyncio.Event,
        limits: Limits | None = None,
    ) -> None:
        self._database = database
        self._capture = capture
        self._policies = policies
        self._arrived = arrived
        self._limits = limits or Limits()
        self._rate_limiter = _RateLimiter(self._limits.rows_per_s_max)
        self._transactions = asyncio.Semaphore(_TRANSACTIONS_MAX)
        self._stall = StallDetector(_STUCK_AFTER_S)
        self._sweep_at = 0.0

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop`; what has been begun goes on with the next process, or with the next call after a failure."""
        backoff = Backoff(first_s=0.2, max_s=5.0)
        working: dict[UUID, asyncio.Task[None]] = {}
        over = asyncio.Event()
        try:
            while not stop.is_set():
                self._arrived.clear()
                try:
                    await self._sweep()
                    await self._start_waiting(working, over)
                    await _wait_for_any(stop, self._arrived, working.values())
                    self._collect_ended(working)
                except Exception as error:
                    if not _is_retryable(error):
                        raise
                    self._stall.record_failure()
                    log.warning("import_worker_retrying", error=type(error).__name__)
                    await backoff.wait(stop)
                    continue
                backoff.reset()
        finally:
            # They end after the rows at hand; whatever ended one of them, the import goes on from where it stands.
            over.set()
            await asyncio.gather(*working.values(), return_exceptions=True)
            self._stall.set_waiting(False)

    def problem(self) -> str | None:
        if self._stall.is_stuck:
            return f"{self.name}: no row was taken for {_STUCK_AFTER_S:.0f} s"
        return None

    async def _start_waiting(self, working: dict[UUID, asyncio.Task[None]], over: asyncio.Event) -> None:
        """Begin to work on what waits and nobody works on, until it is done or `over` is set."""
        room = CONCURRENT_MAX - len(working)
        if room:
            async with self._database.read_transaction() as conn:
                for import_id in await queries.find_waiting(await connection_of(conn), list(working), room):
                    working[import_id] = asyncio.create_task(self._work(import_id, over), name=f"import-{import_id}")
        self._stall.set_waiting(bool(working))

    @staticmethod
    def _collect_ended(working: dict[UUID, asyncio.Task[None]]) -> None:
        """Forget what is done with; raises why one of them has ended."""
        for import_id in [import_id for import_id, task in working.items() if task.done()]:
            working.pop(import_id).result()

    async def _work(self, import_id: UUID, stop: asyncio.Event) -> None:
        async with _session(self._database) as session:
            if not await queries.lease(session, import_id):
                return
            try:
                job = await self._begin(import_id)
                if job is not None:
                    await self._run(job, session, stop)
            except Exception as error:
                if _is_retryable(error):
                    raise
                # What is kept of it cannot even be read; it must not stop all others, now and at each start.
                log.error("import_failed", import_id=str(import_id), exc_info=error)
                await self._give_up(import_id)

    async def _give_up(self, import_id: UUID) -> None:
        async with self._database.write_transaction() as unit_of_work:
            await queries.give_up(await unit_of_work.connection(), import_id, unit_of_work.now, _WENT_WRONG)
        IMPORTS_ENDED.labels("failed").inc()

    async def _run(self, job: Job, session: asyncpg.Connection, stop: asyncio.Event) -> None:
        run = _ImportRun(
            self._database,
            self._capture,
            self._policies,
            job,
            session,
            self._limits,
            self._rate_limiter,
            self._transactions,
        )
        try:
            await run.run(stop, self._stall)
        except Exception as error:
            if _is_retryable(error):
                raise
            log.error("import_failed", import_id=str(job.import_id), exc_info=error)
            await run.end("failed", _WENT_WRONG)

    async def _begin(self, import_id: UUID) -> Job | None:
        async with self._database.write_transaction() as unit_of_work:
            connection = await unit_of_work.connection()
            job = await queries.find(connection, import_id, lock=True)
            if job is None or job.plan is None or not await queries.begin(connection, import_id, unit_of_work.now):
                return None
            if job.cancel_requested:
                await end_import(unit_of_work, job, "cancelled")
                return None
            if job.dry_run and job.bytes_done != job.plan.start:
                # What a dry run has foreseen is not kept, so it begins anew.
                await queries.restart(connection, import_id, job.plan, unit_of_work.now)
            return await queries.find(connection, import_id)

    async def _sweep(self) -> None:
        """Give up uploads whose sender is gone together with the process that received them."""
        if time.monotonic() < self._sweep_at:
            return
        self._sweep_at = time.monotonic() + _SWEEP_EVERY_S
        async with self._database.write_transaction() as unit_of_work:
            connection = await unit_of_work.connection()
            for import_id in await queries.find_abandoned(connection, unit_of_work.now - _RECEIVING_IDLE_MAX):
                await queries.end(connection, import_id, "failed", unit_of_work.now, error="The upload broke off.")


class _ImportRun:
    """One import, from the place where it stands to its end."""

    def __init__(
        self,
        database: Database,
        capture: Capture,
        policies: ActiveCache[PolicyEvaluator],
        job: Job,
        session: asyncpg.Connection,
        limits: Limits,
        rate_limiter: _RateLimiter,
        transactions: asyncio.Semaphore,
    ) -> None:
        if job.plan is None:
            raise ValueError("the file has not been received")
        plan = job.plan
        reader = FORMATS[plan.format].reader(plan, job.source, ZoneInfo(plan.timezone), orjson.dumps)
        self._writer: ChunkWriter = (
            DryRun(database, policies, job, plan, reader, session)
            if job.dry_run
            else ImportWriter(database, policies, job, plan, reader, capture)
        )
        self._ahead = ReadAhead(database, job, plan, reader, limits.chunk_rows_max)
        self._database = database
        self._limits = limits
        self._rate_limiters = (rate_limiter, _RateLimiter(plan.rows_per_s_max))
        self._transactions = transactions

    async def run(self, stop: asyncio.Event, stall: StallDetector) -> None:
        """Take rows until there are none, somebody cancels, too many fail, or `stop`."""
        await self._writer.begin()
        state = await self._process_chunks(stop, stall)
        if state == "failed":
            await self.end(state, f"More than {self._limits.failures_max} rows failed or were rejected.")
        elif state is not None:
            await self.end(state)

    async def _process_chunks(self, stop: asyncio.Event, stall: StallDetector) -> EndState | None:
        """How it ended; None if only we do."""
        async with aclosing(self._ahead.chunks()) as chunks:
            async for chunk in chunks:
                cancelled = await self._save(chunk)
                stall.record_progress()
                if self._too_many_failed():
                    return "failed"
                if cancelled or await self._throttle(len(chunk.lines), stop, stall):
                    return "cancelled"
                if stop.is_set():
                    return None
        return "finished"

    def _too_many_failed(self) -> bool:
        counts = self._writer.job.counts
        return counts.failed + counts.rejected > self._limits.failures_max

    async def end(self, state: Literal["finished", "cancelled", "failed"], error: str | None = None) -> None:
        """Bring it to its end."""
        async with self._database.write_transaction() as unit_of_work:
            await end_import(unit_of_work, self._writer.job, state, error)
        IMPORTS_ENDED.labels(state).inc()

    async def _save(self, chunk: Chunk) -> bool:
        """Save the rows in one transaction; whether somebody has asked to cancel. If it fails for good, each half is tried by itself, until
        it is known which row cannot be saved; that one fails alone."""
        try:
            return await self._save_with_retry(chunk)
        except Exception as error:
            if _is_retryable(error):
                raise
            if len(chunk.lines) <= 1:
                log.error("row_failed", import_id=str(self._writer.job.import_id), exc_info=error)
                return await self._save_with_retry(replace(chunk, lines=[_mark_unsaved(line) for line in chunk.lines]))
        middle = len(chunk.lines) // 2
        row = chunk.lines[middle - 1].row
        await self._save(Chunk(chunk.lines[:middle], row.end, row.number, 0))
        return await self._save(replace(chunk, lines=chunk.lines[middle:]))

    async def _save_with_retry(self, chunk: Chunk) -> bool:
        async with self._transactions:
            return await retry_on_conflict(lambda: self._writer.save(chunk))

    async def _throttle(self, rows: int, stop: asyncio.Event, stall: StallDetector) -> bool:
        """Wait until more rows may be taken; whether somebody has asked to cancel meanwhile."""
        until = max(rate_limiter.next_free_at(rows) for rate_limiter in self._rate_limiters)
        while not stop.is_set() and (rest_s := until - time.monotonic()) > 0:
            await pause(stop, min(rest_s, _LOOK_EVERY_S))
            stall.record_progress()
            if rest_s > _LOOK_EVERY_S:
                async with self._database.read_transaction() as conn:
                    job = await queries.find(await connection_of(conn), self._writer.job.import_id)
                if job is not None and job.cancel_requested:
                    return True
        return False


def _is_retryable(error: BaseException) -> bool:
    """Whether the same may succeed later, from the place where the import then stands."""
    return is_transient(error) or isinstance(error, Overloaded | StaleOffset)


def _mark_unsaved(line: Line) -> Line:
    parsed = line.parsed._replace(errors="The row could not be saved; it is logged under the import's id")
    return Line(line.row, parsed, None, line.keys if line.normalized is None else line.normalized.keys)


def prune_worker(database: Database, retention_days: int) -> Periodic:
    """The worker that forgets what became of single rows and what they said, so long after their import. The import itself stays to be
    seen; rows for the file of errors are dropped with raw submissions (privacy/service/retention.py)."""

    async def prune() -> bool:
        async with database.write_transaction() as unit_of_work:
            connection, before = await unit_of_work.connection(), unit_of_work.now - timedelta(days=retention_days)
            chunks = await queries.prune_chunks(connection, before, _PRUNE_CHUNKS)
            return (
                chunks == _PRUNE_CHUNKS
                or await queries.prune_records(connection, id_at(before), _PRUNE_RECORDS) == _PRUNE_RECORDS
            )

    return Periodic("import-prune", _PRUNE_EVERY_S, prune)


@asynccontextmanager
async def _session(database: Database) -> AsyncIterator[asyncpg.Connection]:
    """A connection of its own, whose locks and temporary tables end with it."""
    session = await database.connect()
    try:
        yield session
    finally:
        session.terminate()


async def _wait_for_any(stop: asyncio.Event, arrived: asyncio.Event, tasks: Iterable[asyncio.Task[None]]) -> None:
    """Wait until one of these is there or done, but no longer than until it is time to look again."""
    waits = [asyncio.create_task(event.wait()) for event in (stop, arrived)]
    try:
        await asyncio.wait([*waits, *tasks], timeout=_LOOK_EVERY_S, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waits:
            task.cancel()
