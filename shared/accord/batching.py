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

from accord.database import is_transient
from accord.messaging import instruments

Request = TypeVar("Request")
Answer = TypeVar("Answer")

_DRAIN_S_MAX = 10.0


class Overloaded(Exception):
    """The queue is full or closing, and nothing was done. `retry_after_s` is jittered, against marching in step."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__("more requests than can be queued")
        self.retry_after_s = retry_after_s


class GroupCommit(Generic[Request, Answer]):
    """A worker that applies queued requests in batches.

    `apply` gets up to `batch_rows_max` requests and returns one answer for each, in order; an answer that is an
    Exception is raised to its submitter. If `apply` raises, the batch is bisected until the exception belongs to one
    request; a transient failure (see accord.database.is_transient) belongs to the whole batch, since each half would
    meet it too. At most `queue_rows_max` requests wait; one more raises Overloaded at once.
    """

    def __init__(
        self,
        apply: Callable[[Sequence[Request]], Awaitable[Sequence[Answer | Exception]]],
        *,
        batch_rows_max: int = 200,
        queue_rows_max: int = 2000,
        concurrent_batches: int = 2,
        name: str = "group-commit",
        stuck_after_s: float = 60.0,
    ) -> None:
        self.name = name
        self._apply = apply
        self._batch_rows_max = batch_rows_max
        self._queue_rows_max = queue_rows_max
        self._concurrent_batches = concurrent_batches
        self._stuck_after_s = stuck_after_s
        self._queue: deque[_Entry[Request, Answer]] = deque()
        self._arrived = asyncio.Event()
        self._closing = False
        self._progress_at = time.monotonic()
        self._rows = instruments.GROUP_COMMIT_ROWS.labels(name)
        self._waiting = instruments.GROUP_COMMIT_QUEUE.labels(name)

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
        if self._closing or len(self._queue) + len(requests) > self._queue_rows_max:
            raise Overloaded(random.uniform(0.5, 2.0))  # noqa: S311 - jitter, not a secret
        if not self._queue:
            self._progress_at = time.monotonic()
        waiting: _Waiting[Answer] = _Waiting(len(requests), asyncio.get_running_loop().create_future())
        self._queue.extend((request, waiting, place) for place, request in enumerate(requests))
        self._arrived.set()
        if requests:
            await waiting.done
        return waiting.answers

    async def run(self, stop: asyncio.Event) -> None:
        """Apply batches until `stop`, then drain what is queued."""
        self._closing = False
        lanes = [asyncio.create_task(self._lane()) for _ in range(self._concurrent_batches)]
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([stopped, *lanes], return_when=asyncio.FIRST_COMPLETED)
            self._closing = True
            self._arrived.set()
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
            self._refuse_the_rest()

    def problem(self) -> str | None:
        if self._queue and time.monotonic() - self._progress_at > self._stuck_after_s:
            return (
                f"{self.name}: {len(self._queue)} requests wait and none was answered for {self._stuck_after_s:.0f} s"
            )
        return None

    async def _lane(self) -> None:
        while True:
            if not self._queue:
                if self._closing:
                    return
                self._arrived.clear()
                await self._arrived.wait()
                await asyncio.sleep(0)  # requests that are ready in this same turn of the loop join the batch
                continue
            batch = self._take()
            self._waiting.set(len(self._queue))
            if batch:
                self._rows.observe(len(batch))
                await self._answer(batch)
                self._progress_at = time.monotonic()

    def _take(self) -> list[_Entry[Request, Answer]]:
        """Up to one batch, without those whose submitter has gone."""
        batch: list[_Entry[Request, Answer]] = []
        while self._queue and len(batch) < self._batch_rows_max:
            entry = self._queue.popleft()
            if not entry[1].done.cancelled():
                batch.append(entry)
        return batch

    async def _answer(self, batch: list[_Entry[Request, Answer]]) -> None:
        try:
            answers = await self._apply([request for request, _, _ in batch])
            if len(answers) != len(batch):
                raise RuntimeError(f"{self.name}: {len(answers)} answers to {len(batch)} requests")
        except Exception as error:  # noqa: BLE001 - it is handed to the submitters
            if len(batch) == 1 or is_transient(error):
                for _, waiting, place in batch:
                    waiting.settle(place, error)
                return
            middle = len(batch) // 2
            await self._answer(batch[:middle])
            await self._answer(batch[middle:])
        except BaseException:
            for _, waiting, _ in batch:
                waiting.done.cancel()
            raise
        else:
            for (_, waiting, place), answer in zip(batch, answers, strict=True):
                waiting.settle(place, answer)

    def _refuse_the_rest(self) -> None:
        while self._queue:
            _, waiting, place = self._queue.popleft()
            waiting.settle(place, Overloaded(1.0))


class _Waiting(Generic[Answer]):
    """One caller who waits for all answers to what it submitted together."""

    __slots__ = ("_missing", "answers", "done")

    def __init__(self, requests: int, done: asyncio.Future[None]) -> None:
        self.answers: list[Answer | Exception] = [Overloaded(1.0)] * requests
        self.done = done
        self._missing = requests

    def settle(self, place: int, answer: Answer | Exception) -> None:
        self.answers[place] = answer
        self._missing -= 1
        if not self._missing and not self.done.done():
            self.done.set_result(None)


_Entry = tuple[Request, _Waiting[Answer], int]
"""A request, who waits for its answer, and its place among what was submitted together."""
