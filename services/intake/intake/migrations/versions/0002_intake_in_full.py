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
_PRIVACY: tuple[str, ...] = (
    "ALTER TABLE submission ALTER COLUMN content DROP NOT NULL",
    """
    ALTER TABLE submission
        ADD COLUMN form text,
        ADD COLUMN keys text[],
        ADD COLUMN settled text,
        ADD COLUMN settled_at timestamptz
    """,
    "CREATE INDEX submission_keys_idx ON submission USING gin (keys) WHERE keys IS NOT NULL",
    """
    CREATE INDEX submission_waiting_idx ON submission (submission_id)
    WHERE verdict = 'quarantined' AND settled IS NULL
    """,
    """
    CREATE INDEX submission_waiting_source_idx ON submission (source, submission_id)
    WHERE verdict = 'quarantined' AND settled IS NULL
    """,
    """
    CREATE TABLE quarantine_decision (
        submission_id uuid NOT NULL,
        decision_id uuid NOT NULL,
        action text NOT NULL,
        caller text NOT NULL,
        note text,
        fields jsonb,
        lead_id uuid,
        verdict text,
        quality_score double precision,
        policy_version integer,
        failed jsonb NOT NULL,
        recorded_at timestamptz NOT NULL,
        CONSTRAINT quarantine_decision_pkey PRIMARY KEY (submission_id, decision_id)
    )
    """,
    """
    CREATE TABLE consent (
        lead_id uuid NOT NULL,
        consent_id uuid NOT NULL,
        submission_id uuid,
        source text,
        caller text NOT NULL,
        basis text NOT NULL,
        text text,
        given_at timestamptz NOT NULL,
        recorded_at timestamptz NOT NULL,
        CONSTRAINT consent_pkey PRIMARY KEY (lead_id, consent_id)
    )
    """,
    """
    CREATE TABLE external_name (
        lead_id uuid NOT NULL,
        source text NOT NULL,
        external_id text NOT NULL,
        CONSTRAINT external_name_pkey PRIMARY KEY (lead_id, source, external_id)
    )
    """,
    """
    CREATE TABLE erasure (
        erasure_id uuid CONSTRAINT erasure_pkey PRIMARY KEY,
        lead_ids uuid[] NOT NULL,
        reason text NOT NULL,
        caller text NOT NULL,
        policy_version integer,
        removed jsonb NOT NULL,
        recorded_at timestamptz NOT NULL
    )
    """,
    """
    CREATE TABLE erased_id (
        id uuid CONSTRAINT erased_id_pkey PRIMARY KEY,
        what text NOT NULL,
        erasure_id uuid NOT NULL
    )
    """,
    """
    CREATE TABLE retention (
        what text CONSTRAINT retention_pkey PRIMARY KEY,
        dropped_to uuid NOT NULL,
        recorded_at timestamptz NOT NULL
    )
    """,
)


def upgrade() -> None:
    for statement in (*_POLICY, *_IDENTITY, *_SOURCES, *_IMPORTS, *_PRIVACY):
        op.execute(statement)
