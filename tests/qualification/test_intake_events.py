"""Intake's events taken through inbox order, state and outbox, with a real database."""

from __future__ import annotations

import asyncio
import json
from copy import deepcopy
from datetime import UTC, datetime
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy import text
from tests.qualification.conftest import bearer
from tests.watermarks import FixedWatermarks
from uuid_utils.compat import uuid7

from accord.contracts.codec import decode_value, encode_value
from accord.contracts.envelope import Event
from accord.contracts.external_key import external_key
from accord.contracts.intake_events import LeadRejected, LeadState, LeadUnmerged
from accord.contracts.qualification_events import LeadScored, LeadStageChanged
from accord.contracts.values import Campaign, DecimalText, Money
from accord.messaging.handler import Received
from qualification.lifecycle.domain import unit_of_work as lead_units
from qualification.lifecycle.domain.history import effective_entries
from qualification.lifecycle.domain.lead import Activities, Lead, microseconds
from qualification.lifecycle.queries import leads, logs
from qualification.lifecycle.service.entry import enter_waiting_leads
from qualification.lifecycle.service.intake_events import process_intake_events
from qualification.lifecycle.service.reevaluation import get_progress, reevaluate_leads
from qualification.lifecycle.service.time_triggers import advance_time


async def stored(stack, lead_id: UUID) -> Lead:
    async with stack.database.write_transaction() as unit_of_work:
        return (await leads.lock(await unit_of_work.connection(), [lead_id], ["demo.requested", "email.clicked"]))[
            lead_id
        ]


async def test_a_batch_moves_many_leads_and_says_so_in_order(stack, content, new_lead, day):
    await stack.activate(content)
    tellers = [new_lead() for _ in range(20)]
    events = [about.captured(day(0), employee_count=250) for about in tellers]
    events += [about.did("demo.requested", day(1)) for about in tellers]
    await stack.apply_events(*events)
    for about in tellers:
        said = await stack.published(about.lead_id)
        assert [event.sequence for event in said] == [1, 2, 3, 4]
        assert [event.stage for event in said if isinstance(event, LeadStageChanged)] == ["inquiry", "mql"]
        lead = await stored(stack, about.lead_id)
        assert (lead.stage, lead.stage_since, lead.visits) == ("mql", day(1), {"inquiry": 1, "mql": 1})
        assert lead.activities == Activities({"demo.requested": [microseconds(day(1))]})


async def test_what_is_stored_is_what_the_domain_made(stack, content, new_lead, day):
    await stack.activate(content)
    about = new_lead()
    about.external_keys = [external_key("crm", "1")]
    await stack.apply_events(about.captured(day(0), employee_count=250), about.did("email.clicked", day(2)))
    lead = await stored(stack, about.lead_id)
    assert lead.profile == about.state(employee_count=250)
    assert lead.scores is not None
    assert (lead.scores.fit, lead.scores.engagement, lead.scores.grade) == (40, 5, "C4")
    assert (lead.intake_sequence, lead.sequence, lead.revision, lead.evaluated_at) == (1, 3, 1, day(2))
    await stack.apply_events(about.did("email.clicked", day(3)))
    again = await stored(stack, about.lead_id)
    assert again.profile == lead.profile
    assert again.revision == 2


def test_a_profile_is_read_as_it_was_written_though_it_is_not_checked_again(new_lead):
    bare = new_lead().state()
    whole = LeadState(
        source="trade fair",
        captured_at=bare.captured_at.replace(microsecond=1),
        account_id=uuid7(),
        attributes={"size": 50, "share": 0.5, "vip": True, "words": ["a", "ü"], "none": None},
        campaign=Campaign(name="spring", cost=Money(amount=DecimalText("1.50"), currency="EUR")),
        external_keys=[external_key("crm", "1")],
        verdict="flagged",
        policy_version=3,
        quality_score=1.0,
    )
    for state in (bare, whole):
        assert decode_value(LeadState, encode_value(state)) == state


async def test_activities_of_a_lead_that_has_not_entered_wait_for_its_capture(stack, content, new_lead, day):
    await stack.activate(content)
    about = new_lead()
    await stack.apply_events(about.did("demo.requested", day(1)))
    assert await stack.published() == []
    assert (await stack.rows("SELECT count(*) FROM lead"))[0][0] == 0
    await stack.apply_events(about.captured(day(0), employee_count=250))
    entries = [event for event in await stack.published() if isinstance(event, LeadStageChanged)]
    assert [(event.stage, event.occurred_at) for event in entries] == [("inquiry", day(0)), ("mql", day(1))]


async def test_without_a_definition_leads_wait_and_then_enter_at_their_true_times(stack, content, new_lead, day):
    tellers = [new_lead() for _ in range(7)]
    await stack.apply_events(*[about.captured(day(0), employee_count=250) for about in tellers])
    await stack.apply_events(*[about.did("demo.requested", day(4)) for about in tellers])
    assert await stack.published() == []
    await stack.activate(content)
    context = await stack.open_context()
    rounds = [await enter_waiting_leads(stack.database, context, 3) for _ in range(4)]
    assert rounds == [3, 3, 1, 0]
    for about in tellers:
        entries = [event for event in await stack.published(about.lead_id) if isinstance(event, LeadStageChanged)]
        assert [(event.stage, event.occurred_at) for event in entries] == [("inquiry", day(0)), ("mql", day(4))]
        assert {event.definition_version for event in entries} == {1}


async def test_what_happens_is_judged_by_the_definition_in_force_at_its_moment_and_stamped_with_it(
    stack, content, new_lead, day
):
    await stack.activate(content)
    about = new_lead()
    await stack.apply_events(about.captured(day(0), employee_count=250))
    content["title"] = "What we both call a lead, again"
    content["scores"]["fit"]["rules"][0]["points"] = 50
    assert await stack.activate(content) == 2
    await stack.apply_events(about.updated(day(1), employee_count=251))
    assert [
        event for event in await stack.published(about.lead_id) if getattr(event, "definition_version", 1) == 2
    ] == []
    await stack.apply_events(about.updated(datetime.now(UTC), employee_count=252))
    scored = [event for event in await stack.published(about.lead_id) if isinstance(event, LeadScored)]
    assert [(event.definition_version, event.fit) for event in scored] == [(1, 40), (2, 50)]


async def test_a_merge_moves_activities_and_keys_and_redirects_what_comes_later(stack, content, new_lead, day):
    await stack.activate(content)
    ours, theirs = new_lead(), new_lead()
    theirs.external_keys = [external_key("crm", "7")]
    await stack.apply_events(
        ours.captured(day(0), employee_count=250), theirs.captured(day(1)), theirs.did("email.clicked", day(2))
    )
    ours.external_keys = [external_key("crm", "7")]
    await stack.apply_events(ours.merged(theirs.lead_id, day(3), employee_count=250))
    await stack.apply_events(theirs.did("demo.requested", day(4)), theirs.updated(day(5), employee_count=1))
    survivor, merged = await stored(stack, ours.lead_id), await stored(stack, theirs.lead_id)
    assert merged.merged_into == survivor.lead_id
    assert survivor.stage == "mql"
    assert survivor.profile is not None
    assert survivor.profile.attributes == {"employee_count": 250}
    assert [len(survivor.activities.moments_of(kind)) for kind in ("email.clicked", "demo.requested")] == [1, 1]
    rows = await stack.rows("SELECT DISTINCT lead_id, recorded_for FROM activity")
    assert {(row.lead_id, row.recorded_for) for row in rows} == {(ours.lead_id, theirs.lead_id)}
    assert [row.lead_id for row in await stack.rows("SELECT lead_id FROM external_key")] == [ours.lead_id]


async def test_a_merge_may_be_heard_of_before_the_merged_lead_itself(stack, content, new_lead, day):
    await stack.activate(content)
    ours, theirs = new_lead(), new_lead()
    captured = theirs.captured(day(0))
    activity = theirs.did("demo.requested", day(1))
    await stack.apply_events(
        ours.captured(day(0), employee_count=250), ours.merged(theirs.lead_id, day(2), employee_count=250)
    )
    await stack.apply_events(captured, activity)
    assert (await stored(stack, theirs.lead_id)).merged_into == ours.lead_id
    assert (await stored(stack, ours.lead_id)).stage == "mql"
    assert await stack.published(theirs.lead_id) == []


async def test_merges_that_follow_each_other_end_at_one_lead(stack, content, new_lead, day):
    await stack.activate(content)
    first, second, third = new_lead(), new_lead(), new_lead()
    await stack.apply_events(
        *[about.captured(day(0)) for about in (first, second, third)], third.did("email.clicked", day(1))
    )
    await stack.apply_events(second.merged(third.lead_id, day(2)))
    await stack.apply_events(first.merged(second.lead_id, day(3)))
    for about in (second, third):
        assert (await stored(stack, about.lead_id)).merged_into == first.lead_id
    await stack.apply_events(third.did("email.clicked", day(4)))
    assert len((await stored(stack, first.lead_id)).activities.moments_of("email.clicked")) == 2


async def test_a_merge_and_what_came_before_it_may_be_in_one_batch(stack, content, new_lead, day):
    await stack.activate(content)
    ours, theirs = new_lead(), new_lead()
    await stack.apply_events(
        ours.captured(day(0), employee_count=250),
        theirs.captured(day(0)),
        theirs.did("demo.requested", day(1)),
        ours.merged(theirs.lead_id, day(2), employee_count=250),
        theirs.did("email.clicked", day(3)),
    )
    assert [row[0] for row in await stack.rows("SELECT DISTINCT lead_id FROM activity")] == [ours.lead_id]
    assert (await stored(stack, ours.lead_id)).stage == "mql"


async def test_an_erased_person_leaves_counts_and_no_words(stack, content, new_lead, auth, day):
    await stack.activate(content)
    about = new_lead()
    about.external_keys = [external_key("crm", "9")]
    await stack.apply_events(about.captured(day(0), employee_count=250), about.did("demo.requested", day(1)))
    decided = await stack.http.post(
        f"/v1/leads/{about.lead_id}/decisions",
        json={"decision": "accept", "note": "Likes tea.", "fields": {"need": "high"}},
        headers=auth("sales"),
    )
    assert decided.status_code == 201, decided.text
    await stack.apply_events(about.erased(day(2)), about.did("email.clicked", day(3)))
    lead = await stored(stack, about.lead_id)
    assert lead.erased
    assert lead.profile is not None
    assert lead.profile.attributes == {}
    assert await stack.rows("SELECT 1 FROM decision_note") == []
    assert await stack.rows("SELECT 1 FROM external_key") == []
    assert [row.fields for row in await stack.rows("SELECT fields FROM decision")] == [{}]
    assert (await stack.rows("SELECT count(*) FROM stage_entry"))[0][0] == 3
    assert (await stack.rows("SELECT count(*) FROM activity"))[0][0] == 1
    assert (await stack.http.get(f"/v1/leads/{about.lead_id}", headers=auth("reader"))).status_code == 410


async def test_an_erasure_may_be_heard_of_before_the_lead(stack, content, new_lead, day):
    await stack.activate(content)
    about = new_lead()
    captured = about.captured(day(0), employee_count=250)
    await stack.apply_events(about.erased(day(1)))
    await stack.apply_events(captured)
    assert await stack.published() == []
    assert (await stored(stack, about.lead_id)).profile is None


async def test_events_that_move_no_lead_are_passed_over(stack, day):
    rejected = LeadRejected(
        occurred_at=day(0),
        recorded_at=day(0),
        submission_id=uuid7(),
        source="website",
        policy_version=1,
        quality_score=0,
        failed=[],
    )
    await stack.apply_events(rejected)
    assert await stack.rows("SELECT 1 FROM lead") == []


@pytest.mark.parametrize("kinds", [[], ["email.clicked"]])
async def test_only_activities_that_are_asked_for_are_loaded(stack, new_lead, day, kinds):
    about = new_lead()
    await stack.apply_events(
        about.captured(day(0)), about.did("email.clicked", day(1)), about.did("page.viewed", day(1))
    )
    async with stack.database.write_transaction() as unit_of_work:
        lead = (await leads.lock(await unit_of_work.connection(), [about.lead_id], kinds))[about.lead_id]
    assert len(lead.activities.moments_of("email.clicked")) == len(kinds)
    assert lead.activities.moments_of("page.viewed") == ()


async def test_what_time_brings_comes_once_everything_before_it_was_read_and_only_then(stack, content, new_lead, day):
    await stack.activate(content)
    about = new_lead()
    await stack.apply_events(about.captured(day(0), employee_count=250), about.did("demo.requested", day(0)))
    context = await stack.open_context()
    said = len(await stack.published())
    watermarks = FixedWatermarks()
    assert await advance_time(stack.database, context, watermarks) == 0
    watermarks.reached = {"intake-events": day(10)}
    await advance_time(stack.database, context, watermarks)
    assert len(await stack.published()) == said
    watermarks.reached = {"intake-events": day(60)}
    assert await advance_time(stack.database, context, watermarks) == 1
    assert [event.grade for event in (await stack.published())[said:]] == ["C4"]
    assert await advance_time(stack.database, context, watermarks) == 0


async def test_what_is_heard_late_is_put_into_its_place_and_said_as_a_correction(stack, content, new_lead, day):
    await stack.activate(content)
    about = new_lead()
    await stack.apply_events(
        about.captured(day(0), employee_count=250),
        about.did("demo.requested", day(2)),
        about.did("page.viewed", day(4)),
    )
    await stack.apply_events(about.updated(day(1), employee_count=10))
    withdrawn = [event for event in await stack.published() if isinstance(event, LeadStageChanged)][-1]
    assert (withdrawn.stage, withdrawn.withdrawn, withdrawn.correction) == ("mql", True, True)
    lead = await stored(stack, about.lead_id)
    assert (lead.stage, lead.visits, lead.sequence) == ("inquiry", {"inquiry": 1}, len(await stack.published()))
    await stack.apply_events(about.updated(day(1.5), employee_count=300))
    said = [event for event in await stack.published() if isinstance(event, LeadStageChanged)]
    assert [(event.stage, event.occurred_at) for event in effective_entries(said)] == [
        ("inquiry", day(0)),
        ("mql", day(2)),
    ]


async def test_a_merge_that_is_taken_back_gives_both_leads_back_their_own(stack, content, new_lead, day):
    await stack.activate(content)
    ours, theirs, third = new_lead(), new_lead(), new_lead()
    merge = theirs.merged(third.lead_id, day(2), employee_count=250)
    await stack.apply_events(
        ours.captured(day(0), employee_count=10),
        theirs.captured(day(0), employee_count=250),
        third.captured(day(0)),
        third.did("email.clicked", day(1)),
        merge,
    )
    joined = ours.merged(theirs.lead_id, day(3), employee_count=250)
    await stack.apply_events(joined, theirs.did("demo.requested", day(4)), third.did("email.clicked", day(5)))
    assert (await stored(stack, ours.lead_id)).stage == "mql"
    ours.sequence += 1
    parted = LeadUnmerged(
        lead_id=ours.lead_id,
        sequence=ours.sequence,
        occurred_at=day(6),
        recorded_at=day(6),
        merge_id=joined.merge_id,
        restored_lead_id=theirs.lead_id,
        state=ours.state(employee_count=10),
        restored_state=theirs.state(employee_count=250),
    )
    await stack.apply_events(parted)
    survivor, restored = await stored(stack, ours.lead_id), await stored(stack, theirs.lead_id)
    assert (survivor.stage, survivor.activities) == ("inquiry", Activities())
    assert (restored.stage, restored.stage_since, restored.merged_into) == ("mql", day(4), None)
    assert [len(restored.activities.moments_of(kind)) for kind in ("email.clicked", "demo.requested")] == [2, 1]
    assert (await stored(stack, third.lead_id)).merged_into == theirs.lead_id
    assert restored.profile == theirs.state(employee_count=250)
    await stack.apply_events(theirs.did("email.clicked", day(7)))
    assert len((await stored(stack, theirs.lead_id)).activities.moments_of("email.clicked")) == 3


async def test_leads_on_their_way_are_judged_by_a_new_version_and_won_ones_are_left_alone(
    stack, content, new_lead, auth, day
):
    await stack.activate(content)
    tellers = [new_lead() for _ in range(7)]
    await stack.apply_events(*[about.captured(day(0), employee_count=30) for about in tellers])
    content["title"] = "Smaller ones too"
    content["stages"][1]["gate"] = {"when": {"path": "attributes.employee_count", "op": "gte", "value": 20}}
    await stack.activate(content)
    async with stack.database.write_transaction() as unit_of_work:
        await unit_of_work.conn.execute(
            text("UPDATE agreement_version SET active_from = active_from - interval '1 minute'")
        )
        connection = await unit_of_work.connection()
        await connection.execute("UPDATE lead SET stage = 'won' WHERE lead_id = $1", tellers[0].lead_id)
    context = await stack.open_context()
    assert [await reevaluate_leads(stack.database, context, 3) for _ in range(4)] == [True, True, False, False]
    for about in tellers[1:]:
        entry = [event for event in await stack.published(about.lead_id) if isinstance(event, LeadStageChanged)][-1]
        assert (entry.stage, entry.cause, entry.definition_version) == ("mql", "definition", 2)
        assert entry.occurred_at == context.in_force.since
        assert (await stored(stack, about.lead_id)).applied_version == 2
    assert (await stored(stack, tellers[0].lead_id)).applied_version == 1
    done = await get_progress(stack.database)
    assert (done.version, done.leads, done.processed, done.evaluated, done.changed) == (2, 7, 7, 6, 6)
    assert done.done_at is not None
    answered = (await stack.http.get("/v1/definition/reevaluation", headers=auth("reader"))).json()
    assert (answered["version"], answered["state"], answered["changed"]) == (2, "done", 6)


@pytest.mark.parametrize("pattern", ["(?x) sp ring", "[a-z&&[^q]]+", r"\u0073pring", r"[\p{L} ]{2,50}"])
async def test_version_from_before_re2_judges_as_it_did_and_stops_no_later_one(
    stack, new_lead, content, day, auth, pattern
):
    old = deepcopy(content)
    old["stages"][1]["gate"]["when"]["all"].append({"path": "campaign.name", "op": "matches", "value": "sp.ing"})
    await stack.activate(old)
    async with stack.database.write_transaction() as unit_of_work:
        written = "UPDATE agreement_version SET content = replace(content, '\"sp.ing\"', $1)"
        await (await unit_of_work.connection()).execute(written, json.dumps(pattern))
    for version in (1, 2):
        about = new_lead()
        await stack.apply_events(about.captured(day(0), employee_count=90), about.did("demo.requested", day(1)))
        assert [said.stage for said in await stack.published(about.lead_id) if isinstance(said, LeadStageChanged)] == [
            "inquiry",
            "mql",
        ]
        if version == 1:
            await stack.activate(content)
    assert (await stack.http.get("/v1/definition/versions/1/paper", headers=auth("reader"))).status_code == 200


async def test_timeline_heard_newest_first_is_replayed_once_and_published_once(
    stack, content, new_lead, day, monkeypatch
):
    """A thousand activities of one lead in one batch, each before the one that was heard last."""
    await stack.activate(content)
    newest_first, in_order = new_lead(), new_lead()
    for about in (newest_first, in_order):
        await stack.apply_events(about.captured(day(0), employee_count=250))
    kinds = ["email.clicked", "page.viewed", "webinar.attended"]
    moments = [(kinds[number % 3], day(1 + number / 50)) for number in range(1000)]
    replays = []
    fold = lead_units.fold

    def count_replays(lead_id, *arguments, **options):
        replays.append(lead_id)
        return fold(lead_id, *arguments, **options)

    monkeypatch.setattr(lead_units, "fold", count_replays)
    before = len(await stack.published(newest_first.lead_id))
    await stack.apply_events(*(newest_first.did(kind, at) for kind, at in reversed(moments)))
    assert replays == [newest_first.lead_id]
    scored = [e for e in (await stack.published(newest_first.lead_id))[before:] if isinstance(e, LeadScored)]
    assert len(scored) <= 2  # after the first one, which was the next step, and after all of them
    await stack.apply_events(*(in_order.did(kind, at) for kind, at in moments))
    assert replays == [newest_first.lead_id]
    rows = await stack.rows("SELECT lead_id, stage, fit, engagement, grade, due_at FROM lead")
    found = {row.lead_id: tuple(row)[1:] for row in rows}
    assert found[newest_first.lead_id] == found[in_order.lead_id]


async def test_activity_that_is_added_while_a_lock_is_waited_for_counts(stack, content, new_lead, day, database_url):
    await stack.activate(content)
    about = new_lead()
    await stack.apply_events(about.captured(day(0), employee_count=250), about.did("email.clicked", day(1)))
    before = (await stored(stack, about.lead_id)).scores.engagement
    other = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    transaction = other.transaction()
    await transaction.start()
    await other.execute(
        "INSERT INTO activity (lead_id, kind, occurred_at, activity_id, by) VALUES ($1, 'email.clicked', $2, $3, 'lead')",
        about.lead_id,
        day(1),
        uuid7(),
    )
    await other.execute("UPDATE lead SET revision = revision + 1 WHERE lead_id = $1", about.lead_id)
    waiting = asyncio.create_task(stack.apply_events(about.did("email.clicked", day(1.001))))
    async with asyncio.timeout(20):
        while not await other.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await transaction.commit()
    await waiting
    await other.close()
    after = await stored(stack, about.lead_id)
    assert after.scores.engagement > 2.5 * before


async def test_process_behind_by_one_version_scores_by_the_kinds_of_the_version_of_the_lead(
    stack, content, new_lead, day
):
    await stack.activate(content)
    behind = await stack.open_context()
    content["scores"]["engagement"]["rules"].append({"key": "seen", "activity": "page.viewed", "points": 15})
    await stack.activate(content)
    about = new_lead()
    await stack.apply_events(about.captured(day(0)), about.did("page.viewed", day(1)))
    click = Received(Event(uuid7(), "/intake", about.did("email.clicked", day(1))), "intake-events", 0, 9)
    async with stack.database.write_transaction() as unit_of_work:
        await process_intake_events(unit_of_work, [click], behind)
    assert (await stored(stack, about.lead_id)).scores.engagement == 20


async def test_lead_restored_by_an_unmerge_is_judged_by_the_version_in_force(stack, content, new_lead, day):
    await stack.activate(content)
    ours, theirs = new_lead(), new_lead()
    merge = ours.merged(theirs.lead_id, day(2))
    await stack.apply_events(ours.captured(day(0)), theirs.captured(day(0), employee_count=250), merge)
    content["stages"][1]["gate"] = {"when": {"path": "attributes.employee_count", "op": "gte", "value": 50}}
    version = await stack.activate(content)
    ours.sequence += 1
    at = day(6)
    await stack.apply_events(
        LeadUnmerged(
            lead_id=ours.lead_id,
            sequence=ours.sequence,
            occurred_at=at,
            recorded_at=at,
            merge_id=merge.merge_id,
            restored_lead_id=theirs.lead_id,
            state=ours.state(),
            restored_state=theirs.state(employee_count=250),
        )
    )
    restored, survivor = await stored(stack, theirs.lead_id), await stored(stack, ours.lead_id)
    assert (restored.applied_version, restored.stage) == (version, "mql")
    assert survivor.applied_version == version


async def test_version_that_would_strand_leads_is_refused_with_their_number_and_moves_them_otherwise(
    stack, content, new_lead, auth, day
):
    await stack.activate(content)
    for _ in range(3):
        about = new_lead()
        await stack.apply_events(about.captured(day(0), employee_count=250), about.did("demo.requested", day(1)))
    renamed = json.loads(json.dumps(content).replace('"mql"', '"ready"'))
    drafted = await stack.http.post("/v1/definition/versions", json=renamed, headers=auth("marketing"))
    at = f"/v1/definition/versions/{drafted.json()['version']}/propose"
    refused = await stack.http.post(at, headers=auth("marketing"))
    assert refused.status_code == 422, refused.text
    (error,) = refused.json()["errors"]
    assert (error["pointer"], "3 open leads stand in mql" in error["message"]) == ("/moves", True)
    version = await stack.activate(renamed | {"moves": {"mql": "ready"}})
    async with stack.database.write_transaction() as unit_of_work:
        await unit_of_work.conn.execute(
            text("UPDATE agreement_version SET active_from = active_from - interval '1 minute'")
        )
    assert await reevaluate_leads(stack.database, await stack.open_context()) is False
    lead = await stored(stack, about.lead_id)
    assert (lead.stage, lead.applied_version) == ("ready", version)
    entry = [event for event in await stack.published(about.lead_id) if isinstance(event, LeadStageChanged)][-1]
    assert (entry.cause, entry.from_stage, entry.stage) == ("definition", "mql", "ready")


async def _withdrawn(stack, about) -> list[str]:
    events = await stack.published(about.lead_id)
    return [event.stage for event in events if isinstance(event, LeadStageChanged) and event.correction]


async def test_activities_that_nobody_asks_for_withdraw_nothing_however_many(stack, content, new_lead, day):
    await stack.activate(content)
    about = new_lead()
    await stack.apply_events(about.captured(day(0), employee_count=250), about.did("demo.requested", day(1)))
    async with stack.database.write_transaction() as unit_of_work:
        await (await unit_of_work.connection()).execute(
            """INSERT INTO activity (lead_id, kind, occurred_at, activity_id, by)
            SELECT $1, 'page.viewed', $2::timestamptz + n * interval '1 minute', gen_random_uuid(), 'lead'
            FROM generate_series(1, 20001) AS n""",
            about.lead_id,
            day(2),
        )
    await stack.apply_events(about.did("email.clicked", day(0.5)))
    assert await _withdrawn(stack, about) == []
    assert (await stored(stack, about.lead_id)).stage == "mql"


async def test_entry_that_rests_on_activities_beyond_the_bound_is_not_corrected(
    stack, content, new_lead, day, monkeypatch
):
    monkeypatch.setattr(logs, "KIND_ACTIVITIES_MAX", 1)
    await stack.activate(content)
    about = new_lead()
    await stack.apply_events(about.captured(day(0), employee_count=250), about.did("demo.requested", day(1)))
    await stack.apply_events(about.did("demo.requested", day(3)), about.did("email.clicked", day(0.5)))
    assert await _withdrawn(stack, about) == []
    lead = await stored(stack, about.lead_id)
    assert (lead.stage, lead.stage_since) == ("mql", day(1))
    await stack.apply_events(about.did("email.clicked", day(4)))
    assert (await stored(stack, about.lead_id)).stage == "mql"


async def test_recycled_lead_stays_back_by_an_activity_that_nobody_asks_for(stack, content, new_lead, day):
    await stack.activate(content)
    about = new_lead()
    await stack.apply_events(
        about.captured(day(0), employee_count=250), *(about.did("demo.requested", day(n / 10)) for n in (1, 2))
    )
    body = {"decision": "reject", "reason": "too-early", "occurred_at": day(1).isoformat()}
    answer = await stack.http.post(f"/v1/leads/{about.lead_id}/decisions", json=body, headers=bearer("sales"))
    assert answer.is_success, answer.text
    await stack.apply_events(about.did("page.viewed", day(32)))
    assert ((await stored(stack, about.lead_id)).stage, await _withdrawn(stack, about)) == ("mql", [])
    await stack.apply_events(about.did("email.clicked", day(0.5)))
    lead = await stored(stack, about.lead_id)
    assert (lead.stage, lead.stage_since) == ("mql", day(32))
