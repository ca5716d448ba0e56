"""One lead that raises stops no other, what is owed is said, and nothing takes a second connection while it holds one."""

from __future__ import annotations

from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from tests.plans import plan_among_many
from uuid_utils.compat import uuid7

from accord.agreements import AgreementStore
from accord.contracts.envelope import Event
from accord.contracts.qualification_events import LeadAssigned, LeadScored, LeadStageChanged
from accord.db import Database
from accord.messaging.handler import Received
from accord.messaging.relay import Relay
from accord.messaging.relay_store import PostgresRelayStore
from qualification import handlers
from qualification.definition.service import KIND, DefinitionVersionCache
from qualification.lifecycle.queries import leads, reevaluations
from qualification.lifecycle.service.entry import enter_waiting_leads
from qualification.lifecycle.service.evaluation_context import EvaluationContext, EvaluationContexts
from qualification.lifecycle.service.reevaluation import get_progress, reevaluate_leads
from qualification.lifecycle.service.time_triggers import advance_time
from qualification.main import build
from qualification.routing.queries import assignments
from qualification.routing.service.assignment import assign_after_save
from qualification.routing.service.document import RoutingVersionCache
from qualification.routing.service.waiting_leads import assign_waiting_leads, sweep

ROUTING: dict[str, Any] = {
    "kind": "routing",
    "title": "Who gets which lead",
    "pools": {"desk": {"members": [{"owner": "cho"}]}},
    "rules": [{"key": "all", "pool": "desk"}],
}

MANY_LEADS = """
INSERT INTO lead (lead_id, intake_sequence, visits, deal, erased, sequence, revision, changed_at, profile, stage, stage_since, due_at,
    merged_into)
SELECT gen_random_uuid(), 1, '{}', '{}', false, 0, 1, now(), '{"captured_at": "2024-01-08T15:30:00Z"}',
    CASE WHEN n % 2 = 0 THEN 'mql' END, CASE WHEN n % 2 = 0 THEN now() END, CASE WHEN n % 2 = 0 THEN now() END,
    CASE WHEN n % 10 = 0 THEN gen_random_uuid() END
FROM generate_series(1, 50000) AS n
"""


async def change(stack: Any, statement: str, *values: object) -> list[Any]:
    async with stack.database.write_transaction() as unit_of_work:
        return list(await (await unit_of_work.connection()).fetch(statement, *values))


async def break_lead(stack: Any, lead_id: UUID) -> None:
    """Leave something of it in the database that no release can read."""
    await change(stack, "UPDATE lead SET profile = profile - 'verdict' WHERE lead_id = $1", lead_id)


async def mend_lead(stack: Any, lead_id: UUID) -> None:
    await change(stack, 'UPDATE lead SET profile = profile || \'{"verdict": "accepted"}\' WHERE lead_id = $1', lead_id)
    await change(stack, "UPDATE stuck_row SET retry_at = now()")


async def read_until(stack: Any, at: datetime) -> None:
    stack.watermarks.reached = {"intake-events": at}


async def owed(stack: Any, until: datetime) -> datetime | None:
    return (await change(stack, leads.EARLIEST_PENDING, until, []))[0][0]


async def stuck(stack: Any) -> list[tuple[str, UUID]]:
    return [(row.worker, row.key) for row in await stack.rows("SELECT worker, key FROM stuck_row")]


async def all_reevaluated(stack: Any) -> EvaluationContext:
    """The definition in force came into force a while ago, and all leads have been judged by it."""
    await change(stack, "UPDATE agreement_version SET active_from = active_from - interval '1 minute'")
    context = await stack.open_context()
    while await reevaluate_leads(stack.database, context):
        pass
    return context


@pytest.fixture
async def two(stack, content, new_lead, day):
    """Two leads whose score falls with time, after everything else is done."""
    await stack.activate(content)
    both = [new_lead(), new_lead()]
    for about in both:
        await stack.apply_events(about.captured(day(0), employee_count=250), about.did("demo.requested", day(0)))
    return both


async def test_lead_that_raises_with_time_rests_and_time_passes_for_all_others(stack, two, day):
    broken, other = two
    context = await stack.open_context()
    await read_until(stack, day(60))
    await break_lead(stack, broken.lead_id)
    assert await advance_time(stack.database, context, stack.watermarks) == 2
    assert isinstance((await stack.published(other.lead_id))[-1], LeadScored)
    assert await stuck(stack) == [(leads.TIME_TRIGGER_WORKER, broken.lead_id)]
    assert await advance_time(stack.database, context, stack.watermarks) == 0
    await mend_lead(stack, broken.lead_id)
    assert await advance_time(stack.database, context, stack.watermarks) == 1
    assert await stuck(stack) == []


async def test_lead_that_raises_when_it_enters_rests_and_all_others_enter(stack, content, new_lead, day):
    broken, other = new_lead(), new_lead()
    await stack.apply_events(*[about.captured(day(0), employee_count=250) for about in (broken, other)])
    await break_lead(stack, broken.lead_id)
    await stack.activate(content)
    context = await stack.open_context()
    assert await enter_waiting_leads(stack.database, context) == 2
    assert [row.stage for row in await stack.rows("SELECT stage FROM lead ORDER BY stage NULLS LAST")] == [
        "inquiry",
        None,
    ]
    assert await stuck(stack) == [(leads.ENTRY_WORKER, broken.lead_id)]
    await mend_lead(stack, broken.lead_id)
    assert await enter_waiting_leads(stack.database, context) == 1
    assert await stack.rows("SELECT 1 FROM lead WHERE stage IS NULL") == []


async def test_lead_that_raises_when_it_is_placed_rests_and_all_others_are_given(stack, content, new_lead, day, auth):
    await stack.activate(content)
    broken, other = new_lead(), new_lead()
    for about in (broken, other):
        await stack.apply_events(about.captured(day(0), employee_count=250), about.did("demo.requested", day(1)))
    answer = await stack.http.put("/v1/routing", json=ROUTING, headers=auth("admin"))
    assert answer.status_code == 201, answer.text
    routing, rules = (
        await RoutingVersionCache(stack.database).in_force(),
        await DefinitionVersionCache(stack.store).in_force(),
    )
    await sweep(stack.database, routing, rules)
    await break_lead(stack, broken.lead_id)
    assert await assign_waiting_leads(stack.database, routing, rules) == 2
    given = [event for event in await stack.published(other.lead_id) if isinstance(event, LeadAssigned)]
    assert [event.owner for event in given] == ["cho"]
    assert await stuck(stack) == [(assignments.ASSIGNMENT_WORKER, broken.lead_id)]
    assert await assign_waiting_leads(stack.database, routing, rules) == 0


@pytest.fixture
async def reevaluated(stack, content, new_lead, day):
    """Five leads, and a second version that lets all of them become MQL."""
    await stack.activate(content)
    some = [new_lead() for _ in range(5)]
    await stack.apply_events(*[about.captured(day(0), employee_count=30) for about in some])
    await all_reevaluated(stack)
    content = deepcopy(content)
    content["stages"][1]["gate"] = {"when": {"path": "attributes.employee_count", "op": "gte", "value": 20}}
    await stack.activate(content)
    await change(stack, "UPDATE agreement_version SET active_from = active_from - interval '1 minute'")
    return some


async def test_lead_that_raises_in_a_reevaluation_rests_and_all_others_are_judged(stack, reevaluated):
    broken, *others = reevaluated
    await break_lead(stack, broken.lead_id)
    context = await stack.open_context()
    for _ in range(6):
        if not await reevaluate_leads(stack.database, context, 3):
            break
    for about in others:
        entry = [event for event in await stack.published(about.lead_id) if isinstance(event, LeadStageChanged)][-1]
        assert (entry.stage, entry.cause) == ("mql", "definition")
    assert await stuck(stack) == [(reevaluations.REEVALUATION_WORKER, broken.lead_id)]
    done = await get_progress(stack.database)
    assert done.done_at is not None
    assert (done.version, done.processed, done.evaluated) == (2, 4, 4)
    await mend_lead(stack, broken.lead_id)
    assert not await reevaluate_leads(stack.database, context, 3)
    assert await stack.rows("SELECT 1 FROM lead WHERE applied_version < 2") == []
    assert await stuck(stack) == []


async def test_lists_are_answered_with_a_moment_that_no_business_means(stack, two, auth):
    broken = two[0]
    await change(stack, "UPDATE lead SET stage_since = '-infinity' WHERE lead_id = $1", broken.lead_id)
    await change(stack, "UPDATE stage_entry SET entered_at = '-infinity' WHERE lead_id = $1", broken.lead_id)
    listed = await stack.http.get("/v1/leads?stage=mql", headers=auth("reader"))
    assert listed.status_code == 200, listed.text
    assert {item["lead_id"] for item in listed.json()["items"]} == {str(about.lead_id) for about in two}
    for path in (f"/v1/leads/{broken.lead_id}", f"/v1/leads/{broken.lead_id}/history"):
        answer = await stack.http.get(path, headers=auth("reader"))
        assert answer.status_code == 200, answer.text


# --- Owed ---


async def test_what_time_brings_is_owed_until_it_is_done(stack, two, day):
    context = await all_reevaluated(stack)
    (row,) = await stack.rows("SELECT min(due_at) AS first FROM lead")
    assert await owed(stack, day(60)) == row.first
    assert await owed(stack, row.first - (row.first - day(0)) / 2) is None
    await read_until(stack, day(60))
    await advance_time(stack.database, context, stack.watermarks)
    assert await owed(stack, day(60)) is None


async def test_stuck_lead_owes_nothing_more(stack, two, day):
    context = await all_reevaluated(stack)
    await read_until(stack, day(60))
    for about in two:
        await break_lead(stack, about.lead_id)
    await advance_time(stack.database, context, stack.watermarks)
    await change(stack, "UPDATE stuck_row SET retry_at = now()")
    assert await owed(stack, day(60)) is None


async def test_merged_and_erased_leads_owe_nothing(stack, two, day):
    one, other = two
    await all_reevaluated(stack)
    await stack.apply_events(one.merged(other.lead_id, day(1), employee_count=250))
    await stack.apply_events(one.erased(day(2)))
    assert await owed(stack, day(60)) is None


async def test_reevaluation_is_owed_from_the_activation_until_all_are_judged(stack, reevaluated):
    (version,) = await stack.rows("SELECT active_from FROM agreement_version WHERE version = 2")
    activated_at = version.active_from
    until = activated_at.replace(year=activated_at.year + 1)
    context = await stack.open_context()
    assert await owed(stack, until) == activated_at  # not begun
    assert await owed(stack, activated_at.replace(year=activated_at.year - 1)) is None
    assert await reevaluate_leads(stack.database, context, 3)
    assert await owed(stack, until) == activated_at
    while await reevaluate_leads(stack.database, context, 3):
        pass
    assert await owed(stack, until) is None


async def test_lead_that_waits_to_enter_is_owed_from_its_capture_once_a_definition_is_in_force(
    stack, content, new_lead, day
):
    early, late = new_lead(), new_lead()
    captured_at = day(1).replace(microsecond=250_000)
    await stack.apply_events(late.captured(day(2), employee_count=250), early.captured(captured_at, employee_count=250))
    await stack.apply_events(early.updated(day(4), employee_count=251))
    until = datetime.now(UTC) + timedelta(days=1)
    assert await owed(stack, until) is None
    await stack.activate(content)
    context = await all_reevaluated(stack)
    assert await owed(stack, until) == captured_at.replace(microsecond=0)
    assert (await change(stack, leads.EARLIEST_PENDING, until, [str(early.lead_id)]))[0][0] == day(2)
    while await enter_waiting_leads(stack.database, context):
        pass
    assert await owed(stack, until) is None


async def test_lead_that_is_stuck_on_its_way_in_owes_nothing(stack, content, new_lead, day):
    broken = new_lead()
    await stack.apply_events(broken.captured(day(0), employee_count=250))
    await stack.activate(content)
    context = await all_reevaluated(stack)
    await break_lead(stack, broken.lead_id)
    await enter_waiting_leads(stack.database, context)
    assert await stuck(stack) == [(leads.ENTRY_WORKER, broken.lead_id)]
    assert await owed(stack, datetime.now(UTC)) is None


async def test_what_is_owed_is_found_by_indexes(stack, day):
    plan = await plan_among_many(stack.database, "lead", MANY_LEADS, leads.EARLIEST_PENDING, day(0), [])
    assert "Index Cond: (due_at <= " in plan
    assert "Sort" not in plan, "the first capture is the first of an index"
    assert "Seq Scan on lead" not in plan


# --- Held ---


async def test_lead_that_a_held_one_was_merged_into_owes_nothing_and_is_held_too(stack, two, day):
    survivor, merged = two
    await all_reevaluated(stack)
    await stack.apply_events(survivor.merged(merged.lead_id, day(1), employee_count=250))
    keys = {str(about.lead_id) for about in two}
    held = {row[0] for row in await change(stack, leads.WITH_SURVIVORS, [str(merged.lead_id), "definition"])}
    assert held == {*keys, "definition"}
    session = await PostgresRelayStore(stack.database, leads.EARLIEST_PENDING, leads.WITH_SURVIVORS).open_session()
    try:
        debts = await session.read_debts(day(60), frozenset({str(merged.lead_id)}))
        assert (debts.owed_at, debts.held) == (None, keys)
        assert (await session.read_debts(day(60), frozenset())).owed_at is not None
    finally:
        await session.close()


async def test_leads_that_held_ones_were_merged_into_are_found_by_their_key(stack):
    plan = await plan_among_many(stack.database, "lead", MANY_LEADS, leads.WITH_SURVIVORS, [str(uuid7())])
    assert "Index Cond: (lead_id = " in plan
    assert "Seq Scan on lead" not in plan


async def test_lead_whose_placing_raises_is_not_announced_as_held(stack, settings):
    insert = "INSERT INTO stuck_row VALUES ($1, $2, 'E', now(), 1, now())"
    placed, timed = uuid7(), uuid7()
    await change(stack, insert, assignments.ASSIGNMENT_WORKER, placed)
    await change(stack, insert, leads.TIME_TRIGGER_WORKER, timed)
    (relay,) = [worker for worker in build(settings).relays if isinstance(worker, Relay)]
    session = await relay._store.open_session()
    try:
        assert (await session.read_debts(datetime.now(UTC), frozenset())).held == {str(timed)}
    finally:
        await session.close()


# --- One connection ---


@pytest.fixture
async def single(stack, database_url):
    """The service as a process that has one connection and has not read anything yet."""
    database = Database(database_url, application_name="single", pool_size=1)
    definitions, routing = DefinitionVersionCache(AgreementStore(database, KIND)), RoutingVersionCache(database)
    yield definitions, routing, EvaluationContexts(definitions, assign_after_save(routing)), database
    await database.dispose()


async def test_handlers_need_no_second_connection(stack, content, single, new_lead, day):
    definitions, routing, contexts, database = single
    await stack.activate(content)
    about = new_lead()
    received = [Received(Event(uuid7(), "/intake", about.captured(day(0), employee_count=250)), "intake-events", 0, 0)]
    async with database.write_transaction() as unit_of_work:
        await handlers.intake_events(contexts)(unit_of_work, received)
        await handlers.sla_events(routing, definitions)(unit_of_work, [])
    (row,) = await stack.rows("SELECT stage FROM lead WHERE lead_id = :lead", lead=about.lead_id)
    assert row.stage == "inquiry"


async def test_version_that_another_process_has_seen_needs_no_second_connection(stack, content, single, new_lead, day):
    _, _, contexts, database = single
    await stack.activate(content)
    context = await contexts.open()
    about = new_lead()
    content["title"] = "Seen by another process first"
    await stack.activate(content)
    await stack.apply_events(about.captured(day(0), employee_count=250))
    received = [Received(Event(uuid7(), "/intake", about.did("demo.requested", day(1))), "intake-events", 0, 0)]
    assert 2 not in context.versions
    async with database.write_transaction() as unit_of_work:
        await handlers.process_intake_events(unit_of_work, received, context)
    assert 2 in context.versions
