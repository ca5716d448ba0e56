"""A lead that raises stops no other, a held lead is left out, and owed events bound the announcement."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from tests.plans import plan_among_many

from sla_monitor.queries import due
from sla_monitor.queries.cases import CLOCKS_PER_LEAD_MAX
from sla_monitor.usecases.fire import evaluate_pending, fire_due_clocks, fire_worker

HOUR = timedelta(hours=1)
START = datetime(2027, 3, 1, 15, tzinfo=UTC)
LATER = START + 5 * HOUR
SIZE = 100


async def change(stack: Any, statement: str, *values: object) -> Any:
    async with stack.database.write_transaction() as unit_of_work:
        return await (await unit_of_work.connection()).fetch(statement, *values)


async def make_stuck(signed, broken):
    """A clock of the lead raises when it is fired."""
    await change(signed, "UPDATE clock SET progress = '[[1]]' WHERE lead_id = $1", broken.lead_id)
    await fire_due_clocks(signed.database, signed.sla_cache, signed.watermarks)


async def read(stack: Any, until: datetime) -> None:
    """Both topics have been read until then, and nothing is done about it yet."""
    await stack.set_watermarks(until)


async def owed(stack: Any, until: datetime) -> datetime | None:
    return (await change(stack, due.OWED, until, []))[0][0]


@pytest.fixture
async def two(signed, make_lead):
    """Two leads with a clock each that is due."""
    leads = [make_lead(), make_lead()]
    for lead in leads:
        await signed.apply(lead.captured(START, size=10), lead.entered("mql", START))
    await read(signed, LATER)
    await evaluate_pending(signed.database, signed.sla_cache, signed.watermarks)
    return leads


async def test_clock_that_raises_rests_and_all_others_fire(signed, two):
    broken, other = two
    await change(signed, "UPDATE clock SET progress = '[[1]]' WHERE lead_id = $1", broken.lead_id)
    assert await fire_due_clocks(signed.database, signed.sla_cache, signed.watermarks) == 2
    assert await signed.states(other.lead_id) == {"accept-mql": "breached"}
    (stuck,) = await signed.rows("SELECT worker, key, error FROM stuck_row")
    assert (stuck.worker, stuck.key) == (due.FIRE_WORKER, broken.lead_id)
    assert await fire_due_clocks(signed.database, signed.sla_cache, signed.watermarks) == 0


async def test_worker_lives_on_with_a_clock_that_raises(signed, two):
    broken, other = two
    await change(signed, "UPDATE clock SET progress = '[[1]]' WHERE lead_id = $1", broken.lead_id)
    stop = asyncio.Event()
    working = asyncio.create_task(fire_worker(signed.database, signed.sla_cache, signed.watermarks, 0.01).run(stop))
    async with asyncio.timeout(30):
        while await signed.states(other.lead_id) != {"accept-mql": "breached"}:  # noqa: ASYNC110 - when the worker has met both
            await asyncio.sleep(0.01)
        while not await signed.rows("SELECT 1 FROM stuck_row"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert not working.done()
    stop.set()
    await working


async def test_repaired_clock_fires_after_its_rest(signed, two):
    broken, _ = two
    await make_stuck(signed, broken)
    await change(signed, "UPDATE clock SET progress = '[[], [], [], []]' WHERE lead_id = $1", broken.lead_id)
    await change(signed, "UPDATE stuck_row SET retry_at = now()")
    await fire_due_clocks(signed.database, signed.sla_cache, signed.watermarks)
    assert await signed.states(broken.lead_id) == {"accept-mql": "breached"}
    assert await signed.rows("SELECT 1 FROM stuck_row") == []


@pytest.fixture
async def two_pending(signed, make_lead):
    """Two leads with a pending trigger that reads their size and can be evaluated now."""
    leads = [make_lead(), make_lead()]
    await read(signed, START - HOUR)
    for lead in leads:
        await signed.apply(lead.captured(START, size=SIZE), lead.entered("mql", START))
    await read(signed, LATER)
    assert await waits(signed) == sorted(lead.lead_id for lead in leads)
    return leads


async def waits(stack: Any) -> list[Any]:
    return [row.lead_id for row in await stack.rows("SELECT lead_id FROM pending_trigger ORDER BY lead_id")]


async def test_trigger_that_raises_rests_and_all_others_are_evaluated(signed, two_pending):
    broken, other = two_pending
    await change(signed, "UPDATE pending_trigger SET inputs = '{}' WHERE lead_id = $1", broken.lead_id)
    assert await evaluate_pending(signed.database, signed.sla_cache, signed.watermarks) == 2
    assert set(await signed.states(other.lead_id)) == {"accept-mql", "first-touch"}
    (stuck,) = await signed.rows("SELECT worker, key FROM stuck_row")
    assert (stuck.worker, stuck.key) == (due.EVALUATE_WORKER, broken.lead_id)
    assert await waits(signed) == [broken.lead_id]
    assert await evaluate_pending(signed.database, signed.sla_cache, signed.watermarks) == 0


# --- Held ---


async def test_clocks_of_held_leads_are_skipped_and_others_fire(signed, two):
    held, other = two
    signed.watermarks.held = frozenset({str(held.lead_id)})
    await fire_due_clocks(signed.database, signed.sla_cache, signed.watermarks)
    assert await signed.states(held.lead_id) == {"accept-mql": "running"}
    assert await signed.states(other.lead_id) == {"accept-mql": "breached"}
    signed.watermarks.held = frozenset()
    await fire_due_clocks(signed.database, signed.sla_cache, signed.watermarks)
    assert await signed.states(held.lead_id) == {"accept-mql": "breached"}


async def test_triggers_of_held_leads_are_skipped_and_others_are_evaluated(signed, two_pending):
    held, other = two_pending
    signed.watermarks.held = frozenset({str(held.lead_id)})
    await evaluate_pending(signed.database, signed.sla_cache, signed.watermarks)
    assert await waits(signed) == [held.lead_id]
    assert set(await signed.states(other.lead_id)) == {"accept-mql", "first-touch"}


async def test_held_lead_owes_nothing(signed, two):
    held = [str(lead.lead_id) for lead in two]
    assert (await change(signed, due.OWED, LATER, held[:1]))[0][0] is not None
    assert (await change(signed, due.OWED, LATER, held))[0][0] is None


async def test_survivors_of_a_held_lead_are_held(signed, make_lead):
    first, second, third = make_lead(), make_lead(), make_lead()
    await signed.apply(*[lead.captured(START, size=10) for lead in (first, second, third)])
    await signed.apply(second.merged(first.lead_id, START + HOUR), third.merged(second.lead_id, START + 2 * HOUR))
    found = await change(signed, due.HELD, [str(first.lead_id), "sla"])
    assert {row[0] for row in found} == {str(lead.lead_id) for lead in (first, second, third)} | {"sla"}


async def test_survivors_of_held_leads_are_found_by_key(signed):
    many = "INSERT INTO lead (lead_id) SELECT gen_random_uuid() FROM generate_series(1, 50000)"
    plan = await plan_among_many(signed.database, "lead", many, due.HELD, [str(uuid4())])
    assert "Index Cond: (lead_id = " in plan
    assert "Seq Scan on lead" not in plan


# --- Owed ---


async def test_clock_that_has_not_fired_is_owed_from_its_next_moment(signed, two):
    warned_at = START + HOUR / 2
    assert await owed(signed, warned_at) is None
    assert await owed(signed, LATER) == warned_at
    await fire_due_clocks(signed.database, signed.sla_cache, signed.watermarks)
    assert await owed(signed, LATER) is None


async def test_pending_trigger_is_owed_from_its_start(signed, two_pending):
    assert await owed(signed, START) is None
    assert await owed(signed, LATER) == START
    await evaluate_pending(signed.database, signed.sla_cache, signed.watermarks)
    await fire_due_clocks(signed.database, signed.sla_cache, signed.watermarks)
    assert await owed(signed, LATER) is None


async def test_stuck_lead_owes_nothing(signed, two):
    for lead in two:
        await change(signed, "UPDATE clock SET progress = '[[1]]' WHERE lead_id = $1", lead.lead_id)
    await fire_due_clocks(signed.database, signed.sla_cache, signed.watermarks)
    await change(signed, "UPDATE stuck_row SET retry_at = now()")
    assert await owed(signed, LATER) is None


async def test_what_is_owed_is_found_by_indexes(signed):
    async with signed.database.write_transaction() as unit_of_work:
        connection = await unit_of_work.connection()
        await connection.execute("SET LOCAL enable_seqscan = off")
        plan = "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN {due.OWED}", LATER, []))
    assert "clock_next_idx" in plan
    assert "pending_trigger_recorded_idx" in plan


# --- Beside workers ---


async def test_lists_answer_with_an_infinite_moment(signed, two, auth):
    broken, other = two
    await change(
        signed, "UPDATE clock SET started_at = '-infinity', due_at = '-infinity' WHERE lead_id = $1", broken.lead_id
    )
    listed = await signed.http.get("/v1/clocks", headers=auth("reader"))
    assert listed.status_code == 200, listed.text
    assert {item["lead_id"] for item in listed.json()["items"]} == {str(broken.lead_id), str(other.lead_id)}


async def test_running_clock_is_answered_with_many_later_clocks(signed, two):
    lead, _ = two
    await change(
        signed,
        """
        INSERT INTO clock (lead_id, clock_id, clause, obliges, sla_version, trigger_kind, trigger_key, trigger_sequence,
            trigger_recorded_at, started_at, due_at, count, progress, backfill, state, ended_at, ended_why, event_count)
        SELECT lead_id, gen_random_uuid(), clause, obliges, sla_version, trigger_kind, 'later#' || n, trigger_sequence,
            trigger_recorded_at, started_at + n * interval '1 minute', due_at, 1, '[[], [], [], []]', false,
            'cancelled', started_at, 'over', 1
        FROM clock, generate_series(1, $2) AS n WHERE lead_id = $1
        """,
        lead.lead_id,
        CLOCKS_PER_LEAD_MAX + 1,
    )
    await signed.apply(lead.decided("accept", START + timedelta(minutes=10)))
    (found,) = await signed.rows(
        "SELECT state FROM clock WHERE trigger_key NOT LIKE 'later%' AND lead_id = :lead", lead=lead.lead_id
    )
    assert found.state == "met"


# --- Stuck, and passed over after its rest ---


async def test_stuck_lead_that_is_locked_after_its_rest_stays_stuck(signed, two):
    broken, _ = two
    await change(
        signed,
        "UPDATE clock SET progress = '[[1]]', next_at = now() - interval '1 hour' WHERE lead_id = $1",
        broken.lead_id,
    )
    await fire_due_clocks(signed.database, signed.sla_cache, signed.watermarks)
    await change(signed, "UPDATE stuck_row SET retry_at = now()")
    holder = await signed.database.connect()
    try:
        async with holder.transaction():
            await holder.execute("SELECT FROM clock WHERE lead_id = $1 FOR UPDATE", broken.lead_id)
            assert await fire_due_clocks(signed.database, signed.sla_cache, signed.watermarks) == 0
            assert len(await signed.rows("SELECT 1 FROM stuck_row")) == 1
    finally:
        await holder.close()
    await change(signed, "UPDATE clock SET progress = '[[], [], [], []]' WHERE lead_id = $1", broken.lead_id)
    await fire_due_clocks(signed.database, signed.sla_cache, signed.watermarks)
    assert await signed.rows("SELECT 1 FROM stuck_row") == []


async def test_stuck_lead_without_running_clocks_is_unstuck(signed, two):
    broken, _ = two
    await make_stuck(signed, broken)
    await change(signed, "DELETE FROM clock WHERE lead_id = $1", broken.lead_id)
    await change(signed, "UPDATE stuck_row SET retry_at = now()")
    await fire_due_clocks(signed.database, signed.sla_cache, signed.watermarks)
    assert await signed.rows("SELECT 1 FROM stuck_row") == []
