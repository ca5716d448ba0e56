"""Rows that raise in a worker rest, and are seen: stuck_row. Frozen: a later change is a later file."""

from __future__ import annotations

from alembic.operations import Operations

_STATEMENTS = (
    """
    CREATE TABLE stuck_row (
        worker text NOT NULL,
        key uuid NOT NULL,
        error text NOT NULL,
        failed_at timestamptz NOT NULL,
        attempts integer NOT NULL,
        retry_at timestamptz NOT NULL,
        CONSTRAINT stuck_row_pkey PRIMARY KEY (worker, key)
    )
    """,
    "CREATE INDEX stuck_row_retry_idx ON stuck_row (worker, retry_at)",
)


def upgrade(op: Operations) -> None:
    """Create the table. `op` is Alembic's."""
    for statement in _STATEMENTS:
        op.execute(statement)
