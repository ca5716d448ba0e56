"""The tables that the code knows are the tables that the migrations make."""

from __future__ import annotations

from tests.tables import differences

from qualification import tables


def test_tables_equal_migrations(database_url: str) -> None:
    assert differences(database_url, tables.metadata) == []
