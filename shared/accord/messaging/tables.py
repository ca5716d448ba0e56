"""The tables that messaging needs in every service's database, for metadata and the test that tables equal migrations.

The DDL that really runs is frozen in accord/migrations/v0001.py and v0003_messaging.py.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Identity,
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
from sqlalchemy.dialects.postgresql import ARRAY, JSON, UUID


def define_tables(metadata: MetaData) -> None:
    """Add the tables of messaging to a service's metadata."""
    Table(
        "outbox",
        metadata,
        Column("id", BigInteger, Identity(always=True), nullable=False),
        Column("event_id", UUID, nullable=False),
        Column("type", Text, nullable=False),
        Column("key", Text, nullable=False),
        Column("occurred_at", DateTime(timezone=True), nullable=False),
        Column("recorded_at", DateTime(timezone=True), nullable=False),
        Column("traceparent", Text),
        Column("payload", LargeBinary, nullable=False),
        Column("key_hash", Integer),
        PrimaryKeyConstraint("id", name="outbox_pkey"),
        Index("outbox_recorded_at_idx", "recorded_at"),
    )
    Table(
        "inbox",
        metadata,
        Column("event_id", UUID, nullable=False),
        Column("consumer", Text, nullable=False),
        Column("received_at", DateTime(timezone=True), nullable=False),
        PrimaryKeyConstraint("event_id", "consumer", name="inbox_pkey"),
    )
    Table(
        "dead_letter",
        metadata,
        Column("id", UUID, nullable=False),
        Column("consumer", Text, nullable=False),
        Column("topic", Text, nullable=False),
        Column("partition", Integer, nullable=False),
        Column("offset", BigInteger, nullable=False),
        Column("event_id", UUID),
        Column("type", Text),
        Column("key", Text),
        Column("value", LargeBinary),
        Column("headers", JSON, nullable=False),
        Column("error", Text, nullable=False),
        Column("failed_at", DateTime(timezone=True), nullable=False),
        Column("state", Text, nullable=False, server_default=text("'new'")),
        Column("settled_at", DateTime(timezone=True)),
        Column("kind", Text, nullable=False, server_default=text("'poison'")),
        Column("keys", ARRAY(Text)),
        PrimaryKeyConstraint("id", name="dead_letter_pkey"),
        UniqueConstraint("consumer", "event_id", name="dead_letter_event_key"),
        CheckConstraint("state IN ('new', 'replayed', 'discarded')", name="dead_letter_state_check"),
        CheckConstraint("kind IN ('malformed', 'poison', 'unknown')", name="dead_letter_kind_check"),
        Index("dead_letter_new_idx", "id", postgresql_where=text("state = 'new'")),
        Index("dead_letter_settled_idx", "settled_at", postgresql_where=text("settled_at IS NOT NULL")),
        Index(
            "dead_letter_place_key",
            "consumer",
            "topic",
            "partition",
            "offset",
            unique=True,
            postgresql_where=text("event_id IS NULL"),
        ),
    )
    Table(
        "watermark",
        metadata,
        Column("consumer", Text, nullable=False),
        Column("topic", Text, nullable=False),
        Column("partition", Integer, nullable=False),
        Column("watermark_at", DateTime(timezone=True)),
        PrimaryKeyConstraint("consumer", "topic", "partition", name="watermark_pkey"),
    )
    Table(
        "consumer_position",
        metadata,
        Column("consumer", Text, nullable=False),
        Column("topic", Text, nullable=False),
        Column("partition", Integer, nullable=False),
        Column("next_offset", BigInteger, nullable=False),
        Column("last_event_id", UUID),
        Column("is_lost", Boolean, nullable=False, server_default="false"),
        PrimaryKeyConstraint("consumer", "topic", "partition", name="consumer_position_pkey"),
    )
    Table(
        "consumed_watermark",
        metadata,
        Column("topic", Text, nullable=False),
        Column("watermark_at", DateTime(timezone=True), nullable=False),
        PrimaryKeyConstraint("topic", name="consumed_watermark_pkey"),
    )
    Table(
        "partition_layout",
        metadata,
        Column("partitions", Integer, nullable=False),
        Column("since", DateTime(timezone=True), nullable=False),
        PrimaryKeyConstraint("partitions", name="partition_layout_pkey"),
    )


RETENTION = {
    "outbox": "until it is published, then deleted at once; as long as Kafka is away",
    "inbox": "7 days (accord.messaging.pruning): a relay repeats an event within minutes",
    "dead_letter": "30 days after it is replayed or discarded; unsettled, 10,000 of a consumer at most, which then stops",
    "watermark": "one row for each partition; written by the version before only",
    "consumer_position": "one row for each partition and consumer",
    "consumed_watermark": "one row for each topic",
    "partition_layout": "one row for each number of partitions that a topic ever had",
}
"""How long the rows of each table stay; a test finds a table of which nobody has said it."""
