"""A person is erased: every row of theirs goes in one transaction, the ids stay gone, and coming again they are somebody new."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.intake.conftest import Running, running
from tests.intake.privacy import POLICY, count, record, submitted, waiting

from accord.contracts.values import utc
from intake.leads.domain.keys import IdentityKey, format_key, parse_key
from intake.leads.domain.lead import Lead
from intake.privacy.domain import build_erased_events

NOW = utc(2027, 1, 2)
KEPT = frozenset(
    {"alembic_version", "agreement_version", "agreement_signature", "agreement_event", "outbox", "account"}
)
"""Tables in which nothing of a person ever stands, and the company."""


def lead(number: int, sequence: int) -> Lead:
    return Lead(UUID(int=number), "website", NOW, "accepted", {}, {}, {}, sequence=sequence)


# -- the pure rules --


@given(st.sampled_from(["email", "phone", "external"]), st.text(max_size=20))
def test_a_key_is_a_word_and_back(kind: Any, value: str) -> None:
    key: IdentityKey = (kind, value)
    assert parse_key(format_key(key)) == key


def test_a_word_of_no_kind_is_no_key() -> None:
    with pytest.raises(ValueError, match="no kind"):
        parse_key("name:ada")


def test_everybody_who_has_heard_of_an_id_hears_its_last() -> None:
    told = build_erased_events([lead(3, 4), lead(1, 1), lead(2, 0)], NOW)
    assert [(event.lead_id, event.sequence) for event in told] == [(UUID(int=1), 2), (UUID(int=3), 5)]


# -- over HTTP --


@pytest.fixture
async def shop(accord: Running) -> Running:
    await accord.sign(POLICY)
    return accord


async def erase(accord: Running, lead_id: str, key: str = "marketing", **query: str) -> httpx.Response:
    return await accord.caller(key).http.delete(f"/v1/leads/{lead_id}", params=query)


async def everything(accord: Running) -> list[tuple[str, str]]:
    """Table and content of every row of the database."""
    tables = await accord.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    return [
        (table["tablename"], row["content"])
        for table in tables
        for row in await accord.rows(f'SELECT t::text AS content FROM "{table["tablename"]}" t')
    ]


async def found(accord: Running, *words: str) -> set[str]:
    """The tables in which one of these words stands, as text or as the digits of its bytes."""
    needles = [needle for word in words for needle in (word.lower(), word.encode().hex())]
    return {
        table for table, content in await everything(accord) if any(needle in content.lower() for needle in needles)
    }


async def test_nothing_of_an_erased_person_is_left_anywhere_and_nothing_of_others_is_gone(shop: Running) -> None:
    word = f"zq{uuid4().hex[:10]}"
    mail, phone = f"{word}@initech.example", "+12025550143"
    said = {"first_name": word, "title": f"{word} title", "consent": {"basis": "consent", "text": f"{word} agreed"}}
    older = await submitted(shop, None, phone=phone, last_name=word, external_id=f"{word}-7")
    keyed = {"Idempotency-Key": f"{word}-key"}
    body = (await shop.marketing.post("/v1/leads", record(mail, **said), **keyed)).json()
    joined = await submitted(shop, mail, phone=phone, **said)
    assert joined["outcome"] == "merged"
    activity = {"lead_id": joined["lead_id"], "kind": "email.opened", "by": "lead", "properties": {"text": word}}
    await shop.marketing.post("/v1/activities", activity, **{"Idempotency-Key": f"{word}-activity"})
    held_back = await waiting(shop, mail, title=f"{word} waits")
    corrected = await waiting(shop, mail, title=f"{word} waits too")
    fields = {"fields": {"title": f"{word} corrected"}}
    await shop.marketing.post(f"/v1/quarantine/{corrected['submission_id']}/correct", fields)
    note = {"note": f"{word} is known to us"}
    await shop.marketing.post(f"/v1/quarantine/{corrected['submission_id']}/release", note)
    refused = record(f"{word}@mailinator.com", phone=phone, title=word)
    answer = await shop.marketing.post("/v1/leads", refused, **{"Idempotency-Key": f"{word}-refused"})
    assert answer.status_code == 422
    other = await submitted(shop, "bob@initech.example", first_name="Bob")
    assert await found(shop, word, "2025550143") >= {
        *(
            "lead",
            "identity_key",
            "submission",
            "activity",
            "merge",
            "consent",
            "quarantine_decision",
            "idempotency_key",
        )
    }

    gone = await erase(shop, body["lead_id"], reason="consent_withdrawn")
    assert (gone.status_code, gone.content) == (204, b"")
    assert await found(shop, word, "2025550143") == set()

    ids = sorted([older["lead_id"], body["lead_id"]])
    proof = (await shop.marketing.get(gone.headers["location"])).json()
    assert (proof["lead_ids"], proof["reason"], proof["erased_by"]) == (ids, "consent_withdrawn", "marketing")
    removed = {"leads": 2, "activities": 1, "submissions": 6, "consents": 2, "merges": 1, "saved_answers": 3}
    assert removed.items() <= proof["removed"].items()
    assert (await shop.marketing.get("/v1/erasures")).json()["items"] == [proof]
    told = await shop.events("lead.erased.v1")
    assert sorted(event["key"] for event in told) == ids
    assert word not in str(await shop.events())
    sequences: dict[str, list[int]] = {}
    for event in await shop.events():
        if "sequence" in event:
            sequences.setdefault(event["key"], []).append(event["sequence"])
    assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in sequences.values())

    kept = (await shop.marketing.get(f"/v1/leads/{other['lead_id']}")).json()
    assert kept["person"]["first_name"] == "Bob"
    waits = await shop.marketing.get(f"/v1/quarantine/{held_back['submission_id']}")
    assert waits.status_code == 410


async def test_an_erased_id_is_gone_for_every_request_about_it(shop: Running) -> None:
    older = await submitted(shop, None, phone="+12025550143")
    lead_ = await submitted(shop)
    await submitted(shop, phone="+12025550143")
    other = await submitted(shop, "bob@initech.example")
    assert (await erase(shop, older["lead_id"])).status_code == 204
    for lead_id in (older["lead_id"], lead_["lead_id"]):
        base = f"/v1/leads/{lead_id}"
        answers = [
            await erase(shop, lead_id),
            await shop.marketing.get(base),
            await shop.marketing.get(f"{base}/export"),
            await shop.marketing.get(f"{base}/submissions"),
            await shop.marketing.get(f"{base}/consents"),
            await shop.marketing.post(f"{base}/consents", {"basis": "withdrawn"}),
            await shop.marketing.post(f"{base}/merge", {"with": other["lead_id"]}),
            await shop.marketing.get(f"{base}/merges"),
            await shop.marketing.get(f"{base}/duplicates"),
            await shop.marketing.http.patch(base, json={"title": "CTO"}, headers={"If-Match": '"1"'}),
            await shop.marketing.post("/v1/activities", {"lead_id": lead_id, "kind": "page.viewed", "by": "lead"}),
        ]
        assert [(answer.request.url.path, answer.status_code) for answer in answers if answer.status_code != 410] == []
        assert {answer.json()["type"] for answer in answers} == {"/problems/gone"}
    assert (await shop.marketing.get("/v1/leads", email="ada@initech.example")).json()["items"] == []
    named = {"email": "ada@initech.example", "kind": "page.viewed", "by": "lead"}
    assert (await shop.marketing.post("/v1/activities", named)).status_code == 404


async def test_erased_person_returning_is_a_new_lead(shop: Running) -> None:
    first = await submitted(shop, title="CTO")
    await erase(shop, first["lead_id"])
    again = await submitted(shop)
    assert (again["outcome"], again["lead_id"] != first["lead_id"]) == ("created", True)
    lead_ = (await shop.marketing.get(f"/v1/leads/{again['lead_id']}")).json()
    assert (lead_["person"]["title"], lead_["merged"]) == (None, [])
    assert (await shop.marketing.get(f"/v1/leads/{first['lead_id']}")).status_code == 410


async def test_request_repeated_after_erasure_restores_nobody(shop: Running) -> None:
    one, many = {"Idempotency-Key": "event-1"}, {"Idempotency-Key": "event-2"}
    both = [record(), record("bob@initech.example")]
    first = (await shop.marketing.post("/v1/leads", record(), **one)).json()
    await shop.marketing.post("/v1/leads:batch", both, **many)
    await erase(shop, first["lead_id"])
    again = await shop.marketing.post("/v1/leads", record(), **one)
    assert (again.status_code, again.json()["type"]) == (410, "/problems/gone")
    rows = (await shop.marketing.post("/v1/leads:batch", both, **many)).json()
    assert [row["status"] for row in rows["results"]] == [410, 200]
    assert await count(shop, "lead") == 1


async def test_pending_lead_is_erased_like_any_other(shop: Running) -> None:
    body = await waiting(shop)
    assert (await erase(shop, body["lead_id"])).status_code == 204
    (event,) = await shop.events("lead.erased.v1")
    assert (event["key"], event["sequence"]) == (body["lead_id"], 2)
    for act, said in (("release", None), ("discard", {"reason": "Junk"}), ("correct", {"fields": {"title": "x"}})):
        answer = await shop.marketing.post(f"/v1/quarantine/{body['submission_id']}/{act}", said)
        assert answer.status_code == 410, act
    assert (await shop.marketing.get("/v1/quarantine")).json()["items"] == []


async def test_a_discarded_record_of_the_person_goes_too_although_no_lead_has_it(shop: Running) -> None:
    discarded = await waiting(shop, title="Zaphod")
    await shop.marketing.post(f"/v1/quarantine/{discarded['submission_id']}/discard", {"reason": "Zaphod again"})
    keyed = {"Idempotency-Key": "zaphod"}
    lead_ = (await shop.marketing.post("/v1/leads", record(), **keyed)).json()
    await erase(shop, lead_["lead_id"])
    assert await found(shop, "zaphod", "initech.example") <= {"account"}


async def test_of_two_that_were_discarded_one_after_the_other_neither_stays_behind(shop: Running) -> None:
    pending = [await waiting(shop, title="Zaphod"), await waiting(shop, title="Zaphod again")]
    for one in pending:
        answer = await shop.marketing.post(f"/v1/quarantine/{one['submission_id']}/discard", {"reason": "Junk"})
        assert answer.status_code == 200
    assert await count(shop, "submission", "lead_id IS NOT NULL") == 0
    lead_ = await submitted(shop)
    await erase(shop, lead_["lead_id"])
    assert await found(shop, "zaphod", "initech.example") <= {"account"}


async def test_erasing_needs_the_scope_and_an_id_that_there_is(shop: Running) -> None:
    body = await submitted(shop)
    assert (await erase(shop, body["lead_id"], "reader")).status_code == 403
    assert (await erase(shop, str(uuid4()))).status_code == 404
    assert (await erase(shop, "ada")).status_code == 422
    assert (await erase(shop, body["lead_id"], reason="because Ada asked")).status_code == 422
    assert (await shop.caller("reader").get("/v1/erasures")).status_code == 403
    assert (await shop.marketing.get(f"/v1/erasures/{uuid4()}")).status_code == 404
    assert (await erase(shop, body["lead_id"])).status_code == 204


async def test_erasures_are_listed_newest_first_a_page_at_a_time(shop: Running) -> None:
    made = [(await submitted(shop, f"p{number}@initech.example"))["lead_id"] for number in range(5)]
    for lead_id in made:
        await erase(shop, lead_id)
    first = (await shop.marketing.get("/v1/erasures", limit="3")).json()
    rest = (await shop.marketing.get("/v1/erasures", limit="3", cursor=first["next_cursor"])).json()
    ids = [item["lead_ids"][0] for item in [*first["items"], *rest["items"]]]
    assert (ids, rest["next_cursor"]) == (made[::-1], None)


async def test_of_two_concurrent_erasures_one_gets_410(shop: Running) -> None:
    for number in range(5):
        body = await submitted(shop, f"p{number}@initech.example")
        answers = await asyncio.gather(*(erase(shop, body["lead_id"]) for _ in range(3)))
        assert sorted(answer.status_code for answer in answers) == [204, 410, 410]
    assert await count(shop, "erasure") == 5


async def test_a_person_erased_while_they_come_again_is_never_half_there(
    shop: Running, database_url: str, keys_file: Path
) -> None:
    """Captures, activities, merges and quarantine of the same people race their erasure through two replicas. Every answer is one that may
    be given, and every lead that is left is whole."""
    people = [(f"p{number}@initech.example", f"+1202555{1000 + number}") for number in range(5)]
    answers: list[httpx.Response] = []
    done = asyncio.Event()
    chance = random.Random(7)

    async def come(app: Running, number: int, first: int) -> None:
        mail, phone = people[number]
        other = people[(number + 1) % len(people)][1]
        shapes = [
            record(mail),
            record(None, phone=phone),
            record(mail, phone=phone),
            record(mail, attributes={"industry": "11"}),
            record(None, phone=other, external_id=f"c{number}"),
        ]
        for turn in range(first, first + 8):
            said = {"title": f"turn {turn}", "consent": {"basis": "consent"}}
            shape = chance.choice(shapes) | said
            answers.append(await app.marketing.post("/v1/leads", shape, **{"Idempotency-Key": f"{number}-{turn}"}))
            activity = {"email": mail, "kind": "page.viewed", "by": "lead"}
            answers.append(await app.marketing.post("/v1/activities", activity))

    async def go(app: Running, number: int) -> None:
        while not done.is_set():
            by_mail, by_phone = ({"email": people[number][0]}, {"phone": people[number][1]})
            items = (await app.marketing.get("/v1/leads", **chance.choice([by_mail, by_phone]))).json()["items"]
            answers.extend([await erase(app, item["lead_id"]) for item in items if chance.random() < 0.5])

    async def let_in(app: Running) -> None:
        while not done.is_set():
            items = (await app.marketing.get("/v1/quarantine")).json()["items"]
            paths = [f"/v1/quarantine/{item['submission_id']}" for item in items]
            answers.extend([await app.marketing.post(f"{path}/release", None) for path in paths[::2]])
            answers.extend([await app.marketing.post(f"{path}/discard", {"reason": "Junk"}) for path in paths[1::2]])

    async with running(database_url, keys_file) as replica:
        numbers = range(len(people))
        beside = [go(app, number) for number in numbers for app in (shop, replica)]
        tasks = [asyncio.create_task(act) for act in (*beside, let_in(shop), let_in(replica))]
        await asyncio.gather(
            *(come(app, number, first) for number in numbers for first, app in ((0, shop), (9, replica)))
        )
        done.set()
        await asyncio.gather(*tasks)
    assert {answer.status_code for answer in answers} <= {200, 201, 202, 204, 404, 409, 410}
    assert await count(shop, "erasure") > len(people)
    await all_is_whole(shop)


async def all_is_whole(accord: Running) -> None:
    """No row speaks of a lead that is not there, no erased id lives, and no living lead is without the keys that it shows."""
    for table in ("identity_key", "activity", "submission", "consent"):
        assert await count(accord, table, "lead_id IS NOT NULL AND lead_id NOT IN (SELECT lead_id FROM lead)") == 0, (
            table
        )
    assert await count(accord, "lead", "lead_id IN (SELECT id FROM erased_id)") == 0
    assert await count(accord, "lead", "merged_into IS NOT NULL AND merged_into NOT IN (SELECT lead_id FROM lead)") == 0
    keyless = "merged_into IS NULL AND NOT EXISTS (SELECT FROM identity_key k WHERE k.lead_id = lead.lead_id)"
    assert await count(accord, "lead", keyless) == 0
    events = await accord.events()
    erased = {event["key"] for event in events if event["type"] == "lead.erased.v1"}
    last = {event["key"]: event["type"] for event in events}
    assert {last[key] for key in erased} <= {"lead.erased.v1"}
    numbers: dict[str, list[int]] = {}
    for event in events:
        if "sequence" in event:
            numbers.setdefault(event["key"], []).append(event["sequence"])
    assert [key for key, found_ in numbers.items() if found_ != list(range(1, len(found_) + 1))] == []


@pytest.mark.parametrize("holder_waits", [False, True])
async def test_record_that_waits_with_another_lead_is_exported_and_erased_with_whom_it_names(
    shop: Running, holder_waits: bool
) -> None:
    phone = "+12025550143"
    hold = waiting if holder_waits else submitted
    alice = await hold(shop, "alice@initech.example", phone=phone)
    bob = await hold(shop, "bob@initech.example")
    row = await waiting(shop, "bob@initech.example", phone=phone, external_id="bob-7", last_name="Bobson")
    assert row["lead_id"] == alice["lead_id"]
    document = (await shop.marketing.get(f"/v1/leads/{bob['lead_id']}/export")).json()
    assert row["submission_id"] in [one["submission_id"] for one in document["submissions"]]

    assert (await erase(shop, bob["lead_id"])).status_code == 204

    assert await found(shop, "bob@initech.example", "Bobson", "bob-7") == set()
    assert (await shop.marketing.get(f"/v1/quarantine/{row['submission_id']}")).status_code == 410
    assert (await shop.marketing.get(f"/v1/leads/{alice['lead_id']}")).status_code == 200
    assert await count(shop, "identity_key", f"lead_id = '{alice['lead_id']}'") == 2


async def test_pending_lead_goes_when_the_last_record_that_waits_for_it_is_erased(shop: Running) -> None:
    phone = "+12025550143"
    alice = await waiting(shop, "alice@initech.example", phone=phone)
    bob = await waiting(shop, "bob@initech.example")
    row = await waiting(shop, "bob@initech.example", phone=phone)
    assert row["lead_id"] == alice["lead_id"]
    discarded = await shop.marketing.post(f"/v1/quarantine/{alice['submission_id']}/discard", {"reason": "no lead"})
    assert discarded.status_code == 200, discarded.text

    assert (await erase(shop, bob["lead_id"])).status_code == 204

    assert await count(shop, "lead") == await count(shop, "identity_key") == 0
    assert await found(shop, "bob@initech.example") == set()
