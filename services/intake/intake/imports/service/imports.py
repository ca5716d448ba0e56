"""What can be done with imports from outside: send a file, cancel it, and ask what became of it. It takes no row in;
that is work.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from uuid import UUID

import orjson
from pydantic import JsonValue

from accord.agreements import ActiveCache
from accord.contracts.intake_events import ImportCounts, ImportFinished
from accord.db import Database, UnitOfWork, connection_of
from accord.http.idempotency import Answer, IdempotentResult, execute_once, make_idempotency_request
from accord.http.problems import Problem, not_found
from accord.terms.findings import Finding
from intake.imports import queries
from intake.imports.domain.imports import OUTCOMES, EndState, Failure, Outcome, Result, encode_outcomes, unpack_results
from intake.imports.domain.rows import ColumnMapping, find_undeclared_targets, parse_column_mapping
from intake.imports.queries import Job
from intake.imports.service.upload import (
    ImportRequest,
    MappingRules,
    OpenLimits,
    Upload,
    invalid_mapping,
    no_longer_receiving,
)
from intake.policy.domain.evaluator import PolicyEvaluator
from intake.policy.service.evaluation import get_declared_attributes
from intake.sources import queries as sources
from intake.sources.domain.source import Source

_LAST_ID = UUID(int=2**128 - 1)
_FAILURES_PAGE = 500
_CHUNKS_PAGE = 20


class Imports:
    """The use case. `arrived` is set when there is something to work on."""

    def __init__(self, database: Database, policies: ActiveCache[PolicyEvaluator], limits: OpenLimits) -> None:
        self._database = database
        self._policies = policies
        self._limits = limits
        self.arrived = asyncio.Event()

    async def receive(
        self, request: ImportRequest, body: AsyncIterator[bytes], encode: Callable[[Job], Answer]
    ) -> IdempotentResult[Job]:
        """Keep the file and queue the import; what `encode` makes of it is saved under the request's key.

        Raises Problem 422 for a file or a mapping by which no row could be read, 409 if it was cancelled meanwhile, and Overloaded if
        too many imports are open.
        """
        upload = Upload(self._database, request, await self._resolve_mapping(request), self._limits)
        try:
            async for piece in body:
                await upload.feed(piece)
            await upload.finish()
            done = await self._queue(request, upload, encode)
        except BaseException:
            # Also when the client goes away, or the process is told to stop.
            await asyncio.shield(upload.give_up())
            raise
        self.arrived.set()
        return done

    async def _queue(
        self, request: ImportRequest, upload: Upload, encode: Callable[[Job], Answer]
    ) -> IdempotentResult[Job]:
        import_id, idempotency_request = upload.import_id, request.idempotency_request
        if idempotency_request is not None:
            idempotency_request = make_idempotency_request(
                idempotency_request.caller, idempotency_request.key, idempotency_request.sha256, upload.sha256.digest()
            )
        async with self._database.write_transaction() as unit_of_work:
            connection = await unit_of_work.connection()

            async def act() -> Job:
                if not await queries.queue(connection, import_id, upload.plan, unit_of_work.now):
                    raise no_longer_receiving()
                job = await queries.find(connection, import_id)
                if job is None:
                    raise not_found("import")
                return job

            done = await execute_once(unit_of_work, idempotency_request, act, encode)
            if done.result is None:
                await queries.remove(connection, import_id)
        return done

    async def _resolve_mapping(self, request: ImportRequest) -> MappingRules:
        """The mapping that the request says, else the one saved at the source, else what names of columns say. Raises Overloaded where too
        many imports are open: before anything of the file is read, and again when it is kept."""
        declared = await get_declared_attributes(self._policies)
        attributes = list(declared or ())
        said = (request.mapping or "").strip()
        by_name = bool(said) and said[0] not in '{["'
        async with self._database.read_transaction() as conn:
            await self._limits.check(await connection_of(conn), request.caller)
            saved = await sources.read(conn, said if by_name else request.source)
        defaults = {} if saved is None else dict(saved.defaults)
        if said and not by_name:
            return MappingRules(_parse_mapping(said, declared), "request", defaults)
        if saved is not None and _is_usable(saved, request):
            _refuse_undeclared(parse_column_mapping(saved.mapping_document)[0], declared)
            return MappingRules(dict(saved.mapping_document), "source", defaults)
        if by_name:
            raise invalid_mapping([Finding("", "There is no source of this name with a mapping for such a file")])
        return MappingRules(None, request.format.mapping_default, defaults, attributes)

    async def cancel(self, import_id: UUID) -> Job:
        """Have it stop; rows that were taken stay. It is done at once, or after the rows at hand. Raises Problem 404 and 409."""
        async with self._database.write_transaction() as unit_of_work:
            connection = await unit_of_work.connection()
            job = await queries.find(connection, import_id, lock=True)
            if job is None:
                raise not_found("import")
            if job.state in ("finished", "failed"):
                raise Problem(
                    409,
                    "import-has-ended",
                    "This import has ended",
                    "It cannot be cancelled any more.",
                    state=job.state,
                )
            if job.state == "running":
                await queries.request_cancel(connection, import_id)
            elif job.state != "cancelled":
                await end_import(unit_of_work, job, "cancelled")
            found = await queries.find(connection, import_id)
        self.arrived.set()
        return found or job

    async def find(self, import_id: UUID) -> Job:
        """The import with this id. Raises Problem 404."""
        async with self._database.read_transaction() as conn:
            job = await queries.find(await connection_of(conn), import_id)
        if job is None:
            raise not_found("import")
        return job

    async def page(self, before: UUID | None, rows: int, source: str | None) -> list[Job]:
        """Imports before this one, latest first."""
        async with self._database.read_transaction() as conn:
            return await queries.page(await connection_of(conn), before or _LAST_ID, rows, source)

    async def results(self, import_id: UUID, after: int, rows: int, outcome: Outcome | None) -> list[Result]:
        """What became of rows behind row `after`, in order; those with this outcome."""
        wanted = encode_outcomes(OUTCOMES if outcome is None else [outcome])
        found: list[Result] = []
        behind = -1
        async with self._database.read_transaction() as conn:
            connection = await connection_of(conn)
            while len(found) < rows:
                chunks = await queries.chunks(connection, import_id, after + 1, wanted, behind, _CHUNKS_PAGE)
                for first, results in chunks:
                    found += [
                        one
                        for one in unpack_results(first, results)
                        if one.number > after and (outcome is None or one.outcome == outcome)
                    ]
                if len(chunks) < _CHUNKS_PAGE:
                    break
                behind = chunks[-1][0]
        return found[:rows]

    async def failures(self, import_id: UUID) -> AsyncIterator[Failure]:
        """The rows for the file of errors, in order, read a page at a time."""
        after = 0
        while True:
            async with self._database.read_transaction() as conn:
                found = await queries.failures(await connection_of(conn), import_id, after, _FAILURES_PAGE)
            for one in found:
                yield one
            if len(found) < _FAILURES_PAGE:
                return
            after = found[-1].number


def _refuse_undeclared(mapping: ColumnMapping, declared: Collection[str] | None) -> None:
    if declared is not None and (errors := find_undeclared_targets(mapping, declared)):
        raise invalid_mapping(errors)


def _parse_mapping(text: str, declared: Collection[str] | None) -> dict[str, JsonValue]:
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise invalid_mapping([Finding("", "Is neither a JSON object nor the name of a source")]) from None
    mapping, errors = parse_column_mapping(document)
    if errors:
        raise invalid_mapping(errors)
    _refuse_undeclared(mapping, declared)
    found: dict[str, JsonValue] = document
    return found


def _is_usable(saved: Source, request: ImportRequest) -> bool:
    """Whether its mapping can be used for such a file: pointers need documents to point into."""
    return any(saved.mapping_document.get(part) for part in request.format.mapping_parts)


async def end_import(unit_of_work: UnitOfWork, job: Job, state: EndState, error: str | None = None) -> None:
    """Bring an import to its end, and publish that unless it was a dry run or never complete."""
    now = unit_of_work.now
    seconds = (now - job.started_at).total_seconds() if job.started_at is not None else 0.0
    rate = job.counts.read / seconds if seconds > 0 else None
    await queries.end(await unit_of_work.connection(), job.import_id, state, now, error=error, rows_per_s=rate)
    if job.dry_run or job.state == "receiving":
        return
    counts = job.counts
    unit_of_work.publish(
        ImportFinished(
            occurred_at=now,
            recorded_at=now,
            import_id=job.import_id,
            source=job.source,
            state=state,
            rows=ImportCounts(
                read=counts.read,
                created=counts.created,
                updated=counts.updated,
                merged=counts.merged,
                unchanged=counts.unchanged,
                quarantined=counts.quarantined,
                rejected=counts.rejected,
                failed=counts.failed,
            ),
        )
    )
