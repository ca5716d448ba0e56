"""The shared tables of accord, and the first projections: leads, stage entries, activities, clocks, deals,
definitions."""

from __future__ import annotations

from alembic import op
from alembic.operations import Operations

from accord.migrations import v0001, v0001_agreements, v0001_http

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_STATEMENTS = (
    """
    CREATE TABLE lead (
        lead_id uuid CONSTRAINT lead_pkey PRIMARY KEY,
        source text,
        captured_at timestamptz,
        account_id uuid,
        attributes jsonb NOT NULL DEFAULT '{}',
        campaign text,
        owner text,
        merged_into uuid,
        erased boolean NOT NULL DEFAULT false,
        intake_sequence bigint NOT NULL DEFAULT 0,
        state_recorded_at timestamptz,
        merge_recorded_at timestamptz,
        owner_sequence bigint NOT NULL DEFAULT 0,
        path jsonb NOT NULL DEFAULT '[]',
        first_entered_at timestamptz,
        out_of_order boolean NOT NULL DEFAULT false
    )
    """,
    "CREATE INDEX lead_captured_at_idx ON lead (captured_at)",
    "CREATE INDEX lead_merged_into_idx ON lead (merged_into) WHERE merged_into IS NOT NULL",
    """
    CREATE TABLE stage_entry (
        lead_id uuid NOT NULL,
        sequence bigint NOT NULL,
        stage text NOT NULL,
        stage_kind text NOT NULL,
        stage_rank integer NOT NULL,
        visit integer NOT NULL,
        entered_at timestamptz NOT NULL,
        correction boolean NOT NULL,
        cause text NOT NULL,
        decision text,
        reason text,
        actor text,
        definition_version integer NOT NULL,
        recorded_at timestamptz NOT NULL,
        position integer,
        exited_at timestamptz,
        next_stage text,
        duration_us bigint,
        is_first boolean NOT NULL,
        is_last boolean NOT NULL,
        CONSTRAINT stage_entry_pkey PRIMARY KEY (lead_id, sequence),
        CONSTRAINT stage_entry_exit_check
            CHECK ((exited_at IS NULL) = (next_stage IS NULL) AND (exited_at IS NULL) = (duration_us IS NULL)),
        CONSTRAINT stage_entry_position_check CHECK (position IS NOT NULL OR NOT (is_first OR is_last))
    )
    """,
    "CREATE INDEX stage_entry_stage_idx ON stage_entry (stage, entered_at) WHERE position IS NOT NULL",
    "CREATE INDEX stage_entry_entered_at_idx ON stage_entry (entered_at) WHERE position IS NOT NULL",
    """
    CREATE TABLE activity (
        lead_id uuid NOT NULL,
        occurred_at timestamptz NOT NULL,
        activity_id uuid NOT NULL,
        kind text NOT NULL,
        by text NOT NULL,
        actor text,
        source text,
        campaign text,
        CONSTRAINT activity_pkey PRIMARY KEY (lead_id, occurred_at, activity_id)
    )
    """,
    """
    CREATE TABLE clock (
        clock_id uuid CONSTRAINT clock_pkey PRIMARY KEY,
        lead_id uuid,
        clause text NOT NULL,
        obliges text NOT NULL,
        sla_version integer NOT NULL,
        owner text,
        source text,
        started_at timestamptz NOT NULL,
        due_at timestamptz NOT NULL,
        state text NOT NULL,
        warned double precision,
        breached_at timestamptz,
        settled_at timestamptz,
        backfill boolean NOT NULL,
        sequence bigint NOT NULL
    )
    """,
    "CREATE INDEX clock_lead_idx ON clock (lead_id, started_at) WHERE lead_id IS NOT NULL",
    """
    CREATE TABLE opportunity (
        lead_id uuid CONSTRAINT opportunity_pkey PRIMARY KEY,
        stage text NOT NULL,
        amount numeric,
        currency text,
        expected_close date,
        sequence bigint NOT NULL
    )
    """,
    """
    CREATE TABLE definition_version (
        version integer CONSTRAINT definition_version_pkey PRIMARY KEY,
        effective_from timestamptz NOT NULL,
        content jsonb NOT NULL
    )
    """,
)


def upgrade() -> None:
    """Create the tables."""
    operations = Operations(op.get_context())
    for shared in (v0001, v0001_agreements, v0001_http):
        shared.upgrade(operations)
    for statement in _STATEMENTS:
        op.execute(statement)
