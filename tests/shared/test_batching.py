"""How many may compute at once, and for how long."""

from __future__ import annotations

import asyncio

import pytest

from accord.batching import ConcurrencyLimit, Overloaded, TimeBudget


async def test_who_comes_when_too_many_wait_is_sent_away_at_once() -> None:
    limit, inside, leave = ConcurrencyLimit(1, 2, 5.0), [], asyncio.Event()

    async def compute(number: int) -> None:
        async with limit:
            inside.append(number)
            await leave.wait()

    tasks = [asyncio.create_task(compute(number)) for number in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded) as overloaded:
        await compute(3)
    assert (inside, overloaded.value.retry_after_s) == ([0], 5.0)
    leave.set()
    await asyncio.gather(*tasks)
    assert inside == [0, 1, 2]


async def test_who_leaves_while_waiting_gives_the_place_back() -> None:
    limit, leave = ConcurrencyLimit(1, 1, 5.0), asyncio.Event()

    async def compute() -> None:
        async with limit:
            await leave.wait()

    first, second = asyncio.create_task(compute()), asyncio.create_task(compute())
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    third = asyncio.create_task(compute())
    await asyncio.sleep(0)
    leave.set()
    await asyncio.gather(first, third)


async def test_error_inside_gives_the_place_back() -> None:
    limit = ConcurrencyLimit(1, 0, 5.0)
    for _ in range(3):
        with pytest.raises(ValueError, match="inside"):
            async with limit:
                raise ValueError("inside")


def test_budget_is_used_up_when_its_time_is_or_nobody_waits_any_more() -> None:
    assert TimeBudget(0.0).is_used_up
    with TimeBudget(3_600.0) as budget:
        assert not budget.is_used_up
    assert budget.is_used_up
