"""Who is told of which event, and what became of it: subscription and delivery. Frozen: a later change is a later file."""

from __future__ import annotations

from alembic.operations import Operations

_STATEMENTS = (
    """
    CREATE TABLE subscription (
        subscription_id uuid CONSTRAINT subscription_pkey PRIMARY KEY,
        name text NOT NULL CONSTRAINT subscription_name_key UNIQUE,
        channel text NOT NULL CONSTRAINT subscription_channel_check CHECK (channel IN ('webhook', 'email', 'slack', 'teams')),
        address text NOT NULL,
        secrets jsonb NOT NULL,
        event_types text[] NOT NULL,
        filter jsonb,
        quiet_hours jsonb,
        digest text,
        timezone text NOT NULL,
        person text,
        state text NOT NULL CONSTRAINT subscription_state_check CHECK (state IN ('active', 'disabled')),
        disabled_because text,
        failing_since timestamptz,
        last_failed_at timestamptz,
        version integer NOT NULL,
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL
    )
    """,
    # Rewritten with each attempt; the index of what is due has to follow anyway.
    """
    CREATE TABLE delivery (
        delivery_id uuid CONSTRAINT delivery_pkey PRIMARY KEY,
        subscription_id uuid NOT NULL,
        event_id uuid,
        event_type text NOT NULL,
        subject text,
        clock_id uuid,
        body bytea NOT NULL,
        state text NOT NULL CONSTRAINT delivery_state_check CHECK (state IN ('pending', 'delivered', 'dead', 'dropped')),
        created_at timestamptz NOT NULL,
        due_at timestamptz,
        batch text,
        merged_into uuid,
        lease uuid,
        attempted_at timestamptz,
        attempt_count integer NOT NULL DEFAULT 0,
        uncertain_count integer NOT NULL DEFAULT 0,
        attempts jsonb NOT NULL DEFAULT '[]',
        error text,
        moot text,
        settled_at timestamptz
    )
    """,
    "CREATE INDEX delivery_due_idx ON delivery (subscription_id, due_at) WHERE state = 'pending'",
    "CREATE INDEX delivery_created_idx ON delivery (created_at, delivery_id)",
    "CREATE INDEX delivery_state_idx ON delivery (state, created_at, delivery_id)",
    "CREATE INDEX delivery_subscription_idx ON delivery (subscription_id, created_at, delivery_id)",
    "CREATE INDEX delivery_clock_idx ON delivery (clock_id) WHERE state = 'pending' AND clock_id IS NOT NULL",
    "CREATE INDEX delivery_merged_idx ON delivery (merged_into) WHERE merged_into IS NOT NULL",
)


def upgrade(op: Operations) -> None:
    """Create the tables. `op` is Alembic's."""
    for statement in _STATEMENTS:
        op.execute(statement)
