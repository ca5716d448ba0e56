"""How a worker reads a log, so that it ends in time and leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from accord.messaging.ports import LogReader, LogRecord


async def poll_until_stopped(
    reader: LogReader, stopped: asyncio.Task[Any], timeout_s: float, rows_max: int
) -> Sequence[LogRecord]:
    """A poll that also ends when the worker is told to stop, or is cancelled."""
    polling = asyncio.create_task(reader.poll(timeout_s, rows_max))
    try:
        await asyncio.wait([polling, stopped], return_when=asyncio.FIRST_COMPLETED)
        return polling.result() if polling.done() else ()
    finally:
        if not polling.done():
            polling.cancel()
            await asyncio.gather(polling, return_exceptions=True)
