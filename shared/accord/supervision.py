"""Runs a worker of this process and knows how it fares: again after each failure, for ever, where the process has other work that must
go on (role all); once where whoever supervises the process restarts it (roles worker, relay and api).
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from time import monotonic

import structlog
from msgspec import Struct

from accord.messaging.consumer import DeadLetterFailed, TooManyPoisonEvents
from accord.messaging.ports import FiniteRetention, LogPositionLost
from accord.metric_names import WORKER_FAILURES, WORKER_UP
from accord.retry import Backoff
from accord.workers import Worker, pause

log = structlog.get_logger(__name__)

RESTART_FIRST_S = 1.0
RESTART_S_MAX = 60.0
STEADY_AFTER_S = 60.0
"""A worker that has run for so long after a failure is no longer called failing, and its next failure counts as the first."""

_DEAD_LETTERS = "GET /v1/admin/dead-letters of this service"
_ACTIONS: dict[type[Exception], str] = {
    TooManyPoisonEvents: f"Read {_DEAD_LETTERS}: each names topic, partition, offset and error. If foreign records are the cause, stop who"
    " writes them and discard the dead letters; if a deployment is, roll it back or fix it and replay them: see"
    " docs/runbooks/consumer-stopped.md.",
    LogPositionLost: "Another record stands where this consumer had read up to, or none: see docs/runbooks/log-position-lost.md.",
    FiniteRetention: "Set the topic's retention.ms and retention.bytes to -1, or events are lost to who comes late.",
    DeadLetterFailed: "An event could not be applied nor written to the dead letters. The cause is in this line's error; mostly the"
    " database refuses the write (disk, permissions, a missing migration).",
}
_ACTION_OTHERWISE = "This is a defect, or an unforeseen record: the line's error and stack say where. Report both."


class WorkerEnded(Exception):
    """The worker has returned, or was cancelled from inside, and nobody had told it to stop."""


class _Failure(Struct, frozen=True):
    error: str
    failed_at: datetime
    times: int


class SupervisedWorker:
    """A worker under supervision, itself a worker. With `restarts` it is started again after each failure with back-off."""

    def __init__(self, worker: Worker, *, restarts: bool) -> None:
        self.name = worker.name
        self._worker = worker
        self._restarts = restarts
        self._backoff = Backoff(first_s=RESTART_FIRST_S, max_s=RESTART_S_MAX)
        self._failure: _Failure | None = None
        self._running_since: float | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Run it until `stop`. Without `restarts`, and while stopping, its failure is raised after it was logged and counted."""
        while True:
            error = await self._run_once(stop)
            if error is None:
                return
            self._record_failure(error)
            if not self._restarts or stop.is_set():
                self._log_failure(error, None)
                raise error
            delay_s = self._backoff.next_s()
            self._log_failure(error, delay_s)
            await pause(stop, delay_s)
            if stop.is_set():
                return

    def problem(self) -> str | None:
        """Why it is stuck; None while it is not running, since that is a known failure."""
        return None if self._running_since is None else self._worker.problem()

    def failure(self) -> str | None:
        """How it has failed, in one line without any data; None if it never has, or has run steadily since."""
        failure = self._failure
        if failure is None or self._is_steady():
            return None
        now = "stopped" if self._running_since is None else "running again"
        often = "once" if failure.times == 1 else f"{failure.times} times in a row"
        return f"failed {often}, last at {failure.failed_at:%Y-%m-%dT%H:%M:%SZ} ({failure.error}); {now}"

    async def _run_once(self, stop: asyncio.Event) -> Exception | None:
        """None if it has ended as it was told to."""
        self._running_since = monotonic()
        WORKER_UP.labels(self.name).set(1)
        try:
            await self._worker.run(stop)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Nobody has cancelled us: the worker awaited something of its own that was cancelled.
            return WorkerEnded()
        except Exception as error:  # noqa: BLE001 - reported by the caller
            return error
        return None if stop.is_set() else WorkerEnded()

    def _record_failure(self, error: Exception) -> None:
        if self._is_steady():
            self._failure = None
            self._backoff.reset()
        times = 1 if self._failure is None else self._failure.times + 1
        self._failure = _Failure(type(error).__name__, datetime.now(UTC), times)
        self._running_since = None
        WORKER_UP.labels(self.name).set(0)
        WORKER_FAILURES.labels(self.name).inc()

    def _log_failure(self, error: Exception, restarts_in_s: float | None) -> None:
        log.error(
            "worker_failed",
            worker=self.name,
            restarts_in_s=restarts_in_s,
            action=_ACTIONS.get(type(error), _ACTION_OTHERWISE),
            exc_info=error,
        )

    def _is_steady(self) -> bool:
        return self._running_since is not None and monotonic() - self._running_since >= STEADY_AFTER_S
