"""Merges by a person's decision, and how they are taken back."""

from __future__ import annotations

import asyncio
import itertools
import random
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.intake.conftest import Running
from tests.intake.test_identity import candidate

from accord.contracts.intake_events import LeadUnmerged, LeadUpdated
from accord.contracts.values import Campaign, utc
from intake.identity.domain.merge_revert import LaterMerge, RevertedMerge, SurvivorSnapshot, split_merge
from intake.leads.domain.keys import IdentityKey
from intake.leads.domain.lead import Lead, Values, absorb_lead, update_lead
from intake.leads.domain.quality import Quality
from intake.leads.domain.unit_of_work import CaptureUnitOfWork

NOW = utc(2027, 1, 1)
MERGE_ID = UUID(int=99)
FIELDS = ("email", "phone", "first_name", "title")
ATTRIBUTES = ("employee_count", "industry")

# Each said value has a moment of its own, so that what came from whom is never in doubt.
moments = st.integers(0, 2**16).map(lambda seed: random.Random(seed).sample(range(10_000), 40))


@st.composite
def leads(draw: st.DrawFn, number: int, at: list[int], *, pending: bool = False) -> Lead:
    """A lead with some of the fields; keys of different leads always differ."""
    person = {name: f"{name} {number}" for name in FIELDS if draw(st.booleans())}
    attributes = {name: f"{name} {draw(st.integers(0, 1))}" for name in ATTRIBUTES if draw(st.booleans())}
    named = [*person, *(f"attributes.{name}" for name in attributes)]
    return Lead(
        lead_id=UUID(int=number),
        source=f"source-{number}",
        captured_at=NOW + timedelta(hours=number),
        verdict="unchecked",
        person=person,
        attributes=dict(attributes),
        field_timestamps={name: NOW + timedelta(minutes=at.pop()) for name in named},
        account_id=draw(st.sampled_from([None, UUID(int=500 + number)])),
        campaign=draw(st.sampled_from([None, Campaign(name=f"campaign {number}")])),
        external_keys=(f"{number}" * 64,) if draw(st.booleans()) else (),
        pending=pending,
        sequence=0 if pending else draw(st.integers(1, 5)),
    )


@st.composite
def said(draw: st.DrawFn, at: list[int]) -> Values:
    """A submission that came to the survivor after the merge, with keys of nobody else."""
    number = draw(st.integers(3, 9))
    return Values(
        source="later",
        at=NOW + timedelta(minutes=at.pop()),
        person={name: f"said {number}" for name in FIELDS if draw(st.booleans())},
        attributes={name: f"{name} said {number}" for name in ATTRIBUTES if draw(st.booleans())},
        account_id=None,
        campaign=None,
        external_key=f"{number}" * 64 if draw(st.booleans()) else None,
        quality=Quality("unchecked"),
    )


def keys_of_lead(lead: Lead) -> set[IdentityKey]:
    keys: set[IdentityKey] = {("external", key) for key in lead.external_keys}
    keys |= {("email", lead.person["email"])} if "email" in lead.person else set()
    keys |= {("phone", lead.person["phone"])} if "phone" in lead.person else set()
    return keys


def take_back(whole: Lead, gone: Lead, before: Lead, later: list[LaterMerge] | None = None) -> RevertedMerge:
    merged = replace(gone, merged_into=before.lead_id)
    return split_merge(
        whole, merged, SurvivorSnapshot.from_lead(before), keys_of_lead(gone), later or [], MERGE_ID, NOW
    )


def without_sequence(lead: Lead) -> Lead:
    return replace(lead, sequence=0)


@given(st.data(), moments)
def test_immediate_revert_restores_both_leads(data: st.DataObject, at: list[int]) -> None:
    survivor, gone = data.draw(leads(1, at)), data.draw(leads(2, at))
    whole = replace(absorb_lead(survivor, gone), sequence=survivor.sequence + 1)
    back = take_back(whole, gone, survivor)
    assert without_sequence(back.survivor) == without_sequence(survivor)
    assert back.restored == gone
    (event,) = back.events
    assert isinstance(event, LeadUnmerged)
    assert (
        (event.lead_id, event.sequence)
        == (survivor.lead_id, whole.sequence + 1)
        == (event.lead_id, back.survivor.sequence)
    )
    assert (event.state, event.restored_state) == (back.survivor.state(), gone.state())


@given(st.data(), moments)
def test_values_after_merge_stay_with_survivor(data: st.DataObject, at: list[int]) -> None:
    """Taking the merge back gives the lead that the survivor would be if the other had never been in it, where what was said since is
    newer than what the other said."""
    survivor, gone = data.draw(leads(1, at)), data.draw(leads(2, at))
    whole = absorb_lead(survivor, gone)
    alone = survivor
    for values in data.draw(st.lists(said(at), max_size=4)):
        recent = values._replace(at=values.at + timedelta(days=30))
        whole, alone = update_lead(whole, recent), update_lead(alone, recent)
    back = take_back(whole, gone, survivor)
    assert without_sequence(back.survivor) == without_sequence(alone)


@given(st.data(), moments)
def test_late_values_never_restore_values_of_the_other(data: st.DataObject, at: list[int]) -> None:
    survivor, gone = data.draw(leads(1, at)), data.draw(leads(2, at))
    whole = absorb_lead(survivor, gone)
    for values in data.draw(st.lists(said(at), max_size=4)):
        whole = update_lead(whole, values)
    back = take_back(whole, gone, survivor).survivor
    assert not [name for name, value in back.person.items() if value == gone.person.get(name)]
    assert not set(back.external_keys) & set(gone.external_keys)
    assert back.captured_at == survivor.captured_at
    assert back.source == survivor.source


@given(st.data(), moments, st.sampled_from([0, 1]))
def test_either_of_two_merges_may_be_reverted_first(data: st.DataObject, at: list[int], first: int) -> None:
    survivor = data.draw(leads(1, at))
    others = [data.draw(leads(2, at)), data.draw(leads(3, at))]
    once = absorb_lead(survivor, others[0])
    twice = absorb_lead(once, others[1])
    later = LaterMerge(UUID(int=7), others[1], SurvivorSnapshot.from_lead(once))
    if first == 1:
        back = take_back(twice, others[1], once)
        assert without_sequence(back.survivor) == without_sequence(once)
        return
    back = take_back(twice, others[0], survivor, [later])
    assert without_sequence(back.survivor) == without_sequence(absorb_lead(survivor, others[1]))
    alone = split_merge(
        back.survivor, others[1], back.later[later.merge_id], keys_of_lead(others[1]), [], MERGE_ID, NOW
    )
    assert without_sequence(alone.survivor) == without_sequence(survivor)


@given(st.data(), moments)
def test_restored_pending_lead_is_not_published(data: st.DataObject, at: list[int]) -> None:
    survivor, gone = data.draw(leads(1, at)), data.draw(leads(2, at, pending=True))
    whole = absorb_lead(survivor, gone)
    back = take_back(whole, gone, survivor)
    assert back.restored == gone
    assert back.restored.pending
    assert without_sequence(back.survivor) == without_sequence(survivor)
    assert all(isinstance(event, LeadUpdated) for event in back.events)
    assert bool(back.events) == (whole.state() != survivor.state())


@given(st.data(), moments)
def test_merge_of_two_pending_leads_publishes_nothing(data: st.DataObject, at: list[int]) -> None:
    survivor, gone = data.draw(leads(1, at, pending=True)), data.draw(leads(2, at, pending=True))
    back = take_back(absorb_lead(survivor, gone), gone, survivor)
    assert (back.survivor, back.restored, back.events) == (survivor, gone, ())


async def lead_of(accord: Running, **submission: Any) -> str:
    answer = await accord.marketing.post("/v1/leads", {"source": "website", **submission})
    assert answer.status_code in (200, 201), answer.text
    lead_id: str = answer.json()["lead_id"]
    return lead_id


async def lead_as_seen(accord: Running, lead_id: str) -> dict[str, Any]:
    answer = await accord.marketing.get(f"/v1/leads/{lead_id}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def merge(accord: Running, lead_id: str, other: str, **headers: str) -> dict[str, Any]:
    answer = await accord.marketing.post(f"/v1/leads/{lead_id}/merge", {"with": other}, **headers)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def revert(accord: Running, merge_id: str) -> httpx.Response:
    return await accord.sales.post(f"/v1/merges/{merge_id}/revert", None)


async def keys_by_lead(accord: Running) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for row in await accord.rows("SELECT lead_id, kind, value, external_id FROM identity_key"):
        found.setdefault(str(row["lead_id"]), set()).add(row["external_id"] or row["value"])
    return found


async def sequences_have_no_gap(accord: Running) -> None:
    by_lead: dict[str, list[int]] = {}
    for event in await accord.events():
        if "sequence" in event:
            by_lead.setdefault(event["key"], []).append(event["sequence"])
    assert all(found == list(range(1, len(found) + 1)) for found in by_lead.values()), by_lead


async def test_person_merges_two_leads_and_reverts_it(accord: Running) -> None:
    older = await lead_of(
        accord, email="ada@initech.example", title="CTO", attributes={"size": 50}, occurred_at="2026-01-01T00:00:00Z"
    )
    newer = await lead_of(
        accord,
        phone="+12025550143",
        external_id="7",
        title="CEO",
        attributes={"size": 60, "plan": "pro"},
        occurred_at="2026-02-01T00:00:00Z",
    )
    await accord.marketing.post("/v1/activities", {"lead_id": newer, "kind": "page.viewed", "by": "lead"})
    before = [await lead_as_seen(accord, one) for one in (older, newer)]

    made = await merge(accord, newer, older)
    assert (made["survivor_id"], made["merged_lead_id"]) == (older, newer)
    assert (made["submission_id"], made["merged_by"], made["followed"]) == (None, "marketing", [])
    whole = await lead_as_seen(accord, newer)
    assert whole["lead_id"] == older
    assert whole["merged"] == [newer]
    assert (whole["person"]["title"], whole["attributes"]) == ("CEO", {"size": 60, "plan": "pro"})
    assert whole["person"]["external"] == [{"source": "website", "id": "7"}]
    assert await keys_by_lead(accord) == {older: {"ada@initech.example", "+12025550143", "7"}}
    later = await accord.marketing.post("/v1/activities", {"lead_id": newer, "kind": "email.opened", "by": "lead"})
    assert later.json()["lead_id"] == older
    (event,) = await accord.events("lead.merged.v1")
    assert (event["lead_id"], event["merged_lead_id"], event["merge_id"]) == (older, newer, made["merge_id"])

    back = await revert(accord, made["merge_id"])
    assert back.status_code == 200, back.text
    assert back.json()["reverted_by"] == "sales"
    assert [await lead_as_seen(accord, one) for one in (older, newer)] == before
    assert await keys_by_lead(accord) == {older: {"ada@initech.example"}, newer: {"+12025550143", "7"}}
    activities = await accord.rows("SELECT lead_id, kind FROM activity ORDER BY kind")
    assert [(str(row["lead_id"]), row["kind"]) for row in activities] == [
        (older, "email.opened"),
        (newer, "page.viewed"),
    ]
    (event,) = await accord.events("lead.unmerged.v1")
    assert (event["lead_id"], event["restored_lead_id"]) == (older, newer)
    assert event["state"]["attributes"] == {"size": 50}
    assert event["restored_state"]["attributes"] == {"size": 60, "plan": "pro"}
    await lead_of(accord, phone="+12025550143", attributes={"size": 70})
    await sequences_have_no_gap(accord)
    shown = (await accord.marketing.get(f"/v1/merges/{made['merge_id']}")).json()
    assert shown == back.json()
    for one in (older, newer):
        listed = (await accord.marketing.get(f"/v1/leads/{one}/merges")).json()
        assert listed == {"items": [shown], "next_cursor": None}


async def test_submission_with_both_keys_does_not_merge_separated_pair(accord: Running) -> None:
    one = await lead_of(accord, email="ada@initech.example", occurred_at="2026-01-01T00:00:00Z")
    other = await lead_of(accord, phone="+12025550143", occurred_at="2026-02-01T00:00:00Z")
    made = await merge(accord, one, other)
    assert (await revert(accord, made["merge_id"])).status_code == 200
    both = {"source": "list", "email": "ada@initech.example", "phone": "+12025550143", "external_id": "9"}
    answer = (await accord.marketing.post("/v1/leads", both)).json()
    assert (answer["lead_id"], answer["outcome"]) == (one, "updated")
    keys = await keys_by_lead(accord)
    assert keys == {one: {"ada@initech.example", "9"}, other: {"+12025550143"}}
    assert (await lead_as_seen(accord, one))["person"]["phone"] is None
    # By phone and external id: the phone is stronger, and the id stays with the one that has it.
    answer = (
        await accord.marketing.post("/v1/leads", {key: both[key] for key in ("source", "phone", "external_id")})
    ).json()
    assert (answer["lead_id"], answer["outcome"]) == (other, "updated")
    assert await keys_by_lead(accord) == keys
    # A person may change their mind; then both keys name one lead again.
    again = await merge(accord, other, one)
    answer = (await accord.marketing.post("/v1/leads", both)).json()
    assert answer["lead_id"] == again["survivor_id"] == one
    assert await accord.rows("SELECT 1 FROM do_not_merge") == []


async def test_pair_stays_separated_after_merge_into_a_third(accord: Running) -> None:
    one = await lead_of(accord, email="ada@initech.example", occurred_at="2026-01-02T00:00:00Z")
    other = await lead_of(accord, phone="+12025550143", occurred_at="2026-01-03T00:00:00Z")
    third = await lead_of(accord, external_id="3", occurred_at="2026-01-01T00:00:00Z")
    assert (await revert(accord, (await merge(accord, one, other))["merge_id"])).status_code == 200
    assert (await merge(accord, one, third))["survivor_id"] == third
    answer = await accord.marketing.post(
        "/v1/leads:batch",
        [
            {"source": "a", "email": "ada@initech.example", "phone": "+12025550143"},
            {"source": "website", "external_id": "3", "phone": "+12025550143", "email": "new@initech.example"},
        ],
    )
    assert [row["lead_id"] for row in answer.json()["results"]] == [third, other]
    assert len(await accord.rows("SELECT 1 FROM lead WHERE merged_into IS NULL")) == 2


async def test_revert_of_merge_within_one_batch_returns_all_keys(accord: Running) -> None:
    rows = [
        {"source": "a", "email": "ada@initech.example", "occurred_at": "2026-01-01T00:00:00Z"},
        {"source": "a", "phone": "+12025550143", "external_id": "7", "occurred_at": "2026-01-02T00:00:00Z"},
        {"source": "a", "email": "ada@initech.example", "phone": "+12025550143"},
    ]
    results = (await accord.marketing.post("/v1/leads:batch", rows)).json()["results"]
    assert [row["outcome"] for row in results] == ["created", "created", "merged"]
    survivor, gone = results[0]["lead_id"], results[1]["lead_id"]
    (made,) = (await accord.marketing.get(f"/v1/leads/{gone}/merges")).json()["items"]
    assert (made["submission_id"], made["merged_by"]) == (results[2]["submission_id"], None)
    assert (await revert(accord, made["merge_id"])).status_code == 200
    assert await keys_by_lead(accord) == {survivor: {"ada@initech.example"}, gone: {"+12025550143", "7"}}
    assert (await lead_as_seen(accord, survivor))["person"]["phone"] is None
    assert (await lead_as_seen(accord, gone))["person"]["external"] == [{"source": "a", "id": "7"}]
    await sequences_have_no_gap(accord)


async def test_chain_of_merges_leads_to_its_end_however_long(accord: Running) -> None:
    """Each older than all before, so that each survives those before."""
    days = [f"2026-01-{day:02}T00:00:00Z" for day in range(28, 3, -1)]
    first, *others = [
        await lead_of(accord, external_id=f"c{number}", occurred_at=day) for number, day in enumerate(days)
    ]
    last = first
    for other in others:
        assert (await merge(accord, last, other))["survivor_id"] == other
        last = other
    found = await lead_as_seen(accord, first)
    assert (found["lead_id"], len(found["merged"])) == (last, 24)
    answer = await accord.marketing.post("/v1/activities", {"lead_id": first, "kind": "page.viewed", "by": "lead"})
    assert (answer.status_code, answer.json().get("lead_id")) == (202, last)


async def test_chain_of_merges_is_reverted_from_its_end(accord: Running) -> None:
    ids = [
        await lead_of(accord, external_id=name, occurred_at=f"2026-01-0{3 - place}T00:00:00Z")
        for place, name in enumerate("abc")
    ]
    first = await merge(accord, ids[0], ids[1])
    second = await merge(accord, ids[0], ids[2])
    assert (second["survivor_id"], second["followed"]) == (ids[2], [ids[0]])
    refused = await revert(accord, first["merge_id"])
    assert refused.status_code == 409
    assert refused.json()["revert_first"] == second["merge_id"]
    for made in (second, first):
        assert (await revert(accord, made["merge_id"])).status_code == 200
    kept = await accord.rows("SELECT survivor_before::text, keys_moved::text, activities_moved FROM merge")
    assert kept == [{"survivor_before": "{}", "keys_moved": "[]", "activities_moved": []}] * 2
    again = await revert(accord, first["merge_id"])
    assert (again.status_code, again.json()["type"]) == (409, "/problems/already-reverted")
    assert await keys_by_lead(accord) == {one: {name} for one, name in zip(ids, "abc", strict=True)}
    page = (await accord.marketing.get(f"/v1/leads/{ids[1]}/merges", limit="1")).json()
    rest = (await accord.marketing.get(f"/v1/leads/{ids[1]}/merges", cursor=page["next_cursor"])).json()
    assert [one["merge_id"] for one in page["items"] + rest["items"]] == [second["merge_id"], first["merge_id"]]
    assert rest["next_cursor"] is None


async def test_what_cannot_be_merged_is_refused_and_a_repeated_request_merges_once(accord: Running) -> None:
    one, other = await lead_of(accord, external_id="1"), await lead_of(accord, external_id="2")
    post = accord.marketing.post
    nobody = "019f3b1e-7a52-7c31-9a55-8a4f3c1d2e10"
    assert (await post(f"/v1/leads/{nobody}/merge", {"with": one})).status_code == 404
    for body in ({"with": nobody}, {"with": one}, {"with": "x"}, {}, {"with": other, "more": 1}):
        assert (await post(f"/v1/leads/{one}/merge", body)).status_code == 422, body
    key = {"Idempotency-Key": "merge-1"}
    made = await merge(accord, one, other, **key)
    again = await post(f"/v1/leads/{one}/merge", {"with": other}, **key)
    assert (again.status_code, again.json()) == (201, made)
    assert again.headers["location"] == f"/v1/merges/{made['merge_id']}"
    twice = await post(f"/v1/leads/{one}/merge", {"with": other})
    assert (twice.status_code, twice.json()["survivor_id"]) == (409, made["survivor_id"])
    assert (await accord.caller("reader").post(f"/v1/merges/{made['merge_id']}/revert", None)).status_code == 403
    assert (await post(f"/v1/merges/{nobody}/revert", None)).status_code == 404
    assert (await accord.marketing.get(f"/v1/merges/{nobody}")).status_code == 404
    assert (await accord.marketing.get(f"/v1/leads/{one}/merges", cursor="x")).status_code == 422


async def test_merge_and_revert_of_pending_lead_are_not_published(accord: Running, template: dict[str, Any]) -> None:
    await accord.sign(template)
    good = {"employee_count": 250, "industry": "541511", "country": "US", "line_of_business": "software"}
    known = await lead_of(accord, email="ada@initech.example", attributes=good)
    pending = await lead_of(
        accord, email="ada@home.example", phone="+12025550143", attributes={**good, "industry": "111110"}
    )
    assert (await lead_as_seen(accord, pending))["pending"]
    made = await merge(accord, pending, known)
    assert (made["survivor_id"], made["merged_lead_id"]) == (known, pending)
    whole = await lead_as_seen(accord, known)
    assert (whole["person"]["phone"], whole["attributes"]["industry"]) == ("+12025550143", "541511")
    assert (await revert(accord, made["merge_id"])).status_code == 200
    assert (await lead_as_seen(accord, pending))["pending"]
    assert (await lead_as_seen(accord, known))["person"]["phone"] is None
    assert not [event for event in await accord.events() if "merge" in event["type"]]
    await lead_of(accord, email="ada@home.example", attributes=good)
    captured = await accord.events("lead.captured.v1")
    assert [event["lead_id"] for event in captured] == [known, pending]
    await sequences_have_no_gap(accord)


async def test_two_people_who_merge_and_revert_at_once_are_decided_one_after_the_other(accord: Running) -> None:
    ids = [await lead_of(accord, external_id=f"c{number}", email=f"p{number}@initech.example") for number in range(8)]
    answers = await asyncio.gather(
        *(
            accord.marketing.post(f"/v1/leads/{one}/merge", {"with": other})
            for one in ids
            for other in ids
            if one != other
        )
    )
    assert {answer.status_code for answer in answers} <= {201, 409}
    made = [answer.json()["merge_id"] for answer in answers if answer.status_code == 201]
    assert len(made) == len(ids) - 1
    for _ in made:
        answers = await asyncio.gather(*(revert(accord, merge_id) for merge_id in made))
        assert {answer.status_code for answer in answers} <= {200, 409}
    assert await keys_by_lead(accord) == {
        one: {f"c{number}", f"p{number}@initech.example"} for number, one in enumerate(ids)
    }
    await sequences_have_no_gap(accord)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([None, "a@x.example", "b@x.example", "c@x.example"]),
            st.sampled_from([None, "+1", "+2", "+3"]),
            st.sampled_from([None, *(digit * 64 for digit in "123")]),
            st.integers(0, 100),
            st.sampled_from(["accepted", "accepted", "quarantined"]),
        ).filter(lambda said: any(said[:3])),
        min_size=4,
        max_size=20,
    ),
    st.integers(1, 10),
    st.randoms(use_true_random=False),
)
def test_no_submission_merges_separated_pair_and_every_key_has_one_lead(
    said: list[tuple[str | None, str | None, str | None, int, str]], first: int, chance: random.Random
) -> None:
    before = CaptureUnitOfWork(NOW, {}, {})
    for number, submission in enumerate(said[:first]):
        before.apply(candidate(number, *submission))
    living = [lead for lead in before.leads.values() if lead.merged_into is None]
    pairs = [frozenset((one.lead_id, other.lead_id)) for one, other in itertools.combinations(living, 2)]
    do_not_merge = set(chance.sample(pairs, min(2, len(pairs))))
    lead_changes = CaptureUnitOfWork(NOW, {lead.lead_id: lead for lead in living}, dict(before.keys), set(do_not_merge))
    for number, submission in enumerate(said[first:], start=first):
        lead_changes.apply(candidate(number, *submission))
    assert all(lead_changes.leads[lead_id].merged_into is None for lead_id in lead_changes.keys.values())
    for one, other in do_not_merge:
        assert _root(lead_changes, one) != _root(lead_changes, other)
    for lead in lead_changes.leads.values():
        if lead.merged_into is None:
            own = {value for (_, value), owner in lead_changes.keys.items() if owner == lead.lead_id}
            shown = {*lead.external_keys, *(value for kind, value in lead.person.items() if kind in ("email", "phone"))}
            assert shown <= own


def _root(lead_changes: CaptureUnitOfWork, lead_id: UUID) -> UUID:
    while (into := lead_changes.leads[lead_id].merged_into) is not None:
        lead_id = into
    return lead_id


async def test_revert_and_correction_during_submissions_of_both(accord: Running) -> None:
    email, phone, other_email = "ada@initech.example", "+12025550143", "ada@hooli.example"
    one = await lead_of(accord, email=email, occurred_at="2026-01-01T00:00:00Z")
    other = await lead_of(accord, phone=phone, occurred_at="2026-01-02T00:00:00Z")
    for _ in range(5):
        made = await merge(accord, one, other)
        rows = [
            {"email": email},
            {"phone": phone},
            {"email": email, "phone": phone},
            {"phone": phone, "email": other_email},
        ]
        posts = [accord.marketing.post("/v1/leads", {"source": "list", **row}) for row in rows * 8]
        patches = [
            accord.marketing.http.patch(f"/v1/leads/{one}", json={"email": address}) for address in (other_email, email)
        ]
        taken_back, *answers = await asyncio.gather(revert(accord, made["merge_id"]), *posts, *patches)
        assert taken_back.status_code == 200
        assert {answer.status_code for answer in answers} <= {200, 201, 409}, [answer.text for answer in answers]
        living = {
            str(row["lead_id"]) for row in await accord.rows("SELECT lead_id FROM lead WHERE merged_into IS NULL")
        }
        owners = await keys_by_lead(accord)
        assert owners.keys() <= living
        assert sum(len(values) for values in owners.values()) == len(set().union(*owners.values()))
    await sequences_have_no_gap(accord)


async def test_an_erased_lead_is_gone_for_merges_corrections_and_suggestions(accord: Running) -> None:
    one, other = await lead_of(accord, external_id="1"), await lead_of(accord, external_id="2")
    third = await lead_of(accord, external_id="3")
    made = await merge(accord, one, third)
    assert (await revert(accord, made["merge_id"])).status_code == 200
    assert (await accord.marketing.http.delete(f"/v1/leads/{one}")).status_code == 204
    get, post = accord.marketing.get, accord.marketing.post
    answers = [
        await post(f"/v1/leads/{one}/merge", {"with": other}),
        await post(f"/v1/leads/{other}/merge", {"with": one}),
        await accord.marketing.http.patch(f"/v1/leads/{one}", json={"title": "CEO"}),
        *[await get(f"/v1/leads/{one}{rest}") for rest in ("", "/merges", "/duplicates")],
    ]
    assert [answer.status_code for answer in answers] == [410] * len(answers)
    assert (await lead_as_seen(accord, third))["person"]["external"] == [{"source": "website", "id": "3"}]
    assert (await get(f"/v1/leads/{third}/merges")).json()["items"] == []
