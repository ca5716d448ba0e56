"""Group commit: requests of the same few milliseconds share one transaction, and each still gets its own answer.

It opens no transaction; `apply` does. Nothing is answered before `apply` has returned, so never before the commit.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from accord.db import is_transient
from accord.metric_names import GROUP_COMMIT_QUEUE, GROUP_COMMIT_ROWS

Request = TypeVar("Request")
Answer = TypeVar("Answer")

_DRAIN_S_MAX = 10.0


class Overloaded(Exception):
    """The queue is full or closing, and nothing was done. `retry_after_s` is jittered, against marching in step."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__("more requests than can be queued")
        self.retry_after_s = retry_after_s


class ConcurrencyLimit:
    """Lets `running_max` at a time into `async with`, and `waiting_max` more wait for it; one more raises Overloaded at once."""

    def __init__(self, running_max: int, waiting_max: int, retry_after_s: float) -> None:
        self._running = asyncio.Semaphore(running_max)
        self._inside_max = running_max + waiting_max
        self._inside = 0
        self._retry_after_s = retry_after_s

    async def __aenter__(self) -> None:
        if self._inside >= self._inside_max:
            raise Overloaded(self._retry_after_s)
        self._inside += 1
        try:
            await self._running.acquire()
        except BaseException:
            self._inside -= 1
            raise

    async def __aexit__(self, *_: object) -> None:
        self._inside -= 1
        self._running.release()


class TimeBudget:
    """How long a computation in a thread may take. It asks between two rows, and stops once the time is up, or the request that
    waits for it was cancelled: `with budget:` around the waiting ends the budget too."""

    def __init__(self, time_max_s: float) -> None:
        self._ends_at = time.monotonic() + time_max_s

    def __enter__(self) -> TimeBudget:
        return self

    def __exit__(self, *_: object) -> None:
        self._ends_at = 0.0

    @property
    def is_used_up(self) -> bool:
        return time.monotonic() >= self._ends_at


class GroupCommit(Generic[Request, Answer]):
    """A worker that applies queued requests in batches, `concurrent_batches` at a time.

    What was submitted together is applied in its order, one batch after the other. `apply` gets up to `batch_rows_max`
    requests and returns one answer for each, in order; an answer that is an Exception is raised to its submitter. If
    `apply` raises, the batch is bisected until the exception belongs to one request; a transient failure (see
    accord.db.errors.is_transient) belongs to the whole batch, since each half would meet it too. At most `queue_rows_max`
    requests wait; one more raises Overloaded at once.

    A batch costs nearly the same for one request as for some. So while fewer than `gather_rows` wait, one batch is applied at
    a time, and where requests come side by side it begins `gather_s` after the last one at the earliest. Whoever sends one after
    the other does not wait.
    """

    def __init__(
        self,
        apply: Callable[[Sequence[Request]], Awaitable[Sequence[Answer | Exception]]],
        *,
        batch_rows_max: int = 200,
        gather_rows: int = 8,
        gather_s: float = 0.015,
        queue_rows_max: int = 2000,
        concurrent_batches: int = 2,
        name: str = "group-commit",
        stuck_after_s: float = 60.0,
    ) -> None:
        self.name = name
        self._apply = apply
        self._batch_rows_max = batch_rows_max
        self._gather_rows = gather_rows
        self._gather_s = gather_s
        self._queue_rows_max = queue_rows_max
        self._concurrent_batches = concurrent_batches
        self._stuck_after_s = stuck_after_s
        self._queue: deque[_Group[Request, Answer]] = deque()
        self._queued_rows = 0
        self._changed = asyncio.Event()
        """Requests have come, or a batch has ended."""
        self._batches = 0
        """That are being applied now."""
        self._last_rows = 0
        self._last_at = 0.0
        self._closing = False
        self._progress_at = time.monotonic()
        self._rows = GROUP_COMMIT_ROWS.labels(name)
        self._waiting = GROUP_COMMIT_QUEUE.labels(name)

    async def submit(self, request: Request) -> Answer:
        """The answer, once its batch was committed. Raises Overloaded, or what `apply` raised for this request."""
        answer = (await self.submit_all([request]))[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def submit_all(self, requests: Sequence[Request]) -> list[Answer | Exception]:
        """An answer for each, in order, or what `apply` raised for it. They are queued in a row, all or none.

        Raises Overloaded. They may be applied in several batches, so a crash can leave the first of them done.
        """
        if self._closing or self._queued_rows + len(requests) > self._queue_rows_max:
            raise Overloaded(random.uniform(0.5, 2.0))  # noqa: S311 - jitter, not a secret
        if not requests:
            return []
        if not self._queue:
            self._progress_at = time.monotonic()
        group: _Group[Request, Answer] = _Group(requests, asyncio.get_running_loop().create_future())
        self._queue.append(group)
        self._queued_rows += len(requests)
        self._changed.set()
        await group.done
        return group.answers

    async def run(self, stop: asyncio.Event) -> None:
        """Apply batches until `stop`, then drain what is queued."""
        self._closing = False
        lanes = [asyncio.create_task(self._lane()) for _ in range(self._concurrent_batches)]
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([stopped, *lanes], return_when=asyncio.FIRST_COMPLETED)
            self._closing = True
            self._changed.set()
            _, late = await asyncio.wait(lanes, timeout=_DRAIN_S_MAX)
            for lane in late:
                lane.cancel()
            for ended in await asyncio.gather(*lanes, return_exceptions=True):
                if isinstance(ended, Exception):
                    raise ended
        finally:
            stopped.cancel()
            for task in lanes:
                task.cancel()
            self._refuse_queued()

    def problem(self) -> str | None:
        if self._queue and time.monotonic() - self._progress_at > self._stuck_after_s:
            return (
                f"{self.name}: {self._queued_rows} requests wait and none was answered for {self._stuck_after_s:.0f} s"
            )
        return None

    async def _lane(self) -> None:
        while self._queue or not self._closing:
            if self._queued_rows < (self._gather_rows if self._batches else 1):
                self._changed.clear()
                await self._changed.wait()
                await asyncio.sleep(0)  # requests that are ready in this same turn of the loop join the batch
                continue
            self._batches += 1
            try:
                await self._gather()
                await self._answer_in_batches(self._take_batch())
            finally:
                self._batches -= 1
                self._changed.set()

    async def _gather(self) -> None:
        """Let a moment pass since the last batch, if others send requests beside the one that waits."""
        rows = self._queued_rows
        wait_s = self._last_at + self._gather_s - time.monotonic()
        if wait_s > 0 and rows < self._gather_rows and max(rows, self._last_rows) > 1 and not self._closing:
            await asyncio.sleep(wait_s)
        self._last_at = time.monotonic()

    async def _answer_in_batches(self, entries: list[_Entry[Request, Answer]]) -> None:
        self._waiting.set(self._queued_rows)
        self._last_rows = len(entries)
        while entries:
            batch, entries = entries[: self._batch_rows_max], entries[self._batch_rows_max :]
            self._rows.observe(len(batch))
            await self._answer_batch(batch)
            self._progress_at = time.monotonic()

    def _take_batch(self) -> list[_Entry[Request, Answer]]:
        """Groups that fill one batch at most, or the next one if it is larger; without those whose submitter has gone."""
        entries: list[_Entry[Request, Answer]] = []
        while self._queue and (not entries or len(entries) + len(self._queue[0].requests) <= self._batch_rows_max):
            group = self._queue.popleft()
            self._queued_rows -= len(group.requests)
            if not group.done.cancelled():
                entries += [(request, group, index) for index, request in enumerate(group.requests)]
        return entries

    async def _answer_batch(self, batch: list[_Entry[Request, Answer]]) -> None:
        try:
            answers = await self._apply([request for request, _, _ in batch])
            if len(answers) != len(batch):
                raise RuntimeError(f"{self.name}: {len(answers)} answers to {len(batch)} requests")
        except Exception as error:  # noqa: BLE001 - it is handed to the submitters
            if len(batch) == 1 or is_transient(error):
                for _, group, index in batch:
                    group.set_answer(index, error)
                return
            middle = len(batch) // 2
            await self._answer_batch(batch[:middle])
            await self._answer_batch(batch[middle:])
        except BaseException:
            for _, group, _ in batch:
                group.done.cancel()
            raise
        else:
            for (_, group, index), answer in zip(batch, answers, strict=True):
                group.set_answer(index, answer)

    def _refuse_queued(self) -> None:
        while self._queue:
            group = self._queue.popleft()
            self._queued_rows -= len(group.requests)
            for index in range(len(group.requests)):
                group.set_answer(index, Overloaded(1.0))


class _Group(Generic[Request, Answer]):
    """What one caller has submitted together, and the answers that have come."""

    __slots__ = ("_missing", "answers", "done", "requests")

    def __init__(self, requests: Sequence[Request], done: asyncio.Future[None]) -> None:
        self.requests = requests
        self.answers: list[Answer | Exception] = [Overloaded(1.0)] * len(requests)
        self.done = done
        self._missing = len(requests)

    def set_answer(self, index: int, answer: Answer | Exception) -> None:
        self.answers[index] = answer
        self._missing -= 1
        if not self._missing and not self.done.done():
            self.done.set_result(None)


_Entry = tuple[Request, _Group[Request, Answer], int]
"""A request, the group it came with, and its place there."""
