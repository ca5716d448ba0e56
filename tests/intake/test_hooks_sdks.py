"""Segment's and RudderStack's own SDKs, unchanged, against intake as a process of its own."""

from __future__ import annotations

import asyncio
import base64
import gzip
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
import rudderstack.analytics.client
import segment.analytics.client
from tests.intake.conftest import KEYS
from tests.intake.hook_service import SEALING_KEY, HookClient, outcomes, running_hook_client
from tests.intake.processes import intake_process
from tests.intake.tools import dump_json

from intake.sources.domain.adapters.segment import CALLS

WRITE_KEY = "wk_0123456789abcdefghij"


@pytest.fixture
async def address(database_url: str, keys_file: Path) -> AsyncIterator[str]:
    async with intake_process("api", database_url, keys_file, secrets_keys=SEALING_KEY) as intake:
        async with httpx.AsyncClient(base_url=intake.url, trust_env=False) as http:
            body = {"adapter": "segment", "secrets": {"write_key": WRITE_KEY}}
            headers = {"authorization": f"Bearer {KEYS['marketing']}"}
            (await http.put("/v1/sources/website", json=body, headers=headers)).raise_for_status()
        yield f"{intake.url}/v1/hooks/website"


def _segment(host: str, errors: list[Any], *, compress: bool) -> Any:
    return segment.analytics.client.Client(
        WRITE_KEY, host=host, gzip=compress, on_error=lambda error, _: errors.append(error), max_retries=0
    )


def _rudderstack(host: str, errors: list[Any], *, compress: bool) -> Any:
    return rudderstack.analytics.client.Client(
        WRITE_KEY, host=host, gzip=compress, on_error=lambda error, _: errors.append(error), max_retries=0
    )


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("sdk", [_segment, _rudderstack])
async def test_sdk_of_a_tool_sends_to_a_source(
    address: str, database_url: str, sdk: Callable[..., Any], compress: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    errors: list[Any] = []

    def call() -> None:
        client = sdk(address, errors, compress=compress)
        client.identify("u-1", {"email": "ada@initech.example", "firstName": "Ada"})
        client.track("u-1", "Demo Requested", {"plan": "trial"})
        client.page("u-1", "Docs", "Pricing", {"url": "https://initech.example/pricing"})
        client.screen("u-1", "App", "Home")
        client.flush()
        client.join()

    await asyncio.to_thread(call)

    assert errors == []
    connection = await asyncpg.connect(database_url.replace("postgresql+asyncpg", "postgresql"))
    try:
        [lead] = await connection.fetch("SELECT email, first_name, source FROM lead")
        kinds = [row[0] for row in await connection.fetch("SELECT kind FROM activity ORDER BY activity_id")]
        kept = " ".join(row[0] or "" for row in await connection.fetch("SELECT content FROM submission"))
    finally:
        await connection.close()
    assert tuple(lead) == ("ada@initech.example", "Ada", "website")
    assert sorted(kinds) == ["demo.requested", "page.viewed", "page.viewed"]
    assert WRITE_KEY not in kept


@pytest.fixture
async def intake(database_url: str, keys_file: Path) -> AsyncIterator[HookClient]:
    async with running_hook_client(database_url, keys_file) as one:
        await one.connect("segment", "website", secrets={"write_key": WRITE_KEY})
        await one.connect("generic", "form")
        yield one


def basic(user: str, password: str = "") -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


async def test_each_call_says_what_its_message_is(intake: HookClient) -> None:
    person = {"userId": "u-1", "traits": {"email": "ada@initech.example"}, "writeKey": WRITE_KEY}
    expected = {"identify": "created", "track": "recorded", "page": "recorded", "screen": "recorded"}

    for call, outcome in expected.items():
        message = {**person, "event": "Demo Requested", "messageId": call}
        sent = await intake.plain.post(f"/v1/hooks/website/v1/{call}", json=message, headers=basic(WRITE_KEY))
        assert outcomes(sent) == [outcome], call

    rows = await intake.rows("SELECT content FROM submission UNION ALL SELECT content FROM hook_event")
    assert not any(WRITE_KEY in row["content"] for row in rows)


async def test_only_the_write_key_opens_the_calls(intake: HookClient) -> None:
    message = {"userId": "u-1", "traits": {"email": "ada@initech.example"}}
    tries: list[dict[str, str]] = [
        {},
        basic("another"),
        basic("", WRITE_KEY),
        basic(WRITE_KEY + "x"),
        {"authorization": f"Bearer {WRITE_KEY}"},
        {"authorization": "Basic !!!"},
        {"authorization": f"Basic {WRITE_KEY}"},
    ]
    for headers in tries:
        answer = await intake.plain.post("/v1/hooks/website/v1/identify", json=message, headers=headers)
        assert answer.status_code == 401, headers

    lower = {"authorization": basic(WRITE_KEY, "x")["authorization"].replace("Basic", "basic")}
    answer = await intake.plain.post("/v1/hooks/website/v1/identify", json=message, headers=lower)
    assert outcomes(answer) == ["created"]


async def test_other_calls_and_other_tools_have_no_such_path(intake: HookClient) -> None:
    for path in ("website/v1/import", "website/v1/", "website/v2/batch", "form/v1/batch", "nowhere/v1/batch"):
        answer = await intake.plain.post(f"/v1/hooks/{path}", json={"batch": []}, headers=basic(WRITE_KEY))
        assert answer.status_code == 404, path
    assert len(CALLS) == 7


async def test_context_of_a_batch_holds_for_its_messages(intake: HookClient) -> None:
    batch = {
        "batch": [
            {"type": "identify", "userId": "u-1", "traits": {"email": "ada@initech.example"}},
            {"type": "identify", "userId": "u-2", "traits": {"email": "b@initech.example"}, "context": {}},
        ],
        "context": {"campaign": {"name": "spring"}},
        "sentAt": "2026-01-04T09:30:00Z",
    }
    body = gzip.compress(dump_json(batch))
    headers = {**basic(WRITE_KEY), "content-encoding": "gzip", "content-type": "application/json"}

    assert (
        outcomes(await intake.plain.post("/v1/hooks/website/v1/batch", content=body, headers=headers))
        == ["created"] * 2
    )

    campaigns = {lead["email"]: lead["campaign"] for lead in await intake.leads()}
    assert "spring" in campaigns["ada@initech.example"]
    assert campaigns["b@initech.example"] is None


async def test_short_write_key_is_refused(intake: HookClient) -> None:
    answer = await intake.put("other", {"adapter": "segment", "secrets": {"write_key": "short"}})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/secrets/write_key")


ODD_CALLS: dict[str, tuple[str, Any, list[str]]] = {
    "a list": ("batch", [{"type": "identify", "userId": "1", "traits": {"email": "a@initech.example"}}], ["created"]),
    "an empty batch": ("batch", {"batch": []}, []),
    "a batch that is none": ("batch", {"batch": {}}, ["failed"]),
    "no batch": ("batch", {"batch": None}, ["failed"]),
    "a message to batch": ("batch", {"type": "identify", "userId": "1"}, ["created"]),
    "the message says more than the call": (
        "track",
        {"type": "identify", "userId": "1", "traits": {"email": "a@initech.example"}},
        ["created"],
    ),
    "a batch to a call": ("identify", {"batch": [{"userId": "1"}, {"userId": "2"}]}, ["created", "created"]),
    "a text": ("identify", "ada", ["failed"]),
    "messages that are none": ("batch", {"batch": [None, 1, "x", [], {}]}, ["failed"] * 5),
    "anonymous": ("page", {"anonymousId": "x", "properties": {}}, ["ignored"]),
    "alias without the old id": ("alias", {"userId": "1"}, ["ignored"]),
    "group of nobody": ("group", {"groupId": "1"}, ["failed"]),
}


@pytest.mark.parametrize("case", ODD_CALLS)
async def test_odd_call_of_an_sdk_is_understood_or_kept(intake: HookClient, case: str) -> None:
    call, body, expected = ODD_CALLS[case]
    answer = await intake.plain.post(f"/v1/hooks/website/v1/{call}", json=body, headers=basic(WRITE_KEY))
    assert outcomes(answer) == expected
    assert len(await intake.events_of("website", "failed")) == expected.count("failed")
