"""Columns take the standard words of the field."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_STATEMENTS = (
    "ALTER TABLE lead RENAME COLUMN out_of_order TO is_out_of_order",
    "ALTER TABLE clock RENAME COLUMN warned TO warned_fraction",
)


def upgrade() -> None:
    for statement in _STATEMENTS:
        op.execute(statement)
