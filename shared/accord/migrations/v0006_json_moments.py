"""Brings moments and dates that stand inside JSON into the range that everything is read by now (ADR 72), as v0005_moments does with
columns. Frozen: a later change is a later file.

A service names its places, since what people have written into attributes is not for us to change.
"""

from __future__ import annotations

from typing import Literal

from alembic.operations import Operations

_ENDS = {
    "moment": ("1970-01-01T00:00:00+00:00", "2199-12-31T23:59:59.999999+00:00"),
    "day": ("1970-01-01", "2199-12-31"),
}

# ISO 8601 with four digits of a year, so its order as text is that of time. jsonb_set leaves alone what has no such place.
_STATEMENT = """
UPDATE {table}
SET {column} = jsonb_set({column}::jsonb, '{path}', to_jsonb(CASE WHEN {value} < '1970' THEN '{first}' ELSE '{last}' END))::{type}
WHERE {value} < '1970' OR {value} >= '2200'
"""

_LIST_STATEMENT = """
UPDATE {table}
SET {column} = (
    SELECT jsonb_agg(
        CASE WHEN {value} < '1970' THEN jsonb_set(item, '{path}', to_jsonb('{first}'::text))
             WHEN {value} >= '2200' THEN jsonb_set(item, '{path}', to_jsonb('{last}'::text)) ELSE item END
        ORDER BY place
    ) FROM jsonb_array_elements({column}) WITH ORDINALITY AS items (item, place)
)
WHERE EXISTS (SELECT FROM jsonb_array_elements({column}) AS items (item) WHERE {value} < '1970' OR {value} >= '2200')
"""


def upgrade(
    op: Operations, table: str, column: str, path: str, kind: Literal["moment", "day"], *, type_: str = "jsonb"
) -> None:
    """Change what stands at a path such as `{state,captured_at}`. `op` is Alembic's."""
    first, last = _ENDS[kind]
    value = f"""({column}::jsonb #>> '{path}' COLLATE "C")"""
    op.execute(
        _STATEMENT.format(table=table, column=column, path=path, value=value, first=first, last=last, type=type_)
    )


def upgrade_lists(op: Operations, table: str, column: str, path: str) -> None:
    """Change moments at a path of each member of a list. `op` is Alembic's."""
    first, last = _ENDS["moment"]
    value = f"""(item #>> '{path}' COLLATE "C")"""
    op.execute(_LIST_STATEMENT.format(table=table, column=column, path=path, value=value, first=first, last=last))
