"""One service's PostgreSQL: transactions, the outbox, and what its errors mean."""

from accord.db.database import (
    WRITERS_LOCK,
    CommitOutcomeUnknown,
    Database,
    NestedTransaction,
    UnitOfWork,
    async_url,
    clamp_moment,
    connection_of,
    from_json,
    uuid_sql,
)
from accord.db.errors import is_transient

__all__ = [
    "WRITERS_LOCK",
    "CommitOutcomeUnknown",
    "Database",
    "NestedTransaction",
    "UnitOfWork",
    "async_url",
    "clamp_moment",
    "connection_of",
    "from_json",
    "is_transient",
    "uuid_sql",
]
