"""Tables, columns and stored words take the standard words of the field."""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_STATEMENTS = (
    "ALTER TABLE lead RENAME COLUMN standings TO qualification_states",
    "ALTER TABLE clock RENAME COLUMN said TO event_count",
    "ALTER TABLE waiting RENAME TO pending_trigger",
    "ALTER TABLE pending_trigger RENAME COLUMN judged_of TO inputs",
    "ALTER TABLE pending_trigger RENAME CONSTRAINT waiting_pkey TO pending_trigger_pkey",
    "ALTER INDEX waiting_recorded_idx RENAME TO pending_trigger_recorded_idx",
    "ALTER INDEX fact_moves_idx RENAME TO fact_not_activity_idx",
    """
    UPDATE pending_trigger
    SET inputs = inputs - 'standing' || jsonb_build_object('qualification_state', inputs -> 'standing')
    WHERE inputs ? 'standing'
    """,
    """
    UPDATE clock SET ended_why = 'the merge that had added it was reverted'
    WHERE ended_why = 'the merge that had brought it was taken back'
    """,
    "UPDATE stuck_row SET worker = 'evaluate-triggers' WHERE worker = 'judge-triggers'",
)


def upgrade() -> None:
    for statement in _STATEMENTS:
        op.execute(statement)
