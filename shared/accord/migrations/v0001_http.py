"""The first table of the HTTP kit: idempotency_key. Frozen: a later change is a later file. Called by each service's first migration."""

from __future__ import annotations

from alembic.operations import Operations

_STATEMENTS = (
    """
    CREATE TABLE idempotency_key (
        caller text NOT NULL,
        key_name text NOT NULL,
        request_sha256 bytea NOT NULL,
        status smallint,
        headers json,
        body bytea,
        created_at timestamptz NOT NULL,
        CONSTRAINT idempotency_key_pkey PRIMARY KEY (caller, key_name)
    )
    """,
    "CREATE INDEX idempotency_key_created_at_idx ON idempotency_key (created_at)",
)


def upgrade(op: Operations) -> None:
    """Create the table. `op` is Alembic's."""
    for statement in _STATEMENTS:
        op.execute(statement)
