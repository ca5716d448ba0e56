"""When the newest merge of a lead, or its end, was recorded. A merge is recorded when it happens."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_STATEMENTS = (
    "ALTER TABLE lead ADD COLUMN merge_recorded_at timestamptz",
    "UPDATE lead SET merge_recorded_at = merged_at WHERE merged_at IS NOT NULL",
)


def upgrade() -> None:
    for statement in _STATEMENTS:
        op.execute(statement)
