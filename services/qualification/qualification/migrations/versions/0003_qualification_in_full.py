"""Qualification in full: what is kept of a lead so that it can be folded anew from its own log, and whose it is."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_HISTORY = (
    # The lead's clock with its place among the facts of one moment, its version, and when time alone may change something.
    "ALTER TABLE lead ADD COLUMN profile_at timestamptz",
    "ALTER TABLE lead ADD COLUMN clock_rank smallint",
    "ALTER TABLE lead ADD COLUMN clock_tie uuid",
    "ALTER TABLE lead ADD COLUMN entered_under integer",
    "ALTER TABLE lead ADD COLUMN ruled_by integer",
    "ALTER TABLE lead ADD COLUMN due_at timestamptz",
    "CREATE INDEX lead_due_idx ON lead (due_at) WHERE due_at IS NOT NULL",
    # Facts of the log that have no table of their own: superseded profiles, merges, versions, assignments.
    """
    CREATE TABLE lead_fact (
        lead_id uuid NOT NULL,
        placed_at timestamptz NOT NULL,
        rank smallint NOT NULL,
        tie uuid NOT NULL,
        recorded_at timestamptz NOT NULL,
        fact jsonb NOT NULL,
        CONSTRAINT lead_fact_pkey PRIMARY KEY (lead_id, placed_at, rank, tie)
    )
    """,
    "ALTER TABLE decision ADD COLUMN placed_at timestamptz",
    "ALTER TABLE stage_entry ADD COLUMN correction boolean NOT NULL DEFAULT false",
    "ALTER TABLE stage_entry ADD COLUMN withdrawn boolean NOT NULL DEFAULT false",
    "ALTER TABLE stage_entry ADD COLUMN replaces bigint",
    "ALTER TABLE stage_entry ADD COLUMN follows bigint",
    # How far leads have been judged anew by each version.
    """
    CREATE TABLE reevaluation (
        version integer CONSTRAINT reevaluation_pkey PRIMARY KEY,
        started_at timestamptz NOT NULL,
        done_at timestamptz,
        after uuid NOT NULL,
        leads bigint NOT NULL,
        looked_at bigint NOT NULL,
        judged bigint NOT NULL,
        changed bigint NOT NULL
    )
    """,
)

_ROUTING = (
    """
    CREATE TABLE routing (
        version integer CONSTRAINT routing_pkey PRIMARY KEY,
        content jsonb NOT NULL,
        content_sha256 text NOT NULL,
        written_at timestamptz NOT NULL,
        written_by text NOT NULL
    )
    """,
    # A pointer moves only with its row locked, and all of them are locked together: so counts of open leads hold until the commit.
    """
    CREATE TABLE routing_pool (
        pool text CONSTRAINT routing_pool_pkey PRIMARY KEY,
        total bigint NOT NULL,
        currents jsonb NOT NULL
    )
    """,
    # Which leads that had no owner have been looked at since a version of the document; one row.
    """
    CREATE TABLE routing_sweep (
        version integer CONSTRAINT routing_sweep_pkey PRIMARY KEY,
        after_stage text NOT NULL,
        after_lead uuid NOT NULL,
        done boolean NOT NULL
    )
    """,
    """
    CREATE TABLE assignment (
        lead_id uuid NOT NULL,
        assignment_id uuid NOT NULL,
        sequence bigint NOT NULL,
        owner text,
        previous_owner text,
        pool text,
        cause text NOT NULL,
        reason text,
        actor text,
        clause text,
        breach_id uuid,
        routing_version integer,
        why text NOT NULL,
        explanation jsonb,
        occurred_at timestamptz NOT NULL,
        recorded_at timestamptz NOT NULL,
        CONSTRAINT assignment_pkey PRIMARY KEY (lead_id, assignment_id)
    )
    """,
    "CREATE UNIQUE INDEX assignment_breach_idx ON assignment (breach_id) WHERE breach_id IS NOT NULL",
    """
    CREATE TABLE waiting_lead (
        lead_id uuid CONSTRAINT waiting_lead_pkey PRIMARY KEY,
        pool text NOT NULL,
        since timestamptz NOT NULL,
        tried_at timestamptz NOT NULL,
        routing_version integer NOT NULL,
        avoid text,
        clause text,
        breach_id uuid,
        clock_id uuid
    )
    """,
    "CREATE INDEX waiting_lead_pool_idx ON waiting_lead (pool, tried_at)",
    "CREATE INDEX waiting_lead_version_idx ON waiting_lead (routing_version)",
    "CREATE INDEX waiting_lead_clock_idx ON waiting_lead (clock_id) WHERE clock_id IS NOT NULL",
    """
    CREATE TABLE account_owner (
        account_id uuid CONSTRAINT account_owner_pkey PRIMARY KEY,
        owner text NOT NULL,
        since timestamptz NOT NULL
    )
    """,
    # Counts a person's open leads without looking at the others.
    "CREATE INDEX lead_owner_stage_idx ON lead (owner, stage, lead_id) WHERE owner IS NOT NULL",
)

_QUESTIONS = (
    # What a version would have made of the leads of a period. The content is kept, since a draft can be edited meanwhile.
    """
    CREATE TABLE what_if (
        what_if_id uuid CONSTRAINT what_if_pkey PRIMARY KEY,
        version integer NOT NULL,
        content jsonb NOT NULL,
        content_sha256 text NOT NULL,
        since timestamptz NOT NULL,
        until timestamptz NOT NULL,
        grouped_by jsonb NOT NULL,
        state text NOT NULL,
        asked_by text NOT NULL,
        asked_at timestamptz NOT NULL,
        started_at timestamptz,
        finished_at timestamptz,
        after uuid NOT NULL,
        leads bigint,
        leads_done bigint NOT NULL,
        leads_per_s double precision,
        sums jsonb,
        report jsonb,
        error text
    )
    """,
    """
    CREATE TABLE what_if_lead (
        what_if_id uuid NOT NULL,
        stage text NOT NULL,
        lead_id uuid NOT NULL,
        did_enter_at timestamptz,
        would_enter_at timestamptz,
        CONSTRAINT what_if_lead_pkey PRIMARY KEY (what_if_id, stage, lead_id)
    )
    """,
    # The feedback of sales is read by the time of its decisions.
    "CREATE INDEX decision_occurred_idx ON decision (occurred_at)",
)


def upgrade() -> None:
    for statement in (*_HISTORY, *_ROUTING, *_QUESTIONS):
        op.execute(statement)
