"""An event loop whose time is virtual: it jumps from one timer to the next. Nothing in it waits, polls or calls the system.

Callbacks run in the order in which they became ready, as asyncio promises. What varies with the seed is how long each
operation of the simulated servers takes, so any order in which answers may come in can come about.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, TypeVar

T = TypeVar("T")

CALLBACKS_MAX = 1_000_000
"""A run that needs more is a loop without an end."""


class SimulationStuck(Exception):
    """No timer and no callback is left although the run has not ended, or it goes on for ever."""


class SimulatedLoop(asyncio.AbstractEventLoop):
    """What asyncio's tasks, locks, events and time-outs need of a loop, and no more."""

    def __init__(self) -> None:
        self._now = 0.0
        self._ready: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[float, int, asyncio.TimerHandle | asyncio.Future[None]]] = []
        self._timer_count = 0
        self._is_running = False
        self._is_closed = False
        self.callbacks = 0
        self.on_task: Callable[[asyncio.Task[Any], Context | None], None] | None = None
        self.errors: list[BaseException] = []
        """What callbacks and abandoned tasks raised."""

    def time(self) -> float:
        return self._now

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_later(
        self, delay: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Context | None = None) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._timer_count += 1
        heapq.heappush(self._timers, (when, self._timer_count, handle))
        return handle

    def sleep(self, delay: float) -> asyncio.Future[None]:
        """What asyncio.sleep does, in half of the time."""
        future: asyncio.Future[None] = asyncio.Future(loop=self)
        self._timer_count += 1
        heapq.heappush(self._timers, (self._now + delay, self._timer_count, future))
        return future

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """asyncio tells of cancelled timers; they are passed over when their time comes."""

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self, coro: Coroutine[Any, Any, T], *, name: str | None = None, context: Context | None = None, **_: Any
    ) -> asyncio.Task[T]:
        task = asyncio.Task(coro, loop=self, name=name or "task", context=context)
        if self.on_task is not None:
            self.on_task(task, context)
        return task

    def run_until_complete(self, future: Any) -> Any:
        """Run until the coroutine is done; its result. Raises SimulationStuck if it never will be."""
        asyncio._set_running_loop(self)
        self._is_running = True
        try:
            task = self.create_task(future)
            while True:
                self._turn()
                if task.done():
                    return task.result()
        finally:
            self._is_running = False
            asyncio._set_running_loop(None)

    def _turn(self) -> None:
        """All callbacks that are ready, after time has been moved on to the next timer if there are none."""
        ready, timers = self._ready, self._timers
        while ready:
            handle = ready.popleft()
            if not handle._cancelled:
                self.callbacks += 1
                try:
                    handle._context.run(handle._callback, *handle._args)
                except (SystemExit, KeyboardInterrupt):
                    raise
                except BaseException as error:  # noqa: BLE001 - as any loop does; the run is judged by them
                    self.errors.append(error)
                if self.callbacks > CALLBACKS_MAX:
                    raise SimulationStuck(f"more than {CALLBACKS_MAX} callbacks")
        if not timers:
            raise SimulationStuck("nothing will ever happen again")
        now, _, first = heapq.heappop(timers)
        if first.cancelled():
            return
        self._now = max(self._now, now)
        if isinstance(first, asyncio.TimerHandle):
            ready.append(first)
        elif not first.done():
            first.set_result(None)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.errors.append(error if error is not None else RuntimeError(context.get("message")))

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return self._is_running

    def is_closed(self) -> bool:
        return self._is_closed

    def close(self) -> None:
        """Drop what is left without running it."""
        self._is_closed = True
        self._ready.clear()
        self._timers.clear()
