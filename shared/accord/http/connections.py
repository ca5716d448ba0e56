"""The connections of one server: how many there may be, and how long and how much a client may send before it is answered.

What HTTP means is left to uvicorn; this is its protocol with bounds. It knows no route and no key.
"""

from __future__ import annotations

import asyncio
import math
import resource
import socket
import struct
import termios
from collections.abc import Iterator
from contextlib import suppress
from fcntl import ioctl
from typing import Any, cast

import httptools
import structlog
import uvicorn
from msgspec import Struct
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
_INT = struct.Struct("i")
_LINGER_S = 10.0
_SWEEP_S_MAX = 1.0
_TICK_S = 1.0
_REFUSED_MAX = 50
"""Connections beyond the limit that are left open until they have read their 503."""
_OTHER_FILES = 500
"""File descriptors that are left for the pool, Kafka, logs, listening sockets, probes on a port of their own, and refused connections."""


class ConnectionLimits(Struct, frozen=True):
    """See accord.settings.Settings for the meaning of each."""

    connections_max: int
    head_bytes_max: int
    head_timeout_s: float
    body_stall_s: float
    rate_min_bytes_per_s: int
    answer_stall_s: float
    unread_bytes_max: int

    @classmethod
    def of(cls, settings: Settings) -> ConnectionLimits:
        return cls(
            settings.connections_max,
            settings.head_bytes_max,
            settings.head_timeout_s,
            settings.body_stall_s,
            settings.body_rate_min_bytes_per_s,
            settings.answer_stall_s,
            settings.answer_bytes_unread_max,
        )

    @property
    def sweep_s(self) -> float:
        return min(_SWEEP_S_MAX, self.head_timeout_s / 4, self.body_stall_s / 4, self.answer_stall_s / 4)


class Connections:
    """The open connections of one server.

    Those in `evictable` do nothing but wait for their client: idle, in the head, in a body that is small or without a key, or until the
    answer is read. Where there are too many, the one that waits longest makes room for the next, so a flood of them keeps nobody out.
    Where too many bytes of answers wait to be read, so does the answer that waits longest.
    """

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self.evictable: dict[BoundedProtocol, None] = {}
        self.is_closing = False
        self.clock_s = 0.0
        """The time that clients had. It stands still while this process does."""
        self._swept_at: float | None = None
        self._open: set[BoundedProtocol] = set()
        self._open_max = _limit_connections(limits.connections_max)
        self._refused: dict[BoundedProtocol, None] = {}
        self._unread: dict[BoundedProtocol, int] = {}
        self._unread_bytes = 0

    def protocol(self, **arguments: Any) -> BoundedProtocol:
        """What uvicorn calls for each connection."""
        return BoundedProtocol(self, **arguments)

    def add(self, connection: BoundedProtocol) -> bool:
        """Count this connection; False if there is no room for it."""
        HTTP_CONNECTIONS.inc()
        if len(self._open) >= self._open_max:
            oldest = next(iter(self.evictable), None)
            if oldest is None:
                self._refused[connection] = None
                if len(self._refused) > _REFUSED_MAX:
                    next(iter(self._refused)).evict("connections")
                return False
            oldest.evict("connections")
        self._open.add(connection)
        self.evictable[connection] = None
        return True

    def remove(self, connection: BoundedProtocol) -> None:
        """This one is closed."""
        HTTP_CONNECTIONS.dec()
        self.forget(connection)

    def forget(self, connection: BoundedProtocol) -> None:
        """This one counts no more."""
        self._open.discard(connection)
        self.evictable.pop(connection, None)
        self._refused.pop(connection, None)
        self.note_read(connection)

    def note_wait(self, connection: BoundedProtocol) -> None:
        """This one waits for its client only."""
        if connection in self._open:
            self.evictable.setdefault(connection)

    def note_unread(self, connection: BoundedProtocol, size: int) -> None:
        """So many bytes wait until the client of this one reads. The latest is never the one that makes room."""
        self.note_wait(connection)
        self._unread[connection] = size
        self._unread_bytes += size
        while self._unread_bytes > self.limits.unread_bytes_max and len(self._unread) > 1:
            next(iter(self._unread)).evict("memory")

    def note_read(self, connection: BoundedProtocol) -> None:
        """They do not any more."""
        self._unread_bytes -= self._unread.pop(connection, 0)

    def close(self) -> None:
        """Wait for no client any more that has its answer."""
        self.is_closing = True
        for connection in [one for one in (*self._open, *self._refused) if one.is_ending()]:
            connection.evict("connections")

    async def sweep(self) -> None:
        """End what has waited for its client too long, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            self.check(loop.time())
            await asyncio.sleep(self.limits.sweep_s)

    def check(self, now: float) -> None:
        """Look at each connection once. A pause of this process (stopped, or busy) is not charged to clients."""
        if self._swept_at is not None:
            self.clock_s += min(now - self._swept_at, 2 * self.limits.sweep_s)
        self._swept_at = now
        for connection in (*self._open, *self._refused):
            try:
                connection.check(self.clock_s)
            except Exception:
                log.exception("connection_check_failed")
                connection.evict("unchecked")  # rather than leave it without bounds, or end the sweep for all


class BoundedProtocol(HttpToolsProtocol):
    """One connection.

    Uvicorn bounds neither the head, nor the time a client takes for head or body, nor the time it takes to read the answer. Time is looked
    at by `Connections.check` from outside, so a request that comes at once pays for no timer.
    """

    def __init__(self, connections: Connections, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._connections = connections
        self._limits = connections.limits
        self._raw_transport: asyncio.Transport | None = None
        self._answered: RequestResponseCycle | None = None
        """The request that the app works on, or did last. Those in `pipeline` wait for their turn; `cycle` came last."""
        self._allowed_bytes = self._limits.head_bytes_max
        """What may still come before something must be complete: a head, or a piece of a body."""
        self._body_bytes = 0
        self._written_bytes = 0
        """What the client has read is this less what it has not; only what it reads while the transport is full is counted."""
        self._ignores_input = False
        """What comes is dropped; after the answer the connection ends."""
        self._lingering = False
        # What `check` saw last.
        self._seen: tuple[str, object] | None = None
        self._seen_bytes = 0
        self._checked_at = 0.0
        self._remaining_s = 0.0

    # what uvicorn, the transport and the parser call ---------------------------------------------------------------
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        self._raw_transport = transport
        super().connection_made(cast("asyncio.Transport", _LingeringTransport(transport, self)))
        if not self._connections.add(self):
            self.refuse(overloaded(), "connections")

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.remove(self)
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        if (answered := self._answered) is not None and not answered.response_complete:
            answered.disconnected = True  # uvicorn tells only the request that came last
            answered.message_event.set()
        # All that leads back here is let go, since the garbage collector comes seldom.
        self.pipeline.clear()
        self._raw_transport = self._answered = self._seen = None
        self.transport = self.flow = self.cycle = self.scope = None  # type: ignore[assignment]

    def pause_writing(self) -> None:
        """What is written waits until the client reads."""
        transport = cast("asyncio.Transport", self._raw_transport)
        self._written_bytes += _unread_bytes(transport)
        queued_bytes = sum(len(cycle.body) for cycle, _ in self.pipeline)
        self._connections.note_unread(self, transport.get_write_buffer_size() + queued_bytes)
        super().pause_writing()

    def resume_writing(self) -> None:
        transport, answered = cast("asyncio.Transport", self._raw_transport), self._answered
        self._written_bytes -= _unread_bytes(transport)
        self._connections.note_read(self)
        transport.set_write_buffer_limits()
        super().resume_writing()
        if answered is None or transport.is_closing() or self._lingering:
            return
        if answered.response_complete:
            self.flow.resume_reading()
            if not self.pipeline:
                return
            answered, app = self.pipeline.pop()
            self._start_asgi_task(answered, app)
        if not answered.more_body:
            self._connections.evictable.pop(self, None)

    def data_received(self, data: bytes) -> None:
        if self._ignores_input:
            return
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        while len(data) > self._allowed_bytes:
            portion, data = data[: self._allowed_bytes], data[self._allowed_bytes :]
            self._allowed_bytes = 0
            if not self._feed(portion):
                return
            if not self._allowed_bytes:
                self.refuse(_head_too_large(self._limits.head_bytes_max), "head")
                return
        self._allowed_bytes -= len(data)
        self._feed(data)

    def _feed(self, data: bytes) -> bool:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # there is nothing to upgrade to; the request is answered as it is
        except httptools.HttpParserError:
            self.refuse(malformed_request("What came is not HTTP/1.1."), "malformed")
        return not self._ignores_input

    def on_headers_complete(self) -> None:
        if len(self.pipeline) >= _PIPELINED_MAX:
            raise ValueError("too many requests wait for the answer to the one before")
        self._allowed_bytes = self._limits.head_bytes_max
        self.scope[CONNECTION] = self  # type: ignore[literal-required]  # ASGI leaves room for others
        super().on_headers_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if self.flow.write_paused:  # an answer that is not read must not hold a request that is worked on
            self.flow.pause_reading()
            self.pipeline.append((cycle, app))
            return
        self._answered = cycle
        super()._start_asgi_task(cycle, app)

    def on_body(self, body: bytes) -> None:
        self._allowed_bytes = self._limits.head_bytes_max
        self._body_bytes += len(body)
        cycle = self.cycle
        if cycle.response_complete:
            return
        cycle.body += body
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        self._allowed_bytes = self._limits.head_bytes_max
        cycle = self.cycle
        cycle.more_body = False  # also of a request that was answered before its body had come
        if not cycle.response_complete:
            self._connections.evictable.pop(self, None)
            cycle.message_event.set()

    def on_response_complete(self) -> None:
        if not self.pipeline:
            self.cycle.body.clear()  # what came of a body that nobody asked for
            if not self._ignores_input:
                self._connections.evictable[self] = None
        elif len(self.pipeline) == 1 and self.cycle.more_body:  # the next is the last, and not all of it has come
            self._connections.evictable[self] = None
        transport = cast("asyncio.Transport", self._raw_transport)
        if transport.get_write_buffer_size():
            transport.set_write_buffer_limits(
                0
            )  # so whatever is unread pauses writing, and no request starts behind it
        super().on_response_complete()
        if self.flow.write_paused and not self._ignores_input:
            self.flow.pause_reading()

    # how it ends ---------------------------------------------------------------------------------------------------
    def refuse(self, problem: Problem, reason: str) -> None:
        """Ignore further input of this client, and answer with this problem unless an answer is under way."""
        if self._ignores_input:
            return
        HTTP_REFUSED.labels(reason).inc()
        self._ignores_input = True
        cycle = self._request()
        if cycle is None or cycle.response_complete:
            if cycle is None or not cycle.more_body:  # else it is about a request that has its answer
                self.transport.write(b"".join(_render_problem(problem, self.server_state.default_headers)))
            self.transport.close()
            return
        cycle.keep_alive = False
        if cycle.more_body:
            cycle.scope[REFUSAL] = problem  # type: ignore[literal-required]  # ASGI leaves room for others
            cycle.message_event.set()

    def _request(self) -> RequestResponseCycle | None:
        """The latest request whose head has come."""
        return cast("RequestResponseCycle | None", self.cycle)

    @property
    def clock_s(self) -> float:
        """See Connections.clock_s."""
        return self._connections.clock_s

    def is_ending(self) -> bool:
        return self._lingering

    def end(self) -> None:
        """Close. Closing with unread bytes would reset the connection, and the answer could be lost; so where more may come, the client is
        told by the end of the stream, and what it sends meanwhile is dropped."""
        transport = self._raw_transport
        if transport is None or transport.is_closing() or self._lingering:
            return
        self._connections.note_wait(self)
        cycle = self._request()
        has_read_all = not self._ignores_input and (cycle is None or not cycle.more_body)
        if has_read_all or self._connections.is_closing or not transport.can_write_eof():
            transport.close()
            return
        self._ignores_input = self._lingering = True
        transport.write_eof()
        self.flow.resume_reading()

    def protect(self) -> None:
        """Keep this connection: an authenticated caller sends a large body."""
        self._connections.evictable.pop(self, None)

    def evict(self, reason: str) -> None:
        """Make room for another: at once, whatever the client has not read."""
        HTTP_REFUSED.labels(reason).inc()
        self._connections.forget(self)
        self._ignores_input = True
        if (transport := self._raw_transport) is not None:
            if transport.get_write_buffer_size():
                transport.abort()
            else:
                transport.close()

    # what it waits for ---------------------------------------------------------------------------------------------
    def check(self, now: float) -> None:
        """End this connection, or its request, if the client keeps it waiting for too long. What comes or is read earns time at the minimum
        rate, up to what it may stand still."""
        waits_for, of, progress_bytes, allowed_s = self._describe_wait()
        if (waits_for, of) != self._seen:
            self._seen, self._remaining_s = (waits_for, of), allowed_s
        else:
            earned_s = (progress_bytes - self._seen_bytes) / self._limits.rate_min_bytes_per_s
            self._remaining_s = min(allowed_s, self._remaining_s + earned_s) - (now - self._checked_at)
        self._seen_bytes, self._checked_at = progress_bytes, now
        if self._remaining_s < 0:
            self._time_out(waits_for)

    def _describe_wait(self) -> tuple[str, object, int, float]:
        """What it waits for and of which request, how many bytes of that there are, and for how many seconds it may stand still."""
        cycle, limits, transport = self._request(), self._limits, cast("asyncio.Transport", self._raw_transport)
        if self.flow.write_paused or (transport.is_closing() and not self._lingering):
            return "reader", None, self._written_bytes - _unread_bytes(transport), limits.answer_stall_s
        if self._lingering:
            return "farewell", None, 0, _LINGER_S
        if cycle is not None and not cycle.response_complete:
            ours = not cycle.more_body or self.flow.read_paused or cycle.waiting_for_100_continue or self._ignores_input
            return ("", cycle, 0, math.inf) if ours else ("body", cycle, self._body_bytes, limits.body_stall_s)
        if cycle is not None and cycle.more_body:
            return "rest", cycle, 0, limits.head_timeout_s
        if self.timeout_keep_alive_task is None:
            return "head", cycle, 0, limits.head_timeout_s
        return "", cycle, 0, math.inf  # it is idle, and uvicorn looks after it

    def _time_out(self, waits_for: str) -> None:
        if waits_for == "body":
            self.refuse(too_slow("The body"), "slow")
        elif waits_for == "head" and self._allowed_bytes < self._limits.head_bytes_max:
            self.refuse(too_slow("The head of the request"), "slow")
        elif waits_for in ("reader", "farewell"):
            cast("asyncio.Transport", self._raw_transport).abort()
        else:
            self.end()


class _LingeringTransport:
    """A transport whose `close` is `BoundedProtocol.end`."""

    __slots__ = ("_protocol", "_transport", "write")

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
        self._exiting = asyncio.Event()
        config.http = cast("type[asyncio.Protocol]", self._bounded.protocol)
        super().__init__(config)

    @property
    def should_exit(self) -> bool:
        """Whether it stops accepting and ends."""
        return self._exiting.is_set()

    @should_exit.setter
    def should_exit(self, value: bool) -> None:
        if value:
            self._exiting.set()

    async def main_loop(self) -> None:
        """Tick once a second, for the date of answers. Uvicorn's own looks ten times a second whether it should end."""
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                async with asyncio.timeout(_TICK_S):
                    await self._exiting.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._bounded.close()
        await super().shutdown(sockets)

    async def serve_on(self, listening: socket.socket) -> None:
        sweeping = asyncio.create_task(self._bounded.sweep(), name="connections")
        try:
            await self._serve([listening])
        finally:
            sweeping.cancel()


def _render_problem(problem: Problem, default_headers: list[tuple[bytes, bytes]]) -> Iterator[bytes]:
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
        "Request head too large",
        f"Request line and headers may have {bytes_max} bytes together.",
        bytes_max=bytes_max,
    )


def _unread_bytes(transport: asyncio.Transport) -> int:
    """What the client has not taken yet, in our buffer and in the system's. The system takes more from us in large portions only, so our
    buffer alone would show a slow client as one that stands still."""
    try:
        queued = ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(_INT.size))
    except (OSError, ValueError):  # it is closed
        return 0
    return transport.get_write_buffer_size() + int(_INT.unpack(queued)[0])


def _limit_connections(connections_max: int) -> int:
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
