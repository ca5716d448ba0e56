"""The table of the HTTP kit, for metadata and the test that tables equal migrations."""

from __future__ import annotations

from sqlalchemy import (
    Column,
    DateTime,
    Index,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSON, UUID


def define_tables(metadata: MetaData) -> None:
    """Add idempotency_key to a service's metadata."""
    Table(
        "idempotency_key",
        metadata,
        Column("caller", Text, nullable=False),
        Column("key_name", Text, nullable=False),
        Column("request_sha256", LargeBinary, nullable=False),
        Column("status", SmallInteger),
        Column("headers", JSON),
        Column("body", LargeBinary),
        Column("created_at", DateTime(timezone=True), nullable=False),
        Column("subject", UUID),
        PrimaryKeyConstraint("caller", "key_name", name="idempotency_key_pkey"),
        Index("idempotency_key_created_at_idx", "created_at"),
        Index("idempotency_key_subject_idx", "subject", postgresql_where=text("subject IS NOT NULL")),
    )


RETENTION = {"idempotency_key": "7 days (accord.http.idempotency)"}
"""How long the rows stay."""
