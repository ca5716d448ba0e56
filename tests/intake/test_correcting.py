"""A person puts a lead right: values, keys and judgement follow, and nothing that is wrong is written."""

from __future__ import annotations

from typing import Any

import httpx
from tests.intake.conftest import Caller, Running

ADA = {
    "source": "website",
    "email": "ada@initech.example",
    "phone": "+12025550143",
    "external_id": "7",
    "first_name": "Ada",
    "last_name": "Byron",
    "company": "Initech",
    "title": "CTO",
    "occurred_at": "2026-01-01T00:00:00Z",
}
GOOD = {"employee_count": 250, "industry": "541511", "country": "US", "line_of_business": "software"}


async def lead_of(accord: Running, **submission: Any) -> str:
    answer = await accord.marketing.post("/v1/leads", submission or ADA)
    assert answer.status_code in (200, 201), answer.text
    lead_id: str = answer.json()["lead_id"]
    return lead_id


async def patch(caller: Caller, lead_id: str, body: Any, **headers: str) -> httpx.Response:
    return await caller.http.patch(
        f"/v1/leads/{lead_id}",
        json=body,
        headers={
            "Content-Type": "application/merge-patch+json",
            **{k.replace("_", "-"): v for k, v in headers.items()},
        },
    )


async def keys(accord: Running) -> set[str]:
    return {row["value"] for row in await accord.rows("SELECT value FROM identity_key WHERE kind <> 'external'")}


async def test_corrected_value_holds_until_a_later_value(accord: Running) -> None:
    lead = await lead_of(accord)
    answer = await patch(accord.marketing, lead, {"title": "CEO", "attributes": {"size": 60}})
    assert answer.status_code == 200, answer.text
    assert (answer.json()["person"]["title"], answer.json()["attributes"]) == ("CEO", {"size": 60})
    await lead_of(accord, **{**ADA, "title": "CTO", "attributes": {"size": 1}, "occurred_at": "2026-02-01T00:00:00Z"})
    seen = (await accord.marketing.get(f"/v1/leads/{lead}")).json()
    assert (seen["person"]["title"], seen["attributes"]) == ("CEO", {"size": 60})
    await lead_of(accord, **{key: value for key, value in ADA.items() if key != "occurred_at"})
    assert (await accord.marketing.get(f"/v1/leads/{lead}")).json()["person"]["title"] == "CTO"
    updated = await accord.events("lead.updated.v1")
    assert [event["changed"] for event in updated] == [["attributes.size"]]
    kept = await accord.rows("SELECT source, caller, outcome, content FROM submission WHERE source = 'correction'")
    assert len(kept) == 1
    assert (kept[0]["caller"], kept[0]["outcome"]) == ("marketing", "updated")
    assert '"title":"CEO"' in kept[0]["content"].replace(" ", "")


async def test_null_removes_value_and_earlier_values_do_not_restore_it(accord: Running) -> None:
    lead = await lead_of(accord, **ADA, attributes={"size": 60})
    answer = await patch(accord.marketing, lead, {"title": None, "phone": None, "attributes": {"size": None}})
    assert answer.status_code == 200, answer.text
    await lead_of(accord, **{**ADA, "phone": "", "attributes": {"size": 60}, "occurred_at": "2026-02-01T00:00:00Z"})
    seen = (await accord.marketing.get(f"/v1/leads/{lead}")).json()
    assert (seen["person"]["title"], seen["person"]["phone"], seen["attributes"]) == (None, None, {})
    assert await keys(accord) == {"ada@initech.example"}


async def test_keys_follow_a_correction(accord: Running) -> None:
    lead = await lead_of(accord)
    answer = await patch(accord.marketing, lead, {"email": " ADA@Hooli.example ", "phone": "+1 (202) 555-0144"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["person"]["email"] == "ada@hooli.example"
    assert await keys(accord) == {"ada@hooli.example", "+12025550144"}
    assert await lead_of(accord, source="a", email="ada@hooli.example") == lead
    assert await lead_of(accord, source="a", email="ada@initech.example") != lead
    accounts = [
        (await accord.marketing.get("/v1/accounts", domain=domain)).json()["items"]
        for domain in ("hooli.example", "initech.example")
    ]
    assert [found[0]["leads"] for found in accounts] == [1, 1]


async def test_a_key_of_another_lead_is_refused_with_that_lead_and_nothing_is_written(accord: Running) -> None:
    lead = await lead_of(accord)
    other = await lead_of(accord, source="website", email="bob@initech.example")
    answer = await patch(accord.marketing, lead, {"email": "Bob@initech.example", "title": "CEO"})
    assert (answer.status_code, answer.json()["lead_id"]) == (409, other)
    assert answer.json()["errors"] == [{"pointer": "/email", "message": "Belongs to another lead"}]
    seen = (await accord.marketing.get(f"/v1/leads/{lead}")).json()
    assert (seen["person"]["title"], seen["person"]["email"]) == ("CTO", "ada@initech.example")
    assert await accord.rows("SELECT 1 FROM submission WHERE source = 'correction'") == []


async def test_last_key_of_a_lead_cannot_be_removed(accord: Running) -> None:
    lead = await lead_of(accord, source="website", email="ada@initech.example")
    answer = await patch(accord.marketing, lead, {"email": None})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/email")
    assert await keys(accord) == {"ada@initech.example"}


UNFIT: list[tuple[Any, str]] = [
    ({"email": "nobody"}, "/email"),
    ({"email": ""}, "/email"),
    ({"phone": "call me"}, "/phone"),
    ({"shoe_size": 44}, "/shoe_size"),
    ({"external_id": "8"}, "/external_id"),
    ({"title": 1}, "/title"),
    ({"attributes": {"note": "call her at home in the evening"}}, "/attributes/note"),
    ({"attributes": {"n": 10**20}}, "/attributes/n"),
    ({"attributes": None}, "/attributes"),
    ([], ""),
]


async def test_what_does_not_fit_is_refused_with_its_place(accord: Running) -> None:
    lead = await lead_of(accord)
    found, expected = {}, {}
    for body, pointer in UNFIT:
        answer = await patch(accord.marketing, lead, body)
        named = {error.get("pointer") for error in answer.json().get("errors", [])}
        found[str(body)] = (answer.status_code, pointer in named or named)
        expected[str(body)] = (422, True)
    assert found == expected
    assert len(await accord.rows("SELECT 1 FROM submission")) == 1


async def test_a_correction_of_what_has_changed_since_is_refused(accord: Running) -> None:
    lead = await lead_of(accord)
    read = await accord.marketing.get(f"/v1/leads/{lead}")
    await accord.marketing.post("/v1/activities", {"lead_id": lead, "kind": "page.viewed", "by": "lead"})
    first = await patch(accord.marketing, lead, {"title": "CEO"}, If_Match=read.headers["etag"])
    assert first.status_code == 200, first.text
    assert first.headers["etag"] == (await accord.marketing.get(f"/v1/leads/{lead}")).headers["etag"]
    second = await patch(accord.sales, lead, {"title": "CFO"}, If_Match=read.headers["etag"])
    assert second.status_code == 412
    assert (await patch(accord.marketing, lead, {"title": "CFO"}, If_Match="nonsense")).status_code == 400
    public = (await accord.caller("public").get(f"/v1/leads/{lead}")).headers["etag"]
    assert public != first.headers["etag"]


async def test_scopes_of_a_correction(accord: Running) -> None:
    lead = await lead_of(accord)
    writer = accord.caller("writer")
    assert (await patch(accord.caller("reader"), lead, {"title": "CEO"})).status_code == 403
    refused = await patch(writer, lead, {"title": "CEO"})
    assert (refused.status_code, refused.json()["missing_scope"]) == (403, "personal:read")
    taken = await patch(writer, lead, {"attributes": {"size": 60}})
    assert (taken.status_code, taken.json()["person"]) == (200, None)
    assert (await patch(writer, lead, {})).status_code == 200


async def test_an_id_that_was_merged_is_followed_and_an_unknown_one_is_404(accord: Running) -> None:
    lead = await lead_of(accord)
    other = await lead_of(accord, source="website", email="bob@initech.example", occurred_at="2026-03-01T00:00:00Z")
    (await accord.marketing.post(f"/v1/leads/{lead}/merge", {"with": other})).raise_for_status()
    answer = await patch(accord.marketing, other, {"title": "CEO"})
    assert (answer.status_code, answer.json()["lead_id"]) == (200, lead)
    nobody = "019f3b1e-7a52-7c31-9a55-8a4f3c1d2e10"
    assert (await patch(accord.marketing, nobody, {"title": "CEO"})).status_code == 404


async def test_policy_evaluates_corrected_record(accord: Running, template: dict[str, Any]) -> None:
    await accord.sign(template)
    lead = await lead_of(accord, **ADA, attributes={**GOOD, "employee_count": 10})
    assert (await accord.marketing.get(f"/v1/leads/{lead}")).json()["verdict"] == "flagged"
    answer = await patch(accord.marketing, lead, {"attributes": {"employee_count": 300}})
    assert answer.status_code == 200, answer.text
    before = answer.json()
    # A farmer would wait in quarantine; a person has looked, so it is flagged.
    farmer = await patch(accord.marketing, lead, {"attributes": {"industry": "111110"}})
    assert (farmer.status_code, farmer.json()["verdict"]) == (200, "flagged")
    refused = await patch(accord.marketing, lead, {"email": "ada@mailinator.com", "phone": None})
    assert refused.status_code == 422, refused.text
    assert refused.json()["type"] == "/problems/rejected-by-policy"
    assert refused.json()["quality"]["failed"]
    seen = (await accord.marketing.get(f"/v1/leads/{lead}")).json()
    assert seen["person"]["email"] == "ada@initech.example"
    assert before["quality_score"] > farmer.json()["quality_score"]
    assert (await patch(accord.marketing, lead, {"attributes": {"employee_count": "many"}})).status_code == 422


async def test_pending_lead_is_corrected_by_its_submission(accord: Running, template: dict[str, Any]) -> None:
    """What is corrected at the lead itself would be lost when the submission is released as it came."""
    await accord.sign(template)
    lead = await lead_of(accord, **ADA, attributes={**GOOD, "industry": "111110"})
    answer = await patch(accord.marketing, lead, {"email": "ada@hooli.example"})
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/lead-is-pending")
    (waiting,) = (await accord.marketing.get("/v1/quarantine")).json()["items"]
    corrected = await accord.marketing.post(
        f"/v1/quarantine/{waiting['submission_id']}/correct",
        {"fields": {"email": "ada@hooli.example", "attributes": {"industry": "541511"}}},
    )
    assert (corrected.status_code, corrected.json()["verdict"]) == (200, "accepted")
    seen = (await accord.marketing.get(f"/v1/leads/{lead}")).json()
    assert (seen["pending"], seen["person"]["email"]) == (False, "ada@hooli.example")
    assert await keys(accord) == {"ada@hooli.example", "+12025550143"}
