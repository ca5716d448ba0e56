"""Which errors may pass, so that the same may succeed later."""

from __future__ import annotations

from typing import Any, cast

import asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

_TRANSIENT_POSTGRES: tuple[type[BaseException], ...] = (
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.LockNotAvailableError,
    asyncpg.QueryCanceledError,
    asyncpg.InsufficientResourcesError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.ReadOnlySQLTransactionError,
    # A database that takes no connections just now (ALLOW_CONNECTIONS false), as while it is copied.
    asyncpg.ObjectNotInPrerequisiteStateError,
    # After a migration; the statement is prepared anew.
    asyncpg.InvalidCachedStatementError,
    # What asyncpg raises on a connection that has read the server's farewell and not yet the end of its stream.
    asyncpg.InternalClientError,
)


_TRANSIENT_INTERFACE = (
    "connection is closed",
    "cannot perform operation",
    "manually started transaction",
    "transaction is in error state",
)
"""What asyncpg's InterfaceError says of a connection at its end. Of our mistakes it says other things in the same class."""


def is_transient(error: BaseException | None) -> bool:
    """Whether the same may succeed later: after a lost connection, a deadlock, a full pool, an unreachable Kafka."""
    if error is None:
        return False
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or is_transient(error.__cause__ or _original(error))
    if isinstance(error, asyncpg.InterfaceError):
        return any(phrase in str(error) for phrase in _TRANSIENT_INTERFACE)
    if isinstance(error, (*_TRANSIENT_POSTGRES, PoolTimeoutError, OSError, TimeoutError)):
        return True
    # The dialect raises its own class from the driver's; Kafka's errors are known by their base without importing
    # aiokafka here.
    if any(base.__module__ == "aiokafka.errors" and base.__name__ == "KafkaError" for base in type(error).__mro__):
        return True
    return is_transient(error.__cause__) if type(error).__module__.startswith("sqlalchemy") else False


_ENDS_OF_CONNECTION = ("08", "57P")
"""Classes of SQLSTATE by which the server says that the connection ends; all others say that the transaction was rolled back."""


def leaves_outcome_open(error: Exception) -> bool:
    """Whether this failure of a COMMIT is the loss of its answer."""
    if not is_transient(error):
        return False
    reported = getattr(_original(error), "sqlstate", None) if isinstance(error, DBAPIError) else None
    return reported is None or reported.startswith(_ENDS_OF_CONNECTION)


def _original(error: DBAPIError) -> BaseException | None:
    original: Any = error.orig
    return cast("BaseException | None", original)
