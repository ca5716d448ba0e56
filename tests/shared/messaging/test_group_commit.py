"""Requests share a transaction and keep their own answers."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.effort import cases

from accord.batching import GroupCommit, Overloaded


@asynccontextmanager
async def running(group):
    stop = asyncio.Event()
    task = asyncio.create_task(group.run(stop))
    await asyncio.sleep(0)
    try:
        yield stop
    finally:
        stop.set()
        await task


class Gate:
    """An apply that waits for the test, and remembers its batches."""

    def __init__(self):
        self.batches = []
        self.open = asyncio.Event()

    async def __call__(self, requests):
        self.batches.append(list(requests))
        await self.open.wait()
        return [request * 10 for request in requests]


async def test_requests_that_arrive_during_a_batch_share_the_next():
    gate = Gate()
    group = GroupCommit(gate, concurrent_batches=1)
    async with running(group):
        first = asyncio.create_task(group.submit(1))
        while not gate.batches:  # noqa: ASYNC110
            await asyncio.sleep(0)
        rest = [asyncio.create_task(group.submit(n)) for n in range(2, 7)]
        await asyncio.sleep(0)
        gate.open.set()
        assert await first == 10
        assert await asyncio.gather(*rest) == [20, 30, 40, 50, 60]
    assert gate.batches == [[1], [2, 3, 4, 5, 6]]


async def test_requests_of_the_same_turn_share_the_first_batch():
    gate = Gate()
    gate.open.set()
    group = GroupCommit(gate)
    async with running(group):
        await asyncio.gather(*(group.submit(n) for n in range(50)))
    assert gate.batches == [list(range(50))]


async def test_few_requests_wait_for_the_batch_that_is_applied_and_many_do_not():
    gate = Gate()
    group = GroupCommit(gate, concurrent_batches=2, gather_rows=4, gather_s=0.0)
    async with running(group):
        submitted = []
        for count, batches in ((1, 1), (3, 1), (1, 2)):
            submitted += [asyncio.create_task(group.submit(1)) for _ in range(count)]
            for _ in range(5):
                await asyncio.sleep(0)
            assert len(gate.batches) == batches
        gate.open.set()
        await asyncio.gather(*submitted)
    assert [len(batch) for batch in gate.batches] == [1, 4]


async def test_requests_side_by_side_gather_and_one_after_the_other_do_not_wait(monkeypatch):
    pauses = []

    async def pause(seconds):
        if seconds:
            pauses.append(seconds)
        await turn(0)

    turn = asyncio.sleep
    monkeypatch.setattr(asyncio, "sleep", pause)
    gate = Gate()
    gate.open.set()
    group = GroupCommit(gate, gather_s=3_600.0)
    async with running(group):
        for _ in range(5):
            await group.submit(1)
        assert pauses == []
        await asyncio.gather(group.submit(1), group.submit(1))
        assert 3_000 < pauses[0] <= 3_600
        assert gate.batches == [[1]] * 5 + [[1, 1]]


async def test_a_batch_is_bounded():
    gate = Gate()
    gate.open.set()
    group = GroupCommit(gate, batch_rows_max=20)
    async with running(group):
        await asyncio.gather(*(group.submit(n) for n in range(50)))
    assert max(map(len, gate.batches)) == 20


async def test_a_full_queue_answers_overloaded_at_once():
    gate = Gate()
    group = GroupCommit(gate, queue_rows_max=3, concurrent_batches=1, batch_rows_max=1)
    async with running(group):
        tasks = [asyncio.create_task(group.submit(0))]
        while not gate.batches:  # noqa: ASYNC110
            await asyncio.sleep(0)
        tasks += [asyncio.create_task(group.submit(n)) for n in range(1, 4)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded) as overloaded:
            await group.submit(9)
        assert overloaded.value.retry_after_s > 0
        gate.open.set()
        assert await asyncio.gather(*tasks) == [0, 10, 20, 30]


@settings(max_examples=cases(60), deadline=None)
@given(bad=st.sets(st.integers(0, 39)), batch_rows_max=st.integers(1, 40))
def test_each_failing_request_gets_its_own_exception_and_every_other_its_answer(bad, batch_rows_max):
    async def apply(requests):
        for request in requests:
            if request in bad:
                raise LookupError(request)
        return [request + 1 for request in requests]

    async def go():
        group = GroupCommit(apply, batch_rows_max=batch_rows_max)
        async with running(group):
            return await asyncio.gather(*(group.submit(n) for n in range(40)), return_exceptions=True)

    for n, answer in enumerate(asyncio.run(go())):
        if n in bad:
            assert isinstance(answer, LookupError)
            assert answer.args == (n,)
        else:
            assert answer == n + 1


async def test_an_answer_that_is_an_exception_is_raised_to_its_submitter_alone():
    async def apply(requests):
        return [ValueError(request) if request == 3 else request for request in requests]

    group = GroupCommit(apply)
    async with running(group):
        answers = await asyncio.gather(*(group.submit(n) for n in range(6)), return_exceptions=True)
    assert [answer for answer in answers if not isinstance(answer, Exception)] == [0, 1, 2, 4, 5]
    assert isinstance(answers[3], ValueError)


async def test_a_transient_failure_is_the_whole_batch_s_and_is_not_bisected():
    calls = []

    async def apply(requests):
        calls.append(len(requests))
        raise ConnectionResetError

    group = GroupCommit(apply)
    async with running(group):
        answers = await asyncio.gather(*(group.submit(n) for n in range(30)), return_exceptions=True)
    assert all(isinstance(answer, ConnectionResetError) for answer in answers)
    assert calls == [30]


async def test_stopping_answers_what_is_queued_and_refuses_what_comes_after():
    gate = Gate()
    group = GroupCommit(gate, concurrent_batches=1, batch_rows_max=5)
    stop = asyncio.Event()
    worker = asyncio.create_task(group.run(stop))
    tasks = [asyncio.create_task(group.submit(n)) for n in range(20)]
    while not gate.batches:  # noqa: ASYNC110
        await asyncio.sleep(0)
    stop.set()
    while not group._closing:  # noqa: ASYNC110
        await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await group.submit(99)
    gate.open.set()
    assert await asyncio.gather(*tasks) == [n * 10 for n in range(20)]
    await worker


async def test_a_request_whose_submitter_has_gone_is_not_applied():
    gate = Gate()
    group = GroupCommit(gate, concurrent_batches=1, batch_rows_max=1)
    async with running(group):
        first = asyncio.create_task(group.submit(1))
        while not gate.batches:  # noqa: ASYNC110
            await asyncio.sleep(0)
        gone, stays = asyncio.create_task(group.submit(2)), asyncio.create_task(group.submit(3))
        await asyncio.sleep(0)
        gone.cancel()
        gate.open.set()
        assert await asyncio.gather(first, stays) == [10, 30]
    assert gate.batches == [[1], [3]]


async def test_too_few_answers_are_an_error_of_the_batch():
    async def apply(requests):
        return []

    group = GroupCommit(apply)
    async with running(group):
        with pytest.raises(RuntimeError, match="0 answers to 1"):
            await group.submit(1)


async def test_waiting_requests_without_any_answer_are_a_problem():
    gate = Gate()
    group = GroupCommit(gate, concurrent_batches=1, batch_rows_max=1, stuck_after_s=0.0)
    assert group.problem() is None
    async with running(group):
        tasks = [asyncio.create_task(group.submit(n)) for n in range(2)]
        while not gate.batches:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert "1 requests wait" in group.problem()
        gate.open.set()
        await asyncio.gather(*tasks)
    assert group.problem() is None


@settings(max_examples=cases(60), deadline=None)
@given(
    groups=st.lists(st.integers(0, 30), max_size=12),
    batch_rows_max=st.integers(1, 12),
    bad=st.sets(st.integers(0, 29), max_size=4),
)
def test_what_is_submitted_together_is_applied_in_its_order_by_several_lanes_too(groups, batch_rows_max, bad):
    applied: dict[int, list[int]] = {}

    async def apply(requests):
        await asyncio.sleep(0)
        if any(place in bad for _, place in requests):
            raise LookupError
        for caller, place in requests:
            applied.setdefault(caller, []).append(place)
        await asyncio.sleep(0)
        return [place * 10 for _, place in requests]

    async def go():
        group = GroupCommit(apply, batch_rows_max=batch_rows_max, concurrent_batches=3)
        async with running(group):
            return await asyncio.gather(
                *(group.submit_all([(caller, n) for n in range(rows)]) for caller, rows in enumerate(groups))
            )

    for caller, answers in enumerate(asyncio.run(go())):
        places = [place for place in range(groups[caller]) if place not in bad]
        assert applied.get(caller, []) == places
        assert [answer for answer in answers if not isinstance(answer, Exception)] == [10 * place for place in places]
        assert len(answers) == groups[caller]


async def test_many_are_queued_together_or_not_at_all():
    gate = Gate()
    group = GroupCommit(gate, queue_rows_max=5, concurrent_batches=1)
    async with running(group):
        with pytest.raises(Overloaded):
            await group.submit_all(range(6))
        gate.open.set()
        assert await group.submit_all(range(5)) == [0, 10, 20, 30, 40]
    assert sum(map(len, gate.batches)) == 5
