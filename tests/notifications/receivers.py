"""Receivers of webhooks as real HTTP servers on this machine, whose answers a test writes byte by byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import orjson

Write = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True)
class Reply:
    """One answer; `write` sends one of its own instead."""

    status: int = 200
    body: bytes = b""
    headers: Sequence[tuple[str, str]] = ()
    write: Write | None = None


@dataclass
class Request:
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def json(self) -> dict:
        return orjson.loads(self.body)


@dataclass
class HttpReceiver:
    """Answers what `reply` says, which is asked for each request; all requests are kept."""

    url: str = ""
    reply: Callable[[Request], Reply] = lambda _: Reply()
    requests: list[Request] = field(default_factory=list)
    received: asyncio.Event = field(default_factory=asyncio.Event)

    def answer(self, *replies: Reply) -> None:
        """These answers in order, the last of them again and again."""
        waiting = list(replies)
        self.reply = lambda _: waiting.pop(0) if len(waiting) > 1 else waiting[0]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:-2])}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            request = Request(head[0].split()[1], headers, body)
            self.requests.append(request)
            reply = self.reply(request)
            self.received.set()
            if reply.write is not None:
                await reply.write(writer)
            else:
                lines = [f"{name}: {value}\r\n" for name, value in reply.headers]
                length = f"content-length: {len(reply.body)}\r\nconnection: close\r\n"
                writer.write(f"HTTP/1.1 {reply.status} X\r\n{''.join(lines)}{length}\r\n".encode() + reply.body)
                await writer.drain()
        writer.close()


@asynccontextmanager
async def http_receiver() -> AsyncIterator[HttpReceiver]:
    receiver = HttpReceiver()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
    try:
        yield receiver
    finally:
        server.close()
