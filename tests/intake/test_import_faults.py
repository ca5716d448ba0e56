"""Whatever ends an import in the middle, no row is lost or taken twice; and whatever is too much is refused."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.intake.import_service import ImportClient, count_rows, people, running_import_client
from tests.intake.processes import intake_process

from intake.main import build
from intake.settings import Settings

KILLS = 3


async def assert_taken_once(accord: ImportClient, found: dict[str, Any], count: int, doubled: int, bad: int) -> None:
    """Leads, keys, submissions, events, results and counts all tell the same."""
    assert found["state"] == "finished", found
    assert count_rows(found) == {"read": count + doubled + bad, "created": count, "updated": doubled, "failed": bad}
    for table, rows in (
        ("lead", count),
        ("identity_key", count),
        ("submission", count + doubled),
        ("import_failure", bad),
    ):
        assert len(await accord.rows(f"SELECT 1 FROM {table}")) == rows, table
    results = await accord.results(found["import_id"], limit="500")
    assert [row["row"] for row in results] == list(range(2, 2 + count + doubled + bad))
    assert Counter(row["outcome"] for row in results) == {"created": count, "updated": doubled, "failed": bad}
    events = Counter(event["type"] for event in await accord.events())
    assert events == {"lead.captured.v1": count, "import.finished.v1": 1}
    assert await accord.rows("SELECT 1 FROM import_block") == []


@pytest.fixture
async def accord(database_url: str, keys_file: Path) -> AsyncIterator[ImportClient]:
    async with running_import_client(database_url, keys_file, import_rows_max=100) as one:
        yield one


@pytest.fixture
async def idle(database_url: str, keys_file: Path) -> AsyncIterator[ImportClient]:
    """Intake without an import worker."""
    async with running_import_client(database_url, keys_file, works=False) as one:
        yield one


# ends in the middle ------------------------------------------------------------------------------------------------
@pytest.mark.slow
async def test_a_worker_that_is_killed_again_and_again_loses_and_doubles_no_row(
    database_url: str, keys_file: Path, idle: ImportClient
) -> None:
    count, doubled, bad = 4_000, 300, 100
    sent = (await idle.send(people(count, doubled=doubled, bad=bad))).json()
    import_id, total = sent["import_id"], count + doubled + bad
    chance = random.Random()
    at = 0
    for _ in range(KILLS):
        at += chance.randrange(1, total // (KILLS + 1))
        async with intake_process("worker", database_url, keys_file, import_rows_max=50) as process:
            await idle.until(import_id, lambda found, at=at: found["rows"]["read"] >= at)  # type: ignore[misc]
            await process.kill()
        assert (await idle.get_import(import_id))["state"] == "running"
    async with intake_process("worker", database_url, keys_file):
        found = await idle.wait_until_ended(import_id)
    await assert_taken_once(idle, found, count, doubled, bad)


async def test_a_worker_that_stops_in_order_is_followed_by_the_next(database_url: str, keys_file: Path) -> None:
    async with running_import_client(database_url, keys_file, import_rows_max=50) as first:
        import_id = (await first.send(people(2_000, doubled=50, bad=50))).json()["import_id"]
        begun = await first.until(import_id, lambda found: found["rows"]["read"] > 0)
    async with running_import_client(database_url, keys_file, works=False) as between:
        left = await between.get_import(import_id)
        assert left["state"] in ("running", "finished")
        assert left["rows"]["read"] >= begun["rows"]["read"]
    async with running_import_client(database_url, keys_file) as second:
        await assert_taken_once(second, await second.wait_until_ended(import_id), 2_000, 50, 50)


async def test_a_worker_that_fails_lets_go_of_every_import_and_can_be_run_again(
    database_url: str, keys_file: Path, idle: ImportClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = build(Settings(database_url=database_url, kafka_bootstrap_servers="127.0.0.1:1", api_keys_file=keys_file))
    worker = next(worker for worker in service.workers if worker.name == "imports")
    slow = (await idle.send(people(600), source="slow", rows_per_s="1")).json()["import_id"]
    stop = asyncio.Event()
    failing = asyncio.create_task(worker.run(stop))
    await idle.until(slow, lambda found: found["rows"]["read"] > 0)

    async def fail() -> None:
        raise LookupError("not this time")

    with monkeypatch.context() as patch:
        patch.setattr(worker, "_sweep", fail)
        async with asyncio.timeout(60):
            with pytest.raises(LookupError, match="not this time"):
                await failing
    assert worker.problem() is None
    quick = (await idle.send(people(5), source="quick")).json()["import_id"]
    again = asyncio.create_task(worker.run(stop))
    assert (await idle.wait_until_ended(quick))["state"] == "finished"
    stop.set()
    await again
    await service.database.dispose()


async def test_lost_connections_lose_no_row(accord: ImportClient) -> None:
    import_id = (await accord.send(people(3_000, doubled=100, bad=100))).json()["import_id"]
    for at in (1, 1_000, 2_000):
        await accord.until(import_id, lambda found, at=at: found["rows"]["read"] >= at)  # type: ignore[misc]
        await accord.rows(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'intake'"
        )
    await assert_taken_once(accord, await accord.wait_until_ended(import_id), 3_000, 100, 100)


async def test_two_workers_share_the_imports_and_no_row(database_url: str, keys_file: Path) -> None:
    async with (
        running_import_client(database_url, keys_file, import_rows_max=50) as one,
        running_import_client(database_url, keys_file, import_rows_max=50),
    ):
        ids = [(await one.send(people(400), source=f"list {n}")).json()["import_id"] for n in range(4)]
        found = [await one.wait_until_ended(import_id) for import_id in ids]
        assert sum(each["rows"]["created"] for each in found) == 400
        assert sum(each["rows"]["updated"] for each in found) == 1_200
        assert len(await one.rows("SELECT 1 FROM lead")) == 400
        assert len(await one.rows("SELECT 1 FROM submission")) == 1_600


async def test_people_who_are_captured_while_they_are_imported_are_one_lead_each(accord: ImportClient) -> None:
    sent = (await accord.send(people(300))).json()
    rows = [{"source": "website", "email": f"p{n}@initech.example"} for n in range(300)]

    async def post(part: list[dict[str, str]]) -> set[int]:
        return {(await accord.marketing.post("/v1/leads", row)).status_code for row in part}

    statuses = await asyncio.gather(*(post(rows[client::10]) for client in range(10)))
    assert set().union(*statuses) <= {200, 201}
    await accord.wait_until_ended(sent["import_id"])
    assert len(await accord.rows("SELECT 1 FROM lead")) == 300


async def test_rows_that_cannot_be_saved_fail_alone(accord: ImportClient) -> None:
    beyond = [f"Title {n}" for n in (41, 42, 250)]
    await accord.rows(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no commit today'; END $$"
    )
    await accord.rows(
        "CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON lead DEFERRABLE INITIALLY DEFERRED FOR EACH ROW"
        f" WHEN (new.title IN ({', '.join(map(repr, beyond))})) EXECUTE FUNCTION refuse()"
    )
    found = await accord.import_file(people(350))
    assert count_rows(found) == {"read": 350, "created": 347, "failed": 3}
    errors = await accord.errors(found["import_id"])
    assert errors.count("could not be saved") == 3
    assert all(title in errors for title in beyond)
    results = await accord.results(found["import_id"], limit="500")
    assert [one["row"] for one in results] == list(range(2, 352))
    assert len(await accord.rows("SELECT 1 FROM lead")) == 347
