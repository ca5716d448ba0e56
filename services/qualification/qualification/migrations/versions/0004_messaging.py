"""Messaging keeps its positions in the database; announcements take the place of watermarks in partitions."""

from __future__ import annotations

from alembic import op
from alembic.operations import Operations

from accord.migrations import v0003_messaging

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    v0003_messaging.upgrade(Operations(op.get_context()))
