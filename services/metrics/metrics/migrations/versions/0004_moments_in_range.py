"""Moments and dates outside the range that everything is read by are brought into it."""

from __future__ import annotations

from alembic import op
from alembic.operations import Operations

from accord.migrations import v0003_moments

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    v0003_moments.upgrade(Operations(op.get_context()))
