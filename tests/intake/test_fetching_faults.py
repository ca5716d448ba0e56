"""Processes that fetch records are killed and come too late: no event is lost, and none has its effect twice."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.intake.hook_service import SEALING_KEY, HookClient, outcomes, running_hook_client, until
from tests.intake.processes import intake_process
from tests.intake.test_fetching import CONTACT, contact, event_of, hubspot, make_due
from tests.intake.tools import HUBSPOT, dump_json
from tests.intake.toolserver import Reply, ToolServer, json_reply, tool_server

KILLS = 3
SETTINGS = {"secrets_keys": SEALING_KEY, "outbound_allow_private": "true"}


@pytest.fixture
def tool() -> Iterator[ToolServer]:
    with tool_server() as server:
        yield server


@pytest.fixture
async def intake(database_url: str, keys_file: Path) -> AsyncIterator[HookClient]:
    async with running_hook_client(database_url, keys_file, outbound_allow_private=True, outbound_timeout_s=5) as one:
        yield one


@pytest.mark.slow
async def test_a_worker_that_is_killed_again_and_again_loses_and_doubles_no_event(
    intake: HookClient, tool: ToolServer, database_url: str, keys_file: Path
) -> None:
    count = 45
    for number in range(1, count + 1):
        tool.answer(f"/crm/v3/objects/contacts/{number}", json_reply(contact(number)))
    await hubspot(intake, tool)
    events = [{**HUBSPOT[0], "eventId": number, "objectId": number} for number in range(1, count + 1)]
    assert outcomes(await intake.send("hubspot", body=dump_json(events))) == ["waiting"] * count
    chance = random.Random()

    for kill in range(1, KILLS + 1):
        at = kill * count // (KILLS + 1) - chance.randrange(8)
        async with intake_process("worker", database_url, keys_file, **SETTINGS) as process:

            async def enough(at: int = at) -> bool:
                return len(tool.asked) >= at

            await until(enough)
            await process.kill()
        await make_due(intake)  # as if the leases of the dead were over
    async with intake_process("worker", database_url, keys_file, **SETTINGS):

        async def all_done() -> bool:
            return len(await intake.rows("SELECT 1 FROM hook_event WHERE state = 'done'")) == count

        await until(all_done, 30)

    assert len(await intake.leads()) == count
    assert len(await intake.rows("SELECT 1 FROM submission")) == count
    assert len(await intake.events("lead.captured.v1")) == count


async def test_a_worker_that_comes_too_late_does_nothing(intake: HookClient, tool: ToolServer) -> None:
    """Its lease is over and another has done the event, while it still waits for the tool."""
    answered = threading.Event()
    slow = Reply(200, json_reply(contact()).body, before=lambda: answered.wait(10))
    tool.answer(CONTACT, slow, json_reply(contact()))
    await hubspot(intake, tool)
    await intake.send("hubspot")

    async with intake.working():

        async def asked() -> bool:
            return len(tool.asked) == 1

        await until(asked)
        await make_due(intake)
        late = asyncio.create_task(_round(intake))
        await event_of(intake, "done")
        answered.set()
        await late
    assert len(await intake.rows("SELECT 1 FROM submission")) == 1


async def _round(intake: HookClient) -> None:
    worker = next(worker for worker in intake.service.workers if worker.name == "hook-events")
    await worker._work()  # type: ignore[attr-defined]
