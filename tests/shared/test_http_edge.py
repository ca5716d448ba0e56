"""What a client may cost before it has said who it is, and how long it may keep anybody waiting: a real process, raw sockets."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from kit_main import build
from prometheus_client import generate_latest
from raw_http import RawAnswer, RawClient, connect, connected, metric
from shared_kit import KEYS, Kit, until, write_keys
from shared_process import process

from accord.agreements import agreement_collector
from accord.collectors import CollectorSet
from accord.service import create_app, serve
from accord.settings import Settings

MIB = 1024 * 1024
KNOWN = f"Bearer {KEYS['marketing'][0]}"
"""Has leads:read."""
SCOPELESS = f"Bearer {KEYS['reader'][0]}"
LOADERS: dict[str, tuple[str, str | None, list[str]]] = {
    "one": ("key-one", None, ["leads:read"]),
    "two": ("key-two", None, ["leads:read"]),
}
HURRIED = {"head_timeout_s": 0.4, "body_stall_s": 0.4, "body_rate_min_bytes_per_s": 1_000}
PATIENT = {"head_timeout_s": 60, "body_stall_s": 60}


@asynccontextmanager
async def serving(url: str, tmp_path: Path, **settings: Any) -> AsyncIterator[int]:
    """The kit behind a socket, in this process; its port."""
    keys = write_keys(tmp_path / "keys.yaml", KEYS | LOADERS)
    service = build(
        Settings(database_url=url, kafka_bootstrap_servers="127.0.0.1:1", api_keys_file=keys, drain_s=3, **settings)
    )
    server = serve(create_app(service), service.settings)
    with socket.create_server(("127.0.0.1", 0), backlog=2_048) as listening:
        running = asyncio.create_task(server.serve_on(listening))
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            await running
            await service.database.dispose()


@asynccontextmanager
async def running(url: str, tmp_path: Path, **environment: str) -> AsyncIterator[int]:
    """The kit as a process of its own; its port."""
    async with process(url, tmp_path, "api", **environment) as started:
        port = (await started.logged("started"))["port"]
        logging = asyncio.create_task(started.end())  # reads on, so that the process never waits for its log
        try:
            yield port
        finally:
            started.process.kill()
            await logging


async def fetch(port: int, path: str = "/measure") -> RawAnswer:
    """What a client that does nothing wrong is answered."""
    async with connected(port) as (client,):
        await client.head("POST", path, Content_Length=3, Authorization=KNOWN)
        await client.send(b"abc")
        return await client.answer()


# the key and the route come before the body --------------------------------------------------------------------------
BEFORE_THE_BODY: list[tuple[str, str, dict[str, str], int]] = [
    ("POST", "/nowhere", {}, 404),
    ("POST", "/nowhere", {"Authorization": KNOWN}, 404),
    ("PUT", "/measure", {}, 405),
    ("DELETE", "/v1/policy/versions", {}, 405),
    *[
        ("POST", path, headers, status)
        for path in ("/measure", "/stream", "/model", "/v1/policy/versions")
        for headers, status in (
            ({}, 401),
            ({"Authorization": "Bearer nobody-knows-it"}, 401),
            ({"Authorization": SCOPELESS}, 403),
        )
    ],
    *[("POST", path, {"Authorization": KNOWN}, 413) for path in ("/measure", "/model", "/v1/policy/versions")],
    ("POST", "/hook", {}, 413),
]


@pytest.mark.parametrize("size", [9 * MIB, None], ids=["declared", "chunked"])
async def test_route_key_and_size_are_answered_before_any_body_is_sent(
    kit_database: str, tmp_path: Path, size: int | None
) -> None:
    framing: dict[str, Any] = {"Transfer-Encoding": "chunked"} if size is None else {"Content-Length": size}
    async with serving(kit_database, tmp_path) as port:
        for method, path, headers, status in BEFORE_THE_BODY:
            if size is None and status == 413:
                continue
            async with connected(port) as (client,):
                await client.head(method, path, Content_Type="application/json", **framing, **headers)
                answer = await client.answer()
                assert answer.status == status, (method, path, headers)
                assert answer.headers["content-type"] == "application/problem+json"
                assert answer.json()["request_id"] == answer.headers["x-request-id"]
                # So much is not worth waiting for.
                assert answer.headers["connection"] == "close"
                assert await client.is_closed()
        assert (await fetch(port)).body == b"3"


async def test_a_small_body_of_a_refused_request_does_not_cost_the_connection(
    kit_database: str, tmp_path: Path
) -> None:
    async with serving(kit_database, tmp_path) as port, connected(port) as (client,):
        for _ in range(3):
            await client.head("POST", "/measure", Content_Length=5)
            assert (await client.answer()).status == 401
            await client.send(b"abcde")
            await client.head("POST", "/measure", Content_Length=5, Authorization=KNOWN)
            await client.send(b"abcde")
            assert (await client.answer()).body == b"5"


async def test_who_asks_before_sending_is_answered_before_sending(kit_database: str, tmp_path: Path) -> None:
    async with serving(kit_database, tmp_path) as port:
        async with connected(port) as (client,):
            await client.head("POST", "/measure", Content_Length=5, Expect="100-continue")
            answer = await client.answer()
            assert (answer.status, answer.headers["connection"]) == (401, "close")
        async with connected(port) as (client,):
            await client.head("POST", "/measure", Content_Length=5, Expect="100-continue", Authorization=KNOWN)
            assert (await client.answer()).status == 100
            await client.send(b"abcde")
            assert (await client.answer()).body == b"5"


async def test_a_client_that_sends_on_reads_its_answer_all_the_same(kit_database: str, tmp_path: Path) -> None:
    async with serving(kit_database, tmp_path) as port:
        for path in ("/nowhere", "/measure"):
            async with connected(port) as (client,):
                await client.head("POST", path, Content_Length=8 * MIB)
                await client.send(b"x" * 8 * MIB)
                assert (await client.answer()).status in (401, 404)


# how much --------------------------------------------------------------------------------------------------------------
@pytest.mark.slow
async def test_two_hundred_large_bodies_without_a_key_are_not_kept(kit_database: str, tmp_path: Path) -> None:
    async with running(kit_database, tmp_path) as port:
        before = await metric(port, "process_resident_memory_bytes")

        async def flood(client: RawClient, path: str) -> None:
            """All but the end."""
            await client.head("POST", path, Content_Length=8 * MIB)
            for _ in range(7 * 16):
                await client.send(b"x" * (MIB // 16))

        async with connected(port, 200) as clients:
            answering = [asyncio.create_task(client.answer()) for client in clients]
            await asyncio.gather(
                *(flood(client, path) for client, path in zip(clients, ("/nowhere", "/measure") * 100, strict=True))
            )
            # 1,400 MiB were sent. What a socket's read may hold of each is not much.
            assert await metric(port, "process_resident_memory_bytes") - before < 200 * MIB
            assert {answer.status for answer in await asyncio.gather(*answering)} == {401, 404}


async def test_bytes_of_bodies_in_flight_are_bounded_for_each_key_and_in_all(kit_database: str, tmp_path: Path) -> None:
    """64 MiB by default: half of it for one key, a quarter for who has none."""

    async def refused(port: int, path: str, **headers: str) -> None:
        async with connected(port) as (client,):
            await client.head("POST", path, Content_Length=8 * MIB, **headers)
            await client.send(b"x" * (1 if headers else 8 * MIB))
            answer = await client.answer()
            assert (answer.status, answer.json()["type"]) == (503, "/problems/overloaded")
            assert int(answer.headers["retry-after"]) >= 1

    async def await_bytes_in_flight(port: int, size: int) -> None:
        async def has_size() -> bool:
            return await metric(port, "accord_http_body_bytes_in_flight") == size

        await until(has_size)

    async with serving(kit_database, tmp_path) as port:
        async with connected(port, 8) as clients, connected(port, 2) as strangers:
            for number, client in enumerate(clients):
                key = ("key-one", "key-two")[number // 4]
                await client.head("POST", "/measure", Content_Length=8 * MIB, Authorization=f"Bearer {key}")
                if number == 3:
                    await await_bytes_in_flight(port, 32 * MIB)
                    await refused(port, "/measure", Authorization="Bearer key-one")
                    for stranger in strangers:
                        await stranger.head("POST", "/hook", Content_Length=8 * MIB)
                        await stranger.send(b"x" * (8 * MIB - 1))
                    await await_bytes_in_flight(port, 48 * MIB - 2)
                    await refused(port, "/hook")
                    for stranger in strangers:
                        await stranger.send(b"x")
                        assert (await stranger.answer()).body == str(8 * MIB).encode()
                    await await_bytes_in_flight(port, 32 * MIB)
            await await_bytes_in_flight(port, 64 * MIB)
            await refused(port, "/measure", Authorization="Bearer key-two")
            await clients[0].send(b"x" * 8 * MIB)
            assert (await clients[0].answer()).body == str(8 * MIB).encode()
            await await_bytes_in_flight(port, 56 * MIB)
        await await_bytes_in_flight(port, 0)


@pytest.mark.slow
async def test_half_sent_requests_hold_nobody_up(kit_database: str, tmp_path: Path) -> None:
    """More than requests may be in flight, of each kind: in the head, in the body with a key, in the body of a hook."""
    async with running(kit_database, tmp_path, ACCORD_BODY_STALL_S="60", ACCORD_HEAD_TIMEOUT_S="60") as port:
        async with connected(port, 1_010) as with_key, connected(port, 400) as without, connected(port, 400) as heads:
            for client in with_key:
                await client.head("POST", "/measure", Content_Length=100, Authorization=KNOWN)
                await client.send(b"x")
            for client in without:
                await client.head("POST", "/hook", Content_Length=100)
            for client in heads:
                await client.send(b"POST /measure HTTP/1.1\r\nHost:")
            answers = await asyncio.gather(
                *(fetch(port) for _ in range(50)), *(fetch(port, path="/hook") for _ in "12")
            )
            assert {answer.status for answer in answers} == {200}
            assert await metric(port, "accord_http_requests_in_flight") < 10
            for client in with_key:
                await client.send(b"x" * 99)
            assert {(await client.answer()).status for client in with_key} <= {200, 503}
        assert (await fetch(port)).status == 200


async def test_too_many_connections_of_strangers_make_room_for_others(kit_database: str, tmp_path: Path) -> None:
    async def are_read() -> bool:
        return await metric(port, "accord_http_body_bytes_in_flight") > MIB

    half = b"c350\r\n" + b"x" * 50_000 + b"\r\n"
    async with (
        serving(kit_database, tmp_path, connections_max=30, **PATIENT) as port,
        connected(port, 2) as (upload, chunked),
    ):
        # Who is known and brings much is not sent away for them, said beforehand or not.
        await upload.head("POST", "/stream", Content_Length=100_000, Authorization=KNOWN)
        await upload.send(b"x" * 50_000)
        await chunked.head("POST", "/measure", Transfer_Encoding="chunked", Authorization=KNOWN)
        await chunked.send(half)
        await until(are_read)
        async with connected(port, 10) as idle, connected(port, 30) as heads, connected(port, 40) as bodies:
            for client in heads:
                await client.send(b"GET / HTTP/1.1\r\n")
            for client in bodies:
                await client.head("POST", "/hook", Content_Length=100)
                assert (await fetch(port)).status == 200
            assert await idle[0].is_closed()
            assert await heads[0].is_closed()
            assert await metric(port, "accord_http_connections") <= 30
        await upload.send(b"x" * 50_000)
        assert (await upload.answer()).body == b"100000"
        await chunked.send(half + b"0\r\n\r\n")
        assert (await chunked.answer()).body == b"100000"


async def test_connections_that_are_all_busy_let_no_more_in(kit_database: str, tmp_path: Path) -> None:
    async with serving(kit_database, tmp_path, connections_max=5, **PATIENT) as port, connected(port, 5) as busy:
        for client in busy:
            await client.head("POST", "/stream", Content_Length=9, Authorization=KNOWN, Expect="100-continue")
            assert (await client.answer()).status == 100
        async with connected(port) as (late,):
            answer = await late.answer()
            assert (answer.status, answer.json()["type"]) == (503, "/problems/overloaded")
            assert int(answer.headers["retry-after"]) >= 1
        for client in busy:
            await client.send(b"x" * 9)
            assert (await client.answer()).status == 200


# the head ------------------------------------------------------------------------------------------------------------
LARGE = b"x" * 70_000
HEADS = {
    "one line": b"GET /livez HTTP/1.1\r\nX-Large: " + LARGE + b"\r\n\r\n",
    "many lines": b"GET /livez HTTP/1.1\r\n" + b"X-Large: yes\r\n" * 6_000 + b"\r\n",
    "a name": b"GET /livez HTTP/1.1\r\n" + LARGE + b": yes\r\n\r\n",
    "the path": b"GET /livez?" + LARGE + b" HTTP/1.1\r\n\r\n",
    "empty lines": b"\r\n" * 40_000,
}


@pytest.mark.parametrize("portion", [1_000_000, 1_000], ids=["at once", "in portions"])
@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
async def test_a_head_over_its_size_is_431(kit_database: str, tmp_path: Path, head: bytes, portion: int) -> None:
    async with serving(kit_database, tmp_path) as port, connected(port) as (client,):
        for at in range(0, len(head), portion):
            await client.send(head[at : at + portion])
        answer = await client.answer()
        assert (answer.status, answer.json()["type"]) == (431, "/problems/request-head-too-large")
        assert answer.json()["bytes_max"] == 65_536
        assert answer.json()["request_id"] == answer.headers["x-request-id"]
        assert await client.is_closed()


async def test_a_header_without_end_ends_with_431_and_others_are_served(kit_database: str, tmp_path: Path) -> None:
    async with serving(kit_database, tmp_path) as port, connected(port) as (client,):
        await client.send(b"GET /livez HTTP/1.1\r\nX-Large: ")
        for _ in range(100):
            await client.send(b"x" * MIB)
            if client.reader.at_eof():
                break
        assert (await fetch(port)).status == 200
        assert (await client.answer()).status == 431


async def test_a_head_of_just_its_size_is_read(kit_database: str, tmp_path: Path) -> None:
    async with serving(kit_database, tmp_path) as port, connected(port) as (client,):
        for _ in range(2):
            head = b"GET /livez HTTP/1.1\r\nHost: kit\r\nX-Large: "
            await client.send(head + b"x" * (65_536 - len(head) - 4) + b"\r\n\r\n")
            assert (await client.answer()).status == 200


@pytest.mark.parametrize(
    "junk",
    [b"1;" + 3 * LARGE, b"1;x=" + 3 * LARGE, b"0\r\nX-Large: " + 3 * LARGE],
    ids=["extension", "value", "trailer"],
)
async def test_what_stands_around_the_pieces_of_a_body_is_bounded_like_a_head(
    kit_database: str, tmp_path: Path, junk: bytes
) -> None:
    async with serving(kit_database, tmp_path) as port, connected(port) as (client,):
        await client.head("POST", "/measure", Transfer_Encoding="chunked", Authorization=KNOWN)
        await client.send(junk)
        assert (await client.answer()).status == 431
        assert await client.is_closed()


async def test_what_is_not_http_is_a_problem_too(kit_database: str, tmp_path: Path) -> None:
    async with serving(kit_database, tmp_path) as port:
        for junk in (b"HELLO\r\n\r\n", b"\x16\x03\x01\x02", b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n"):
            async with connected(port) as (client,):
                await client.send(junk)
                answer = await client.answer()
                assert (answer.status, answer.json()["type"]) == (400, "/problems/malformed-request")
                assert await client.is_closed()
        async with connected(port) as (client,):
            await client.head("POST", "/measure", Transfer_Encoding="chunked", Authorization=KNOWN)
            await client.send(b"3\r\nabc\r\nno length\r\n")
            assert (await client.answer()).status == 400
            assert await client.is_closed()


async def test_requests_in_a_row_are_answered_in_their_order_and_not_queued_without_end(
    kit_database: str, tmp_path: Path
) -> None:
    async with serving(kit_database, tmp_path) as port:
        async with connected(port) as (client,):
            bodies = [b"x" * size for size in range(1, 11)]
            head = f"POST /measure HTTP/1.1\r\nHost: kit\r\nAuthorization: {KNOWN}\r\nContent-Length: "
            await client.send(b"".join(head.encode() + b"%d\r\n\r\n" % len(body) + body for body in bodies))
            assert [int((await client.answer()).body) for _ in bodies] == list(range(1, 11))
        async with connected(port) as (client,):
            await client.send(b"GET /livez HTTP/1.1\r\nHost: kit\r\n\r\n" * 5_000)
            answered = 0
            while not client.reader.at_eof() and answered < 5_000:
                try:
                    await client.answer()
                except asyncio.IncompleteReadError:
                    break
                answered += 1
            assert answered < 100


# how long ------------------------------------------------------------------------------------------------------------
async def test_a_head_that_stalls_is_408_and_a_connection_without_one_is_closed(
    kit_database: str, tmp_path: Path
) -> None:
    async with serving(kit_database, tmp_path, **HURRIED) as port, connected(port, 3) as (silent, stalled, second):
        await stalled.send(b"GET /livez HTTP/1.1\r\nHost:")
        await second.head("GET", "/livez")
        assert (await second.answer()).status == 200
        await second.send(b"GET /livez HTTP/1.1\r\n")
        for client in (stalled, second):
            answer = await client.answer()
            assert (answer.status, answer.json()["type"]) == (408, "/problems/request-timeout")
            assert await client.is_closed()
        assert await silent.is_closed()


BODIES = [
    ("/measure", {"Authorization": KNOWN}),
    ("/stream", {"Authorization": KNOWN}),
    ("/model", {"Authorization": KNOWN}),
    ("/hook", {}),
]


@pytest.mark.parametrize(("path", "headers"), BODIES)
async def test_a_body_that_stalls_is_408(kit_database: str, tmp_path: Path, path: str, headers: dict[str, str]) -> None:
    async with serving(kit_database, tmp_path, **HURRIED) as port:
        for start in (b"", b"x" * 500, b"x" * 300_000):
            async with connected(port) as (client,):
                await client.head("POST", path, Content_Length=400_000, Content_Type="application/json", **headers)
                await client.send(start)
                answer = await client.answer()
                assert (answer.status, answer.json()["type"]) == (408, "/problems/request-timeout")
                assert answer.headers["connection"] == "close"
                assert await client.is_closed()


async def test_who_does_not_read_its_answer_is_cut_off(kit_database: str, tmp_path: Path) -> None:
    async with serving(kit_database, tmp_path, answer_stall_s=0.5) as port:
        client = await connect(port)
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await client.head("GET", "/endless")

        async def is_free() -> bool:
            in_flight = await metric(port, "accord_http_requests_in_flight")
            return in_flight == 0 and await metric(port, "accord_http_connections") == 1  # the one that asks

        await until(is_free)
        client.writer.transport.abort()


@pytest.mark.slow
async def test_half_sent_requests_do_not_hold_the_end_of_the_process(kit_database: str, tmp_path: Path) -> None:
    async with process(kit_database, tmp_path, "api", ACCORD_DRAIN_S="3") as started:
        port = (await started.logged("started"))["port"]
        async with connected(port, 3) as (idle, head, body):
            await head.send(b"GET /livez HTTP/1.1\r\n")
            await body.head("POST", "/measure", Content_Length=10, Authorization=KNOWN)
            assert (await fetch(port)).status == 200
            assert await started.end(signal.SIGTERM) == 0
            assert await idle.is_closed()


async def test_root_leads_to_pages_that_need_no_other_host(kit: Kit) -> None:
    root = await kit.client.get("/")
    assert (root.status_code, root.headers["location"]) == (307, "docs")
    page = (await kit.client.get("/docs")).text
    addresses = re.findall(r'(?:href|src)="([^"]+)"', page) + re.findall(r"url: '([^']+)'", page)
    assert len(addresses) == 4
    for address in addresses:
        assert "//" not in address
        assert (await kit.client.get(f"/{address}")).status_code == 200, address


async def test_method_that_is_not_allowed_is_told_all_that_are(kit: Kit) -> None:
    answer = await kit.client.delete("/v1/policy/versions")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, POST")
    assert (await kit.client.post("/v1/policy/versions/1/paper")).headers["allow"] == "GET"


async def test_version_in_force_is_read_at_the_scrape_and_counters_have_no_second_series(kit: Kit) -> None:
    collectors = CollectorSet([agreement_collector(kit.store)])
    await collectors.refresh()
    text = generate_latest().decode()
    assert 'accord_agreement_active_version{kind="policy"} 0.0' in text
    assert "_created" not in text
