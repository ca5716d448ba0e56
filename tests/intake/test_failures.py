"""What intake answers when a commit fails, a queue is full, or the whole service is asked what it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
from tests.intake.conftest import KEYS, Running

from accord.service import create_app
from intake.main import build
from intake.settings import Settings

LEAD = {"source": "website", "email": "ada@initech.example"}
BREAK_COMMIT = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no commit today'; END $$;
CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON lead DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (new.title = 'unlucky') EXECUTE FUNCTION refuse();
"""


async def test_a_failing_commit_is_an_error_answer_and_its_neighbours_are_saved(accord: Running) -> None:
    for statement in BREAK_COMMIT.strip().split(";\nCREATE CONSTRAINT"):
        await accord.rows(statement if statement.startswith("CREATE F") else "CREATE CONSTRAINT" + statement)
    rows: list[dict[str, Any]] = [{"source": "list", "email": f"p{n}@initech.example"} for n in range(9)]
    rows[4]["title"] = "unlucky"
    caller = accord.marketing
    alone = await caller.post("/v1/leads", rows[4])
    assert (alone.status_code, alone.json()["type"]) == (500, "/problems/internal")
    results = (await caller.post("/v1/leads:batch", rows)).json()["results"]
    assert [row["status"] for row in results] == [201] * 4 + [500] + [201] * 4
    assert len(await accord.rows("SELECT 1 FROM lead")) == 8
    assert [event["type"] for event in await accord.events()] == ["lead.captured.v1"] * 8


async def test_past_the_bound_of_the_queue_the_answer_is_503_with_retry_after(
    database_url: str, keys_file: Path
) -> None:
    settings = Settings(
        database_url=database_url, kafka_bootstrap_servers="127.0.0.1:1", api_keys_file=keys_file, queue_rows_max=2
    )
    service = build(settings)  # nothing takes requests out of the queue: no worker runs
    transport = httpx.ASGITransport(create_app(service))
    headers = {"Authorization": f"Bearer {KEYS['marketing']}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://intake", headers=headers) as http:
        full = await http.post("/v1/leads:batch", json=[LEAD] * 3)
    await service.database.dispose()
    assert full.status_code == 503
    assert int(full.headers["Retry-After"]) >= 1
    assert full.json()["type"] == "/problems/overloaded"


async def test_the_policy_can_be_read_on_paper(accord: Running, template: dict[str, Any]) -> None:
    await accord.sign(template)
    paper = await accord.marketing.http.get("/v1/policy/versions/1/paper", headers={"Accept": "text/markdown"})
    assert paper.status_code == 200
    assert "employee count is 50 or more" in paper.text
    assert (await accord.marketing.get("/v1/policy")).json()["status"] == "active"


async def test_openapi_documents_the_hot_routes_too(accord: Running) -> None:
    document = (await accord.marketing.get("/openapi.json")).json()
    for path in ("/v1/leads", "/v1/leads:batch", "/v1/activities", "/v1/activities:batch"):
        operation = document["paths"][path]["post"]
        assert {"401", "403", "413", "422", "503"} <= set(operation["responses"])
        assert operation["requestBody"]["content"]["application/json"]["examples"]
