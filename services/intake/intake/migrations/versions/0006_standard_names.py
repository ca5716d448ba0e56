"""Tables, columns and stored keys by the names that the code uses."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_STATEMENTS = (
    "ALTER TABLE lead RENAME COLUMN held TO pending",
    "ALTER TABLE lead RENAME COLUMN stamps TO field_timestamps",
    "ALTER TABLE apart RENAME TO do_not_merge",
    "ALTER TABLE do_not_merge RENAME CONSTRAINT apart_pkey TO do_not_merge_pkey",
    "ALTER TABLE submission RENAME COLUMN form TO canonical",
    "ALTER TABLE hook_event RENAME COLUMN act TO action",
    "ALTER TABLE import_job RENAME COLUMN touched_at TO updated_at",
    "ALTER TABLE erased_id RENAME COLUMN what TO kind",
    "ALTER TABLE retention RENAME COLUMN what TO kind",
    """
    UPDATE merge SET survivor_before = survivor_before - 'stamps' || jsonb_build_object('field_timestamps', survivor_before -> 'stamps')
    WHERE survivor_before ? 'stamps'
    """,
    """
    UPDATE import_job
    SET plan = plan - '{kept_as,encoding_said,marked}'::text[] || jsonb_build_object(
        'stored_encoding', plan -> 'kept_as', 'encoding_declared', plan -> 'encoding_said', 'is_error_file', plan -> 'marked')
    WHERE plan IS NOT NULL
    """,
    """
    UPDATE import_job SET plan = jsonb_set(plan, '{mapping_from}', '"submissions"') WHERE plan ->> 'mapping_from' = 'form'
    """,
    "UPDATE quarantine_decision SET action = 'requarantined' WHERE action = 'kept'",
)


def upgrade() -> None:
    for statement in _STATEMENTS:
        op.execute(statement)
