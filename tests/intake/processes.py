"""Intake as processes of its own, as it is started in production, with nobody to publish to."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

STARTED_WITHIN_S = 60
STOPPED_WITHIN_S = 30


class IntakeProcess:
    """One running process and its address."""

    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self.url = url
        self._process = process

    async def kill(self) -> None:
        """SIGKILL: it ends where it stands."""
        self._process.send_signal(signal.SIGKILL)
        await self._process.wait()

    async def stop(self) -> None:
        """SIGTERM: it ends in order."""
        self._process.terminate()
        async with asyncio.timeout(STOPPED_WITHIN_S):
            assert await self._process.wait() == 0


@asynccontextmanager
async def intake_process(role: str, database_url: str, keys: Path, **settings: object) -> AsyncIterator[IntakeProcess]:
    """A process in this role that has started. Whatever is left of it at the end is killed."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("ACCORD_")},
        "ACCORD_DATABASE_URL": database_url,
        "ACCORD_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "ACCORD_API_KEYS_FILE": str(keys),
        "ACCORD_PORT": "0",
        **{f"ACCORD_{name.upper()}": str(value) for name, value in settings.items()},
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "intake.main", role, env=environment, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    reading: asyncio.Task[None] | None = None
    try:
        async with asyncio.timeout(STARTED_WITHIN_S):
            port = await _port(process.stdout)
        reading = asyncio.create_task(_read_on(process.stdout))  # a full pipe would stop it
        yield IntakeProcess(process, f"http://127.0.0.1:{port}")
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        if reading is not None:
            await reading


async def _port(stdout: asyncio.StreamReader) -> int:
    async for line in stdout:
        if line.startswith(b"{") and (said := json.loads(line)).get("event") == "started":
            return int(said["port"])
    raise AssertionError("intake ended before it had started")


async def _read_on(stdout: asyncio.StreamReader) -> None:
    while await stdout.read(65_536):
        pass
