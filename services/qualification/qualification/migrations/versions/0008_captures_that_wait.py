"""The earliest capture of a lead that waits to enter is found by an index."""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE INDEX lead_waiting_captured_idx ON lead ((profile ->> 'captured_at'))
        WHERE stage IS NULL AND profile IS NOT NULL AND merged_into IS NULL AND NOT erased
        """
    )
