"""The load generator, a process of its own: HTTP/1.1 over kept-alive loopback sockets, with as little work a request as Python
allows, so that it is never what limits a figure. `python -m tests.bench.load CONFIG RESULT` reads and writes JSON.

Closed: each connection sends its next request when it has its answer. Open: requests arrive at random moments of a given
mean rate whatever the answers do, and their latency counts from the moment they should have been sent.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import uvloop

from tests.bench.leads import submissions

DRAIN_S_MAX = 20.0


@dataclass(frozen=True)
class Load:
    """What to send. `rate_per_s` None is the closed loop; `rows` above one makes batches of that many."""

    port: int
    key: str = field(repr=False)
    run: int
    path: str = "/v1/leads"
    connections: int = 64
    seconds: float = 5.0
    warm_up_s: float = 1.0
    rate_per_s: float | None = None
    rows: int = 1
    occurred_at: bool = False


@dataclass
class Measured:
    """What came back after the warm-up. `rows` counts rows that were taken, `statuses` answers."""

    answers: int
    rows: int
    seconds: float
    statuses: dict[str, int]
    latencies_ms: list[float]
    late_ms_max: float
    """How late this process itself was at worst with an arrival; far above a millisecond it could not keep up."""

    @property
    def rows_per_s(self) -> float:
        return self.rows / self.seconds

    def percentile_ms(self, share: float) -> float:
        ordered = sorted(self.latencies_ms)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("nan")


class _Generator:
    def __init__(self, load: Load) -> None:
        self.load = load
        self.loop = asyncio.get_running_loop()
        self.bodies = self._bodies()
        self.head = (
            f"POST {load.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {load.key}\r\n"
            "Content-Type: application/json\r\nContent-Length: "
        ).encode()
        self.idle: deque[_Connection] = deque()
        self.arrived: deque[float] = deque()
        self.counts_from = self.ends_at = 0.0
        self.statuses: Counter[str] = Counter()
        self.latencies_ms: list[float] = []
        self.answers = self.rows = self.pending = 0
        self.last_at = 0.0
        self.late_s_max = 0.0

    def _bodies(self) -> Iterator[bytes]:
        rows = submissions(self.load.run, occurred_at=self.load.occurred_at)
        if self.load.rows == 1:
            yield from rows
        while True:
            yield b"[" + b",".join(next(rows) for _ in range(self.load.rows)) + b"]"

    def next_request(self, due_at: float) -> bytes:
        body = next(self.bodies)
        if self.load.occurred_at:
            moment = datetime.fromtimestamp(time.time() - (self.loop.time() - due_at), UTC)
            body = body.replace(b"%s", moment.isoformat().encode())
        return self.head + str(len(body)).encode() + b"\r\n\r\n" + body

    def answered(self, connection: _Connection, sent_at: float, status: bytes, body: bytes) -> None:
        now = self.loop.time()
        self.pending -= 1
        if sent_at >= self.counts_from and (self.load.rate_per_s is not None or now <= self.ends_at):
            self.answers += 1
            self.statuses[status.decode()] += 1
            self.latencies_ms.append((now - sent_at) * 1000)
            taken = body.count(b'"status":201') if self.load.rows > 1 else int(status in (b"200", b"201"))
            self.rows += taken
            self.last_at = now
        if self.load.rate_per_s is not None:
            if self.arrived:
                connection.send(self.arrived.popleft())
            else:
                self.idle.append(connection)
        elif now < self.ends_at:
            connection.send(now)

    def lost(self, connection: _Connection, *, waiting: bool) -> None:
        """A server hung up; that counts only if a request was waiting for its answer."""
        if connection in self.idle:
            self.idle.remove(connection)
        if waiting:
            self.pending -= 1
            self.statuses["connection lost"] += 1

    async def run(self) -> Measured:
        load = self.load
        connections = [
            (await self.loop.create_connection(lambda: _Connection(self), "127.0.0.1", load.port))[1]
            for _ in range(load.connections)
        ]
        start = self.loop.time()
        self.counts_from, self.ends_at = start + load.warm_up_s, start + load.warm_up_s + load.seconds
        if load.rate_per_s is None:
            for connection in connections:
                connection.send(self.loop.time())
            await asyncio.sleep(load.warm_up_s + load.seconds)
        else:
            self.idle.extend(connections)
            await self._arrivals(start, load.rate_per_s)
        drained_by = self.loop.time() + DRAIN_S_MAX
        while self.pending and self.loop.time() < drained_by:  # noqa: ASYNC110 - its end needs no precision
            await asyncio.sleep(0.02)
        for connection in connections:
            connection.close()
        return Measured(
            self.answers, self.rows, load.seconds, dict(self.statuses), self.latencies_ms, self.late_s_max * 1000
        )

    async def _arrivals(self, start: float, rate_per_s: float) -> None:
        rng = random.Random(self.load.run)
        due_at = start
        while due_at < self.ends_at:
            due_at += rng.expovariate(rate_per_s)
            wait_s = due_at - self.loop.time()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            self.late_s_max = max(self.late_s_max, self.loop.time() - due_at)
            if self.idle:
                self.idle.popleft().send(due_at)
            else:
                self.arrived.append(due_at)


class _Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self, generator: _Generator) -> None:
        self._generator = generator
        self._buffer = b""
        self._body_at = self._length = 0
        self._sent_at = 0.0
        self._waiting = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def send(self, due_at: float) -> None:
        self._sent_at, self._waiting = due_at, True
        self._generator.pending += 1
        self._transport.write(self._generator.next_request(due_at))  # type: ignore[attr-defined]  # a socket's transport

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer = self._buffer + data if self._buffer else data
        if not self._body_at:
            end = buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            self._body_at = end + 4
            at = buffer.lower().find(b"content-length:", 0, end) + 15
            self._length = int(buffer[at : buffer.find(b"\r", at)])
        if len(buffer) < self._body_at + self._length:
            return
        body, self._buffer, self._body_at = buffer[self._body_at :], b"", 0
        self._waiting = False
        self._generator.answered(self, self._sent_at, buffer[9:12], body)

    def connection_lost(self, error: Exception | None) -> None:
        self._generator.lost(self, waiting=self._waiting)

    def close(self) -> None:
        self._transport.close()


async def _generate(load: Load) -> Measured:
    return await _Generator(load).run()


def main(config: Path, result: Path) -> None:
    """Send the load described in one file, write what was measured to the other."""
    measured = uvloop.run(_generate(Load(**json.loads(config.read_text()))))
    result.write_text(json.dumps(asdict(measured)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
