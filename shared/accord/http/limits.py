"""What bounds a request before any work is done for it: requests in flight, size of the body, text that no database can
hold, and the rate of a key. Pure ASGI; it knows no route but the paths whose bodies are streamed."""

from __future__ import annotations

import math
import random
import re
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from accord.http.problems import Problem, malformed, overloaded
from accord.metric_names import HTTP_IN_FLIGHT, HTTP_REFUSED

_BUCKETS_MAX = 50_000
_PROBES = frozenset({"/livez", "/readyz", "/metrics"})


async def send_problem(problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with a problem from outside the app."""
    request_id = scope.get("accord.request_id")
    await problem.response(request_id)(scope, receive, send)


class InFlightLimit:
    """At most `requests_max` requests at once; one more is answered 503 before anything of it is read. Probes pass."""

    def __init__(self, app: ASGIApp, requests_max: int) -> None:
        self._app = app
        self._requests_max = requests_max
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _PROBES:
            await self._app(scope, receive, send)
            return
        if self._in_flight >= self._requests_max:
            HTTP_REFUSED.labels("overload").inc()
            await send_problem(overloaded(random.uniform(0.5, 2.5)), scope, receive, send)  # noqa: S311 - jitter
            return
        self._in_flight += 1
        HTTP_IN_FLIGHT.set(self._in_flight)
        try:
            await self._app(scope, receive, send)
        finally:
            self._in_flight -= 1
            HTTP_IN_FLIGHT.set(self._in_flight)


class _BodyTooLarge(Exception):
    pass


class BodyGuard:
    """Bodies over the limit are 413, declared or chunked. A body of text is read whole and must be UTF-8 without NUL and lone
    surrogates (400), since PostgreSQL holds neither; so must the path and the query. `streamed` names path prefixes whose
    bodies are passed on as they come, with their own limits in bytes; their readers check the text themselves.
    """

    def __init__(self, app: ASGIApp, bytes_max: int, streamed: Mapping[str, int] | None = None) -> None:
        self._app = app
        self._bytes_max = bytes_max
        self._streamed = dict(streamed or {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if b"%00" in scope["query_string"] or "\x00" in scope["path"]:
            problem = Problem(
                400, "malformed-request", "The request cannot be read", "A NUL character is in the path or the query."
            )
            await send_problem(problem, scope, receive, send)
            return
        if scope["method"] in ("GET", "HEAD") and not _has_body(scope):
            await self._app(scope, receive, send)
            return
        streamed_max = next(
            (limit for prefix, limit in self._streamed.items() if scope["path"].startswith(prefix)), None
        )
        try:
            if streamed_max is None:
                body = await self._read(scope, receive)
                if body is None:
                    return
                check_text(body)
                await self._app(scope, _Replay(body, receive), send)
            else:
                await self._stream(streamed_max, scope, receive, send)
        except _BodyTooLarge:
            HTTP_REFUSED.labels("body").inc()
            await send_problem(_too_large(streamed_max or self._bytes_max), scope, receive, send)
        except Problem as problem:
            await send_problem(problem, scope, receive, send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        """The whole body; None if the client has gone."""
        _check_declared(scope, self._bytes_max)
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body: bytes = message.get("body", b"")
        if not message.get("more_body", False):  # the common case: one piece
            if len(body) > self._bytes_max:
                raise _BodyTooLarge
            return body
        pieces, size = [body], len(body)
        while message.get("more_body", False):
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            piece = message.get("body", b"")
            size += len(piece)
            if size > self._bytes_max:
                raise _BodyTooLarge
            pieces.append(piece)
        return b"".join(pieces)

    async def _stream(self, bytes_max: int, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the body on as it comes. Whatever the app makes of a body that is cut off, the answer is 413."""
        _check_declared(scope, bytes_max)
        size, over, started = 0, False, False

        async def counted() -> Message:
            nonlocal size, over
            message = await receive()
            size += len(message.get("body", b""))
            if size > bytes_max:
                over = True
                raise _BodyTooLarge
            return message

        async def watched(message: Message) -> None:
            nonlocal started
            if over and not started:
                return
            started = True
            await send(message)

        try:
            await self._app(scope, counted, watched)
        except _BodyTooLarge:
            if started:
                raise
        if over and not started:
            raise _BodyTooLarge


class _Replay:
    """Gives a body that has been read once more, then what comes after it."""

    __slots__ = ("_body", "_receive")

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}


def _has_body(scope: Scope) -> bool:
    return any(name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"])


def _check_declared(scope: Scope, bytes_max: int) -> None:
    for name, value in scope["headers"]:
        if name == b"content-length" and (not value.isdigit() or int(value[:20]) > bytes_max):
            raise _BodyTooLarge


def _too_large(bytes_max: int) -> Problem:
    return Problem(
        413,
        "body-too-large",
        "The body is too large",
        f"A body may have {bytes_max} bytes here.",
        headers={"Connection": "close"},
        bytes_max=bytes_max,
    )


_NUL_ESCAPE = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_SURROGATE = re.compile(rb"(?<!\\)(?:\\\\)*\\u([dD][89a-fA-F][0-9a-fA-F]{2})")
_PAIR = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}")


def check_text(body: bytes) -> None:
    """Raises Problem 400 for text that is not UTF-8, or that holds NUL or a lone surrogate, plain or as a JSON escape."""
    if b"\x00" in body or (b"\\u0000" in body and _NUL_ESCAPE.search(body)):
        raise malformed("A NUL character is in the body; no text may hold one.")
    if not body.isascii():
        try:
            body.decode()
        except UnicodeDecodeError:
            raise malformed("The body is not UTF-8.") from None
    if (b"\\ud" in body or b"\\uD" in body) and _SURROGATE.search(_PAIR.sub(b"", body)):
        raise malformed("A surrogate without its partner is in the body.")


@dataclass(frozen=True, slots=True)
class Taken:
    """The outcome of one request against a key's rate. `retry_after_s` is 0 if it was allowed."""

    allowed: bool
    retry_after_s: int
    headers: tuple[tuple[bytes, bytes], ...]


class TokenBuckets:
    """A token bucket for each key: `rate_per_s` refilled, `burst` at most. Least recently used buckets go first when there are too many."""

    def __init__(self, rate_per_s: float, burst: int | None = None) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst if burst is not None else max(1, math.ceil(rate_per_s * 2))
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        window_s = max(1, math.ceil(self._burst / rate_per_s))
        self._policy = (b"ratelimit-policy", f'"key";q={self._burst};w={window_s}'.encode())

    def take(self, key: str, now_s: float | None = None) -> Taken:
        """Take one token of this key's bucket. Headers: draft-ietf-httpapi-ratelimit-headers."""
        now = time.monotonic() if now_s is None else now_s
        tokens, at = self._buckets.pop(key, (float(self._burst), now))
        tokens = min(self._burst, tokens + (now - at) * self._rate_per_s)
        allowed = tokens >= 1
        if allowed:
            tokens -= 1
        self._buckets[key] = (tokens, now)
        if len(self._buckets) > _BUCKETS_MAX:
            self._buckets.popitem(last=False)
        wait_s = 0 if allowed else max(1, math.ceil((1 - tokens) / self._rate_per_s))
        full_s = math.ceil((self._burst - tokens) / self._rate_per_s)
        rest = (b"ratelimit", f'"key";r={int(tokens)};t={wait_s or full_s}'.encode())
        return Taken(allowed, wait_s, (self._policy, rest))
