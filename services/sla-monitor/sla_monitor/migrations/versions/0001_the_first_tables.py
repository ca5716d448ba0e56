"""The first tables: leads, what happened with them, clocks, and triggers that wait. Frozen: a later change is a later file."""

from alembic import op

from accord.migrations import v0001, v0001_agreements, v0001_http

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_STATEMENTS = (
    # Rewritten with nearly every event and indexed by its key alone: room in the page keeps that heap-only.
    """
    CREATE TABLE lead (
        lead_id uuid CONSTRAINT lead_pkey PRIMARY KEY,
        profiles jsonb NOT NULL DEFAULT '[]',
        standings jsonb NOT NULL DEFAULT '[]',
        source text,
        owner text,
        owner_sequence bigint NOT NULL DEFAULT 0,
        merged_into uuid,
        merged_at timestamptz,
        erased_at timestamptz
    ) WITH (fillfactor = 70)
    """,
    """
    CREATE TABLE fact (
        lead_id uuid NOT NULL,
        occurred_at timestamptz NOT NULL,
        key text NOT NULL,
        kind text NOT NULL,
        name text NOT NULL,
        recorded_at timestamptz NOT NULL,
        sequence bigint NOT NULL,
        by text,
        stage_kind text,
        cause uuid,
        CONSTRAINT fact_pkey PRIMARY KEY (lead_id, occurred_at, key)
    )
    """,
    "CREATE INDEX fact_recorded_idx ON fact (recorded_at)",
    "CREATE INDEX fact_moves_idx ON fact (lead_id, occurred_at) WHERE kind <> 'activity'",
    """
    CREATE TABLE waiting (
        lead_id uuid NOT NULL,
        clause text NOT NULL,
        trigger_key text NOT NULL,
        recorded_at timestamptz NOT NULL,
        started_at timestamptz NOT NULL,
        sla_version integer NOT NULL,
        judged_of jsonb NOT NULL,
        CONSTRAINT waiting_pkey PRIMARY KEY (lead_id, clause, trigger_key)
    )
    """,
    "CREATE INDEX waiting_recorded_idx ON waiting (recorded_at)",
    """
    CREATE TABLE clock (
        lead_id uuid NOT NULL,
        clock_id uuid NOT NULL,
        clause text NOT NULL,
        obliges text NOT NULL,
        sla_version integer NOT NULL,
        trigger_kind text NOT NULL,
        trigger_key text NOT NULL,
        trigger_sequence bigint NOT NULL,
        trigger_recorded_at timestamptz NOT NULL,
        trigger_stage_kind text,
        trigger_cause uuid,
        started_at timestamptz NOT NULL,
        due_at timestamptz NOT NULL,
        warnings jsonb NOT NULL,
        backfill boolean NOT NULL,
        owner text,
        source text,
        state text NOT NULL
            CONSTRAINT clock_state_check CHECK (state IN ('running', 'met', 'breached', 'met_late', 'cancelled')),
        answered_at timestamptz,
        ended_at timestamptz,
        ended_sequence bigint,
        ended_why text,
        breach_id uuid,
        breached_at timestamptz,
        withdrawn_at timestamptz,
        said integer NOT NULL,
        next_at timestamptz,
        CONSTRAINT clock_pkey PRIMARY KEY (lead_id, clock_id),
        CONSTRAINT clock_trigger_key UNIQUE (lead_id, clause, trigger_key),
        CONSTRAINT clock_next_check CHECK ((state = 'running') = (next_at IS NOT NULL))
    ) WITH (fillfactor = 85)
    """,
    "CREATE INDEX clock_next_idx ON clock (next_at) WHERE state = 'running'",
    "CREATE INDEX clock_due_idx ON clock (due_at, clock_id)",
    "CREATE INDEX clock_clause_idx ON clock (clause, due_at, clock_id)",
    "CREATE INDEX clock_owner_idx ON clock (owner, due_at, clock_id) WHERE owner IS NOT NULL",
    "CREATE INDEX clock_breach_idx ON clock (due_at, clock_id) WHERE breach_id IS NOT NULL",
)


def upgrade() -> None:
    """Create the shared tables and those of the SLA monitor."""
    v0001.upgrade(op)  # type: ignore[arg-type]  # the module op stands for its Operations
    v0001_agreements.upgrade(op)  # type: ignore[arg-type]  # the module op stands for its Operations
    v0001_http.upgrade(op)  # type: ignore[arg-type]  # the module op stands for its Operations
    for statement in _STATEMENTS:
        op.execute(statement)
