"""Columns and workers take the standard words of the field."""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

RENAMED = (
    ("lead", "entered_under", "entry_version"),
    ("lead", "ruled_by", "applied_version"),
    ("lead", "clock_rank", "position_rank"),
    ("lead", "clock_tie", "position_tie"),
    ("lead_fact", "placed_at", "effective_at"),
    ("decision", "placed_at", "effective_at"),
    ("reevaluation", "looked_at", "processed"),
    ("reevaluation", "judged", "evaluated"),
    ("what_if", "asked_by", "requested_by"),
    ("what_if", "asked_at", "requested_at"),
)
"""Table, column before, and now."""

_WORKERS = (
    "UPDATE stuck_row SET worker = 'fire-time-triggers' WHERE worker = 'what-time-brings'",
    "UPDATE stuck_row SET worker = 'assign-waiting-leads' WHERE worker = 'place-waiting-leads'",
)


def upgrade() -> None:
    for table, before, now in RENAMED:
        op.execute(f"ALTER TABLE {table} RENAME COLUMN {before} TO {now}")
    for statement in _WORKERS:
        op.execute(statement)
