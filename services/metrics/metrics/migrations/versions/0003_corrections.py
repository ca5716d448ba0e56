"""What a correction says of other entries: which it replaces, which never was, and after which it comes."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_STATEMENTS = (
    "ALTER TABLE stage_entry ADD COLUMN replaces bigint",
    "ALTER TABLE stage_entry ADD COLUMN withdrawn boolean NOT NULL DEFAULT false",
    "ALTER TABLE stage_entry ADD COLUMN follows bigint",
)


def upgrade() -> None:
    for statement in _STATEMENTS:
        op.execute(statement)
