"""What senders really do beyond the documents of their vendor: batches of any size, other names of headers, other forms of a body."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.intake.hook_service import HookClient, outcomes, running_hook_client
from tests.intake.tools import SEGMENT, TOOLS, dump_json

from intake.sources.domain.adapters.base import EVENTS_MAX


@pytest.fixture
async def intake(database_url: str, keys_file: Path) -> AsyncIterator[HookClient]:
    async with running_hook_client(database_url, keys_file) as one:
        yield one


async def test_signed_array_of_segment_is_taken(intake: HookClient) -> None:
    await intake.connect("segment")
    page = {**SEGMENT, "type": "page", "messageId": "m-2"}
    odd = {"kind": "unheard of"}

    answer = await intake.send("segment", body=dump_json([SEGMENT, page, odd]))

    assert outcomes(answer) == ["created", "recorded", "failed"]
    [kept] = await intake.events_of("segment", "failed")
    assert kept["error"] == "its type is not one of Segment's"
    whole = await intake.admin.get(f"/v1/sources/segment/events/{kept['hook_event_id']}")
    assert whole.json()["content"] == odd


async def test_every_event_of_a_large_body_is_taken(intake: HookClient) -> None:
    await intake.connect("generic")
    people = [{"email": f"n{number}@initech.example"} for number in range(1_200)]

    assert outcomes(await intake.send("generic", body=dump_json([*people, people[0]]))) == ["created"] * 1_200 + [
        "replayed"
    ]

    assert len(await intake.leads()) == 1_200


@pytest.mark.parametrize("tool", ["generic", "segment", "hubspot", "mautic", "meta-lead-ads", "cloudevents"])
async def test_body_of_too_many_events_is_413_and_nothing_of_it_is_saved(intake: HookClient, tool: str) -> None:
    await intake.connect(tool)
    events = [{"email": f"n{number}@initech.example"} for number in range(EVENTS_MAX + 1)]
    body = {
        "mautic": {"mautic.lead_post_save_new": events},
        "meta-lead-ads": {"entry": [{"changes": events}]},
    }.get(tool, events)
    call = TOOLS[tool].call(tool, dump_json(body))
    kind = {"content-type": "application/cloudevents-batch+json"} if tool == "cloudevents" else {}

    answer = await intake.plain.post(call.path, content=call.body, headers={**call.headers, **kind})

    assert (answer.status_code, answer.json()["type"]) == (413, "/problems/too-many-events")
    assert await intake.rows("SELECT 1 FROM submission UNION ALL SELECT 1 FROM hook_event") == []


async def test_idempotency_key_of_everybody_loses_nobody(intake: HookClient) -> None:
    await intake.connect("generic")
    headers = {"x-accord-secret": TOOLS["generic"].secret, "idempotency-key": "zapier"}

    answers = [
        await intake.plain.post("/v1/hooks/generic", json={"email": f"{name}@initech.example"}, headers=headers)
        for name in ("ada", "grace", "ada")
    ]

    assert [outcomes(one) for one in answers] == [["created"], ["created"], ["replayed"]]
