"""Kafka in: intake's events to the use case that moves leads, those of broken promises to the one that takes leads away. No rules here."""

from __future__ import annotations

from collections.abc import Sequence

from accord.db import Recording
from accord.messaging.handler import Handler, Received
from qualification.usecases.breaches import take_breaches
from qualification.usecases.definitions import Definitions
from qualification.usecases.requalify import requalify


def intake_events(definitions: Definitions) -> Handler:
    """The handler of `intake-events`."""

    async def handle(recording: Recording, received: Sequence[Received]) -> None:
        await requalify(recording, received, await definitions.book(recording.conn))

    return handle


def sla_events(definitions: Definitions) -> Handler:
    """The handler of `sla-events`."""

    async def handle(recording: Recording, received: Sequence[Received]) -> None:
        book = await definitions.book(recording.conn)
        await take_breaches(recording, received, book.routing, book.in_force)

    return handle
