"""What runs beside the API: the protocol of a worker, and a worker that does a job every so often. It starts no process and no thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

from accord.database import is_transient
from accord.retry import Backoff

log = structlog.get_logger(__name__)


class Worker(Protocol):
    """A part of a service that runs until it is told to stop."""

    @property
    def name(self) -> str: ...

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then drain (10 s at most) and return. An exception ends the process."""
        ...

    def problem(self) -> str | None:
        """None, or in one line why this worker is stuck; for liveness."""
        ...


class Periodic:
    """Does `work` every `every_s` seconds, and again at once while it answers True (more to do now).

    A transient failure (a lost connection, a deadlock) is retried with back-off; any other exception ends the process.
    """

    def __init__(
        self,
        name: str,
        every_s: float,
        work: Callable[[], Awaitable[bool]],
        *,
        stuck_after_s: float = 60.0,
    ) -> None:
        self.name = name
        self._every_s = every_s
        self._work = work
        self._stuck_after_s = stuck_after_s + every_s
        self._done_at: float | None = None

    async def run(self, stop: asyncio.Event) -> None:
        backoff = Backoff(first_s=0.1, max_s=5.0)
        self._done_at = time.monotonic()
        try:
            while not stop.is_set():
                try:
                    more = await self._work()
                except Exception as error:
                    if not is_transient(error):
                        raise
                    log.warning("periodic_failed", worker=self.name, error=type(error).__name__)
                    await backoff.wait(stop)
                    continue
                backoff.reset()
                self._done_at = time.monotonic()
                await pause(stop, 0.0 if more else self._every_s)
        finally:
            self._done_at = None

    def problem(self) -> str | None:
        if self._done_at is None or time.monotonic() - self._done_at < self._stuck_after_s:
            return None
        return f"{self.name}: no round finished for {self._stuck_after_s:.0f} s"


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
