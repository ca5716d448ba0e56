"""A route answers after its commit: what breaks the commit is an error answer, never a success."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from fastapi import APIRouter
from shared_kit import CONTENT, Kit, auth, service_kit
from sqlalchemy.engine import make_url

from accord.batching import GroupCommit
from accord.db import CommitOutcomeUnknown, Database
from accord.http.problems import to_problem

BREAK_COMMITS = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'the commit is refused' USING ERRCODE = '{state}'; END $$;
    CREATE CONSTRAINT TRIGGER refuse AFTER INSERT OR UPDATE ON {table}
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse();
"""

END_AT_COMMITS = """
    CREATE FUNCTION end_at_commit() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$;
    CREATE CONSTRAINT TRIGGER end_at_commit AFTER INSERT ON agreement_version
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION end_at_commit();
"""


async def break_commits(kit: Kit, table: str, state: str = "XX000") -> None:
    async with kit.database.engine.begin() as conn:
        raw = await conn.get_raw_connection()
        await raw.driver_connection.execute(BREAK_COMMITS.format(table=table, state=state))


async def test_a_commit_that_fails_is_an_error_answer_and_nothing_is_there(kit: Kit) -> None:
    await break_commits(kit, "agreement_version")
    response = await kit.client.post("/v1/policy/versions", json=CONTENT, headers=auth("marketing"))
    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    listed = await kit.client.get("/v1/policy/versions", headers=auth("marketing"))
    assert listed.json()["items"] == []


async def test_events_that_cannot_be_saved_take_the_change_with_them(kit: Kit) -> None:
    await kit.client.post("/v1/policy/versions", json=CONTENT, headers=auth("marketing"))
    await break_commits(kit, "outbox")
    response = await kit.client.post("/v1/policy/versions/1/propose", headers=auth("marketing"))
    assert response.status_code == 500
    found = await kit.client.get("/v1/policy/versions/1", headers=auth("marketing"))
    assert found.json()["status"] == "draft"


async def test_a_commit_that_may_succeed_later_is_503(kit: Kit) -> None:
    await break_commits(kit, "agreement_version", "40001")
    response = await kit.client.post("/v1/policy/versions", json=CONTENT, headers=auth("marketing"))
    assert response.status_code == 503
    assert "retry-after" in response.headers


async def test_a_database_that_is_away_is_503_and_says_so_in_readyz(kit: Kit, tmp_path: Path) -> None:
    async with service_kit("postgresql://nobody@127.0.0.1:1/none", tmp_path) as lost:
        response = await lost.client.get("/v1/policy", headers=auth("marketing"))
        assert response.status_code == 503
        assert response.json()["type"] == "/problems/overloaded"
        ready = await lost.client.get("/readyz")
        assert ready.status_code == 503
        assert ready.json()["checks"]["database"].startswith("failed")
        assert (await lost.client.get("/livez")).status_code == 200


@asynccontextmanager
async def losing_answers_to_commits(url: str) -> AsyncIterator[str]:
    """The URL of the same database by way of a line that breaks when the answer to a COMMIT with changes is on it."""
    asked = make_url(url).query
    path = f"{asked['host']}/.s.PGSQL.{asked['port']}"
    lost = asyncio.Event()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_unix_connection(path)
        wrote, committing = False, False

        async def outward() -> None:
            nonlocal wrote, committing
            while data := await reader.read(65_536):
                wrote = wrote or b"INSERT" in data
                committing = committing or (wrote and not lost.is_set() and b"COMMIT" in data)
                to_server.write(data)
            to_server.close()

        async def inward() -> None:
            while data := await from_server.read(65_536):
                if committing and b"COMMIT" in data:
                    lost.set()
                    break
                writer.write(data)
            writer.close()
            to_server.close()

        await asyncio.gather(outward(), inward(), return_exceptions=True)

    server = await asyncio.start_server(carry, "127.0.0.1")
    port = server.sockets[0].getsockname()[1]
    try:
        yield str(make_url(url).set(host="127.0.0.1", port=port, query={}).render_as_string(hide_password=False))
        assert lost.is_set()
    finally:
        server.close()
        await server.wait_closed()


async def test_a_commit_whose_answer_is_lost_is_an_unknown_outcome_and_its_key_tells(
    kit_database: str, tmp_path: Path
) -> None:
    """It was saved; nobody can know before the key is sent again."""
    async with losing_answers_to_commits(kit_database) as url, service_kit(url, tmp_path) as one:
        headers = {**auth("marketing"), "Idempotency-Key": "draft-1"}
        response = await one.client.post("/v1/policy/versions", json=CONTENT, headers=headers)
        assert (response.status_code, response.json()["type"]) == (503, "/problems/outcome-unknown")
        assert "Idempotency-Key" in response.json()["detail"]
        assert int(response.headers["retry-after"]) >= 1
        again = await one.client.post("/v1/policy/versions", json=CONTENT, headers=headers)
        assert (again.status_code, again.headers.get("idempotency-replayed")) == (201, "true")
        listed = await one.client.get("/v1/policy/versions", headers=auth("marketing"))
        assert len(listed.json()["items"]) == 1


async def test_a_commit_during_which_the_server_ends_is_open_and_its_key_tells(kit: Kit) -> None:
    """It was not saved; nobody can know before the key is sent again."""
    async with kit.database.engine.begin() as conn:
        raw = await conn.get_raw_connection()
        await raw.driver_connection.execute(END_AT_COMMITS)
    headers = {**auth("marketing"), "Idempotency-Key": "draft-1"}
    response = await kit.client.post("/v1/policy/versions", json=CONTENT, headers=headers)
    assert (response.status_code, response.json()["type"]) == (503, "/problems/outcome-unknown")
    async with kit.database.engine.begin() as conn:
        await conn.exec_driver_sql("DROP TRIGGER end_at_commit ON agreement_version")
    again = await kit.client.post("/v1/policy/versions", json=CONTENT, headers=headers)
    assert (again.status_code, again.headers.get("idempotency-replayed")) == (201, None)


@pytest.mark.parametrize("state", ["40001", "40P01", "57014", "55P03"])
async def test_a_commit_that_the_server_rolls_back_is_not_open(kit: Kit, state: str) -> None:
    await break_commits(kit, "agreement_version", state)
    response = await kit.client.post("/v1/policy/versions", json=CONTENT, headers=auth("marketing"))
    assert (response.status_code, response.json()["type"]) == (503, "/problems/overloaded")


async def test_what_is_lost_before_the_commit_or_after_it_says_nothing_of_what_was_changed(
    kit_database: str, tmp_path: Path
) -> None:
    """A request may have committed once before it fails."""

    def two_steps(database: Database) -> APIRouter:
        router = APIRouter()

        @router.post("/twice")
        async def twice() -> None:
            async with database.write_transaction() as unit_of_work:
                await unit_of_work.conn.exec_driver_sql("CREATE TABLE done (n int)")
            async with database.write_transaction() as unit_of_work:
                await unit_of_work.conn.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")

        return router

    async with service_kit(kit_database, tmp_path, two_steps) as one:
        response = await one.client.post("/twice")
        assert (response.status_code, response.json()["type"]) == (503, "/problems/overloaded")
        assert "othing was" not in response.json()["detail"]
        assert "Idempotency-Key" in response.json()["detail"]


async def test_requests_of_one_batch_are_all_answered_and_none_is_tried_alone(kit: Kit) -> None:
    """A batch whose commit is open must not be halved and done again without its keys."""
    applied: list[list[int]] = []

    async def apply(batch: Sequence[int]) -> list[int]:
        applied.append(list(batch))
        raise CommitOutcomeUnknown("lost")

    commits: GroupCommit[int, int] = GroupCommit(apply, name="kit-open")
    stop = asyncio.Event()
    running = asyncio.create_task(commits.run(stop))
    answers = await commits.submit_all([1, 2, 3])
    stop.set()
    await running
    assert applied == [[1, 2, 3]]
    problems = [to_problem(answer) for answer in answers if isinstance(answer, Exception)]
    assert [problem.type for problem in problems if problem] == ["/problems/outcome-unknown"] * 3
