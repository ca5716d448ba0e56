"""Positions in the database, announcements instead of watermarks in partitions, lanes of the outbox. Frozen.

`watermark` is written by the version before until all its processes are gone; a later migration drops it.
"""

from __future__ import annotations

from alembic.operations import Operations

_STATEMENTS = (
    # Nullable: the version before writes none.
    "ALTER TABLE outbox ADD COLUMN key_hash integer",
    """
    ALTER TABLE dead_letter
        ADD COLUMN kind text NOT NULL DEFAULT 'poison'
            CONSTRAINT dead_letter_kind_check CHECK (kind IN ('malformed', 'poison', 'unknown')),
        ADD COLUMN keys text[],
        DROP CONSTRAINT dead_letter_place_key
    """,
    # Whom the letters concern that are there: their record's key. Merges and their ends concern another lead too, which only their
    # bodies name; those hold all.
    """
    UPDATE dead_letter SET keys = ARRAY[key]
    WHERE key <> '' AND (type IS NULL OR type NOT IN ('lead.merged.v1', 'lead.unmerged.v1'))
    """,
    # A place names no record for good: a topic that was made anew has another one there.
    """
    CREATE UNIQUE INDEX dead_letter_place_key ON dead_letter (consumer, topic, partition, "offset")
    WHERE event_id IS NULL
    """,
    "CREATE INDEX dead_letter_settled_idx ON dead_letter (settled_at) WHERE settled_at IS NOT NULL",
    """
    CREATE TABLE consumer_position (
        consumer text NOT NULL,
        topic text NOT NULL,
        partition integer NOT NULL,
        next_offset bigint NOT NULL,
        last_event_id uuid,
        is_lost boolean NOT NULL DEFAULT false,
        CONSTRAINT consumer_position_pkey PRIMARY KEY (consumer, topic, partition)
    ) WITH (fillfactor = 25, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0)
    """,
    """
    CREATE TABLE consumed_watermark (
        topic text CONSTRAINT consumed_watermark_pkey PRIMARY KEY,
        watermark_at timestamptz NOT NULL
    ) WITH (fillfactor = 50)
    """,
    """
    CREATE TABLE partition_layout (
        partitions integer CONSTRAINT partition_layout_pkey PRIMARY KEY,
        since timestamptz NOT NULL
    )
    """,
)


def upgrade(op: Operations) -> None:
    """Change the tables. `op` is Alembic's."""
    for statement in _STATEMENTS:
        op.execute(statement)
