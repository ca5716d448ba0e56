"""Saved answers know the thing that they speak of, so that they can be erased with it. Frozen: a later change is a later file."""

from __future__ import annotations

from alembic.operations import Operations

_STATEMENTS = (
    "ALTER TABLE idempotency_key ADD COLUMN subject uuid",
    "CREATE INDEX idempotency_key_subject_idx ON idempotency_key (subject) WHERE subject IS NOT NULL",
)


def upgrade(op: Operations) -> None:
    """Add the column. `op` is Alembic's."""
    for statement in _STATEMENTS:
        op.execute(statement)
