"""Rows that raise in a worker rest, and are seen."""

from __future__ import annotations

from alembic import op
from alembic.operations import Operations

from accord.migrations import v0004_isolation

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    v0004_isolation.upgrade(Operations(op.get_context()))
