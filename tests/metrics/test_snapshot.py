"""What a question's transaction is set to before its first statement."""

import pytest
from sqlalchemy import text

from accord.db import Database
from metrics.queries.stages import one_snapshot


@pytest.mark.parametrize(("of_one_lead", "loops"), [(False, "off"), (True, "on")])
async def test_only_questions_about_one_lead_may_join_in_loops(
    of_one_lead: bool, loops: str, database: Database
) -> None:
    """Right after a bulk load PostgreSQL takes a large table for a few rows; a loop over it would last for minutes."""
    async with database.reading() as conn:
        await one_snapshot(conn, of_one_lead=of_one_lead)
        assert (await conn.execute(text("SHOW enable_nestloop"))).scalar_one() == loops
    async with database.reading() as conn:
        assert (await conn.execute(text("SHOW enable_nestloop"))).scalar_one() == "on"
