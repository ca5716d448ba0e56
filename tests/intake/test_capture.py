"""Submissions become leads: judged, matched, merged, kept, and told to others."""

from __future__ import annotations

from typing import Any

import pytest
from tests.intake.conftest import Running

from intake.capture.service.capture import encode_canonical
from intake.leads.domain.submission import Submission

ADA: dict[str, Any] = {
    "source": "website",
    "external_id": "42",
    "email": "Ada@Initech.example",
    "phone": "+1 202 555 0143",
    "first_name": "Ada",
    "last_name": "Byron",
    "company": "Initech",
    "attributes": {
        "employee_count": 250,
        "industry": "541511",
        "country": "US",
        "line_of_business": "software",
        "dnb_rating": "4A1",
        "bbb_rating": "A+",
    },
    "campaign": {"name": "spring", "medium": "cpc", "landing_page": "/demo?email=ada@initech.example"},
    "occurred_at": "2026-01-04T09:30:00-06:00",
}


def test_canonical_json_equals_pydantic_dump() -> None:
    consent = {"basis": "consent", "given_at": "2026-01-04T09:30:00.123456+05:30", "text": "\u0001 „Jawohl“ \\ 😀"}
    campaign = {"name": "spring", "medium": None, "cost": {"amount": "1E+2", "currency": "USD"}}
    more = {"seats": 1.5, "big": 2**53, "yes": True, "no": None, "list": ["a", "b"]}
    for fields in ({}, {"consent": consent, "campaign": campaign, "title": None}, {"attributes": more}):
        submission = Submission.model_validate(ADA | fields)
        assert encode_canonical(submission) == submission.model_dump_json(exclude_unset=True)


async def test_a_new_person_is_a_new_lead_and_is_published_without_personal_data(accord: Running) -> None:
    answer = await accord.marketing.post("/v1/leads", ADA)
    assert answer.status_code == 201, answer.text
    body = answer.json()
    assert (body["outcome"], body["verdict"]) == ("created", "unchecked")
    assert body["quality"] == {"score": None, "policy_version": None, "failed": []}
    (event,) = await accord.events()
    assert event["type"] == "lead.captured.v1"
    assert (event["key"], event["sequence"]) == (body["lead_id"], 1)
    assert event["occurred_at"] == "2026-01-04T15:30:00Z"
    assert event["state"]["attributes"]["employee_count"] == 250
    assert "ada" not in str(event).lower()


async def test_the_same_person_again_updates_the_lead_and_the_newest_value_wins(accord: Running) -> None:
    first = (await accord.marketing.post("/v1/leads", ADA)).json()
    later = {
        "source": "webinar",
        "email": "ada@initech.example",
        "title": "CTO",
        "attributes": {"employee_count": 300},
        "occurred_at": "2026-02-01T00:00:00Z",
    }
    again = await accord.marketing.post("/v1/leads", later)
    assert again.status_code == 200
    assert (again.json()["lead_id"], again.json()["outcome"]) == (first["lead_id"], "updated")
    older = {**later, "attributes": {"employee_count": 1}, "title": "Clerk", "occurred_at": "2025-01-01T00:00:00Z"}
    await accord.marketing.post("/v1/leads", older)
    lead = (await accord.marketing.get(f"/v1/leads/{first['lead_id']}")).json()
    assert lead["source"] == "website"
    assert lead["attributes"]["employee_count"] == 300
    assert lead["person"]["title"] == "CTO"
    assert [event["sequence"] for event in await accord.events()] == [1, 2]


async def test_two_leads_that_turn_out_to_be_one_person_are_merged_into_the_oldest(accord: Running) -> None:
    by_mail = (await accord.marketing.post("/v1/leads", {"source": "a", "email": "ada@initech.example"})).json()
    by_phone = (await accord.marketing.post("/v1/leads", {"source": "b", "phone": "+12025550143"})).json()
    await accord.marketing.post("/v1/activities", {"lead_id": by_phone["lead_id"], "kind": "page.viewed", "by": "lead"})
    both = {"source": "c", "email": "ada@initech.example", "phone": "+1 (202) 555-0143"}
    answer = await accord.marketing.post("/v1/leads", both)
    assert answer.status_code == 200
    assert (answer.json()["outcome"], answer.json()["lead_id"]) == ("merged", by_mail["lead_id"])
    found = (await accord.marketing.get(f"/v1/leads/{by_phone['lead_id']}")).json()
    assert (found["lead_id"], found["merged"]) == (by_mail["lead_id"], [by_phone["lead_id"]])
    (merged,) = await accord.events("lead.merged.v1")
    assert (merged["key"], merged["merged_lead_id"]) == (by_mail["lead_id"], by_phone["lead_id"])
    (activity,) = await accord.rows("SELECT lead_id::text FROM activity")
    assert activity["lead_id"] == by_mail["lead_id"]
    late = await accord.marketing.post(
        "/v1/activities", {"lead_id": by_phone["lead_id"], "kind": "page.viewed", "by": "lead"}
    )
    assert late.json()["lead_id"] == by_mail["lead_id"]


async def test_two_submissions_of_one_person_in_one_batch_make_one_lead(accord: Running) -> None:
    rows = [{"source": "list", "email": "ada@initech.example", "external_id": str(n)} for n in range(1, 6)]
    results = (await accord.marketing.post("/v1/leads:batch", rows)).json()["results"]
    assert [row["status"] for row in results] == [201, 200, 200, 200, 200]
    assert len({row["lead_id"] for row in results}) == 1


async def test_template_policy_accepts_example_and_stamps_version(accord: Running, template: dict[str, Any]) -> None:
    await accord.sign(template)
    body = (await accord.marketing.post("/v1/leads", ADA)).json()
    assert (body["verdict"], body["quality"]) == ("accepted", {"score": 1.0, "policy_version": 1, "failed": []})


@pytest.mark.parametrize("email", ["x@mailinator.com", "x@host.lan"])
async def test_unreachable_person_is_rejected_with_reason_and_stored(
    accord: Running, template: dict[str, Any], email: str
) -> None:
    await accord.sign(template)
    answer = await accord.marketing.post("/v1/leads", {**ADA, "email": email, "phone": None})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == "/problems/rejected-by-policy"
    assert [one["parameter"] for one in problem["quality"]["failed"]] == ["reachable"]
    assert email not in answer.text
    (kept,) = await accord.rows("SELECT verdict, lead_id FROM submission")
    assert kept == {"verdict": "rejected", "lead_id": None}
    assert [event["type"] for event in await accord.events()][-1] == "lead.rejected.v1"
    assert await accord.rows("SELECT * FROM lead") == []


async def test_quarantined_lead_is_pending_until_an_acceptable_submission(
    accord: Running, template: dict[str, Any]
) -> None:
    await accord.sign(template)
    outside = {**ADA, "attributes": {**ADA["attributes"], "industry": "111110"}}
    pending = await accord.marketing.post("/v1/leads", outside)
    assert pending.status_code == 201
    assert pending.json()["verdict"] == "quarantined"
    lead_id = pending.json()["lead_id"]
    assert (await accord.marketing.get(f"/v1/leads/{lead_id}")).json()["pending"] is True
    assert [event["type"] for event in await accord.events()][-1] == "lead.quarantined.v1"
    entered = await accord.marketing.post("/v1/leads", {**ADA, "occurred_at": "2026-02-01T00:00:00Z"})
    assert (entered.json()["lead_id"], entered.json()["outcome"]) == (lead_id, "updated")
    (captured,) = await accord.events("lead.captured.v1")
    assert captured["sequence"] == 2
    assert captured["occurred_at"] == "2026-01-04T15:30:00Z"


async def test_a_quarantined_record_of_a_known_lead_changes_nothing(accord: Running, template: dict[str, Any]) -> None:
    await accord.sign(template)
    lead_id = (await accord.marketing.post("/v1/leads", ADA)).json()["lead_id"]
    outside = {**ADA, "title": "Farmer", "attributes": {**ADA["attributes"], "industry": "111110"}}
    answer = (await accord.marketing.post("/v1/leads", outside)).json()
    assert (answer["lead_id"], answer["verdict"]) == (lead_id, "quarantined")
    lead = (await accord.marketing.get(f"/v1/leads/{lead_id}")).json()
    assert lead["attributes"]["industry"] == "541511"
    assert lead["person"]["title"] is None


async def test_repeated_idempotency_key_returns_first_answer(accord: Running) -> None:
    key = {"Idempotency-Key": "event-1"}
    first = await accord.marketing.post("/v1/leads", ADA, **key)
    again = await accord.marketing.post("/v1/leads", ADA, **key)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == {**first.json(), "outcome": "replayed"}
    assert again.headers["Idempotency-Replayed"] == "true"
    other = await accord.marketing.post("/v1/leads", {**ADA, "title": "CEO"}, **key)
    assert other.status_code == 422
    assert other.json()["type"] == "/problems/idempotency-key-reused"
    assert len(await accord.rows("SELECT 1 FROM submission")) == 1


async def test_an_activity_of_an_unknown_lead_is_404_and_frees_its_key(accord: Running) -> None:
    activity = {"email": "ada@initech.example", "kind": "email.clicked", "by": "lead"}
    assert (await accord.marketing.post("/v1/activities", activity, **{"Idempotency-Key": "k"})).status_code == 404
    lead_id = (await accord.marketing.post("/v1/leads", ADA)).json()["lead_id"]
    recorded = await accord.marketing.post("/v1/activities", activity, **{"Idempotency-Key": "k"})
    assert (recorded.status_code, recorded.json()["lead_id"]) == (202, lead_id)
    again = await accord.marketing.post("/v1/activities", activity, **{"Idempotency-Key": "k"})
    assert (again.status_code, again.json()["outcome"]) == (200, "replayed")
    (event,) = await accord.events("activity.recorded.v1")
    assert event["sequence"] == 2


async def test_rows_of_a_batch_are_answered_one_by_one(accord: Running) -> None:
    rows: list[Any] = [{"source": "list", "email": "ada@initech.example"}, {"source": "list"}, 7, {**ADA, "shoe": 9}]
    answer = await accord.marketing.post("/v1/leads:batch", rows, **{"Idempotency-Key": "b"})
    results = answer.json()["results"]
    assert [row["status"] for row in results] == [201, 422, 422, 422]
    assert results[3]["problem"]["errors"][0]["pointer"] == "/shoe"
    again = (await accord.marketing.post("/v1/leads:batch", rows, **{"Idempotency-Key": "b"})).json()["results"]
    assert [row["status"] for row in again] == [200, 422, 422, 422]
    assert again[0]["outcome"] == "replayed"
    lines = b'{"source":"list","email":"bob@initech.example"}\n\n{"source":"list"}\nnonsense\n'
    answer = await accord.marketing.http.post(
        "/v1/leads:batch", content=lines, headers={"Content-Type": "application/x-ndjson"}
    )
    assert [row["status"] for row in answer.json()["results"]] == [201, 422, 400]


async def test_personal_fields_are_shown_with_the_scope_only(accord: Running) -> None:
    lead_id = (await accord.marketing.post("/v1/leads", ADA)).json()["lead_id"]
    public = await accord.caller("public").get(f"/v1/leads/{lead_id}")
    assert public.json()["person"] is None
    assert "ada" not in public.text.lower()
    reader = (await accord.caller("reader").get(f"/v1/leads/{lead_id}")).json()
    assert reader["person"]["email"] == "ada@initech.example"
    assert reader["person"]["external"] == [{"source": "website", "id": "42"}]
    assert (await accord.caller("reader").post("/v1/leads", ADA)).status_code == 403


@pytest.mark.parametrize(
    "query", [{"email": "ADA@initech.example"}, {"phone": "+1-202-555-0143"}, {"external": "website:42"}]
)
async def test_a_lead_is_found_by_each_of_its_keys(accord: Running, query: dict[str, str]) -> None:
    lead_id = (await accord.marketing.post("/v1/leads", ADA)).json()["lead_id"]
    assert [one["lead_id"] for one in (await accord.marketing.get("/v1/leads", **query)).json()["items"]] == [lead_id]


async def test_lookups_find_nobody_or_ask_for_one_key(accord: Running) -> None:
    assert (await accord.marketing.get("/v1/leads", email="x@y.example")).json() == {"items": [], "next_cursor": None}
    assert (await accord.marketing.get("/v1/leads")).status_code == 422
    assert (await accord.marketing.get("/v1/leads/019f3b1e-7a52-7c31-9a55-8a4f3c1d2e10")).status_code == 404


UNFIT: list[tuple[dict[str, Any], str]] = [
    ({"source": None}, "/source"),
    ({"source": "a@b"}, "/source"),
    ({"email": 7}, "/email"),
    ({"email": "nobody"}, "/email"),
    ({"email": "x@intranet"}, "/email"),
    ({"email": None, "external_id": None, "phone": "call me"}, "/phone"),
    ({"occurred_at": "yesterday"}, "/occurred_at"),
    ({"occurred_at": "2026-01-04T09:30:00"}, "/occurred_at"),
    ({"occurred_at": "2099-01-04T09:30:00Z"}, "/occurred_at"),
    ({"occurred_at": "0001-01-01T00:00:00Z"}, "/occurred_at"),
    ({"occurred_at": "9999-12-31T23:59:59.999999Z"}, "/occurred_at"),
    ({"attributes": {"a b": 1}}, "/attributes/a b"),
    ({"campaign": {"cost": {"amount": "1", "currency": "usd"}}}, "/campaign/cost/currency"),
    ({"campaign": {"cost": {"amount": "0E-999999999", "currency": "USD"}}}, "/campaign/cost/amount"),
    ({"shoe_size": 44}, "/shoe_size"),
]


async def test_what_does_not_fit_is_named_and_nothing_is_written(accord: Running) -> None:
    found, expected = {}, {}
    for change, pointer in UNFIT:
        answer = await accord.marketing.post("/v1/leads", {**ADA, **change})
        named = {one["pointer"] for one in answer.json().get("errors", [])}
        found[str(change)] = (answer.status_code, pointer in named or named)
        expected[str(change)] = (422, True)
    assert found == expected
    assert await accord.rows("SELECT 1 FROM submission") == []
    assert await accord.events() == []


async def test_malformed_json_wrong_types_and_large_batches_are_refused(accord: Running) -> None:
    http = accord.marketing.http
    json_type = {"Content-Type": "application/json"}
    assert (await http.post("/v1/leads", content=b"{", headers=json_type)).status_code == 400
    assert (await http.post("/v1/leads", content=b'"\\u0000"', headers=json_type)).status_code in (400, 422)
    assert (await http.post("/v1/leads", content=b"a=b", headers={"Content-Type": "text/plain"})).status_code == 415
    assert (await accord.marketing.post("/v1/leads:batch", [])).status_code == 422
    assert (await accord.marketing.post("/v1/leads:batch", {"a": 1})).status_code == 422
    assert (await accord.marketing.post("/v1/leads:batch", [ADA] * 1001)).status_code == 422
    assert await accord.rows("SELECT 1 FROM submission") == []


async def test_activity_tells_whether_a_person_or_a_tool_acted(accord: Running) -> None:
    await accord.marketing.post("/v1/leads", ADA)
    activity = {"email": "ada@initech.example", "kind": "email.sent", "by": "sales"}
    for kind in ("person", "automation", "agent"):
        assert (await accord.marketing.post("/v1/activities", {**activity, "actor_kind": kind})).status_code == 202
    assert (await accord.marketing.post("/v1/activities", activity)).status_code == 202
    assert (await accord.marketing.post("/v1/activities", {**activity, "actor_kind": "robot"})).status_code == 422
    recorded = await accord.events("activity.recorded.v1")
    assert [event.get("actor_kind") for event in recorded] == ["person", "automation", "agent", None]
    kept = await accord.rows("SELECT actor_kind FROM activity ORDER BY activity_id")
    assert [row["actor_kind"] for row in kept] == ["person", "automation", "agent", None]
