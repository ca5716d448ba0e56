"""The life of an agreement over HTTP, against a real database."""

from __future__ import annotations

from shared_kit import CONTENT, Kit, auth


async def test_the_second_departments_signature_brings_a_version_into_force(house: Kit) -> None:
    client = house.client
    drafted = await client.post("/v1/policy/versions", json=CONTENT, headers=auth("marketing"))
    assert drafted.status_code == 201, drafted.text
    assert drafted.headers["location"] == "/v1/policy/versions/1"
    proposed = await client.post("/v1/policy/versions/1/propose", headers=auth("marketing"))
    assert proposed.status_code == 200, proposed.text
    body = {"content_sha256": drafted.json()["content_sha256"]}
    first = await client.post("/v1/policy/versions/1/signatures", json=body, headers=auth("marketing"))
    assert (first.status_code, first.json()["status"], first.json()["awaiting"]) == (201, "proposed", ["sales"])
    assert (await client.get("/v1/policy", headers=auth("reader"))).status_code == 404
    second = await client.post("/v1/policy/versions/1/signatures", json=body, headers=auth("sales"))
    assert second.json()["status"] == "active"
    active = await client.get("/v1/policy", headers=auth("reader"))
    assert active.json()["content"] == CONTENT
    assert [type_ for type_, _ in await house.outbox()] == [
        "agreement.proposed.v1",
        "agreement.signed.v1",
        "agreement.signed.v1",
        "agreement.activated.v1",
    ]
