"""The settings of a report's transaction."""

import pytest
from sqlalchemy import text

from accord.db import Database
from metrics.queries.stages import begin_snapshot


@pytest.mark.parametrize(("of_one_lead", "loops"), [(False, "off"), (True, "on")])
async def test_only_reports_of_one_lead_use_nested_loops(of_one_lead: bool, loops: str, database: Database) -> None:
    """Right after a bulk load PostgreSQL takes a large table for a few rows; a loop over it would last for minutes."""
    async with database.read_transaction() as conn:
        await begin_snapshot(conn, of_one_lead=of_one_lead)
        assert (await conn.execute(text("SHOW enable_nestloop"))).scalar_one() == loops
    async with database.read_transaction() as conn:
        assert (await conn.execute(text("SHOW enable_nestloop"))).scalar_one() == "on"
