"""Leads that were captured while no definition was in force enter, in the background, once there is one.

Resumable without a mark, since a lead that has a stage is no longer among those that wait; bounded and throttled by batch and pause.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from accord.db import Database, UnitOfWork
from accord.isolation import process_isolated
from accord.workers import Periodic
from qualification.lifecycle.queries import leads
from qualification.lifecycle.service.batch import LeadBatch
from qualification.lifecycle.service.evaluation_context import EvaluationContext, EvaluationContexts

LEADS_PER_ROUND_MAX = 500
EVERY_S = 0.25
"""With LEADS_PER_ROUND_MAX: at most 2,000 leads a second, which leaves room for what arrives meanwhile."""

IDLE_EVERY_S = 3.0


async def enter_waiting_leads(
    database: Database, context: EvaluationContext, leads_max: int = LEADS_PER_ROUND_MAX
) -> int:
    """Let up to so many waiting leads enter at the time of their capture; how many there were.

    One of which this raises rests, and the others go on.
    """

    async def claim(unit_of_work: UnitOfWork, only: Sequence[UUID] | None) -> Sequence[UUID]:
        return await leads.claim_waiting(await unit_of_work.connection(), leads_max, only)

    async def work(unit_of_work: UnitOfWork, lead_ids: Sequence[UUID]) -> None:
        batch = await LeadBatch.lock(unit_of_work, context, lead_ids)
        await batch.enter(lead_ids)
        await batch.save()

    return await process_isolated(database, leads.ENTRY_WORKER, leads.IS_ENTERING, claim, work)


def entry_worker(database: Database, contexts: EvaluationContexts) -> Periodic:
    """The worker that does it."""

    async def work() -> bool | None:
        context = await contexts.open()
        if context.in_force is None or await enter_waiting_leads(database, context) == 0:
            return None
        return False  # the pause between rounds is the throttle

    return Periodic(leads.ENTRY_WORKER, EVERY_S, work, idle_every_s=IDLE_EVERY_S)
