"""A worker that fails is started again with back-off where the process has other work, and everybody is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from accord import supervision
from accord.messaging.consumer import DeadLetterFailed, TooManyPoisonEvents
from accord.metric_names import REGISTRY
from accord.supervision import RESTART_S_MAX, STEADY_AFTER_S, SupervisedWorker, WorkerEnded


class Scripted:
    """A worker that does the next of these things each time it is run, and then waits for the end."""

    name = "scripted"

    def __init__(self, *script: Callable[[], Awaitable[None]] | Exception) -> None:
        self._script: Iterator[Any] = iter(script)
        self.runs = 0

    async def run(self, stop: asyncio.Event) -> None:
        self.runs += 1
        match next(self._script, None):
            case None:
                await stop.wait()
            case Exception() as error:
                raise error
            case act:
                await act()

    def problem(self) -> str | None:
        return "scripted: stuck"


class Time:
    """A clock of the test's own: a pause takes no time and moves it on."""

    def __init__(self) -> None:
        self.now_s = 1_000.0
        self.pauses: list[float] = []
        self.stop = asyncio.Event()
        self.stop_after = 10_000

    async def pause(self, _stop: asyncio.Event, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now_s += seconds
        if len(self.pauses) >= self.stop_after:
            self.stop.set()


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    fake = Time()
    monkeypatch.setattr(supervision, "monotonic", lambda: fake.now_s)
    monkeypatch.setattr(supervision, "pause", fake.pause)
    return fake


def metric(name: str) -> float:
    return REGISTRY.get_sample_value(name, {"worker": "scripted"}) or 0.0


async def test_it_is_started_again_for_ever_with_a_delay_that_doubles_to_a_minute(time: Time) -> None:
    before = metric("accord_worker_failures_total")
    worker = Scripted(*(ValueError() for _ in range(40)))
    time.stop_after = 40
    await SupervisedWorker(worker, restarts=True).run(time.stop)
    assert worker.runs == 40
    for attempt, delay_s in enumerate(time.pauses):
        most = min(RESTART_S_MAX, 2.0**attempt)
        assert most / 2 <= delay_s <= most
    assert metric("accord_worker_failures_total") == before + 40
    assert metric("accord_worker_up") == 0


async def test_a_failure_after_a_steady_minute_counts_as_the_first(time: Time) -> None:
    async def work_for_a_minute_and_fail() -> None:
        time.now_s += STEADY_AFTER_S + 1
        raise ValueError

    time.stop_after = 5
    worker = Scripted(ValueError(), ValueError(), ValueError(), work_for_a_minute_and_fail, ValueError())
    supervised = SupervisedWorker(worker, restarts=True)
    await supervised.run(time.stop)
    assert time.pauses[2] >= 2
    assert time.pauses[3] <= 1
    assert "2 times in a row" in (supervised.failure() or "")


async def test_it_tells_how_it_fares_and_is_never_stuck_while_it_does_not_run(time: Time) -> None:
    supervised = SupervisedWorker(Scripted(ValueError("ada@initech.example")), restarts=True)
    assert (supervised.failure(), supervised.problem()) == (None, None)
    task = asyncio.create_task(supervised.run(time.stop))
    while not time.pauses:  # noqa: ASYNC110 - the clock is the test's own
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    said = supervised.failure() or ""
    assert "failed once" in said
    assert said.endswith("(ValueError); running again")
    assert "initech" not in said
    assert supervised.problem() == "scripted: stuck"
    assert metric("accord_worker_up") == 1
    time.now_s += STEADY_AFTER_S + 1
    assert supervised.failure() is None
    time.stop.set()
    await task


async def test_what_nobody_asked_to_end_is_a_failure_also_if_something_inside_was_cancelled(time: Time) -> None:
    async def end() -> None:
        return

    async def await_something_cancelled() -> None:
        inner = asyncio.create_task(asyncio.sleep(3600))
        inner.cancel()
        await inner

    for script in (end, await_something_cancelled):
        with pytest.raises(WorkerEnded):
            await SupervisedWorker(Scripted(script), restarts=False).run(time.stop)


async def test_whoever_cancels_it_ends_it(time: Time) -> None:
    task = asyncio.create_task(SupervisedWorker(Scripted(), restarts=True).run(time.stop))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.pauses == []


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (TooManyPoisonEvents("20 in a row"), "/v1/admin/dead-letters"),
        (DeadLetterFailed("at its place"), "the database refuses the write"),
        (LookupError(), "defect"),
    ],
)
async def test_the_log_says_what_an_operator_does_next(
    error: Exception, said: str, time: Time, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(type(error)):
        await SupervisedWorker(Scripted(error), restarts=False).run(time.stop)
    line = json.loads(capsys.readouterr().out)
    assert (line["event"], line["worker"]) == ("worker_failed", "scripted")
    assert line["error"].startswith(type(error).__name__)
    assert said in line["action"]
