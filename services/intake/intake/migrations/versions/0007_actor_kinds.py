"""Activities say whether a person, a tool or an agent acted."""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE activity ADD COLUMN actor_kind text")
