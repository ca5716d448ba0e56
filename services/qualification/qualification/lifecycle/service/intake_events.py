"""Events of intake, applied to scores and gates: one transaction per consumed batch, each lead in order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TypeGuard, get_args

from accord.contracts.base import EventData
from accord.contracts.intake_events import LeadErased
from accord.db import UnitOfWork
from accord.http import idempotency
from accord.messaging.handler import Received
from qualification.lifecycle.service.batch import IncomingEvent, LeadBatch, affected_leads
from qualification.lifecycle.service.evaluation_context import EvaluationContext

EVENTS_PER_TURN_MAX = 200
"""After so many the loop gets its turn, so that a large batch does not hold up the API of the same process."""


_LEAD_EVENTS = frozenset(get_args(IncomingEvent))


def _is_lead_event(data: EventData) -> TypeGuard[IncomingEvent]:
    # Event classes are final. `isinstance` would ask pydantic's metaclass for each of them, which shows at this place.
    return type(data) in _LEAD_EVENTS


async def process_intake_events(
    unit_of_work: UnitOfWork, received: Sequence[Received], context: EvaluationContext
) -> None:
    """Apply these events under the definition in force (while there is none, leads are kept without a stage).

    Events that move no lead (submissions held or refused, agreements of others) are passed over.
    """
    told = [(item.event.data, item.event.traceparent) for item in received]
    events = [(data, traceparent) for data, traceparent in told if _is_lead_event(data)]
    if not events:
        return
    erased = [data.lead_id for data, _ in events if isinstance(data, LeadErased)]
    if erased:  # saved answers before leads, as those take their locks who decide
        await idempotency.erase(unit_of_work.conn, erased)
    batch = await LeadBatch.lock(
        unit_of_work, context, (lead_id for data, _ in events for lead_id in affected_leads(data))
    )
    await batch.prefetch_logs(data for data, _ in events)
    for number, (data, traceparent) in enumerate(events, start=1):
        await batch.apply_event(data, traceparent)
        if number % EVENTS_PER_TURN_MAX == 0:
            await asyncio.sleep(0)
    await batch.save()
    if erased:  # and what was answered while the leads were waited for
        await idempotency.erase(unit_of_work.conn, erased)
