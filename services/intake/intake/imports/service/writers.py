"""Writes the rows of one transaction of an import: they become leads, or a dry run previews what would become of them. The
results, the counts and the place in the file are saved with it, or nothing is.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from hashlib import blake2b
from typing import Literal

import asyncpg
from msgspec.structs import replace

from accord.agreements import ActiveCache
from accord.db import Database, UnitOfWork, connection_of
from accord.terms.findings import Finding
from intake.capture.service.capture import Capture, CapturedSubmission, CaptureResult
from intake.imports import queries
from intake.imports.domain.imports import (
    OUTCOMES,
    DryRunPreview,
    Failure,
    Record,
    Result,
    describe_rejection,
    encode_outcomes,
    has_address,
    pack_results,
)
from intake.imports.domain.rows import Plan, RowReader
from intake.imports.queries import Job, Progress
from intake.imports.service.reading import Chunk, Line
from intake.leads.domain.keys import IdentityKey, format_key, parse_key
from intake.leads.domain.quality import Quality
from intake.leads.domain.submission import is_in_future
from intake.leads.queries import leads as lead_queries
from intake.leads.service.submissions import GUESSED_ID, NormalizedSubmission, future_time_error
from intake.metric_names import IMPORT_ROWS
from intake.policy.domain.evaluator import Evaluation, PolicyEvaluator
from intake.policy.service.evaluation import ActivePolicy, apply_key_policy, evaluate_policy

_SMOOTHING = 0.2
"""Weight of the newest rows in the rate that is shown."""


class StaleOffset(Exception):
    """The import is not where we left it: somebody else takes its rows, or our last commit came through after all."""


class ChunkWriter(ABC):
    """What both ways have in common. `job` is as it was after the last commit."""

    def __init__(
        self,
        database: Database,
        policies: ActiveCache[PolicyEvaluator],
        job: Job,
        plan: Plan,
        reader: RowReader,
    ) -> None:
        self.job = job
        self._database = database
        self._policies = policies
        self._reader = reader
        self._plan = plan
        self._column_of = {target: name for name, target in plan.mapped.items()}
        self._advanced_at = time.monotonic()

    async def begin(self) -> None:  # noqa: B027 - most have nothing to do
        """Before the first rows."""

    @abstractmethod
    async def save(self, chunk: Chunk) -> bool:
        """One transaction; whether somebody has asked to cancel. Raises StaleOffset."""

    async def _advance(
        self,
        unit_of_work: UnitOfWork,
        chunk: Chunk,
        results: Sequence[Result],
        qualities: Sequence[Quality],
        failures: Sequence[Failure],
        left_out: Sequence[tuple[int, Finding]],
    ) -> tuple[Job, bool]:
        """Save where the import stands now, in the transaction in which its rows are taken. The job as it is after the commit, and whether
        somebody has asked to cancel it."""
        connection, job = await unit_of_work.connection(), self.job
        seconds = max(1e-6, time.monotonic() - self._advanced_at)
        progress = Progress(
            from_byte=job.bytes_done,
            bytes_done=chunk.end,
            row_number=chunk.number,
            counts=job.counts.plus(results),
            quality=job.quality.plus(qualities, failures, left_out),
            rows_per_s=_smooth(job.rows_per_s, len(results) / seconds),
            bytes_per_s=_smooth(job.bytes_per_s, (chunk.end - job.bytes_done) / seconds),
        )
        cancelled = await queries.advance(connection, job.import_id, progress, unit_of_work.now)
        if cancelled is None:
            raise StaleOffset
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

    async def _find_unchanged(
        self, connection: asyncpg.Connection, records: Mapping[int, Record], active_policy: ActivePolicy
    ) -> dict[int, Result]:
        """The rows of which their source said the same last, under the same policy. They change nothing, so they are not taken, unless
        nobody has the key of one that was: the person was erased, or has another by now."""
        verdicts = await queries.find_unchanged(connection, self.job.import_id, records, _version(active_policy))
        owners = await lead_queries.find_key_owners(connection, (parse_key(records[number].key) for number in verdicts))
        results: dict[int, Result] = {}
        for number, verdict in verdicts.items():
            lead_id = None if verdict == "rejected" else owners.get(parse_key(records[number].key))
            if lead_id is not None or verdict in ("quarantined", "rejected"):
                results[number] = Result(number, "unchanged", verdict, lead_id)
        return results

    def _describe_records(self, submissions: Mapping[int, NormalizedSubmission]) -> dict[int, Record]:
        """What rows say of whom, by number."""
        return {
            number: self._plan.describe(one.request.submission.source, one.keys, one.request.content)
            for number, one in submissions.items()
            if one.keys
        }

    def _failure(self, line: Line, outcome: Literal["rejected", "failed"], error: str) -> Failure:
        """The row for the file of errors."""
        keys = line.keys if line.normalized is None else line.normalized.keys
        return Failure(
            line.row.number, outcome, error, self._reader.encode_original(line.row), [format_key(key) for key in keys]
        )

    def _describe_error(self, error: Finding) -> str:
        """What is wrong, in the words of the file: its columns instead of our fields."""
        target = error.pointer.removeprefix("/").replace("/", ".")
        return f"{self._column_of.get(target, target)}: {error.message}"


class ImportWriter(ChunkWriter):
    """The rows become leads."""

    def __init__(
        self,
        database: Database,
        policies: ActiveCache[PolicyEvaluator],
        job: Job,
        plan: Plan,
        reader: RowReader,
        capture: Capture,
    ) -> None:
        super().__init__(database, policies, job, plan, reader)
        self._capture = capture
        self._blocks_from = 0

    async def save(self, chunk: Chunk) -> bool:
        active_policy = await self._policies.current()
        job, cancelled = await self._record(chunk, active_policy)
        for outcome in OUTCOMES:
            IMPORT_ROWS.labels(outcome).inc(getattr(job.counts, outcome) - getattr(self.job.counts, outcome))
        self._blocks_from = max(self._blocks_from, chunk.keep_from)
        self._committed(job)
        return cancelled

    async def _record(self, chunk: Chunk, active_policy: ActivePolicy) -> tuple[Job, bool]:
        async with self._database.write_transaction() as unit_of_work:
            connection = await unit_of_work.connection()
            submissions = _select_submissions(chunk.lines, active_policy)
            records = self._describe_records(submissions)
            unchanged = await self._find_unchanged(connection, records, active_policy)
            fresh = {number: one for number, one in submissions.items() if number not in unchanged}
            taken = await self._capture.ingest(unit_of_work, list(fresh.values()), active_policy)
            became = dict(zip(fresh, taken, strict=True))
            results, failures = self._results(chunk.lines, unchanged, became)
            qualities = [one.quality for one in taken if isinstance(one, CapturedSubmission)]
            left_out = [
                (number, finding)
                for number, one in became.items()
                if isinstance(one, CapturedSubmission)
                for finding in one.left_out
            ]
            job, cancelled = await self._advance(unit_of_work, chunk, results, qualities, failures, left_out)
            if results:
                kinds = encode_outcomes(result.outcome for result in results)
                await queries.save_chunk(connection, job.import_id, results[0].number, kinds, pack_results(results))
                said = [
                    (records[number], one.quality.verdict)
                    for number, one in became.items()
                    if isinstance(one, CapturedSubmission)
                ]
                await queries.save_records(connection, job.import_id, said, _version(active_policy))
            if chunk.keep_from > self._blocks_from:
                await queries.drop_blocks(connection, job.import_id, chunk.keep_from)
        return job, cancelled

    def _results(
        self, lines: Sequence[Line], unchanged: Mapping[int, Result], became: Mapping[int, CaptureResult]
    ) -> tuple[list[Result], list[Failure]]:
        """What became of these rows, in their order."""
        results: list[Result] = []
        failures: list[Failure] = []
        for line in lines:
            number = line.row.number
            result, failure = unchanged.get(number), None
            if result is None:
                result, failure = self._result(line, became.get(number))
            results.append(result)
            failures += [failure] if failure is not None else []
        return results, failures

    def _result(self, line: Line, became: CaptureResult | None) -> tuple[Result, Failure | None]:
        number = line.row.number
        if became is None:
            return Result(number, "failed"), self._failure(line, "failed", line.parsed.errors)
        if isinstance(became, Finding):
            return Result(number, "failed"), self._failure(line, "failed", self._describe_error(became))
        verdict = became.quality.verdict
        if became.outcome is None:
            return Result(number, "rejected", verdict), self._failure(
                line, "rejected", describe_rejection(became.quality)
            )
        if verdict == "quarantined":
            return Result(number, "quarantined", verdict, became.lead_id), None
        return Result(number, became.outcome, verdict, became.lead_id), None


class DryRun(ChunkWriter):
    """A dry run: the policy judges, keys are looked up, nothing is locked, and no lead is written. Keys that rows of the file would take
    are kept by their hashes in a temporary table of `session`, so that a person who stands in the file twice is foreseen once."""

    def __init__(
        self,
        database: Database,
        policies: ActiveCache[PolicyEvaluator],
        job: Job,
        plan: Plan,
        reader: RowReader,
        session: asyncpg.Connection,
    ) -> None:
        super().__init__(database, policies, job, plan, reader)
        self._session = session

    async def begin(self) -> None:
        await queries.begin_preview(self._session)

    async def save(self, chunk: Chunk) -> bool:
        active_policy = await self._policies.current()
        submissions = _select_submissions(chunk.lines, active_policy)
        preview = DryRunPreview(
            await self._find_leads_by_key({key for one in submissions.values() for key in one.keys})
        )
        results: list[Result] = []
        failures: list[Failure] = []
        qualities: list[Quality] = []
        left_out: list[tuple[int, Finding]] = []
        async with self._database.write_transaction() as unit_of_work:
            records = self._describe_records(submissions)
            unchanged = await self._find_unchanged(await unit_of_work.connection(), records, active_policy)
            for line in chunk.lines:
                one = submissions.get(line.row.number)
                if (result := unchanged.get(line.row.number)) is None:
                    result, failure, evaluation = self._preview(line, one, preview, active_policy, unit_of_work.now)
                    failures += [failure] if failure is not None else []
                    if one is not None and evaluation is not None:
                        qualities.append(evaluation.quality)
                        left_out += [(result.number, finding) for finding in one.left_out + evaluation.left_out]
                results.append(result)
            job, cancelled = await self._advance(unit_of_work, chunk, results, qualities, failures, left_out)
        await queries.save_previewed(self._session, {_hash(key): str(lead) for key, lead in preview.claimed.items()})
        self._committed(job)
        return cancelled

    def _preview(
        self,
        line: Line,
        one: NormalizedSubmission | None,
        preview: DryRunPreview,
        active_policy: ActivePolicy,
        now: datetime,
    ) -> tuple[Result, Failure | None, Evaluation | None]:
        number = line.row.number
        if one is None:
            return Result(number, "failed"), self._failure(line, "failed", line.parsed.errors), None
        error = one.error or (future_time_error() if is_in_future(one.request.submission.occurred_at, now) else None)
        if error is None and self._plan.guesses_id and preview.contradicts_id(one.keys):
            error = GUESSED_ID
        if error is not None:
            return Result(number, "failed"), self._failure(line, "failed", self._describe_error(error)), None
        evaluation = evaluate_policy(one.facts, active_policy, now)
        quality = evaluation.quality
        outcome = preview.preview_row(one.keys, quality.verdict, number)
        failure = self._failure(line, "rejected", describe_rejection(quality)) if outcome == "rejected" else None
        return Result(number, outcome, quality.verdict), failure, evaluation

    async def _find_leads_by_key(self, keys: Collection[IdentityKey]) -> dict[IdentityKey, object]:
        """The lead of each key that has one: an id of a stored lead, or what stands for a lead that an earlier row would create. Where ids
        are guessed, also which of these leads have an address."""
        known = await self._find_previewed(keys)
        async with self._database.read_transaction() as conn:
            connection = await connection_of(conn)
            owners = await lead_queries.find_key_owners(connection, keys)
            known |= {key: str(lead_id) for key, lead_id in owners.items()}
            if self._plan.guesses_id:
                known |= await self._find_previewed({has_address(lead) for lead in known.values()})
                leads = await lead_queries.read_leads(connection, list(dict.fromkeys(owners.values())))
                known |= {
                    has_address(lead_id): str(lead_id) for lead_id, lead in leads.items() if lead.person.get("email")
                }
        return known

    async def _find_previewed(self, keys: Collection[IdentityKey]) -> dict[IdentityKey, object]:
        hashes = {key: _hash(key) for key in keys}
        previewed = await queries.find_previewed(self._session, list(hashes.values()))
        return {key: previewed[hashed] for key, hashed in hashes.items() if hashed in previewed}


def _smooth(before: float | None, now: float) -> float:
    return now if before is None else before + _SMOOTHING * (now - before)


def _select_submissions(lines: Sequence[Line], active_policy: ActivePolicy) -> dict[int, NormalizedSubmission]:
    """The rows that are submissions, by number, with the keys by which the policy lets people be known."""
    found = {line.row.number: line.normalized for line in lines if line.normalized is not None}
    return dict(zip(found, apply_key_policy(list(found.values()), active_policy), strict=True))


def _version(active_policy: ActivePolicy) -> int | None:
    return None if active_policy is None else active_policy[0]


def _hash(key: IdentityKey) -> int:
    return int.from_bytes(blake2b(format_key(key).encode(), digest_size=8).digest(), "big", signed=True)
