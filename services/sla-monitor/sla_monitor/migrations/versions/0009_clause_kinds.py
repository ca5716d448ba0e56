"""Clocks of all kinds of clauses: steps, several answers, pauses, acknowledged breaches; assignments are facts."""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_STATEMENTS = (
    "ALTER TABLE fact ADD COLUMN actor_kind text",
    """
    ALTER TABLE clock
        ADD COLUMN count integer,
        ADD COLUMN progress jsonb,
        ADD COLUMN actor_kind text,
        ADD COLUMN ended_key text,
        ADD COLUMN severity text,
        ADD COLUMN breach_due_at timestamptz,
        ADD COLUMN acknowledged_at timestamptz,
        ADD COLUMN acknowledged_by text,
        ADD COLUMN acknowledged_note text
    """,
    """
    UPDATE clock SET
        count = 1,
        breach_due_at = CASE WHEN breach_id IS NOT NULL THEN due_at END,
        progress = jsonb_build_array(
            warnings,
            '[]'::jsonb,
            CASE WHEN answered_at IS NULL THEN '[]'::jsonb
                ELSE jsonb_build_array(jsonb_build_array(to_jsonb(answered_at AT TIME ZONE 'UTC') #>> '{}' || 'Z', '', NULL))
            END,
            '[]'::jsonb,
            NULL
        )
    """,
    "ALTER TABLE clock ALTER COLUMN count SET NOT NULL, ALTER COLUMN progress SET NOT NULL, DROP COLUMN warnings",
    "ALTER TABLE clock DROP CONSTRAINT clock_state_check, DROP CONSTRAINT clock_next_check",
    """
    ALTER TABLE clock
        ADD CONSTRAINT clock_state_check
            CHECK (state IN ('running', 'paused', 'met', 'breached', 'met_late', 'cancelled')),
        ADD CONSTRAINT clock_next_check CHECK (state <> 'running' OR next_at IS NOT NULL)
    """,
    "DROP INDEX clock_next_idx",
    "CREATE INDEX clock_next_idx ON clock (next_at) WHERE next_at IS NOT NULL",
    "CREATE INDEX clock_breach_id_idx ON clock (breach_id) WHERE breach_id IS NOT NULL",
    """
    CREATE TABLE period_entry (
        lead_id uuid NOT NULL,
        clause text NOT NULL,
        sla_version integer NOT NULL,
        key text NOT NULL,
        occurred_at timestamptz NOT NULL,
        is_of boolean NOT NULL,
        is_over boolean NOT NULL,
        CONSTRAINT period_entry_pkey PRIMARY KEY (lead_id, clause, sla_version, key)
    )
    """,
    "CREATE INDEX period_entry_occurred_idx ON period_entry (clause, sla_version, occurred_at)",
)


def upgrade() -> None:
    for statement in _STATEMENTS:
        op.execute(statement)
