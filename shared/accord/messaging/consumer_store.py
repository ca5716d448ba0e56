"""What a consumer keeps in PostgreSQL: all statements of the port `ConsumerStore`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from uuid import UUID

import asyncpg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from accord.db import Database, UnitOfWork, connection_of
from accord.ids import new_id
from accord.messaging import dead_letters, inbox
from accord.messaging.claims import PostgresClaims
from accord.messaging.ports import (
    FROM_BEGINNING,
    REACHES_NOTHING,
    Claims,
    ConsumedWatermarks,
    ConsumerTransaction,
    DeadLetterState,
    LogRecord,
    Move,
    NewDeadLetter,
    Partition,
    Position,
    PositionConflict,
    Progress,
    StoredDeadLetter,
)

HEADERS_MAX = 64
KEY_CHARS_MAX = 500
UNSETTLED_COUNTED_MAX = 20_000

_POSITIONS = "SELECT topic, partition, next_offset, last_event_id, is_lost FROM consumer_position WHERE consumer = $1"

_PROGRESS = f"""
SELECT coalesce(position.topics, '{{}}'), coalesce(position.partitions, '{{}}'), coalesce(position.offsets, '{{}}'),
       held.keys, held.all
FROM (SELECT array_agg(topic) AS topics, array_agg(partition) AS partitions,
             array_agg(CASE WHEN is_lost THEN {REACHES_NOTHING} ELSE next_offset END) AS offsets
      FROM consumer_position WHERE consumer = ANY ($1::text[])) AS position,
     ({dead_letters.HELD}) AS held
"""  # noqa: S608 - constants of ours

_CREATE = """
INSERT INTO consumer_position (consumer, topic, partition, next_offset)
SELECT $1, topic, partition, next_offset
FROM unnest($2::text[], $3::int[], $4::bigint[]) AS batch (topic, partition, next_offset) ORDER BY topic, partition
ON CONFLICT DO NOTHING
"""

_ADVANCE = """
UPDATE consumer_position AS stored
SET next_offset = batch.next_offset, last_event_id = batch.last_event_id
FROM unnest($2::text[], $3::int[], $4::bigint[], $5::bigint[], $6::uuid[])
     AS batch (topic, partition, expected, next_offset, last_event_id)
WHERE stored.consumer = $1 AND stored.topic = batch.topic AND stored.partition = batch.partition
  AND stored.next_offset = batch.expected AND NOT stored.is_lost
"""

_SET_LOST = """
UPDATE consumer_position AS stored SET is_lost = $5
FROM unnest($2::text[], $3::int[], $4::bigint[]) AS batch (topic, partition, next_offset)
WHERE stored.consumer = $1 AND stored.topic = batch.topic AND stored.partition = batch.partition
  AND stored.next_offset = batch.next_offset
"""

_RESTART = """
UPDATE consumer_position SET next_offset = $3, last_event_id = NULL, is_lost = false WHERE consumer = $1 AND topic = $2
"""

_ADD_DEAD_LETTERS = """
INSERT INTO dead_letter
    (id, consumer, topic, partition, "offset", event_id, kind, type, key, keys, value, headers, error, failed_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12::json, $13, $14)
ON CONFLICT DO NOTHING
"""

_UNSETTLED = f"""
SELECT count(*) FROM (SELECT FROM dead_letter WHERE state = 'new' AND consumer = $1 LIMIT {UNSETTLED_COUNTED_MAX}) AS counted
"""  # noqa: S608 - a constant of ours

_LOCK_DEAD_LETTER = """
SELECT topic, partition, "offset", value, headers::text, failed_at, event_id, state
FROM dead_letter WHERE id = $1 AND consumer = $2 FOR UPDATE
"""
_SETTLE_DEAD_LETTER = "UPDATE dead_letter SET state = $2, settled_at = $3 WHERE id = $1"

_DELETE_DEAD_LETTERS = "DELETE FROM dead_letter WHERE consumer = $1 AND key = ANY ($2::text[])"

_REPLAYABLE = """
SELECT id FROM dead_letter WHERE state = 'new' AND consumer = $1 AND kind = 'unknown' AND type = ANY ($2::text[])
ORDER BY id LIMIT $3
"""

_NOTE = """
INSERT INTO consumed_watermark AS known (topic, watermark_at)
SELECT topic, watermark_at FROM unnest($1::text[], $2::timestamptz[]) AS batch (topic, watermark_at) ORDER BY topic
ON CONFLICT (topic) DO UPDATE SET watermark_at = GREATEST(known.watermark_at, excluded.watermark_at)
"""

_AS_OF = text("""
    SELECT CASE WHEN count(*) = cardinality(CAST(:topics AS text[])) THEN min(watermark_at) END
    FROM consumed_watermark WHERE topic = ANY (CAST(:topics AS text[]))
""")


class PostgresConsumerTransaction:
    """One unit of work, and the consumer's own rows in it."""

    def __init__(self, unit_of_work: UnitOfWork, connection: asyncpg.Connection, consumer: str) -> None:
        self.unit_of_work = unit_of_work
        self._connection = connection
        self._consumer = consumer

    async def claim_events(self, event_ids: Sequence[UUID]) -> set[UUID]:
        return await inbox.claim(self._connection, self._consumer, event_ids, self.unit_of_work.now)

    async def advance(self, moves: Mapping[Partition, Move]) -> None:
        parts = sorted(moves)
        done = await self._connection.execute(
            _ADVANCE,
            self._consumer,
            [topic for topic, _ in parts],
            [partition for _, partition in parts],
            [moves[part].expected for part in parts],
            [moves[part].to.next_offset for part in parts],
            [moves[part].to.last_event_id for part in parts],
        )
        if int(done.rpartition(" ")[2]) != len(parts):
            raise PositionConflict(f"{self._consumer}: a position of {len(parts)} is not where it was")

    async def add_dead_letters(self, dead_letters: Sequence[NewDeadLetter]) -> int:
        await self._connection.executemany(_ADD_DEAD_LETTERS, [self._row(dead_letter) for dead_letter in dead_letters])
        unsettled: int = await self._connection.fetchval(_UNSETTLED, self._consumer)
        return unsettled

    async def lock_dead_letter(self, id_: UUID) -> StoredDeadLetter | None:
        row = await self._connection.fetchrow(_LOCK_DEAD_LETTER, id_, self._consumer)
        if row is None:
            return None
        topic, partition, offset, value, headers, failed_at, event_id, state = row
        named = [(name, None if each is None else each.encode("latin-1")) for name, each in json.loads(headers)]
        return StoredDeadLetter(LogRecord(topic, partition, offset, None, value, named, failed_at), event_id, state)

    async def settle_dead_letter(self, id_: UUID, state: DeadLetterState) -> None:
        await self._connection.execute(_SETTLE_DEAD_LETTER, id_, state, self.unit_of_work.now)

    async def delete_dead_letters(self, keys: Collection[str]) -> None:
        await self._connection.execute(_DELETE_DEAD_LETTERS, self._consumer, list(keys))

    async def store_watermarks(self, reached: ConsumedWatermarks) -> None:
        await store_watermarks(self._connection, reached)

    def _row(self, dead_letter: NewDeadLetter) -> tuple[object, ...]:
        record = dead_letter.record
        headers = [
            (name, None if value is None else value.decode("latin-1")) for name, value in record.headers[:HEADERS_MAX]
        ]
        return (
            new_id(),
            self._consumer,
            record.topic,
            record.partition,
            record.offset,
            dead_letter.event_id,
            dead_letter.kind,
            dead_letter.type,
            _readable(record.key),
            dead_letter.keys,
            record.value,
            json.dumps(headers),
            dead_letter.error,
            self.unit_of_work.now,
        )


class PostgresConsumerStore:
    """A service's database, for one consumer."""

    def __init__(self, database: Database, consumer: str) -> None:
        self._database = database
        self._consumer = consumer

    @property
    def consumer(self) -> str:
        return self._consumer

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[ConsumerTransaction]:
        async with self._database.write_transaction() as unit_of_work:
            yield PostgresConsumerTransaction(unit_of_work, await unit_of_work.connection(), self._consumer)

    async def open_claims(self) -> Claims:
        claims = PostgresClaims(await self._database.connect(), f"consumer-{self._consumer}")
        try:
            await claims.join()
        except BaseException:
            await claims.close()
            raise
        return claims

    async def read_positions(self) -> Mapping[Partition, Position]:
        async with self._database.read_transaction() as conn:
            rows = await (await connection_of(conn)).fetch(_POSITIONS, self._consumer)
        return {(topic, partition): Position(*position) for topic, partition, *position in rows}

    async def set_lost(self, offsets: Mapping[Partition, int], is_lost: bool) -> None:
        async with self._database.write_transaction() as unit_of_work:
            await (await unit_of_work.connection()).execute(_SET_LOST, self._consumer, *_columns_of(offsets), is_lost)

    async def create_positions(self, positions: Mapping[Partition, int]) -> None:
        async with self._database.write_transaction() as unit_of_work:
            await (await unit_of_work.connection()).execute(_CREATE, self._consumer, *_columns_of(positions))

    async def count_unsettled(self) -> int:
        async with self._database.read_transaction() as conn:
            unsettled: int = await (await connection_of(conn)).fetchval(_UNSETTLED, self._consumer)
        return unsettled

    async def replayable(self, types: Sequence[str], limit: int) -> Sequence[UUID]:
        async with self._database.read_transaction() as conn:
            rows = await (await connection_of(conn)).fetch(_REPLAYABLE, self._consumer, list(types), limit)
        return [row[0] for row in rows]


async def restart(database: Database, consumer: str, topic: str) -> int:
    """Have a consumer read a topic again from its beginning; how many partitions. What it has applied, its inbox passes over
    for as long as that is kept, and handlers pass over."""
    async with database.write_transaction() as unit_of_work:
        done = await (await unit_of_work.connection()).execute(_RESTART, consumer, topic, FROM_BEGINNING)
    return int(done.rpartition(" ")[2])


async def read_progress(connection: asyncpg.Connection, consumers: Sequence[str]) -> Progress:
    """How far these consumers have come, as the transaction at hand sees it."""
    topics, partitions, offsets, keys, holds_all = (await connection.fetch(_PROGRESS, list(consumers)))[0]
    positions = dict(zip(zip(topics, partitions, strict=True), offsets, strict=True))
    return Progress(positions, frozenset(keys), holds_all)


async def store_watermarks(connection: asyncpg.Connection, reached: ConsumedWatermarks) -> None:
    """Store until when topics have been read, for answers that say what they are as of; never back."""
    await connection.execute(_NOTE, list(reached.topics), list(reached.topics.values()))


async def watermark(conn: AsyncConnection, topics: Sequence[str]) -> datetime | None:
    """What answers are as of: until when this service had read all of these topics when it last noted it; None if unknown."""
    known: datetime | None = (await conn.execute(_AS_OF, {"topics": sorted(set(topics))})).scalar_one()
    return known


def _columns_of(offsets: Mapping[Partition, int]) -> tuple[list[str], list[int], list[int]]:
    """Topics, partitions and offsets, in the order in which rows are locked."""
    parts = sorted(offsets)
    return [topic for topic, _ in parts], [partition for _, partition in parts], [offsets[part] for part in parts]


def _readable(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "backslashreplace").replace("\x00", "\\x00")[:KEY_CHARS_MAX]
