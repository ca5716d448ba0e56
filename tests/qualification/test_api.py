"""The HTTP edge: leads explained, decisions one by one and in batches, lists and bad input."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from uuid_utils.compat import uuid7

from accord.contracts.external_key import external_key
from accord.contracts.qualification_events import LeadDecided, OpportunityUpdated

BANT = {"budget": True, "authority": "director", "need": True, "timing": "q3"}
AMOUNT = {"amount": "1200.50", "currency": "USD"}


@pytest.fixture
async def mql(stack, content, new_lead, day):
    """A lead that waits for sales, named by the CRM as 4711."""
    await stack.activate(content)
    about = new_lead()
    about.external_keys = [external_key("crm", "4711")]
    await stack.apply_events(about.captured(day(0), employee_count=250), about.did("demo.requested", day(1)))
    return about


async def decide(stack, auth, lead: Any, body: dict[str, Any], key: str = "sales", **headers: str) -> Any:
    return await stack.http.post(f"/v1/leads/{lead}/decisions", json=body, headers=auth(key) | headers)


async def test_a_lead_is_answered_with_its_gates_and_scores_explained(stack, mql, auth):
    answer = await stack.http.get(f"/v1/leads/{mql.lead_id}", headers=auth("reader"))
    assert answer.status_code == 200, answer.text
    lead = answer.json()
    assert (lead["lead_id"], lead["stage"], lead["visit"], lead["owner"]) == (str(mql.lead_id), "mql", 1, None)
    assert lead["stage_since"] == "2024-01-09T15:30:00Z"
    assert lead["allowed_decisions"] == ["accept", "disqualify", "recycle", "reject"]
    assert (lead["fit"], lead["definition_version"]) == (40.0, 1)
    (gate,) = lead["gates"]
    assert gate["stage"] == "mql"
    assert gate["why"][0] == {
        "path": "attributes.employee_count",
        "op": "gte",
        "expected": 50,
        "actual": 250,
        "held": True,
        "within": None,
        "at": "/all/0",
    }
    assert [line["rule"] for line in lead["score"]] == ["size", "vertical", "demo", "click"]
    assert lead["score"][0]["points"] == 40
    assert answer.headers["etag"] == '"1"'


async def test_a_lead_is_found_by_the_id_that_a_source_gave_it(stack, mql, auth):
    answer = await stack.http.get("/v1/leads/external:crm:4711", headers=auth("reader"))
    assert answer.json()["lead_id"] == str(mql.lead_id)
    assert (await stack.http.get("/v1/leads/external:crm:4712", headers=auth("reader"))).status_code == 404


async def test_a_merged_lead_is_answered_by_its_survivor(stack, mql, new_lead, auth, day):
    other = new_lead()
    await stack.apply_events(other.captured(day(0)))
    await stack.apply_events(mql.merged(other.lead_id, day(2), employee_count=250))
    answer = await stack.http.get(f"/v1/leads/{other.lead_id}", headers=auth("reader"))
    assert answer.json()["lead_id"] == str(mql.lead_id)


async def test_a_name_that_no_lead_can_have_is_unfit(stack, auth):
    for name in ("nonsense", "external:crm", "external::1", "0198c0de"):
        answer = await stack.http.get(f"/v1/leads/{name}", headers=auth("reader"))
        assert answer.status_code == 422, name
        assert answer.json()["errors"][0]["parameter"] == "lead", name


async def test_a_decision_is_answered_with_where_it_led(stack, mql, auth):
    answer = await decide(stack, auth, mql.lead_id, {"decision": "accept", "occurred_at": "2024-01-09T12:00:00-06:00"})
    assert answer.status_code == 201, answer.text
    body = answer.json()
    assert (body["stage"], body["from"], body["stage_now"], body["visit"]) == ("sal", "mql", "sal", 1)
    assert body["occurred_at"] == "2024-01-09T18:00:00Z"
    assert body["allowed_decisions"] == ["disqualify", "lose", "qualify", "recycle", "reject"]
    assert answer.headers["etag"] == '"2"'
    taken = next(event for event in await stack.published(mql.lead_id) if isinstance(event, LeadDecided))
    assert (taken.actor, taken.department, str(taken.decision_id)) == ("sales", "sales", body["decision_id"])


async def test_any_key_that_may_decide_decides_and_its_department_is_recorded(stack, mql, auth):
    assert (await decide(stack, auth, mql.lead_id, {"decision": "accept"}, key="marketing")).status_code == 201
    rows = await stack.rows("SELECT actor, department FROM decision")
    assert [(row.actor, row.department) for row in rows] == [("marketing", "marketing")]
    assert (await decide(stack, auth, mql.lead_id, {"decision": "accept"}, key="reader")).status_code == 403


async def test_a_decision_that_is_not_allowed_says_what_is(stack, mql, auth):
    answer = await decide(stack, auth, mql.lead_id, {"decision": "win", "fields": {"amount": AMOUNT}})
    assert answer.status_code == 409
    assert answer.json()["allowed_decisions"] == ["accept", "disqualify", "recycle", "reject"]
    assert answer.json()["stage"] == "mql"


BAD_INPUT: list[tuple[dict[str, Any], str]] = [
    ({"decision": "reject"}, "/reason"),
    ({"decision": "reject", "reason": "weather"}, "/reason"),
    ({"decision": "accept", "reason": "price"}, "/reason"),
    ({"decision": "applaud"}, "/decision"),
    ({"decision": "accept", "mood": "good"}, "/mood"),
    ({"decision": "accept", "fields": {"colour": "red"}}, "/fields/colour"),
    ({"decision": "accept", "fields": {"budget": "as much as we like, says Ann"}}, "/fields/budget"),
    ({"decision": "accept", "fields": {"amount": {"amount": 12.5, "currency": "USD"}}}, "/fields/amount/amount"),
    ({"decision": "accept", "fields": {"amount": {"amount": "-1", "currency": "USD"}}}, "/fields/amount/amount"),
    ({"decision": "accept", "fields": {"amount": {"amount": "1", "currency": "usd"}}}, "/fields/amount/currency"),
    ({"decision": "accept", "fields": {"expected_close": "soon"}}, "/fields/expected_close"),
    ({"decision": "accept", "fields": {"expected_close": 1800000000}}, "/fields/expected_close"),
    ({"decision": "accept", "occurred_at": "2027-01-05T12:00:00"}, "/occurred_at"),
    ({"decision": "accept", "occurred_at": "0001-01-01T00:00:00Z"}, "/occurred_at"),
    ({"decision": "accept", "occurred_at": "0001-01-01T00:00:00+14:00"}, "/occurred_at"),
    ({"decision": "accept", "occurred_at": "9999-12-31T23:59:59.999999Z"}, "/occurred_at"),
    ({"decision": "accept", "fields": {"expected_close": "9999-12-31"}}, "/fields/expected_close"),
    ({"decision": "accept", "note": "x" * 2001}, "/note"),
    ({"decision": 7}, "/decision"),
    ({}, "/decision"),
]


async def test_bad_input_is_answered_with_its_place_and_changes_nothing(stack, mql, auth):
    found, expected = {}, {}
    for body, pointer in BAD_INPUT:
        answer = await decide(stack, auth, mql.lead_id, body)
        named = [error["pointer"] for error in answer.json().get("errors", [])]
        found[str(body)] = (answer.status_code, answer.headers["content-type"], pointer in named or named)
        expected[str(body)] = (422, "application/problem+json", True)
    assert found == expected
    assert await stack.rows("SELECT 1 FROM decision") == []


async def test_a_decision_from_the_future_is_refused(stack, mql, auth):
    later = (datetime.now(UTC) + timedelta(minutes=6)).isoformat()
    answer = await decide(stack, auth, mql.lead_id, {"decision": "accept", "occurred_at": later})
    assert answer.json()["errors"][0]["pointer"] == "/occurred_at"


async def test_fields_are_kept_and_a_deal_is_told(stack, mql, auth):
    for body in (
        {"decision": "accept"},
        {"decision": "qualify", "fields": BANT},
        {"decision": "open_opportunity", "fields": {"amount": AMOUNT, "expected_close": "2027-03-31"}},
        {"decision": "win", "fields": {"amount": {"amount": "1300", "currency": "USD"}}},
    ):
        assert (await decide(stack, auth, mql.lead_id, body)).status_code == 201, body
    deals = [event for event in await stack.published(mql.lead_id) if isinstance(event, OpportunityUpdated)]
    assert [(event.stage, str(event.amount.amount)) for event in deals] == [("opportunity", "1200.50"), ("won", "1300")]
    lead = (await stack.http.get(f"/v1/leads/{mql.lead_id}", headers=auth("reader"))).json()
    assert (lead["amount"], lead["expected_close"]) == ({"amount": "1300", "currency": "USD"}, "2027-03-31")


async def test_if_match_lets_only_the_state_that_was_read_be_decided(stack, mql, auth):
    stale = await decide(stack, auth, mql.lead_id, {"decision": "accept"}, **{"If-Match": '"7"'})
    assert (stale.status_code, stale.headers["etag"]) == (412, '"1"')
    assert (await decide(stack, auth, mql.lead_id, {"decision": "accept"}, **{"If-Match": "7"})).status_code == 400
    assert (await decide(stack, auth, mql.lead_id, {"decision": "accept"}, **{"If-Match": '"1"'})).status_code == 201


async def test_of_two_decisions_at_once_one_wins_and_the_other_is_told_the_new_state(stack, mql, auth):
    answers = await asyncio.gather(*[decide(stack, auth, mql.lead_id, {"decision": "accept"}) for _ in range(4)])
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]
    loser = next(answer for answer in answers if answer.status_code == 409).json()
    assert loser["stage"] == "sal"
    assert "qualify" in loser["allowed_decisions"]
    assert len(await stack.rows("SELECT 1 FROM decision")) == 1


async def test_a_repeated_key_gets_the_first_answer_again(stack, mql, auth):
    first = await decide(stack, auth, mql.lead_id, {"decision": "accept"}, **{"Idempotency-Key": "k1"})
    again = await decide(stack, auth, mql.lead_id, {"decision": "accept"}, **{"Idempotency-Key": "k1"})
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    other = await decide(stack, auth, mql.lead_id, {"decision": "lose", "reason": "price"}, **{"Idempotency-Key": "k1"})
    assert other.status_code == 422
    assert len(await stack.rows("SELECT 1 FROM decision")) == 1


async def test_a_refused_decision_leaves_its_key_free(stack, mql, auth):
    refused = await decide(stack, auth, mql.lead_id, {"decision": "win"}, **{"Idempotency-Key": "k2"})
    assert refused.status_code == 409
    assert (
        await decide(stack, auth, mql.lead_id, {"decision": "accept"}, **{"Idempotency-Key": "k2"})
    ).status_code == 201


async def test_history_is_a_chain_and_notes_are_for_those_who_may_read_them(stack, mql, auth, day):
    accept = {"decision": "accept", "note": "Call after lunch.", "occurred_at": day(5).isoformat()}
    await decide(stack, auth, mql.lead_id, accept)
    await decide(stack, auth, mql.lead_id, {"decision": "lose", "reason": "price", "occurred_at": day(9).isoformat()})
    path = f"/v1/leads/{mql.lead_id}/history"
    items = (await stack.http.get(path, headers=auth("reader"))).json()["items"]
    assert [(item["from"], item["stage"]) for item in items] == [
        (None, "inquiry"),
        ("inquiry", "mql"),
        ("mql", "sal"),
        ("sal", "lost"),
    ]
    assert (items[3]["entered_at"], items[3]["reason"]) == ("2024-01-17T15:30:00Z", "price")
    assert (items[2]["note"], items[2]["actor"], items[2]["department"]) == (None, "sales", "sales")
    items = (await stack.http.get(path, headers=auth("personal"))).json()["items"]
    assert items[2]["note"] == "Call after lunch."
    assert all(b"lunch" not in row.payload for row in await stack.rows("SELECT payload FROM outbox"))


async def test_history_comes_in_pages(stack, mql, auth):
    await decide(stack, auth, mql.lead_id, {"decision": "accept"})
    path, seen, cursor = f"/v1/leads/{mql.lead_id}/history", [], ""
    for _ in range(3):
        page = (await stack.http.get(f"{path}?limit=1{cursor}", headers=auth("reader"))).json()
        seen += [item["stage"] for item in page["items"]]
        cursor = f"&cursor={page['next_cursor']}"
    assert seen == ["inquiry", "mql", "sal"]
    assert page["next_cursor"] is None


async def test_a_batch_is_answered_row_by_row_and_a_bad_row_spoils_nothing(stack, mql, new_lead, auth, day):
    other = new_lead()
    await stack.apply_events(other.captured(day(0)))
    rows = [
        {"lead": "external:crm:4711", "decision": "accept"},
        {"lead": str(mql.lead_id), "decision": "qualify", "fields": BANT, "occurred_at": day(3).isoformat()},
        {"lead": str(other.lead_id), "decision": "accept"},
        {"lead": str(uuid7()), "decision": "accept"},
        {"lead": "external:crm:nobody", "decision": "accept"},
        {"lead": "nobody", "decision": "accept"},
        {"lead": str(other.lead_id), "decision": "disqualify"},
        {"lead": str(other.lead_id), "decision": "disqualify", "reason": "not-a-fit"},
        17,
        {"lead": str(mql.lead_id), "decision": "accept", "occurred_at": "0001-01-01T00:00:00Z"},
    ]
    answer = await stack.http.post("/v1/decisions:batch", json=rows, headers=auth("sales"))
    assert answer.status_code == 200, answer.text
    results = answer.json()["results"]
    assert [result["status"] for result in results] == [201, 201, 409, 404, 404, 422, 422, 201, 422, 422]
    assert (results[0]["stage"], results[1]["stage"], results[1]["from"]) == ("sal", "sql", "sal")
    assert results[2]["problem"]["allowed_decisions"] == ["disqualify"]
    assert results[5]["problem"]["errors"][0]["pointer"] == "/5/lead"
    assert results[6]["problem"]["errors"][0]["pointer"] == "/6/reason"
    assert results[9]["problem"]["errors"][0]["pointer"] == "/9/occurred_at"
    assert len(await stack.rows("SELECT 1 FROM decision")) == 3


async def test_a_batch_that_is_no_list_of_at_most_a_thousand_is_refused(stack, auth):
    headers = auth("sales") | {"Content-Type": "application/json"}
    expected = {b"[": 400, b"{}": 422, b"[]": 422, b"[" + b"1," * 1000 + b"1]": 422, b"null": 422}
    found = {}
    for body in expected:
        answer = await stack.http.post("/v1/decisions:batch", content=body, headers=headers)
        found[body] = answer.status_code
    assert found == expected


async def test_leads_are_listed_by_stage_grade_and_since(stack, mql, new_lead, auth, day):
    tellers = [new_lead() for _ in range(5)]
    await stack.apply_events(*[about.captured(day(2)) for about in tellers])

    async def ids(query: str) -> list[str]:
        answer = await stack.http.get(f"/v1/leads?{query}", headers=auth("reader"))
        assert answer.status_code == 200, answer.text
        return [item["lead_id"] for item in answer.json()["items"]]

    assert await ids("stage=mql") == [str(mql.lead_id)]
    assert len(await ids("")) == 6
    assert len(await ids("since=2024-01-10T00:00:00Z")) == 5
    assert await ids("grade=C3") == [str(mql.lead_id)]
    assert await ids("owner=ann") == []
    first = (await stack.http.get("/v1/leads?stage=inquiry&limit=3", headers=auth("reader"))).json()
    rest = (
        await stack.http.get(f"/v1/leads?stage=inquiry&limit=3&cursor={first['next_cursor']}", headers=auth("reader"))
    ).json()
    seen = [item["lead_id"] for item in first["items"] + rest["items"]]
    assert seen == sorted(str(about.lead_id) for about in tellers)
    assert (await stack.http.get("/v1/leads?cursor=abc", headers=auth("reader"))).status_code == 422


async def test_without_a_definition_nothing_can_be_decided(stack, new_lead, auth, day):
    about = new_lead()
    await stack.apply_events(about.captured(day(0), employee_count=250))
    lead = (await stack.http.get(f"/v1/leads/{about.lead_id}", headers=auth("reader"))).json()
    assert (lead["stage"], lead["definition_version"], lead["allowed_decisions"], lead["gates"]) == (None, None, [], [])
    answer = await decide(stack, auth, about.lead_id, {"decision": "accept"})
    assert (answer.status_code, answer.json()["allowed_decisions"]) == (409, [])


async def test_a_definition_with_findings_is_refused_with_pointers(stack, content, auth):
    content["stages"][1]["from"] = ["nowhere"]
    content["stages"][6]["gate"]["reasons"] = "nothing"
    answer = await stack.http.post("/v1/definition/versions", json=content, headers=auth("marketing"))
    assert answer.status_code == 422
    pointers = [error["pointer"] for error in answer.json()["errors"]]
    assert "/stages/1/from/0" in pointers
    assert "/stages/6/gate/reasons" in pointers


async def test_a_definition_can_be_read_on_paper(stack, content, auth):
    await stack.activate(content)
    headers = auth("marketing") | {"Accept": "text/markdown"}
    answer = await stack.http.get("/v1/definition/versions/1/paper", headers=headers)
    assert answer.status_code == 200
    assert (
        "A lead becomes MQL when the company has 50 employees or more and the engagement score is 20 or more"
        in answer.text
    )


async def test_openapi_names_every_route_and_scope(stack):
    document = (await stack.http.get("/openapi.json")).json()
    for path in ("/v1/leads", "/v1/leads/{lead}", "/v1/leads/{lead}/history", "/v1/leads/{lead}/decisions"):
        assert path in document["paths"]
    assert document["paths"]["/v1/decisions:batch"]["post"]["x-scope"] == "decisions:write"
    assert "requestBody" in document["paths"]["/v1/decisions:batch"]["post"]


async def test_nothing_is_answered_without_a_key(stack):
    for path in ("/v1/leads", "/v1/leads/external:crm:1", "/v1/leads/external:crm:1/history"):
        assert (await stack.http.get(path)).status_code == 401, path


async def test_a_commit_that_fails_is_answered_with_an_error(stack, mql, auth):
    async with stack.database.write_transaction() as unit_of_work:
        await unit_of_work.conn.exec_driver_sql(
            "CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$"
        )
        await unit_of_work.conn.exec_driver_sql(
            "CREATE CONSTRAINT TRIGGER broken AFTER INSERT ON decision DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION broken()"
        )
    answer = await decide(stack, auth, mql.lead_id, {"decision": "accept"})
    assert answer.status_code == 500
    lead = (await stack.http.get(f"/v1/leads/{mql.lead_id}", headers=auth("reader"))).json()
    assert lead["stage"] == "mql"


async def test_a_lead_is_shown_as_it_was_at_a_past_moment(stack, mql, auth, day):
    await decide(stack, auth, mql.lead_id, {"decision": "accept", "occurred_at": day(5).isoformat()})
    path = f"/v1/leads/{mql.lead_id}"

    async def at(moment):
        return await stack.http.get(path, params={"at": moment.isoformat()}, headers=auth("reader"))

    before, between, after = (await at(day(0.5))).json(), (await at(day(3))).json(), (await at(day(6))).json()
    assert [view["stage"] for view in (before, between, after)] == ["inquiry", "mql", "sal"]
    assert (before["engagement"], before["gates"][0]["holds"]) == (0.0, False)
    assert before["gates"][0]["why"][1]["actual"] == 0.0
    assert between["engagement"] == pytest.approx(40 * 2 ** (-2 / 30), abs=0.005)
    assert between["allowed_decisions"] == ["accept", "disqualify", "recycle", "reject"]
    assert after["stage_since"] == "2024-01-13T15:30:00Z"
    assert (await at(day(-1))).status_code == 404
    assert (await at(day(100_000))).status_code == 422


async def test_history_shows_what_was_corrected_and_what_stands(stack, mql, auth, day):
    await decide(stack, auth, mql.lead_id, {"decision": "accept", "occurred_at": day(5).isoformat()})
    late = {"decision": "recycle", "reason": "no-timing", "occurred_at": day(3).isoformat()}
    assert (await decide(stack, auth, mql.lead_id, late)).status_code == 201
    path = f"/v1/leads/{mql.lead_id}/history"
    items = (await stack.http.get(path, headers=auth("reader"))).json()["items"]
    assert [(item["stage"], item["position"], item["correction"]) for item in items] == [
        ("inquiry", 0, False),
        ("mql", 1, False),
        ("sal", None, False),
        ("recycled", 2, True),
        ("sal", 3, True),
    ]
    assert items[4]["replaces"] == items[2]["sequence"]


async def test_a_decision_under_another_version_is_409_with_how_the_lead_stands(stack, mql, auth):
    refused = await decide(stack, auth, mql.lead_id, {"decision": "accept", "definition_version": 7})
    problem = refused.json()
    assert (refused.status_code, problem["type"]) == (409, "/problems/definition-changed")
    assert (problem["definition_version"], problem["stage"]) == (1, "mql")
    assert "accept" in problem["allowed_decisions"]
    assert (await decide(stack, auth, mql.lead_id, {"decision": "accept", "definition_version": 1})).status_code == 201


async def test_a_decision_on_a_merged_lead_is_about_its_survivor_and_says_so(stack, mql, new_lead, auth, day):
    other = new_lead()
    await stack.apply_events(other.captured(day(0)), mql.merged(other.lead_id, day(2), employee_count=250))
    answer = await decide(stack, auth, other.lead_id, {"decision": "accept"})
    assert answer.status_code == 201
    assert (answer.json()["lead_id"], answer.json()["merged_lead_id"]) == (str(mql.lead_id), str(other.lead_id))
    past = await stack.http.get(f"/v1/leads/{other.lead_id}", params={"at": day(1).isoformat()}, headers=auth("reader"))
    assert (past.json()["lead_id"], past.json()["stage"]) == (str(other.lead_id), "inquiry")


async def test_amounts_are_in_one_currency(stack, content, new_lead, auth, day):
    content["currency"] = "EUR"
    content["stages"][2]["gate"] = {"decision": "accept", "fields": ["amount"]}
    await stack.activate(content)
    about = new_lead()
    await stack.apply_events(about.captured(day(0), employee_count=250), about.did("demo.requested", day(1)))
    amount = {"amount": "5", "currency": "USD"}
    refused = await decide(stack, auth, about.lead_id, {"decision": "accept", "fields": {"amount": amount}})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == "/fields/amount/currency"
    amount["currency"] = "EUR"
    assert (
        await decide(stack, auth, about.lead_id, {"decision": "accept", "fields": {"amount": amount}})
    ).status_code == 201


async def test_a_gate_says_what_keeps_a_lead_from_passing_it(stack, mql, auth):
    await decide(stack, auth, mql.lead_id, {"decision": "reject", "reason": "no-timing"})
    view = (await stack.http.get(f"/v1/leads/{mql.lead_id}", headers=auth("reader"))).json()
    assert view["stage"] == "recycled"
    assert view["gates"][0]["blocked_reason"].startswith("it comes back only on an activity of its own from ")
