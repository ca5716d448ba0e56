"""What is surely a person's does not leave intake, however it is encoded, and the answer names it; ids of campaigns leave."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.intake.hook_service import HookClient, left_out, outcomes, running_hook_client

from accord.contracts.personal import find_personal
from intake.policy.domain.attributes import NotOfType, convert_to_type


@pytest.fixture
async def intake(database_url: str, keys_file: Path) -> AsyncIterator[HookClient]:
    async with running_hook_client(database_url, keys_file) as one:
        yield one


PERSONAL = [
    "ada@initech.example",
    "mail ada@initech.example now",
    "Ada <ada@initech.example>",
    "mailto:ada@initech.example",
    "ada@m\u00fcnchen.example",
    "ada%40initech.example",
    "ada%2540initech.example",
    "ada%25252540initech.example",
    "ada&#64;initech.example",
    "ada\uff20initech.example",
    "a\u200bda@initech.example",
    "ada @ initech.example",
    "a @ b",
    "a%2540b",
    "ada(at)initech.example",
    "ada [at] initech [dot] example",
    "+12025550177",
    "+1 202 555 0177",
    "+49 (0)171 1234567",
    "+49-171-1234567",
    "0049 171 1234567",
    "%2B12025550177",
    "%252B1%20202%20555%200177",
    "1+202+555+0177",
    "+1+202+555+0177",
    "202-555-0177",
    "202\u2013555\u20130177",
    "202\u2011555\u20110177",
    "(202) 555-0177",
    "202.555.0177",
    "202_555_0177",
    "1-202-555-0177",
    "\uff12\uff10\uff12-\uff15\uff15\uff15-\uff10\uff11\uff17\uff17",
    "+\u0664\u0669\u0661\u0667\u0661\u0661\u0662\u0663\u0664\u0665\u0666\u0667",
    "spring_+4917112345678",
]
WORDS = [
    "spring",
    "120210123456789",
    "20712345678",
    "12025550177",
    "123456789012345678",
    "120210123456789|23851234567890",
    "(US) 2026-10-01 - 2026-12-31",
    "2026-10-01_2026-12-31",
    "01.10.2026 - 31.12.2026",
    "20261001 20261231",
    "2026-11-27 18:00 +01:00",
    "win@work 2026",
    "Lunch @ 12",
    "@acme",
    "50% off",
    "+50% sale 2026",
    "brand+retargeting+2026",
    "c++",
    "DE123456789",
    "150483782",
    "15-048-3782",
    "BE 0123.456.789",
    "732 829 320",
    "978-3-16-148410-0",
    "192.168.100.100",
]


@pytest.mark.parametrize("text", PERSONAL)
def test_what_is_surely_somebodys_is_recognised(text: str) -> None:
    assert find_personal(text) is not None
    with pytest.raises(NotOfType):
        convert_to_type(text, "string")


@pytest.mark.parametrize("text", WORDS)
def test_word_that_is_nobodys_passes(text: str) -> None:
    assert find_personal(text) is None
    assert convert_to_type(text, "string") == text


async def test_campaign_word_leaves_or_is_named(intake: HookClient) -> None:
    for number, word in enumerate([*WORDS, *PERSONAL]):
        lead = {"source": "ads", "email": f"c{number}@initech.example", "campaign": {"name": word, "medium": "cpc"}}
        answer = await intake.marketing.post("/v1/leads", lead)
        assert answer.status_code == 201, answer.text
        assert left_out(answer.json()) == ([] if word in WORDS else ["/campaign/name"]), word
        assert word not in str(answer.json()["left_out"])
    activity = {"email": "c0@initech.example", "kind": "ad.shown", "by": "marketing", "campaign": {"term": "a%40b"}}
    answer = await intake.marketing.post("/v1/activities", activity)
    assert (answer.status_code, left_out(answer.json())) == (202, ["/campaign/term"])
    campaigns = [one["state"]["campaign"] for one in await intake.events("lead.captured.v1")]
    assert [one["name"] for one in campaigns if one.get("name")] == WORDS
    assert {one["medium"] for one in campaigns} == {"cpc"}
    (recorded,) = await intake.events("activity.recorded.v1")
    assert not recorded.get("campaign")


async def test_source_kind_and_actor_name_nobody(intake: HookClient) -> None:
    ada = {"source": "web", "email": "ada@initech.example"}
    assert (await intake.marketing.post("/v1/leads", ada)).status_code == 201
    for source in ("+1 202 555 0177", "list of 202-555-0177", "ada%40initech.example", "0049 171 1234567"):
        answer = await intake.marketing.post("/v1/leads", {**ada, "source": source})
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/source"), source
        assert (await intake.put(source, {"adapter": "generic"})).status_code == 422
        sent = await intake.marketing.http.post(
            "/v1/imports", content=b"email\n", headers={"Content-Type": "text/csv"}, params={"source": source}
        )
        assert sent.status_code == 422
    activity = {"email": ada["email"], "kind": "call.attempted", "by": "sales"}
    for field, value in (("kind", "call.n_202_555_0177"), ("actor", "202-555-0177"), ("actor", "agent:1-202-555-0177")):
        answer = await intake.marketing.post("/v1/activities", {**activity, field: value})
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, f"/{field}"), value
    ours = {"actor": "019f3b1e-7a52-7c31-9a55-8a4f3c1d2e10", "kind": "order_150483782.placed"}
    assert (await intake.marketing.post("/v1/activities", {**activity, **ours})).status_code == 202
    await intake.connect("segment")
    track = {
        "type": "track",
        "messageId": "t1",
        "userId": "u1",
        "event": "Called 202-555-0177",
        "context": {"traits": {"email": ada["email"]}},
    }
    answer = await intake.send("segment", body=json.dumps(track).encode())
    assert outcomes(answer) == ["failed"]
    assert "202" not in answer.json()["results"][0]["reason"]
