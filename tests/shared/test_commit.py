"""A route answers after its commit: what breaks the commit is an error answer, never a success."""

from __future__ import annotations

from pathlib import Path

from shared_kit import CONTENT, Kit, auth, kit

BREAK_COMMITS = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'the commit is refused' USING ERRCODE = '{state}'; END $$;
    CREATE CONSTRAINT TRIGGER refuse AFTER INSERT OR UPDATE ON {table}
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse();
"""


async def break_commits(house: Kit, table: str, state: str = "XX000") -> None:
    async with house.database.engine.begin() as conn:
        raw = await conn.get_raw_connection()
        await raw.driver_connection.execute(BREAK_COMMITS.format(table=table, state=state))


async def test_a_commit_that_fails_is_an_error_answer_and_nothing_is_there(house: Kit) -> None:
    await break_commits(house, "agreement_version")
    response = await house.client.post("/v1/policy/versions", json=CONTENT, headers=auth("marketing"))
    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    listed = await house.client.get("/v1/policy/versions", headers=auth("marketing"))
    assert listed.json()["items"] == []


async def test_events_that_cannot_be_saved_take_the_change_with_them(house: Kit) -> None:
    await house.client.post("/v1/policy/versions", json=CONTENT, headers=auth("marketing"))
    await break_commits(house, "outbox")
    response = await house.client.post("/v1/policy/versions/1/propose", headers=auth("marketing"))
    assert response.status_code == 500
    found = await house.client.get("/v1/policy/versions/1", headers=auth("marketing"))
    assert found.json()["status"] == "draft"


async def test_a_commit_that_may_succeed_later_is_503(house: Kit) -> None:
    await break_commits(house, "agreement_version", "40001")
    response = await house.client.post("/v1/policy/versions", json=CONTENT, headers=auth("marketing"))
    assert response.status_code == 503
    assert "retry-after" in response.headers


async def test_a_database_that_is_away_is_503_and_says_so_in_readyz(house: Kit, tmp_path: Path) -> None:
    async with kit("postgresql://nobody@127.0.0.1:1/none", tmp_path) as lost:
        response = await lost.client.get("/v1/policy", headers=auth("marketing"))
        assert response.status_code == 503
        assert response.json()["type"] == "/problems/overloaded"
        ready = await lost.client.get("/readyz")
        assert ready.status_code == 503
        assert ready.json()["checks"]["database"].startswith("failed")
        assert (await lost.client.get("/livez")).status_code == 200
