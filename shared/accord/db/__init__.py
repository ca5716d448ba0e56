"""One service's PostgreSQL: transactions, the outbox, and what its errors mean."""

from accord.db.database import (
    RECORDING_LOCK,
    CommitOutcomeUnknown,
    Database,
    NestedTransaction,
    Recording,
    async_url,
    driver_of,
    finite,
    from_json,
    uuid_of,
)
from accord.db.errors import is_transient

__all__ = [
    "RECORDING_LOCK",
    "CommitOutcomeUnknown",
    "Database",
    "NestedTransaction",
    "Recording",
    "async_url",
    "driver_of",
    "finite",
    "from_json",
    "is_transient",
    "uuid_of",
]
