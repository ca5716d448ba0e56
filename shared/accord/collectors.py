"""Gauges that are read from the database when Prometheus asks, by every instance alike. None ever shows an old value: what cannot
be read is NaN, and `accord_collector_up` is 0.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence

import structlog
from msgspec import Struct
from prometheus_client import Gauge

from accord.metric_names import COLLECTOR_UP
from accord.shared_run import SharedRun

log = structlog.get_logger(__name__)

_WITHIN_S = 1.0


class Collector(Struct, frozen=True, kw_only=True):
    """`collect` sets all of `gauges` to what is the case now, or raises."""

    name: str
    gauges: Sequence[Gauge]
    collect: Callable[[], Awaitable[None]]


class CollectorSet:
    """The collectors of one process. They run before each scrape, side by side, for a second at most and once a second at most."""

    def __init__(self, collectors: Sequence[Collector], *, within_s: float = _WITHIN_S, every_s: float = 1.0) -> None:
        self._collectors = list(collectors)
        self._within_s = within_s
        self._running: dict[str, asyncio.Task[None]] = {}
        self.refresh = SharedRun(self._collect_all, every_s)

    async def _collect_all(self) -> None:
        await asyncio.gather(*(self._collect(collector) for collector in self._collectors))

    async def _collect(self, collector: Collector) -> None:
        """Run one of them. What takes too long is cancelled, and not begun again before it has ended."""
        task = self._running.get(collector.name)
        if task is None or task.done():
            task = self._running[collector.name] = asyncio.create_task(_call(collector))
        await asyncio.wait([task], timeout=self._within_s)
        failure = _failure_of(task)
        COLLECTOR_UP.labels(collector.name).set(failure is None)
        if failure is not None:
            task.cancel()
            _invalidate(collector.gauges)
            log.warning("collector_failed", collector=collector.name, error=failure)


async def _call(collector: Collector) -> None:
    await collector.collect()


def _failure_of(task: asyncio.Task[None]) -> str | None:
    if not task.done():
        return "TimeoutError"
    if task.cancelled():
        return "CancelledError"
    error = task.exception()
    return None if error is None else type(error).__name__


def _invalidate(gauges: Sequence[Gauge]) -> None:
    """Set each series of these gauges to NaN."""
    for gauge in gauges:
        for sample in [sample for metric in gauge.collect() for sample in metric.samples]:
            (gauge.labels(**sample.labels) if sample.labels else gauge).set(math.nan)
