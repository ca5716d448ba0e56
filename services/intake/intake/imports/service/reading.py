"""Reads an import's rows ahead of those that are being saved: block by block, as many together as one transaction takes, each normalized.
It writes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from itertools import islice
from typing import NamedTuple

from msgspec import Struct

from accord.db import Database, connection_of
from intake.imports import queries
from intake.imports.domain.formats import FORMATS
from intake.imports.domain.rows import ParsedRow, Plan, RowReader
from intake.imports.domain.table import Row
from intake.imports.queries import Job
from intake.leads.domain.keys import IdentityKey
from intake.leads.service.submissions import CaptureRequest, NormalizedSubmission, normalize_submission

CHUNK_BYTES_MAX = 4 * 1024 * 1024
_SLICE_ROWS = 50
"""Rows that are read without letting other tasks run: about two milliseconds."""
_AHEAD_CHUNKS = 1


class Line(NamedTuple):
    """One row that is not blank: as it stands, as it reads, and whom it speaks of, if that can be said. `keys` are those of a row that is
    no submission, as far as they can be seen, so that it can be erased with the person."""

    row: Row
    parsed: ParsedRow
    normalized: NormalizedSubmission | None
    keys: Sequence[IdentityKey] = ()


class Chunk(Struct, frozen=True):
    """Rows of one transaction. They end at byte `end` after row `number`; blocks before `keep_from` are not needed after them."""

    lines: Sequence[Line]
    end: int
    number: int
    keep_from: int


class ReadAhead:
    """The chunks of one import from where it stands: `async for chunk in …`. While one is worked on, the next is read."""

    def __init__(
        self,
        database: Database,
        job: Job,
        plan: Plan,
        reader: RowReader,
        chunk_rows_max: int,
    ) -> None:
        self._database = database
        self._job = job
        self._plan = plan
        self._reader = reader
        self._chunk_rows_max = chunk_rows_max

    async def chunks(self) -> AsyncGenerator[Chunk, None]:
        """All of them, in order. Close the iterator when no more are wanted."""
        ready: asyncio.Queue[Chunk | Exception | None] = asyncio.Queue(maxsize=_AHEAD_CHUNKS)
        parsed = asyncio.create_task(self._read_into(ready), name="import-reading")
        try:
            while (chunk := await ready.get()) is not None:
                if isinstance(chunk, Exception):
                    raise chunk
                yield chunk
        finally:
            parsed.cancel()
            await asyncio.wait([parsed])

    async def _read_into(self, ready: asyncio.Queue[Chunk | Exception | None]) -> None:
        try:
            async for chunk in self._read():
                await ready.put(chunk)
            await ready.put(None)
        except Exception as error:  # noqa: BLE001 - raised by whoever waits for the chunk
            await ready.put(error)

    async def _read(self) -> AsyncIterator[Chunk]:
        job = self._job
        rows = FORMATS[self._plan.format].rows(self._plan, job.bytes_done, job.row_number)
        at, number, begin = job.bytes_done, job.row_number, job.bytes_done
        firsts: list[int] = []
        lines: list[Line] = []
        last = False
        while not last:
            async with self._database.read_transaction() as conn:
                block = await queries.block_at(await connection_of(conn), job.import_id, at)
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
                end, number = batch[-1].end, batch[-1].number
                if len(lines) >= self._chunk_rows_max or end - begin >= CHUNK_BYTES_MAX:
                    yield Chunk(lines, end, number, _block_of(firsts, end))
                    lines, begin = [], end
                await asyncio.sleep(0)
        if lines or begin < at:
            yield Chunk(lines, at, number, at)

    def _lines(self, rows: Sequence[Row]) -> list[Line]:
        reader, caller, guessed = self._reader, self._job.caller, self._plan.guesses_id
        read = [(row, reader.read(row)) for row in rows if row.cells]
        return [
            Line(row, parsed, None, self._keys(row))
            if parsed.submission is None
            else Line(
                row,
                parsed,
                normalize_submission(
                    CaptureRequest(
                        parsed.submission,
                        parsed.content,
                        caller,
                        is_canonical=parsed.is_canonical,
                        id_is_guessed=guessed,
                    )
                ),
            )
            for row, parsed in read
        ]

    def _keys(self, row: Row) -> Sequence[IdentityKey]:
        requests = [CaptureRequest(named, "", self._job.caller) for named in self._reader.find_identities(row)]
        return [key for request in requests for key in normalize_submission(request).keys]


def _block_of(firsts: list[int], byte: int) -> int:
    """The first byte of the block in which this byte is; blocks before it are forgotten."""
    while len(firsts) > 1 and firsts[1] <= byte:
        firsts.pop(0)
    return firsts[0] if firsts else 0
