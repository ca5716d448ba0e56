"""Restarted topics are read from their beginning, while the inbox has forgotten them; redelivery changes nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from accord.contracts.topics import QUALIFICATION_EVENTS
from sla_monitor import tables

HOUR = timedelta(hours=1)
START = datetime(2026, 3, 2, 15, tzinfo=UTC)
"""Longer ago than the inbox remembers."""


async def everything(stack: Any) -> dict[str, list[str]]:
    """All rows of the service's tables."""
    return {
        name: sorted(str(tuple(row)) for row in await stack.rows(f"SELECT * FROM {name}"))
        for name in tables.metadata.tables
    }


async def test_redelivery_changes_nothing(signed, make_lead):
    lead, other, gone = make_lead(), make_lead(), make_lead()
    entered = lead.entered("mql", START)
    merge = lead.merged(other.lead_id, START + 2 * HOUR, size=10)
    events = [
        lead.captured(START, size=10),
        other.captured(START, size=100),
        gone.captured(START, size=100),
        entered,
        gone.entered("mql", START),
        other.did("demo.requested", START + HOUR),
        merge,
        lead.unmerged(merge, START + 3 * HOUR),
        lead.updated(START + 3 * HOUR, size=100),
        gone.decided("accept", START + HOUR / 2),
        gone.erased(START + 4 * HOUR),
    ]
    await signed.apply(*events)
    await signed.read_until(START + 5 * HOUR)
    withdrawn = replace(entered, sequence=2, recorded_at=START + 5 * HOUR, correction=True, withdrawn=True, replaces=1)
    await signed.apply(withdrawn)
    await signed.read_until(START + 6 * HOUR)
    assert await signed.states(lead.lead_id) == {"accept-mql": "cancelled"}
    before = await everything(signed)
    signed.watermarks.reached = {}
    await signed.redeliver(*events, withdrawn)
    for event in (*events, withdrawn):
        await signed.redeliver(event)
    assert await everything(signed) == before


async def test_redelivered_trigger_is_not_evaluated_on_later_state(signed, make_lead):
    """Of which only qualification's topic was restarted, and the profile of then was forgotten since."""
    lead = make_lead()
    entered = lead.entered("mql", START)
    await signed.apply(lead.captured(START, size=10), entered)
    for hour in (5, 7, 9):
        await signed.read_until(START + hour * HOUR)
        await signed.apply(lead.updated(START + (hour + 1) * HOUR, size=100))
    before = await everything(signed)
    del signed.watermarks.reached[QUALIFICATION_EVENTS]
    await signed.redeliver(entered)
    assert await everything(signed) == before
    assert await signed.states(lead.lead_id) == {"accept-mql": "breached"}


async def test_breach_stays_when_a_withdrawn_answer_is_redelivered(stack, content, make_lead):
    clause = {"obliges": "sales", "kind": "response", "within": {"elapsed": "PT1H"}}
    content["clauses"] = [{**clause, "key": "demo", "from": {"activity": "demo.requested"}, "to": {"stage": "sal"}}]
    await stack.sign_sla(content)
    await stack.backdate_agreement(datetime(2020, 1, 1, tzinfo=UTC))
    lead = make_lead()
    entered = lead.entered("sal", START + HOUR / 2)
    lead.qualification += 1
    corrected = {"sequence": 2, "recorded_at": START + HOUR, "correction": True, "withdrawn": True, "replaces": 1}
    events = [lead.captured(START), lead.did("demo.requested", START), entered, replace(entered, **corrected)]
    await stack.apply(*events)
    await stack.read_until(START + 5 * HOUR)
    assert await stack.states(lead.lead_id) == {"demo": "breached"}
    before = await everything(stack)
    stack.watermarks.reached = {}
    for event in events:
        await stack.redeliver(event)
    assert await everything(stack) == before


@pytest.mark.parametrize("is_held", [True, False])
async def test_replayed_dead_letter_is_applied(signed, make_lead, is_held):
    lead = make_lead()
    await signed.apply(lead.captured(START, size=10))
    await signed.read_until(START + 5 * HOUR)
    signed.watermarks.held = frozenset({str(lead.lead_id)} if is_held else ())
    await signed.redeliver(lead.entered("mql", START + HOUR))
    assert await signed.states(lead.lead_id) == ({"accept-mql": "running"} if is_held else {})


async def test_event_recorded_before_the_watermark_by_a_clock_set_back_is_applied(signed, make_lead):
    """The inbox has not seen it; a breach that was published meanwhile is withdrawn."""
    now = datetime.now(UTC)
    lead, later = make_lead(), make_lead()
    await signed.apply(lead.captured(now - 5 * HOUR, size=10), lead.entered("mql", now - 5 * HOUR))
    await signed.read_until(now)
    assert await signed.states(lead.lead_id) == {"accept-mql": "breached"}
    await signed.redeliver(
        lead.decided("accept", now - 5 * HOUR + timedelta(seconds=1)),
        lead.entered("sal", now - 5 * HOUR + timedelta(seconds=1)),
        later.captured(now - timedelta(seconds=5), size=10),
        later.entered("mql", now - timedelta(seconds=5)),
    )
    assert await signed.states(lead.lead_id) == {"accept-mql": "met"}
    assert await signed.states(later.lead_id) == {"accept-mql": "running"}


async def test_clocks_and_breaches_have_the_same_ids_in_a_restored_database(signed, make_lead):
    lead = make_lead()
    events = [lead.captured(START, size=10), lead.entered("mql", START)]

    async def read_all() -> set[tuple[Any, Any]]:
        await signed.apply(*events)
        await signed.read_until(START + 5 * HOUR)
        return {(row.clock_id, row.breach_id) for row in await signed.rows("SELECT clock_id, breach_id FROM clock")}

    before = await read_all()
    async with signed.database.write_transaction() as unit_of_work:
        await (await unit_of_work.connection()).execute("TRUNCATE lead, fact, pending_trigger, clock")
    signed.watermarks.reached = {}
    assert await read_all() == before
    assert all(breach_id is not None for _, breach_id in before)
