"""A reverted merge: each lead has its own clocks and activities again, whatever the order of the events."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

START = datetime(2027, 1, 4, 9, tzinfo=UTC)
INTERLEAVINGS = 30


def at(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


async def test_clocks_of_a_restored_lead_resume_with_their_deadlines(signed, make_lead):
    restored, survivor = make_lead(), make_lead()
    merge = survivor.merged(restored.lead_id, at(10), size=100)
    await signed.apply(restored.captured(at(-5), size=100), restored.entered("mql", at(0)))
    await signed.apply(survivor.captured(at(-5), size=100), survivor.entered("mql", at(5)))
    await signed.read_until(at(6))
    due = {clause: clock["due_at"] for clause, clock in (await signed.clocks(restored.lead_id)).items()}
    await signed.apply(merge)
    await signed.read_until(at(62))
    assert await signed.states(restored.lead_id) == {"accept-mql": "cancelled", "first-touch": "cancelled"}
    await signed.apply(survivor.unmerged(merge, at(63)))
    clocks = await signed.clocks(restored.lead_id)
    assert {clause: clock["due_at"] for clause, clock in clocks.items()} == due
    assert {clause: clock["state"] for clause, clock in clocks.items()} == {
        "accept-mql": "running",
        "first-touch": "running",
    }
    await signed.read_until(at(64))
    assert await signed.states(restored.lead_id) == {"accept-mql": "breached", "first-touch": "running"}
    event_names = await signed.event_names(restored.lead_id, "accept-mql")
    assert event_names == ["clock_started", "clock_cancelled", "clock_started", "breached"]
    breach = (await signed.published_events(restored.lead_id, "accept-mql"))[-1]
    assert breach.occurred_at == at(60)
    await signed.read_until(at(64.5))
    warned = await signed.event_names(restored.lead_id, "first-touch")
    assert warned == ["clock_started", "clock_cancelled", "clock_started"]
    assert await signed.states(survivor.lead_id) == {"accept-mql": "running", "first-touch": "running"}
    await signed.apply(restored.did("call.attempted", at(70)))
    assert (await signed.states(restored.lead_id))["first-touch"] == "met"
    assert (await signed.states(survivor.lead_id))["first-touch"] == "running"


async def test_remaining_warning_is_published_after_the_revert(signed, make_lead):
    restored, survivor = make_lead(), make_lead()
    await signed.apply(restored.captured(at(-5)), restored.entered("mql", at(0)), survivor.captured(at(-5)))
    merge = survivor.merged(restored.lead_id, at(10))
    await signed.apply(merge, survivor.unmerged(merge, at(20)))
    await signed.read_until(at(40))
    assert (await signed.event_names(restored.lead_id, "accept-mql"))[-2:] == ["clock_started", "at_risk"]


async def test_activities_of_a_restored_lead_stop_answering_the_survivor(signed, make_lead):
    survivor, restored = make_lead(), make_lead()
    await signed.apply(survivor.captured(at(-5), size=100), survivor.entered("mql", at(0)), restored.captured(at(-5)))
    await signed.read_until(at(1))
    await signed.apply(restored.did("call.attempted", at(5)))
    merge = survivor.merged(restored.lead_id, at(10), size=100)
    await signed.apply(merge)
    await signed.apply(
        restored.did("email.sent", at(12), by="marketing")
    )  # recorded under the old id, read after the merge
    assert (await signed.states(survivor.lead_id))["first-touch"] == "met"
    await signed.apply(survivor.unmerged(merge, at(20)))
    assert (await signed.states(survivor.lead_id))["first-touch"] == "running"
    facts = "SELECT count(*) FROM fact WHERE kind = 'activity' AND lead_id = :id"
    assert (await signed.rows(facts, id=survivor.lead_id))[0][0] == 0
    assert (await signed.rows(facts, id=restored.lead_id))[0][0] == 2
    await signed.apply(survivor.did("call.attempted", at(30)))
    assert (await signed.states(survivor.lead_id))["first-touch"] == "met"


async def test_transferred_clock_and_its_breach_return_to_the_restored_lead(signed, make_lead):
    restored, survivor = make_lead(), make_lead()
    requested = restored.did("demo.requested", at(0), by="lead")
    await signed.apply(restored.captured(at(-5)), survivor.captured(at(-5)), requested)
    merge = survivor.merged(restored.lead_id, at(10))
    await signed.apply(merge)
    await signed.read_until(at(40))
    assert await signed.states(survivor.lead_id) == {"demo": "breached"}
    await signed.apply(survivor.unmerged(merge, at(50)))
    await signed.read_until(at(51))
    assert await signed.states(survivor.lead_id) == {"demo": "cancelled"}
    assert (await signed.event_names(survivor.lead_id))[-2:] == ["breach_withdrawn", "clock_cancelled"]
    assert await signed.states(restored.lead_id) == {"demo": "breached"}
    await signed.apply(survivor.merged(restored.lead_id, at(60)))
    assert await signed.states(survivor.lead_id) == {"demo": "cancelled"}  # the ledger has it once
    assert await signed.states(restored.lead_id) == {"demo": "breached"}


async def test_breach_withdrawn_by_a_merged_answer_is_reinstated(signed, make_lead):
    survivor, other = make_lead(), make_lead()
    await signed.apply(survivor.captured(at(-5), size=100), survivor.entered("mql", at(0)))
    await signed.apply(other.captured(at(-5)), other.did("call.attempted", at(5)))
    await signed.read_until(at(130))
    assert (await signed.states(survivor.lead_id))["first-touch"] == "breached"
    merge = survivor.merged(other.lead_id, at(135), size=100)
    await signed.apply(merge)
    assert (await signed.states(survivor.lead_id))["first-touch"] == "met"
    await signed.apply(survivor.unmerged(merge, at(140)))
    assert (await signed.states(survivor.lead_id))["first-touch"] == "breached"
    events = await signed.published_events(survivor.lead_id, "first-touch")
    event_names = [event.type.split(".")[1] for event in events]
    assert event_names == ["clock_started", "breached", "breach_withdrawn", "met", "breached"]
    assert len({event.breach_id for event in events if event.type == "sla.breached.v1"}) == 1


async def test_answer_after_a_repeated_merge_counts_for_the_survivor(signed, make_lead):
    restored, survivor = make_lead(), make_lead()
    requested = restored.did("demo.requested", at(0), by="lead")
    await signed.apply(restored.captured(at(-5)), survivor.captured(at(-5)), requested)
    merge = survivor.merged(restored.lead_id, at(5))
    await signed.apply(merge, survivor.unmerged(merge, at(6)), survivor.merged(restored.lead_id, at(7)))
    assert await signed.states(survivor.lead_id) == {"demo": "running"}
    await signed.apply(survivor.did("demo.confirmed", at(8), by="marketing"))
    assert await signed.states(survivor.lead_id) == {"demo": "met"}
    assert await signed.states(restored.lead_id) == {"demo": "cancelled"}


async def test_order_of_merges_and_reverts_changes_nothing(signed, make_lead):
    """A lead is merged into a first, restored, and merged into a second that is merged into a third; each has its own partition."""
    found = set()
    for index in range(INTERLEAVINGS):
        lead, first, second, third = (make_lead() for _ in range(4))
        merge = first.merged(lead.lead_id, at(10))
        streams = [
            [lead.captured(at(-5)), lead.did("demo.requested", at(0), by="lead")],
            [merge, first.unmerged(merge, at(12))],
            [second.captured(at(-5)), second.merged(lead.lead_id, at(14))],
            [third.captured(at(-5)), third.merged(second.lead_id, at(16))],
        ]
        events = _interleaved(streams, index)
        if index % 2:
            await signed.apply(*events)
        else:
            for event in events:
                await signed.apply(event)
        await signed.apply(third.did("demo.confirmed", at(20), by="marketing"))
        of_all = [await signed.states(member.lead_id) for member in (lead, first, second, third)]
        found.add(tuple(states.get("demo") for states in of_all))
        ids = [member.lead_id for member in (lead, first, second, third)]
        rows = await signed.rows("SELECT lead_id, count(*) FROM fact WHERE name LIKE 'demo.%' GROUP BY lead_id")
        held = {row[0]: row[1] for row in rows}
        assert [held.get(lead_id, 0) for lead_id in ids] == [1, 0, 1, 2]
    # The first lead has had a clock of it only if its merge was read before the revert.
    assert {(states[0], *states[2:]) for states in found} == {("cancelled", "cancelled", "met")}
    assert {states[1] for states in found} <= {None, "cancelled"}


def _interleaved(streams: Sequence[Sequence[Any]], seed: int) -> list[Any]:
    """All events, those of one stream in their order."""
    order = [index for index, stream in enumerate(streams) for _ in stream]
    random.Random(seed).shuffle(order)
    left = [iter(stream) for stream in streams]
    return [next(left[index]) for index in order]
