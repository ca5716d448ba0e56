"""Raw records are dropped after their time; what was judged, consent, and who the lead is stay."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.intake.conftest import Running
from tests.intake.privacy import POLICY, count, record, submitted, waiting

from accord.agreements import ActiveCache, AgreementStore
from accord.db import Database
from accord.ids import id_at, new_id
from intake.policy.service.agreement import POLICY as POLICY_KIND
from intake.policy.service.agreement import compile_policy
from intake.privacy.service import retention as rounds
from intake.privacy.service.retention import Retention
from intake.quarantine.service import Quarantine

AT_ONCE = timedelta(seconds=-1)
"""Everything that there is, is too old."""


@given(st.integers(0, 10**13))
def test_the_id_of_a_moment_comes_before_all_that_are_made_from_then_on(ms: int) -> None:
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)
    assert abs((id_at(at).int >> 80) - ms) <= 1
    assert id_at(datetime(2020, 1, 1, tzinfo=UTC)) < new_id() < id_at(datetime(2100, 1, 1, tzinfo=UTC))
    assert id_at(datetime(1926, 1, 1, tzinfo=UTC)).int == 0


@pytest.fixture
async def shop(accord: Running) -> Running:
    await accord.sign(POLICY)
    return accord


@asynccontextmanager
async def retaining(accord: Running, kept: timedelta) -> AsyncIterator[Retention]:
    database = Database(accord.dsn, pool_size=2, application_name="retention")
    judges = ActiveCache(AgreementStore(database, POLICY_KIND), compile_policy)
    try:
        yield Retention(database, Quarantine(database, judges), kept)
    finally:
        await database.dispose()


async def drop(accord: Running, kept: timedelta = AT_ONCE) -> None:
    async with retaining(accord, kept) as retention:
        while await retention.run_once():
            pass


async def test_what_was_sent_goes_and_what_was_made_of_it_stays(shop: Running) -> None:
    said = {"title": "Zaphod", "attributes": {"industry": "5415", "remark": "Zaphod wants it"}, "external_id": "42"}
    body = await submitted(shop, consent={"basis": "consent", "text": "Zaphod agreed"}, **said)
    before = (await shop.marketing.get(f"/v1/leads/{body['lead_id']}")).json()
    verdicts = "SELECT verdict, quality_score, failed::text, policy_version, recorded_at FROM submission"
    judged = await shop.rows(verdicts)
    await drop(shop)
    assert await count(shop, "submission", "content IS NOT NULL OR canonical IS NOT NULL OR keys IS NOT NULL") == 0
    assert await shop.rows(verdicts) == judged
    assert (await shop.marketing.get(f"/v1/leads/{body['lead_id']}")).json() == before
    assert before["person"]["external"] == [{"source": "website", "id": "42"}]
    (item,) = (await shop.marketing.get(f"/v1/leads/{body['lead_id']}/submissions")).json()["items"]
    assert (item["dropped"], item["content"]) == (True, None)
    told = (await shop.marketing.get(f"/v1/leads/{body['lead_id']}/consents")).json()
    assert told["in_force"]["text"] == "Zaphod agreed"


async def test_what_is_not_old_yet_stays(shop: Running) -> None:
    await submitted(shop)
    await waiting(shop, "bob@initech.example")
    await drop(shop, timedelta(days=90))
    assert await count(shop, "submission", "content IS NULL") == 0
    assert len((await shop.marketing.get("/v1/quarantine")).json()["items"]) == 1


async def test_retention_may_be_a_hundred_years(shop: Running) -> None:
    await submitted(shop)
    await drop(shop, timedelta(days=36_500))
    assert await count(shop, "submission", "content IS NULL") == 0


async def test_refused_records_go_with_the_keys_by_which_they_were_found(shop: Running) -> None:
    answer = await shop.marketing.post("/v1/leads", record("zaphod@mailinator.com"))
    assert answer.status_code == 422
    await drop(shop)
    (row,) = await shop.rows("SELECT s::text AS content, verdict FROM submission s")
    assert (row["verdict"], "zaphod" in row["content"]) == ("rejected", False)


async def test_undecided_submission_expires_with_its_pending_lead(shop: Running) -> None:
    body = await waiting(shop, title="Zaphod")
    lead = await submitted(shop, "bob@initech.example")
    of_bob = await waiting(shop, "bob@initech.example", title="Zaphod")
    await drop(shop)
    assert (await shop.marketing.get("/v1/quarantine")).json()["items"] == []
    one = (await shop.marketing.get(f"/v1/quarantine/{body['submission_id']}")).json()
    assert (one["state"], one["lead_id"], one["record"]) == ("expired", None, None)
    assert [(done["action"], done["by"]) for done in one["decisions"]] == [("expired", "retention")]
    assert (await shop.marketing.get(f"/v1/leads/{body['lead_id']}")).status_code == 404
    other = (await shop.marketing.get(f"/v1/quarantine/{of_bob['submission_id']}")).json()
    assert (other["state"], other["lead_id"]) == ("expired", lead["lead_id"])
    late = await shop.marketing.post(f"/v1/quarantine/{body['submission_id']}/release", None)
    assert (late.status_code, late.json()["state"]) == (409, "expired")
    assert (await submitted(shop))["outcome"] == "created"
    assert await count(shop, "submission", "content LIKE '%Zaphod%' OR canonical LIKE '%Zaphod%'") == 0


async def test_what_people_wrote_about_a_record_goes_with_it_and_that_they_decided_stays(shop: Running) -> None:
    body = await waiting(shop)
    path = f"/v1/quarantine/{body['submission_id']}"
    await shop.marketing.post(f"{path}/correct", {"fields": {"title": "Zaphod"}})
    await shop.marketing.post(f"{path}/release", {"note": "Zaphod is known to us"})
    await drop(shop)
    one = (await shop.marketing.get(path)).json()
    assert [(done["action"], done["by"], done["note"], done["fields"]) for done in one["decisions"]] == [
        ("requarantined", "marketing", None, None),
        ("released", "marketing", None, None),
    ]


async def test_it_goes_on_where_it_stopped_in_bounded_rounds(shop: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "ROWS_MAX", 10)
    monkeypatch.setattr(rounds, "QUARANTINED_MAX", 5)
    rows = [record(f"p{number}@initech.example") for number in range(25)]
    pending = [record(f"q{number}@initech.example", attributes={"industry": "11"}) for number in range(12)]
    (await shop.marketing.post("/v1/leads:batch", [*rows, *pending])).raise_for_status()
    left = []
    async with retaining(shop, AT_ONCE) as retention:
        while True:
            more = await retention.run_once()
            left.append(await count(shop, "submission", "content IS NOT NULL"))
            if not more:
                break
    assert left == [22, 7, 0, 0]
    assert await count(shop, "lead") == 25
    await submitted(shop, "late@initech.example")
    async with retaining(shop, AT_ONCE) as retention:
        assert await retention.run_once() is False
    assert await count(shop, "submission", "content IS NOT NULL") == 0


async def test_the_walk_reads_what_is_new_by_the_primary_key(shop: Running) -> None:
    await submitted(shop)
    await drop(shop)
    (row,) = await shop.rows(
        "SELECT dropped_to, (SELECT max(submission_id::text) FROM submission) AS last FROM retention"
    )
    assert str(row["dropped_to"]) == row["last"]


async def test_two_who_drop_at_once_do_not_meet(shop: Running) -> None:
    pending = [record(f"q{number}@initech.example", attributes={"industry": "11"}) for number in range(20)]
    (await shop.marketing.post("/v1/leads:batch", pending)).raise_for_status()
    async with retaining(shop, AT_ONCE) as one, retaining(shop, AT_ONCE) as other:
        await asyncio.gather(one.run_once(), other.run_once())
    assert await count(shop, "lead") == 0
    assert await count(shop, "quarantine_decision") == 20


@pytest.mark.parametrize("action", ["release", "correct", "discard"])
async def test_record_decided_after_retention_has_passed_it_keeps_no_content(shop: Running, action: str) -> None:
    body = await waiting(shop, title="Zaphod")
    async with retaining(shop, AT_ONCE) as retention:
        await retention._drop(new_id())  # the walk comes by before anybody lets go what is overdue
    assert await count(shop, "submission", "content IS NOT NULL") == 1
    said = {
        "release": {"note": "Zaphod is known"},
        "correct": {"fields": {"title": "Zaphod Beeblebrox", "attributes": {"industry": "5415"}}},
        "discard": {"reason": "Zaphod is a joke"},
    }[action]
    answer = await shop.marketing.post(f"/v1/quarantine/{body['submission_id']}/{action}", said)
    assert answer.status_code == 200, answer.text
    await drop(shop)
    assert await count(shop, "submission") == 1
    assert await count(shop, "submission", "content IS NOT NULL OR canonical IS NOT NULL OR keys IS NOT NULL") == 0
    assert await count(shop, "quarantine_decision") == 1
    assert await count(shop, "quarantine_decision", "note IS NOT NULL OR fields IS NOT NULL") == 0
