"""One POST over a real socket: what is an answer, where it ends, and to whom it goes over TLS."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl

import pytest
from tests.notifications.mailservers import make_certificate
from tests.notifications.receivers import HttpReceiver, Reply

from accord.notifications.channels.exchange import HEAD_BYTES_MAX, Answer, MalformedAnswer, post

LOOPBACK = ipaddress.ip_address("127.0.0.1")


async def exchange(url: str, context: ssl.SSLContext | None = None, addresses=(LOOPBACK,)) -> Answer:
    context = context or ssl.create_default_context()
    async with asyncio.timeout(20):
        return await post(addresses, url, {"a": "b"}, b"{}", context, body_bytes_max=10, body_within_s=2.0)


def raw(answer: bytes) -> Reply:
    async def write(writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()

    return Reply(write=write)


@pytest.mark.parametrize(
    ("wire", "status", "body", "is_cut"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", 200, b"ok", False),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", False),
        (b"HTTP/1.0 200 OK\r\n\r\nto the end", 200, b"to the end", False),
        (b"HTTP/1.1 200 OK\r\n\r\n0123456789abc", 200, b"0123456789", True),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 200, b"ok", False),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nok", 200, b"ok", True),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nXX\r\nok", 200, b"", True),
        (b"HTTP/1.1 100 Continue\r\nx: 1\r\n\r\nHTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n", 503, b"", False),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\nHTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n", 200, b"", False),
    ],
)
async def test_answer_ends_where_http_says(receiver: HttpReceiver, wire, status, body, is_cut):
    receiver.answer(raw(wire))
    found = await exchange(receiver.url)
    assert (found.status, found.body, found.is_cut) == (status, body, is_cut)
    assert ("x", "1") not in found.headers


@pytest.mark.parametrize(
    "wire", [b"SSH-2.0-x\r\n", b"HTTP/1.1 ok\r\n\r\n", b"HTTP/1.1 200 OK\r\nx: " + b"y" * HEAD_BYTES_MAX * 2]
)
async def test_what_is_no_answer_is_refused(receiver: HttpReceiver, wire):
    receiver.answer(raw(wire))
    with pytest.raises(MalformedAnswer):
        await exchange(receiver.url)


async def test_connection_closed_without_an_answer_is_an_error(receiver: HttpReceiver):
    receiver.answer(raw(b""))
    with pytest.raises(OSError, match="without an answer"):
        await exchange(receiver.url)


async def test_next_address_is_tried_where_nobody_listens(receiver: HttpReceiver):
    found = await exchange(receiver.url, addresses=(ipaddress.ip_address("127.0.0.9"), LOOPBACK))
    assert (found.status, len(receiver.requests)) == (200, 1)


async def test_request_has_host_path_and_length(receiver: HttpReceiver):
    await exchange(f"{receiver.url}/a?b=c")
    (request,) = receiver.requests
    assert (request.target, request.body, request.headers["a"]) == ("/hook/a?b=c", b"{}", "b")
    assert request.headers["host"] == receiver.url.removeprefix("http://").removesuffix("/hook")


@pytest.mark.parametrize(
    ("host", "is_trusted"), [("receiver.example", True), ("receiver.example.", True), ("other.example", False)]
)
async def test_certificate_is_verified_for_the_name_though_the_address_is_given(tmp_path, host, is_trusted):
    cafile, server_context = make_certificate(tmp_path, "receiver.example")
    receiver = HttpReceiver()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0, ssl=server_context)
    port = server.sockets[0].getsockname()[1]
    context = ssl.create_default_context(cafile=cafile)
    url = f"https://{host}:{port}/hook"
    if is_trusted:
        assert (await exchange(url, context)).status == 200
        assert receiver.requests[0].headers["host"] == f"{host}:{port}"
    else:
        with pytest.raises(ssl.SSLCertVerificationError):
            await exchange(url, context)
        assert receiver.requests == []
    server.close()
