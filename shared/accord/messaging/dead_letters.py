"""Dead letters: events that could not be applied, kept with place and error until someone replays or discards them.

The bodies stay in the table: neither the API nor a log line ever shows one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

import asyncpg
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from accord.contracts.envelope import decode
from accord.database import Database
from accord.ids import new_id
from accord.messaging import inbox, instruments

if TYPE_CHECKING:
    from aiokafka import ConsumerRecord
    from fastapi import APIRouter

    from accord.messaging.consumer import Handler

ERROR_CHARS_MAX = 500
HEADERS_MAX = 64

State = Literal["new", "replayed", "discarded"]

_ADD = """
INSERT INTO dead_letter
    (id, consumer, topic, partition, "offset", event_id, type, key, value, headers, error, failed_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10::json, $11, $12)
ON CONFLICT DO NOTHING
"""

_COLUMNS = 'id, consumer, topic, partition, "offset", event_id, type, key, error, failed_at, state, settled_at'

_LIST = text(f"""
    SELECT {_COLUMNS}, octet_length(value) AS value_bytes FROM dead_letter
    WHERE (CAST(:after AS uuid) IS NULL OR id > :after) AND (CAST(:state AS text) IS NULL OR state = :state)
    ORDER BY id LIMIT :limit
""")  # noqa: S608 - constants of ours

_TAKE = """
SELECT consumer, topic, partition, "offset", value, headers::text AS headers, state, event_id
FROM dead_letter WHERE id = $1 FOR UPDATE
"""
_SETTLE = "UPDATE dead_letter SET state = $2, settled_at = $3 WHERE id = $1"


class UnknownDeadLetter(LookupError):
    """There is no dead letter with this id."""


class AlreadySettled(Exception):
    """The dead letter was replayed or discarded before; `state` says which."""

    def __init__(self, state: str) -> None:
        super().__init__(f"already {state}")
        self.state = state


class UnknownConsumer(LookupError):
    """No handler is known for the consumer that the dead letter belongs to."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """What may be shown of a dead letter: everything but its body and headers."""

    id: UUID
    consumer: str
    topic: str
    partition: int
    offset: int
    event_id: UUID | None
    type: str | None
    key: str | None
    error: str
    failed_at: datetime
    state: State
    settled_at: datetime | None
    value_bytes: int | None


async def add(
    driver: asyncpg.Connection, consumer: str, topic: str, record: ConsumerRecord, error: BaseException, now: datetime
) -> None:
    """Keep a record that could not be applied. The same place or the same event is kept once."""
    headers = [
        (name, None if value is None else value.decode("latin-1")) for name, value in record.headers[:HEADERS_MAX]
    ]
    found = dict(record.headers)
    await driver.execute(
        _ADD,
        new_id(),
        consumer,
        topic,
        record.partition,
        record.offset,
        _uuid(found.get("ce_id")),
        _readable(found.get("ce_type")),
        _readable(record.key),
        record.value,
        json.dumps(headers),
        describe(error),
        now,
    )


def describe(error: BaseException) -> str:
    """Type and first line of an error. SQL, parameters and the row that a constraint quotes are left out."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    lines = str(cause).splitlines()
    said = f"{type(cause).__name__}: {lines[0]}" if lines else type(cause).__name__
    return said.replace("\x00", "\\x00")[:ERROR_CHARS_MAX]


async def listed(
    conn: AsyncConnection, *, limit: int, after: UUID | None = None, state: State | None = "new"
) -> list[DeadLetter]:
    """Oldest first, `limit` after the one with id `after`."""
    rows = await conn.execute(_LIST, {"after": after, "state": state, "limit": limit})
    return [DeadLetter(**row._mapping) for row in rows]  # noqa: SLF001 - SQLAlchemy's documented access


async def replay(database: Database, id_: UUID, handlers: Mapping[str, Handler]) -> None:
    """Apply a dead letter by its consumer's handler, in one recording. If the inbox has it by now, only settle it.

    Raises UnknownDeadLetter, AlreadySettled, UnknownConsumer, MalformedEvent, UnknownEventType or what the handler
    raises; then nothing has changed.
    """
    from accord.messaging.consumer import Received  # noqa: PLC0415 - the consumer writes dead letters itself

    async with database.recording() as recording:
        driver = await recording.driver()
        letter = await _take(driver, id_)
        consumer = letter["consumer"]
        if consumer not in handlers:
            raise UnknownConsumer(consumer)
        event = decode(letter["value"], _headers(letter["headers"]))
        if await inbox.claim(driver, consumer, [event.id], recording.now):
            received = Received(event, letter["topic"], letter["partition"], letter["offset"])
            await handlers[consumer](recording, [received])
        await driver.execute(_SETTLE, id_, "replayed", recording.now)
    instruments.DEAD_LETTERS_SETTLED.labels(consumer, "replayed").inc()


async def discard(database: Database, id_: UUID) -> None:
    """Settle a dead letter without applying it. Its event counts as received: a repetition is passed over too."""
    async with database.recording() as recording:
        driver = await recording.driver()
        letter = await _take(driver, id_)
        if letter["event_id"] is not None:
            await inbox.claim(driver, letter["consumer"], [letter["event_id"]], recording.now)
        await driver.execute(_SETTLE, id_, "discarded", recording.now)
    instruments.DEAD_LETTERS_SETTLED.labels(letter["consumer"], "discarded").inc()


async def _take(driver: asyncpg.Connection, id_: UUID) -> asyncpg.Record:
    letter = await driver.fetchrow(_TAKE, id_)
    if letter is None:
        raise UnknownDeadLetter(str(id_))
    if letter["state"] != "new":
        raise AlreadySettled(letter["state"])
    return letter


def _headers(stored: str) -> Sequence[tuple[str, Any]]:
    return [(name, None if value is None else value.encode("latin-1")) for name, value in json.loads(stored)]


def _uuid(value: bytes | None) -> UUID | None:
    try:
        return UUID(value.decode("ascii")) if value else None
    except ValueError:
        return None


def _readable(value: bytes | None) -> str | None:
    return (
        None if value is None else value.decode("utf-8", "backslashreplace").replace("\x00", "\\x00")[:ERROR_CHARS_MAX]
    )


def router(database: Database, handlers: Mapping[str, Handler]) -> APIRouter:
    """Routes for operators: dead letters and outbox. `handlers` are the service's, by consumer group."""
    from accord.messaging.admin import admin_router  # noqa: PLC0415 - the HTTP kit builds on this module's errors

    return admin_router(database, handlers)
