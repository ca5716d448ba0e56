"""Kafka in: intake's events to the use case that moves leads. No rules here."""

from __future__ import annotations

from collections.abc import Sequence

from accord.database import Recording
from accord.messaging.consumer import Handler, Received
from qualification.usecases.definitions import Definitions
from qualification.usecases.requalify import requalify


def intake_events(definitions: Definitions) -> Handler:
    """The handler of `intake-events`."""

    async def handle(recording: Recording, received: Sequence[Received]) -> None:
        await requalify(recording, received, await definitions.in_force())

    return handle
