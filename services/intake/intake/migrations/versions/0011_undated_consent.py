"""Consent that nobody dated is told apart, since it lifts no withdrawal."""

from __future__ import annotations

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE consent ADD COLUMN dated boolean NOT NULL DEFAULT true")
