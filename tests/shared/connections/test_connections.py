"""Which connections may stay: who reads or sends too slowly, who makes room, what is left of them. Sockets of the system; the time is the
test's."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from kit_main import build
from msgspec.structs import replace
from raw_http import PATIENCE_S, RawClient, connected
from shared_kit import KEYS, until, write_keys
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

from accord.http.bodies import BodyReader
from accord.http.connections import BoundedProtocol, ConnectionLimits, Connections
from accord.service import create_app
from accord.settings import Settings

KIB, MIB = 1024, 1024 * 1024
LARGE = 600 * KIB
"""More than the system keeps for both sides."""
KNOWN = f"Bearer {KEYS['marketing'][0]}"
LIMITS = ConnectionLimits(
    connections_max=1_000,
    head_bytes_max=64 * KIB,
    head_timeout_s=10,
    body_stall_s=10,
    rate_min_bytes_per_s=4 * KIB,
    answer_stall_s=60,
    unread_bytes_max=64 * MIB,
)


@dataclass
class Edge:
    """An app behind a socket whose connections are checked when the test says so."""

    port: int
    connections: Connections
    state: ServerState
    now: float = 1_000.0

    def open(self) -> list[BoundedProtocol]:
        return [one for one in self.state.connections if isinstance(one, BoundedProtocol)]

    def unread(self) -> list[BoundedProtocol]:
        return [one for one in self.open() if one.flow.write_paused]

    def pass_time(self, seconds: int) -> None:
        """Check once a second."""
        for _ in range(seconds):
            self.now += 1
            self.connections.check(self.now)

    def stand_still(self, seconds: int) -> None:
        """Check after so many seconds only."""
        self.now += seconds
        self.connections.check(self.now)

    async def await_open(self, count: int) -> None:
        async def are_open() -> bool:
            return len(self.open()) == count

        await until(are_open)

    async def await_unread(self, count: int) -> None:
        async def are_unread() -> bool:
            return len(self.unread()) == count

        await until(are_unread)

    def connection_of(self, client: RawClient) -> BoundedProtocol:
        name = client.writer.get_extra_info("sockname")[:2]
        (found,) = [one for one in self.open() if one.client == name]
        return found

    async def await_received(self, client: RawClient, size: int) -> None:
        """Until so many bytes of bodies have come from this client."""

        async def have_come() -> bool:
            return self.connection_of(client)._body_bytes == size

        await until(have_come)


@asynccontextmanager
async def listening(app: ASGIApp, **limits: Any) -> AsyncIterator[Edge]:
    connections, state = Connections(replace(LIMITS, **limits)), ServerState()
    config = uvicorn.Config(app, ws="none", lifespan="off", log_config=None, access_log=False)
    with socket.create_server(("127.0.0.1", 0), backlog=2_048) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32 * KIB)  # inherited: little stays in the system
        server = await asyncio.get_running_loop().create_server(
            lambda: connections.protocol(config=config, server_state=state, app_state={}), sock=sock
        )
        edge = Edge(sock.getsockname()[1], connections, state)
        connections.check(edge.now)
        try:
            yield edge
        finally:
            server.close()
            for connection in edge.open():
                connection.evict("connections")
            await edge.await_open(0)


@asynccontextmanager
async def deaf_clients(port: int, count: int) -> AsyncIterator[list[RawClient]]:
    """Clients that read nothing, and whose system keeps little for them. `resume_reading` makes one read."""
    clients = []
    for _ in range(count):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * KIB)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        clients.append(RawClient(*await asyncio.open_connection(sock=sock, limit=4 * MIB)))
        clients[-1].writer.transport.pause_reading()  # type: ignore[attr-defined]
    try:
        yield clients
    finally:
        for client in clients:
            client.writer.transport.abort()


class Counting:
    """Answers each request with so many bytes at once, after `gate`, and counts them."""

    def __init__(self, size: int) -> None:
        self.answer = b"x" * size
        self.begun = self.working = self.working_max = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.begun += 1
        self.working += 1
        self.working_max = max(self.working, self.working_max)
        try:
            await self.gate.wait()
            length = str(len(self.answer)).encode()
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
            await send({"type": "http.response.body", "body": self.answer})
        finally:
            self.working -= 1

    async def await_working(self, count: int) -> None:
        """Until so many requests wait for the gate."""

        async def are_working() -> bool:
            return self.working == count

        await until(are_working)


def kit_app(tmp_path: Path, **settings: Any) -> ASGIApp:
    """The kit, whose servers are all away."""
    return create_app(
        build(
            Settings(
                database_url="postgresql://nobody@127.0.0.1:1/none",
                kafka_bootstrap_servers="127.0.0.1:1",
                api_keys_file=write_keys(tmp_path / "keys.yaml"),
                **settings,
            )
        )
    )


# answers that are not read -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", [LARGE, 60 * KIB])
async def test_a_request_behind_an_answer_that_is_not_read_is_not_begun(size: int) -> None:
    app = Counting(size)
    async with listening(app) as edge, deaf_clients(edge.port, 20) as clients:
        for client in clients:
            for _ in range(10):
                await client.head("GET", "/")
        await edge.await_unread(20)
        assert app.working == 0
        assert app.begun < 20 * 10
        for client in clients:
            client.writer.transport.resume_reading()  # type: ignore[attr-defined]
            for _ in range(10):
                assert (await client.answer()).body == app.answer
        assert app.begun == 20 * 10


async def test_a_request_that_comes_after_an_answer_that_is_not_read_waits_until_it_is() -> None:
    app = Counting(LARGE)
    async with listening(app) as edge, deaf_clients(edge.port, 1) as (client,):
        await client.head("GET", "/")
        await edge.await_unread(1)
        await client.head("GET", "/")
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        for _ in range(2):
            assert (await client.answer()).body == app.answer
        await edge.await_unread(0)
        await client.head("GET", "/")
        assert (await client.answer()).body == app.answer


async def test_a_connection_with_an_answer_that_is_not_read_makes_room_and_is_closed_at_once() -> None:
    app = Counting(LARGE)
    async with listening(app, connections_max=5) as edge, AsyncExitStack() as stack:
        for _ in range(50):
            (client,) = await stack.enter_async_context(deaf_clients(edge.port, 1))
            await client.head("GET", "/")
            async with connected(edge.port) as (other,):
                await other.head("GET", "/")
                assert (await other.answer()).body == app.answer
        assert len(edge.open()) <= 5
        assert app.begun == 100


async def test_an_answer_that_is_still_being_made_and_is_not_read_makes_room_too() -> None:
    is_over = False

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while scope["path"] == "/endless" and not is_over:
            await send({"type": "http.response.body", "body": b"x" * KIB, "more_body": True})
            await asyncio.sleep(0)  # sending to a client that has gone waits for nothing
        await send({"type": "http.response.body", "body": b""})

    async with listening(app, connections_max=1) as edge, deaf_clients(edge.port, 1) as (client,):
        await client.head("GET", "/endless")
        await edge.await_unread(1)
        async with connected(edge.port) as (other,):
            await other.head("GET", "/")
            assert (await other.answer()).status == 200
        await edge.await_open(0)
        is_over = True


async def test_whatever_is_left_of_an_answer_counts_as_not_read() -> None:
    app, asked = Counting(20 * KIB), 0
    async with listening(app) as edge, deaf_clients(edge.port, 1) as (client,):

        async def is_answered() -> bool:
            return app.begun == asked and app.working == 0

        left = 0
        while not left:
            asked += 1
            await client.head("GET", "/")
            await until(is_answered)
            connection = edge.connection_of(client)
            left = connection._raw_transport.get_write_buffer_size() if connection._raw_transport is not None else 0
        assert left < 64 * KIB
        assert edge.unread() == [connection]


async def test_answers_that_are_not_read_hold_no_more_bytes_than_they_may() -> None:
    app = Counting(LARGE)
    async with listening(app, unread_bytes_max=2 * MIB) as edge, deaf_clients(edge.port, 20) as clients:
        for number, client in enumerate(clients, 1):
            await client.head("GET", "/")

            async def is_bounded() -> bool:
                unread = [one._raw_transport for one in edge.unread()]
                held = sum(bare.get_write_buffer_size() for bare in unread if bare is not None)
                return app.begun == number and MIB // 4 < held <= 2 * MIB  # noqa: B023

            await until(is_bounded)
        clients[-1].writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert (await clients[-1].answer()).body == app.answer


@pytest.mark.parametrize(("bytes_per_s", "is_cut_off"), [(0, True), (1 * KIB, True), (3 * KIB, True), (8 * KIB, False)])
async def test_who_reads_an_answer_more_slowly_than_the_minimum_rate_is_cut_off(
    bytes_per_s: int, is_cut_off: bool
) -> None:
    loop, second = asyncio.get_running_loop(), 0
    async with listening(Counting(4 * MIB)) as edge:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * KIB)
            client.setblocking(False)
            await loop.sock_connect(client, ("127.0.0.1", edge.port))
            await loop.sock_sendall(client, b"GET / HTTP/1.1\r\nHost: kit\r\n\r\n")
            await edge.await_unread(1)
            while second < 300:
                rest = bytes_per_s
                while rest:
                    rest -= len(await loop.sock_recv(client, rest))
                second += 1
                edge.pass_time(1)
                if any(one._raw_transport.is_closing() for one in edge.unread() if one._raw_transport is not None):
                    break
            assert second >= 60
            assert (second < 300) is is_cut_off


async def test_the_request_of_a_lost_connection_is_notified_and_those_behind_it_are_not_begun() -> None:
    begun, told = [], asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        begun.append(scope["path"])
        while (await receive())["type"] != "http.disconnect":
            pass
        told.set()

    async with listening(app) as edge:
        async with connected(edge.port) as (client,):
            for path in ("/first", "/second", "/third"):
                await client.head("GET", path)

            async def are_waiting() -> bool:
                return any(len(one.pipeline) == 2 for one in edge.open())

            await until(are_waiting)
        async with asyncio.timeout(PATIENCE_S):
            await told.wait()
        await edge.await_open(0)

        async def is_over() -> bool:
            return not edge.state.tasks

        await until(is_over)
    assert begun == ["/first"]


# bodies ------------------------------------------------------------------------------------------------------------------
async def test_a_body_that_the_app_asks_for_late_is_not_late() -> None:
    gate = asyncio.Event()
    size = 300 * KIB

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await gate.wait()
        body = bytearray()
        while (message := await receive())["type"] == "http.request":
            body += message["body"]
            if not message["more_body"]:
                break
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"6")]})
        await send({"type": "http.response.body", "body": str(len(body)).encode()})

    async with listening(app) as edge, connected(edge.port) as (client,):
        await client.head("POST", "/", Content_Length=size)
        sending = asyncio.create_task(client.send(b"x" * size))

        async def is_full() -> bool:
            return any(one.flow.read_paused for one in edge.open())

        await until(is_full)
        edge.pass_time(60)
        gate.set()
        assert (await client.answer()).body == str(size).encode()
        await sending


async def test_a_slow_upload_goes_on_as_long_as_it_is_steady(tmp_path: Path) -> None:
    async with (
        listening(kit_app(tmp_path)) as edge,
        connected(edge.port, 2) as (steady, trickling),
    ):
        for client, path in ((steady, "/stream"), (trickling, "/stream")):
            await client.head("POST", path, Content_Length=40 * 5_000, Authorization=KNOWN)
        for second in range(1, 41):
            sent = {steady: 5_000, trickling: 100 if second < 9 else 0}
            for client, size in sent.items():
                if size:
                    await client.send(b"x" * size)
                    await edge.await_received(client, second * size)
            edge.pass_time(1)
            assert len(edge.open()) == 2 or second > 9
        assert (await trickling.answer()).status == 408
        assert (await steady.answer()).body == b"200000"


async def test_a_body_that_is_kept_whole_may_not_take_any_time_it_likes(tmp_path: Path) -> None:
    async with listening(kit_app(tmp_path, body_timeout_s=20)) as edge, connected(edge.port) as (client,):
        await client.head("POST", "/measure", Content_Length=40 * 5_000, Authorization=KNOWN)
        for second in range(1, 22):
            await client.send(b"x" * 5_000)
            await edge.await_received(client, second * 5_000)
            edge.pass_time(1)
        await client.send(b"x" * 5_000)
        assert (await client.answer()).status == 408


async def test_a_pause_of_the_process_is_not_charged_to_its_clients(tmp_path: Path) -> None:
    async with listening(kit_app(tmp_path)) as edge, connected(edge.port, 2) as (upload, head):
        await upload.head("POST", "/measure", Content_Length=100_000, Authorization=KNOWN)
        await head.send(b"GET /nothing HTTP/1.1\r\n")
        await upload.send(b"x" * 20_000)
        await edge.await_received(upload, 20_000)
        edge.pass_time(1)
        edge.stand_still(600)
        await upload.send(b"x" * 80_000)
        assert (await upload.answer()).body == b"100000"
        await head.send(b"Host: kit\r\n\r\n")
        assert (await head.answer()).status == 404


async def test_a_body_that_stalls_while_the_process_runs_is_408(tmp_path: Path) -> None:
    async with listening(kit_app(tmp_path)) as edge, connected(edge.port) as (client,):
        await client.head("POST", "/measure", Content_Length=100_000, Authorization=KNOWN)
        await client.send(b"x" * 20_000)
        await edge.await_received(client, 20_000)
        edge.pass_time(12)
        assert (await client.answer()).status == 408


async def test_a_check_that_fails_costs_one_connection_and_no_other_its_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(now: float) -> None:
        raise ValueError("a fault of ours")

    async with listening(kit_app(tmp_path)) as edge, connected(edge.port, 2) as (client, other):
        await edge.await_open(2)
        await other.head("POST", "/hook", Content_Length=100)
        await other.send(b"x")
        await edge.await_received(other, 1)
        monkeypatch.setattr(edge.connection_of(client), "check", fail)
        edge.pass_time(1)
        assert await client.is_closed()
        edge.pass_time(11)
        assert (await other.answer()).status == 408
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["event"] for line in lines if line["level"] == "error"] == ["connection_check_failed"]


# refused connections -----------------------------------------------------------------------------------------------------
async def test_a_refused_client_that_sends_its_request_reads_503() -> None:
    app = Counting(10)
    app.gate.clear()
    async with listening(app, connections_max=2) as edge, connected(edge.port, 2) as busy:
        for client in busy:
            await client.head("GET", "/")
        await edge.await_open(2)
        await app.await_working(2)
        for _ in range(100):
            async with connected(edge.port) as (late,):
                await late.head("POST", "/", Content_Length=100_000)
                await late.send(b"x" * 100_000)
                answer = await late.answer()
                assert (answer.status, answer.json()["type"]) == (503, "/problems/overloaded")
        app.gate.set()
        for client in busy:
            assert (await client.answer()).status == 200


async def test_refused_clients_that_stay_are_bounded_and_let_nobody_in_beyond_the_limit() -> None:
    app = Counting(10)
    app.gate.clear()
    async with listening(app, connections_max=2) as edge, connected(edge.port, 2) as busy:
        for client in busy:
            await client.head("GET", "/")
        await app.await_working(2)
        async with connected(edge.port, 200) as late:
            for client in late:
                await client.head("GET", "/")
            await edge.await_open(2 + 50)
            assert (await late[-1].answer()).status == 503
            edge.pass_time(12)
            await edge.await_open(2)
        assert app.working_max == 2
        app.gate.set()


# what is left of them ----------------------------------------------------------------------------------------------------
@pytest.fixture
def _no_collector() -> Any:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_no_collector")
async def test_closed_connections_and_their_requests_leave_nothing_for_the_garbage_collector(tmp_path: Path) -> None:
    kinds = (BoundedProtocol, RequestResponseCycle, BodyReader)

    async def ask(port: int, path: str, size: int, sent: int, **headers: str) -> None:
        async with connected(port) as (client,):
            await client.head("POST", path, Content_Length=size, Content_Type="application/json", **headers)
            await client.send((b'"' + b"x" * (size - 2) + b'"')[:sent])
            if size == sent:
                await client.answer()

    async with listening(kit_app(tmp_path)) as edge:
        for path in ("/measure", "/stream", "/model", "/hook", "/nowhere"):
            for size, sent in ((100, 100), (100_000, 100_000), (100_000, 50_000)):
                for headers in ({}, {"Authorization": KNOWN}, {"Authorization": KNOWN, "Connection": "close"}):
                    await ask(edge.port, path, size, sent, **headers)
        async with connected(edge.port) as (client,):
            for _ in range(3):
                await client.head("GET", "/openapi.json")
            await client.answer()
        async with connected(edge.port) as (client,):
            await client.send(b"junk\r\n\r\n")
            assert await client.answer()

        async def are_gone() -> bool:
            return not any(isinstance(one, kinds) for one in gc.get_objects())

        await edge.await_open(0)
        await until(are_gone, within_s=5)
