"""Kafka in: passes the events of intake and qualification to the use case. No rules here."""

from __future__ import annotations

from collections.abc import Sequence

from accord.db import UnitOfWork
from accord.messaging.handler import Handler, Received
from accord.messaging.watermark_reader import WatermarkReader
from sla_monitor.usecases.agreements import SlaVersionCache
from sla_monitor.usecases.process_events import process_events


def build_handler(sla_cache: SlaVersionCache, watermarks: WatermarkReader) -> Handler:
    """Build the handler of `intake-events` and `qualification-events`."""

    async def handle(unit_of_work: UnitOfWork, received: Sequence[Received]) -> None:
        await process_events(unit_of_work, received, sla_cache, watermarks)

    return handle
