"""Every source, one standard of quality, one person once: what intake needs beside the first tables, by subject."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_POLICY: tuple[str, ...] = ()
_IDENTITY: tuple[str, ...] = ()
_SOURCES: tuple[str, ...] = (
    """
    CREATE TABLE source (
        name text CONSTRAINT source_pkey PRIMARY KEY,
        adapter text,
        settings jsonb NOT NULL,
        mapping jsonb NOT NULL,
        defaults jsonb NOT NULL,
        secrets jsonb NOT NULL,
        version integer NOT NULL,
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL
    )
    """,
    """
    CREATE TABLE hook_fetch (
        fetch_id uuid CONSTRAINT hook_fetch_pkey PRIMARY KEY,
        source text NOT NULL,
        event_id text NOT NULL,
        act text NOT NULL,
        reference jsonb NOT NULL,
        external_key text,
        content text NOT NULL,
        state text NOT NULL,
        attempts integer NOT NULL,
        due_at timestamptz NOT NULL,
        error text,
        lead_id uuid,
        occurred_at timestamptz NOT NULL,
        recorded_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL
    )
    """,
    "CREATE UNIQUE INDEX hook_fetch_event_idx ON hook_fetch (source, event_id)",
    "CREATE INDEX hook_fetch_due_idx ON hook_fetch (due_at) WHERE state = 'waiting'",
    "CREATE INDEX hook_fetch_state_idx ON hook_fetch (source, state, fetch_id)",
    "CREATE INDEX hook_fetch_external_key_idx ON hook_fetch (external_key) WHERE external_key IS NOT NULL",
)
_IMPORTS: tuple[str, ...] = ()
_PRIVACY: tuple[str, ...] = ()


def upgrade() -> None:
    for statement in (*_POLICY, *_IDENTITY, *_SOURCES, *_IMPORTS, *_PRIVACY):
        op.execute(statement)
