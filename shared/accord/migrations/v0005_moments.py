"""Brings moments and dates that no business could mean into the range that everything is read by now (ADR 72). Frozen: a later change
is a later file.

Such rows could be written before, and each made the lists and workers that met it fail. It reads each table once.
"""

from __future__ import annotations

from alembic.operations import Operations

_FIRST, _LAST = "1970-01-01", "2199-12-31"

_STATEMENT = f"""
DO $$
DECLARE
    part record;
BEGIN
    FOR part IN
        SELECT c.oid::regclass AS name,
               string_agg(format('%1$I = CASE WHEN %1$I < %2$L THEN %2$L WHEN %1$I > %3$L THEN %3$L ELSE %1$I END',
                                 a.attname, range.first, range.last), ', ') AS changes,
               string_agg(format('%1$I < %2$L OR %1$I > %3$L', a.attname, range.first, range.last), ' OR ') AS outside
        FROM pg_class c
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
        JOIN (VALUES ('timestamptz'::regtype, '{_FIRST} 00:00:00+00', '{_LAST} 23:59:59.999999+00'),
                     ('date'::regtype, '{_FIRST}', '{_LAST}')) AS range (type, first, last) ON a.atttypid = range.type
        WHERE c.relkind = 'r' AND c.relnamespace = current_schema()::text::regnamespace
        GROUP BY c.oid
    LOOP
        EXECUTE format('UPDATE %s SET %s WHERE %s', part.name, part.changes, part.outside);
    END LOOP;
END
$$
"""  # noqa: S608 - constants of ours


def upgrade(op: Operations) -> None:
    """Change the rows. `op` is Alembic's."""
    op.execute(_STATEMENT)
