"""One POST over a connection of its own to an address that was looked at: what webhooks need of HTTP/1.1, and no more.

A general client costs a millisecond of processor time for each message, five times this. The answer is parsed by httptools; of its body the
first bytes are kept, and what comes after them is not read.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from contextlib import suppress
from urllib.parse import urlsplit

import httptools
from msgspec import Struct

from accord.outbound import ADDRESSES_TRIED_MAX, CONNECT_TIMEOUT_S, Address, host_of, port_of

HEAD_BYTES_MAX = 64 * 1024
_READ_BYTES = 16 * 1024


class MalformedAnswer(Exception):
    """What came back is no answer of HTTP/1.1, or its head is too large."""


class Answer(Struct, frozen=True):
    """An answer. Names of headers are in lower case; `is_cut`: there is more of the body, or it did not come to its end."""

    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes
    is_cut: bool

    def values_of(self, name: str) -> list[str]:
        return [value for found, value in self.headers if found == name]


async def post(
    addresses: Sequence[Address],
    url: str,
    headers: Mapping[str, str],
    content: bytes,
    context: ssl.SSLContext,
    *,
    body_bytes_max: int,
    body_within_s: float,
) -> Answer:
    """The answer of the first of these addresses that can be connected to. Bounding the time of the whole is the caller's.

    Raises OSError, TimeoutError or MalformedAnswer.
    """
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    fields = {"host": parts.netloc, **headers, "accept-encoding": "identity", "connection": "close"}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    reader, writer = await _connect(addresses, url, context if parts.scheme == "https" else None)
    try:
        writer.write(f"POST {target} HTTP/1.1\r\n{head}content-length: {len(content)}\r\n\r\n".encode() + content)
        parsed = _Parser(body_bytes_max)
        while parsed.status is None:
            await parsed.read(reader)
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(body_within_s):
                while not parsed.is_over:
                    await parsed.read(reader)
        return Answer(parsed.status, parsed.headers, bytes(parsed.body), not parsed.is_complete)
    finally:
        writer.transport.abort()


async def _connect(
    addresses: Sequence[Address], url: str, context: ssl.SSLContext | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host = host_of(url) if context is not None else None
    failure: OSError | None = None
    for address in addresses[:ADDRESSES_TRIED_MAX]:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                return await asyncio.open_connection(str(address), port_of(url), ssl=context, server_hostname=host)
        except TimeoutError:
            failure = TimeoutError(f"no connection within {CONNECT_TIMEOUT_S:.0f} s")
        except OSError as error:
            failure = error
    raise failure or OSError("there is no address")


class _Parser:
    """Receives what httptools finds in an answer, and in those with 1xx that may come before it."""

    def __init__(self, body_bytes_max: int) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._body_bytes_max = body_bytes_max
        self._head_bytes = 0
        self.status: int | None = None
        self.headers: list[tuple[str, str]] = []
        self.body = bytearray()
        self.is_complete = False
        self.is_over = False
        """Nothing more is read: it has ended, or is longer than what is kept."""

    async def read(self, reader: asyncio.StreamReader) -> None:
        data = await reader.read(_READ_BYTES)
        if not data:
            self._end()
            return
        if self.status is None:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            if self.status is None:
                raise MalformedAnswer("no answer of HTTP/1.1") from None
            self.is_over = True
        if self.status is None and self._head_bytes > HEAD_BYTES_MAX:
            raise MalformedAnswer("a head that is too large")

    def _end(self) -> None:
        if self.status is None:
            raise ConnectionError("the connection was closed without an answer")
        names = {name for name, _ in self.headers}
        self.is_complete = self.is_complete or not names & {"content-length", "transfer-encoding"}
        self.is_over = True

    def on_message_begin(self) -> None:
        if self.status is None:
            self.headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.status is None:
            self.headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200 and self.status is None:
            self.status = status

    def on_body(self, part: bytes) -> None:
        if self.is_over:
            return
        room = self._body_bytes_max - len(self.body)
        self.body += part[:room]
        self.is_over = len(part) > room

    def on_message_complete(self) -> None:
        if self.status is not None and not self.is_over:
            self.is_complete = self.is_over = True
