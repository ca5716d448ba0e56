"""One service's PostgreSQL: the pool, and `write_transaction()`, the only way to write. It holds no SQL of any subject.

A unit of work is one transaction that first takes a shared advisory lock and then reads the clock, so that the relay can
tell which moments are still being written (see accord.messaging.announcement_board). Events handed to `publish` are inserted
into the outbox as one statement just before the commit, so state and events are saved together or not at all.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Any, cast
from weakref import WeakSet

import asyncpg
import orjson
from sqlalchemy import event
from sqlalchemy.engine import URL, ExceptionContext, make_url
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from accord.contracts.base import EventData
from accord.contracts.values import MOMENT_MAX, MOMENT_MIN
from accord.db import outbox
from accord.db.errors import is_transient, leaves_outcome_open
from accord.tracing import current_traceparent

WRITERS_LOCK = 0x0ACC_04D0
"""Key of the advisory lock that every unit of work holds, shared, from before its `now` to its commit."""

_OPEN = f"SELECT pg_advisory_xact_lock_shared({WRITERS_LOCK}), clock_timestamp()"
_READ = "SELECT clock_timestamp()"
_BEGIN_ATTEMPTS_MAX = 2
_CONNECT_TIMEOUT_S = 10.0
_POOL_TIMEOUT_S = 10.0

# A peer that has vanished without a word is found out after some 25 s by either end: by the server, so that it frees the locks of a
# session whose host is gone, and by us, so that nobody waits for a server that is. A Unix socket ignores all of it.
_KEEPALIVE_IDLE_S = 10
_KEEPALIVE_INTERVAL_S = 5
_KEEPALIVE_COUNT = 3
_UNANSWERED_MS_MAX = 1000 * (_KEEPALIVE_IDLE_S + _KEEPALIVE_INTERVAL_S * _KEEPALIVE_COUNT)
_KEEPALIVE_SETTINGS = {
    "tcp_keepalives_idle": str(_KEEPALIVE_IDLE_S),
    "tcp_keepalives_interval": str(_KEEPALIVE_INTERVAL_S),
    "tcp_keepalives_count": str(_KEEPALIVE_COUNT),
    "tcp_user_timeout": str(_UNANSWERED_MS_MAX),
}
_KEEPALIVE_OPTIONS = (
    ("TCP_KEEPIDLE", _KEEPALIVE_IDLE_S),
    ("TCP_KEEPINTVL", _KEEPALIVE_INTERVAL_S),
    ("TCP_KEEPCNT", _KEEPALIVE_COUNT),
    ("TCP_USER_TIMEOUT", _UNANSWERED_MS_MAX),
)


class NestedTransaction(RuntimeError):
    """A task that holds a transaction has asked for a second one: a mistake of ours.

    Whoever holds locks must not queue for another connection: with a full pool, everybody waits for somebody who waits.
    """


class _KeptAliveConnection(asyncpg.Connection):
    """A connection that finds out when its server has vanished."""

    __slots__ = ()

    def __init__(self, protocol: Any, transport: asyncio.Transport, *args: Any) -> None:
        super().__init__(protocol, transport, *args)
        peer = transport.get_extra_info("socket")
        if peer is None or peer.family not in (socket.AF_INET, socket.AF_INET6):
            return
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE_OPTIONS:
            if hasattr(socket, name):  # not every system has all of them
                peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class CommitOutcomeUnknown(ConnectionError):
    """The connection was lost at the COMMIT: what was written is saved, or not. It is transient; only who can tell may try again."""


class UnitOfWork:
    """One write transaction. `now` is its time: `recorded_at` of everything written in it."""

    def __init__(self, conn: AsyncConnection, now: datetime) -> None:
        self.conn = conn
        self.now = now
        self.pending: list[outbox.Row] = []

    def publish(self, *events: EventData, traceparent: str | None = None) -> None:
        """Have these events published, in this order, if and only if the transaction commits.

        `traceparent` is the context they belong to; without it, that of the current span.
        Raises ValueError if an event's `recorded_at` is not `now`, or if it is too large for a Kafka record.
        """
        context = traceparent or current_traceparent()
        self.pending.extend(outbox.row_of(event, self.now, context) for event in events)

    async def connection(self) -> asyncpg.Connection:
        """The asyncpg connection under `conn`, inside the same transaction; for hot `unnest` statements."""
        return await connection_of(self.conn)


async def connection_of(conn: AsyncConnection) -> asyncpg.Connection:
    """The asyncpg connection under `conn`, whose transaction must have begun with a statement through it."""
    raw = await conn.get_raw_connection()
    return cast("asyncpg.Connection", raw.driver_connection)


def clamp_moment(moment: datetime) -> datetime:
    """A stored moment, brought into the range that every answer is made of. asyncpg writes the ends of datetime's range as infinite
    moments, and reads those without a zone."""
    return min(max(moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC), MOMENT_MIN), MOMENT_MAX)


def uuid_sql(key: str) -> str:
    """The SQL for the UUID that a text is, NULL where it is none. `key` is a constant of ours."""
    return f"CASE WHEN {key} ~ '^[0-9a-f]{{8}}(-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}$' THEN {key}::uuid END"


def from_json(value: Any) -> Any:
    """The value of a json or jsonb column. SQLAlchemy sets codecs on its connections, so the driver gives text or the value."""
    return orjson.loads(value) if isinstance(value, str | bytes) else value


class Database:
    """The pool of one process. `written` is set after each commit that added outbox rows, and wakes the relay."""

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = 10,
        application_name: str,
        lock_timeout_s: float = 5,
        idle_in_transaction_timeout_s: float = 30,
    ) -> None:
        self.url = async_url(url)
        self.written = asyncio.Event()
        self.on_publish: Callable[[UnitOfWork], Awaitable[None]] | None = None
        """Called before the commit of a unit of work that publishes events, which are its `pending`. What it raises undoes all of it."""
        self._server_settings = {
            "application_name": application_name,
            "lock_timeout": f"{int(lock_timeout_s * 1000)}ms",
            "idle_in_transaction_session_timeout": f"{int(idle_in_transaction_timeout_s * 1000)}ms",
            "jit": "off",
            # A plan that was cached while a table was small reads all of it when it has grown, until something analyzes it.
            # Our statements carry many rows each, so planning them every time costs little.
            "plan_cache_mode": "force_custom_plan",
            "timezone": "UTC",
            **_KEEPALIVE_SETTINGS,
        }
        self._holders: WeakSet[asyncio.Task[Any]] = WeakSet()
        self._generation = 0
        self.engine: AsyncEngine = create_async_engine(
            self.url,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=_POOL_TIMEOUT_S,
            connect_args=self._connect_options(),
        )
        event.listen(self.engine.sync_engine, "handle_error", _drop_unusable)
        event.listen(self.engine.sync_engine.pool, "connect", self._stamp_generation)
        event.listen(self.engine.sync_engine.pool, "checkout", self._check_generation)

    @asynccontextmanager
    async def write_transaction(self) -> AsyncIterator[UnitOfWork]:
        """A write transaction: commits when the block ends, rolls back when it raises. Raises NestedTransaction, and
        CommitOutcomeUnknown if the COMMIT went out and no answer came."""
        committing = False
        try:
            async with self._refuse_nested(), AsyncExitStack() as stack:
                conn, now = await self._begin(stack, _OPEN, readonly=False)
                unit_of_work = UnitOfWork(conn, now)
                yield unit_of_work
                if unit_of_work.pending:
                    if self.on_publish is not None:
                        await self.on_publish(unit_of_work)
                    await outbox.append(await unit_of_work.connection(), unit_of_work.pending)
                committing = True
        except Exception as error:
            if committing and leaves_outcome_open(error):
                raise CommitOutcomeUnknown("the connection was lost at the commit") from error
            raise
        if unit_of_work.pending:
            self.written.set()

    @asynccontextmanager
    async def read_transaction(self) -> AsyncIterator[AsyncConnection]:
        """A read-only transaction, already begun, so that `connection_of` works in it too. Raises NestedTransaction."""
        async with self._refuse_nested(), AsyncExitStack() as stack:
            conn, _ = await self._begin(stack, _READ, readonly=True)
            yield conn

    @asynccontextmanager
    async def _refuse_nested(self) -> AsyncIterator[None]:
        """Refuse a second transaction to the task that holds one; if the block's error says so, give up the connections there are."""
        holder = asyncio.current_task()
        assert holder is not None  # noqa: S101 - a coroutine of ours runs in a task
        if holder in self._holders:
            raise NestedTransaction(
                "this task holds a transaction already; pass its connection on, or look things up before"
            )
        self._holders.add(holder)
        try:
            yield
        except Exception as error:
            if _is_outdated(error):
                self._generation += 1
            raise
        finally:
            self._holders.discard(holder)

    def _stamp_generation(self, connection: Any, record: Any) -> None:
        record.info["generation"] = self._generation

    def _check_generation(self, connection: Any, record: Any, proxy: Any) -> None:
        """Have the pool replace a connection from before it was found that such ones are of no use any more."""
        if record.info["generation"] != self._generation:
            raise DisconnectionError("the connection is outdated")

    async def _begin(
        self, stack: AsyncExitStack, statement: str, *, readonly: bool
    ) -> tuple[AsyncConnection, datetime]:
        """Begin a transaction with its first statement, which answers a time.

        After a server restart the pool's connections are dead. Nothing is done yet, so it is tried once more: the first
        failure has made the pool drop all connections of that age.
        """
        for attempt in range(_BEGIN_ATTEMPTS_MAX):
            attempted = AsyncExitStack()
            try:
                conn = await attempted.enter_async_context(self.engine.connect())
                if readonly:
                    await conn.execution_options(postgresql_readonly=True)
                await attempted.enter_async_context(conn.begin())
                now: datetime = (await conn.exec_driver_sql(statement)).one()[-1]
            except BaseException as error:
                await attempted.__aexit__(type(error), error, error.__traceback__)
                if attempt + 1 < _BEGIN_ATTEMPTS_MAX and isinstance(error, DBAPIError) and is_transient(error):
                    continue
                raise
            stack.push_async_exit(attempted.pop_all())
            return conn, now
        raise AssertionError("unreachable")

    async def connect(self, *, command_timeout_s: float = 30.0) -> asyncpg.Connection:
        """A connection outside the pool and without a transaction, for session locks. The caller closes it."""
        _, options = self.engine.dialect.create_connect_args(self.url)
        for pool_option in ("prepared_statement_cache_size", "prepared_statement_name_func", "async_fallback"):
            options.pop(pool_option, None)
        connection: asyncpg.Connection = await asyncpg.connect(
            **options, **self._connect_options(), command_timeout=command_timeout_s
        )
        return connection

    def _connect_options(self) -> dict[str, Any]:
        """How every connection is made: to a server that can be written to, whichever of the URL's hosts that is."""
        return {
            "server_settings": self._server_settings,
            "timeout": _CONNECT_TIMEOUT_S,
            "target_session_attrs": "read-write",
            "connection_class": _KeptAliveConnection,
        }

    async def dispose(self) -> None:
        """Close the pool."""
        await self.engine.dispose()


def _drop_unusable(context: ExceptionContext) -> None:
    """Have the pool drop a connection that is only half way through its end, and all others of its age."""
    if isinstance(context.original_exception.__cause__, asyncpg.InternalClientError | asyncpg.InterfaceError):
        context.is_disconnect = context.is_disconnect or is_transient(context.original_exception.__cause__)


_OUTDATED = (asyncpg.ReadOnlySQLTransactionError, asyncpg.InvalidCachedStatementError)
"""What says of all connections that there are that new ones would do better: the server cannot be written to any more, or a result has
other columns than when a statement was prepared."""


def _is_outdated(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, _OUTDATED):
            return True
        error = error.__cause__
    return False


def async_url(url: str) -> URL:
    """The URL for SQLAlchemy's asyncpg dialect, whatever PostgreSQL scheme it came with."""
    parsed = make_url(url)
    if parsed.get_backend_name() not in ("postgresql", "postgres"):
        raise ValueError("the database URL must be one of PostgreSQL")
    return parsed.set(drivername="postgresql+asyncpg")
