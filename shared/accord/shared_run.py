"""One run of something for everybody who asks within the same second: probes and scrapes must not multiply the work."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic


class SharedRun:
    """Calls `work` at most once every `every_s` seconds; who asks meanwhile gets the outcome of that call, an exception too."""

    def __init__(self, work: Callable[[], Awaitable[None]], every_s: float = 1.0) -> None:
        self._work = work
        self._every_s = every_s
        self._run: asyncio.Task[None] | None = None
        self._started_at = 0.0

    async def __call__(self) -> None:
        run = self._run
        if run is None or (run.done() and monotonic() - self._started_at >= self._every_s):
            run = self._run = asyncio.create_task(self._call())
            run.add_done_callback(_retrieve)
            self._started_at = monotonic()
        await asyncio.shield(run)

    async def _call(self) -> None:
        await self._work()


def _retrieve(run: asyncio.Task[None]) -> None:
    """Note an exception as seen, also if everybody who waited has gone."""
    if not run.cancelled():
        run.exception()
