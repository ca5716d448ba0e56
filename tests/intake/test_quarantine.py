"""Submissions that the policy held back: listed, released, corrected, discarded; each once, with its original time."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.intake.conftest import Running
from tests.intake.privacy import GOOD, POLICY, count, record, submitted, waiting

from accord.contracts.values import PolicyFailure, utc
from intake.leads.domain.keys import IdentityKey
from intake.leads.domain.lead import Lead, Values
from intake.leads.domain.quality import Quality
from intake.leads.domain.unit_of_work import Candidate, CaptureUnitOfWork
from intake.quarantine.domain import FixedField, apply_merge_patch, flag_released, remove_submission

NOW = utc(2027, 1, 2)
FAILED = (PolicyFailure(parameter="vertical", consequence="quarantine", reason="not agreed"),)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-100, 100) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(max_size=3), JSON, max_size=4)


# -- the pure rules --


def candidate(*keys: IdentityKey, verdict: Any = "quarantined", hour: int = 0, source: str = "website") -> Candidate:
    person = {kind: value for kind, value in keys if kind != "external"}
    external = next((value for kind, value in keys if kind == "external"), None)
    quality = Quality(verdict, 0.4, 3, FAILED)
    values = Values(source, NOW + timedelta(hours=hour), person, {}, None, None, external, quality, verdict)
    return Candidate(uuid4(), uuid4(), keys, values)


def pending(*keys: IdentityKey, hour: int = 0) -> Lead:
    lead_changes = CaptureUnitOfWork(NOW, {}, {})
    lead_changes.apply(candidate(*keys, hour=hour))
    (lead,) = lead_changes.leads.values()
    return lead


EMAIL: IdentityKey = ("email", "ada@initech.example")
NOT_TYPED: IdentityKey = ("email", "ada@initech.exmaple")
PHONE: IdentityKey = ("phone", "+12025550143")


def test_pending_lead_enters_at_time_of_its_first_submission() -> None:
    lead = pending(EMAIL)
    lead_changes = CaptureUnitOfWork(NOW + timedelta(days=5), {lead.lead_id: lead}, {EMAIL: lead.lead_id})
    said = candidate(EMAIL, verdict="flagged")
    assert lead_changes.release(said, lead) == (lead.lead_id, "created")
    (event,) = lead_changes.events
    assert (event.type, event.occurred_at) == ("lead.captured.v1", NOW)
    assert (lead_changes.leads[lead.lead_id].pending, lead_changes.leads[lead.lead_id].sequence) == (
        False,
        lead.sequence + 1,
    )


def test_of_two_that_wait_the_earlier_one_dates_the_lead_also_when_it_comes_in_last() -> None:
    lead = pending(EMAIL, hour=3)
    lead_changes = CaptureUnitOfWork(NOW + timedelta(days=5), {lead.lead_id: lead}, {EMAIL: lead.lead_id})
    lead_changes.release(candidate(EMAIL, verdict="flagged", hour=1, source="list"), lead)
    entered = lead_changes.leads[lead.lead_id]
    assert (entered.captured_at, entered.source) == (NOW + timedelta(hours=1), "list")


def test_corrected_address_replaces_wrong_one() -> None:
    lead = pending(NOT_TYPED)
    lead_changes = CaptureUnitOfWork(NOW, {lead.lead_id: lead}, {NOT_TYPED: lead.lead_id})
    own = remove_submission(lead, None, frozenset())
    lead_changes.shrink_pending(own, [NOT_TYPED])
    lead_changes.release(candidate(EMAIL, verdict="accepted"), own)
    assert lead_changes.dropped_keys == {NOT_TYPED: lead.lead_id}
    assert lead_changes.new_keys == {EMAIL: lead.lead_id}
    assert lead_changes.leads[lead.lead_id].person == {"email": EMAIL[1]}


def test_pending_lead_keeps_only_what_still_waits() -> None:
    lead = pending(EMAIL, PHONE)
    later = candidate(PHONE, hour=2, source="list")
    rest = remove_submission(lead, later, frozenset(later.keys))
    assert (rest.person, rest.captured_at, rest.source) == ({"phone": PHONE[1]}, NOW + timedelta(hours=2), "list")
    assert (rest.lead_id, rest.sequence, rest.pending) == (lead.lead_id, lead.sequence, True)


def test_release_keeps_policy_result() -> None:
    quality = Quality("quarantined", 0.4, 3, FAILED)
    assert flag_released(quality) == Quality("flagged", 0.4, 3, FAILED)


@given(OBJECTS, OBJECTS)
def test_a_merge_patch_is_that_of_rfc_7396(target: dict[str, Any], patch: dict[str, Any]) -> None:
    def merge(one: Any, other: Any) -> Any:
        """The pseudo-code of section 2, word for word."""
        if not isinstance(other, dict):
            return other
        result = dict(one) if isinstance(one, dict) else {}
        for name, value in other.items():
            if value is None:
                result.pop(name, None)
            else:
                result[name] = merge(result.get(name), value)
        return result

    assert apply_merge_patch(target, patch) == merge(target, patch)


@pytest.mark.parametrize("field", ["source", "occurred_at"])
def test_where_and_when_a_record_came_from_is_not_corrected(field: str) -> None:
    with pytest.raises(FixedField):
        apply_merge_patch({}, {field: None})


# -- over HTTP --


@pytest.fixture
async def shop(accord: Running) -> Running:
    await accord.sign(POLICY)
    return accord


async def decide(
    accord: Running, body: dict[str, Any], act: str, said: Any = None, key: str = "marketing"
) -> httpx.Response:
    return await accord.caller(key).post(f"/v1/quarantine/{body['submission_id']}/{act}", said)


async def test_what_waits_is_listed_with_what_failed_and_the_record_for_those_who_may_see_it(shop: Running) -> None:
    first = await waiting(shop, "ada@initech.example", occurred_at="2026-01-04T09:30:00Z")
    second = await waiting(shop, "bob@initech.example", source="list")
    await submitted(shop, "carl@initech.example")
    page = (await shop.caller("reader").get("/v1/quarantine")).json()
    assert [item["submission_id"] for item in page["items"]] == [first["submission_id"], second["submission_id"]]
    ada = page["items"][0]
    assert ada["record"]["email"] == "ada@initech.example"
    assert (ada["pending"], ada["state"], ada["source"], ada["sent_by"]) == (True, "waiting", "website", "marketing")
    assert ada["occurred_at"] == "2026-01-04T09:30:00Z"
    assert [failure["parameter"] for failure in ada["quality"]["failed"]] == ["vertical"]
    assert ada["expires_at"] > ada["recorded_at"]
    public = await shop.caller("public").get("/v1/quarantine")
    assert "@" not in public.text
    assert [item["record"] for item in public.json()["items"]] == [None, None]


async def test_what_waits_is_found_by_source_and_time_a_page_at_a_time(shop: Running) -> None:
    made = [await waiting(shop, f"p{number}@initech.example", source=f"s{number % 2}") for number in range(5)]
    ids = [one["submission_id"] for one in made]
    found: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await shop.marketing.get("/v1/quarantine", limit="2", **cursor)).json()
        found += [item["submission_id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert found == ids
    page = (await shop.marketing.get("/v1/quarantine", source="s1")).json()
    assert [item["submission_id"] for item in page["items"]] == [ids[1], ids[3]]
    since = (await shop.marketing.get(f"/v1/quarantine/{ids[3]}")).json()["recorded_at"]
    page = (await shop.marketing.get("/v1/quarantine", since=since)).json()
    assert [item["submission_id"] for item in page["items"]] == ids[3:]
    bad = await shop.marketing.get("/v1/quarantine", cursor="bm90aGluZw")
    assert bad.status_code == 422


async def test_a_released_lead_enters_with_its_original_time_and_the_policys_own_judgement(shop: Running) -> None:
    body = await waiting(shop, occurred_at="2026-01-04T09:30:00Z")
    answer = await decide(shop, body, "release", {"note": "Known to us"})
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert (told["state"], told["lead_id"], told["outcome"], told["verdict"]) == (
        "released",
        body["lead_id"],
        "created",
        "flagged",
    )
    assert told["quality"] == body["quality"]
    (event,) = await shop.events("lead.captured.v1")
    assert event["occurred_at"] == event["state"]["captured_at"] == "2026-01-04T09:30:00Z"
    assert (event["sequence"], event["state"]["verdict"]) == (2, "flagged")
    assert "Known" not in str(event)
    lead = (await shop.marketing.get(f"/v1/leads/{body['lead_id']}")).json()
    assert (lead["pending"], lead["verdict"], lead["person"]["email"]) == (False, "flagged", "ada@initech.example")
    assert (await shop.marketing.get("/v1/quarantine")).json()["items"] == []
    one = (await shop.marketing.get(f"/v1/quarantine/{body['submission_id']}")).json()
    assert one["state"] == "released"
    assert [(done["action"], done["by"], done["note"]) for done in one["decisions"]] == [
        ("released", "marketing", "Known to us")
    ]
    public = (await shop.caller("public").get(f"/v1/quarantine/{body['submission_id']}")).json()
    assert (public["record"], public["decisions"][0]["note"]) == (None, None)


async def test_a_released_submission_of_a_lead_that_is_in_updates_it(shop: Running) -> None:
    lead = await submitted(shop, title="CTO")
    body = await waiting(shop, title="CEO", phone="+12025550143")
    assert body["lead_id"] == lead["lead_id"]
    before = (await shop.marketing.get(f"/v1/leads/{lead['lead_id']}")).json()
    assert (before["person"]["title"], before["person"]["phone"]) == ("CTO", None)
    told = (await decide(shop, body, "release")).json()
    assert (told["lead_id"], told["outcome"]) == (lead["lead_id"], "updated")
    after = (await shop.marketing.get(f"/v1/leads/{lead['lead_id']}")).json()
    assert (after["person"]["title"], after["person"]["phone"]) == ("CEO", "+12025550143")
    assert [event["sequence"] for event in await shop.events() if event["key"] == lead["lead_id"]] == [1, 2, 3]


async def test_a_released_submission_joins_the_leads_that_it_names(shop: Running) -> None:
    by_mail = await submitted(shop)
    by_phone = await submitted(shop, None, phone="+12025550143")
    body = await waiting(shop, phone="+12025550143")
    told = (await decide(shop, body, "release")).json()
    assert (told["outcome"], told["lead_id"]) == ("merged", by_mail["lead_id"])
    (merged,) = await shop.events("lead.merged.v1")
    assert merged["merged_lead_id"] == by_phone["lead_id"]


async def test_a_lead_that_was_merged_meanwhile_is_followed_to_its_survivor(shop: Running) -> None:
    older = await submitted(shop, "old@initech.example")
    lead = await submitted(shop)
    body = await waiting(shop, title="CEO")
    (await shop.marketing.post(f"/v1/leads/{older['lead_id']}/merge", {"with": lead["lead_id"]})).raise_for_status()
    told = (await decide(shop, body, "release")).json()
    assert told["lead_id"] == older["lead_id"]
    found = (await shop.marketing.get(f"/v1/leads/{older['lead_id']}")).json()
    assert found["person"]["title"] == "CEO"


async def test_corrected_record_is_evaluated_again_and_accepted(shop: Running) -> None:
    body = await waiting(shop, first_name="Ada", occurred_at="2026-01-04T09:30:00Z")
    fields = {"attributes": {"industry": "5415"}, "first_name": None, "last_name": "Byron"}
    answer = await decide(shop, body, "correct", {"fields": fields})
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert (told["state"], told["verdict"], told["outcome"], told["quality"]["failed"]) == (
        "corrected",
        "accepted",
        "created",
        [],
    )
    (event,) = await shop.events("lead.captured.v1")
    assert (event["occurred_at"], event["state"]["verdict"]) == ("2026-01-04T09:30:00Z", "accepted")
    person = (await shop.marketing.get(f"/v1/leads/{body['lead_id']}")).json()["person"]
    assert (person["first_name"], person["last_name"]) == (None, "Byron")
    (done,) = (await shop.marketing.get(f"/v1/quarantine/{body['submission_id']}")).json()["decisions"]
    assert (done["action"], done["fields"], done["verdict"]) == ("corrected", fields, "accepted")
    (row,) = await shop.rows("SELECT verdict, content FROM submission")
    assert row["verdict"] == "quarantined"  # what the source sent was no better for it
    assert "Ada" in row["content"]


async def test_a_record_that_is_still_not_right_waits_on_with_the_new_judgement(shop: Running) -> None:
    body = await waiting(shop)
    told = (await decide(shop, body, "correct", {"fields": {"attributes": {"employee_count": 3}}})).json()
    assert (told["state"], told["outcome"], told["verdict"]) == ("waiting", None, "quarantined")
    (item,) = (await shop.marketing.get("/v1/quarantine")).json()["items"]
    assert [failure["parameter"] for failure in item["quality"]["failed"]] == ["vertical", "size"]
    assert item["record"]["attributes"] == {"industry": "1111", "employee_count": 3}
    assert item["corrected_by"] == "marketing"
    assert len(await shop.events("lead.quarantined.v1")) == 1
    told = (await decide(shop, body, "correct", {"fields": {"attributes": {"industry": "5415"}}})).json()
    assert (told["state"], told["verdict"]) == ("corrected", "flagged")


NO_RECORD: list[tuple[dict[str, Any], str]] = [
    ({"email": None}, "/fields"),
    ({"email": "nobody"}, "/fields/email"),
    ({"source": "list"}, "/fields/source"),
    ({"occurred_at": "2026-01-01T00:00:00Z"}, "/fields/occurred_at"),
    ({"unknown": 1}, "/fields/unknown"),
    ({"attributes": {"industry": {"deep": 1}}}, "/fields/attributes/industry"),
]


async def test_a_correction_that_makes_no_record_is_refused_with_its_place(shop: Running) -> None:
    body = await waiting(shop)
    found, expected = {}, {}
    for fields, pointer in NO_RECORD:
        answer = await decide(shop, body, "correct", {"fields": fields})
        found[str(fields)] = (answer.status_code, answer.json()["errors"][0]["pointer"])
        expected[str(fields)] = (422, pointer)
        assert "nobody" not in answer.text
    assert found == expected
    assert (await shop.marketing.get(f"/v1/quarantine/{body['submission_id']}")).json()["decisions"] == []


async def test_a_correction_that_the_policy_rejects_is_refused_and_changes_nothing(shop: Running) -> None:
    body = await waiting(shop)
    answer = await decide(shop, body, "correct", {"fields": {"email": "ada@mailinator.com"}})
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/rejected-by-policy")
    assert answer.json()["quality"]["failed"][0]["parameter"] == "reachable"
    (item,) = (await shop.marketing.get("/v1/quarantine")).json()["items"]
    assert item["record"]["email"] == "ada@initech.example"


async def test_wrong_address_of_corrected_record_is_released(shop: Running) -> None:
    body = await waiting(shop, "ada@initech.exmaple.com", phone="+12025550143")
    fields = {"email": "ada@initech.example", "attributes": GOOD}
    told = (await decide(shop, body, "correct", {"fields": fields})).json()
    assert told["lead_id"] == body["lead_id"]
    somebody_else = await submitted(shop, "ada@initech.exmaple.com")
    assert somebody_else["outcome"] == "created"
    assert (await submitted(shop, None, phone="+12025550143"))["lead_id"] == body["lead_id"]


async def test_record_corrected_into_existing_person_is_merged(shop: Running) -> None:
    ada = await submitted(shop)
    body = await waiting(shop, "ada@initech.exmaple.com", title="CEO")
    fields = {"email": "ada@initech.example", "attributes": GOOD}
    told = (await decide(shop, body, "correct", {"fields": fields})).json()
    assert (told["lead_id"], told["outcome"]) == (ada["lead_id"], "merged")
    found = (await shop.marketing.get(f"/v1/leads/{body['lead_id']}")).json()
    assert (found["lead_id"], found["person"]["title"]) == (ada["lead_id"], "CEO")
    assert (await submitted(shop, "ada@initech.exmaple.com"))["outcome"] == "created"


async def test_one_of_two_that_wait_for_a_lead_is_corrected_into_somebody_else(shop: Running) -> None:
    first = await waiting(shop, phone="+12025550143")
    second = await waiting(shop, None, phone="+12025550143", first_name="Bob")
    assert second["lead_id"] == first["lead_id"]
    told = (await decide(shop, second, "correct", {"fields": {"phone": "+12025550199", "attributes": GOOD}})).json()
    assert told["lead_id"] != first["lead_id"]
    held_one = (await shop.marketing.get(f"/v1/leads/{first['lead_id']}")).json()
    assert (held_one["pending"], held_one["person"]["phone"]) == (True, "+12025550143")
    bob = (await shop.marketing.get(f"/v1/leads/{told['lead_id']}")).json()
    assert (bob["pending"], bob["person"]["phone"], bob["person"]["email"]) == (False, "+12025550199", None)


async def test_a_discarded_lead_leaves_nothing_so_that_the_person_is_new_when_they_come_again(shop: Running) -> None:
    body = await waiting(shop, phone="+12025550143")
    await shop.marketing.post("/v1/activities", {"lead_id": body["lead_id"], "kind": "page.viewed", "by": "lead"})
    answer = await decide(shop, body, "discard", {"reason": "A test"})
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"submission_id": body["submission_id"], "state": "discarded", "lead_id": None}
    for table in ("lead", "identity_key", "activity"):
        assert await count(shop, table) == 0
    assert (await shop.marketing.get(f"/v1/leads/{body['lead_id']}")).status_code == 404
    again = await submitted(shop, phone="+12025550143")
    assert (again["outcome"], again["lead_id"] != body["lead_id"]) == ("created", True)
    (event,) = await shop.events("lead.captured.v1")
    assert event["sequence"] == 1
    one = (await shop.marketing.get(f"/v1/quarantine/{body['submission_id']}")).json()
    assert (one["state"], one["lead_id"], one["decisions"][0]["note"]) == ("discarded", None, "A test")


async def test_other_waiting_submission_keeps_pending_lead(shop: Running) -> None:
    junk = await waiting(shop, phone="+12025550143", source="list", occurred_at="2026-01-01T00:00:00Z")
    body = await waiting(shop, first_name="Ada", occurred_at="2026-01-04T09:30:00Z")
    assert body["lead_id"] == junk["lead_id"]
    assert (await decide(shop, junk, "discard", {"reason": "Junk"})).json()["lead_id"] == body["lead_id"]
    assert (await submitted(shop, None, phone="+12025550143"))["outcome"] == "created"
    told = (await decide(shop, body, "release")).json()
    lead = (await shop.marketing.get(f"/v1/leads/{told['lead_id']}")).json()
    assert (lead["source"], lead["captured_at"]) == ("website", "2026-01-04T09:30:00Z")
    assert (lead["person"]["first_name"], lead["person"]["phone"]) == ("Ada", None)
    entered = (await shop.events("lead.captured.v1"))[-1]
    assert (entered["key"], entered["occurred_at"]) == (body["lead_id"], "2026-01-04T09:30:00Z")


async def test_discarding_leaves_a_lead_that_is_in_alone(shop: Running) -> None:
    lead = await submitted(shop, title="CTO")
    body = await waiting(shop, title="CEO")
    assert (await decide(shop, body, "discard", {"reason": "Junk"})).json()["lead_id"] == lead["lead_id"]
    found = (await shop.marketing.get(f"/v1/leads/{lead['lead_id']}")).json()
    assert found["person"]["title"] == "CTO"


async def test_what_is_decided_is_decided_and_an_unknown_one_is_not_found(shop: Running) -> None:
    body = await waiting(shop)
    await decide(shop, body, "discard", {"reason": "Junk"})
    for act, said in (("release", None), ("correct", {"fields": {"title": "CTO"}}), ("discard", {"reason": "Again"})):
        answer = await decide(shop, body, act, said)
        assert (answer.status_code, answer.json()["state"]) == (409, "discarded"), act
    accepted = await submitted(shop, "bob@initech.example")
    assert (await decide(shop, accepted, "release")).status_code == 404
    assert (await decide(shop, {"submission_id": str(uuid4())}, "release")).status_code == 404
    assert (await decide(shop, {"submission_id": "x"}, "release")).status_code == 422


async def test_deciding_needs_the_scope(shop: Running) -> None:
    body = await waiting(shop)
    for act, said in (("release", None), ("correct", {"fields": {"title": "CTO"}}), ("discard", {"reason": "Junk"})):
        assert (await decide(shop, body, act, said, "reader")).status_code == 403


async def test_a_decision_sent_twice_under_a_key_is_made_once(shop: Running) -> None:
    body = await waiting(shop)
    path = f"/v1/quarantine/{body['submission_id']}/release"
    first = await shop.marketing.post(path, None, **{"Idempotency-Key": "k"})
    again = await shop.marketing.post(path, None, **{"Idempotency-Key": "k"})
    assert (first.status_code, again.status_code, again.content) == (200, 200, first.content)
    assert await count(shop, "quarantine_decision") == 1


async def test_of_concurrent_decisions_one_wins_and_others_get_409(shop: Running) -> None:
    for _ in range(5):
        body = await waiting(shop, f"{uuid4().hex}@initech.example")
        acts: list[tuple[str, Any]] = [
            ("release", None),
            ("discard", {"reason": "Junk"}),
            ("correct", {"fields": {"attributes": GOOD}}),
            ("release", None),
            ("discard", {"reason": "Junk"}),
        ]
        answers = await asyncio.gather(*(decide(shop, body, act, said) for act, said in acts))
        assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409, 409]
        winner = next(answer.json()["state"] for answer in answers if answer.status_code == 200)
        assert {answer.json()["state"] for answer in answers if answer.status_code == 409} == {winner}
        (row,) = await shop.rows(
            "SELECT settled, lead_id FROM submission WHERE submission_id = $1", UUID(body["submission_id"])
        )
        assert row["settled"] == winner
        assert (row["lead_id"] is None) == (winner == "discarded")


async def test_a_good_record_that_comes_while_one_is_decided_makes_one_lead(shop: Running) -> None:
    for number in range(10):
        email = f"p{number}@initech.example"
        body = await waiting(shop, email)
        act, said = [("release", None), ("discard", {"reason": "Junk"})][number % 2]
        decided, captured = await asyncio.gather(
            decide(shop, body, act, said), shop.marketing.post("/v1/leads", record(email))
        )
        assert (decided.status_code, captured.status_code in (200, 201)) == (200, True)
        found = (await shop.marketing.get("/v1/leads", email=email)).json()["items"]
        assert [(lead["lead_id"], lead["pending"]) for lead in found] == [(captured.json()["lead_id"], False)]
    leads = await shop.rows("SELECT lead_id FROM lead WHERE merged_into IS NULL")
    assert len(leads) == 10
    entered = [event["key"] for event in await shop.events("lead.captured.v1")]
    assert len(entered) == len(set(entered)) == 10


async def test_released_submission_overwrites_no_later_value(shop: Running) -> None:
    body = await waiting(shop, title="CEO", first_name="Ada")
    good = await submitted(shop, title="CTO")
    assert (good["lead_id"], good["verdict"]) == (body["lead_id"], "accepted")
    (item,) = (await shop.marketing.get("/v1/quarantine")).json()["items"]
    assert item["pending"] is False
    told = (await decide(shop, body, "release")).json()
    assert (told["lead_id"], told["outcome"]) == (body["lead_id"], "updated")
    lead = (await shop.marketing.get(f"/v1/leads/{body['lead_id']}")).json()
    assert (lead["verdict"], lead["attributes"]) == ("accepted", GOOD)
    assert (lead["person"]["title"], lead["person"]["first_name"]) == ("CTO", "Ada")


async def test_submission_from_a_time_that_is_refused_by_now_can_still_be_decided(accord: Running) -> None:
    await accord.sign(POLICY)
    released, corrected = await waiting(accord), await waiting(accord, "bob@initech.example")
    before = """UPDATE submission SET canonical = (canonical::jsonb || '{"occurred_at": "0001-01-01T00:00:00Z",
        "consent": {"basis": "consent", "given_at": "9999-12-31T23:59:59.999999Z"}}')::text"""
    await accord.rows(before)
    for body, action, fields in (
        (released, "release", {}),
        (corrected, "correct", {"fields": {"attributes": GOOD}}),
    ):
        answer = await accord.marketing.post(f"/v1/quarantine/{body['submission_id']}/{action}", fields)
        assert answer.status_code == 200, answer.text
