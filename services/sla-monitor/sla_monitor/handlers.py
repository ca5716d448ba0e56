"""Kafka in: what intake and qualification tell, to the use case that keeps the clocks. No rules here."""

from __future__ import annotations

from collections.abc import Sequence

from accord.db import Recording
from accord.messaging.handler import Handler, Received
from accord.messaging.watermarks import Watermarks
from sla_monitor.usecases.agreements import SlaBook
from sla_monitor.usecases.follow import follow


def lead_events(book: SlaBook, watermarks: Watermarks) -> Handler:
    """The handler of `intake-events` and `qualification-events`."""

    async def handle(recording: Recording, received: Sequence[Received]) -> None:
        await follow(recording, received, book, watermarks)

    return handle
