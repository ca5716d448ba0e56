"""Clocks over a real database: started, answered, breached by the watermark, withdrawn, cancelled."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from uuid_utils.compat import uuid7

from sla_monitor.queries import cases
from sla_monitor.usecases.fire import fire_due_clocks, prune_facts

START = datetime(2027, 1, 4, 9, tzinfo=UTC)


def at(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


@pytest.fixture
async def mql(signed, make_lead):
    """A lead that became MQL at the start."""
    lead = make_lead()
    await signed.apply(lead.captured(at(-5), size=100), lead.entered("mql", at(0)))
    return lead


async def test_clause_starts_a_clock_that_runs_to_its_deadline(signed, mql):
    await signed.read_until(at(1))
    clocks = await signed.clocks(mql.lead_id)
    accept = clocks["accept-mql"]
    assert (accept["state"], accept["due_at"], accept["source"]) == ("running", "2027-01-04T10:00:00Z", "website")
    assert clocks["first-touch"]["due_at"] == "2027-01-04T11:00:00Z"
    assert await signed.event_names(mql.lead_id) == ["clock_started", "clock_started"]


async def test_answer_in_time_meets_the_clock(signed, mql):
    await signed.apply(mql.decided("accept", at(30)))
    await signed.read_until(at(500))
    assert (await signed.clocks(mql.lead_id))["accept-mql"]["state"] == "met"
    assert await signed.event_names(mql.lead_id, "accept-mql") == ["clock_started", "met"]


async def test_breach_waits_for_the_watermark_of_both_topics(signed, mql):
    await signed.read_until(at(600), at(59))
    assert (await signed.states(mql.lead_id))["accept-mql"] == "running"
    await signed.read_until(at(600), at(60))
    assert (await signed.states(mql.lead_id))["accept-mql"] == "running"
    await signed.read_until(at(600), at(61))
    assert (await signed.states(mql.lead_id))["accept-mql"] == "breached"
    assert await signed.event_names(mql.lead_id, "accept-mql") == ["clock_started", "at_risk", "breached"]
    breached = (await signed.published_events(mql.lead_id, "accept-mql"))[-1]
    assert (breached.occurred_at, breached.sequence) == (at(60), 3)


async def test_warning_overtaken_by_the_deadline_is_not_published(signed, mql):
    await signed.read_until(at(61))
    assert await signed.event_names(mql.lead_id, "accept-mql") == ["clock_started", "breached"]


async def test_answer_after_the_deadline_is_late_and_keeps_the_breach(signed, mql):
    await signed.read_until(at(61))
    await signed.apply(mql.decided("accept", at(70)))
    assert (await signed.states(mql.lead_id))["accept-mql"] == "met_late"
    last = (await signed.published_events(mql.lead_id, "accept-mql"))[-1]
    assert (last.type, last.late) == ("sla.met.v1", True)


async def test_late_answer_known_before_the_watermark_is_published_after_the_breach(signed, mql):
    await signed.apply(mql.decided("accept", at(70)))
    assert (await signed.states(mql.lead_id))["accept-mql"] == "running"
    await signed.read_until(at(71))
    assert await signed.event_names(mql.lead_id, "accept-mql") == ["clock_started", "breached", "met"]


async def test_late_report_of_an_answer_in_time_withdraws_the_breach_once(signed, mql, auth):
    await signed.read_until(at(200))
    await signed.apply(mql.did("call.attempted", at(90), recorded=at(210)))
    await signed.apply(mql.did("call.attempted", at(80), recorded=at(220)))
    assert (await signed.states(mql.lead_id))["first-touch"] == "met"
    events = await signed.published_events(mql.lead_id, "first-touch")
    event_names = [event.type.split(".")[1] for event in events]
    assert event_names == ["clock_started", "breached", "breach_withdrawn", "met", "met"]
    assert (events[2].breach_id, events[2].met_at) == (events[1].breach_id, at(90))
    assert [events[3].occurred_at, events[4].occurred_at] == [at(90), at(80)]
    ledger = (await signed.http.get("/v1/breaches?clause=first-touch", headers=auth("reader"))).json()["items"]
    assert ledger == []
    url = "/v1/breaches?clause=first-touch&withdrawn=true"
    (withdrawn,) = (await signed.http.get(url, headers=auth("reader"))).json()["items"]
    assert (withdrawn["state"], withdrawn["answered_at"]) == ("withdrawn", "2027-01-04T10:20:00Z")


async def test_late_report_of_an_exit_in_time_withdraws_the_breach(signed, mql):
    await signed.read_until(at(61))
    await signed.apply(mql.entered("lost", at(30), recorded=at(200)))
    assert (await signed.states(mql.lead_id))["accept-mql"] == "cancelled"
    assert await signed.event_names(mql.lead_id, "accept-mql") == [
        "clock_started",
        "breached",
        "breach_withdrawn",
        "clock_cancelled",
    ]


async def test_answer_read_before_its_trigger_counts(signed, make_lead):
    lead = make_lead()
    await signed.apply(lead.captured(at(-5), size=100), lead.did("call.attempted", at(10)))
    await signed.apply(lead.entered("mql", at(0)))
    await signed.read_until(at(11))
    assert (await signed.clocks(lead.lead_id))["first-touch"]["state"] == "met"


async def test_trigger_is_pending_until_intake_has_been_read_past_it(signed, make_lead):
    lead = make_lead()
    mql = lead.entered("mql", at(0))
    await signed.apply(mql)
    await signed.read_until(at(5), at(5))
    assert set(await signed.states(lead.lead_id)) == {"accept-mql"}  # the lead is unknown: pending, not evaluated
    await signed.apply(lead.captured(at(-5), size=100))
    assert set(await signed.states(lead.lead_id)) == {"accept-mql", "first-touch"}


async def test_where_reads_the_lead_as_recorded_at_the_trigger(signed, make_lead):
    small, grown, shrunk = make_lead(), make_lead(), make_lead()
    await signed.read_until(at(-10))
    await signed.apply(small.captured(at(-5), size=10), small.entered("mql", at(0)))
    await signed.apply(grown.captured(at(-5), size=10), grown.entered("mql", at(0)), grown.updated(at(1), size=100))
    await signed.apply(shrunk.captured(at(-5), size=100), shrunk.updated(at(3), size=10))
    await signed.read_until(at(2), at(-1))
    await signed.apply(shrunk.updated(at(4), size=5))
    await signed.apply(shrunk.entered("mql", at(0)))
    await signed.read_until(at(5))
    assert set(await signed.states(small.lead_id)) == {"accept-mql"}
    assert set(await signed.states(grown.lead_id)) == {"accept-mql"}
    assert set(await signed.states(shrunk.lead_id)) == {"accept-mql", "first-touch"}
    assert await signed.rows("SELECT 1 FROM pending_trigger") == []


async def test_pending_trigger_keeps_the_state_it_is_evaluated_on(signed, make_lead):
    lead = make_lead()
    await signed.read_until(at(-10))
    await signed.apply(lead.captured(at(-5), size=100), lead.entered("mql", at(0)))
    await signed.apply(lead.updated(at(1), size=1))
    await signed.set_watermarks(at(3))  # the watermark arrives, and the next batch before the firing
    await signed.apply(lead.updated(at(4), size=2))
    assert set(await signed.states(lead.lead_id)) == {"accept-mql", "first-touch"}


async def test_lead_that_leaves_the_scope_cancels_its_clock(signed, mql, make_lead):
    await signed.read_until(at(1))
    await signed.apply(mql.decided("disqualify", at(20)), mql.entered("disqualified", at(20)))
    assert await signed.states(mql.lead_id) == {"accept-mql": "cancelled", "first-touch": "cancelled"}
    last = (await signed.published_events(mql.lead_id, "accept-mql"))[-1]
    assert (last.why, last.occurred_at) == ("the lead entered disqualified", at(20))
    await signed.read_until(at(500))
    assert "breached" not in await signed.event_names(mql.lead_id)


async def test_stage_exit_without_decision_cancels_only_clocks_a_decision_answers(signed, mql):
    await signed.read_until(at(1))
    await signed.apply(mql.entered("sal", at(20), cause="merge"))
    assert await signed.states(mql.lead_id) == {"accept-mql": "cancelled", "first-touch": "running"}


async def test_decision_dated_before_its_stage_answers_the_clock(signed, mql):
    await signed.apply(mql.decided("accept", at(-30), recorded=at(10)), mql.entered("sal", at(-30), recorded=at(10)))
    clock = (await signed.clocks(mql.lead_id))["accept-mql"]
    assert (clock["state"], clock["answered_at"]) == ("met", "2027-01-04T09:00:00Z")


async def test_each_visit_has_its_own_clock(signed, mql, auth):
    await signed.apply(mql.entered("recycled", at(20)), mql.entered("mql", at(40)), mql.decided("accept", at(50)))
    answer = await signed.http.get(f"/v1/leads/{mql.lead_id}/clocks", headers=auth("reader"))
    states = [item["state"] for item in answer.json()["items"] if item["clause"] == "accept-mql"]
    assert states == ["met", "cancelled"]


async def test_merge_cancels_the_clocks_of_the_merged_lead(signed, mql, make_lead):
    survivor = make_lead()
    await signed.apply(survivor.captured(at(-5), size=1))
    await signed.apply(survivor.merged(mql.lead_id, at(10)))
    assert (await signed.states(mql.lead_id))["accept-mql"] == "cancelled"
    assert await signed.states(survivor.lead_id) == {}


async def test_clock_started_by_an_activity_continues_for_the_survivor(signed, make_lead):
    merged, survivor = make_lead(), make_lead()
    await signed.apply(
        merged.captured(at(-5)), survivor.captured(at(-5)), merged.did("demo.requested", at(0), by="lead")
    )
    await signed.apply(survivor.merged(merged.lead_id, at(10)))
    assert await signed.states(merged.lead_id) == {"demo": "cancelled"}
    assert await signed.states(survivor.lead_id) == {"demo": "running"}
    await signed.apply(
        merged.did("demo.confirmed", at(20), by="marketing")
    )  # read after the merge, recorded under the old id
    assert await signed.states(survivor.lead_id) == {"demo": "met"}


async def test_activities_of_a_merged_lead_answer_the_clocks_of_the_survivor(signed, mql, make_lead):
    other = make_lead()
    await signed.read_until(at(1))
    await signed.apply(other.captured(at(-5)), other.did("call.attempted", at(5)))
    await signed.apply(mql.merged(other.lead_id, at(10), size=100))
    assert (await signed.states(mql.lead_id))["first-touch"] == "met"


async def test_erased_lead_leaves_counts_and_no_attributes(signed, mql):
    await signed.read_until(at(1))
    await signed.apply(mql.did("email.sent", at(5)), mql.erased(at(10)))
    assert set((await signed.states(mql.lead_id)).values()) == {"cancelled"}
    (lead,) = await signed.rows(
        "SELECT profiles, qualification_states, source FROM lead WHERE lead_id = :id", id=mql.lead_id
    )
    assert (lead.profiles, lead.qualification_states, lead.source) == ([], [], "website")
    assert await signed.rows("SELECT 1 FROM fact WHERE lead_id = :id", id=mql.lead_id) == []
    await signed.apply(mql.entered("mql", at(20)), mql.scored("A1", at(20)), mql.did("email.sent", at(21)))
    assert len(await signed.clocks(mql.lead_id)) == 2
    assert (await signed.rows("SELECT qualification_states FROM lead WHERE lead_id = :id", id=mql.lead_id))[
        0
    ].qualification_states == []
    assert await signed.rows("SELECT 1 FROM fact WHERE lead_id = :id", id=mql.lead_id) == []


async def test_running_clocks_follow_the_owner(signed, mql, auth):
    await signed.apply(mql.assigned("ann", at(1)))
    await signed.apply(mql.decided("accept", at(30)), mql.assigned("bob", at(40)))
    clocks = await signed.clocks(mql.lead_id)
    assert clocks["accept-mql"]["owner"] == "ann"
    await signed.read_until(at(41))
    assert (await signed.clocks(mql.lead_id))["first-touch"]["owner"] == "bob"
    found = await signed.http.get("/v1/clocks?owner=bob", headers=auth("reader"))
    assert [item["clause"] for item in found.json()["items"]] == ["first-touch"]


async def test_imported_history_counts_and_is_marked_as_backfill(signed, make_lead, auth):
    lead = make_lead()
    imported = at(60 * 24 * 30)
    await signed.apply(lead.captured(at(-5), recorded=imported, size=1), lead.entered("mql", at(0), recorded=imported))
    await signed.read_until(imported)
    assert (await signed.states(lead.lead_id))["accept-mql"] == "running"  # what was recorded with it may be unread
    await signed.apply(lead.decided("accept", at(30), recorded=imported + timedelta(seconds=1)))
    await signed.read_until(imported + timedelta(minutes=1))
    assert await signed.event_names(lead.lead_id) == ["clock_started", "met"]
    assert all(event.backfill for event in await signed.published_events(lead.lead_id))


async def test_clock_keeps_the_version_it_started_under(signed, mql, make_lead):
    content = {"kind": "sla", "title": "Stricter", "clauses": []}
    content["clauses"] = [
        {
            "key": "accept-mql",
            "obliges": "sales",
            "kind": "response",
            "from": {"stage": "mql"},
            "to": {"decision": "reject"},
            "within": {"elapsed": "PT10M"},
        }
    ]
    await signed.sign_sla(content)
    await signed.rows("SELECT 1")
    async with signed.database.write_transaction() as unit_of_work:
        connection = await unit_of_work.connection()
        await connection.execute("UPDATE agreement_version SET superseded_at = $1 WHERE version = 1", at(15))
        await connection.execute("UPDATE agreement_version SET active_from = $1 WHERE version = 2", at(15))
    lead = make_lead()
    await signed.apply(lead.captured(at(0)), lead.entered("mql", at(20)))
    assert (await signed.clocks(lead.lead_id))["accept-mql"]["due_at"] == "2027-01-04T09:30:00Z"
    late = make_lead()
    await signed.apply(late.captured(at(0)), late.entered("mql", at(10)))  # recorded before, read now
    assert (await signed.clocks(late.lead_id))["accept-mql"]["sla_version"] == 1
    await signed.apply(mql.decided("accept", at(30)))
    assert (await signed.states(mql.lead_id))["accept-mql"] == "met"


async def test_no_clock_starts_without_an_agreement(stack, make_lead):
    lead = make_lead()
    await stack.apply(lead.captured(at(-5)), lead.entered("mql", at(0)))
    assert await stack.clocks(lead.lead_id) == {}


async def test_replicas_that_fire_at_once_share_the_clocks(signed, make_lead):
    leads = [make_lead() for _ in range(60)]
    await signed.apply(*(event for lead in leads for event in (lead.captured(at(-5)), lead.entered("mql", at(0)))))
    await signed.set_watermarks(at(61))
    fired = await asyncio.gather(
        *(fire_due_clocks(signed.database, signed.sla_cache, signed.watermarks, 20) for _ in range(5))
    )
    while more := await fire_due_clocks(signed.database, signed.sla_cache, signed.watermarks, 20):
        fired.append(more)
    assert sum(fired) == 60
    (counted,) = await signed.rows("SELECT count(*) AS n FROM outbox WHERE type = 'sla.breached.v1'")
    assert counted.n == 60


async def test_clock_changed_by_another_transaction_is_not_overwritten(signed, mql):
    async with signed.database.write_transaction() as unit_of_work:
        loaded = (await cases.lock_cases(await unit_of_work.connection(), [mql.lead_id]))[mql.lead_id]
    await signed.read_until(at(61))
    clock = next(clock for clock in loaded.clocks.values() if clock.clause == "accept-mql")
    with pytest.raises(asyncpg.SerializationError):
        async with signed.database.write_transaction() as unit_of_work:
            await cases.update_clocks(await unit_of_work.connection(), [(clock, clock)])


async def test_batch_equals_its_events_one_by_one(signed, make_lead):
    def story(lead):
        return [
            lead.captured(at(-5), size=100),
            lead.did("call.attempted", at(-2)),
            lead.entered("mql", at(0)),
            lead.did("demo.requested", at(5), by="lead"),
            lead.decided("accept", at(10)),
            lead.entered("sal", at(10)),
            lead.did("call.attempted", at(20)),
            lead.entered("lost", at(25)),
        ]

    clock, all_at_once = make_lead(), make_lead()
    for event in story(clock):
        await signed.apply(event)
    await signed.apply(*story(all_at_once))
    await signed.read_until(at(100))
    assert await signed.states(clock.lead_id) == await signed.states(all_at_once.lead_id)
    assert await signed.states(clock.lead_id) == {"accept-mql": "met", "first-touch": "met", "demo": "cancelled"}


async def test_events_that_concern_no_clock_are_skipped(signed, make_lead):
    lead = make_lead()
    await signed.apply(lead.scored("A1", at(0)), lead.assigned(None, at(1)))
    assert await signed.clocks(lead.lead_id) == {}


async def test_facts_are_pruned_after_their_retention_unless_an_open_clock_rests_on_them(signed, mql, make_lead):
    await signed.apply(mql.did("call.attempted", at(-600)))
    async with signed.database.write_transaction() as unit_of_work:
        assert await prune_facts(unit_of_work, unit_of_work.now - at(-10)) == 0
    await signed.read_until(at(500))
    async with signed.database.write_transaction() as unit_of_work:
        age = unit_of_work.now - at(-10)
        assert await prune_facts(unit_of_work, age) == 1
    assert len(await signed.rows("SELECT 1 FROM fact")) == 1


async def test_clocks_of_an_unknown_lead_are_not_found(signed, auth):
    answer = await signed.http.get(f"/v1/leads/{uuid7()}/clocks", headers=auth("reader"))
    assert answer.status_code == 404
