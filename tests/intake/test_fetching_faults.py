"""Processes that fetch records are killed and come too late: no event is lost, and none has its effect twice."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.intake.hooking import SEALING_KEY, Connected, connected, outcomes, until
from tests.intake.test_fetching import CONTACT, contact, event_of, hubspot, now_due
from tests.intake.tools import HUBSPOT, dumped
from tests.intake.toolserver import Reply, ToolServer, json_reply, tool_server

KILLS = 3


@pytest.fixture
def tool() -> Iterator[ToolServer]:
    with tool_server() as server:
        yield server


@pytest.fixture
async def intake(database_url: str, keys_file: Path) -> AsyncIterator[Connected]:
    async with connected(database_url, keys_file, outbound_allow_private=True, outbound_timeout_s=5) as one:
        yield one


@asynccontextmanager
async def worker_process(url: str, keys: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """The worker as it is started in production, with nobody to publish to."""
    environment = {
        **os.environ,
        "ACCORD_DATABASE_URL": url,
        "ACCORD_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "ACCORD_API_KEYS_FILE": str(keys),
        "ACCORD_PORT": "0",
        "ACCORD_SECRETS_KEYS": SEALING_KEY,
        "ACCORD_OUTBOUND_ALLOW_PRIVATE": "true",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "intake.main", "worker", env=environment, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.slow
async def test_a_worker_that_is_killed_again_and_again_loses_and_doubles_no_event(
    intake: Connected, tool: ToolServer, database_url: str, keys_file: Path
) -> None:
    count = 45
    for number in range(1, count + 1):
        tool.answer(f"/crm/v3/objects/contacts/{number}", json_reply(contact(number)))
    await hubspot(intake, tool)
    events = [{**HUBSPOT[0], "eventId": number, "objectId": number} for number in range(1, count + 1)]
    assert outcomes(await intake.send("hubspot", body=dumped(events))) == ["waiting"] * count
    chance = random.Random()

    for kill in range(1, KILLS + 1):
        at = kill * count // (KILLS + 1) - chance.randrange(8)
        async with worker_process(database_url, keys_file) as process:

            async def enough(at: int = at) -> bool:
                return len(tool.asked) >= at

            await until(enough)
            process.send_signal(signal.SIGKILL)
            await process.wait()
        await now_due(intake)  # as if the leases of the dead were over
    async with worker_process(database_url, keys_file):

        async def all_done() -> bool:
            return len(await intake.rows("SELECT 1 FROM hook_event WHERE state = 'done'")) == count

        await until(all_done, 30)

    assert len(await intake.leads()) == count
    assert len(await intake.rows("SELECT 1 FROM submission")) == count
    assert len(await intake.events("lead.captured.v1")) == count


async def test_a_worker_that_comes_too_late_does_nothing(intake: Connected, tool: ToolServer) -> None:
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
        await now_due(intake)
        late = asyncio.create_task(_round(intake))
        await event_of(intake, "done")
        answered.set()
        await late
    assert len(await intake.rows("SELECT 1 FROM submission")) == 1


async def _round(intake: Connected) -> None:
    worker = next(worker for worker in intake.service.workers if worker.name == "hook-events")
    await worker._work()  # type: ignore[attr-defined]
