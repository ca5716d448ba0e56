"""A topic that an operator has restarted is read from its beginning, with an inbox that knows nothing of it any more: nothing changes."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from accord.contracts.external_key import external_key
from accord.contracts.intake_events import LeadMerged, LeadUnmerged
from qualification import tables


async def all_rows(stack: Any) -> dict[str, list[str]]:
    """All rows of the service's tables."""
    return {
        name: sorted(str(tuple(row)) for row in await stack.rows(f"SELECT * FROM {name}"))
        for name in tables.metadata.tables
    }


def unmerged(survivor: Any, other: Any, merge: LeadMerged, at: Any, **attributes: Any) -> LeadUnmerged:
    survivor.sequence += 1
    return LeadUnmerged(
        lead_id=survivor.lead_id,
        sequence=survivor.sequence,
        occurred_at=at,
        recorded_at=at,
        merge_id=merge.merge_id,
        restored_lead_id=other.lead_id,
        state=survivor.state(**attributes),
        restored_state=other.state(employee_count=250),
    )


async def apply_one_by_one(stack: Any, events: list[Any]) -> None:
    for event in events:
        await stack.apply_events(event)


async def check_redelivery(stack, events):
    """Telling all of it again changes nothing, at once or one by one."""
    await stack.apply_events(*events)
    before = await all_rows(stack)
    await stack.apply_events(*events)
    assert await all_rows(stack) == before
    await apply_one_by_one(stack, events)
    assert await all_rows(stack) == before


async def test_activities_that_are_told_again_count_once(stack, content, new_lead, day):
    await stack.activate(content)
    about = new_lead()
    events = [
        about.captured(day(0), employee_count=250),
        about.did("email.clicked", day(1)),
        about.did("email.clicked", day(3)),
        about.did("email.clicked", day(2)),
    ]
    await check_redelivery(stack, events)


async def test_merges_that_are_told_again_after_they_were_taken_back_stay_so(stack, content, new_lead, day):
    await stack.activate(content)
    ours, theirs, third = new_lead(), new_lead(), new_lead()
    theirs.external_keys = [external_key("crm", "7")]
    events = [
        ours.captured(day(0), employee_count=10),
        theirs.captured(day(0), employee_count=250),
        theirs.did("demo.requested", day(1)),
        third.captured(day(0)),
    ]
    first = ours.merged(theirs.lead_id, day(2), employee_count=250)
    events += [first, theirs.did("email.clicked", day(3)), unmerged(ours, theirs, first, day(4), employee_count=10)]
    second = third.merged(theirs.lead_id, day(5), employee_count=250)
    events += [second, theirs.did("email.clicked", day(6)), ours.updated(day(7), employee_count=20)]
    await check_redelivery(stack, events)


async def test_merge_of_an_unheard_lead_and_its_own_events_that_are_told_again_change_nothing(
    stack, content, new_lead, day
):
    await stack.activate(content)
    ours, theirs = new_lead(), new_lead()
    late = [
        theirs.captured(day(0)),
        theirs.did("demo.requested", day(0.5)),
        theirs.updated(day(1), employee_count=250),
    ]
    events = [ours.captured(day(0)), ours.merged(theirs.lead_id, day(2), employee_count=250), *late]
    await stack.apply_events(*events)
    before = await all_rows(stack)
    await stack.apply_events(*events)
    await apply_one_by_one(stack, events)
    assert await all_rows(stack) == before


async def test_what_people_decided_stands_when_everything_before_it_is_told_again(stack, content, new_lead, day, auth):
    await stack.activate(content)
    about, gone = new_lead(), new_lead()
    events = [
        about.captured(day(0), employee_count=250),
        about.did("demo.requested", day(1)),
        gone.captured(day(0), employee_count=250),
        gone.did("demo.requested", day(1)),
    ]
    await stack.apply_events(*events)
    decided = await stack.http.post(
        f"/v1/leads/{about.lead_id}/decisions", json={"decision": "accept"}, headers=auth("sales")
    )
    assert decided.status_code == 201, decided.text
    events.append(gone.erased(day(2)))
    await stack.apply_events(events[-1])
    content = deepcopy(content)
    content["title"] = "Under another version"
    await stack.activate(content)
    before = await all_rows(stack)
    await stack.apply_events(*events)
    await apply_one_by_one(stack, events)
    assert await all_rows(stack) == before


async def test_what_is_told_again_before_a_definition_is_in_force_is_kept_once(stack, content, new_lead, day):
    ours, theirs = new_lead(), new_lead()
    events = [
        ours.captured(day(0), employee_count=250),
        theirs.captured(day(0)),
        theirs.did("demo.requested", day(1)),
    ]
    merge = ours.merged(theirs.lead_id, day(2), employee_count=250)
    events += [merge, unmerged(ours, theirs, merge, day(3), employee_count=250)]
    await stack.apply_events(*events)
    before = await all_rows(stack)
    await stack.apply_events(*events)
    await apply_one_by_one(stack, events)
    assert await all_rows(stack) == before
