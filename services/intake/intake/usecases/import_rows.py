"""Takes the rows of imports in, a few hundred in one transaction with what became of them and the place in the file, so that a process can
end at any moment and no row is lost or taken twice. While one transaction is in the database, the next rows are read and recognised.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import blake2b, md5
from itertools import islice
from typing import Literal, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import asyncpg
import orjson
import structlog

from accord.agreements import ActiveCache
from accord.batching import Overloaded
from accord.database import Database, Recording, driver_of, is_transient
from accord.http.problems import Problem
from accord.retry import Backoff
from accord.workers import Periodic, Stall, pause
from intake.domain.capture import IdentityKey
from intake.domain.erasure import key_word
from intake.domain.imports import OUTCOMES, Failure, Foresight, Plan, Report, Result, bits_of, packed, refusal
from intake.domain.quality import Judge, Quality
from intake.domain.rows import CsvReader, NdjsonReader, Reading
from intake.domain.submission import is_ahead
from intake.domain.table import Row
from intake.metric_names import IMPORT_ROWS, IMPORTS_ENDED
from intake.queries import imports as queries
from intake.queries import leads as lead_queries
from intake.queries.imports import Job, Progress
from intake.usecases.batch import ahead_of_time, tried
from intake.usecases.capture import (
    Capture,
    CaptureRequest,
    InForce,
    Recognised,
    Taken,
    as_the_policy_knows,
    judged,
)
from intake.usecases.imports import end

log = structlog.get_logger(__name__)

CHUNK_BYTES_MAX = 4 * 1024 * 1024
_SLICE_ROWS = 50
"""Rows that are read without letting other tasks run: about two milliseconds."""
_WAITING_LOOKED_AT = 50
_LOOK_EVERY_S = 1.0
_SWEEP_EVERY_S = 60.0
_RECEIVING_IDLE_MAX = timedelta(minutes=10)
"""After so long without a block nobody is sending any more."""
_STUCK_AFTER_S = 120.0
_PRUNE_EVERY_S = 600.0
_PRUNE_CHUNKS = 1_000
_SMOOTHING = 0.2
"""Weight of the newest rows in the rate that is shown."""

_TRY_LEASE = "SELECT pg_try_advisory_lock(hashtextextended('accord-import:' || $1, 0))"
_END_LEASE = "SELECT pg_advisory_unlock(hashtextextended('accord-import:' || $1, 0))"


class _Overtaken(Exception):
    """The import is not where we left it: somebody else takes its rows, or our last commit came through after all."""


class _Line(NamedTuple):
    """One row that is not blank: as it stands, as it reads, and whom it speaks of, if that can be said. `keys` are those of a row that is
    no submission, as far as they can be seen, so that it can be erased with the person."""

    row: Row
    reading: Reading
    recognised: Recognised | None
    keys: Sequence[IdentityKey] = ()


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Rows of one transaction. They end at byte `end` after row `number`; blocks before `keep_from` are not needed after them."""

    lines: Sequence[_Line]
    end: int
    number: int
    keep_from: int


@dataclass(frozen=True, slots=True)
class Limits:
    """How much at once. `failures_max`: an import of which more rows than that fail or are rejected is stopped."""

    chunk_rows_max: int = 500
    failures_max: int = 1_000_000
    rows_per_s_max: int | None = None


class ImportWorker:
    """Works on imports, one at a time in each process, oldest first. Whoever holds an import's lease works on it; a lease ends with its
    process. Should two ever hold one, the place in the file, which both would move, lets only one of them commit."""

    name = "imports"

    def __init__(
        self,
        database: Database,
        capture: Capture,
        policies: ActiveCache[Judge],
        arrived: asyncio.Event,
        limits: Limits | None = None,
    ) -> None:
        self._database = database
        self._capture = capture
        self._policies = policies
        self._arrived = arrived
        self._limits = limits or Limits()
        self._stall = Stall(_STUCK_AFTER_S)
        self._swept_at = 0.0

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop`; what has been begun goes on with the next process."""
        backoff = Backoff(first_s=0.2, max_s=5.0)
        while not stop.is_set():
            self._arrived.clear()
            try:
                await self._sweep()
                worked = await self._round(stop)
            except Exception as error:
                if not (is_transient(error) or isinstance(error, Overloaded | _Overtaken)):
                    raise
                self._stall.failed()
                log.warning("imports_wait", error=type(error).__name__)
                await backoff.wait(stop)
                continue
            backoff.reset()
            if not worked:
                self._stall.waits(False)
                await _either(stop, self._arrived, _LOOK_EVERY_S)

    def problem(self) -> str | None:
        if self._stall.stuck:
            return f"{self.name}: no row was taken for {_STUCK_AFTER_S:.0f} s"
        return None

    async def _round(self, stop: asyncio.Event) -> bool:
        """Work on all that waits and nobody works on; whether there was any."""
        async with self._database.reading() as conn:
            waiting = await queries.waiting(await driver_of(conn), _WAITING_LOOKED_AT)
        if not waiting:
            return False
        worked = False
        async with _session(self._database) as session:
            for import_id in waiting:
                if stop.is_set():
                    break
                if not await session.fetchval(_TRY_LEASE, str(import_id)):
                    continue
                self._stall.waits(True)
                try:
                    worked = await self._work(import_id, session, stop) or worked
                finally:
                    with suppress(asyncpg.InterfaceError, asyncpg.PostgresError, OSError):
                        await session.fetchval(_END_LEASE, str(import_id))
        return worked

    async def _work(self, import_id: UUID, session: asyncpg.Connection, stop: asyncio.Event) -> bool:
        job = await self._begin(import_id)
        if job is None:
            return False
        run = _Run(self._database, self._capture, self._policies, job, self._limits, self._stall)
        takes = _Foreseeing(run, session) if job.dry_run else _Taking(run)
        try:
            await takes.begin()
            await run.go(takes, stop)
        except Exception as error:
            if is_transient(error) or isinstance(error, Overloaded | _Overtaken):
                raise
            log.error("import_failed", import_id=str(import_id), exc_info=error)
            async with self._database.recording() as recording:
                await end(
                    recording, run.job, "failed", "Something went wrong here; it is logged under the import's id."
                )
        return True

    async def _begin(self, import_id: UUID) -> Job | None:
        async with self._database.recording() as recording:
            driver = await recording.driver()
            job = await queries.find(driver, import_id, lock=True)
            if job is None or job.plan is None or not await queries.begin(driver, import_id, recording.now):
                return None
            if job.cancel_requested:
                await end(recording, job, "cancelled")
                return None
            if job.dry_run and job.bytes_done != job.plan.start:
                # What a dry run has foreseen is not kept, so it begins anew.
                await queries.restart(driver, import_id, job.plan, recording.now)
            return await queries.find(driver, import_id)

    async def _sweep(self) -> None:
        """Give up uploads whose sender is gone together with the process that received them."""
        if time.monotonic() < self._swept_at + _SWEEP_EVERY_S:
            return
        self._swept_at = time.monotonic()
        async with self._database.recording() as recording:
            driver = await recording.driver()
            for import_id in await queries.broken_off(driver, recording.now - _RECEIVING_IDLE_MAX):
                await queries.end(driver, import_id, "failed", recording.now, error="The upload broke off.")


class _Run:
    """One import, from the place where it stands. `job` is as it was after the last commit."""

    def __init__(
        self,
        database: Database,
        capture: Capture,
        policies: ActiveCache[Judge],
        job: Job,
        limits: Limits,
        stall: Stall,
    ) -> None:
        if job.plan is None:
            raise ValueError("the file has not been received")
        self.database = database
        self.capture = capture
        self.policies = policies
        self.job = job
        self.plan: Plan = job.plan
        self.reader: CsvReader | NdjsonReader = job.plan.reader(job.source, ZoneInfo(job.plan.timezone), orjson.dumps)
        self._limits = limits
        self._stall = stall
        self._column_of = {target: name for name, target in job.plan.mapped.items()}
        self._began = self._advanced_at = time.monotonic()
        self._taken_rows = 0

    async def go(self, takes: _Takes, stop: asyncio.Event) -> None:
        """Take rows until there are none, somebody cancels, or `stop`."""
        chunks: asyncio.Queue[_Chunk | Exception | None] = asyncio.Queue(maxsize=1)
        preparing = asyncio.create_task(self._prepare_into(chunks), name="import-rows")
        try:
            while not stop.is_set():
                chunk = await chunks.get()
                if isinstance(chunk, Exception):
                    raise chunk
                if chunk is None:
                    await self._end("finished")
                    return
                cancelled = await self._save(takes, chunk)
                self._stall.progressed()
                counts = self.job.counts
                if counts.failed + counts.rejected > self._limits.failures_max:
                    await self._end("failed", f"More than {self._limits.failures_max} rows failed or were rejected.")
                    return
                if cancelled or await self._hold_back(len(chunk.lines), stop):
                    await self._end("cancelled")
                    return
        finally:
            preparing.cancel()
            with suppress(asyncio.CancelledError):
                await preparing

    async def _end(self, state: Literal["finished", "cancelled", "failed"], error: str | None = None) -> None:
        async with self.database.recording() as recording:
            await end(recording, self.job, state, error)
        IMPORTS_ENDED.labels(state).inc()

    async def _hold_back(self, rows: int, stop: asyncio.Event) -> bool:
        """Wait so long that no more rows a second are taken than may be; whether somebody has asked to cancel meanwhile."""
        limits = [limit for limit in (self._limits.rows_per_s_max, self.plan.rows_per_s_max) if limit]
        self._taken_rows += rows
        if not limits:
            return False
        until = self._began + self._taken_rows / min(limits)
        while not stop.is_set() and (rest := until - time.monotonic()) > 0:
            await pause(stop, min(rest, _LOOK_EVERY_S))
            self._stall.progressed()
            if rest > _LOOK_EVERY_S:
                async with self.database.reading() as conn:
                    job = await queries.find(await driver_of(conn), self.job.import_id)
                if job is not None and job.cancel_requested:
                    return True
        return False

    # -- reading ahead

    async def _prepare_into(self, chunks: asyncio.Queue[_Chunk | Exception | None]) -> None:
        try:
            async for chunk in self._prepared():
                await chunks.put(chunk)
            await chunks.put(None)
        except Exception as error:  # noqa: BLE001 - raised by whoever waits for it
            await chunks.put(error)

    async def _prepared(self) -> AsyncIterator[_Chunk]:
        """The rows from where the import stands, read and recognised, so many together as one transaction takes."""
        job = self.job
        rows = self.plan.rows(job.bytes_done, job.row_number)
        at, number, begin = job.bytes_done, job.row_number, job.bytes_done
        firsts: list[int] = []
        lines: list[_Line] = []
        last = False
        while not last:
            async with self.database.reading() as conn:
                block = await queries.block_at(await driver_of(conn), job.import_id, at)
            if block is None:
                rows.close()
                last = True
            else:
                first, content = block
                firsts.append(first)
                rows.feed(content[at - first :] if at > first else content)
                at = first + len(content)
            whole = rows.rows()
            while batch := list(islice(whole, _SLICE_ROWS)):
                lines += self._lines(batch)
                end_of, number = batch[-1].end, batch[-1].number
                if len(lines) >= self._limits.chunk_rows_max or end_of - begin >= CHUNK_BYTES_MAX:
                    yield _Chunk(lines, end_of, number, _block_of(firsts, end_of))
                    lines, begin = [], end_of
                await asyncio.sleep(0)
        if lines or begin < at:
            yield _Chunk(lines, at, number, at)

    def _lines(self, rows: Sequence[Row]) -> list[_Line]:
        reader, job = self.reader, self.job
        read = [(row, reader.read(row)) for row in rows if row.cells]
        requests = [
            CaptureRequest(reading.submission, reading.content, job.caller, None, reading.is_form)
            for _, reading in read
            if reading.submission is not None
        ]
        recognised = iter(self.capture.recognise(requests))
        return [
            _Line(row, reading, None, self._keys(row))
            if reading.submission is None
            else _Line(row, reading, next(recognised))
            for row, reading in read
        ]

    def _keys(self, row: Row) -> Sequence[IdentityKey]:
        requests = [CaptureRequest(named, "", self.job.caller) for named in self.reader.names(row)]
        return [key for one in self.capture.recognise(requests) for key in one.keys]

    # -- saving

    async def _save(self, takes: _Takes, chunk: _Chunk) -> bool:
        """Save the rows in one transaction; whether somebody has asked to cancel. If it fails for good, each half is tried by itself, until
        it is known which row cannot be saved; that one fails alone."""
        try:
            return await takes.save(chunk)
        except Exception as error:
            if is_transient(error) or isinstance(error, Overloaded | _Overtaken):
                raise
            if len(chunk.lines) <= 1:
                log.error("row_failed", import_id=str(self.job.import_id), exc_info=error)
                unsaved = [_unsaved(line) for line in chunk.lines]
                return await takes.save(replace(chunk, lines=unsaved))
        middle = len(chunk.lines) // 2
        row = chunk.lines[middle - 1].row
        await self._save(takes, _Chunk(chunk.lines[:middle], row.end, row.number, 0))
        return await self._save(takes, replace(chunk, lines=chunk.lines[middle:]))

    async def advance(
        self,
        recording: Recording,
        chunk: _Chunk,
        results: Sequence[Result],
        report: Report,
        failures: Sequence[Failure],
    ) -> tuple[Job, bool]:
        """Save what became of the rows and where the import stands now, in the transaction in which they were taken. The job as it is after
        the commit, and whether somebody has asked to cancel it."""
        driver, job = await recording.driver(), self.job
        counts = job.counts.with_more(results)
        seconds = max(1e-6, time.monotonic() - self._advanced_at)
        progress = Progress(
            came_from=job.bytes_done,
            bytes_done=chunk.end,
            row_number=chunk.number,
            counts=counts,
            quality=report,
            rows_per_s=_smoothed(job.rows_per_s, len(results) / seconds),
            bytes_per_s=_smoothed(job.bytes_per_s, (chunk.end - job.bytes_done) / seconds),
        )
        cancelled = await queries.advance(driver, job.import_id, progress, recording.now)
        if cancelled is None:
            raise _Overtaken
        await queries.save_failures(driver, job.import_id, failures)
        after = replace(
            job,
            bytes_done=progress.bytes_done,
            row_number=progress.row_number,
            counts=counts,
            quality=report,
            rows_per_s=progress.rows_per_s,
            bytes_per_s=progress.bytes_per_s,
        )
        return after, cancelled

    def committed(self, job: Job) -> None:
        """The transaction that gave this job has been committed."""
        if not job.dry_run:
            for outcome in OUTCOMES:
                IMPORT_ROWS.labels(outcome).inc(getattr(job.counts, outcome) - getattr(self.job.counts, outcome))
        self.job = job
        self._advanced_at = time.monotonic()

    def failure(self, line: _Line, outcome: Literal["rejected", "failed"], error: str) -> Failure:
        """The row for the file of errors."""
        keys = [key_word(key) for key in (line.keys if line.recognised is None else line.recognised.keys)]
        return Failure(line.row.number, outcome, error, self.reader.kept(line.row), keys)

    def said(self, problem: Problem) -> str:
        """A problem in the words of the file: its columns instead of our fields."""
        told = []
        for item in problem.errors:
            target = item.get("pointer", "").removeprefix("/").replace("/", ".")
            told.append(f"{self._column_of.get(target, target)}: {item['message']}")
        return "; ".join(told) or problem.title


def _unsaved(line: _Line) -> _Line:
    reading = line.reading._replace(errors="The row could not be saved; it is logged under the import's id")
    return _Line(line.row, reading, None, () if line.recognised is None else line.recognised.keys)


class _Takes:
    """What is done with rows: they are taken in, or it is foreseen what would become of them."""

    def __init__(self, run: _Run) -> None:
        self.run = run

    async def begin(self) -> None:
        """Before the first rows."""

    async def save(self, chunk: _Chunk) -> bool:
        """One transaction; whether somebody has asked to cancel."""
        raise NotImplementedError


class _Taking(_Takes):
    """The rows become leads."""

    _said_before = _rejected_before = False
    _kept_from = 0

    async def begin(self) -> None:
        job = self.run.job
        async with self.run.database.reading() as conn:
            found = await queries.earlier(await driver_of(conn), job.source, job.import_id)
        self._said_before, self._rejected_before = found

    async def save(self, chunk: _Chunk) -> bool:
        in_force = await self.run.policies.current()
        job, cancelled = await tried(lambda: self._record(chunk, in_force))
        self.run.committed(job)
        self._kept_from = max(self._kept_from, chunk.keep_from)
        return cancelled

    async def _record(self, chunk: _Chunk, in_force: InForce) -> tuple[Job, bool]:
        run = self.run
        async with run.database.recording() as recording:
            driver = await recording.driver()
            before = await self._unchanged(driver, chunk.lines, in_force) if self._said_before else {}
            fresh = [
                line.recognised for line in chunk.lines if line.recognised is not None and line.row.number not in before
            ]
            taken = await run.capture.take(recording, fresh) if fresh else []
            results, failures = self._results(chunk.lines, before, taken)
            report = run.job.quality.with_more([one.quality for one in taken if isinstance(one, Taken)], failures)
            job, cancelled = await run.advance(recording, chunk, results, report, failures)
            if results:
                outcomes = bits_of(result.outcome for result in results)
                await queries.save_chunk(driver, job.import_id, results[0].number, outcomes, packed(results))
            if chunk.keep_from > self._kept_from:
                await queries.drop_blocks(driver, job.import_id, chunk.keep_from)
        return job, cancelled

    def _results(
        self, lines: Sequence[_Line], before: Mapping[int, Result], taken: Sequence[Taken | Problem]
    ) -> tuple[list[Result], list[Failure]]:
        """What became of these rows: those in `before`, and in their order those that were taken."""
        results: list[Result] = []
        failures: list[Failure] = []
        outcomes = iter(taken)
        for line in lines:
            result = before.get(line.row.number)
            if result is None:
                result, failure = self._result(line, None if line.recognised is None else next(outcomes))
                if failure is not None:
                    failures.append(failure)
            results.append(result)
        return results, failures

    def _result(self, line: _Line, became: Taken | Problem | None) -> tuple[Result, Failure | None]:
        number = line.row.number
        if became is None:
            return Result(number, "failed"), self.run.failure(line, "failed", line.reading.errors)
        if isinstance(became, Problem):
            return Result(number, "failed"), self.run.failure(line, "failed", self.run.said(became))
        verdict = became.quality.verdict
        if became.outcome is None:
            return Result(number, "rejected", verdict), self.run.failure(line, "rejected", refusal(became.quality))
        if verdict == "quarantined":
            return Result(number, "quarantined", verdict, became.lead_id), None
        return Result(number, became.outcome, verdict, became.lead_id), None

    async def _unchanged(
        self, driver: asyncpg.Connection, lines: Sequence[_Line], in_force: InForce
    ) -> dict[int, Result]:
        """The rows that this source has said before, word for word, under the same policy. They change nothing, so they are not taken."""
        known = [(line, line.recognised) for line in lines if line.recognised is not None and line.recognised.keys]
        version = None if in_force is None else in_force[0]
        rows = [
            (line.row.number, *one.keys[-1], one.request.submission.source, _digest(line.reading.content))
            for line, one in known
        ]
        found = await queries.unchanged(driver, rows, version)
        results = {number: Result(number, "unchanged", verdict, lead) for number, (lead, verdict) in found.items()}
        if not self._rejected_before or in_force is None:
            return results
        now = datetime.now(tz=ZoneInfo("UTC"))
        doubtful = [
            (number, key_word((kind, value)), source, digest)
            for (number, kind, value, source, digest), (_, one) in zip(rows, known, strict=True)
            if number not in results and judged(one.facts, in_force, now)[0].verdict == "rejected"
        ]
        for number in await queries.rejected_before(driver, doubtful, version):
            results[number] = Result(number, "unchanged", "rejected")
        return results


class _Foreseeing(_Takes):
    """A dry run: the policy judges, keys are looked up, nothing is locked, and no lead is written. Keys that rows of the file would take
    are kept by their hashes in a temporary table, so that a person who stands in the file twice is foreseen once."""

    def __init__(self, run: _Run, session: asyncpg.Connection) -> None:
        super().__init__(run)
        self._session = session

    async def begin(self) -> None:
        await self._session.execute(
            "CREATE TEMPORARY TABLE IF NOT EXISTS foreseen_key (key_hash bigint PRIMARY KEY, lead text NOT NULL);"
            "TRUNCATE foreseen_key"
        )

    async def save(self, chunk: _Chunk) -> bool:
        run = self.run
        in_force = await run.policies.current()
        known = as_the_policy_knows([line.recognised for line in chunk.lines if line.recognised is not None], in_force)
        keys = {key: _hash(key) for one in known for key in one.keys}
        foresight = Foresight(await self._known(keys))
        results: list[Result] = []
        failures: list[Failure] = []
        qualities: list[Quality] = []
        async with run.database.recording() as recording:
            recognised = iter(known)
            for line in chunk.lines:
                one = None if line.recognised is None else next(recognised)
                result, error, quality = self._foreseen(line, one, foresight, in_force, recording.now)
                results.append(result)
                if error is not None:
                    outcome: Literal["rejected", "failed"] = "rejected" if result.outcome == "rejected" else "failed"
                    failures.append(run.failure(line, outcome, error))
                if quality is not None:
                    qualities.append(quality)
            report = run.job.quality.with_more(qualities, failures)
            job, cancelled = await run.advance(recording, chunk, results, report, failures)
        await self._remember({keys[key]: str(lead) for key, lead in foresight.taken.items()})
        run.committed(job)
        return cancelled

    def _foreseen(
        self, line: _Line, one: Recognised | None, foresight: Foresight, in_force: InForce, now: datetime
    ) -> tuple[Result, str | None, Quality | None]:
        number = line.row.number
        if one is None:
            return Result(number, "failed"), line.reading.errors, None
        problem = one.flaw or (ahead_of_time() if is_ahead(one.request.submission.occurred_at, now) else None)
        if problem is not None:
            return Result(number, "failed"), self.run.said(problem), None
        quality = judged(one.facts, in_force, now)[0]
        outcome = foresight.take(one.keys, quality.verdict, number)
        error = refusal(quality) if outcome == "rejected" else None
        return Result(number, outcome, quality.verdict), error, quality

    async def _known(self, keys: Mapping[IdentityKey, int]) -> dict[IdentityKey, object]:
        """What stands for the lead of each key: of leads that are there, and of rows that have been foreseen."""
        found: dict[IdentityKey, object] = {}
        rows = await self._session.fetch(
            "SELECT key_hash, lead FROM foreseen_key WHERE key_hash = ANY ($1::bigint[])", list(keys.values())
        )
        foreseen = {row["key_hash"]: row["lead"] for row in rows}
        for key, hashed in keys.items():
            if hashed in foreseen:
                found[key] = foreseen[hashed]
        async with self.run.database.reading() as conn:
            leads = await lead_queries.find_keys(await driver_of(conn), list(keys))
        return {**found, **{key: str(lead_id) for key, lead_id in leads.items()}}

    async def _remember(self, taken: Mapping[int, str]) -> None:
        await self._session.execute(
            "INSERT INTO foreseen_key SELECT * FROM unnest($1::bigint[], $2::text[]) ON CONFLICT DO NOTHING",
            list(taken),
            list(taken.values()),
        )


def prune_worker(database: Database, kept_days: int) -> Periodic:
    """The worker that forgets what became of single rows, so long after their import ended. The import itself stays to be seen; rows for
    the file of errors are dropped with raw submissions (usecases/retention.py)."""

    async def prune() -> bool:
        async with database.recording() as recording:
            before = recording.now - timedelta(days=kept_days)
            return await queries.prune_chunks(await recording.driver(), before, _PRUNE_CHUNKS) >= _PRUNE_CHUNKS

    return Periodic("import-prune", _PRUNE_EVERY_S, prune)


@asynccontextmanager
async def _session(database: Database) -> AsyncIterator[asyncpg.Connection]:
    """A connection of its own, whose locks end with it."""
    session = await database.connect()
    try:
        yield session
    finally:
        session.terminate()


async def _either(stop: asyncio.Event, arrived: asyncio.Event, timeout_s: float) -> None:
    """Wait for one of the two, so long at most."""
    waits = [asyncio.create_task(event.wait()) for event in (stop, arrived)]
    try:
        await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waits:
            task.cancel()


def _block_of(firsts: list[int], byte: int) -> int:
    """The first byte of the block in which this byte is; blocks before it are forgotten."""
    while len(firsts) > 1 and firsts[1] <= byte:
        firsts.pop(0)
    return firsts[0] if firsts else 0


def _smoothed(before: float | None, now: float) -> float:
    return now if before is None else before + _SMOOTHING * (now - before)


def _digest(content: str) -> UUID:
    """The MD5 of a text, as PostgreSQL computes it: to find the same text again, not to keep anything secret."""
    return UUID(bytes=md5(content.encode(), usedforsecurity=False).digest())


def _hash(key: IdentityKey) -> int:
    return int.from_bytes(blake2b(key_word(key).encode(), digest_size=8).digest(), "big", signed=True)
