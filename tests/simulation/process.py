"""What a process is to the simulator: tasks that can be killed or stopped at any operation on a server, and how long that takes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol
from uuid import UUID

from tests.simulation.loop import SimulatedLoop

EPOCH = datetime(2026, 1, 5, 9, tzinfo=UTC)
"""When virtual time begins."""

CURRENT: ContextVar[Process | None] = ContextVar("process", default=None)
"""The process that a task belongs to."""

NEW_TYPES = frozenset({"sim.noted.v2"})
"""Event types that programs know from their second version on."""

_SLOW_S_MAX = 0.4


class ProcessKilled(BaseException):
    """The process is dead: what is left of its code may not touch the world any more."""


@dataclass(slots=True)
class Odds:
    """How likely an operation on a server goes wrong, of 1."""

    kill: float = 0.0
    lose_connection: float = 0.0
    slow: float = 0.0
    lose_ack: float = 0.0
    fail_append: float = 0.0
    hide_writers: float = 0.0


class Loop(Protocol):
    """What the simulated servers need of a loop; in a simulation it is a SimulatedLoop."""

    def time(self) -> float: ...

    def sleep(self, delay: float) -> Awaitable[None]: ...

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> object: ...

    def create_future(self) -> asyncio.Future[None]: ...


class Environment:
    """Time and chance of one run. Everything random comes from here, or from the `random` module, which is seeded too."""

    def __init__(self, seed: int, *, loop: Loop | None = None, tracing: bool = False) -> None:
        self.rng = random.Random(seed)
        self.loop: Any = loop or SimulatedLoop()
        self.odds = Odds()
        self.violations: list[str] = []
        self._numbers = 0
        self.trace: Callable[..., None] | None = self._print if tracing else None

    def next_number(self) -> int:
        """A number that nothing else of this run has."""
        self._numbers += 1
        return self._numbers

    def new_id(self) -> UUID:
        """An id that looks like those of accord.ids, and depends on the seed alone."""
        milliseconds = int(self.now().timestamp() * 1000)
        return UUID(int=milliseconds << 80 | 0x7 << 76 | 0x2 << 62 | self.next_number())

    def happens(self, odds: float) -> bool:
        return odds > 0.0 and self.rng.random() < odds

    def now(self, offset: timedelta = timedelta()) -> datetime:
        """Wall-clock time of a machine whose clock is off by so much."""
        return EPOCH + timedelta(seconds=self.loop.time()) + offset

    async def travel(self) -> None:
        """The way of a request or an answer."""
        rng = self.rng
        delay_s = 0.0002 + 0.003 * rng.random()
        if self.odds.slow and rng.random() < self.odds.slow:
            delay_s += _SLOW_S_MAX * rng.random()
        await self.loop.sleep(delay_s)

    def violated(self, what: str) -> None:
        """A promise was broken; the run ends."""
        if len(self.violations) < 20:
            self.violations.append(what)
        if self.trace:
            self.trace("VIOLATION", what)

    def _print(self, *what: Any) -> None:
        process = CURRENT.get()
        print(f"{self.loop.time():9.4f} {process.name if process else '-':<16}", *what)


class Process:
    """One operating-system process."""

    def __init__(self, environment: Environment, name: str, version: int = 1) -> None:
        self.environment = environment
        self.name = name
        self.version = version
        self.is_alive = True
        self.on_death: list[Callable[[], None]] = []
        self._tasks: list[asyncio.Task[Any]] = []
        self._stopped: asyncio.Event | None = None

    def knows(self, type_: str) -> bool:
        """Whether this version of the program knows an event type."""
        return self.version >= 2 or type_ not in NEW_TYPES

    def own(self, task: asyncio.Task[Any]) -> None:
        self._tasks.append(task)
        if not self.is_alive:
            task.cancel()
        if len(self._tasks) > 64:
            self._tasks = [one for one in self._tasks if not one.done()]

    async def step(self) -> None:
        """Between two operations: here it may die, or stand still."""
        environment = self.environment
        if self.is_alive and environment.odds.kill and environment.rng.random() < environment.odds.kill:
            self.kill()
        if not self.is_alive:
            raise ProcessKilled(self.name)
        while self._stopped is not None:
            await self._stopped.wait()
            if not self.is_alive:
                raise ProcessKilled(self.name)

    def kill(self) -> None:
        """Let it end at once, like SIGKILL."""
        if not self.is_alive:
            return
        self.is_alive = False
        if self.environment.trace:
            self.environment.trace("killed", self.name)
        current = asyncio.current_task()
        for task in self._tasks:
            if task is not current:
                task.cancel()
        self._tasks.clear()
        for reported in self.on_death:
            reported()
        self.on_death.clear()
        self.resume()

    def suspend(self) -> None:
        """Let it stand still, like SIGSTOP: what it has sent goes on, what it has not sent waits."""
        if self._stopped is None:
            self._stopped = asyncio.Event()

    def resume(self) -> None:
        stopped, self._stopped = self._stopped, None
        if stopped is not None:
            stopped.set()
