"""What a source has last said of each record in a file."""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_STATEMENTS = (
    """
    CREATE TABLE import_record (
        record_key text NOT NULL,
        source text NOT NULL,
        import_id uuid NOT NULL,
        digest bytea NOT NULL,
        policy_version integer,
        verdict text NOT NULL,
        CONSTRAINT import_record_pkey PRIMARY KEY (record_key, source)
    )
    """,
    "CREATE INDEX import_record_import_id_idx ON import_record (import_id)",
)


def upgrade() -> None:
    for statement in _STATEMENTS:
        op.execute(statement)
