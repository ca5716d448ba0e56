"""What was added to the shared tables: saved answers know whom they speak of."""

from __future__ import annotations

from alembic import op
from alembic.operations import Operations

from accord.migrations import v0002_http

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    v0002_http.upgrade(Operations(op.get_context()))
