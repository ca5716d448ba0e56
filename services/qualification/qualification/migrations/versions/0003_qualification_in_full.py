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
)

_ROUTING: tuple[str, ...] = ()


def upgrade() -> None:
    for statement in (*_HISTORY, *_ROUTING):
        op.execute(statement)
