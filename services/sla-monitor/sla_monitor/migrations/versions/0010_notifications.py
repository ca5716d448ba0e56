"""Subscriptions, and the deliveries of their notifications."""

from __future__ import annotations

from alembic import op
from alembic.operations import Operations

from accord.migrations import v0007_notifications

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    v0007_notifications.upgrade(Operations(op.get_context()))
