"""Runs seeds. The same seed gives the same run, given the same code and PYTHONHASHSEED (the command sets it)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Context
from typing import Any
from unittest import mock

import structlog
from msgspec import Struct

from accord.messaging import consumer, relay
from tests.simulation import events
from tests.simulation.faults import Faults
from tests.simulation.loop import SimulationStuck
from tests.simulation.process import CURRENT, Environment, ProcessKilled
from tests.simulation.world import World


class Outcome(Struct, frozen=True):
    """What became of a seed."""

    seed: int
    violations: tuple[str, ...]
    callbacks: int
    seconds: float
    """Virtual ones."""


@contextmanager
def prepared() -> Iterator[None]:
    """Types registered, logs dropped, and periods of seconds or more brought to the size of a run."""
    periods = [
        (relay, "_LAYOUTS_EVERY_S", 0.3),
        (relay, "_BALANCE_EVERY_S", 0.4),
        (relay, "_STANDBY_S", 0.3),
        (relay, "_REST_S_MAX", 2.0),
        (relay, "_DRAIN_S_MAX", 0.3),
        (relay, "_ROUND_S_MAX", 0.1),
        (consumer, "_BALANCE_EVERY_S", 0.5),
        (consumer, "_POLL_S", 0.5),
        (consumer, "_BACKOFF_S_MAX", 1.0),
    ]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    with events.registered():
        patches = [mock.patch.object(module, name, value) for module, name, value in periods]
        for patch in patches:
            patch.start()
        try:
            yield
        finally:
            for patch in patches:
                patch.stop()
            structlog.reset_defaults()


def run_seed(seed: int, faults: Faults | None = None, *, tracing: bool = False) -> Outcome:
    """One run. Needs `prepared`."""
    random.seed(seed)
    environment = Environment(seed, tracing=tracing)
    environment.loop.on_task = _own
    world = World(environment, faults or Faults())
    if environment.trace:
        environment.trace(world.plan)
    try:
        environment.loop.run_until_complete(world.run())
    except SimulationStuck as error:
        environment.violated(f"stuck: {error}")
    except Exception as error:
        environment.violated(f"{type(error).__name__}: {error}")
        if tracing:
            raise
    for error in environment.loop.errors:
        if not isinstance(error, ProcessKilled):
            environment.violated(f"in a callback: {type(error).__name__}: {error}")
    outcome = Outcome(seed, tuple(environment.violations), environment.loop.callbacks, environment.loop.time())
    environment.loop.close()
    return outcome


def _own(task: asyncio.Task[Any], context: Context | None) -> None:
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    process = CURRENT.get() if context is None else context.get(CURRENT)
    if process is not None:
        process.own(task)
