"""Operators see what waits and what failed, with the scope for it, and never a body."""

import hashlib
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
import yaml

from accord.contracts.envelope import Event, encode
from accord.contracts.intake_events import ActivityRecorded
from accord.contracts.values import utc
from accord.messaging import dead_letters
from accord.messaging.admin import admin_router
from accord.messaging.consumer import make_dead_letter
from accord.messaging.consumer_store import PostgresConsumerStore
from accord.messaging.ports import LogRecord
from accord.service import Service, create_app
from accord.settings import Settings

AT = utc(2027, 1, 4)


@pytest.fixture
async def client(database, database_url, tmp_path):
    keys = [
        {
            "name": "operator",
            "sha256": hashlib.sha256(b"admin-key").hexdigest(),
            "department": None,
            "scopes": ["admin"],
        },
        {"name": "reader", "sha256": hashlib.sha256(b"reader-key").hexdigest(), "department": None, "scopes": []},
    ]
    path = tmp_path / "keys.yaml"
    path.write_text(yaml.safe_dump({"keys": keys}))
    settings = Settings(database_url=database_url, kafka_bootstrap_servers="unused:9092", api_keys_file=path)

    async def handle(_unit_of_work, received):
        if received[0].event.data.kind == "always.fails":
            raise LookupError("no such stage")

    service = Service(
        name="qualification",
        title="test",
        settings=settings,
        database=database,
        migrations=Path(),
        routers=[admin_router(database, {"qualification": handle})],
    )
    transport = httpx.ASGITransport(create_app(service), raise_app_exceptions=False)
    headers = {"Authorization": "Bearer admin-key"}
    async with httpx.AsyncClient(transport=transport, base_url="http://accord", headers=headers) as client:
        yield client


@pytest.fixture
def put(database):
    async def put(kind="demo.requested", consumer="qualification", offset=0):
        data = ActivityRecorded(
            occurred_at=AT, recorded_at=AT, lead_id=uuid4(), sequence=1, activity_id=uuid4(), kind=kind, by="lead"
        )
        key, value, headers = encode(Event(uuid4(), "/intake", data))
        record = LogRecord("intake-events", 3, offset, key, value, tuple(headers), AT)
        async with PostgresConsumerStore(database, consumer).begin() as transaction:
            await transaction.add_dead_letters([make_dead_letter("poison", record, LookupError("no such stage"))])
        async with database.read_transaction() as conn:
            return (await dead_letters.list_dead_letters(conn, limit=500))[-1]

    return put


async def test_they_need_the_scope(client):
    for path in ("/v1/admin/outbox", "/v1/admin/dead-letters"):
        assert (await client.get(path, headers={"Authorization": "Bearer wrong"})).status_code == 401
        assert (await client.get(path, headers={"Authorization": "Bearer reader-key"})).status_code == 403
    answer = await client.post(
        f"/v1/admin/dead-letters/{uuid4()}/replay", headers={"Authorization": "Bearer reader-key"}
    )
    assert answer.status_code == 403


async def test_the_outbox_tells_how_much_waits_and_how_long(client, database, new_activity):
    assert (await client.get("/v1/admin/outbox")).json() == {"unpublished": 0, "oldest_at": None, "oldest_age_s": None}
    async with database.write_transaction() as unit_of_work:
        unit_of_work.publish(new_activity(unit_of_work), new_activity(unit_of_work))
    answer = (await client.get("/v1/admin/outbox")).json()
    assert answer["unpublished"] == 2
    assert answer["oldest_age_s"] >= 0


async def test_a_list_shows_place_and_error_but_no_body(client, put):
    letter = await put()
    [item] = (await client.get("/v1/admin/dead-letters")).json()["items"]
    assert item["id"] == str(letter.id)
    assert item["error"] == "LookupError: no such stage"
    assert (item["topic"], item["partition"], item["offset"]) == ("intake-events", 3, 0)
    assert not {"value", "headers", "data", "body"} & set(item)


async def test_pages_follow_by_cursor(client, put):
    for n in range(5):
        await put(offset=n)
    seen, cursor = [], None
    while True:
        params = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = (await client.get("/v1/admin/dead-letters", params=params)).json()
        seen += [item["offset"] for item in page["items"]]
        if (cursor := page["next_cursor"]) is None:
            break
    assert seen == [0, 1, 2, 3, 4]
    assert (await client.get("/v1/admin/dead-letters", params={"cursor": "nonsense"})).status_code == 422


async def test_replaying_works_once_and_then_conflicts(client, put):
    letter = await put()
    answer = await client.post(f"/v1/admin/dead-letters/{letter.id}/replay")
    assert (answer.status_code, answer.json()) == (200, {"id": str(letter.id), "state": "replayed"})
    assert (await client.post(f"/v1/admin/dead-letters/{letter.id}/replay")).status_code == 409
    assert (await client.post(f"/v1/admin/dead-letters/{letter.id}/discard")).status_code == 409
    assert (await client.get("/v1/admin/dead-letters")).json()["items"] == []
    assert len((await client.get("/v1/admin/dead-letters", params={"state": "all"})).json()["items"]) == 1


async def test_a_replay_that_fails_again_is_a_problem_and_the_dead_letter_stays(client, put):
    letter = await put("always.fails")
    answer = await client.post(f"/v1/admin/dead-letters/{letter.id}/replay")
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"] == "LookupError: no such stage"
    assert len((await client.get("/v1/admin/dead-letters")).json()["items"]) == 1
    assert (await client.post(f"/v1/admin/dead-letters/{letter.id}/discard")).json()["state"] == "discarded"


async def test_what_is_not_there_is_404_and_a_foreign_consumer_409(client, put):
    assert (await client.post(f"/v1/admin/dead-letters/{uuid4()}/discard")).status_code == 404
    assert (await client.post("/v1/admin/dead-letters/nonsense/discard")).status_code == 422
    letter = await put(consumer="gone")
    assert (await client.post(f"/v1/admin/dead-letters/{letter.id}/replay")).status_code == 409


async def test_they_are_documented_with_their_scope(client):
    document = (await client.get("/openapi.json")).json()
    operation = document["paths"]["/v1/admin/dead-letters/{dead_letter_id}/replay"]["post"]
    assert {"200", "404", "409", "422"} <= set(operation["responses"])
