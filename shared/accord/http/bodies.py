"""The body of a request: read once the app asks for it, for a caller who may send it, within bounds of size, time and memory.

Nothing of a body is read for an unknown path, a wrong method, or without the key that a route asks for.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Mapping, Sequence

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.types import Message, Receive, Scope

from accord.http import auth
from accord.http.auth import Caller, authorize, required_scopes
from accord.http.connections import CONNECTION, REFUSAL
from accord.http.problems import Problem, malformed, malformed_request, overloaded, too_slow
from accord.metric_names import HTTP_BODY_BYTES, HTTP_IN_FLIGHT, HTTP_REFUSED

_SMALL_BYTES = 64 * 1024
"""The rest of a body that is not larger is dropped and the connection goes on; otherwise it ends."""
_UNCOUNTED_BYTES = 16 * 1024
"""Bodies up to this size are not counted: requests in flight and connections bound them."""
_STREAM_BYTES = 1024 * 1024
"""What a streamed body counts; its reader keeps one portion of it at a time."""
_UNKNOWN = ""
_OVER: Scope = {}


class BodyBudget:
    """The bytes of bodies that one process holds at once. One caller has half of them at most, all unknown senders together a quarter."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._held: dict[str, int] = {}
        self.used_bytes = 0
        HTTP_BODY_BYTES.set_function(lambda: self.used_bytes)

    def reserve(self, holder: str, size: int) -> None:
        """Count these bytes for a caller, by name, or for the unknown ones (""). Raises Problem 503 if there is no room."""
        held = self._held.get(holder, 0) + size
        share = self._bytes_max // (2 if holder else 4)
        if held > share or self.used_bytes + size > self._bytes_max:
            HTTP_REFUSED.labels("memory").inc()
            raise overloaded(detail="The service holds as many bytes of requests as it can. Try again.")
        self._held[holder] = held
        self.used_bytes += size

    def release(self, holder: str, size: int) -> None:
        self.used_bytes -= size
        if held := self._held.pop(holder, 0) - size:
            self._held[holder] = held


class Bodies:
    """What the bodies of one app have in common: their limits, their memory, and the requests in flight.

    `streamed` names path prefixes whose bodies are handed on as they come, with their own limits in bytes; `raw` those whose bodies are
    read whole but not looked at, since a proof is over their bytes.
    """

    def __init__(
        self,
        *,
        bytes_max: int,
        timeout_s: float,
        requests_max: int,
        budget: BodyBudget,
        streamed: Mapping[str, int] | None = None,
        raw: Sequence[str] = (),
    ) -> None:
        self.bytes_max = bytes_max
        self.timeout_s = timeout_s
        self.requests_max = requests_max
        self.budget = budget
        self.streamed = dict(streamed or {})
        self.raw = tuple(raw)
        self.special = (*self.streamed, *self.raw)
        self.in_flight = 0
        self._scopes: dict[int, tuple[auth.Scope | None, ...]] = {}
        HTTP_IN_FLIGHT.set_function(lambda: self.in_flight)

    def find_scopes(self, route: APIRoute) -> tuple[auth.Scope | None, ...]:
        """What this route asks for, which is found once for each: routes live as long as the app."""
        found = self._scopes.get(id(route))
        if found is None:
            found = self._scopes[id(route)] = tuple(required_scopes(route.dependant))
        return found


class BodyReader:
    """The `receive` of a request with a body.

    FastAPI reads the body before it asks what `require()` asks; so that is asked here first. Plain routes call `authorize` before they
    read. While the client is waited for, the request is none of those in flight.
    """

    __slots__ = (
        "_bodies",
        "_bytes_max",
        "_declared_bytes",
        "_expects",
        "_holder",
        "_is_raw",
        "_is_streamed",
        "_receive",
        "_reserved_bytes",
        "_scope",
        "_size",
        "is_complete",
    )

    def __init__(
        self, scope: Scope, receive: Receive, declared_bytes: int | None, expects: bool, bodies: Bodies
    ) -> None:
        self._scope = scope
        self._receive = receive
        self._declared_bytes = declared_bytes
        self._expects = expects
        self._bodies = bodies
        self._holder: str | None = None
        self._reserved_bytes = 0
        self._size = 0
        self._bytes_max = bodies.bytes_max
        self._is_streamed = self._is_raw = False
        self.is_complete = False

    def __call__(self) -> Awaitable[Message]:
        return self._receive() if self.is_complete else self._read()

    def leaves_bytes(self) -> bool:
        """Whether so much of the body may still come that the connection is better closed than drained. Who waits to be asked for the body
        may send it or not."""
        if self.is_complete:
            return False
        return self._declared_bytes is None or self._expects or self._declared_bytes > _SMALL_BYTES

    def release(self) -> None:
        """The request is over, and its body is not held any more. The scope holds this reader and so does the request that `receive` is a
        method of; both are let go, since the garbage collector comes seldom."""
        self._scope = _OVER
        self._receive = _receive_nothing
        if self._reserved_bytes:
            self._bodies.budget.release(self._holder or _UNKNOWN, self._reserved_bytes)
            self._reserved_bytes = 0

    async def _read(self) -> Message:
        if self._holder is None:
            route = self._scope.get("route")
            if isinstance(route, APIRoute):
                for required in self._bodies.find_scopes(route):
                    await authorize(Request(self._scope), required)
            self._begin()
        bodies = self._bodies
        bodies.in_flight -= 1
        try:
            message = await self._receive()
            piece = self._counted(message)
            has_more = message.get("more_body", False)
            if has_more and not self._is_streamed:
                piece = await self._read_rest(piece)
                message, has_more = {"type": "http.request", "body": piece, "more_body": False}, False
        finally:
            bodies.in_flight += 1
        self.is_complete = not has_more
        if self._is_streamed:
            return message
        if bodies.in_flight > bodies.requests_max:
            HTTP_REFUSED.labels("overload").inc()
            raise overloaded()
        if not self._is_raw:
            check_text(piece)
        return message

    def _begin(self) -> None:
        """Find the limits, and keep room for what a known caller declares. Raises Problem 413 or 503."""
        bodies, path = self._bodies, self._scope["path"]
        if path.startswith(bodies.special):
            self._is_raw = path.startswith(bodies.raw)
            for prefix, bytes_max in bodies.streamed.items():
                if path.startswith(prefix):
                    self._is_streamed, self._bytes_max = True, bytes_max
        declared_bytes = self._declared_bytes or 0
        if declared_bytes > self._bytes_max:
            raise self._too_large()
        caller = self._scope.get("accord.caller")
        self._holder = caller.name if isinstance(caller, Caller) else _UNKNOWN
        if declared_bytes <= _UNCOUNTED_BYTES and not self._is_streamed:
            return
        if self._is_streamed:
            self._reserve(_STREAM_BYTES)
        elif self._holder:
            self._reserve(declared_bytes)

    def _reserve(self, size: int) -> None:
        """Count these bytes. The connection of a known caller makes room for no other from then on. Raises Problem 503."""
        self._bodies.budget.reserve(self._holder or _UNKNOWN, size)
        self._reserved_bytes += size
        if self._holder and (connection := self._scope.get(CONNECTION)) is not None:
            connection.protect()

    async def _read_rest(self, piece: bytes) -> bytes:
        end_at = self._clock_s() + self._bodies.timeout_s
        pieces, has_more = [piece], True
        while has_more:
            message = await self._receive()
            pieces.append(self._counted(message))
            has_more = message.get("more_body", False)
            if has_more and self._clock_s() > end_at:
                HTTP_REFUSED.labels("slow").inc()
                raise too_slow("The body")
        return b"".join(pieces)

    def _clock_s(self) -> float:
        """The time that the client had, if the connection counts it."""
        connection = self._scope.get(CONNECTION)
        return asyncio.get_running_loop().time() if connection is None else float(connection.clock_s)

    def _counted(self, message: Message) -> bytes:
        """The bytes of this piece, once they are known to be within the bounds."""
        if message["type"] == "http.disconnect":
            raise malformed_request("Not all of the body has come.")
        if message.get("more_body", False) and REFUSAL in self._scope:
            raise self._scope[REFUSAL]
        piece: bytes = message.get("body", b"")
        self._size = size = self._size + len(piece)
        if size > self._bytes_max:
            raise self._too_large()
        if size > _UNCOUNTED_BYTES and size > self._reserved_bytes and not self._is_streamed:
            self._reserve(size - self._reserved_bytes)
        return piece

    def _too_large(self) -> Problem:
        HTTP_REFUSED.labels("body").inc()
        return Problem(
            413,
            "body-too-large",
            "Body too large",
            f"A body may have {self._bytes_max} bytes here.",
            bytes_max=self._bytes_max,
        )


async def _receive_nothing() -> Message:
    return {"type": "http.disconnect"}


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
