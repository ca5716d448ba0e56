"""The first tables of agreements: agreement_version and agreement_signature. Frozen: a later change is a later file.

The content is kept as the canonical text that was hashed, not as jsonb, which would not give the same bytes back.
"""

from __future__ import annotations

from alembic.operations import Operations

_STATEMENTS = (
    """
    CREATE TABLE agreement_version (
        kind text NOT NULL,
        version integer NOT NULL,
        revision integer NOT NULL,
        status text NOT NULL
            CONSTRAINT agreement_version_status_check
            CHECK (status IN ('draft', 'proposed', 'active', 'superseded', 'withdrawn')),
        title text NOT NULL,
        content text NOT NULL,
        content_sha256 text NOT NULL,
        effective_at timestamptz,
        drafted_by text NOT NULL,
        drafted_at timestamptz NOT NULL,
        edited_at timestamptz NOT NULL,
        proposed_by text,
        proposed_at timestamptz,
        active_from timestamptz,
        superseded_at timestamptz,
        withdrawn_by text,
        withdrawn_at timestamptz,
        CONSTRAINT agreement_version_pkey PRIMARY KEY (kind, version)
    )
    """,
    "CREATE UNIQUE INDEX agreement_version_active_key ON agreement_version (kind) WHERE status = 'active'",
    """
    CREATE TABLE agreement_signature (
        kind text NOT NULL,
        version integer NOT NULL,
        department text NOT NULL
            CONSTRAINT agreement_signature_department_check CHECK (department IN ('marketing', 'sales')),
        signed_by text NOT NULL,
        signed_at timestamptz NOT NULL,
        content_sha256 text NOT NULL,
        CONSTRAINT agreement_signature_pkey PRIMARY KEY (kind, version, department),
        CONSTRAINT agreement_signature_signed_by_key UNIQUE (kind, version, signed_by),
        CONSTRAINT agreement_signature_version_fkey FOREIGN KEY (kind, version) REFERENCES agreement_version (kind, version)
    )
    """,
)


def upgrade(op: Operations) -> None:
    """Create the tables. `op` is Alembic's."""
    for statement in _STATEMENTS:
        op.execute(statement)
