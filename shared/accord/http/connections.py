"""The connections of one server: how many there may be, and how long and how much a client may send before it is answered.

What HTTP means is left to uvicorn; this is its protocol with bounds. It knows no route and no key.
"""

from __future__ import annotations

import asyncio
import math
import resource
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import httptools
import structlog
import uvicorn
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from accord.http.problems import Problem, malformed_request, overloaded, too_slow
from accord.ids import new_id
from accord.metric_names import HTTP_CONNECTIONS, HTTP_REFUSED
from accord.settings import Settings

log = structlog.get_logger(__name__)

CONNECTION = "accord.connection"
"""Member of an ASGI scope: the connection that a request came by."""
REFUSAL = "accord.refusal"
"""Member of an ASGI scope: the problem because of which no more of the body is read."""

_PIPELINED_MAX = 16
_LINGER_S = 10.0
_SWEEP_S_MAX = 1.0
_OTHER_FILES = 500
"""File descriptors that are left for the pool, Kafka, logs and listening sockets."""


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """See accord.settings.Settings for the meaning of each."""

    connections_max: int
    head_bytes_max: int
    head_timeout_s: float
    body_stall_s: float
    body_rate_min_bytes_per_s: int
    answer_stall_s: float

    @classmethod
    def of(cls, settings: Settings) -> ConnectionLimits:
        return cls(
            settings.connections_max,
            settings.head_bytes_max,
            settings.head_timeout_s,
            settings.body_stall_s,
            settings.body_rate_min_bytes_per_s,
            settings.answer_stall_s,
        )

    @property
    def sweep_s(self) -> float:
        return min(_SWEEP_S_MAX, self.head_timeout_s / 4, self.body_stall_s / 4, self.answer_stall_s / 4)


class Connections:
    """The open connections of one server.

    Those in `evictable` do nothing but wait for their client: idle, in the head, in a body that is small or without a key, or until the
    answer is read. Where there are too many, the one that waits longest makes room for the next, so a flood of them keeps nobody out.
    """

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self.evictable: dict[BoundedProtocol, None] = {}
        self._open: set[BoundedProtocol] = set()
        self._open_max = _usable(limits.connections_max)
        self.is_closing = False

    def protocol(self, **arguments: Any) -> BoundedProtocol:
        """What uvicorn calls for each connection."""
        return BoundedProtocol(self, **arguments)

    def add(self, connection: BoundedProtocol) -> bool:
        """Count this connection; False if there is no room for it."""
        self._open.add(connection)
        HTTP_CONNECTIONS.inc()
        if len(self._open) > self._open_max:
            oldest = next(iter(self.evictable), None)
            if oldest is None:
                return False
            oldest.evict()
        self.evictable[connection] = None
        return True

    def remove(self, connection: BoundedProtocol) -> None:
        self._open.discard(connection)
        self.evictable.pop(connection, None)
        HTTP_CONNECTIONS.dec()

    def close(self) -> None:
        """Wait for no client any more that has its answer."""
        self.is_closing = True
        for connection in [one for one in self._open if one.is_ending()]:
            connection.evict()

    async def sweep(self) -> None:
        """End what has waited for its client too long, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self.limits.sweep_s)
            now = loop.time()
            for connection in list(self._open):
                connection.check(now)


class BoundedProtocol(HttpToolsProtocol):
    """One connection.

    Uvicorn bounds neither the head, nor the time a client takes for head or body, nor the time it takes to read the answer. Time is looked
    at by `Connections.sweep` from outside, so a request that comes at once pays for no timer.
    """

    def __init__(self, connections: Connections, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._connections = connections
        self._limits = connections.limits
        self._bare: asyncio.Transport | None = None
        self._room_bytes = self._limits.head_bytes_max
        """What may still come before something must be complete: a head, or a piece of a body."""
        self._body_bytes = 0
        self._deaf = False
        """What comes is dropped; after the answer the connection ends."""
        self._lingering = False
        # What `check` saw last.
        self._seen: tuple[str, object, object] | None = None
        self._seen_since = 0.0
        self._checked_at = 0.0
        self._patience_s = 0.0
        self._seen_body_bytes = 0

    # what uvicorn and the parser call ------------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        self._bare = transport
        super().connection_made(cast("asyncio.Transport", _GentleTransport(transport, self)))
        if not self._connections.add(self):
            HTTP_REFUSED.labels("connections").inc()
            self._deaf = True
            transport.write(b"".join(_rendered(overloaded(), self.server_state.default_headers)))
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        while len(data) > self._room_bytes:
            portion, data = data[: self._room_bytes], data[self._room_bytes :]
            self._room_bytes = 0
            if not self._feed(portion):
                return
            if not self._room_bytes:
                self.refuse(_head_too_large(self._limits.head_bytes_max), "head")
                return
        self._room_bytes -= len(data)
        self._feed(data)

    def _feed(self, data: bytes) -> bool:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # there is nothing to upgrade to; the request is answered as it is
        except httptools.HttpParserError:
            self.refuse(malformed_request("What came is not HTTP/1.1."), "malformed")
        return not self._deaf

    def on_headers_complete(self) -> None:
        if len(self.pipeline) >= _PIPELINED_MAX:
            raise ValueError("too many requests wait for the answer to the one before")
        self._room_bytes = self._limits.head_bytes_max
        self.scope[CONNECTION] = self  # type: ignore[literal-required]  # ASGI leaves room for others
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._room_bytes = self._limits.head_bytes_max
        self._body_bytes += len(body)
        cycle = self.cycle
        if cycle.response_complete:
            return
        cycle.body += body
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        self._room_bytes = self._limits.head_bytes_max
        cycle = self.cycle
        cycle.more_body = False  # also of a request that was answered before its body had come
        if not cycle.response_complete:
            self._connections.evictable.pop(self, None)
            cycle.message_event.set()

    def on_response_complete(self) -> None:
        if not self.pipeline:
            self.cycle.body.clear()  # what came of a body that nobody asked for
            if not self._deaf:
                self._connections.evictable[self] = None
        super().on_response_complete()

    # how it ends ---------------------------------------------------------------------------------------------------
    def refuse(self, problem: Problem, reason: str) -> None:
        """Hear no more of this client, and answer with this problem unless an answer is under way."""
        if self._deaf:
            return
        HTTP_REFUSED.labels(reason).inc()
        self._deaf = True
        self._connections.evictable.pop(self, None)
        cycle = self._request()
        if cycle is None or cycle.response_complete:
            if cycle is None or not cycle.more_body:  # else it is about a request that has its answer
                self.transport.write(b"".join(_rendered(problem, self.server_state.default_headers)))
            self.transport.close()
            return
        cycle.keep_alive = False
        if cycle.more_body:
            cycle.scope[REFUSAL] = problem  # type: ignore[literal-required]  # ASGI leaves room for others
            cycle.message_event.set()

    def _request(self) -> RequestResponseCycle | None:
        """The latest request whose head has come."""
        return cast("RequestResponseCycle | None", self.cycle)

    def is_ending(self) -> bool:
        return self._lingering

    def end(self) -> None:
        """Close. Closing with unread bytes would reset the connection, and the answer could be lost; so where more may come, the client is
        told by the end of the stream, and what it sends meanwhile is dropped."""
        bare = self._bare
        if bare is None or bare.is_closing() or self._lingering:
            return
        cycle = self._request()
        is_heard = not self._deaf and (cycle is None or not cycle.more_body)
        if is_heard or self._connections.is_closing or not bare.can_write_eof():
            bare.close()
            return
        self._deaf = self._lingering = True
        self._connections.evictable[self] = None
        bare.write_eof()
        self.flow.resume_reading()

    def hold(self) -> None:
        """Somebody who is known brings a large body; this connection makes room for no other."""
        self._connections.evictable.pop(self, None)

    def evict(self) -> None:
        """Make room for another connection."""
        HTTP_REFUSED.labels("connections").inc()
        self._connections.evictable.pop(self, None)
        self._deaf = True
        if self._bare is not None:
            self._bare.close()

    # what it waits for ---------------------------------------------------------------------------------------------
    def check(self, now: float) -> None:
        """End this connection, or its request, if the client keeps it waiting for too long."""
        waits_for, progress, allowed_s = self._awaited()
        seen = (waits_for, progress, self.cycle)
        if seen != self._seen:
            self._seen, self._seen_since, self._checked_at = seen, now, now
            self._patience_s, self._seen_body_bytes = self._limits.body_stall_s, self._body_bytes
        elif waits_for == "body":
            came = self._body_bytes - self._seen_body_bytes
            earned_s = self._patience_s + came / self._limits.body_rate_min_bytes_per_s
            self._patience_s = min(self._limits.body_stall_s, earned_s) - (now - self._checked_at)
            self._seen_body_bytes, self._checked_at = self._body_bytes, now
            if self._patience_s < 0:
                self.refuse(too_slow("The body"), "slow")
        elif now - self._seen_since > allowed_s:
            self._lose_patience(waits_for)

    def _awaited(self) -> tuple[str, object, float]:
        """What the connection waits for, how far it has come, and for how many seconds it may stand still."""
        cycle, limits, bare = self._request(), self._limits, cast("asyncio.Transport", self._bare)
        waits_for, progress, allowed_s = "", None, math.inf
        if self.flow.write_paused or (bare.is_closing() and not self._lingering):
            waits_for, progress, allowed_s = "reader", bare.get_write_buffer_size(), limits.answer_stall_s
        elif self._lingering:
            waits_for, allowed_s = "farewell", _LINGER_S
        elif cycle is not None and not cycle.response_complete:
            ours = not cycle.more_body or self.flow.read_paused or cycle.waiting_for_100_continue or self._deaf
            waits_for = "" if ours else "body"
        elif cycle is not None and cycle.more_body:
            waits_for, allowed_s = "rest", limits.head_timeout_s
        elif self.timeout_keep_alive_task is None:  # else it is idle, and uvicorn looks after it
            waits_for, allowed_s = "head", limits.head_timeout_s
        return waits_for, progress, allowed_s

    def _lose_patience(self, waits_for: str) -> None:
        if waits_for == "head" and self._room_bytes < self._limits.head_bytes_max:
            self.refuse(too_slow("The head of the request"), "slow")
        elif waits_for in ("reader", "farewell"):
            cast("asyncio.Transport", self._bare).abort()
        else:
            self.end()


class _GentleTransport:
    """A transport whose `close` is `BoundedProtocol.end`."""

    def __init__(self, transport: asyncio.Transport, protocol: BoundedProtocol) -> None:
        self._transport = transport
        self._protocol = protocol
        self.write = transport.write

    def close(self) -> None:
        self._protocol.end()

    def is_closing(self) -> bool:
        return self._protocol.is_ending() or self._transport.is_closing()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class BoundedServer(uvicorn.Server):
    """Uvicorn with bounded connections, on a socket of ours, and without signal handling of its own: that would end the process with the
    signal instead of exit code 0."""

    def __init__(self, config: uvicorn.Config, limits: ConnectionLimits) -> None:
        self._bounded = Connections(limits)
        config.http = cast("type[asyncio.Protocol]", self._bounded.protocol)
        super().__init__(config)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._bounded.close()
        await super().shutdown(sockets)

    async def serve_on(self, listening: socket.socket) -> None:
        sweeping = asyncio.create_task(self._bounded.sweep(), name="connections")
        try:
            await self._serve([listening])
        finally:
            sweeping.cancel()


def _rendered(problem: Problem, default_headers: list[tuple[bytes, bytes]]) -> Iterator[bytes]:
    """The answer on the wire, for a client whose request never reached an app."""
    request_id = str(new_id())
    response = problem.response(request_id)
    yield STATUS_LINE[problem.status]
    own = [header for header in response.raw_headers if header[0] != b"connection"]
    for name, value in [*default_headers, *own, (b"x-request-id", request_id.encode()), (b"connection", b"close")]:
        yield b"%b: %b\r\n" % (name, value)
    yield b"\r\n"
    yield bytes(response.body)


def _head_too_large(bytes_max: int) -> Problem:
    return Problem(
        431,
        "request-head-too-large",
        "The head of the request is too large",
        f"Request line and headers may have {bytes_max} bytes together.",
        bytes_max=bytes_max,
    )


def _usable(connections_max: int) -> int:
    """How many connections this process may have files for; its own limit is raised as far as that is allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections_max + _OTHER_FILES
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return connections_max
    soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    usable = max(1, min(connections_max, soft - _OTHER_FILES))
    if usable < connections_max:
        log.warning("connections_limited", connections_max=usable, files_max=soft)
    return usable
