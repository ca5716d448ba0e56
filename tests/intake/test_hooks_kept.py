"""What a tool has sent and could not be done with at once is kept: until its mapping is mended, its lead has come, or its person is
erased. Nothing of it is lost, and nothing is done twice.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY
from tests.intake.hook_service import HookClient, outcomes, running_hook_client, until
from tests.intake.tools import SEGMENT, dump_json


@pytest.fixture
async def intake(database_url: str, keys_file: Path) -> AsyncIterator[HookClient]:
    async with running_hook_client(database_url, keys_file) as one:
        yield one


async def test_failed_event_succeeds_after_mapping_is_fixed(intake: HookClient) -> None:
    await intake.connect("generic")
    body = dump_json({"who": {"mail": "ada@initech.example"}})
    assert outcomes(await intake.send("generic", body=body)) == ["failed"]
    [kept] = await intake.events_of("generic", "failed")
    path = f"/v1/sources/generic/events/{kept['hook_event_id']}"

    async with intake.working():
        await intake.admin.post(f"{path}/retry", None)
        await _state(intake, path, "failed")
        tag = (await intake.admin.get("/v1/sources/generic")).headers["etag"]
        changed = {"adapter": "generic", "mapping": {"fields": {"email": "/who/mail"}}}
        (await intake.put("generic", changed, **{"If-Match": tag})).raise_for_status()
        assert (await intake.admin.post(f"{path}/retry", None)).status_code == 200
        done = await _state(intake, path, "done")

    [lead] = await intake.leads()
    assert (lead["email"], lead["source"]) == ("ada@initech.example", "generic")
    assert (done["lead_id"], done["content"]) == (str(lead["lead_id"]), None)
    assert (await intake.admin.post(f"{path}/retry", None)).status_code == 409
    assert (await intake.admin.post(f"{path}/discard", None)).status_code == 409
    assert outcomes(await intake.send("generic", body=body)) == ["replayed"]
    assert len(await intake.rows("SELECT 1 FROM submission")) == 1


async def test_failed_event_can_be_discarded(intake: HookClient) -> None:
    await intake.connect("generic")
    await intake.send("generic", body=b'{"first_name": "Ada"}')
    [kept] = await intake.events_of("generic", "failed")
    path = f"/v1/sources/generic/events/{kept['hook_event_id']}"

    assert (await intake.admin.post(f"{path}/discard", None)).json()["state"] == "done"
    [row] = await intake.rows("SELECT content, reference FROM hook_event")
    assert (row["content"], row["reference"]) == ("", "{}")
    assert outcomes(await intake.send("generic", body=b'{"first_name": "Ada"}')) == ["replayed"]
    assert (
        await intake.admin.post("/v1/sources/other/events/" + kept["hook_event_id"] + "/discard", None)
    ).status_code == 404
    assert (await intake.admin.get("/v1/sources/other/events")).status_code == 404
    assert (await intake.admin.get("/v1/sources/generic/events", cursor="WyJ4Il0")).status_code == 422


async def test_activity_waits_for_its_lead(intake: HookClient) -> None:
    await intake.connect("segment")
    track = dump_json(
        {**SEGMENT, "type": "track", "event": "Demo Requested", "messageId": "m-2", "traits": {}, "context": {}}
    )
    assert outcomes(await intake.send("segment", body=track)) == ["waiting"]
    [waiting] = await intake.events_of("segment", "waiting")
    assert waiting["action"] == "activity"
    assert outcomes(await intake.send("segment")) == ["created"]
    await _due(intake)

    async with intake.working():
        done = await _state(intake, f"/v1/sources/segment/events/{waiting['hook_event_id']}", "done")

    [lead] = await intake.leads()
    [activity] = await intake.rows("SELECT lead_id, kind, caller FROM activity")
    assert activity == {"lead_id": lead["lead_id"], "kind": "demo.requested", "caller": "hook:segment"}
    assert done["lead_id"] == str(lead["lead_id"])
    assert outcomes(await intake.send("segment", body=track)) == ["replayed"]


async def test_external_id_finds_person_where_address_does_not(intake: HookClient) -> None:
    await intake.connect("segment")
    await intake.send("segment")
    moved = {
        **SEGMENT,
        "type": "track",
        "event": "Demo Requested",
        "messageId": "m-2",
        "traits": {"email": "new@initech.example"},
    }

    assert outcomes(await intake.send("segment", body=dump_json(moved))) == ["recorded"]
    unknown = {**moved, "messageId": "m-3", "userId": "somebody else"}
    assert outcomes(await intake.send("segment", body=dump_json(unknown))) == ["waiting"]
    identified = {
        **SEGMENT,
        "messageId": "m-4",
        "userId": "somebody else",
        "traits": {"email": "third@initech.example"},
    }
    assert outcomes(await intake.send("segment", body=dump_json(identified))) == ["created"]
    await _due(intake)
    async with intake.working():
        await until(lambda: _waits_for_nothing(intake))
    assert len(await intake.rows("SELECT DISTINCT lead_id FROM activity")) == 2


async def test_erasure_finds_failed_event_by_any_address_in_it(intake: HookClient) -> None:
    await intake.connect("segment")
    await intake.connect("generic")
    await intake.send("segment")
    odd = {"note": "write to Ada@initech.example, please", "nobody": True}
    assert outcomes(await intake.send("generic", body=dump_json(odd))) == ["failed"]

    [lead] = await intake.leads()
    assert (await intake.admin.http.delete(f"/v1/leads/{lead['lead_id']}")).status_code == 204

    assert await intake.rows("SELECT 1 FROM hook_event") == []


async def test_activity_without_lead_is_dropped_after_a_day(intake: HookClient) -> None:
    await intake.connect("segment")
    track = dump_json(
        {**SEGMENT, "type": "track", "event": "Demo Requested", "messageId": "m-2", "traits": {}, "context": {}}
    )
    await intake.send("segment", body=track)
    await intake.rows("UPDATE hook_event SET recorded_at = recorded_at - interval '1 day'")
    await _due(intake)

    async with intake.working():
        [waited] = await intake.rows("SELECT hook_event_id FROM hook_event")
        done = await _state(intake, f"/v1/sources/segment/events/{waited['hook_event_id']}", "done")

    assert done["error"] == "no-lead"


async def test_who_asks_a_tool_to_be_forgotten_is_erased(intake: HookClient) -> None:
    await intake.connect("segment")
    await intake.send("segment")
    [lead] = await intake.leads()
    track = dump_json({**SEGMENT, "type": "track", "event": "Demo Requested", "messageId": "m-2"})
    await intake.send("segment", body=track)

    answer = await intake.send(
        "segment", body=dump_json({"type": "delete", "userId": SEGMENT["userId"], "messageId": "m-3"})
    )
    assert outcomes(answer) == ["waiting"]
    async with intake.working():
        await until(lambda: _gone(intake))

    assert await intake.leads() == []
    assert (await intake.admin.get(f"/v1/leads/{lead['lead_id']}")).status_code == 410
    assert [event["lead_id"] for event in await intake.events("lead.erased.v1")] == [str(lead["lead_id"])]
    assert outcomes(await intake.send("segment")) == ["ignored"], "what came before does not bring them back"
    assert await intake.leads() == []


async def _state(intake: HookClient, path: str, state: str) -> dict[str, Any]:
    """The event, once it is in this state."""

    async def look() -> dict[str, Any] | None:
        found: dict[str, Any] = (await intake.admin.get(path)).json()
        return found if found["state"] == state else None

    found: dict[str, Any] = await until(look)
    return found


async def _waits_for_nothing(intake: HookClient) -> bool:
    return not await intake.events_of("segment", "waiting")


async def _gone(intake: HookClient) -> bool:
    return not await intake.leads()


async def test_old_done_and_failed_events_are_pruned(intake: HookClient) -> None:
    await intake.connect("generic")
    for name in ("Ada", "Grace", "Alan", "Edsger"):
        await intake.send("generic", body=dump_json({"first_name": name}))
    kept = await intake.events_of("generic", "failed")
    for event in kept[:2]:
        await intake.admin.post(f"/v1/sources/generic/events/{event['hook_event_id']}/discard", None)
    for place, days in enumerate((8, 6, 91, 89)):
        await intake.rows(
            "UPDATE hook_event SET updated_at = updated_at - $2 * interval '1 day' WHERE hook_event_id = $1",
            kept[place]["hook_event_id"],
            days,
        )

    assert await intake.hook_work.prune() is False

    left = {str(row["hook_event_id"]) for row in await intake.rows("SELECT hook_event_id FROM hook_event")}
    assert left == {kept[1]["hook_event_id"], kept[3]["hook_event_id"]}
    await intake.hook_work.collector().collect()
    assert REGISTRY.get_sample_value("accord_hook_events_failed") == 1


async def _due(intake: HookClient) -> None:
    """As if the time had come."""
    await intake.rows("UPDATE hook_event SET due_at = recorded_at WHERE state = 'waiting'")
