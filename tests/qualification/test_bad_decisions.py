"""What must not be decided is refused over HTTP, with its place, one by one and as a row of a batch, and nothing is written."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from uuid_utils.compat import uuid7

from qualification.lifecycle.domain.decisions import NotAllowed
from qualification.lifecycle.domain.facts import Fields
from qualification.lifecycle.service.decisions import Author, Proposal
from qualification.lifecycle.service.decisions import decide as take

ACCEPT = {"decision": "accept"}
REJECT = {"decision": "reject", "reason": "no-timing"}


@pytest.fixture
async def mql(stack, content, new_lead, day):
    """A lead that waits for sales."""
    content["currency"] = "USD"
    await stack.activate(content)
    about = new_lead()
    await stack.apply_events(about.captured(day(0), employee_count=250), about.did("demo.requested", day(1)))
    return about


async def decide(stack: Any, auth: Any, lead: object, body: dict[str, Any], key: str = "sales", **headers: str) -> Any:
    return await stack.http.post(f"/v1/leads/{lead}/decisions", json=body, headers=auth(key) | headers)


async def as_row(stack: Any, auth: Any, lead: object, body: dict[str, Any]) -> dict[str, Any]:
    answer = await stack.http.post("/v1/decisions:batch", json=[{"lead": str(lead), **body}], headers=auth("sales"))
    assert answer.status_code == 200, answer.text
    return answer.json()["results"][0]


async def refused(stack: Any, auth: Any, lead: object, body: dict[str, Any], status: int) -> dict[str, Any]:
    """The problem, which is the same singly and in a batch but for the row in its pointers; nothing was written."""
    before = await counts(stack)
    answer, row = await decide(stack, auth, lead, body), await as_row(stack, auth, lead, body)
    assert (answer.status_code, row["status"]) == (status, status), answer.text
    problem = answer.json()
    assert row["problem"]["type"] == problem["type"]
    assert [error["pointer"] for error in row["problem"].get("errors", [])] == [
        f"/0{error['pointer']}" for error in problem.get("errors", [])
    ]
    assert await counts(stack) == before
    return problem


async def counts(stack: Any) -> list[Any]:
    tables = ("decision", "decision_note", "stage_entry", "outbox")
    return [(await stack.rows(f"SELECT count(*) FROM {table}"))[0][0] for table in tables]


def places(problem: dict[str, Any]) -> list[str]:
    return [error["pointer"] for error in problem["errors"]]


async def test_an_unknown_lead_and_one_that_has_not_entered_are_404(stack, mql, new_lead, auth, day):
    await refused(stack, auth, uuid7(), ACCEPT, 404)
    await refused(stack, auth, "external:crm:nobody", ACCEPT, 404)
    heard_of = new_lead()
    await stack.apply_events(heard_of.did("email.clicked", day(1)))
    await refused(stack, auth, heard_of.lead_id, ACCEPT, 404)


async def test_an_erased_lead_is_410_also_by_an_id_that_was_merged_into_it(stack, mql, new_lead, auth, day):
    other = new_lead()
    await stack.apply_events(other.captured(day(0)), mql.merged(other.lead_id, day(2), employee_count=250))
    await stack.apply_events(mql.erased(day(3)))
    for lead_id in (mql.lead_id, other.lead_id):
        await refused(stack, auth, lead_id, {**ACCEPT, "note": "Too late."}, 410)


async def test_a_merged_lead_s_decision_is_the_survivor_s_and_says_so(stack, mql, new_lead, auth, day):
    other = new_lead()
    await stack.apply_events(other.captured(day(0)), mql.merged(other.lead_id, day(2), employee_count=250))
    row = await as_row(stack, auth, other.lead_id, ACCEPT)
    assert (row["status"], row["lead_id"], row["merged_lead_id"]) == (201, str(mql.lead_id), str(other.lead_id))
    problem = await refused(stack, auth, other.lead_id, ACCEPT, 409)
    assert (problem["stage"], "qualify" in problem["allowed_decisions"]) == ("sal", True)


async def test_a_reason_that_is_not_agreed_is_422_with_those_that_are(stack, mql, auth):
    for reason in ("weather", "price", "Not now"):  # price is agreed, but for losing
        body = {"decision": "reject", "reason": reason}
        if " " in reason:
            assert (await decide(stack, auth, mql.lead_id, body)).status_code == 422
            continue
        problem = await refused(stack, auth, mql.lead_id, body, 422)
        assert places(problem) == ["/reason"]
        assert "no-budget, no-timing, too-early" in problem["errors"][0]["message"]


async def test_an_amount_in_another_currency_is_422_with_the_one_that_is_agreed(stack, mql, auth):
    for currency, pointer in (("EUR", "/fields/amount/currency"), ("usd", "/fields/amount/currency")):
        amount = {"amount": "5", "currency": currency}
        problem = await refused(stack, auth, mql.lead_id, {**ACCEPT, "fields": {"amount": amount}}, 422)
        assert places(problem) == [pointer]


async def test_a_moment_in_the_future_is_422(stack, mql, auth):
    later = (datetime.now(UTC) + timedelta(minutes=6)).isoformat()
    problem = await refused(stack, auth, mql.lead_id, {**ACCEPT, "occurred_at": later}, 422)
    assert places(problem) == ["/occurred_at"]


async def test_a_moment_before_the_lead_is_422_singly_and_a_crm_s_own_date_in_a_batch(stack, mql, auth, day):
    body = {**ACCEPT, "occurred_at": day(-3).isoformat()}
    before = await counts(stack)
    answer = await decide(stack, auth, mql.lead_id, body)
    assert (answer.status_code, places(answer.json())) == (422, ["/occurred_at"])
    assert await counts(stack) == before
    row = await as_row(stack, auth, mql.lead_id, body)  # taken as the newest, dated as it is
    assert (row["status"], row["stage"], row["occurred_at"]) == (201, "sal", "2024-01-05T15:30:00Z")


@pytest.mark.parametrize(
    ("bodies", "headers", "status"),
    [((ACCEPT, ACCEPT), {}, 409), ((ACCEPT, REJECT), {"If-Match": '"1"'}, 412)],
)
async def test_of_two_people_who_decide_at_once_one_wins_and_the_other_reads_where_the_lead_stands(
    stack, mql, auth, bodies, headers, status
):
    """Both transactions wait for the lead's lock, which a third holds, so neither has read the other's outcome before. Who minds that
    the lead has changed at all, also where the other decision is allowed after the first, says so by If-Match."""
    async with stack.database.write_transaction() as unit_of_work:
        await (await unit_of_work.connection()).execute("SELECT 1 FROM lead WHERE lead_id = $1 FOR UPDATE", mql.lead_id)
        both = [
            asyncio.create_task(decide(stack, auth, mql.lead_id, body, key, **headers))
            for body, key in zip(bodies, ("sales", "marketing"), strict=True)
        ]
        await asyncio.create_task(both_wait(stack))
    one, other = await asyncio.gather(*both)
    assert sorted((one.status_code, other.status_code)) == [201, status]
    winner, loser = (one.json(), other.json()) if one.status_code == 201 else (other.json(), one.json())
    assert (loser["stage"], loser["allowed_decisions"]) == (winner["stage"], winner["allowed_decisions"])
    assert loser["stage"] == {"accept": "sal", "reject": "recycled"}[winner["decision"]]
    assert len(await stack.rows("SELECT 1 FROM decision")) == 1


async def test_who_began_first_and_waited_decides_about_the_lead_as_it_became(stack, mql, auth):
    routing_cache = await stack.open_context()
    accept = Proposal(lead=mql.lead_id, decision="accept", reason=None, fields=Fields(), note=None, occurred_at=None)
    async with stack.database.write_transaction() as began_first:
        assert (await asyncio.create_task(decide(stack, auth, mql.lead_id, ACCEPT))).status_code == 201
        (refusal,) = await take(began_first, [accept], routing_cache, Author("slow", "sales"))
    assert isinstance(refusal, NotAllowed)
    assert refusal.stage == "sal"


async def both_wait(stack: Any) -> None:
    async with asyncio.timeout(30):
        while True:
            if (await stack.rows("SELECT count(*) FROM pg_locks WHERE NOT granted"))[0][0] >= 2:
                return
            await asyncio.sleep(0.01)


async def test_a_definition_that_changed_between_read_and_decision_is_409_with_the_new_one(stack, mql, content, auth):
    read = (await stack.http.get(f"/v1/leads/{mql.lead_id}", headers=auth("reader"))).json()
    body = {"decision": "accept", "definition_version": read["definition_version"]}
    content["currency"] = "USD"
    content["stages"][2]["gate"] = {"decision": "accept", "fields": ["need"]}
    await stack.activate(content)
    problem = await refused(stack, auth, mql.lead_id, body, 409)
    assert (problem["type"], problem["definition_version"], problem["stage"]) == (
        "/problems/definition-changed",
        2,
        "mql",
    )
    problem = await refused(
        stack, auth, mql.lead_id, {"decision": "accept"}, 422
    )  # whoever asks for none is judged by the new
    assert places(problem) == ["/fields/need"]
    taken = await decide(stack, auth, mql.lead_id, {**body, "definition_version": 2, "fields": {"need": True}})
    assert (taken.status_code, taken.json()["definition_version"]) == (201, 2)
