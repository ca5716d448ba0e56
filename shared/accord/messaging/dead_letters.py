"""Dead letters: events that could not be applied, kept with place and error until someone replays or discards them.

Until then they *hold* the leads that they concern: nothing is concluded from what was read of these leads, since it is
not all of it. A dead letter without keys holds all leads. Events of a type that this version does not know
are kept too; they hold nobody, and the next version replays them when it starts.

The bodies stay in the table: neither the API nor a log line ever shows one.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from msgspec import Struct
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from accord.contracts.base import EVENT_TYPES
from accord.contracts.envelope import decode
from accord.messaging import instruments
from accord.messaging.handler import Handler, Received
from accord.messaging.ports import (
    ConsumerStore,
    ConsumerTransaction,
    DeadLetterKind,
    DeadLetterState,
    StoredDeadLetter,
)

ERROR_CHARS_MAX = 500

HELD_DEAD_LETTERS_MAX = 500
"""So many letters say whom they hold. Beyond, everything is held: an announcement has to stay small."""

_KNOWN = ", ".join(f"'{type_}'" for type_ in sorted(EVENT_TYPES))
_UNSETTLED = f"state = 'new' AND (kind <> 'unknown' OR type IN ({_KNOWN}))"

HELD = f"""
SELECT coalesce(array_agg(DISTINCT key) FILTER (WHERE key IS NOT NULL), '{{}}') AS keys,
       coalesce(bool_or(letter.keys IS NULL) OR count(DISTINCT letter.id) > {HELD_DEAD_LETTERS_MAX}, false) AS all
FROM (SELECT id, keys FROM dead_letter WHERE consumer = ANY ($1::text[]) AND {_UNSETTLED} ORDER BY id LIMIT {HELD_DEAD_LETTERS_MAX + 1})
     AS letter LEFT JOIN LATERAL unnest(letter.keys) AS key ON true
"""  # noqa: S608 - constants of ours
"""The keys that the unsettled letters of some consumers hold, and whether they hold all."""

_COLUMNS = 'id, consumer, topic, partition, "offset", event_id, kind, type, key, error, failed_at, state, settled_at'

_LIST = text(f"""
    SELECT {_COLUMNS}, octet_length(value) AS value_bytes FROM dead_letter
    WHERE (CAST(:after AS uuid) IS NULL OR id > :after) AND (CAST(:state AS text) IS NULL OR state = :state)
    ORDER BY id LIMIT :limit
""")  # noqa: S608 - constants of ours

_WAITING = text("""
    SELECT (SELECT count(*) FROM (SELECT FROM dead_letter WHERE state = 'new' LIMIT 100000) AS counted) AS waiting,
           extract(epoch FROM clock_timestamp() - (SELECT failed_at FROM dead_letter WHERE state = 'new' ORDER BY id LIMIT 1)
           )::float8 AS oldest_age_s
""")

_CONSUMER = text("SELECT consumer FROM dead_letter WHERE id = :id")


class UnknownDeadLetter(LookupError):
    """There is no dead letter with this id."""


class AlreadySettled(Exception):
    """The dead letter was replayed or discarded before; `state` says which."""

    def __init__(self, state: str) -> None:
        super().__init__(f"already {state}")
        self.state = state


class DeadLetter(Struct, frozen=True):
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
    state: DeadLetterState
    settled_at: datetime | None
    value_bytes: int | None


def describe(error: BaseException) -> str:
    """Type and first line of an error. SQL, parameters and the row that a constraint quotes are left out."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    lines = str(cause).splitlines()
    said = f"{type(cause).__name__}: {lines[0]}" if lines else type(cause).__name__
    return said.replace("\x00", "\\x00")[:ERROR_CHARS_MAX]


async def list_dead_letters(
    conn: AsyncConnection, *, limit: int, after: UUID | None = None, state: DeadLetterState | None = "new"
) -> list[DeadLetter]:
    """Oldest first, `limit` after the one with id `after`."""
    rows = await conn.execute(_LIST, {"after": after, "state": state, "limit": limit})
    return [DeadLetter(**row._mapping) for row in rows]  # noqa: SLF001 - SQLAlchemy's documented access


class DeadLetterBacklog(Struct, frozen=True):
    """Unsettled dead letters, counted up to a bound."""

    count: int
    oldest_age_s: float


async def count_waiting(conn: AsyncConnection) -> DeadLetterBacklog:
    """How many dead letters wait, and for how long."""
    row = (await conn.execute(_WAITING)).one()
    return DeadLetterBacklog(row.waiting, row.oldest_age_s or 0.0)


async def replay(store: ConsumerStore, handle: Handler, id_: UUID) -> None:
    """Apply a dead letter by its consumer's handler, in one transaction. If the inbox has it by now, only settle it.

    Raises UnknownDeadLetter, AlreadySettled, MalformedEvent, UnknownEventType or what the handler raises; then nothing has
    changed.
    """
    async with store.begin() as transaction:
        record = (await _lock_new(transaction, id_)).record
        event = decode(record.value, record.headers)
        if await transaction.claim_events([event.id]):
            await handle(transaction.unit_of_work, [Received(event, record.topic, record.partition, record.offset)])
        await transaction.settle_dead_letter(id_, "replayed")
    instruments.DEAD_LETTERS_SETTLED.labels(store.consumer, "replayed").inc()


async def discard(store: ConsumerStore, id_: UUID) -> None:
    """Settle a dead letter without applying it. Its event counts as received: a repetition is passed over too.

    Raises UnknownDeadLetter or AlreadySettled.
    """
    async with store.begin() as transaction:
        dead_letter = await _lock_new(transaction, id_)
        if dead_letter.event_id is not None:
            await transaction.claim_events([dead_letter.event_id])
        await transaction.settle_dead_letter(id_, "discarded")
    instruments.DEAD_LETTERS_SETTLED.labels(store.consumer, "discarded").inc()


async def _lock_new(transaction: ConsumerTransaction, id_: UUID) -> StoredDeadLetter:
    dead_letter = await transaction.lock_dead_letter(id_)
    if dead_letter is None:
        raise UnknownDeadLetter(str(id_))
    if dead_letter.state != "new":
        raise AlreadySettled(dead_letter.state)
    return dead_letter


async def find_consumer(conn: AsyncConnection, id_: UUID) -> str:
    """The consumer of a dead letter. Raises UnknownDeadLetter."""
    consumer: str | None = (await conn.execute(_CONSUMER, {"id": id_})).scalar_one_or_none()
    if consumer is None:
        raise UnknownDeadLetter(str(id_))
    return consumer
