"""Fetches wait by source, so that one slow tool's are never in the way of other events."""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE INDEX hook_event_work_idx ON hook_event (due_at) WHERE state = 'waiting' AND action <> 'fetch'")
    op.execute(
        "CREATE INDEX hook_event_fetch_idx ON hook_event (source, due_at) WHERE state = 'waiting' AND action = 'fetch'"
    )
    op.execute("DROP INDEX hook_event_due_idx")
