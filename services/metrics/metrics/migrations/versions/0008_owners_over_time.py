"""Each lead's owners over time, and which events set a clock's breach and settlement."""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_STATEMENTS = (
    """
    CREATE TABLE assignment (
        lead_id uuid NOT NULL,
        sequence bigint NOT NULL,
        assigned_at timestamptz NOT NULL,
        owner text,
        CONSTRAINT assignment_pkey PRIMARY KEY (lead_id, sequence)
    )
    """,
    "CREATE INDEX assignment_lead_idx ON assignment (lead_id, assigned_at)",
    # Earlier owners are not known any more: until then, the present one counts for the whole past, as before.
    """
    INSERT INTO assignment (lead_id, sequence, assigned_at, owner)
    SELECT lead_id, owner_sequence, least(captured_at, first_entered_at, now()), owner FROM lead WHERE owner_sequence > 0
    """,
    "ALTER TABLE clock ADD COLUMN breach_sequence bigint NOT NULL DEFAULT 0",
    "ALTER TABLE clock ADD COLUMN settlement_sequence bigint NOT NULL DEFAULT 0",
    "UPDATE clock SET breach_sequence = sequence, settlement_sequence = sequence",
)


def upgrade() -> None:
    for statement in _STATEMENTS:
        op.execute(statement)
