"""Routing over HTTP and a real database: the document, leads given on entry, by hand, after a wait, by a merge, after a breach."""

from __future__ import annotations

import asyncio
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import yaml
from sqlalchemy import text
from tests.plans import plan_among_many
from uuid_utils.compat import uuid7

from accord.contracts.envelope import Event
from accord.contracts.intake_events import LeadUnmerged
from accord.contracts.qualification_events import LeadAssigned
from accord.contracts.sla_events import ClockEscalated, ClockMet
from accord.messaging.handler import Received
from qualification.definition.service import DefinitionVersionCache
from qualification.lifecycle.domain.history import fold
from qualification.lifecycle.queries import logs, reevaluations
from qualification.measure import reevaluation_collector, waiting_collector
from qualification.routing.service.breaches import process_breaches
from qualification.routing.service.document import GivenFacts, RoutingVersionCache
from qualification.routing.service.waiting_leads import assign_waiting_leads, sweep

ROUTING: dict[str, Any] = {
    "kind": "routing",
    "title": "Who gets which lead",
    "people": {"ann": {}, "boss": {}},
    "pools": {
        "large": {"members": [{"owner": "ann"}, {"owner": "bob"}]},
        "desk": {"members": [{"owner": "cho"}]},
    },
    "rules": [
        {
            "key": "enterprise",
            "when": {"path": "attributes.employee_count", "op": "gte", "value": 200},
            "pool": "large",
        },
        {"key": "others", "pool": "desk"},
    ],
    "fallback": "desk",
}

NOBODY = {"absences": [{"from": "2020-01-01", "to": "2099-12-31"}]}


async def put(stack, auth, content: dict[str, Any] = ROUTING, etag: str | None = None, key: str = "admin"):
    headers = auth(key) | ({"If-Match": etag} if etag else {})
    return await stack.http.put("/v1/routing", json=content, headers=headers)


@pytest.fixture
async def routed(stack, content, auth):
    """The stack with the definition of the tests and the routing above in force."""
    await stack.activate(content)
    answer = await put(stack, auth)
    assert answer.status_code == 201, answer.text
    return stack


def changed(**changes: Any) -> dict[str, Any]:
    return deepcopy(ROUTING) | changes


async def mql(stack, new_lead, day, *, account: UUID | None = None, size: int = 250):
    """A lead that has become MQL."""
    about = new_lead()
    about.account_id = account
    await stack.apply_events(about.captured(day(0), employee_count=size), about.did("demo.requested", day(1)))
    return about


async def lead(stack, auth, lead_id: UUID) -> dict[str, Any]:
    answer = await stack.http.get(f"/v1/leads/{lead_id}", headers=auth("reader"))
    assert answer.status_code == 200, answer.text
    return answer.json()


async def owner_of(stack, lead_id: UUID) -> str | None:
    (row,) = await stack.rows("SELECT owner FROM lead WHERE lead_id = :lead_id", lead_id=lead_id)
    return row.owner


async def assigned(stack, lead_id: UUID) -> list[LeadAssigned]:
    return [event for event in await stack.published(lead_id) if isinstance(event, LeadAssigned)]


async def history(stack, auth, lead_id: UUID) -> list[dict[str, Any]]:
    answer = await stack.http.get(f"/v1/leads/{lead_id}/assignments", headers=auth("reader"))
    assert answer.status_code == 200, answer.text
    return answer.json()["items"]


async def give(stack, auth, lead_id: UUID | str, owner: str, key: str = "sales", **headers: str):
    body = {"owner": owner, "reason": "territory"}
    return await stack.http.post(f"/v1/leads/{lead_id}/assignment", json=body, headers=auth(key) | headers)


async def in_force(stack):
    return await RoutingVersionCache(stack.database).in_force(), await DefinitionVersionCache(stack.store).in_force()


async def assign_waiting(stack) -> int:
    routing, rules = await in_force(stack)
    while await sweep(stack.database, routing, rules, 2):
        pass
    return await assign_waiting_leads(stack.database, routing, rules)


# --- The document ---


async def test_a_document_is_a_version_each_time_it_changes(stack, content, auth):
    await stack.activate(content)
    assert (await stack.http.get("/v1/routing", headers=auth("reader"))).status_code == 404
    first = await put(stack, auth)
    assert (first.status_code, first.headers["ETag"], first.json()["version"]) == (201, '"1"', 1)
    same = await put(stack, auth, etag='"1"')
    assert (same.status_code, same.json()["version"]) == (200, 1)
    second = await put(stack, auth, changed(title="New"), etag='"1"')
    assert (second.status_code, second.json()["version"], second.json()["written_by"]) == (201, 2, "admin")
    read = await stack.http.get("/v1/routing", headers=auth("reader"))
    assert read.json()["content"]["title"] == "New"
    unchanged = await stack.http.get("/v1/routing", headers=auth("reader") | {"If-None-Match": '"2"'})
    assert unchanged.status_code == 304
    listed = await stack.http.get("/v1/routing/versions?limit=1", headers=auth("reader"))
    assert [item["version"] for item in listed.json()["items"]] == [2]
    more = await stack.http.get(f"/v1/routing/versions?cursor={listed.json()['next_cursor']}", headers=auth("reader"))
    assert [item["version"] for item in more.json()["items"]] == [1]
    old = await stack.http.get("/v1/routing/versions/1", headers=auth("reader"))
    assert old.json()["content"]["title"] == ROUTING["title"]


async def test_nobody_s_change_of_the_document_is_lost(routed, auth):
    assert (await put(routed, auth)).status_code == 428
    assert (await put(routed, auth, changed(title="A"), etag='"1"')).status_code == 201
    stale = await put(routed, auth, changed(title="B"), etag='"1"')
    assert (stale.status_code, stale.headers["ETag"]) == (412, '"2"')
    both = await asyncio.gather(*(put(routed, auth, changed(title=title), etag='"2"') for title in "CD"))
    assert sorted(answer.status_code for answer in both) == [201, 412]


async def test_only_an_administrator_changes_who_gets_leads(stack, content, auth):
    await stack.activate(content)
    refused = await put(stack, auth, key="sales")
    assert (refused.status_code, refused.json()["missing_scope"]) == (403, "admin")


async def test_the_document_may_be_yaml(stack, content, auth):
    await stack.activate(content)
    headers = auth("admin") | {"Content-Type": "application/yaml"}
    answer = await stack.http.put("/v1/routing", content=yaml.safe_dump(ROUTING), headers=headers)
    assert answer.status_code == 201
    assert answer.json()["content"] == ROUTING


async def test_what_is_wrong_with_a_document_is_answered_with_its_places(stack, content, auth):
    await stack.activate(content)
    wrong = changed(at=["mqll"], fallback="nowhere", pools={"large": {"members": []}, "desk": ROUTING["pools"]["desk"]})
    answer = await put(stack, auth, wrong)
    assert answer.status_code == 422
    assert {error["pointer"] for error in answer.json()["errors"]} == {"/at/0", "/fallback", "/pools/large/members"}
    assert (await stack.http.get("/v1/routing", headers=auth("reader"))).status_code == 404


# --- Trying it ---


async def test_a_preview_says_who_and_why_and_writes_nothing(routed, auth):
    body = {"facts": {"attributes": {"employee_count": 250}}}
    for _ in range(2):
        answer = (await routed.http.post("/v1/routing/preview", json=body, headers=auth("reader"))).json()
        assert (answer["owner"], answer["pool"], answer["routing_version"]) == ("ann", "large", 1)
    why = answer["explanation"]["rules"][0]["why"][0]
    assert (why["path"], why["expected"], why["actual"], why["held"]) == ("attributes.employee_count", 200, 250, True)
    assert await routed.published() == []


async def test_a_document_can_be_tried_before_it_is_put(routed, auth):
    tried = changed(rules=[{"key": "all", "when": {"path": "age", "op": "gte", "value": "P2D"}, "pool": "desk"}])
    body = {"facts": {"age": "P3D"}, "routing": tried}
    answer = (await routed.http.post("/v1/routing/preview", json=body, headers=auth("reader"))).json()
    assert (answer["owner"], answer["routing_version"]) == ("cho", None)
    body["routing"] = changed(fallback="nowhere")
    wrong = await routed.http.post("/v1/routing/preview", json=body, headers=auth("reader"))
    assert [error["pointer"] for error in wrong.json()["errors"]] == ["/routing/fallback"]


@pytest.mark.parametrize("body", [{}, {"facts": {}, "lead_id": str(uuid7())}, {"facts": {"age": "soon"}}])
async def test_a_preview_that_asks_for_nothing_is_refused(routed, auth, body):
    assert (await routed.http.post("/v1/routing/preview", json=body, headers=auth("reader"))).status_code == 422


async def test_a_preview_of_a_lead_asks_what_is_known_of_it(routed, new_lead, day, auth):
    about = new_lead()
    await routed.apply_events(about.captured(day(0), employee_count=20))
    body = {"lead_id": str(about.lead_id)}
    answer = (await routed.http.post("/v1/routing/preview", json=body, headers=auth("reader"))).json()
    assert answer["owner"] == "cho"
    assert answer["explanation"]["rules"][0]["why"][0]["actual"] == 20
    body = {"lead_id": str(uuid7())}
    assert (await routed.http.post("/v1/routing/preview", json=body, headers=auth("reader"))).status_code == 404


async def test_the_pools_say_how_they_stand(routed, new_lead, day, auth):
    content = changed(people={"ann": {"capacity": 1}, "bob": NOBODY})
    await put(routed, auth, content, etag='"1"')
    await mql(routed, new_lead, day)
    pools = (await routed.http.get("/v1/routing/pools", headers=auth("reader"))).json()["pools"]
    desk, large = ({member["owner"]: member for member in pool["members"]} for pool in pools)
    assert (large["ann"]["open"], large["ann"]["why_not"]) == (1, "has 1 open leads, and the capacity is 1")
    assert large["bob"]["why_not"] == "absent from 2020-01-01 to 2099-12-31"
    assert (pools[0]["pool"], pools[0]["fallback"], desk["cho"]["available"]) == ("desk", True, True)


# --- On entry ---


async def test_a_lead_that_sales_owes_an_answer_has_an_owner_and_a_reason(routed, new_lead, day, auth):
    about = await mql(routed, new_lead, day)
    said = await routed.published(about.lead_id)
    assert [event.sequence for event in said] == list(range(1, len(said) + 1))
    (event,) = await assigned(routed, about.lead_id)
    assert (event.owner, event.previous_owner, event.pool) == ("ann", None, "large")
    assert (
        event.why
        == "rule enterprise leads to pool large; in pool large ann is next by smooth weighted round robin (2 of 2 available)"
    )
    read = await lead(routed, auth, about.lead_id)
    assert (read["stage"], read["owner"]) == ("mql", "ann")
    (row,) = await history(routed, auth, about.lead_id)
    assert (row["owner"], row["cause"], row["routing_version"]) == ("ann", "stage", 1)
    assert row["explanation"]["rules"][0]["why"][0]["actual"] == 250
    assert [member["owner"] for member in row["explanation"]["pools"][0]["members"]] == ["ann", "bob"]


async def test_leads_of_one_batch_are_shared_like_those_of_many(routed, new_lead, day):
    tellers = [new_lead() for _ in range(10)]
    events = [about.captured(day(0), employee_count=250) for about in tellers]
    await routed.apply_events(*events, *(about.did("demo.requested", day(1)) for about in tellers))
    assert [await owner_of(routed, about.lead_id) for about in tellers] == ["ann", "bob"] * 5


async def test_without_a_routing_document_nobody_is_given_a_lead(stack, content, new_lead, day):
    await stack.activate(content)
    about = await mql(stack, new_lead, day)
    assert await assigned(stack, about.lead_id) == []


async def test_a_lead_that_goes_on_keeps_its_owner_without_a_word(routed, new_lead, day, auth):
    about = await mql(routed, new_lead, day)
    body = {"decision": "accept"}
    assert (await routed.http.post(f"/v1/leads/{about.lead_id}/decisions", json=body, headers=auth("sales"))).is_success
    assert len(await assigned(routed, about.lead_id)) == 1
    assert (await lead(routed, auth, about.lead_id))["owner"] == "ann"


async def test_a_lead_that_comes_back_goes_to_whoever_had_it(routed, new_lead, day, auth):
    about = await mql(routed, new_lead, day)
    recycled = {"decision": "reject", "reason": "no-timing", "occurred_at": day(2).isoformat()}
    url = f"/v1/leads/{about.lead_id}/decisions"
    assert (await routed.http.post(url, json=recycled, headers=auth("sales"))).is_success
    await mql(routed, new_lead, day)  # bob's turn
    await routed.apply_events(about.did("demo.requested", day(40)))
    first, second = await assigned(routed, about.lead_id)
    assert (second.owner, second.previous_owner) == ("ann", "ann")
    assert (await history(routed, auth, about.lead_id))[1]["explanation"]["how"] == "own"
    assert first.sequence < second.sequence


async def test_leads_of_one_account_go_to_one_person(routed, new_lead, day):
    account = uuid7()
    tellers = [await mql(routed, new_lead, day, account=account) for _ in range(3)]
    other = await mql(routed, new_lead, day)
    assert {await owner_of(routed, about.lead_id) for about in tellers} == {"ann"}
    assert await owner_of(routed, other.lead_id) == "bob"


async def test_no_two_transactions_give_one_person_the_last_place(routed, new_lead, day, auth):
    people = {owner: {"capacity": 3} for owner in ("ann", "bob", "cho")}
    await put(routed, auth, changed(people=people), etag='"1"')
    await asyncio.gather(*(mql(routed, new_lead, day) for _ in range(12)))
    rows = await routed.rows("SELECT owner, count(*) AS leads FROM lead GROUP BY owner")
    assert {row.owner: row.leads for row in rows} == {"ann": 3, "bob": 3, "cho": 3, None: 3}


async def test_a_lead_that_is_closed_makes_room(routed, new_lead, day, auth):
    await put(routed, auth, changed(people={"ann": {"capacity": 1}, "bob": NOBODY, "cho": NOBODY}), etag='"1"')
    first, second = await mql(routed, new_lead, day), await mql(routed, new_lead, day)
    (event,) = await assigned(routed, second.lead_id)
    assert event.owner is None
    assert event.why.endswith("nobody gets it yet")
    assert await assign_waiting(routed) == 0  # nobody there has room, so nobody is asked
    body = {"decision": "disqualify", "reason": "not-a-fit"}
    await routed.http.post(f"/v1/leads/{first.lead_id}/decisions", json=body, headers=auth("sales"))
    assert await assign_waiting(routed) == 1
    assert [event.owner for event in await assigned(routed, second.lead_id)] == [None, "ann"]
    assert [row["cause"] for row in await history(routed, auth, second.lead_id)] == ["stage", "waiting"]
    assert await routed.rows("SELECT lead_id FROM waiting_lead") == []


async def test_operators_see_how_many_leads_wait_for_how_long_and_how_far_a_new_version_has_come(
    routed, new_lead, day, auth
):
    async def measured(name: str) -> float:
        for collector in (waiting_collector(routed.database), reevaluation_collector(routed.database)):
            await collector.collect()
        said = (await routed.http.get("/metrics")).text
        return next(float(line.split()[-1]) for line in said.splitlines() if line.startswith(f"{name} "))

    assert await measured('accord_leads_waiting{wait="owner"}') == 0
    await put(routed, auth, changed(people=dict.fromkeys(("ann", "bob", "cho"), NOBODY)), etag='"1"')
    about = await mql(routed, new_lead, day)
    async with routed.database.write_transaction() as unit_of_work:
        await unit_of_work.conn.execute(text("UPDATE waiting_lead SET since = since - interval '1 hour'"))
    assert await measured('accord_leads_waiting{wait="owner"}') == 1
    assert await measured('accord_leads_waiting_age_seconds{wait="owner"}') >= 3600
    assert await measured('accord_leads_waiting{wait="another"}') == 0
    await routed.apply_events(about.erased(day(2)))
    assert await measured('accord_leads_waiting_age_seconds{wait="owner"}') == 0
    assert await measured("accord_reevaluation_version") == 0
    async with routed.database.write_transaction() as unit_of_work:
        connection = await unit_of_work.connection()
        await reevaluations.begin_or_resume(connection, 2, unit_of_work.now)
        await reevaluations.advance(connection, 2, about.lead_id, 7, 5, 3)
    assert await measured("accord_reevaluation_version") == 2
    assert await measured("accord_reevaluation_processed") == 7
    assert await measured("accord_reevaluation_changed") == 3
    assert await measured("accord_reevaluation_running") == 1


async def test_leads_that_wait_are_tried_again_under_a_new_document_and_told_once(routed, new_lead, day, auth):
    await put(routed, auth, changed(people=dict.fromkeys(("ann", "bob", "cho"), NOBODY)), etag='"1"')
    about = await mql(routed, new_lead, day)
    await put(
        routed, auth, changed(title="Still nobody", people=dict.fromkeys(("ann", "bob", "cho"), NOBODY)), etag='"2"'
    )
    assert await assign_waiting(routed) == 1
    assert [event.owner for event in await assigned(routed, about.lead_id)] == [None]
    await put(routed, auth, etag='"3"')
    await assign_waiting(routed)
    assert [event.owner for event in await assigned(routed, about.lead_id)] == [None, "ann"]


async def test_leads_from_before_the_first_document_are_given_out_too(stack, content, new_lead, day, auth):
    await stack.activate(content)
    tellers = [await mql(stack, new_lead, day) for _ in range(5)]
    small = new_lead()
    await stack.apply_events(small.captured(day(0), employee_count=10))
    await put(stack, auth)
    assert await assign_waiting(stack) == 5
    assert [await owner_of(stack, about.lead_id) for about in tellers] == ["ann", "bob", "ann", "bob", "ann"]
    assert await owner_of(stack, small.lead_id) is None
    assert await assign_waiting(stack) == 0


async def test_imported_history_can_be_left_to_people(routed, new_lead, day):
    await routed.http.put(
        "/v1/routing",
        json=changed(entered_within="P7D"),
        headers={"Authorization": "Bearer key-of-admin", "If-Match": '"1"'},
    )
    about = await mql(routed, new_lead, day)
    assert await assigned(routed, about.lead_id) == []
    await assign_waiting(routed)
    assert await owner_of(routed, about.lead_id) is None


async def test_a_rule_may_ask_for_activities_that_the_definition_does_not(routed, new_lead, day, auth):
    when = {"path": "activities.webinar.attended.count", "op": "gte", "value": 2}
    rules = [{"key": "keen", "when": when, "pool": "large"}, {"key": "others", "pool": "desk"}]
    await put(routed, auth, changed(rules=rules), etag='"1"')
    keen, other = new_lead(), new_lead()
    await routed.apply_events(keen.captured(day(0), employee_count=60), other.captured(day(0), employee_count=60))
    await routed.apply_events(*(keen.did("webinar.attended", day(0.5)) for _ in range(2)))
    await routed.apply_events(keen.did("demo.requested", day(1)), other.did("demo.requested", day(1)))
    assert (await owner_of(routed, keen.lead_id), await owner_of(routed, other.lead_id)) == ("ann", "cho")


# --- By hand ---


async def test_a_person_gives_a_lead_to_somebody_and_no_turn_is_used_up(routed, new_lead, day, auth):
    about = await mql(routed, new_lead, day)
    answer = await give(routed, auth, about.lead_id, "boss")
    assert answer.status_code == 201
    assert {name: answer.json()[name] for name in ("owner", "previous_owner", "changed")} == {
        "owner": "boss",
        "previous_owner": "ann",
        "changed": True,
    }
    assert (await lead(routed, auth, about.lead_id))["owner"] == "boss"
    event = (await assigned(routed, about.lead_id))[-1]
    assert (event.owner, event.previous_owner, event.pool, event.why) == ("boss", "ann", None, "by hand")
    row = (await history(routed, auth, about.lead_id))[-1]
    assert (row["cause"], row["actor"], row["reason"], row["explanation"]) == ("person", "sales", "territory", None)
    assert await owner_of(routed, (await mql(routed, new_lead, day)).lead_id) == "bob"


async def test_who_was_given_a_lead_last_keeps_it_though_that_transaction_had_begun_first(routed, new_lead, day, auth):
    about = await mql(routed, new_lead, day)
    await give(routed, auth, about.lead_id, "boss")
    async with routed.database.write_transaction() as unit_of_work:
        earlier = "UPDATE assignment SET occurred_at = occurred_at - interval '1 hour' WHERE owner = 'boss'"
        await unit_of_work.conn.execute(text(earlier))
    await routed.apply_events(about.updated(day(0.5), employee_count=260))  # heard late, so the lead is folded anew
    assert await owner_of(routed, about.lead_id) == "boss"


async def test_giving_a_lead_to_whoever_has_it_records_nothing(routed, new_lead, day, auth):
    about = await mql(routed, new_lead, day)
    answer = await give(routed, auth, about.lead_id, "ann")
    assert (answer.status_code, answer.json()["changed"]) == (200, False)
    assert len(await assigned(routed, about.lead_id)) == 1


async def test_what_cannot_be_given_is_refused(routed, new_lead, day, auth):
    about = await mql(routed, new_lead, day)
    stranger = await give(routed, auth, about.lead_id, "zoe")
    assert (stranger.status_code, stranger.json()["errors"][0]["pointer"]) == (422, "/owner")
    assert (await give(routed, auth, about.lead_id, "x@example.com")).status_code == 422
    assert (await give(routed, auth, uuid7(), "bob")).status_code == 404
    assert (await give(routed, auth, about.lead_id, "bob", key="reader")).status_code == 403
    assert (await give(routed, auth, about.lead_id, "bob", **{"If-Match": '"99"'})).status_code == 412
    await routed.apply_events(about.erased(day(2)))
    assert (await give(routed, auth, about.lead_id, "bob")).status_code == 410


async def test_a_lead_is_given_once_however_often_the_request_is_sent(routed, new_lead, day, auth):
    about = await mql(routed, new_lead, day)
    answers = [await give(routed, auth, about.lead_id, "bob", **{"Idempotency-Key": "k"}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[1].headers["Idempotency-Replayed"] == "true"
    assert len(await assigned(routed, about.lead_id)) == 2


async def assign_batch(stack, auth, rows: list[dict[str, Any]], **headers: str):
    return await stack.http.post("/v1/assignments:batch", json=rows, headers=auth("sales") | headers)


async def test_history_of_owners_is_brought_in_by_one_batch_and_a_refused_row_spoils_no_other(
    stack, content, new_lead, day, auth
):
    await stack.activate(content)
    about, other = new_lead(), new_lead()
    await stack.apply_events(about.captured(day(0), employee_count=10), other.captured(day(0), employee_count=10))
    lead_id, unknown = str(about.lead_id), str(uuid7())
    rows = [
        {"lead": lead_id, "owner": "ann", "occurred_at": day(1).isoformat()},
        {"lead": lead_id, "owner": "bob", "reason": "territory", "occurred_at": day(3).isoformat()},
        {"lead": lead_id, "owner": "cho", "occurred_at": day(2).isoformat()},
        {"lead": lead_id, "owner": "cho", "occurred_at": day(-1).isoformat()},
        {"lead": lead_id, "owner": "cho", "occurred_at": "2199-01-01T00:00:00Z"},
        {"lead": unknown, "owner": "ann"},
        {"lead": lead_id},
        {"lead": str(other.lead_id), "owner": "ann", "occurred_at": day(1).isoformat()},
        {"lead": lead_id, "owner": "bob"},
    ]
    answer = await assign_batch(stack, auth, rows, **{"Idempotency-Key": "owners-1"})
    assert answer.status_code == 200, answer.text
    results = answer.json()["results"]
    assert [row["status"] for row in results] == [201, 201, 422, 422, 422, 404, 422, 201, 200]
    pointers = [row["problem"]["errors"][0]["pointer"] for row in results if row["status"] == 422]
    assert pointers == ["/2/occurred_at", "/3/occurred_at", "/4/occurred_at", "/6/owner"]
    assert (await assign_batch(stack, auth, rows, **{"Idempotency-Key": "owners-1"})).json() == answer.json()
    events = await assigned(stack, about.lead_id)
    assert [(e.owner, e.previous_owner, e.occurred_at) for e in events] == [
        ("ann", None, day(1)),
        ("bob", "ann", day(3)),
    ]
    assert [event.sequence for event in events] == [events[0].sequence, events[0].sequence + 1]
    assert [row["occurred_at"][:10] for row in await history(stack, auth, about.lead_id)] == [
        at.date().isoformat() for at in (day(1), day(3))
    ]
    assert (await owner_of(stack, about.lead_id), await folded_owner(stack, about.lead_id)) == ("bob", "bob")
    assert await owner_of(stack, other.lead_id) == "ann"


@pytest.mark.parametrize("rows", [[], {}, [{}] * 1001])
async def test_batch_of_assignments_is_a_list_of_a_thousand_at_most(routed, auth, rows):
    assert (await assign_batch(routed, auth, rows)).status_code == 422


async def test_a_person_s_leads_are_listed_open_ones_first(routed, new_lead, day, auth):
    tellers = [await mql(routed, new_lead, day, size=60) for _ in range(4)]
    body = {"decision": "disqualify", "reason": "not-a-fit"}
    for about in tellers[:2]:
        await routed.http.post(f"/v1/leads/{about.lead_id}/decisions", json=body, headers=auth("sales"))
    found: list[tuple[str, bool]] = []
    cursor = ""
    while True:
        page = (await routed.http.get(f"/v1/owners/cho/leads?limit=1{cursor}", headers=auth("reader"))).json()
        found += [(item["lead_id"], item["open"]) for item in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    expected = [(about, True) for about in tellers[2:]] + [(about, False) for about in tellers[:2]]
    assert found == [(str(about.lead_id), opened) for about, opened in expected]


# --- Merges and erasures ---


async def test_a_survivor_keeps_its_owner_and_else_takes_the_other_s(routed, new_lead, day, auth):
    first, second, plain = await mql(routed, new_lead, day), await mql(routed, new_lead, day), new_lead()
    await routed.apply_events(plain.captured(day(0), employee_count=10))
    await routed.apply_events(first.merged(second.lead_id, day(2), employee_count=250))
    assert await owner_of(routed, first.lead_id) == "ann"
    assert await owner_of(routed, second.lead_id) is None
    third = await mql(routed, new_lead, day)
    await give(routed, auth, third.lead_id, "boss")
    await routed.apply_events(plain.merged(third.lead_id, day(3), employee_count=10))
    assert await owner_of(routed, plain.lead_id) == "boss"
    event = (await assigned(routed, plain.lead_id))[-1]
    assert (event.owner, event.previous_owner) == ("boss", None)


async def test_a_lead_whose_merge_is_taken_back_belongs_to_whoever_had_it(routed, new_lead, day):
    first, second = await mql(routed, new_lead, day), await mql(routed, new_lead, day)
    merged = first.merged(second.lead_id, day(2), employee_count=250)
    await routed.apply_events(merged)
    assert await owner_of(routed, second.lead_id) is None
    await routed.apply_events(reverted(first, merged, second, day, survivor_size=250))
    assert await owner_of(routed, first.lead_id) == "ann"
    assert await owner_of(routed, second.lead_id) == "bob"
    assert len(await assigned(routed, second.lead_id)) == 1


def reverted(survivor, merge, restored, day, survivor_size: int = 10, restored_size: int = 250) -> LeadUnmerged:
    return LeadUnmerged(
        **survivor._base(day(4)),
        merge_id=merge.merge_id,
        restored_lead_id=restored.lead_id,
        state=survivor.state(employee_count=survivor_size),
        restored_state=restored.state(employee_count=restored_size),
    )


async def test_owner_that_came_by_a_merge_goes_with_it_and_frees_the_place(routed, new_lead, day, auth):
    plain, third = new_lead(), await mql(routed, new_lead, day)
    await routed.apply_events(plain.captured(day(0), employee_count=10))
    merge = plain.merged(third.lead_id, day(3), employee_count=250)
    await routed.apply_events(merge)
    assert await owner_of(routed, plain.lead_id) == "ann"
    await routed.apply_events(reverted(plain, merge, third, day))
    assert (await owner_of(routed, plain.lead_id), await owner_of(routed, third.lead_id)) == (None, "ann")
    event = (await assigned(routed, plain.lead_id))[-1]
    assert (event.owner, event.previous_owner) == (None, "ann")
    owned = (await routed.http.get("/v1/owners/ann/leads", headers=auth("reader"))).json()["items"]
    assert [item["lead_id"] for item in owned] == [str(third.lead_id)]
    await assign_waiting(routed)
    assert await owner_of(routed, plain.lead_id) is None  # it stands in no stage of the routing


async def test_owner_of_an_open_deal_keeps_it_when_it_is_merged_into_a_lost_lead(routed, new_lead, day, auth):
    lost, opened = await mql(routed, new_lead, day), await mql(routed, new_lead, day)
    for body in ({"decision": "accept"}, {"decision": "lose", "reason": "price"}):
        answer = await routed.http.post(f"/v1/leads/{lost.lead_id}/decisions", json=body, headers=auth("sales"))
        assert answer.is_success, answer.text
    assert (await owner_of(routed, lost.lead_id), await owner_of(routed, opened.lead_id)) == ("ann", "bob")
    merge = lost.merged(opened.lead_id, datetime.now(UTC), employee_count=250)
    await routed.apply_events(merge)
    assert (await lead(routed, auth, lost.lead_id))["stage"] == "mql"
    assert await owner_of(routed, lost.lead_id) == "bob"
    await routed.apply_events(reverted(lost, merge, opened, day, survivor_size=250))
    assert (await owner_of(routed, lost.lead_id), await owner_of(routed, opened.lead_id)) == ("ann", "bob")
    assert (await lead(routed, auth, lost.lead_id))["stage"] == "lost"


async def test_owner_given_by_hand_after_a_merge_stays_when_it_is_reverted(routed, new_lead, day, auth):
    plain, third = new_lead(), await mql(routed, new_lead, day)
    await routed.apply_events(plain.captured(day(0), employee_count=10))
    merge = plain.merged(third.lead_id, day(3), employee_count=250)
    await routed.apply_events(merge)
    await give(routed, auth, plain.lead_id, "boss")
    await routed.apply_events(reverted(plain, merge, third, day))
    assert await owner_of(routed, plain.lead_id) == "boss"


async def test_lead_that_waited_before_its_merge_waits_again_after_the_revert(routed, new_lead, day, auth):
    absent = {"people": dict.fromkeys(("ann", "bob", "cho", "boss"), NOBODY)}
    etag = (await routed.http.get("/v1/routing", headers=auth("reader"))).headers["ETag"]
    assert (await put(routed, auth, changed(**absent), etag)).is_success
    first, second = await mql(routed, new_lead, day), await mql(routed, new_lead, day)
    merge = first.merged(second.lead_id, day(2), employee_count=250)
    await routed.apply_events(merge)
    etag = (await routed.http.get("/v1/routing", headers=auth("reader"))).headers["ETag"]
    assert (await put(routed, auth, etag=etag)).is_success
    await assign_waiting(routed)
    assert await owner_of(routed, first.lead_id) == "ann"
    await routed.apply_events(reverted(first, merge, second, day, survivor_size=250))
    await assign_waiting(routed)
    assert (await owner_of(routed, first.lead_id), await owner_of(routed, second.lead_id)) == ("ann", "bob")


async def test_an_erased_lead_belongs_to_nobody_and_its_explanations_are_gone(routed, new_lead, day):
    about = await mql(routed, new_lead, day)
    await routed.apply_events(about.erased(day(2)))
    assert await owner_of(routed, about.lead_id) is None
    (row,) = await routed.rows("SELECT owner, explanation FROM assignment WHERE lead_id = :id", id=about.lead_id)
    assert (row.owner, row.explanation) == ("ann", None)


# --- Breaches ---


def breach(about, owner: str | None, clock_id: UUID | None = None, *, reassign: bool = True) -> ClockEscalated:
    """The step of a clause at its deadline."""
    return ClockEscalated(**_clock(about, owner, clock_id, 2), fraction=1.0, breach_id=uuid7(), reassign=reassign)


def met(about, owner: str | None, clock_id: UUID) -> ClockMet:
    return ClockMet(**_clock(about, owner, clock_id, 3), late=True)


def _clock(about, owner: str | None, clock_id: UUID | None, sequence: int) -> dict[str, Any]:
    now = datetime.now(UTC)
    return {
        "clock_id": clock_id or uuid7(),
        "lead_id": about.lead_id,
        "sequence": sequence,
        "clause": "first-touch",
        "obliges": "sales",
        "sla_version": 1,
        "owner": owner,
        "started_at": now - timedelta(hours=1),
        "due_at": now,
        "occurred_at": now,
        "recorded_at": now,
    }


async def told(stack, *events) -> None:
    received = [Received(Event(uuid7(), "/sla-monitor", event), "sla-events", 0, n) for n, event in enumerate(events)]
    routing, rules = await in_force(stack)
    async with stack.database.write_transaction() as unit_of_work:
        await process_breaches(unit_of_work, received, routing, rules)


async def test_after_a_breach_somebody_else_has_the_lead_once(routed, new_lead, day, auth):
    about = await mql(routed, new_lead, day)
    broken = breach(about, "ann")
    await told(routed, broken)
    await told(routed, broken)
    events = await assigned(routed, about.lead_id)
    assert [(event.owner, event.breach_id) for event in events] == [("ann", None), ("bob", broken.breach_id)]
    row = (await history(routed, auth, about.lead_id))[-1]
    assert (row["cause"], row["clause"], row["breach_id"]) == ("breach", "first-touch", str(broken.breach_id))
    assert row["why"].startswith("the clause first-touch was broken; ")
    members = {member["owner"]: member["why_not"] for member in row["explanation"]["pools"][0]["members"]}
    assert members["ann"] == "has broken the clause that the lead is taken away for"


async def test_a_breach_takes_the_lead_only_from_whom_it_speaks_of(routed, new_lead, day, auth):
    about = await mql(routed, new_lead, day)
    await give(routed, auth, about.lead_id, "boss")
    await told(routed, breach(about, "ann"), breach(about, None), breach(about, "boss", reassign=False))
    assert await owner_of(routed, about.lead_id) == "boss"


async def test_a_breach_that_was_answered_by_now_takes_nothing_away(routed, new_lead, day):
    about, clock_id = await mql(routed, new_lead, day), uuid7()
    await told(routed, breach(about, "ann", clock_id), met(about, "ann", clock_id))
    assert await owner_of(routed, about.lead_id) == "ann"


async def test_while_nobody_else_is_there_the_owner_keeps_the_lead_and_it_waits(routed, new_lead, day, auth):
    alone = changed(people={"bob": NOBODY, "cho": NOBODY})
    await put(routed, auth, alone, etag='"1"')
    about, clock_id = await mql(routed, new_lead, day), uuid7()
    broken = breach(about, "ann", clock_id)
    await told(routed, broken)
    await told(routed, broken)
    assert [event.owner for event in await assigned(routed, about.lead_id)] == ["ann"]
    await put(routed, auth, etag='"2"')
    await assign_waiting(routed)
    assert [event.owner for event in await assigned(routed, about.lead_id)] == ["ann", "bob"]
    assert (await history(routed, auth, about.lead_id))[-1]["clause"] == "first-touch"


async def test_a_late_answer_ends_the_wait_for_somebody_else(routed, new_lead, day, auth):
    await put(routed, auth, changed(people={"bob": NOBODY, "cho": NOBODY}), etag='"1"')
    about, clock_id = await mql(routed, new_lead, day), uuid7()
    await told(routed, breach(about, "ann", clock_id))
    await told(routed, met(about, "ann", clock_id))
    await put(routed, auth, etag='"2"')
    await assign_waiting(routed)
    assert await owner_of(routed, about.lead_id) == "ann"


# --- What it asks of the database ---


OWNED_LEADS = """
INSERT INTO lead (lead_id, intake_sequence, visits, deal, erased, sequence, revision, changed_at, stage, stage_since, owner)
SELECT gen_random_uuid(), 1, '{}', '{}', false, 0, 1, now(), CASE WHEN n % 97 = 0 THEN 'mql' ELSE 'won' END, now(), 'owner ' || n % 10
FROM generate_series(1, 20000) AS n
"""


async def test_counting_open_leads_looks_at_no_other_lead(routed):
    plan = await plan_among_many(
        routed.database,
        "lead",
        OWNED_LEADS,
        "SELECT count(*) FROM lead WHERE owner = 'owner 1' AND stage = ANY (ARRAY['mql', 'sal'])",
    )
    assert "Index Cond: ((owner = 'owner 1'::text) AND (stage = ANY" in plan
    assert "Filter" not in plan


# --- The log ---


async def test_a_fold_of_the_log_gives_the_owner_whatever_has_happened(routed, new_lead, day, auth):
    first, second, third = [await mql(routed, new_lead, day) for _ in range(3)]
    await give(routed, auth, second.lead_id, "boss")
    await told(routed, breach(first, "ann"))
    late = {"decision": "reject", "reason": "no-timing", "occurred_at": day(2).isoformat()}
    await routed.http.post(f"/v1/leads/{third.lead_id}/decisions", json=late, headers=auth("sales"))
    await routed.apply_events(third.did("demo.requested", day(40)), first.did("email.clicked", day(0.5)))
    await routed.apply_events(third.updated(day(0.2), employee_count=300), second.did("email.clicked", day(-1)))
    plain = new_lead()
    await routed.apply_events(
        plain.captured(day(0), employee_count=10), plain.merged(second.lead_id, day(50), employee_count=10)
    )
    for about, owner in ((first, "bob"), (plain, "boss"), (third, "ann")):
        assert await owner_of(routed, about.lead_id) == owner
        assert await folded_owner(routed, about.lead_id) == owner


async def folded_owner(stack, lead_id: UUID) -> str | None:
    known = await DefinitionVersionCache(stack.store).get_versions()
    async with stack.database.write_transaction() as unit_of_work:
        loaded = await logs.load(await unit_of_work.connection(), [lead_id], {}, known.kinds)
    return fold(lead_id, loaded.logs, known.versions).lead.owner


async def test_document_with_a_pattern_from_before_re2_goes_on_and_is_reported(stack, content, auth):
    await stack.activate(content)
    rule = {"key": "ann", "when": {"path": "source", "op": "matches", "value": "^web"}, "pool": "desk"}
    assert (await put(stack, auth, changed(rules=[rule, *ROUTING["rules"]]))).status_code == 201
    written = "UPDATE routing SET content = jsonb_set(content, '{rules,0,when,value}', $1::jsonb)"
    async with stack.database.write_transaction() as unit_of_work:
        await (await unit_of_work.connection()).execute(written, '"[a-w&&[^q]]eb"')
    routing_cache = RoutingVersionCache(stack.database)
    routing = await routing_cache.in_force()
    (first, *_) = routing.rules
    assert [first.when.holds(GivenFacts({"source": source})) for source in ("website", "fair")] == [True, False]
    (outdated,) = await routing_cache.find_outdated()
    assert (outdated.kind, outdated.version, outdated.findings[0].pointer) == ("routing", 1, "/rules/0/when/value")
