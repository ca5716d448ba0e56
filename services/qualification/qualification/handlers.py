"""Kafka in: intake's events to the use case that moves leads, those of broken promises to the one that takes leads away. No rules here."""

from __future__ import annotations

from collections.abc import Sequence

from accord.db import UnitOfWork
from accord.messaging.handler import Handler, Received
from qualification.definition.service import DefinitionVersionCache
from qualification.lifecycle.service.evaluation_context import EvaluationContexts
from qualification.lifecycle.service.intake_events import process_intake_events
from qualification.routing.service.breaches import process_breaches
from qualification.routing.service.document import RoutingVersionCache


def intake_events(contexts: EvaluationContexts) -> Handler:
    """The handler of `intake-events`."""

    async def handle(unit_of_work: UnitOfWork, received: Sequence[Received]) -> None:
        await process_intake_events(unit_of_work, received, await contexts.open(unit_of_work.conn))

    return handle


def sla_events(routing: RoutingVersionCache, definitions: DefinitionVersionCache) -> Handler:
    """The handler of `sla-events`."""

    async def handle(unit_of_work: UnitOfWork, received: Sequence[Received]) -> None:
        in_force = await routing.in_force(unit_of_work.conn)
        await process_breaches(unit_of_work, received, in_force, await definitions.in_force(unit_of_work.conn))

    return handle
