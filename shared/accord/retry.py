"""Bounded back-off with jitter, the same for every worker that waits for a repair. It retries nothing by itself."""

from __future__ import annotations

import asyncio
import random


class Backoff:
    """Delays that double from `first_s` to `max_s`, each between half and whole: replicas must not march in step."""

    def __init__(self, *, first_s: float, max_s: float) -> None:
        self._first_s = first_s
        self._max_s = max_s
        self.attempts = 0

    def next_s(self) -> float:
        """The next delay in seconds."""
        ceiling = min(self._max_s, self._first_s * 2.0 ** min(self.attempts, 30))
        self.attempts += 1
        return ceiling * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret

    def reset(self) -> None:
        self.attempts = 0

    async def wait(self, stop: asyncio.Event) -> None:
        """Sleep the next delay, or until `stop` is set."""
        try:
            async with asyncio.timeout(self.next_s()):
                await stop.wait()
        except TimeoutError:
            return
