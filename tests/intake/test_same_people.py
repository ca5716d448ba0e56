"""Sixty-four clients over real connections post the same two hundred people in all combinations of their keys to two processes of intake
on one database: two hundred leads are left, whatever met whatever.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg
import httpx
import pytest
from tests.intake.conftest import KEYS
from tests.intake.processes import intake_process

PEOPLE = 200
CLIENTS = 64
PROCESSES = 2


def submissions_of(person: int) -> list[dict[str, str]]:
    """Every way to name a person by one key or more; each alone does not tell that it is the same person."""
    keys = {
        "email": f"p{person}@initech.example",
        "phone": f"+1202555{person:04d}",
        "external_id": f"p{person}",
    }
    return [
        {"source": "list", "title": f"said by {' and '.join(chosen)}", **{name: keys[name] for name in chosen}}
        for count in (1, 2, 3)
        for chosen in itertools.combinations(keys, count)
    ]


async def post_all(url: str, bodies: list[tuple[str, dict[str, str]]]) -> Counter[int]:
    """One client with a connection of its own; how often it was answered with which status."""
    answered: Counter[int] = Counter()
    async with httpx.AsyncClient(
        base_url=url, headers={"Authorization": f"Bearer {KEYS['marketing']}"}, timeout=60, trust_env=False
    ) as client:
        for path, body in bodies:
            answered[(await client.post(path, json=body)).status_code] += 1
    return answered


@pytest.mark.slow
async def test_two_processes_and_sixty_four_clients_leave_each_person_once(database_url: str, keys_file: Path) -> None:
    chance = random.Random(7)
    bodies = [("/v1/leads", said) for person in range(PEOPLE) for said in submissions_of(person)]
    chance.shuffle(bodies)
    clicks = [
        ("/v1/activities", {"email": f"p{person}@initech.example", "kind": "page.viewed", "by": "lead"})
        for person in range(PEOPLE)
    ]
    chance.shuffle(clicks)
    work = [bodies[client::CLIENTS] + clicks[client::CLIENTS] for client in range(CLIENTS)]
    async with AsyncExitStack() as stack:
        processes = [
            await stack.enter_async_context(intake_process("api", database_url, keys_file)) for _ in range(PROCESSES)
        ]
        urls = [process.url for process in processes]
        answered = sum(
            await asyncio.gather(*(post_all(urls[client % PROCESSES], work[client]) for client in range(CLIENTS))),
            Counter[int](),
        )
        await asyncio.gather(*(process.stop() for process in processes))
    connection = await asyncpg.connect(database_url.replace("postgresql+asyncpg", "postgresql"))
    try:
        await _look(connection, answered)
    finally:
        await connection.close()


async def _look(database: asyncpg.Connection, answered: Counter[int]) -> None:
    assert set(answered) <= {200, 201, 202, 404}, answered  # 404: the click came before the person
    leads = {row["lead_id"] for row in await database.fetch("SELECT lead_id FROM lead WHERE merged_into IS NULL")}
    assert len(leads) == PEOPLE
    assert await database.fetchval("SELECT count(*) FROM lead WHERE pending") == 0

    keys = await database.fetch("SELECT lead_id, kind, value FROM identity_key")
    assert len(keys) == 3 * PEOPLE
    assert {row["lead_id"] for row in keys} == leads

    activities = await database.fetch("SELECT lead_id FROM activity")
    assert len(activities) == answered[202]
    assert {row["lead_id"] for row in activities} <= leads

    merges = await database.fetch("SELECT merged_lead_id, count(*) FROM merge GROUP BY 1")
    gone = {row["lead_id"] for row in await database.fetch("SELECT lead_id FROM lead WHERE merged_into IS NOT NULL")}
    assert {row["merged_lead_id"] for row in merges} == gone
    assert {row["count"] for row in merges} <= {1}
    assert answered[201] == PEOPLE + len(gone)

    published: dict[str, list[int]] = {}
    entered: set[str] = set()
    absorbed: set[str] = set()
    for row in await database.fetch("SELECT type, key, convert_from(payload, 'UTF8') AS data FROM outbox ORDER BY id"):
        said = json.loads(row["data"])
        published.setdefault(row["key"], []).append(said["sequence"])
        if row["type"] == "lead.captured.v1":
            entered.add(row["key"])
        elif row["type"] == "lead.merged.v1":
            absorbed.add(said["merged_lead_id"])
    assert entered - absorbed == {str(lead_id) for lead_id in leads}
    assert all(found == list(range(1, len(found) + 1)) for found in published.values())
    counted = await database.fetch("SELECT lead_id, sequence FROM lead")
    assert {str(row["lead_id"]): row["sequence"] for row in counted} == {
        lead_id: len(found) for lead_id, found in published.items()
    }
    assert await database.fetchval("SELECT count(*) FROM submission") == PEOPLE * len(submissions_of(0))
