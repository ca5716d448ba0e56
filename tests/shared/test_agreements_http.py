"""The life of an agreement over HTTP, against a real database."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import httpx
import yaml
from shared_kit import CONTENT, Kit, auth

from accord.clock import utc_now

PATH = "/v1/policy/versions"


async def draft(kit: Kit, name: str = "marketing", **changes: Any) -> httpx.Response:
    return await kit.client.post(PATH, json={**CONTENT, **changes}, headers=auth(name))


async def sign(kit: Kit, version: int, name: str, sha: str) -> httpx.Response:
    body = {"content_sha256": sha}
    return await kit.client.post(f"{PATH}/{version}/signatures", json=body, headers=auth(name))


async def propose(kit: Kit, version: int, name: str = "marketing", **body: Any) -> httpx.Response:
    return await kit.client.post(f"{PATH}/{version}/propose", json=body or None, headers=auth(name))


async def in_force(kit: Kit, **changes: Any) -> int:
    drafted = (await draft(kit, **changes)).json()
    version, sha = drafted["version"], drafted["content_sha256"]
    await propose(kit, version)
    await sign(kit, version, "marketing", sha)
    assert (await sign(kit, version, "sales", sha)).json()["status"] == "active"
    return int(version)


def refused(response: httpx.Response, status: int, slug: str) -> Any:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["type"] == f"/problems/{slug}"
    return response.json()


async def test_the_second_departments_signature_brings_a_version_into_force(kit: Kit) -> None:
    client = kit.client
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
    assert [type_ for type_, _ in await kit.outbox()] == [
        "agreement.proposed.v1",
        "agreement.signed.v1",
        "agreement.signed.v1",
        "agreement.activated.v1",
    ]


async def test_yaml_and_json_make_the_same_draft(kit: Kit) -> None:
    text = yaml.safe_dump(CONTENT)
    for media in ("application/yaml", "application/x-yaml", "text/yaml"):
        response = await kit.client.post(PATH, content=text, headers={**auth("sales"), "content-type": media})
        assert response.status_code == 201
        assert response.json()["content_sha256"] == (await draft(kit)).json()["content_sha256"]


async def test_a_draft_with_findings_is_refused_with_pointers_and_not_written(kit: Kit) -> None:
    response = await draft(kit, parameters={}, colour="red", title=" ", kind="plan", glossary={"a/b": 1})
    found = {item["pointer"] for item in refused(response, 422, "agreement-refused")["errors"]}
    assert found == {"/kind", "/title", "/glossary/a~1b"}
    response = await draft(kit, parameters={}, colour="red")
    found = {item["pointer"] for item in refused(response, 422, "agreement-refused")["errors"]}
    assert found == {"/parameters", "/colour"}
    assert (await kit.client.get(PATH, headers=auth("reader"))).json() == {"items": [], "next_cursor": None}


NO_DOCUMENT: list[tuple[bytes, str, int, str]] = [
    (b"{", "application/json", 400, "malformed-body"),
    (b"", "application/json", 400, "malformed-body"),
    (b"a: &a [x]\nb: *a", "application/yaml", 400, "malformed-body"),
    (b"a: !!python/name:os.system", "application/yaml", 400, "malformed-body"),
    (b"{}", "text/plain", 415, "unsupported-media-type"),
    (b"{}", "", 415, "unsupported-media-type"),
    (b"[" * 90_000, "application/json", 400, "malformed-body"),
    (b"[" * 90_000, "application/yaml", 400, "malformed-body"),
    (b" " * (1024 * 1024 + 1), "application/yaml", 413, "body-too-large"),
    (b'{"kind": "policy", "title": "\\u0000"}', "application/json", 400, "malformed-body"),
    (b'kind: policy\ntitle: "\\0"', "application/yaml", 400, "malformed-body"),
]


async def test_what_is_no_document_is_refused(kit: Kit) -> None:
    for body, media, status, slug in NO_DOCUMENT:
        headers = {**auth("sales"), **({"content-type": media} if media else {})}
        refused(await kit.client.post(PATH, content=body, headers=headers), status, slug)


async def test_reading_needs_a_key_and_writing_its_scope(kit: Kit) -> None:
    assert (await kit.client.get(PATH)).status_code == 401
    assert (await kit.client.get(PATH, headers=auth("reader"))).status_code == 200
    assert refused(await draft(kit, "sales-two"), 403, "forbidden")["missing_scope"] == "agreements:write"
    assert refused(await sign(kit, 1, "reader", "a" * 64), 403, "forbidden")["missing_scope"] == "agreements:sign"
    refused(await sign(kit, 1, "nobody", "a" * 64), 403, "no-department")


async def test_a_draft_is_edited_by_whoever_has_read_its_last_state(kit: Kit) -> None:
    etag = (await draft(kit)).headers["etag"]
    body = {**CONTENT, "title": "Better"}
    url = f"{PATH}/1"
    first = await kit.client.put(url, json=body, headers={**auth("sales"), "If-Match": etag})
    assert first.status_code == 200
    assert first.json()["title"] == "Better"
    assert first.headers["etag"] != etag
    second = await kit.client.put(url, json=CONTENT, headers={**auth("marketing"), "If-Match": etag})
    refused(second, 412, "precondition-failed")
    refused(await kit.client.put(url, json=body, headers=auth("sales")), 428, "precondition-required")
    read = await kit.client.get(url, headers={**auth("reader"), "If-None-Match": first.headers["etag"]})
    assert read.status_code == 304
    assert (await kit.client.get(url, headers=auth("reader"))).headers["etag"] == first.headers["etag"]


async def test_a_proposed_version_never_changes_again(kit: Kit) -> None:
    await draft(kit)
    etag = (await propose(kit, 1)).headers["etag"]
    response = await kit.client.put(f"{PATH}/1", json=CONTENT, headers={**auth("sales"), "If-Match": etag})
    refused(response, 409, "not-a-draft")
    refused(await propose(kit, 1), 409, "not-a-draft")


async def test_a_signature_is_under_the_content_that_stands_there(kit: Kit) -> None:
    sha = (await draft(kit)).json()["content_sha256"]
    refused(await sign(kit, 1, "sales", sha), 409, "not-proposed")
    await propose(kit, 1)
    refused(await sign(kit, 1, "sales", "0" * 64), 409, "content-differs")
    assert (await sign(kit, 1, "sales", sha)).status_code == 201
    refused(await sign(kit, 1, "sales", sha), 409, "key-has-signed")
    refused(await sign(kit, 1, "sales-two", sha), 409, "department-has-signed")
    refused(await sign(kit, 1, "sales", "x"), 422, "validation-failed")


async def test_a_version_that_is_not_there(kit: Kit) -> None:
    for path in ("/1", "/1/paper", "/1/diff/2"):
        refused(await kit.client.get(PATH + path, headers=auth("reader")), 404, "not-found")
    for path in ("/1/propose", "/1/withdraw"):
        refused(await kit.client.post(PATH + path, headers=auth("sales")), 404, "not-found")
    refused(await sign(kit, 1, "sales", "0" * 64), 404, "not-found")
    for version in ("0", "-1", "x", "2147483648", "9" * 50):
        refused(await kit.client.get(f"{PATH}/{version}", headers=auth("reader")), 422, "validation-failed")


async def test_a_version_may_be_withdrawn_until_it_is_in_force(kit: Kit) -> None:
    await draft(kit)
    assert (await kit.client.post(f"{PATH}/1/withdraw", headers=auth("sales"))).json()["status"] == "withdrawn"
    version = await in_force(kit)
    response = await kit.client.post(f"{PATH}/{version}/withdraw", headers=auth("sales"))
    refused(response, 409, "not-withdrawable")
    assert ("agreement.withdrawn.v1", 1) in [(type_, data["version"]) for type_, data in await kit.outbox()]


async def test_a_version_may_be_proposed_for_a_later_day_but_not_for_a_past_one(kit: Kit) -> None:
    sha = (await draft(kit)).json()["content_sha256"]
    past = (utc_now() - timedelta(hours=1)).isoformat()
    document = refused(await propose(kit, 1, effective_from=past), 422, "effective-in-the-past")
    assert document["errors"][0]["pointer"] == "/effective_from"
    refused(await propose(kit, 1, effective_from="tomorrow"), 422, "validation-failed")
    refused(await propose(kit, 1, effective_from="2099-01-01T00:00:00"), 422, "validation-failed")
    refused(await propose(kit, 1, from_=past), 422, "validation-failed")
    answer = await propose(kit, 1, effective_from="2099-01-01T00:00:00-06:00")
    assert answer.json()["effective_from"] == "2099-01-01T06:00:00Z"
    await sign(kit, 1, "marketing", sha)
    waiting = (await sign(kit, 1, "sales", sha)).json()
    assert (waiting["status"], waiting["awaiting"]) == ("proposed", [])
    refused(await kit.client.get("/v1/policy", headers=auth("reader")), 404, "not-found")


async def test_versions_are_listed_from_the_newest_in_pages(kit: Kit) -> None:
    for number in range(5):
        await draft(kit, title=f"T{number}")
    found, cursor = [], None
    while True:
        query = {"limit": 2, **({"cursor": cursor} if cursor else {})}
        page = (await kit.client.get(PATH, params=query, headers=auth("reader"))).json()
        found += [item["version"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found == [5, 4, 3, 2, 1]
    for bad in ("x", "WyJhIl0", "W10", "WzEsMl0", "WzFlOTld", "%C3%A9", "WzE4NDQ2NzQ0MDczNzA5NTUxNjE2XQ"):
        response = await kit.client.get(f"{PATH}?cursor={bad}", headers=auth("reader"))
        assert refused(response, 422, "validation-failed")["errors"][0]["parameter"] == "cursor"


async def test_two_versions_are_compared_by_path(kit: Kit) -> None:
    await draft(kit)
    changed = [{**CONTENT["parameters"][0], "weight": 5}, {"key": "phone", "rule": "phone"}]
    await draft(kit, title="New title", parameters=changed)
    found = (await kit.client.get(f"{PATH}/1/diff/2", headers=auth("reader"))).json()
    assert {(item["path"], item["change"], str(item["old"]), str(item["new"])) for item in found["changes"]} == {
        ("/title", "changed", CONTENT["title"], "New title"),
        ("/parameters/email/weight", "changed", "3", "5"),
        ("/parameters/phone", "added", "None", "{'key': 'phone', 'rule': 'phone'}"),
    }


async def test_on_paper_every_word_is_escaped(kit: Kit) -> None:
    evil = "<script>alert(1)</script> | `x` *y*"
    await in_force(kit, title=evil, glossary={evil: evil}, parameters=[{"key": evil, "rule": evil}])
    page = await kit.client.get(f"{PATH}/1/paper", headers=auth("reader"))
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "<script>" not in page.text
    assert page.text.count("&lt;script&gt;") >= 5
    for word in ("In force since", "For Marketing", "For Sales", "active"):
        assert word in page.text
    headers = {**auth("reader"), "Accept": "text/markdown, text/html;q=0.5"}
    markdown = await kit.client.get(f"{PATH}/1/paper", headers=headers)
    assert markdown.headers["content-type"] == "text/markdown; charset=utf-8"
    assert "<script>" not in markdown.text.replace("\\<", "")
    assert "| Marketing | marketing |" in markdown.text
    browser = {**auth("reader"), "Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    assert (await kit.client.get(f"{PATH}/1/paper", headers=browser)).text == page.text


async def test_on_paper_says_who_has_signed_and_who_has_not(kit: Kit) -> None:
    sha = (await draft(kit)).json()["content_sha256"]
    url = f"{PATH}/1/paper"
    assert "It binds nobody." in (await kit.client.get(url, headers=auth("reader"))).text
    await propose(kit, 1)
    await sign(kit, 1, "sales", sha)
    text = (await kit.client.get(url, headers=auth("reader"))).text
    assert "It waits for the signature of marketing." in text
    assert text.count("not signed") == 1
    assert sha in text


async def test_a_repeated_draft_under_one_key_is_one_draft(kit: Kit) -> None:
    headers = {**auth("marketing"), "Idempotency-Key": "k"}
    first = await kit.client.post(PATH, json=CONTENT, headers=headers)
    again = await kit.client.post(PATH, json=CONTENT, headers=headers)
    assert again.json() == first.json()
    assert (again.headers["location"], again.headers["etag"]) == (first.headers["location"], first.headers["etag"])
    assert again.headers["idempotency-replayed"] == "true"


async def test_the_largest_document_comes_into_force_and_a_larger_one_is_refused(kit: Kit) -> None:
    words = {f"word-{number}": "é" * 2_000 for number in range(195)}
    version = await in_force(kit, glossary=words)
    assert (await kit.client.get("/v1/policy", headers=auth("reader"))).json()["version"] == version
    larger = {**words, "more": "x" * 30_000}
    refused(await draft(kit, glossary=larger), 413, "body-too-large")


NO_MOMENT: list[Any] = [
    "9999-12-31T23:59:59-10:00",
    "9999-12-31T23:59:59.999999Z",
    "2200-01-01T00:00:00Z",
    "0001-01-01T00:00:00Z",
    "0001-01-01T00:00:00+10:00",
    "1e30",
    10**30,
    True,
]


async def test_a_moment_that_no_calendar_has_is_refused(kit: Kit) -> None:
    await draft(kit)
    found = [(await propose(kit, 1, effective_from=moment)).status_code for moment in NO_MOMENT]
    assert found == [422] * len(NO_MOMENT)
    # As PostgreSQL's infinity it would come back without an offset, and the list of versions would fail from then on.
    assert (await kit.client.get(PATH, headers=auth("reader"))).json()["items"][0]["effective_from"] is None
