"""Every source, one standard of quality, one person once: what intake needs beside the first tables, by subject."""

from __future__ import annotations

from alembic import op
from alembic.operations import Operations

from accord.migrations import v0002_http

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_POLICY: tuple[str, ...] = (
    # A letter for each parameter of the policy: how the score came about.
    "ALTER TABLE submission ADD COLUMN outcomes text NOT NULL DEFAULT ''",
)
_IDENTITY: tuple[str, ...] = (
    """
    ALTER TABLE merge
        ALTER COLUMN submission_id DROP NOT NULL,
        ADD COLUMN caller text,
        ADD COLUMN reverted_at timestamptz,
        ADD COLUMN reverted_by text
    """,
    "CREATE UNIQUE INDEX merge_merge_id_idx ON merge (merge_id)",
    """
    CREATE TABLE apart (
        lead_id uuid NOT NULL,
        other_id uuid NOT NULL,
        merge_id uuid NOT NULL,
        caller text NOT NULL,
        recorded_at timestamptz NOT NULL,
        CONSTRAINT apart_pkey PRIMARY KEY (lead_id, other_id)
    )
    """,
    "ALTER TABLE identity_key ADD COLUMN source text, ADD COLUMN external_id text",
    # The ids that other systems gave were kept in the submissions alone, which are not kept for ever.
    """
    UPDATE identity_key k SET source = s.source, external_id = s.external_id
    FROM (SELECT source, btrim(content::jsonb ->> 'external_id', E' \\t\\n\\r') AS external_id FROM submission
          WHERE lead_id IS NOT NULL AND content::jsonb ? 'external_id') AS s
    WHERE k.kind = 'external' AND k.value = encode(sha256(convert_to(s.source || chr(31) || s.external_id, 'UTF8')), 'hex')
    """,
    """
    CREATE INDEX lead_account_id_idx ON lead (account_id, lead_id)
    WHERE account_id IS NOT NULL AND merged_into IS NULL
    """,
    """
    CREATE INDEX lead_last_name_idx ON lead (lower(last_name))
    WHERE last_name IS NOT NULL AND merged_into IS NULL
    """,
)
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
    CREATE TABLE hook_event (
        hook_event_id uuid CONSTRAINT hook_event_pkey PRIMARY KEY,
        source text NOT NULL,
        event_id text NOT NULL,
        act text NOT NULL,
        reference jsonb NOT NULL,
        keys text[] NOT NULL,
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
    "CREATE UNIQUE INDEX hook_event_id_idx ON hook_event (source, event_id)",
    "CREATE INDEX hook_event_due_idx ON hook_event (due_at) WHERE state = 'waiting'",
    "CREATE INDEX hook_event_state_idx ON hook_event (source, state, hook_event_id)",
    "CREATE INDEX hook_event_keys_idx ON hook_event USING gin (keys)",
)
_IMPORTS: tuple[str, ...] = (
    """
    CREATE TABLE import_job (
        import_id uuid CONSTRAINT import_job_pkey PRIMARY KEY,
        source text NOT NULL,
        caller text NOT NULL,
        state text NOT NULL,
        dry_run boolean NOT NULL,
        plan jsonb,
        bytes_received bigint NOT NULL,
        bytes_done bigint NOT NULL,
        row_number bigint NOT NULL,
        counts jsonb NOT NULL,
        quality jsonb,
        rows_per_s double precision,
        bytes_per_s double precision,
        error text,
        cancel_requested boolean NOT NULL,
        created_at timestamptz NOT NULL,
        started_at timestamptz,
        finished_at timestamptz,
        touched_at timestamptz NOT NULL
    )
    """,
    """
    CREATE INDEX import_job_open_idx ON import_job (import_id)
    WHERE state IN ('receiving', 'queued', 'running')
    """,
    # The file while it is worked on: blocks by their first byte, deleted as their rows are taken.
    """
    CREATE TABLE import_block (
        import_id uuid NOT NULL,
        first_byte bigint NOT NULL,
        content bytea NOT NULL,
        CONSTRAINT import_block_pkey PRIMARY KEY (import_id, first_byte)
    )
    """,
    # What became of each row, one database row for each transaction of them. Packing it again would cost more than it saves.
    """
    CREATE TABLE import_chunk (
        import_id uuid NOT NULL,
        first_row bigint NOT NULL,
        outcomes integer NOT NULL,
        results bytea NOT NULL,
        CONSTRAINT import_chunk_pkey PRIMARY KEY (import_id, first_row)
    )
    """,
    "ALTER TABLE import_block ALTER COLUMN content SET STORAGE EXTERNAL",
    "ALTER TABLE import_chunk ALTER COLUMN results SET STORAGE EXTERNAL",
    """
    CREATE TABLE import_failure (
        import_id uuid NOT NULL,
        row_number bigint NOT NULL,
        outcome text NOT NULL,
        error text NOT NULL,
        content text NOT NULL,
        keys text[] NOT NULL,
        CONSTRAINT import_failure_pkey PRIMARY KEY (import_id, row_number)
    )
    """,
    "CREATE INDEX import_failure_keys_idx ON import_failure USING gin (keys)",
)
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
    v0002_http.upgrade(Operations(op.get_context()))
    for statement in (*_POLICY, *_IDENTITY, *_SOURCES, *_IMPORTS, *_PRIVACY):
        op.execute(statement)
