"""Each deal's amounts over time, for the pipeline of a past moment."""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_STATEMENTS = (
    """
    CREATE TABLE opportunity_change (
        lead_id uuid NOT NULL,
        sequence bigint NOT NULL,
        occurred_at timestamptz NOT NULL,
        amount numeric,
        currency text,
        expected_close date,
        CONSTRAINT opportunity_change_pkey PRIMARY KEY (lead_id, sequence)
    )
    """,
    # Earlier amounts are not known any more: the present one counts for the whole past.
    """
    INSERT INTO opportunity_change (lead_id, sequence, occurred_at, amount, currency, expected_close)
    SELECT lead_id, opportunity.sequence, least(captured_at, first_entered_at, now()), amount, currency, expected_close
    FROM opportunity LEFT JOIN lead USING (lead_id)
    """,
)


def upgrade() -> None:
    for statement in _STATEMENTS:
        op.execute(statement)
