"""Moments and dates outside the range that everything is read by are brought into it."""

from __future__ import annotations

from alembic import op
from alembic.operations import Operations

from accord.migrations import v0005_moments

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    v0005_moments.upgrade(Operations(op.get_context()))
