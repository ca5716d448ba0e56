"""What time alone brings about: a score that has fallen below a threshold, a window that has moved on, an age, a cool-down.

Only leads whose moment has come are looked at, by index and in batches that pass over what others hold. The wall clock decides
nothing: a moment comes once everything that intake recorded before it has been read, so that a consumer that lags delays an entry
and does not bring about one that would have to be corrected.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from accord.contracts.topics import INTAKE_EVENTS
from accord.db import Database, UnitOfWork
from accord.isolation import process_isolated
from accord.messaging.watermark_reader import ChangeGate, WatermarkReader
from accord.workers import Periodic
from qualification.lifecycle.queries import leads
from qualification.lifecycle.service.batch import LeadBatch
from qualification.lifecycle.service.evaluation_context import EvaluationContext, EvaluationContexts

LEADS_PER_ROUND_MAX = 500
EVERY_S = 1.0


async def advance_time(
    database: Database, context: EvaluationContext, watermarks: WatermarkReader, leads_max: int = LEADS_PER_ROUND_MAX
) -> int:
    """Do what is due of up to so many leads; how many there were. One of which this raises rests, and the others go on."""

    until: datetime | None = None

    async def claim(unit_of_work: UnitOfWork, only: Sequence[UUID] | None) -> Sequence[UUID] | None:
        nonlocal until
        reached = await watermarks.read(unit_of_work.conn)
        until = reached.until([INTAKE_EVENTS])
        if until is None:
            return None
        connection = await unit_of_work.connection()
        held = await leads.add_survivors(connection, sorted(reached.held))
        return await leads.claim_due(connection, until, held, leads_max, only)

    async def work(unit_of_work: UnitOfWork, lead_ids: Sequence[UUID]) -> None:
        if until is None:
            return
        batch = await LeadBatch.lock(unit_of_work, context, lead_ids)
        for lead_id in lead_ids:
            batch.advance_time(lead_id, until)
        await batch.save()

    return await process_isolated(database, leads.TIME_TRIGGER_WORKER, leads.IS_DUE, claim, work)


def time_trigger_worker(database: Database, contexts: EvaluationContexts, watermarks: WatermarkReader) -> Periodic:
    """The worker that does it."""

    gate = ChangeGate(watermarks)

    async def work() -> bool | None:
        context = await contexts.open()
        if context.in_force is None:
            return None
        leads_done = await advance_time(database, context, watermarks)
        return leads_done >= LEADS_PER_ROUND_MAX if leads_done else None

    return Periodic(leads.TIME_TRIGGER_WORKER, EVERY_S, lambda: gate.run_if_changed(work))
