"""Dead letters: events that could not be applied, kept with place and error until someone replays or discards them.

Until then they *hold* the leads that they concern: nothing is concluded from what was read of these leads, since it is
not all of it. A letter that does not say whom it concerns holds all. Events of a type that this version does not know
are kept too; they hold nobody, and the next version replays them when it starts.

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

from accord.contracts.base import EVENT_TYPES
from accord.contracts.envelope import decode
from accord.database import Database
from accord.messaging import inbox, instruments
from accord.messaging.ports import DeadLetterKind

if TYPE_CHECKING:
    from fastapi import APIRouter

    from accord.messaging.consumer import Handler

ERROR_CHARS_MAX = 500

State = Literal["new", "replayed", "discarded"]

HELD_KEYS_MAX = 500
"""Beyond, everything is held: an announcement has to stay small."""

_KNOWN = ", ".join(f"'{type_}'" for type_ in sorted(EVENT_TYPES))
_UNSETTLED = f"state = 'new' AND (kind <> 'unknown' OR type IN ({_KNOWN}))"

HELD = f"""
SELECT coalesce(array_agg(DISTINCT key) FILTER (WHERE key IS NOT NULL), '{{}}') AS keys,
       coalesce(bool_or(letter.keys IS NULL) OR count(DISTINCT key) > {HELD_KEYS_MAX}, false) AS all
FROM (SELECT keys FROM dead_letter WHERE consumer = ANY ($1::text[]) AND {_UNSETTLED} ORDER BY id LIMIT {HELD_KEYS_MAX + 1})
     AS letter LEFT JOIN LATERAL unnest(letter.keys) AS key ON true
"""  # noqa: S608 - constants of ours
"""The keys that the unsettled letters of some consumers hold, and whether they hold all."""

_COLUMNS = 'id, consumer, topic, partition, "offset", event_id, kind, type, key, error, failed_at, state, settled_at'

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
    kind: DeadLetterKind
    type: str | None
    key: str | None
    error: str
    failed_at: datetime
    state: State
    settled_at: datetime | None
    value_bytes: int | None


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


async def replay(database: Database, handlers: Mapping[str, Handler], id_: UUID) -> None:
    """Apply a dead letter by its consumer's handler, in one recording. If the inbox has it by now, only settle it.

    Raises UnknownDeadLetter, AlreadySettled, UnknownConsumer, MalformedEvent, UnknownEventType or what the handler
    raises; then nothing has changed.
    """
    from accord.messaging.consumer import Received  # noqa: PLC0415 - it knows how letters are replayed

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


def router(database: Database, handlers: Mapping[str, Handler]) -> APIRouter:
    """Routes for operators: dead letters and outbox. `handlers` are the service's, by consumer group."""
    from accord.messaging.admin import admin_router  # noqa: PLC0415 - the HTTP kit builds on this module's errors

    return admin_router(database, handlers)
