"""The outbox as the relay sees it, in PostgreSQL: all statements of the port `RelayStore`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import asyncpg

from accord.db import WRITERS_LOCK, Database
from accord.messaging.claims import PostgresClaims, close_connection
from accord.messaging.consumer_store import read_progress
from accord.messaging.ports import Claims, Debts, Lane, Layout, OutboxRow, Progress, RelaySession, Resting, Writers

LANES = "relay"
"""The pool of a service's lanes."""

NO_DEBTS = "SELECT NULL::timestamptz WHERE $1::timestamptz IS NULL AND $2::text[] IS NULL"
"""What a service owes that does nothing by time."""

HELD_ALONE = "SELECT unnest($1::text[])"
"""The keys that are held, and no others with them."""

_IN_LANE = "($1 = 1 OR coalesce(key_hash, 0) % $1 = $2)"

_READ = f"""
SELECT id, event_id, type, key, key_hash, occurred_at, traceparent, payload
FROM (SELECT *, sum(octet_length(payload)) OVER (ORDER BY id) - octet_length(payload) AS bytes_before
      FROM (SELECT * FROM outbox
            WHERE id > $3 AND {_IN_LANE}
              AND (cardinality($4::int[]) = 0
                   OR NOT EXISTS (SELECT FROM unnest($5::int[]) AS spread_over WHERE key_hash % spread_over = ANY ($4)))
            ORDER BY id LIMIT $6) AS first) AS counted
WHERE bytes_before <= $7 ORDER BY id
"""  # noqa: S608 - a constant of ours

_DELETE = "DELETE FROM outbox WHERE id = ANY ($1::bigint[])"
_VACUUM = "VACUUM (SKIP_LOCKED, INDEX_CLEANUP ON, TRUNCATE OFF) outbox"
_VACUUM_TIMEOUT_S = 3_600.0

# The sequence first: an id that is handed out later belongs to a row that is recorded later than the clock says.
# Before the first is, `last_value` is 1 all the same.
_CLOCK = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END, clock_timestamp() FROM outbox_id_seq"

_WRITERS = f"""
SELECT count(*) FILTER (WHERE coalesce(a.state, 'disabled') = 'disabled'), min(a.xact_start)
FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND l.classid = {WRITERS_LOCK >> 32}::oid AND l.objid = {WRITERS_LOCK & 0xFFFF_FFFF}::oid
"""  # noqa: S608 - constants of ours

_OLDEST = f"SELECT min(recorded_at) FROM outbox WHERE recorded_at >= $3 AND {_IN_LANE}"  # noqa: S608
_FIRST_ID = f"SELECT min(id) FROM outbox WHERE id > $3 AND {_IN_LANE}"  # noqa: S608

_LAST_ID = "SELECT coalesce((SELECT max(id) FROM outbox), 0)"
_STUCK = "SELECT DISTINCT key::text FROM stuck_row"
_STUCK_MAX = 1_001
"""One more than may be announced as held (see accord.messaging.frontier)."""

_LAYOUTS = "SELECT since, partitions FROM partition_layout ORDER BY since, partitions"
_ADD_LAYOUT = """
INSERT INTO partition_layout (since, partitions)
SELECT CASE WHEN EXISTS (SELECT FROM partition_layout) THEN clock_timestamp() + interval '5 minutes' ELSE 'epoch' END, $1
ON CONFLICT DO NOTHING
"""
"""New leads take added partitions from five minutes on: by then no id that was made by a clock that is ahead is in use."""


class PostgresRelaySession:
    """One connection, with the lanes that it has claimed."""

    def __init__(self, connection: asyncpg.Connection, owed: str, held: str, walkers: Sequence[str]) -> None:
        self._connection = connection
        self._held = held
        names = ", ".join(f"'{worker}'" for worker in walkers)
        stuck = f"ARRAY({_STUCK} WHERE worker IN ({names}) LIMIT {_STUCK_MAX})" if walkers else "'{}'::text[]"
        self._debts = f"{_LAST_ID}, ({owed}), {stuck}"
        self._claims = PostgresClaims(connection, LANES)

    @property
    def lanes(self) -> Claims:
        return self._claims

    async def read_layouts(self) -> list[Layout]:
        return [Layout(*row) for row in await self._connection.fetch(_LAYOUTS)]

    async def add_layout(self, partitions: int) -> None:
        await self._connection.execute(_ADD_LAYOUT, partitions)

    async def read_rows(
        self, lane: Lane, after_id: int, resting: Resting, rows_max: int, bytes_max: int
    ) -> Sequence[OutboxRow]:
        rows = await self._connection.fetch(
            _READ, lane.count, lane.number, after_id, resting.partitions, resting.layouts, rows_max, bytes_max
        )
        return [OutboxRow._make(row) for row in rows]

    async def delete_rows(self, ids: Sequence[int]) -> None:
        await self._connection.execute(_DELETE, ids)

    async def read_clock(self) -> tuple[int, datetime]:
        last_id, now = (await self._connection.fetch(_CLOCK))[0]
        return last_id, now

    async def read_writers(self) -> Writers:
        return Writers(*(await self._connection.fetch(_WRITERS))[0])

    async def oldest_recorded_at(self, lane: Lane, since: datetime) -> datetime | None:
        oldest: datetime | None = await self._connection.fetchval(_OLDEST, lane.count, lane.number, since)
        return oldest

    async def first_id(self, lane: Lane, after_id: int) -> int | None:
        first: int | None = await self._connection.fetchval(_FIRST_ID, lane.count, lane.number, after_id)
        return first

    async def read_progress(self, consumers: Sequence[str]) -> Progress:
        return await read_progress(self._connection, consumers)

    async def read_debts(self, consumed_at: datetime, held: frozenset[str]) -> Debts:
        # First: whoever comes to be held after this still bounds what is announced.
        keys = [row[0] for row in await self._connection.fetch(self._held, sorted(held))] if held else []
        last_id, owed_at, stuck = (await self._connection.fetch(self._debts, consumed_at, keys))[0]
        return Debts(last_id, owed_at, frozenset([*keys, *stuck]))

    async def close(self) -> None:
        await self._claims.close()


class PostgresRelayStore:
    """A service's database.

    `owed` is a scalar subquery of $1, the consumed watermark, and $2, the keys that are held: the earliest moment up to the
    watermark that time still has to bring about, or NULL. `held` is a query of $1, keys: these, and those of which something is
    missing when something of these is. `walkers` are the workers whose stuck rows are held, as what they owe is dated back (see
    accord.isolation).
    """

    def __init__(
        self, database: Database, owed: str = NO_DEBTS, held: str = HELD_ALONE, walkers: Sequence[str] = ()
    ) -> None:
        self._database = database
        self._owed = owed
        self._held = held
        self._walkers = walkers
        self.written = database.written

    async def open_session(self) -> RelaySession:
        session = PostgresRelaySession(await self._database.connect(), self._owed, self._held, self._walkers)
        try:
            await session._claims.join()  # noqa: SLF001 - its own
        except BaseException:
            await session.close()
            raise
        return session

    async def reclaim_space(self) -> None:
        connection = await self._database.connect(command_timeout_s=_VACUUM_TIMEOUT_S)
        try:
            await connection.execute(_VACUUM)
        finally:
            await close_connection(connection)
