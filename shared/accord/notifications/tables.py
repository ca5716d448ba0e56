"""The tables of notifications in every service's database.

The DDL that really runs is frozen in accord/migrations/v0007_notifications.py.
"""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID


def _moment(name: str, *, nullable: bool = False) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=nullable)


def define_tables(metadata: MetaData) -> None:
    """Add the tables of notifications to a service's metadata."""
    Table(
        "subscription",
        metadata,
        Column("subscription_id", UUID, nullable=False),
        Column("name", Text, nullable=False),
        Column("channel", Text, nullable=False),
        Column("address", Text, nullable=False),
        Column("secrets", JSONB, nullable=False),
        Column("event_types", ARRAY(Text), nullable=False),
        Column("filter", JSONB),
        Column("quiet_hours", JSONB),
        Column("digest", Text),
        Column("timezone", Text, nullable=False),
        Column("person", Text),
        Column("state", Text, nullable=False),
        Column("disabled_because", Text),
        _moment("failing_since", nullable=True),
        _moment("last_failed_at", nullable=True),
        Column("version", Integer, nullable=False),
        _moment("created_at"),
        _moment("updated_at"),
        PrimaryKeyConstraint("subscription_id", name="subscription_pkey"),
        UniqueConstraint("name", name="subscription_name_key"),
        CheckConstraint("channel IN ('webhook', 'email', 'slack', 'teams')", name="subscription_channel_check"),
        CheckConstraint("state IN ('active', 'disabled')", name="subscription_state_check"),
    )
    Table(
        "delivery",
        metadata,
        Column("delivery_id", UUID, nullable=False),
        Column("subscription_id", UUID, nullable=False),
        Column("event_id", UUID),
        Column("event_type", Text, nullable=False),
        Column("subject", Text),
        Column("clock_id", UUID),
        Column("body", LargeBinary, nullable=False),
        Column("state", Text, nullable=False),
        _moment("created_at"),
        _moment("due_at", nullable=True),
        Column("batch", Text),
        Column("merged_into", UUID),
        Column("lease", UUID),
        _moment("attempted_at", nullable=True),
        Column("attempt_count", Integer, nullable=False, server_default=text("0")),
        Column("uncertain_count", Integer, nullable=False, server_default=text("0")),
        Column("attempts", JSONB, nullable=False, server_default=text("'[]'")),
        Column("error", Text),
        Column("moot", Text),
        _moment("settled_at", nullable=True),
        PrimaryKeyConstraint("delivery_id", name="delivery_pkey"),
        CheckConstraint("state IN ('pending', 'delivered', 'dead', 'dropped')", name="delivery_state_check"),
        Index("delivery_due_idx", "subscription_id", "due_at", postgresql_where=text("state = 'pending'")),
        Index("delivery_created_idx", "created_at", "delivery_id"),
        Index("delivery_state_idx", "state", "created_at", "delivery_id"),
        Index("delivery_subscription_idx", "subscription_id", "created_at", "delivery_id"),
        Index(
            "delivery_clock_idx",
            "clock_id",
            postgresql_where=text("state = 'pending' AND clock_id IS NOT NULL"),
        ),
        Index("delivery_merged_idx", "merged_into", postgresql_where=text("merged_into IS NOT NULL")),
    )


RETENTION = {
    "subscription": "until it is deleted; 1,000 at most",
    "delivery": "30 days (accord.notifications.service.upkeep), whatever became of it",
}
"""How long the rows of each table stay."""
