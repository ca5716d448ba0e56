"""The first shared tables: outbox, inbox, dead_letter and watermark. Frozen: a later change is a later file.

Called by each service's first migration, beside v0001_agreements and v0001_http. It makes no table of a service.
"""

from __future__ import annotations

from alembic.operations import Operations

_STATEMENTS = (
    # Published rows are deleted at once, so the table is small and turns over completely all the time. Vacuum by an
    # absolute number of dead rows and without a pause, or the index scan in id order would wade through them.
    """
    CREATE TABLE outbox (
        id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT outbox_pkey PRIMARY KEY,
        event_id uuid NOT NULL,
        type text NOT NULL,
        key text NOT NULL,
        occurred_at timestamptz NOT NULL,
        recorded_at timestamptz NOT NULL,
        traceparent text,
        payload bytea NOT NULL
    ) WITH (
        autovacuum_vacuum_threshold = 5000,
        autovacuum_vacuum_scale_factor = 0,
        autovacuum_vacuum_insert_threshold = -1,
        autovacuum_vacuum_cost_delay = 0,
        autovacuum_analyze_threshold = 100000
    )
    """,
    "CREATE INDEX outbox_recorded_at_idx ON outbox (recorded_at)",
    """
    CREATE TABLE inbox (
        event_id uuid NOT NULL,
        consumer text NOT NULL,
        received_at timestamptz NOT NULL,
        CONSTRAINT inbox_pkey PRIMARY KEY (event_id, consumer)
    )
    """,
    """
    CREATE TABLE dead_letter (
        id uuid CONSTRAINT dead_letter_pkey PRIMARY KEY,
        consumer text NOT NULL,
        topic text NOT NULL,
        partition integer NOT NULL,
        "offset" bigint NOT NULL,
        event_id uuid,
        type text,
        key text,
        value bytea,
        headers json NOT NULL,
        error text NOT NULL,
        failed_at timestamptz NOT NULL,
        state text NOT NULL DEFAULT 'new'
            CONSTRAINT dead_letter_state_check CHECK (state IN ('new', 'replayed', 'discarded')),
        settled_at timestamptz,
        CONSTRAINT dead_letter_place_key UNIQUE (consumer, topic, partition, "offset"),
        CONSTRAINT dead_letter_event_key UNIQUE (consumer, event_id)
    )
    """,
    "CREATE INDEX dead_letter_new_idx ON dead_letter (id) WHERE state = 'new'",
    """
    CREATE TABLE watermark (
        consumer text NOT NULL,
        topic text NOT NULL,
        partition integer NOT NULL,
        watermark_at timestamptz,
        CONSTRAINT watermark_pkey PRIMARY KEY (consumer, topic, partition)
    ) WITH (fillfactor = 50)
    """,
)


def upgrade(op: Operations) -> None:
    """Create the tables. `op` is Alembic's."""
    for statement in _STATEMENTS:
        op.execute(statement)
