"""Rows of one batch are taken in their order, also where they are many and others post beside them."""

from __future__ import annotations

import asyncio

from tests.intake.conftest import Running

ROWS = 250


async def test_rows_of_one_person_are_saved_in_order_across_transactions(accord: Running) -> None:
    def rows(source: str, month: str) -> list[dict[str, str]]:
        return [
            {"source": source, "email": f"p{n}@initech.example", "occurred_at": f"2026-{month}-01T00:00:00Z"}
            for n in range(ROWS)
        ]

    others = [{"source": "other", "email": f"o{n}@initech.example"} for n in range(3)]
    batch = accord.marketing.post("/v1/leads:batch", rows("first", "01") + rows("second", "05"))
    _, answer = await asyncio.gather(accord.marketing.post("/v1/leads:batch", others), batch)
    assert [row["outcome"] for row in answer.json()["results"]] == ["created"] * ROWS + ["updated"] * ROWS
    sources = await accord.rows("SELECT DISTINCT source, captured_at::date::text FROM lead WHERE source <> 'other'")
    assert sources == [{"source": "first", "captured_at": "2026-01-01"}]
