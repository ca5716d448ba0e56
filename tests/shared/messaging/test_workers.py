"""A periodic worker repeats its work, waits out what passes by itself, and ends with what does not."""

import asyncio

import pytest

from accord.workers import Periodic, StallDetector, yield_to_foreground


async def test_it_works_again_at_once_while_there_is_more():
    left = [3]
    stop = asyncio.Event()

    async def work():
        left[0] -= 1
        if left[0] == 0:
            stop.set()
        return left[0] > 0

    await asyncio.wait_for(Periodic("p", 3600, work).run(stop), 10)
    assert left == [0]


async def test_a_transient_failure_is_tried_again():
    failures = iter([ConnectionResetError(), TimeoutError()])
    stop = asyncio.Event()

    async def work():
        if error := next(failures, None):
            raise error
        stop.set()
        return False

    await asyncio.wait_for(Periodic("p", 3600, work).run(stop), 10)


async def test_any_other_failure_ends_it():
    async def work():
        raise LookupError

    with pytest.raises(LookupError):
        await Periodic("p", 1, work).run(asyncio.Event())


async def test_a_round_that_does_not_finish_is_a_problem():
    begun, stop = asyncio.Event(), asyncio.Event()

    async def work():
        begun.set()
        await stop.wait()
        return False

    worker = Periodic("p", 0, work, stuck_after_s=0)
    assert worker.problem() is None
    task = asyncio.create_task(worker.run(stop))
    await begun.wait()
    assert "has not finished" in worker.problem()
    stop.set()
    await task
    assert worker.problem() is None


def test_nothing_that_waits_is_no_stall_and_progress_ends_one(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("accord.workers.monotonic", lambda: clock[0])
    stall = StallDetector(60)
    clock[0] = 1000
    assert not stall.is_stuck
    stall.set_waiting(True)
    clock[0] += 61
    stall.set_waiting(True)
    assert stall.is_stuck
    stall.record_progress()
    assert not stall.is_stuck


def test_a_retried_failure_is_never_a_stall_and_silence_after_it_is(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("accord.workers.monotonic", lambda: clock[0])
    stall = StallDetector(60)
    stall.set_waiting(True)
    for _ in range(6 * 3600 // 30):
        clock[0] += 30
        assert not stall.is_stuck
        stall.record_failure()
    clock[0] += 61
    assert stall.is_stuck


async def test_background_work_goes_on_when_nobody_waits_any_more_and_at_last_though_somebody_always_does():
    looks = iter([True, True, False])
    await yield_to_foreground(lambda: next(looks))
    assert next(looks, None) is None
    async with asyncio.timeout(10):
        await yield_to_foreground(lambda: True)
