"""The tables of agreements, for metadata and the test that tables equal migrations."""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    DateTime,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)


def define_tables(metadata: MetaData) -> None:
    """Add agreement_version and agreement_signature to a service's metadata."""
    moment = DateTime(timezone=True)
    Table(
        "agreement_version",
        metadata,
        Column("kind", Text, nullable=False),
        Column("version", Integer, nullable=False),
        Column("revision", Integer, nullable=False),
        Column("status", Text, nullable=False),
        Column("title", Text, nullable=False),
        Column("content", Text, nullable=False),
        Column("content_sha256", Text, nullable=False),
        Column("effective_at", moment),
        Column("drafted_by", Text, nullable=False),
        Column("drafted_at", moment, nullable=False),
        Column("edited_at", moment, nullable=False),
        Column("proposed_by", Text),
        Column("proposed_at", moment),
        Column("active_from", moment),
        Column("superseded_at", moment),
        Column("withdrawn_by", Text),
        Column("withdrawn_at", moment),
        PrimaryKeyConstraint("kind", "version", name="agreement_version_pkey"),
        CheckConstraint(
            "status IN ('draft', 'proposed', 'active', 'superseded', 'withdrawn')",
            name="agreement_version_status_check",
        ),
        Index("agreement_version_active_key", "kind", unique=True, postgresql_where=text("status = 'active'")),
    )
    Table(
        "agreement_signature",
        metadata,
        Column("kind", Text, nullable=False),
        Column("version", Integer, nullable=False),
        Column("department", Text, nullable=False),
        Column("signed_by", Text, nullable=False),
        Column("signed_at", moment, nullable=False),
        Column("content_sha256", Text, nullable=False),
        PrimaryKeyConstraint("kind", "version", "department", name="agreement_signature_pkey"),
        UniqueConstraint("kind", "version", "signed_by", name="agreement_signature_signed_by_key"),
        CheckConstraint("department IN ('marketing', 'sales')", name="agreement_signature_department_check"),
        ForeignKeyConstraint(
            ["kind", "version"],
            ["agreement_version.kind", "agreement_version.version"],
            name="agreement_signature_version_fkey",
        ),
    )


RETENTION = {
    "agreement_version": "for ever: what was judged is stamped with its number; as many as people write",
    "agreement_signature": "as long as its version; one for each department",
}
"""How long the rows of each table stay."""
