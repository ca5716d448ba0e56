"""A client that writes HTTP byte by byte, as no library would."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

PATIENCE_S = 30.0


@dataclass(frozen=True)
class RawAnswer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class RawClient:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        """Send this; whoever has hung up is told so by `answer`."""
        try:
            self.writer.write(data)
            await self.writer.drain()
        except ConnectionError:
            return

    async def head(self, method: str, path: str, **headers: str | int) -> None:
        lines = [f"{method} {path} HTTP/1.1", "Host: kit"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        await self.send("\r\n".join([*lines, "", ""]).encode())

    async def answer(self) -> RawAnswer:
        async with asyncio.timeout(PATIENCE_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
            body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return RawAnswer(int(first.split()[1]), headers, body)

    async def is_closed(self) -> bool:
        """Wait until the server has hung up; False if it says something instead."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                return await self.reader.read(1) == b""
            except ConnectionError:
                return True


async def connect(port: int) -> RawClient:
    return RawClient(*await asyncio.open_connection("127.0.0.1", port, limit=2**20))


@asynccontextmanager
async def connected(port: int, count: int = 1) -> AsyncIterator[list[RawClient]]:
    """That many connections."""
    clients = [await connect(port) for _ in range(count)]
    try:
        yield clients
    finally:
        for client in clients:
            client.writer.transport.abort()


async def metric(port: int, name: str) -> float:
    """A metric without labels, as the process says it now."""
    async with connected(port) as (client,):
        await client.head("GET", "/metrics")
        text = (await client.answer()).body.decode()
    return float(next(line for line in text.splitlines() if line.startswith(f"{name} ")).split()[1])
