"""One PostgreSQL in memory, as far as messaging relies on it: READ COMMITTED, row locks, session locks, and what can go wrong.

A statement sees what was committed when it runs, and the transaction's own writes. A commit becomes visible before its
locks are released. A session ends on the server only when the server notices, which may be long after its client died.
Sequences are never rolled back.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, TypeVar

import asyncpg

from tests.simulation.process import Environment, Process

T = TypeVar("T")

Row = Any
"""An immutable value."""

_DELETED = object()
_LOCK_TIMEOUT_S = 1.0
_NOTICED_LATE_S_MAX = 2.0


class Server:
    """A primary."""

    def __init__(self, environment: Environment, name: str, offset: timedelta) -> None:
        self.environment = environment
        self.name = name
        self.offset = offset
        self.tables: dict[str, dict[Any, Row]] = defaultdict(dict)
        self.sequence = 0
        self.sessions: dict[int, Session] = {}
        self.row_locks: dict[tuple[str, Any], Session] = {}
        self.claims: dict[tuple[str, Any], Session] = {}
        self.unit_of_work: dict[int, Session] = {}
        """Sessions that hold the unit of work lock."""
        self.on_commit: Callable[[Mapping[tuple[str, Any], Row]], None] | None = None
        self.is_up = True
        self.releases_lock_early = False
        self.reads_time_early = False
        """Both are wrong, and are there to be planted."""
        self._session_count = 0
        self._waiting: dict[tuple[str, Any], deque[asyncio.Future[None]]] = {}

    def now(self) -> datetime:
        return self.environment.now(self.offset)

    async def connect(self, process: Process) -> Session:
        """A connection of its own."""
        await process.step()
        await self.environment.travel()
        return self.take_pooled(process)

    def take_pooled(self, process: Process) -> Session:
        """A connection of the process's pool."""
        if not self.is_up:
            raise asyncpg.CannotConnectNowError("the database system is starting up")
        self._session_count += 1
        session = self.sessions[self._session_count] = Session(self, process, self._session_count)
        return session

    def drop_all(self) -> None:
        """What a restart does to sessions."""
        for session in list(self.sessions.values()):
            session.drop()

    def copy(self) -> tuple[dict[str, dict[Any, Row]], int]:
        """A backup."""
        return {name: dict(rows) for name, rows in self.tables.items()}, self.sequence

    def restore(self, backup: tuple[dict[str, dict[Any, Row]], int]) -> None:
        """Go on from a backup: what was committed since is gone."""
        self.drop_all()
        tables, self.sequence = backup
        self.tables = defaultdict(dict, {name: dict(rows) for name, rows in tables.items()})

    def wait_for(self, key: tuple[str, Any]) -> asyncio.Future[None]:
        future: asyncio.Future[None] = self.environment.loop.create_future()
        self._waiting.setdefault(key, deque()).append(future)
        return future

    def unlock(self, key: tuple[str, Any], session: Session) -> None:
        if self.row_locks.get(key) is session:
            del self.row_locks[key]
        for future in self._waiting.pop(key, ()):
            if not future.done():
                future.set_result(None)


class Session:
    """One connection. What is taken from a pool serves one transaction, and ends with it."""

    def __init__(self, server: Server, process: Process, number: int) -> None:
        self.server = server
        self.process = process
        self.number = number
        self.is_alive = True
        self.pools: list[str] = []
        self.xact_start: datetime | None = None
        self.writes: dict[tuple[str, Any], Row] = {}
        self._locks: list[tuple[str, Any]] = []
        process.on_death.append(self._client_died)

    # -- the client's side

    async def call(self, statement: Callable[..., T], *args: Any) -> T:
        """Have the server run a statement: a function that looks at it and changes it at one moment."""
        process, environment = self.process, self.server.environment
        await process.step()
        await environment.travel()
        if environment.happens(environment.odds.lose_connection):
            self.drop()
        self.check_alive()
        result = statement(*args)
        if environment.rng.random() < 0.25:
            await environment.travel()
            await process.step()
            self.check_alive()
        return result

    async def begin(self, *, unit_of_work: bool) -> datetime:
        """Begin a transaction. A unit of work takes the unit of work lock first, and reads its time after that."""
        if self.server.reads_time_early:
            now = self.server.now()
            await asyncio.sleep(0.2 * self.server.environment.rng.random())
            await self.call(self._begin, unit_of_work)
            return now
        await self.call(self._begin, unit_of_work)
        if unit_of_work and self.server.environment.rng.random() < 0.3:
            await self.server.environment.travel()
            self.check_alive()
        return self.server.now()

    def _begin(self, unit_of_work: bool) -> None:
        self.xact_start = self.server.now()
        if unit_of_work:
            self.server.unit_of_work[self.number] = self

    async def commit(self) -> None:
        """Raises if the answer is lost, and then nobody knows."""
        process, environment = self.process, self.server.environment
        await process.step()
        if self.server.releases_lock_early:
            self.server.unit_of_work.pop(self.number, None)
            await asyncio.sleep(0.2 * environment.rng.random())
        await environment.travel()
        if environment.happens(environment.odds.lose_connection):
            if environment.rng.random() < 0.5 and self.is_alive:
                self._apply()
            self.drop()
        self.check_alive()
        self._apply()
        # Visible now; the locks go a moment later, whatever becomes of the client. The session goes back to its pool.
        environment.loop.call_later(0.002 * environment.rng.random(), self.drop)
        await environment.travel()
        await process.step()

    def _apply(self) -> None:
        server, writes = self.server, self.writes
        self.writes = {}
        for (table, key), row in writes.items():
            if row is _DELETED:
                server.tables[table].pop(key, None)
            else:
                server.tables[table][key] = row
        if server.on_commit is not None and writes:
            server.on_commit(writes)

    async def close(self) -> None:
        """Say goodbye; the server ends the session at once."""
        if not self.is_alive:
            return
        await self.process.step()
        await self.server.environment.travel()
        self.drop()

    async def lock(self, table: str, key: Any) -> Row | None:
        """SELECT … FOR UPDATE, or the wait of an INSERT for another that has the same key; the row as it is then."""
        server, at = self.server, (table, key)
        deadline = server.environment.loop.time() + _LOCK_TIMEOUT_S
        while (holder := server.row_locks.get(at)) is not None and holder is not self:
            try:
                async with asyncio.timeout_at(deadline):
                    await server.wait_for(at)
            except TimeoutError:
                raise asyncpg.LockNotAvailableError("canceling statement due to lock timeout") from None
            await self.process.step()
            self.check_alive()
        self.take_lock(at)
        return self.get(table, key)

    # -- inside a statement

    def can_lock(self, table: str, key: Any) -> bool:
        """Whether SKIP LOCKED would not skip it."""
        return self.server.row_locks.get((table, key)) in (None, self)

    def take_lock(self, at: tuple[str, Any]) -> None:
        if self.server.row_locks.get(at) is not self:
            self.server.row_locks[at] = self
            self._locks.append(at)

    def get(self, table: str, key: Any) -> Row | None:
        row = self.writes.get((table, key))
        if row is None:
            return self.server.tables[table].get(key)
        return None if row is _DELETED else row

    def put(self, table: str, key: Any, row: Row) -> None:
        self.writes[(table, key)] = row

    def delete(self, table: str, key: Any) -> None:
        self.writes[(table, key)] = _DELETED

    def rows(self, table: str) -> dict[Any, Row]:
        """The whole table, as this transaction sees it now."""
        committed = self.server.tables[table]
        own = {key: row for (name, key), row in self.writes.items() if name == table}
        if not own:
            return committed
        return {key: row for key, row in {**committed, **own}.items() if row is not _DELETED}

    # -- the server's side

    def check_alive(self) -> None:
        if not self.is_alive:
            raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")

    def _end_transaction(self) -> None:
        self.xact_start = None
        self.writes = {}
        self.server.unit_of_work.pop(self.number, None)
        locks, self._locks = self._locks, []
        for at in locks:
            self.server.unlock(at, self)

    def drop(self) -> None:
        """The server ends the session, and with it all that it held."""
        if not self.is_alive:
            return
        self.is_alive = False
        self._end_transaction()
        server = self.server
        server.sessions.pop(self.number, None)
        for item in [item for item, holder in server.claims.items() if holder is self]:
            del server.claims[item]

    def _client_died(self) -> None:
        """The server hears of it by the end of the stream, or, if the machine vanished, when it gives up waiting."""
        environment = self.server.environment
        if self.is_alive:
            late = environment.rng.random() < 0.2
            environment.loop.call_later(environment.rng.random() * (_NOTICED_LATE_S_MAX if late else 0.01), self.drop)
