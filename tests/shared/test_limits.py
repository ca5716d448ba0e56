"""What bounds requests: the rate of a key, requests in flight, and bodies that are streamed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
from fastapi import APIRouter
from hypothesis import given
from hypothesis import strategies as st
from shared_kit import auth, service_kit
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from accord.http.limits import TokenBuckets


@given(st.lists(st.floats(0, 5), max_size=60), st.integers(1, 10), st.floats(0.5, 20))
def test_a_bucket_never_gives_more_than_burst_and_rate(waits: list[float], burst: int, rate: float) -> None:
    buckets = TokenBuckets(rate, burst)
    now, allowed = 0.0, 0
    for wait in waits:
        now += wait
        taken = buckets.take("key", now)
        allowed += taken.allowed
        assert taken.allowed == (taken.retry_after_s == 0)
        assert allowed <= burst + now * rate + 1e-6


def test_after_retry_after_a_request_is_allowed() -> None:
    buckets = TokenBuckets(0.3, 1)
    assert buckets.take("key", 0.0).allowed
    refused = buckets.take("key", 0.0)
    assert not refused.allowed
    assert buckets.take("key", float(refused.retry_after_s)).allowed
    assert buckets.take("other", 0.0).allowed


async def test_a_key_over_its_rate_is_answered_with_retry_after(kit_database: str, tmp_path: Path) -> None:
    async with service_kit(kit_database, tmp_path, rate_limit_per_s=0.01, rate_limit_burst=2) as shop:
        first = await shop.client.get("/v1/policy/versions", headers=auth("reader"))
        assert first.status_code == 200
        assert first.headers["ratelimit-policy"] == '"key";q=2;w=200'
        assert first.headers["ratelimit"].startswith('"key";r=1;t=')
        await shop.client.get("/v1/policy/versions", headers=auth("reader"))
        over = await shop.client.get("/v1/policy/versions", headers=auth("reader"))
        assert over.status_code == 429
        assert 90 <= int(over.headers["retry-after"]) <= 100
        assert over.json()["type"] == "/problems/too-many-requests"
        assert (await shop.client.get("/v1/policy/versions", headers=auth("sales"))).status_code == 200


async def test_the_rate_is_taken_before_the_scope_is_looked_at(kit_database: str, tmp_path: Path) -> None:
    async with service_kit(kit_database, tmp_path, rate_limit_per_s=0.01, rate_limit_burst=1) as shop:
        answers = [await shop.client.post("/v1/policy/versions", headers=auth("reader"), content=b"x") for _ in "12"]
        assert [answer.status_code for answer in answers] == [403, 429]


async def test_one_request_more_than_can_be_taken_is_503_before_any_work(kit_database: str, tmp_path: Path) -> None:
    release, entered = asyncio.Event(), asyncio.Semaphore(0)
    router = APIRouter()
    work = 0

    @router.post("/slow")
    async def slow() -> str:
        nonlocal work
        work += 1
        entered.release()
        await release.wait()
        return "done"

    async with service_kit(kit_database, tmp_path, router, requests_in_flight_max=3) as shop:
        running = [asyncio.create_task(shop.client.post("/slow")) for _ in range(3)]
        for _ in running:
            await entered.acquire()
        refused = await shop.client.post("/slow")
        assert refused.status_code == 503
        assert 1 <= int(refused.headers["retry-after"]) <= 3
        assert refused.json()["type"] == "/problems/overloaded"
        assert work == 3
        assert (await shop.client.get("/livez")).status_code == 200
        release.set()
        assert {response.status_code for response in await asyncio.gather(*running)} == {200}
        assert (await shop.client.post("/slow")).status_code == 200


async def test_a_streamed_body_has_its_own_limit_and_arrives_in_pieces(kit_database: str, tmp_path: Path) -> None:
    pieces: list[int] = []

    async def take(request: Request) -> PlainTextResponse:
        pieces.extend([len(piece) async for piece in request.stream()])
        return PlainTextResponse(str(sum(pieces)))

    async def chunks(count: int) -> AsyncIterator[bytes]:
        for _ in range(count):
            yield b"x" * 100

    routes = [Route("/v1/imports", take, methods=["POST"])]
    async with service_kit(
        kit_database, tmp_path, routes=routes, streamed_bytes_max={"/v1/imports": 1_000}, body_bytes_max=200
    ) as shop:
        fits = await shop.client.post("/v1/imports", content=chunks(10))
        assert fits.text == "1000"
        assert pieces.count(100) == 10
        over: httpx.Response = await shop.client.post("/v1/imports", content=chunks(11))
        assert over.status_code == 413
        assert over.json()["bytes_max"] == 1_000
        declared = await shop.client.post("/v1/imports", content=b"x" * 1_001)
        assert declared.status_code == 413
