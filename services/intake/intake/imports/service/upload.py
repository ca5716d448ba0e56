"""Receives the file of one import and keeps it in blocks. Nothing is kept before the head of the file and its mapping have been understood,
and no more of the body is held than one block.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import asyncpg
import structlog
from msgspec import Struct, field
from pydantic import JsonValue

from accord.batching import Overloaded
from accord.db import Database
from accord.http.idempotency import IdempotencyRequest
from accord.http.problems import Problem, validation_error
from accord.ids import new_id
from accord.terms.findings import Finding
from intake.imports import queries
from intake.imports.domain.formats import Format
from intake.imports.domain.rows import DateFormats, MappingError, MappingOrigin, Plan
from intake.imports.domain.table import (
    BOM_BYTES_MAX,
    ROW_BYTES_MAX,
    EncodingDetector,
    IncompleteHead,
    NotATable,
    Transcoder,
    detect_bom,
)

log = structlog.get_logger(__name__)

BLOCK_BYTES = 512 * 1024
_SAMPLE_BYTES = 64 * 1024


class ImportRequest(Struct, frozen=True):
    """What somebody wants of an import. None is found out from the file. `mapping` is a JSON object, or the name of the source whose saved
    mapping is meant; `idempotency_request` stands for the request without its body."""

    source: str
    caller: str
    format: Format
    mapping: str | None = None
    dry_run: bool = False
    encoding: str | None = None
    delimiter: str | None = None
    quote: str | None = None
    header: bool = True
    timezone: str = "UTC"
    date_formats: DateFormats = None
    rows_per_s_max: int | None = None
    idempotency_request: IdempotencyRequest | None = None


class MappingRules(Struct, frozen=True):
    """How columns become fields, before the columns are known. `mapping` is None where their names decide, by way of `attributes` that the
    policy declares, or where a row is a submission as it stands."""

    mapping: dict[str, JsonValue] | None
    mapping_from: MappingOrigin
    defaults: dict[str, JsonValue] = field(default_factory=dict)
    attributes: Sequence[str] = ()


class OpenLimits(Struct, frozen=True):
    """How many imports may be received, wait or run: in all, and of one caller."""

    total: int
    per_caller: int

    async def check(self, connection: asyncpg.Connection, caller: str) -> None:
        """Raises Overloaded if there is no room for one more of this caller."""
        every, own = await queries.open_counts(connection, caller)
        if every >= self.total or own >= self.per_caller:
            raise Overloaded(30.0)


def invalid_mapping(findings: Sequence[Finding], parameter: str = "mapping") -> Problem:
    """422 for a mapping by which nothing can be read; pointers are into the mapping."""
    errors = [{"parameter": parameter, "pointer": one.pointer, "message": one.message} for one in findings]
    return validation_error(f"The {parameter} does not fit.", *errors)


def no_longer_receiving() -> Problem:
    """409 for an import that was cancelled, or given up, while its file was coming."""
    return Problem(
        409, "import-not-receiving", "Import is not receiving", "It was cancelled while its file was coming."
    )


class Upload:
    """One file on its way in: `feed` what comes, then `finish`. `give_up` leaves nothing of it behind but why."""

    def __init__(self, database: Database, request: ImportRequest, rules: MappingRules, limits: OpenLimits) -> None:
        self.import_id = new_id()
        self.sha256 = sha256()
        self._database = database
        self._request = request
        self._rules = rules
        self._limits = limits
        self._beginning = b""
        self._encoding: str | None = None
        self._transcoder: Transcoder | None = None
        self._detector: EncodingDetector | None = None
        self._buffer = bytearray()
        self._stored_bytes = 0
        self._sample_bytes = _SAMPLE_BYTES
        self._head_is_ascii = False
        self._plan: Plan | None = None
        self._created = False

    @property
    def plan(self) -> Plan:
        """How the file is read; only after `finish`."""
        if self._plan is None:
            raise RuntimeError("the file has not been received")
        return self._plan

    async def feed(self, piece: bytes) -> None:
        """Take in what has come. Raises Problem 422 as soon as it is clear that no row can be read, 409 once it was cancelled."""
        self.sha256.update(piece)
        if self._transcoder is None:
            self._beginning += piece
            if len(self._beginning) < BOM_BYTES_MAX:
                return
            piece, self._beginning = self._beginning, b""
        self._store(piece)
        if self._plan is None and len(self._buffer) >= self._sample_bytes:
            self._read_head(whole=False)
        while self._plan is not None and len(self._buffer) >= BLOCK_BYTES:
            await self._write(BLOCK_BYTES)

    async def finish(self) -> None:
        """That was all."""
        if self._transcoder is None:
            self._store(self._beginning)
        if self._transcoder is not None:
            self._buffer += self._transcoder.feed(b"", last=True)
        if self._plan is None:
            self._read_head(whole=True)
        if self._detector is not None and self._plan is not None and self._head_is_ascii:
            found = self._detector.found
            self._plan = self._plan.model_copy(update={"encoding": found, "stored_encoding": found})
        if self._buffer or not self._created:
            await self._write(len(self._buffer))

    async def give_up(self) -> None:
        """Drop what was kept. Only a job whose client went away, or which could not be saved, stays to be seen, as failed."""
        if not self._created:
            return
        try:
            async with self._database.write_transaction() as unit_of_work:
                connection = await unit_of_work.connection()
                job = await queries.find(connection, self.import_id, lock=True)
                if job is not None and job.state == "receiving":
                    await queries.end(
                        connection, self.import_id, "failed", unit_of_work.now, error="The upload broke off."
                    )
        except Exception as failure:  # noqa: BLE001 - what broke it off is told; the sweep will find the job
            log.warning("upload_cleanup_failed", import_id=str(self.import_id), error=type(failure).__name__)

    def _store(self, piece: bytes) -> None:
        if self._transcoder is None:
            self._transcoder = Transcoder(self._resolve_encoding(piece))
        decoded = self._transcoder.feed(piece)
        if self._detector is not None:
            self._detector.feed(decoded)
        self._buffer += decoded

    def _resolve_encoding(self, beginning: bytes) -> str:
        marked = detect_bom(beginning)
        declared = self._request.encoding
        fixed = self._request.format.encoding
        if fixed is not None:
            if (declared or fixed) not in (fixed, "us-ascii") or (marked or fixed) != fixed:
                raise _unreadable_file(f"{self._request.format.name.upper()} is written in {fixed.upper()}")
            declared = fixed
        if declared is None and marked is None:
            self._detector = EncodingDetector()
        # Whoever says UTF-16 need not know which of the two it is.
        self._encoding = marked if marked and (declared is None or declared[:6] == marked[:6]) else declared
        return self._encoding or "utf-8"

    def _read_head(self, *, whole: bool) -> None:
        """Make the plan, if enough of the file is there."""
        sample = bytes(self._buffer)
        try:
            self._plan = self._make_plan(sample, whole=whole)
        except IncompleteHead as error:
            if len(sample) > ROW_BYTES_MAX:
                raise _unreadable_file(str(error)) from None
            self._sample_bytes = 2 * len(sample)
        except NotATable as error:
            raise _unreadable_file(str(error)) from None
        except MappingError as error:
            raise invalid_mapping(error.findings, error.parameter) from None
        else:
            self._head_is_ascii = sample[: self._plan.start].isascii()

    def _make_plan(self, sample: bytes, *, whole: bool) -> Plan:
        request, rules = self._request, self._rules
        encoding = self._encoding or (self._detector.found if self._detector is not None else "utf-8")
        asked = Plan(
            format=request.format.name,
            encoding=encoding,
            stored_encoding=encoding,
            encoding_declared=self._detector is None,
            delimiter=request.delimiter,
            quote=request.quote,
            header=request.header,
            mapping=rules.mapping,
            mapping_from=rules.mapping_from,
            timezone=request.timezone,
            defaults=rules.defaults,
            rows_per_s_max=request.rows_per_s_max,
        )
        return request.format.complete(asked, sample, rules.attributes, request.date_formats, whole=whole)

    async def _write(self, size: int) -> None:
        content = bytes(self._buffer[:size])
        async with self._database.write_transaction() as unit_of_work:
            connection = await unit_of_work.connection()
            if not self._created:
                request = self._request
                await queries.lock_opening(connection)
                await self._limits.check(connection, request.caller)
                await queries.create(
                    connection,
                    self.import_id,
                    request.source,
                    request.caller,
                    dry_run=request.dry_run,
                    now=unit_of_work.now,
                )
            if not await queries.add_block(connection, self.import_id, self._stored_bytes, content, unit_of_work.now):
                raise no_longer_receiving()
        self._created = True
        self._stored_bytes += size
        del self._buffer[:size]


def _unreadable_file(why: str) -> Problem:
    return validation_error(f"{why}.", {"pointer": "", "message": why})
