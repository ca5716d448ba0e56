"""Moments and dates inside JSON that lie outside the range that everything is read by are brought into it."""

from __future__ import annotations

from alembic import op
from alembic.operations import Operations

from accord.migrations import v0006_json_moments

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    made = Operations(op.get_context())
    v0006_json_moments.upgrade_lists(made, "lead", "profiles", "{captured_at}")
