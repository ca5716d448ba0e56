"""What is done with the rows of one transaction of an import: they become leads, or a dry run foresees what would become of them. The
results, the counts and the place in the file are saved with it, or nothing is.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from hashlib import blake2b, md5
from typing import Literal
from uuid import UUID

import asyncpg

from accord.agreements import ActiveCache
from accord.db import Database, UnitOfWork, connection_of
from accord.terms.findings import Finding
from intake.capture.service.capture import Capture, CaptureResult, Taken
from intake.imports import queries
from intake.imports.domain.imports import OUTCOMES, Failure, Foresight, Result, bits_of, packed, refusal
from intake.imports.domain.rows import CsvReader, NdjsonReader
from intake.imports.queries import Job, Progress
from intake.imports.service.reading import Chunk, Line
from intake.leads.domain.keys import IdentityKey, key_word
from intake.leads.domain.quality import Quality
from intake.leads.domain.submission import is_ahead
from intake.leads.queries import leads as lead_queries
from intake.leads.service.person import Recognised, ahead_of_time
from intake.metric_names import IMPORT_ROWS
from intake.policy.domain.judge import Judge
from intake.policy.service.judging import InForce, as_the_policy_knows, judged

_SMOOTHING = 0.2
"""Weight of the newest rows in the rate that is shown."""


def _nobody_waits() -> None:
    """Nothing follows."""


class Overtaken(Exception):
    """The import is not where we left it: somebody else takes its rows, or our last commit came through after all."""


class Takes(ABC):
    """What both ways have in common. `job` is as it was after the last commit."""

    def __init__(
        self, database: Database, policies: ActiveCache[Judge], job: Job, reader: CsvReader | NdjsonReader
    ) -> None:
        self.job = job
        self._database = database
        self._policies = policies
        self._reader = reader
        self._column_of = {target: name for name, target in job.plan.mapped.items()} if job.plan is not None else {}
        self._advanced_at = time.monotonic()
        self._said_before = self._rejected_before = False

    async def begin(self) -> None:
        """Before the first rows."""
        async with self._database.read_transaction() as conn:
            found = await queries.earlier(await connection_of(conn), self.job.source, self.job.import_id)
        self._said_before, self._rejected_before = found

    @abstractmethod
    async def save(
        self, chunk: Chunk, before: Awaitable[object] | None = None, decided: Callable[[], None] = _nobody_waits
    ) -> bool:
        """One transaction; whether somebody has asked to cancel. Raises Overtaken.

        `before` are the rows before these, if they are still being written: nothing is written here until they are committed, and if they
        fail so does this. `decided` is called when it is known what becomes of these rows and they only have to be written.
        """

    async def _advance(
        self,
        unit_of_work: UnitOfWork,
        chunk: Chunk,
        results: Sequence[Result],
        qualities: Sequence[Quality],
        failures: Sequence[Failure],
    ) -> tuple[Job, bool]:
        """Save where the import stands now, in the transaction in which its rows are taken. The job as it is after the commit, and whether
        somebody has asked to cancel it."""
        connection, job = await unit_of_work.connection(), self.job
        seconds = max(1e-6, time.monotonic() - self._advanced_at)
        progress = Progress(
            came_from=job.bytes_done,
            bytes_done=chunk.end,
            row_number=chunk.number,
            counts=job.counts.with_more(results),
            quality=job.quality.with_more(qualities, failures),
            rows_per_s=_smoothed(job.rows_per_s, len(results) / seconds),
            bytes_per_s=_smoothed(job.bytes_per_s, (chunk.end - job.bytes_done) / seconds),
        )
        cancelled = await queries.advance(connection, job.import_id, progress, unit_of_work.now)
        if cancelled is None:
            raise Overtaken
        await queries.save_failures(connection, job.import_id, failures)
        after = replace(
            job,
            bytes_done=progress.bytes_done,
            row_number=progress.row_number,
            counts=progress.counts,
            quality=progress.quality,
            rows_per_s=progress.rows_per_s,
            bytes_per_s=progress.bytes_per_s,
        )
        return after, cancelled

    def _committed(self, job: Job) -> None:
        self.job = job
        self._advanced_at = time.monotonic()

    async def _unchanged(
        self, connection: asyncpg.Connection, lines: Sequence[Line], in_force: InForce
    ) -> dict[int, Result]:
        """The rows that this source has said before, word for word, under the same policy. They change nothing, so they are not taken."""
        if not self._said_before:
            return {}
        known = [(line, line.recognised) for line in lines if line.recognised is not None and line.recognised.keys]
        version = None if in_force is None else in_force[0]
        # Most rows of most files are of new people, so their texts are not even looked at.
        leads = await lead_queries.find_keys(connection, [one.keys[-1] for _, one in known])
        rows = [
            (line.row.number, leads[one.keys[-1]], one.request.submission.source, _digest(line.reading.content))
            for line, one in known
            if one.keys[-1] in leads
        ]
        found = await queries.unchanged(connection, rows, version)
        results = {number: Result(number, "unchanged", verdict, lead) for number, (lead, verdict) in found.items()}
        if not self._rejected_before or in_force is None:
            return results
        now = await queries.now(connection)
        doubtful = [
            (line.row.number, key_word(one.keys[-1]), one.request.submission.source, _digest(line.reading.content))
            for line, one in known
            if line.row.number not in results and judged(one.facts, in_force, now)[0].verdict == "rejected"
        ]
        for number in await queries.rejected_before(connection, doubtful, version):
            results[number] = Result(number, "unchanged", "rejected")
        return results

    def _failure(self, line: Line, outcome: Literal["rejected", "failed"], error: str) -> Failure:
        """The row for the file of errors."""
        keys = line.keys if line.recognised is None else line.recognised.keys
        return Failure(line.row.number, outcome, error, self._reader.kept(line.row), [key_word(key) for key in keys])

    def _describe_error(self, flaw: Finding) -> str:
        """What is wrong, in the words of the file: its columns instead of our fields."""
        target = flaw.pointer.removeprefix("/").replace("/", ".")
        return f"{self._column_of.get(target, target)}: {flaw.message}"


class Taking(Takes):
    """The rows become leads."""

    def __init__(
        self,
        database: Database,
        policies: ActiveCache[Judge],
        job: Job,
        reader: CsvReader | NdjsonReader,
        capture: Capture,
    ) -> None:
        super().__init__(database, policies, job, reader)
        self._capture = capture
        self._kept_from = 0

    async def save(
        self, chunk: Chunk, before: Awaitable[object] | None = None, decided: Callable[[], None] = _nobody_waits
    ) -> bool:
        in_force = await self._policies.current()
        job, cancelled = await self._record(chunk, in_force, before, decided)
        for outcome in OUTCOMES:
            IMPORT_ROWS.labels(outcome).inc(getattr(job.counts, outcome) - getattr(self.job.counts, outcome))
        self._kept_from = max(self._kept_from, chunk.keep_from)
        self._committed(job)
        return cancelled

    async def _record(
        self, chunk: Chunk, in_force: InForce, before: Awaitable[object] | None, decided: Callable[[], None]
    ) -> tuple[Job, bool]:
        async with self._database.write_transaction() as unit_of_work:
            connection = await unit_of_work.connection()
            known = await self._unchanged(connection, chunk.lines, in_force)
            fresh = [
                line.recognised for line in chunk.lines if line.recognised is not None and line.row.number not in known
            ]
            decision = await self._capture.decide(unit_of_work, fresh, in_force)
            results, failures = self._results(chunk.lines, known, decision.outcomes)
            qualities = [one.quality for one in decision.outcomes if isinstance(one, Taken)]
            decided()
            if before is not None:
                await before
            job, cancelled = await self._advance(unit_of_work, chunk, results, qualities, failures)
            await self._capture.write(unit_of_work, decision)
            if results:
                outcomes = bits_of(result.outcome for result in results)
                await queries.save_chunk(connection, job.import_id, results[0].number, outcomes, packed(results))
            if chunk.keep_from > self._kept_from:
                await queries.drop_blocks(connection, job.import_id, chunk.keep_from)
        return job, cancelled

    def _results(
        self, lines: Sequence[Line], known: Mapping[int, Result], taken: Sequence[CaptureResult]
    ) -> tuple[list[Result], list[Failure]]:
        """What became of these rows: those in `known`, and in their order those that were taken."""
        results: list[Result] = []
        failures: list[Failure] = []
        outcomes = iter(taken)
        for line in lines:
            result = known.get(line.row.number)
            if result is None:
                result, failure = self._result(line, None if line.recognised is None else next(outcomes))
                if failure is not None:
                    failures.append(failure)
            results.append(result)
        return results, failures

    def _result(self, line: Line, became: CaptureResult | None) -> tuple[Result, Failure | None]:
        number = line.row.number
        if became is None:
            return Result(number, "failed"), self._failure(line, "failed", line.reading.errors)
        if isinstance(became, Finding):
            return Result(number, "failed"), self._failure(line, "failed", self._describe_error(became))
        verdict = became.quality.verdict
        if became.outcome is None:
            return Result(number, "rejected", verdict), self._failure(line, "rejected", refusal(became.quality))
        if verdict == "quarantined":
            return Result(number, "quarantined", verdict, became.lead_id), None
        return Result(number, became.outcome, verdict, became.lead_id), None


class Foreseeing(Takes):
    """A dry run: the policy judges, keys are looked up, nothing is locked, and no lead is written. Keys that rows of the file would take
    are kept by their hashes in a temporary table of `session`, so that a person who stands in the file twice is foreseen once."""

    def __init__(
        self,
        database: Database,
        policies: ActiveCache[Judge],
        job: Job,
        reader: CsvReader | NdjsonReader,
        session: asyncpg.Connection,
    ) -> None:
        super().__init__(database, policies, job, reader)
        self._session = session

    async def begin(self) -> None:
        await super().begin()
        await queries.begin_foreseeing(self._session)

    async def save(
        self, chunk: Chunk, before: Awaitable[object] | None = None, decided: Callable[[], None] = _nobody_waits
    ) -> bool:
        if before is not None:
            await before
        in_force = await self._policies.current()
        known = as_the_policy_knows([line.recognised for line in chunk.lines if line.recognised is not None], in_force)
        hashes = {key: _hash(key) for one in known for key in one.keys}
        foresight = Foresight(await self._known(hashes))
        results: list[Result] = []
        failures: list[Failure] = []
        qualities: list[Quality] = []
        async with self._database.write_transaction() as unit_of_work:
            unchanged = await self._unchanged(await unit_of_work.connection(), chunk.lines, in_force)
            recognised = iter(known)
            for line in chunk.lines:
                one = None if line.recognised is None else next(recognised)
                if (result := unchanged.get(line.row.number)) is None:
                    result, failure, quality = self._foreseen(line, one, foresight, in_force, unit_of_work.now)
                    failures += [failure] if failure is not None else []
                    qualities += [quality] if quality is not None else []
                results.append(result)
            job, cancelled = await self._advance(unit_of_work, chunk, results, qualities, failures)
        await queries.foresee(self._session, {hashes[key]: str(lead) for key, lead in foresight.taken.items()})
        self._committed(job)
        return cancelled

    def _foreseen(
        self, line: Line, one: Recognised | None, foresight: Foresight, in_force: InForce, now: datetime
    ) -> tuple[Result, Failure | None, Quality | None]:
        number = line.row.number
        if one is None:
            return Result(number, "failed"), self._failure(line, "failed", line.reading.errors), None
        flaw = one.flaw or (ahead_of_time() if is_ahead(one.request.submission.occurred_at, now) else None)
        if flaw is not None:
            return Result(number, "failed"), self._failure(line, "failed", self._describe_error(flaw)), None
        quality = judged(one.facts, in_force, now)[0]
        outcome = foresight.take(one.keys, quality.verdict, number)
        failure = self._failure(line, "rejected", refusal(quality)) if outcome == "rejected" else None
        return Result(number, outcome, quality.verdict), failure, quality

    async def _known(self, hashes: Mapping[IdentityKey, int]) -> dict[IdentityKey, object]:
        """What stands for the lead of each key: of leads that are there, and of rows that have been foreseen."""
        foreseen = await queries.foreseen(self._session, list(hashes.values()))
        async with self._database.read_transaction() as conn:
            leads = await lead_queries.find_keys(await connection_of(conn), list(hashes))
        by_row = {key: foreseen[hashed] for key, hashed in hashes.items() if hashed in foreseen}
        return {**by_row, **{key: str(lead_id) for key, lead_id in leads.items()}}


def _smoothed(before: float | None, now: float) -> float:
    return now if before is None else before + _SMOOTHING * (now - before)


def _digest(content: str) -> UUID:
    """The MD5 of a text, as PostgreSQL computes it: to find the same text again, not to keep anything secret."""
    return UUID(bytes=md5(content.encode(), usedforsecurity=False).digest())


def _hash(key: IdentityKey) -> int:
    return int.from_bytes(blake2b(key_word(key).encode(), digest_size=8).digest(), "big", signed=True)
