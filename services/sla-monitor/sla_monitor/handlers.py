"""Kafka in: passes the events of intake and qualification to the use case. No rules here."""

from __future__ import annotations

from collections.abc import Sequence

from accord.db import Recording
from accord.messaging.handler import Handler, Received
from accord.messaging.watermarks import Watermarks
from sla_monitor.usecases.agreements import SlaVersionCache
from sla_monitor.usecases.process_events import process_events


def build_handler(sla_cache: SlaVersionCache, watermarks: Watermarks) -> Handler:
    """Build the handler of `intake-events` and `qualification-events`."""

    async def handle(recording: Recording, received: Sequence[Received]) -> None:
        await process_events(recording, received, sla_cache, watermarks)

    return handle
