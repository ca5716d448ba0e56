"""Statements that write many rows at once, made from Table objects when a module is imported.

Each column is one array parameter, and `unnest` makes rows of them. JSON goes as text, and an array as its literal, since
arrays of several lengths cannot be elements of an array.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import asyncpg
from sqlalchemy import ARRAY, JSON, Column, Table
from sqlalchemy.dialects import postgresql

_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]
_QUOTE = _DIALECT.identifier_preparer.quote


class BulkStatement:
    """One statement for any number of rows. `columns` are the names that each row must have."""

    def __init__(self, text: str, columns: Mapping[str, Column[object]]) -> None:
        self.text = text
        self.columns = tuple(columns)
        self._arrays = [isinstance(column.type, ARRAY) for column in columns.values()]

    async def execute(self, connection: asyncpg.Connection, rows: Collection[Mapping[str, object]]) -> int:
        """Write these rows, each given by name; how many rows of the table were written. No rows, no statement."""
        if not rows:
            return 0
        status = await connection.execute(self.text, *self._parameters(rows))
        return int(status.rpartition(" ")[2])

    async def fetch(
        self, connection: asyncpg.Connection, rows: Collection[Mapping[str, object]]
    ) -> list[asyncpg.Record]:
        """Write these rows; what RETURNING says of those that were written."""
        if not rows:
            return []
        returned: list[asyncpg.Record] = await connection.fetch(self.text, *self._parameters(rows))
        return returned

    def _parameters(self, rows: Collection[Mapping[str, object]]) -> list[list[object]]:
        return [
            [_array_literal(row[name]) for row in rows] if is_array else [row[name] for row in rows]
            for name, is_array in zip(self.columns, self._arrays, strict=True)
        ]


def insert(
    table: Table, columns: Iterable[str] | None = None, *, on_conflict: str = "", returning: Iterable[str] = ()
) -> BulkStatement:
    """INSERT in the order of the rows, by default of all columns.

    `on_conflict` is what follows ON CONFLICT, such as `DO NOTHING`; `returning` are the columns that `fetch` gives.
    """
    chosen = {name: table.c[name] for name in (table.c.keys() if columns is None else columns)}
    names = _list(chosen)
    conflict = f" ON CONFLICT {on_conflict}" if on_conflict else ""
    returned = f" RETURNING {_list(returning)}" if returning else ""
    return BulkStatement(f"INSERT INTO {_QUOTE(table.name)} ({names}) {_select(chosen)}{conflict}{returned}", chosen)


def upsert(
    table: Table,
    columns: Iterable[str],
    *,
    key: Sequence[str],
    changing: Iterable[str],
    unless_null: Iterable[str] = (),
    where: str = "",
) -> BulkStatement:
    """INSERT, or UPDATE of the columns `changing` where a row with this key exists, and of those `unless_null` where the new value is
    not NULL. In `where` the stored row goes by the table's name, and the new one by `excluded`."""
    name_of = _QUOTE(table.name)
    changes = ", ".join(
        [
            *(f"{_QUOTE(name)} = excluded.{_QUOTE(name)}" for name in changing),
            *(f"{_QUOTE(name)} = coalesce(excluded.{_QUOTE(name)}, {name_of}.{_QUOTE(name)})" for name in unless_null),
        ]
    )
    condition = f" WHERE {where}" if where else ""
    return insert(table, columns, on_conflict=f"({_list(key)}) DO UPDATE SET {changes}{condition}")


def update(
    table: Table,
    key: Sequence[str],
    columns: Sequence[str],
    *,
    beside: Mapping[str, str] | None = None,
    where: str = "",
) -> BulkStatement:
    """UPDATE of `columns` in the rows with these keys. In `where` the stored row goes by the table's name, and the given one by `new`.

    `beside` are further values that `where` looks at: name → the column that has their type.
    """
    chosen = {name: table.c[name] for name in (*key, *columns)}
    chosen |= {name: table.c[column] for name, column in (beside or {}).items()}
    changes = ", ".join(f"{_QUOTE(name)} = new.{_QUOTE(name)}" for name in columns)
    condition = f" AND {where}" if where else ""
    text = f"UPDATE {_QUOTE(table.name)} SET {changes} FROM ({_select(chosen)}) AS new WHERE {_match(table, key)}{condition}"
    return BulkStatement(text, chosen)


def delete(table: Table, key: Sequence[str]) -> BulkStatement:
    """DELETE of the rows with these keys."""
    chosen = {name: table.c[name] for name in key}
    text = f"DELETE FROM {_QUOTE(table.name)} USING ({_select(chosen)}) AS new WHERE {_match(table, key)}"
    return BulkStatement(text, chosen)


def _select(columns: Mapping[str, Column[object]]) -> str:
    """The parameters as rows, each column of its type."""
    arrays = ", ".join(f"${number}::{_sent_type(column)}[]" for number, column in enumerate(columns.values(), 1))
    values = ", ".join(_value(name, column) for name, column in columns.items())
    return f"SELECT {values} FROM unnest({arrays}) AS given ({_list(columns)})"


def _value(name: str, column: Column[object]) -> str:
    type_ = _type(column)
    cast = "" if _sent_type(column) == type_ else f"::{type_} AS {_QUOTE(name)}"
    return f"{_QUOTE(name)}{cast}"


def _sent_type(column: Column[object]) -> str:
    return "text" if isinstance(column.type, JSON | ARRAY) else _type(column)


def _type(column: Column[object]) -> str:
    return str(column.type.compile(_DIALECT))


def _list(names: Iterable[str]) -> str:
    return ", ".join(_QUOTE(name) for name in names)


def _match(table: Table, key: Sequence[str]) -> str:
    return " AND ".join(f"{_QUOTE(table.name)}.{_QUOTE(name)} = new.{_QUOTE(name)}" for name in key)


def _array_literal(values: object) -> str | None:
    """An array as PostgreSQL writes it; every element quoted."""
    if values is None:
        return None
    assert isinstance(values, Sequence)  # noqa: S101 - the column is an array
    escaped = (str(value).replace("\\", "\\\\").replace('"', '\\"') for value in values)
    return "{" + ",".join(f'"{value}"' for value in escaped) + "}"
