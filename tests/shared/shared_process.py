"""The kit's service as a running process, for tests of the whole: signals, ports, and what comes over the wire."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from shared_kit import KEYS, write_keys

MAIN = Path(__file__).parent / "kit_main.py"
SECRET = "swordfish"
INHERITED = ("PATH", "COVERAGE_PROCESS_CONFIG")
"""What the process has of the test's environment: the second is set while `make coverage` measures."""


class Running:
    """A process of the kit, with the lines it has logged."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[dict[str, Any]] = []
        self.port = 0

    async def logged(self, event: str) -> dict[str, Any]:
        """Read on until this event; every line must be JSON."""
        assert self.process.stdout is not None
        async with asyncio.timeout(60):
            async for line in self.process.stdout:
                self.lines.append(json.loads(line))
                if self.lines[-1]["event"] == event:
                    return self.lines[-1]
        raise AssertionError(f"{event} was not logged: {self.lines}")

    async def end(self, number: int | None = None) -> int:
        """Send the signal, if any, read to the end, and give the exit code."""
        if number is not None:
            self.process.send_signal(number)
        assert self.process.stdout is not None
        async with asyncio.timeout(60):
            async for line in self.process.stdout:
                self.lines.append(json.loads(line))
            return await self.process.wait()

    def events(self) -> list[str]:
        return [line["event"] for line in self.lines]


@asynccontextmanager
async def process(
    url: str,
    tmp_path: Path,
    role: str,
    *,
    keys: Mapping[str, tuple[str, str | None, list[str]]] = KEYS,
    **environment: str,
) -> AsyncIterator[Running]:
    variables = {
        **{name: os.environ[name] for name in INHERITED if name in os.environ},
        "ACCORD_DATABASE_URL": url,
        "ACCORD_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "ACCORD_KAFKA_SASL_PASSWORD": SECRET,
        "ACCORD_API_KEYS_FILE": str(write_keys(tmp_path / "keys.yaml", keys)),
        "ACCORD_PORT": "0",
        **environment,
    }
    started = await asyncio.create_subprocess_exec(
        sys.executable, str(MAIN), *role.split(), env=variables, stdout=-1, stderr=-1, cwd=tmp_path
    )
    running = Running(started)
    try:
        yield running
        assert SECRET not in json.dumps(running.lines)
    finally:
        if started.returncode is None:
            started.kill()
        await started.communicate()
