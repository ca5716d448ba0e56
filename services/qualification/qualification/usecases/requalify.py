"""What intake told of leads, taken through scores and gates: one transaction per consumed batch, each lead in order."""

from __future__ import annotations

from collections.abc import Sequence

from accord.database import Recording
from accord.messaging.consumer import Received
from qualification.domain.rules import Rules
from qualification.usecases.batch import LeadBatch, Told, concerned


async def requalify(recording: Recording, received: Sequence[Received], rules: Rules | None) -> None:
    """Apply these events under the definition in force (None: there is none, and leads are kept without a stage).

    Events that move no lead (submissions held or refused, agreements of others) are passed over.
    """
    told = [(item.event.data, item.event.traceparent) for item in received]
    moving = [(data, traceparent) for data, traceparent in told if isinstance(data, Told)]
    if not moving:
        return
    batch = await LeadBatch.lock(recording, rules, (lead_id for data, _ in moving for lead_id in concerned(data)))
    for data, traceparent in moving:
        batch.take(data, traceparent)
    await batch.save()
