"""Errors over HTTP: always a problem document, with the place of the error and never the value."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from shared_kit import Kit, auth, service_kit
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from accord.batching import Overloaded
from accord.http.auth import Caller, authorize, require
from accord.http.paging import CursorText, Limit
from accord.http.problems import overloaded, parse_body, require_json


class Cost(BaseModel):
    model_config = ConfigDict(extra="forbid")
    amount: Decimal
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")]


class Thing(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: Annotated[str, Field(min_length=1, max_length=20)]
    count: Annotated[int, Field(ge=0, lt=2**31)] = 0
    costs: list[Cost | None] = []
    notes: dict[str, Any] = {}


def things() -> APIRouter:
    router = APIRouter(prefix="/things")

    @router.post("", status_code=201)
    async def create(thing: Thing, caller: Annotated[Caller, require("leads:read")]) -> Thing:
        return thing

    @router.get("")
    async def list_(limit: Limit = 50, cursor: CursorText = None) -> dict[str, int]:
        return {"limit": limit}

    @router.get("/broken")
    async def broken() -> None:
        raise ValueError("ada@initech.example is in the way")

    @router.get("/busy")
    async def busy() -> None:
        raise Overloaded(1.4)

    return router


ADAPTER = TypeAdapter(list[Thing])


async def hot(request: Request) -> JSONResponse:
    await authorize(request, "leads:read")
    require_json(request)
    return JSONResponse(len(parse_body(ADAPTER, await request.body())))


@pytest.fixture
async def shop(kit_database: str, tmp_path: Path) -> AsyncIterator[Kit]:
    routes = [Route("/hot", hot, methods=["POST"])]
    async with service_kit(kit_database, tmp_path, things(), routes=routes, body_bytes_max=10_000) as built:
        yield built


def problem(response: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document = response.json()
    assert document["type"] == f"/problems/{slug}"
    assert document["status"] == status
    assert document["request_id"] == response.headers["x-request-id"]
    return document


KEY = auth("marketing")
GOOD = {"name": "lamp", "costs": [{"amount": "1.20", "currency": "USD"}]}


async def test_what_fits_is_taken(shop: Kit) -> None:
    assert (await shop.client.post("/things", json=GOOD, headers=KEY)).status_code == 201
    assert (await shop.client.post("/hot", json=[GOOD], headers=KEY)).json() == 1


async def test_a_path_or_method_that_is_not_there(shop: Kit) -> None:
    problem(await shop.client.get("/nowhere"), 404, "not-found")
    response = await shop.client.delete("/hot")
    problem(response, 405, "method-not-allowed")
    assert response.headers["allow"] == "POST"


async def test_a_body_that_is_not_json(shop: Kit) -> None:
    headers = {**KEY, "content-type": "application/json"}
    for path in ("/things", "/hot"):
        for body in (b"{", b"", b"[1,", b'{"name": }', b"[" * 5_000, b"1" * 5_000):
            response = await shop.client.post(path, content=body, headers=headers)
            assert response.status_code in (400, 422), (path, body)
            assert response.headers["content-type"] == "application/problem+json"
        problem(await shop.client.post(path, content=b"{", headers=headers), 400, "malformed-body")


async def test_a_body_of_another_type_is_refused(shop: Kit) -> None:
    for path in ("/things", "/hot"):
        for media in ("text/plain", "application/xml", None):
            headers = {**KEY, **({"content-type": media} if media else {})}
            answer = await shop.client.post(path, content=json.dumps(GOOD).encode(), headers=headers)
            assert "application/json" in problem(answer, 415, "unsupported-media-type")["detail"]


async def test_each_wrong_place_is_named_by_a_pointer(shop: Kit) -> None:
    body = {"name": "", "colour": "red", "costs": [None, {"amount": "x", "currency": "usd"}, {"amount": "1"}]}
    document = problem(await shop.client.post("/things", json=body, headers=KEY), 422, "validation-failed")
    assert {item["pointer"] for item in document["errors"]} == {
        "/name",
        "/colour",
        "/costs/1/amount",
        "/costs/1/currency",
        "/costs/2/currency",
    }
    document = problem(await shop.client.post("/hot", json=[GOOD, body], headers=KEY), 422, "validation-failed")
    assert "/1/costs/2/currency" in {item["pointer"] for item in document["errors"]}


async def test_a_missing_body_and_a_wrong_parameter(shop: Kit) -> None:
    problem(await shop.client.post("/things", headers=KEY), 422, "validation-failed")
    document = problem(await shop.client.get("/things?limit=-1"), 422, "validation-failed")
    assert document["errors"][0]["parameter"] == "limit"
    for limit in ("501", "x", "9" * 400, "", "1e3", "%F0%9F%92%A9"):
        problem(await shop.client.get(f"/things?limit={limit}"), 422, "validation-failed")


async def test_what_was_sent_is_not_repeated(shop: Kit) -> None:
    body = {"name": "ada.byron@initech.example", "count": "ada.byron@initech.example"}
    response = await shop.client.post("/things", json=body, headers=KEY)
    problem(response, 422, "validation-failed")
    assert "initech" not in response.text


IMPOSSIBLE = [
    rb'"a\u0000b"',
    rb'"a\\\u0000b"',
    b'"a\x00b"',
    rb'"\ud800"',
    rb'"\udc00\ud800"',
    rb'"x\uDBFF y"',
    b'"\xff"',
    b'"\xed\xa0\x80"',
]
"""Texts that no database can hold, as JSON; the other list only looks like it."""
POSSIBLE = [rb'"\\u0000"', rb'"\ud83d\ude00"', '"é😀"'.encode(), rb'"\\ud800"', rb'"\\\\u0000"']


async def test_text_that_no_database_can_hold_is_refused_and_what_only_looks_like_it_is_taken(shop: Kit) -> None:
    headers = {**KEY, "content-type": "application/json"}
    refused = (400, "application/problem+json", "/problems/malformed-body", True)
    found: dict[tuple[str, bytes], Any] = {}
    expected: dict[tuple[str, bytes], Any] = {}
    for path, opening, closing, taken in (("/things", b"", b"", 201), ("/hot", b"[", b"]", 200)):
        for text in [*IMPOSSIBLE, *POSSIBLE]:
            body = opening + b'{"name": "x", "notes": {"deep": [' + text + b"]}}" + closing
            answer = await shop.client.post(path, content=body, headers=headers)
            found[path, text] = answer.status_code
            expected[path, text] = refused if text in IMPOSSIBLE else taken
            if answer.status_code >= 400:
                document = answer.json()
                same = (document["status"], document["request_id"]) == (400, answer.headers["x-request-id"])
                found[path, text] = (answer.status_code, answer.headers["content-type"], document["type"], same)
    assert found == expected


async def test_nul_in_the_path_or_the_query(shop: Kit) -> None:
    problem(await shop.client.get("/things?cursor=a%00b"), 400, "malformed-request")
    problem(await shop.client.get("/thi%00ngs"), 400, "malformed-request")


async def test_a_declared_body_over_the_limit(shop: Kit) -> None:
    headers = {**KEY, "content-type": "application/json"}
    document = problem(await shop.client.post("/things", content=b"x" * 10_001, headers=headers), 413, "body-too-large")
    assert document["bytes_max"] == 10_000


async def test_a_chunked_body_over_the_limit(shop: Kit) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(11):
            yield b" " * 1_000

    headers = {**KEY, "content-type": "application/json"}
    problem(await shop.client.post("/hot", content=chunks(), headers=headers), 413, "body-too-large")


async def test_a_chunked_body_within_the_limit_is_read_whole(shop: Kit) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for byte in json.dumps([GOOD]).encode():
            yield bytes([byte])

    response = await shop.client.post("/hot", content=chunks(), headers={**KEY, "content-type": "application/json"})
    assert response.json() == 1


async def test_the_unexpected_is_500_with_the_request_id_and_nothing_else(
    shop: Kit, capsys: pytest.CaptureFixture[str]
) -> None:
    from accord.telemetry import configure_logging

    configure_logging("info")
    response = await shop.client.get("/things/broken", headers={"X-Request-Id": "trouble-1"})
    document = problem(response, 500, "internal")
    assert document["request_id"] == "trouble-1"
    assert "initech" not in response.text
    assert "Traceback" not in response.text
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    failed = next(line for line in lines if line["event"] == "request_failed")
    assert failed["request_id"] == "trouble-1"
    assert failed["error"] == "ValueError"
    assert any("test_problems.py" in frame for frame in failed["stack"])
    assert all("initech" not in json.dumps(line) for line in lines)


async def test_overload_says_when_to_come_back(shop: Kit) -> None:
    response = await shop.client.get("/things/busy")
    problem(response, 503, "overloaded")
    assert int(response.headers["retry-after"]) >= 1


@pytest.mark.parametrize(("about_s", "least", "most"), [(None, 1, 3), (1.0, 1, 2), (30.0, 15, 45)])
def test_who_is_sent_away_at_one_moment_does_not_come_back_at_one_moment(
    about_s: float | None, least: int, most: int
) -> None:
    waits = {int((overloaded(about_s).headers or {})["Retry-After"]) for _ in range(300)}
    assert len(waits) > 1
    assert least <= min(waits) <= max(waits) <= most


async def test_a_request_id_that_is_not_short_and_plain_is_replaced(shop: Kit) -> None:
    for sent in ("", "a b", "x" * 65, "ö", "a\tb", "-x", "<script>"):
        response = await shop.client.get("/things", headers={"X-Request-Id": sent.encode("latin-1")})
        assert response.headers["x-request-id"] != sent
        assert len(response.headers["x-request-id"]) == 36, sent


async def test_a_request_id_is_taken_over(shop: Kit) -> None:
    response = await shop.client.get("/things", headers={"X-Request-Id": "order-42"})
    assert response.headers["x-request-id"] == "order-42"
