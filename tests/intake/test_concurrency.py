"""Many clients post the same people in all combinations of their keys, through two processes' worth of intake: each is one lead."""

from __future__ import annotations

import asyncio
import itertools
import random
from pathlib import Path

from tests.intake.conftest import Running, running

PEOPLE = 200
CLIENTS = 64


def combinations(person: int) -> list[dict[str, str]]:
    """Every way to name a person by one key or more; each alone does not tell that it is the same person."""
    keys = {
        "email": f"p{person}@initech.example",
        "phone": f"+1202555{person:04d}",
        "external_id": f"p{person}",
    }
    return [
        {"source": "list", **{name: keys[name] for name in chosen}}
        for count in (1, 2, 3)
        for chosen in itertools.combinations(keys, count)
    ]


async def test_two_hundred_people_in_all_combinations_of_keys_are_two_hundred_leads(
    database_url: str, keys_file: Path
) -> None:
    rows = [row for person in range(PEOPLE) for row in combinations(person)]
    random.Random(11).shuffle(rows)
    async with running(database_url, keys_file) as one, running(database_url, keys_file) as other:
        statuses = await asyncio.gather(
            *(_post((one, other)[client % 2], rows[client::CLIENTS]) for client in range(CLIENTS))
        )
        assert set(itertools.chain(*statuses)) <= {200, 201}
        leads = await one.rows("SELECT lead_id, sequence FROM lead WHERE merged_into IS NULL AND NOT held")
        assert len(leads) == PEOPLE
        pointers = await one.rows("SELECT DISTINCT lead_id FROM identity_key")
        assert {row["lead_id"] for row in pointers} == {row["lead_id"] for row in leads}
        assert len(await one.rows("SELECT 1 FROM identity_key")) == 3 * PEOPLE
        events = await one.events()
    by_lead: dict[str, list[int]] = {}
    for event in events:
        by_lead.setdefault(event["key"], []).append(event["sequence"])
    assert all(sequences == list(range(1, len(sequences) + 1)) for sequences in by_lead.values())
    captured = {event["key"] for event in events if event["type"] == "lead.captured.v1"}
    merged = {event["merged_lead_id"] for event in events if event["type"] == "lead.merged.v1"}
    assert captured - merged == {str(row["lead_id"]) for row in leads}


async def _post(accord: Running, rows: list[dict[str, str]]) -> list[int]:
    caller = accord.caller("marketing")
    return [(await caller.post("/v1/leads", row)).status_code for row in rows]
