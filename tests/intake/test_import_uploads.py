"""Files on their way in, cancelled or broken off, and what is too much of them; lists of imports, and how long rows are remembered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.intake.conftest import KEYS
from tests.intake.import_service import CSV, ImportClient, count_rows, listening, people, running_import_client

from accord.db import Database
from intake.imports.service.worker import prune_worker

SLOWLY = {"rows_per_s": 1}
"""The first transaction's rows are taken at once, and the next ones not while a test runs."""


@pytest.fixture
async def accord(database_url: str, keys_file: Path) -> AsyncIterator[ImportClient]:
    async with running_import_client(database_url, keys_file, import_rows_max=100) as one:
        yield one


@pytest.fixture
async def idle(database_url: str, keys_file: Path) -> AsyncIterator[ImportClient]:
    """Intake without an import worker."""
    async with running_import_client(database_url, keys_file, works=False) as one:
        yield one


# cancelled ---------------------------------------------------------------------------------------------------------
async def test_a_running_import_is_cancelled_after_the_rows_at_hand(accord: ImportClient) -> None:
    import_id = (await accord.send(people(1_000), **SLOWLY)).json()["import_id"]
    running = await accord.until(import_id, lambda found: found["rows"]["read"] > 0)
    assert running["state"] == "running"
    assert 0 < running["share_done"] < 1
    assert running["eta_s"] > 0
    cancelling = await accord.marketing.post(f"/v1/imports/{import_id}/cancel", None)
    assert (cancelling.status_code, cancelling.json()["cancelling"]) == (200, True)
    found = await accord.wait_until_ended(import_id)
    assert found["state"] == "cancelled"
    assert len(await accord.rows("SELECT 1 FROM lead")) == found["rows"]["created"] == 100
    (told,) = await accord.events("import.finished.v1")
    assert told["state"] == "cancelled"
    assert await accord.rows("SELECT 1 FROM import_block") == []
    again = await accord.marketing.post(f"/v1/imports/{import_id}/cancel", None)
    assert (again.status_code, again.json()["state"]) == (200, "cancelled")


async def test_throttled_import_delays_no_other(accord: ImportClient) -> None:
    slow = (await accord.send(people(1_000), **SLOWLY)).json()["import_id"]
    await accord.until(slow, lambda found: found["rows"]["read"] > 0)
    assert (await accord.import_file(people(300), source="other"))["state"] == "finished"
    assert (await accord.get_import(slow))["state"] == "running"
    await accord.marketing.post(f"/v1/imports/{slow}/cancel", None)
    assert (await accord.wait_until_ended(slow))["state"] == "cancelled"


async def test_an_import_that_waits_is_cancelled_at_once(idle: ImportClient) -> None:
    import_id = (await idle.send(people(10))).json()["import_id"]
    answer = await idle.marketing.post(f"/v1/imports/{import_id}/cancel", None)
    assert answer.json()["state"] == "cancelled"
    assert await idle.rows("SELECT 1 FROM import_block") == []


async def test_an_import_whose_file_is_coming_can_be_cancelled(idle: ImportClient) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield people(60_000)
        ((row),) = await idle.rows("SELECT import_id FROM import_job")
        await idle.marketing.post(f"/v1/imports/{row['import_id']}/cancel", None)
        yield people(60_000)

    answer = await idle.send(body())
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/import-not-receiving")
    (row,) = await idle.rows("SELECT state FROM import_job")
    assert row["state"] == "cancelled"
    assert await idle.rows("SELECT 1 FROM import_block") == []


async def test_what_has_ended_or_is_not_there_cannot_be_cancelled(accord: ImportClient) -> None:
    found = await accord.import_file(people(1))
    wait_until_ended = await accord.marketing.post(f"/v1/imports/{found['import_id']}/cancel", None)
    assert (wait_until_ended.status_code, wait_until_ended.json()["state"]) == (409, "finished")
    nowhere = "019f3b1e-7a52-7c31-9a55-8a4f3c1d2e20"
    for path in ("", "/rows", "/errors"):
        assert (await accord.marketing.get(f"/v1/imports/{nowhere}{path}")).status_code == 404
    assert (await accord.marketing.post(f"/v1/imports/{nowhere}/cancel", None)).status_code == 404


# uploads -----------------------------------------------------------------------------------------------------------
async def test_an_upload_that_breaks_off_is_an_import_that_failed(idle: ImportClient) -> None:
    head = (
        "POST /v1/imports?source=list HTTP/1.1\r\nHost: intake\r\nContent-Type: text/csv\r\nContent-Length: 9000000\r\n"
    )
    async with listening(idle) as port:
        _, sending = await asyncio.open_connection("127.0.0.1", port)
        sending.write(f"{head}Authorization: Bearer {KEYS['marketing']}\r\n\r\n".encode() + people(60_000))
        await sending.drain()
        await idle.list_imports(lambda found: len(found) == 1)
        sending.close()
        (found,) = await idle.list_imports(lambda found: found[0]["state"] != "receiving")
    assert (found["state"], found["error"]) == ("failed", "The upload broke off.")
    assert await idle.rows("SELECT 1 FROM import_block") == []
    assert await idle.events() == []


async def test_an_upload_whose_process_died_is_given_up_after_a_while(database_url: str, keys_file: Path) -> None:
    async with running_import_client(database_url, keys_file, works=False) as one:
        await one.send(people(10))
        await one.rows("UPDATE import_job SET state = 'receiving', updated_at = now() - interval '11 minutes'")
        (row,) = await one.rows("SELECT import_id FROM import_job")
    async with running_import_client(database_url, keys_file) as other:
        assert (await other.wait_until_ended(str(row["import_id"])))["state"] == "failed"
        assert await other.rows("SELECT 1 FROM import_block") == []


@pytest.mark.parametrize("declared", [True, False])
async def test_a_file_over_the_limit_is_413_and_nothing_of_it_stays(
    database_url: str, keys_file: Path, declared: bool
) -> None:
    whole = people(60_000)

    async def body() -> AsyncIterator[bytes]:
        for at in range(0, len(whole), 100_000):
            yield whole[at : at + 100_000]

    async with running_import_client(database_url, keys_file, works=False, import_bytes_max=1_000_000) as one:
        answer = await one.send(whole if declared else body())
        assert (answer.status_code, answer.json()["bytes_max"]) == (413, 1_000_000)
        assert await one.rows("SELECT 1 FROM import_block") == []
        assert {row["state"] for row in await one.rows("SELECT state FROM import_job")} <= {"failed"}


async def test_a_file_of_any_size_up_to_it_is_no_body_too_large(database_url: str, keys_file: Path) -> None:
    async with running_import_client(database_url, keys_file, works=False, body_bytes_max=10_000) as one:
        assert (await one.send(people(60_000))).status_code == 202


async def test_a_key_makes_a_file_count_once(idle: ImportClient) -> None:
    headers = {**CSV, "Idempotency-Key": "monday"}
    first = await idle.send(people(30_000), headers)
    again = await idle.send(people(30_000), headers)
    assert (again.status_code, again.headers["idempotency-replayed"]) == (202, "true")
    assert (again.json(), again.headers["location"]) == (first.json(), first.headers["location"])
    other = await idle.send(people(30_001), headers)
    assert (other.status_code, other.json()["type"]) == (422, "/problems/idempotency-key-reused")
    assert (await idle.send(people(30_000), headers, source="other")).status_code == 422
    states = [row["state"] for row in await idle.rows("SELECT state FROM import_job ORDER BY import_id")]
    assert states == ["queued", "failed", "failed"]
    assert {row["import_id"] for row in await idle.rows("SELECT import_id FROM import_block")} == {
        row["import_id"] for row in await idle.rows("SELECT import_id FROM import_job WHERE state = 'queued'")
    }


async def test_too_many_open_imports_are_503(database_url: str, keys_file: Path) -> None:
    async with running_import_client(database_url, keys_file, works=False, imports_open_max=2) as one:
        answers = [await one.send(people(1)) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [202, 202, 503]
        assert int(answers[2].headers["Retry-After"]) >= 1


async def test_open_imports_of_one_key_leave_room_for_those_of_another(database_url: str, keys_file: Path) -> None:
    async with running_import_client(
        database_url, keys_file, works=False, imports_open_max=10, imports_open_per_key_max=3
    ) as one:
        answers = await asyncio.gather(*(one.send(people(1)) for _ in range(8)))
        assert sorted(answer.status_code for answer in answers) == [202] * 3 + [503] * 5
        other = await one.sales.http.post("/v1/imports", content=people(1), headers=CSV, params={"source": "list"})
        assert other.status_code == 202


async def test_too_many_open_imports_are_refused_before_file_is_read(database_url: str, keys_file: Path) -> None:
    async with running_import_client(database_url, keys_file, works=False, imports_open_max=1) as one:
        assert (await one.send(people(1))).status_code == 202
        read = 0

        async def body() -> AsyncIterator[bytes]:
            nonlocal read
            read += 1
            yield people(1)

        assert (await one.send(body())).status_code == 503
        assert read == 0


async def test_stalled_uploads_free_their_slots(database_url: str, keys_file: Path) -> None:
    """As many as may be open, each with a block kept and then nothing more."""
    head = (
        "POST /v1/imports?source=list HTTP/1.1\r\nHost: intake\r\nContent-Type: text/csv\r\nContent-Length: 9000000\r\n"
    )
    limits = {"imports_open_max": 4, "imports_open_per_key_max": 2, "body_stall_s": 0.5}
    async with running_import_client(database_url, keys_file, works=False, **limits) as one, listening(one) as port:
        stalled = []
        for _ in range(2):
            reading, sending = await asyncio.open_connection("127.0.0.1", port)
            sending.write(f"{head}Authorization: Bearer {KEYS['marketing']}\r\n\r\n".encode() + people(60_000))
            stalled.append((reading, sending))
        for reading, sending in stalled:
            async with asyncio.timeout(30):
                assert (await reading.readline()).split()[1] == b"408"
            sending.close()
        found = await one.list_imports(lambda found: len(found) == 2)
        assert {job["state"] for job in found} == {"failed"}
        assert await one.rows("SELECT 1 FROM import_block") == []
        assert (await one.send(people(1))).status_code == 202


async def test_an_import_of_which_too_much_fails_is_stopped(database_url: str, keys_file: Path) -> None:
    async with running_import_client(database_url, keys_file, import_rows_max=50, import_failures_max=100) as one:
        found = await one.import_file(people(0, bad=1_000))
        assert (found["state"], found["error"]) == ("failed", "More than 100 rows failed or were rejected.")
        assert found["rows"]["read"] < 1_000
        (told,) = await one.events("import.finished.v1")
        assert told["state"] == "failed"


async def test_unchanged_rows_are_found_per_source(idle: ImportClient) -> None:
    for source in ("a", "b", "a"):
        await idle.send(people(1), source=source)
    everything = (await idle.marketing.get("/v1/imports", limit="2")).json()
    rest = (await idle.marketing.get("/v1/imports", limit="2", cursor=everything["next_cursor"])).json()
    assert [one["source"] for one in [*everything["items"], *rest["items"]]] == ["a", "b", "a"]
    assert rest["next_cursor"] is None
    only = (await idle.marketing.get("/v1/imports", source="b")).json()["items"]
    assert [one["source"] for one in only] == ["b"]


async def test_what_became_of_rows_is_forgotten_after_a_time(accord: ImportClient) -> None:
    found = await accord.import_file(people(150, bad=1))
    database = Database(accord.dsn, application_name="test")
    try:
        stop = asyncio.Event()
        await accord.rows("UPDATE import_job SET finished_at = now() - interval '91 days'")
        pruning = asyncio.create_task(prune_worker(database, 90).run(stop))
        await accord.wait_until_empty("import_chunk")
        stop.set()
        await pruning
    finally:
        await database.dispose()
    assert await accord.results(found["import_id"]) == []
    assert count_rows(await accord.get_import(found["import_id"])) == {"read": 151, "created": 150, "failed": 1}
