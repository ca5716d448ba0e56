"""Everything that intake holds about one person, as one JSON document. It is read in pages, each in a transaction of its own, so that
neither its size nor a slow reader holds memory or a connection.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, TypeVar
from uuid import UUID

import asyncpg
import orjson
import structlog
from msgspec.structs import asdict

from accord.db import Database, connection_of
from intake.leads.domain.consent import find_current_consent
from intake.leads.domain.keys import format_key
from intake.leads.queries import consents, merge_group
from intake.leads.service.merge_group import get_merge_group, make_not_found
from intake.privacy.queries import erasures, exports
from intake.privacy.queries.exports import Row
from intake.quarantine import queries as quarantine

log = structlog.get_logger(__name__)

FORMAT = "accord.person.v1"
"""The shape of the document; it only grows."""
_FIRST = UUID(int=0)
_CONSENTS_ROWS = 500

P = TypeVar("P")
_Read = Callable[[asyncpg.Connection, P], Awaitable[list[Row]]]


class ExportInterrupted(RuntimeError):
    """The person was erased or merged while they were exported: what was sent so far is no whole, so it must not end like one."""


class Export:
    """One export. `prepare` finds whom it is about and raises Problem; `document` is its bytes."""

    def __init__(self, database: Database, lead_id: UUID, caller: str) -> None:
        self._database = database
        self._requested_id = lead_id
        self._caller = caller
        self._ids: list[UUID] = []
        self._words: list[str] = []

    @property
    def lead_id(self) -> UUID:
        return self._ids[0]

    async def prepare(self) -> None:
        """Find the person. Raises Problem 404 or 410."""
        async with self._database.read_transaction() as conn:
            connection = await connection_of(conn)
            found = await erasures.find_person(connection, self._requested_id)
            if found is None:
                raise await make_not_found(connection, self._requested_id)
        self._ids, keys = found
        self._words = sorted(format_key(key) for key in keys)
        log.info("person_exported", lead_id=str(self.lead_id), caller=self._caller)

    async def document(self) -> AsyncIterator[bytes]:
        """The document, a part at a time. Raises ExportInterrupted."""
        yield _json(await self._head())[:-1]
        lists = {
            "consents": self._pages(self._consents, None, lambda row: (row["given_at"], row["consent_id"])),
            "submissions": self._pages(self._submissions, _FIRST, lambda row: row["submission_id"]),
            "activities": self._activities(),
            "hook_events": self._pages(self._hook_events, _FIRST, lambda row: row["hook_event_id"]),
            "import_rows": self._pages(
                self._import_failures, (_FIRST, 0), lambda row: (row["import_id"], row["row_number"])
            ),
        }
        for name, pages in lists.items():
            separator = b""
            yield b',"%b":[' % name.encode()
            async for rows in pages:
                yield separator + b",".join(map(_json, rows))
                separator = b","
            yield b"]"
        yield b"}"

    async def _head(self) -> dict[str, Any]:
        async with self._database.read_transaction() as conn:
            connection = await connection_of(conn)
            await self._check_unchanged(connection)
            current = find_current_consent(await consents.newest(connection, self._ids))
            return {
                "format": FORMAT,
                "exported_at": await connection.fetchval("SELECT now()"),
                "lead_id": self.lead_id,
                "consent_in_force": None if current is None else current.basis,
                "leads": await exports.leads(connection, self._ids),
                "keys": await exports.keys(connection, self._ids),
                "merges": await exports.merges(connection, self._ids),
            }

    async def _pages(self, read: _Read[P], first: P, place_of: Callable[[Row], P]) -> AsyncIterator[list[Row]]:
        place = first
        while True:
            async with self._database.read_transaction() as conn:
                connection = await connection_of(conn)
                await self._check_unchanged(connection)
                await exports.force_index_order(connection)
                rows = await read(connection, place)
            if not rows:
                return
            yield rows
            place = place_of(rows[-1])

    async def _check_unchanged(self, connection: asyncpg.Connection) -> None:
        if await merge_group.find_lead_ids(connection, self.lead_id) != self._ids:
            raise ExportInterrupted("the person changed while being exported")

    async def _consents(self, connection: asyncpg.Connection, after: tuple[Any, UUID] | None) -> list[Row]:
        return [asdict(one) for one in await consents.page(connection, self._ids, after, _CONSENTS_ROWS)]

    async def _submissions(self, connection: asyncpg.Connection, after: UUID) -> list[Row]:
        rows = await exports.submissions(connection, self._ids, self._words, after)
        waited = [row["submission_id"] for row in rows if row["verdict"] == "quarantined"]
        decisions: dict[UUID, list[Row]] = {}
        for one in await quarantine.list_decisions(connection, waited) if waited else []:
            decisions.setdefault(one.submission_id, []).append(asdict(one))
        return [row | {"decisions": decisions.get(row["submission_id"], [])} for row in rows]

    async def _activities(self) -> AsyncIterator[list[Row]]:
        for lead_id in self._ids:

            async def read(connection: asyncpg.Connection, after: UUID, of: UUID = lead_id) -> list[Row]:
                return await exports.activities(connection, of, after)

            async for rows in self._pages(read, _FIRST, lambda row: row["activity_id"]):
                yield rows

    async def _hook_events(self, connection: asyncpg.Connection, after: UUID) -> list[Row]:
        return await exports.hook_events(connection, self._words, after)

    async def _import_failures(self, connection: asyncpg.Connection, after: tuple[UUID, int]) -> list[Row]:
        return await exports.import_failures(connection, self._words, after)


def _json(value: object) -> bytes:
    return orjson.dumps(value, default=str, option=orjson.OPT_UTC_Z)


async def submissions_of(
    database: Database, lead_id: UUID, after: UUID, rows_max: int, *, content: bool
) -> list[Mapping[str, Any]]:
    """A page of the submissions of a lead, oldest first. Raises Problem 404 or 410."""
    async with database.read_transaction() as conn:
        connection = await connection_of(conn)
        ids = await get_merge_group(connection, lead_id)
        return list(await exports.submissions_of(connection, ids, after, rows_max, content=content))
