"""A thin event is answered at once and its record fetched after that, from a real server: once, whatever fails between, and for a day."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.intake.hook_service import HookClient, outcomes, running_hook_client, until
from tests.intake.test_adapters import LINKEDIN_FORM, LINKEDIN_RECORD
from tests.intake.tools import HUBSPOT, LINKEDIN, dump_json
from tests.intake.toolserver import Reply, ToolServer, json_reply, tool_server

from intake.hooks.service.processing import CLAIMED_MAX

TOKEN = "the token of the tool"
CONTACT = "/crm/v3/objects/contacts/123"


def contact(number: int = 123, **properties: str) -> dict[str, Any]:
    return {
        "id": str(number),
        "properties": {"email": f"ada{number}@initech.example", "firstname": "Ada", **properties},
    }


@pytest.fixture
def tool() -> Iterator[ToolServer]:
    with tool_server() as server:
        yield server


@pytest.fixture
async def intake(database_url: str, keys_file: Path) -> AsyncIterator[HookClient]:
    async with running_hook_client(database_url, keys_file, outbound_allow_private=True, outbound_timeout_s=5) as one:
        yield one


async def hubspot(intake: HookClient, tool: ToolServer, **more: Any) -> str:
    return await intake.connect(
        "hubspot", settings={"base_url": tool.url}, secrets={"token": TOKEN, **more.pop("secrets", {})}, **more
    )


async def event_of(intake: HookClient, state: str, source: str = "hubspot") -> dict[str, Any]:
    """The source's one event, once it is in this state."""

    async def look() -> list[dict[str, Any]]:
        return await intake.events_of(source, state)

    [found] = await until(look)
    event: dict[str, Any] = found
    return event


async def make_due(intake: HookClient) -> None:
    """As if the time of the next attempt had come."""
    await intake.rows("UPDATE hook_event SET due_at = recorded_at WHERE state = 'waiting'")


async def test_a_contact_of_hubspot_is_fetched_and_submitted(intake: HookClient, tool: ToolServer) -> None:
    tool.answer(CONTACT, json_reply(contact(numberofemployees="250")))
    await hubspot(intake, tool)

    assert outcomes(await intake.send("hubspot")) == ["waiting"]
    assert await intake.leads() == [], "the answer does not wait for the tool"
    async with intake.working():
        done = await event_of(intake, "done")

    [lead] = await intake.leads()
    assert (lead["source"], lead["email"], lead["first_name"]) == ("hubspot", "ada123@initech.example", "Ada")
    assert (done["action"], done["lead_id"], done["attempts"]) == ("fetch", str(lead["lead_id"]), 1)
    [submission] = await intake.rows("SELECT caller, content FROM submission")
    assert submission["caller"] == "hook:hubspot"
    assert '"objectId":123' in submission["content"]
    assert "numberofemployees" in submission["content"]
    [(target, headers)] = tool.asked
    assert target.startswith(CONTACT + "?properties=email,")
    assert headers["authorization"] == f"Bearer {TOKEN}"
    [row] = await intake.rows("SELECT content, reference FROM hook_event")
    assert (row["content"], row["reference"]) == ("", "{}"), "what is done is not kept twice"
    assert outcomes(await intake.send("hubspot")) == ["replayed"]
    assert len(await intake.leads()) == 1


async def test_a_lead_ad_of_meta_is_fetched_and_submitted(intake: HookClient, tool: ToolServer) -> None:
    fields = [{"name": "email", "values": ["ada@initech.example"]}, {"name": "full_name", "values": ["Ada Byron"]}]
    tool.answer("/5545", json_reply({"id": "5545", "created_time": "2024-02-28T08:49:14+0000", "field_data": fields}))
    await intake.connect("meta-lead-ads", settings={"base_url": tool.url}, secrets={"token": TOKEN})

    assert outcomes(await intake.send("meta-lead-ads")) == ["waiting"]
    async with intake.working():
        await event_of(intake, "done", "meta-lead-ads")

    [lead] = await intake.leads()
    assert (lead["email"], lead["last_name"]) == ("ada@initech.example", "Byron")
    assert tool.asked[0][0].startswith("/5545?fields=id,created_time,field_data")


@pytest.mark.parametrize("form_answer", [json_reply(LINKEDIN_FORM), Reply(403)], ids=["with its form", "without"])
async def test_a_response_of_linkedin_is_fetched_and_submitted(
    intake: HookClient, tool: ToolServer, form_answer: Reply
) -> None:
    tool.answer("/rest/leadFormResponses/1a2b3c-4", json_reply(LINKEDIN_RECORD))
    tool.answer("/rest/leadForms/3162", form_answer)
    mapping = {} if form_answer.status == 200 else {"fields": {"email": "/answers/1"}}
    await intake.connect(
        "linkedin-lead-gen", settings={"base_url": tool.url}, secrets={"token": TOKEN}, mapping=mapping
    )

    assert outcomes(await intake.send("linkedin-lead-gen")) == ["waiting"]
    async with intake.working():
        await event_of(intake, "done", "linkedin-lead-gen")

    [lead] = await intake.leads()
    assert lead["email"] == "ada@initech.example"
    assert [headers["linkedin-version"] for _, headers in tool.asked] == ["202510", "202510"]


async def test_a_deletion_at_linkedin_erases_and_keeps_the_record_from_coming_back(
    intake: HookClient, tool: ToolServer
) -> None:
    tool.answer("/rest/leadFormResponses/1a2b3c-4", json_reply(LINKEDIN_RECORD))
    await intake.connect(
        "linkedin-lead-gen", settings={"base_url": tool.url, "questions": {"1": "email"}}, secrets={"token": TOKEN}
    )
    await intake.send("linkedin-lead-gen")
    async with intake.working():
        await event_of(intake, "done", "linkedin-lead-gen")
        [lead] = await intake.leads()
        await intake.send("linkedin-lead-gen", body=dump_json({**LINKEDIN, "leadAction": "DELETED"}))

        async def gone() -> bool:
            return not await intake.leads()

        await until(gone)
        assert (await intake.admin.get(f"/v1/leads/{lead['lead_id']}")).status_code == 410
        await intake.send("linkedin-lead-gen")

        async def settled() -> bool:
            return not await intake.events_of("linkedin-lead-gen", "waiting")

        await until(settled)
    assert await intake.leads() == []


async def test_a_record_that_is_deleted_before_it_is_fetched_is_never_asked_for(
    intake: HookClient, tool: ToolServer
) -> None:
    await intake.connect("linkedin-lead-gen", settings={"base_url": tool.url}, secrets={"token": TOKEN})
    await intake.send("linkedin-lead-gen")
    await intake.rows("UPDATE hook_event SET due_at = due_at + interval '1 hour'")
    await intake.send("linkedin-lead-gen", body=dump_json({**LINKEDIN, "leadAction": "DELETED"}))

    async with intake.working():

        async def settled() -> bool:
            return not await intake.events_of("linkedin-lead-gen", "waiting")

        await until(settled)

    assert {row["error"] for row in await intake.rows("SELECT error FROM hook_event")} == {
        "deleted",
        "nobody of this id",
    }
    assert tool.asked == []


async def test_failed_fetch_is_retried_and_given_up_after_a_day(intake: HookClient, tool: ToolServer) -> None:
    tool.answer(CONTACT, Reply(503), Reply(200, b"<html>"), json_reply(contact()))
    await hubspot(intake, tool)
    await intake.send("hubspot")

    async with intake.working():
        for attempt, why in ((1, "server-error"), (2, "no-json")):

            async def look(attempt: int = attempt, why: str = why) -> bool:
                [waiting] = await intake.events_of("hubspot", "waiting") or [{"attempts": 0, "error": None}]
                return (waiting["attempts"], waiting["error"]) == (attempt, why)

            await until(look)
            await make_due(intake)
            intake.hook_work._cooldowns.clear("hubspot")
        await event_of(intake, "done")
    assert len(await intake.leads()) == 1

    tool.answer("/crm/v3/objects/contacts/7", Reply(404))
    await intake.send("hubspot", body=dump_json([{**HUBSPOT[0], "objectId": 7}]))
    await intake.rows("UPDATE hook_event SET recorded_at = recorded_at - interval '1 day'")
    async with intake.working():
        failed = await event_of(intake, "failed")
    assert (failed["error"], failed["action"]) == ("not-found", "fetch")

    tool.answer("/crm/v3/objects/contacts/7", json_reply(contact(7)))
    path = f"/v1/sources/hubspot/events/{failed['hook_event_id']}"
    assert (await intake.admin.post(f"{path}/retry", None)).json()["state"] == "waiting"
    async with intake.working():

        async def two() -> bool:
            return len(await intake.leads()) == 2

        await until(two)


async def test_a_tool_that_asks_for_patience_gets_it(intake: HookClient, tool: ToolServer) -> None:
    tool.answer(CONTACT, Reply(429, b"", {"Retry-After": "600"}))
    await hubspot(intake, tool)
    await intake.send("hubspot")

    async with intake.working():

        async def look() -> bool:
            return any(one["error"] == "too-many-requests" for one in await intake.events_of("hubspot", "waiting"))

        await until(look)

    [row] = await intake.rows("SELECT due_at - updated_at AS wait FROM hook_event")
    assert row["wait"].total_seconds() >= 600


async def test_while_a_token_is_changed_over_the_old_one_still_serves(intake: HookClient, tool: ToolServer) -> None:
    tool.answer(CONTACT, Reply(401), json_reply(contact()))
    source = await hubspot(intake, tool)
    tag = (await intake.admin.get(f"/v1/sources/{source}")).headers["etag"]
    body = {"adapter": "hubspot", "settings": {"base_url": tool.url}, "secrets": {"token": "not in force yet"}}
    (await intake.put(source, body, **{"If-Match": tag})).raise_for_status()
    await intake.send("hubspot")

    async with intake.working():
        await event_of(intake, "done")

    assert [headers["authorization"] for _, headers in tool.asked] == ["Bearer not in force yet", f"Bearer {TOKEN}"]


async def test_without_a_token_the_event_waits_for_one(intake: HookClient, tool: ToolServer) -> None:
    await intake.connect("hubspot", settings={"base_url": tool.url})
    await intake.send("hubspot")

    async with intake.working():

        async def look() -> bool:
            return any(
                one["error"] == "the source has no secret 'token'"
                for one in await intake.events_of("hubspot", "waiting")
            )

        await until(look)
    assert tool.asked == []


async def test_a_private_address_is_refused_unless_it_is_allowed(
    database_url: str, keys_file: Path, tool: ToolServer
) -> None:
    async with running_hook_client(database_url, keys_file) as intake:
        await hubspot(intake, tool)
        await intake.send("hubspot")
        async with intake.working():
            failed = await event_of(intake, "failed")
    assert failed["error"] == "address-refused"
    assert tool.asked == []


async def test_fetched_record_whose_address_is_none_is_known_by_its_id(intake: HookClient, tool: ToolServer) -> None:
    tool.answer(CONTACT, json_reply({"id": "123", "properties": {"email": "no address"}}))
    await hubspot(intake, tool)
    await intake.send("hubspot")

    async with intake.working():
        [lead] = await until(intake.leads)

    assert lead["email"] is None
    [key] = await intake.rows("SELECT kind, external_id FROM identity_key")
    assert key == {"kind": "external", "external_id": "123"}


async def test_event_of_deleted_source_fails(intake: HookClient, tool: ToolServer) -> None:
    await hubspot(intake, tool)
    await intake.send("hubspot")
    (await intake.admin.http.delete("/v1/sources/hubspot")).raise_for_status()

    async with intake.working():

        async def look() -> bool:
            return [
                row["error"] for row in await intake.rows("SELECT error FROM hook_event WHERE state = 'failed'")
            ] == ["no-source"]

        await until(look)


async def test_a_tool_that_is_away_does_not_hold_up_the_others(intake: HookClient, tool: ToolServer) -> None:
    tool.default = Reply(503)
    tool.answer(
        "/5545", json_reply({"id": "5545", "field_data": [{"name": "email", "values": ["ada@initech.example"]}]})
    )
    await hubspot(intake, tool)
    await intake.connect("meta-lead-ads", settings={"base_url": tool.url}, secrets={"token": TOKEN})
    await intake.send("hubspot", body=dump_json([{**HUBSPOT[0], "objectId": number} for number in range(1_000, 1_050)]))
    await intake.send("meta-lead-ads")

    async with intake.working():
        await event_of(intake, "done", "meta-lead-ads")

    assert len(tool.asked) == CLAIMED_MAX + 1, "the tool that is away was asked in one round only"


async def test_a_slow_tool_holds_up_nobody_but_itself(intake: HookClient, tool: ToolServer) -> None:
    slow, released = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def body() -> Iterator[bytes]:
        loop.call_soon_threadsafe(slow.set)
        released.wait(timeout=30)
        yield b"{}"

    tool.default = Reply(chunks=body)
    tool.answer(
        "/5545", json_reply({"id": "5545", "field_data": [{"name": "email", "values": ["grace@initech.example"]}]})
    )
    await hubspot(intake, tool)
    await intake.connect("meta-lead-ads", settings={"base_url": tool.url}, secrets={"token": TOKEN})
    await intake.connect("segment")
    lead = (await intake.send("segment")).json()["results"][0]["lead_id"]
    try:
        await intake.send(
            "hubspot", body=dump_json([{**HUBSPOT[0], "objectId": 1_000 + number} for number in range(50)])
        )
        async with intake.working():
            await slow.wait()
            await intake.send("meta-lead-ads")
            erase = {"type": "delete", "userId": "97980cfea0067", "messageId": "m-3"}
            await intake.send("segment", body=dump_json(erase))

            async def gone() -> bool:
                return (await intake.admin.get(f"/v1/leads/{lead}")).status_code == 410

            await until(gone, within_s=4.0)
            await event_of(intake, "done", "meta-lead-ads")
            # All this while the tool has not answered, and no more than a few wait for it.
            asked = [target for target, _ in tool.asked if "/contacts/" in target]
            assert len(asked) == CLAIMED_MAX
            released.set()
    finally:
        released.set()
