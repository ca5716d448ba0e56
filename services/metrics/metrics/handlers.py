"""Kafka in: passes each batch of events to the projection. No rules, no SQL."""

from __future__ import annotations

from collections.abc import Sequence

from accord.contracts.topics import INTAKE_EVENTS, QUALIFICATION_EVENTS, SLA_EVENTS
from accord.db import UnitOfWork
from accord.messaging.handler import Received
from metrics.usecases.project import project_events

CONSUMED = (INTAKE_EVENTS, QUALIFICATION_EVENTS, SLA_EVENTS)
GROUP = "metrics"


async def handle(unit_of_work: UnitOfWork, batch: Sequence[Received]) -> None:
    """Project one batch; in order within each key."""
    await project_events(unit_of_work, [received.event.data for received in batch])
