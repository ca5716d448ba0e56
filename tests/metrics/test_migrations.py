"""The tables in the code equal those of the migrations."""

from __future__ import annotations

from tests.tables import differences

from metrics import tables


def test_tables_equal_migrations(metrics_url: str) -> None:
    assert differences(metrics_url, tables.metadata) == []
