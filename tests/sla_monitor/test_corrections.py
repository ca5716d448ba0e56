"""Clocks follow corrections: they end as if all events had come in order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

START = datetime(2027, 1, 4, 9, tzinfo=UTC)


def at(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


@pytest.fixture
async def mql(signed, make_lead):
    """A lead that became MQL at the start."""
    lead = make_lead()
    await signed.apply(lead.captured(at(-5), size=100), lead.entered("mql", at(0)))
    return lead


def corrected(lead: Any, stage: str, moment: datetime, recorded: datetime, **correction: Any) -> Any:
    event = lead.entered(stage, moment, recorded)
    return replace(event, **{"correction": True, "present_stage": stage, **correction})


async def test_withdrawn_entry_cancels_its_clocks_and_withdraws_their_breaches(signed, mql):
    await signed.read_until(at(90))
    assert await signed.states(mql.lead_id) == {"accept-mql": "breached", "first-touch": "running"}
    gone = corrected(mql, "mql", at(0), at(100), replaces=1, withdrawn=True, present_stage="inquiry")
    await signed.apply(gone)
    await signed.read_until(at(600))
    assert await signed.states(mql.lead_id) == {"accept-mql": "cancelled", "first-touch": "cancelled"}
    event_names = await signed.event_names(mql.lead_id, "accept-mql")
    assert event_names == ["clock_started", "breached", "breach_withdrawn", "clock_cancelled"]
    assert await signed.rows("SELECT 1 FROM fact WHERE kind = 'stage'") == []


async def test_entry_corrected_to_an_earlier_time_has_a_clock_from_then_on(signed, mql):
    await signed.read_until(at(10))
    await signed.apply(corrected(mql, "mql", at(-30), at(11), replaces=1))
    clocks = await _of_clause(signed, mql, "accept-mql")
    assert sorted((clock["state"], clock["started_at"]) for clock in clocks) == [
        ("cancelled", "2027-01-04T09:00:00Z"),
        ("running", "2027-01-04T08:30:00Z"),
    ]


async def test_entry_with_only_a_new_sequence_keeps_its_clock(signed, mql):
    await signed.read_until(at(10))
    await signed.apply(corrected(mql, "mql", at(0), at(11), replaces=1))
    assert await signed.states(mql.lead_id) == {"accept-mql": "running", "first-touch": "running"}
    await signed.apply(mql.decided("accept", at(20)))
    await signed.read_until(at(90))
    assert (await signed.states(mql.lead_id))["accept-mql"] == "met"
    await signed.apply(corrected(mql, "mql", at(0), at(100), replaces=2, withdrawn=True, present_stage="inquiry"))
    assert (await signed.states(mql.lead_id))["accept-mql"] == "cancelled"


async def test_decision_read_before_the_correction_of_its_entry_answers_it(signed, mql):
    await signed.apply(mql.decided("accept", at(20)))
    await signed.apply(corrected(mql, "mql", at(-30), at(21), replaces=1))
    await signed.read_until(at(200))
    states = sorted(clock["state"] for clock in await _of_clause(signed, mql, "accept-mql"))
    assert states == ["cancelled", "met"]


async def test_clock_ended_by_an_entry_resumes_when_the_entry_is_withdrawn(signed, mql):
    await signed.apply(mql.entered("lost", at(5)))
    await signed.read_until(at(6))
    assert (await signed.states(mql.lead_id))["accept-mql"] == "cancelled"
    await signed.apply(corrected(mql, "lost", at(5), at(7), replaces=2, withdrawn=True, present_stage="mql"))
    assert (await signed.states(mql.lead_id))["accept-mql"] == "running"
    await signed.read_until(at(90))
    assert (await signed.states(mql.lead_id))["accept-mql"] == "breached"


async def _of_clause(signed, lead, clause):
    answer = await signed.http.get(
        f"/v1/leads/{lead.lead_id}/clocks", headers={"Authorization": "Bearer key-of-reader"}
    )
    return [item for item in answer.json()["items"] if item["clause"] == clause]
