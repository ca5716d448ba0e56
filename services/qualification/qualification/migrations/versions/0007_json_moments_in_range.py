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
    v0006_json_moments.upgrade(made, "lead", "profile", "{captured_at}", "moment")
    v0006_json_moments.upgrade(made, "lead", "deal", "{expected_close}", "day")
    v0006_json_moments.upgrade(made, "lead_fact", "fact", "{state,captured_at}", "moment")
    v0006_json_moments.upgrade(made, "decision", "fields", "{expected_close}", "day")
