"""What runs beside the API: the protocol of a worker, and one that does a job every so often. It starts no process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Protocol

import structlog

from accord.db import is_transient
from accord.retry import Backoff

log = structlog.get_logger(__name__)

_YIELD_S_MAX = 0.25
_CHECK_EVERY_S = 0.005
_IDLE_GROWTH = 1.5


class Worker(Protocol):
    """A part of a service that runs until it is told to stop."""

    @property
    def name(self) -> str: ...

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then drain (10 s at most) and return.

        An exception is a failure that the worker cannot retry by itself. `run` may be called again after it: see
        accord.supervision.
        """
        ...

    def problem(self) -> str | None:
        """None, or in one line why this worker is stuck; for liveness."""
        ...


class StallDetector:
    """Tells when something waits and nothing is done about it, for `problem()`.

    Only silence is a stall: neither progress nor a failure. A failure that is known and retried (an outage of Kafka or
    PostgreSQL) never is, however long it lasts, since a new process would meet the same.
    """

    def __init__(self, stuck_after_s: float) -> None:
        self.stuck_after_s = stuck_after_s
        self._waiting = False
        self._active_at = 0.0

    def set_waiting(self, waiting: bool) -> None:
        """Say whether anything waits to be done; the time counts from the first yes."""
        if not waiting or not self._waiting:
            self.record_progress()
        self._waiting = waiting

    def record_progress(self) -> None:
        """Something was done."""
        self._active_at = monotonic()

    def record_failure(self) -> None:
        """It was tried and failed in a way that passes; it is tried again."""
        self._active_at = monotonic()

    @property
    def is_stuck(self) -> bool:
        return self._waiting and monotonic() - self._active_at > self.stuck_after_s


class Periodic:
    """Does `work` every `every_s` seconds, and again at once while it answers True (more to do now).

    With `idle_every_s` the pause grows up to that while it answers None (nothing to do): each look costs a transaction.
    A transient failure (a lost connection, a deadlock) is retried with back-off; any other exception leaves `run`.
    """

    def __init__(
        self,
        name: str,
        every_s: float,
        work: Callable[[], Awaitable[bool | None]],
        *,
        idle_every_s: float | None = None,
        stuck_after_s: float = 60.0,
    ) -> None:
        self.name = name
        self._every_s = every_s
        self._idle_every_s = every_s if idle_every_s is None else idle_every_s
        self._work = work
        self._stall = StallDetector(stuck_after_s + every_s)

    async def run(self, stop: asyncio.Event) -> None:
        backoff = Backoff(first_s=0.1, max_s=5.0)
        pause_s = self._every_s
        try:
            while not stop.is_set():
                self._stall.set_waiting(True)
                try:
                    more = await self._work()
                except Exception as error:
                    if not is_transient(error):
                        raise
                    self._stall.record_failure()
                    log.warning("periodic_failed", worker=self.name, error=type(error).__name__)
                    await backoff.wait(stop)
                    continue
                backoff.reset()
                self._stall.set_waiting(False)
                pause_s = min(pause_s * _IDLE_GROWTH, self._idle_every_s) if more is None else self._every_s
                await pause(stop, 0.0 if more else pause_s)
        finally:
            self._stall.set_waiting(False)

    def problem(self) -> str | None:
        if self._stall.is_stuck:
            return f"{self.name}: a round has not finished for more than {self._stall.stuck_after_s:.0f} s"
        return None


async def yield_to_foreground(busy: Callable[[], bool]) -> None:
    """Between two rounds of background work: wait while what people wait for is in hand, but not for ever, so that the work goes on
    however busy the process is."""
    until = monotonic() + _YIELD_S_MAX
    await asyncio.sleep(0)
    while busy() and monotonic() < until:  # noqa: ASYNC110 - it ends in many places, none of which tells
        await asyncio.sleep(_CHECK_EVERY_S)


async def pause(stop: asyncio.Event, seconds: float) -> None:
    """Wait so long, or until `stop` is set; always lets other tasks run once."""
    if seconds <= 0:
        await asyncio.sleep(0)
        return
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return
