"""Watermarks: until when everything is published, and until when everything was consumed. It sends nothing itself.

**Produced.** T may be announced when everything that this service recorded before T has been acknowledged by Kafka.
Every recording first takes the shared advisory lock K and reads its `now` from the server's clock *after* that. The
relay reads, in this order and each with a snapshot of its own:

1. T0, the server's `clock_timestamp()`;
2. the earliest `xact_start` among the sessions that hold K;
3. the oldest `recorded_at` in the outbox (published rows are gone from it).

T is the least of them. A writer whose `now` < T0 held K at T0. At step 2 it either still holds K, and its
`xact_start` <= `now` bounds T; or it has released K, which PostgreSQL does only after the commit has become visible,
so step 3 sees its rows or they are published. A writer whose `now` >= T0 cannot write anything before T. (Reading
locks and activity in one statement is safe in either order: a session that lost K in between has committed, one that
gained it has `now` >= T0.) The clock must not be set back while the service writes; T is never announced lower than
before.

**Bounded by what was consumed.** A service that records consequences of others' events must not announce a T beyond
what it has read of theirs. The consumed watermark W is read together with the highest outbox id of the same snapshot;
the consequences of all that W covers are committed by then, and W counts only once every row up to that id is
published.

**Consumed.** Per (consumer, topic, partition), stored in the transaction of the batch in which the record arrived. A
partition of which nothing is known yet has NULL, and then the whole is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import asyncpg
import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from accord.database import RECORDING_LOCK

log = structlog.get_logger(__name__)

_CLOCK = "SELECT clock_timestamp()"

_WRITERS = f"""
SELECT count(*) FILTER (WHERE a.state IS NULL), min(a.xact_start)
FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND l.classid = {RECORDING_LOCK >> 32}::oid AND l.objid = {RECORDING_LOCK & 0xFFFF_FFFF}::oid
"""  # noqa: S608 - constants of ours

_OLDEST = "SELECT min(recorded_at) FROM outbox"

_CONSUMED = """
SELECT CASE WHEN count(*) > 0 AND count(*) = count(watermark_at) AND count(DISTINCT topic) = cardinality($1::text[])
            THEN min(watermark_at) END,
       (SELECT max(id) FROM outbox)
FROM watermark WHERE topic = ANY ($1)
"""

_FIRST_ID = "SELECT min(id) FROM outbox"

_STORE = """
INSERT INTO watermark AS known (consumer, topic, partition, watermark_at)
SELECT $1, topic, partition, watermark_at
FROM unnest($2::text[], $3::int[], $4::timestamptz[]) AS batch (topic, partition, watermark_at)
ORDER BY topic, partition
ON CONFLICT (consumer, topic, partition)
DO UPDATE SET watermark_at = GREATEST(known.watermark_at, excluded.watermark_at)
WHERE excluded.watermark_at IS NOT NULL
"""

_KNOWN = text("""
    SELECT CASE WHEN count(*) > 0 AND count(*) = count(watermark_at)
                     AND count(DISTINCT topic) = cardinality(CAST(:topics AS text[]))
                THEN min(watermark_at) END
    FROM watermark WHERE topic = ANY (CAST(:topics AS text[]))
""")


async def watermark(conn: AsyncConnection, topics: Sequence[str]) -> datetime | None:
    """Until when this service has consumed all of these topics: the least of their partitions; None if unknown."""
    distinct = sorted(set(topics))
    known: datetime | None = (await conn.execute(_KNOWN, {"topics": distinct})).scalar_one()
    return known


async def store(driver: asyncpg.Connection, consumer: str, reached: Mapping[tuple[str, int], datetime | None]) -> None:
    """Advance the watermarks of (topic, partition), never back. None only makes a partition known to exist."""
    parts = sorted(reached)
    await driver.execute(
        _STORE, consumer, [topic for topic, _ in parts], [part for _, part in parts], [reached[part] for part in parts]
    )


class Frontier:
    """Up to which moment a service's relay may announce that all is published."""

    def __init__(self, consumed: Sequence[str]) -> None:
        self._consumed = sorted(set(consumed))
        self._bound: datetime | None = None
        self._awaited: tuple[datetime, int] | None = None
        self._announced: datetime | None = None

    async def advance(self, driver: asyncpg.Connection) -> datetime | None:
        """The moment to announce now, never lower than the last; None while there is none.

        `driver` must not be in a transaction: each statement needs its own snapshot.
        """
        now: datetime = await driver.fetchval(_CLOCK)
        hidden, writing_since = (await driver.fetch(_WRITERS))[0]
        if hidden:
            log.warning("watermark_withheld", reason="a writer of another role cannot be seen", writers=hidden)
            return None
        oldest = await driver.fetchval(_OLDEST)
        bounds = [bound for bound in (now, writing_since, oldest) if bound is not None]
        if self._consumed:
            await self._advance_bound(driver)
            if self._bound is None:
                return None
            bounds.append(self._bound)
        reached = min(bounds)
        self._announced = reached if self._announced is None else max(self._announced, reached)
        return self._announced

    async def _advance_bound(self, driver: asyncpg.Connection) -> None:
        """Let a consumed watermark count once every row that was in the outbox when it was read is published."""
        if self._awaited is None:
            consumed, last_id = (await driver.fetch(_CONSUMED, self._consumed))[0]
            if consumed is None:
                return
            self._awaited = (consumed, last_id or 0)
        consumed, last_id = self._awaited
        first_id = await driver.fetchval(_FIRST_ID)
        if first_id is None or first_id > last_id:
            self._bound = consumed if self._bound is None else max(self._bound, consumed)
            self._awaited = None
