"""Breaches that the SLA monitor publishes: where a clause says so, the lead is assigned to somebody else.

Once for each breach, also when it is redelivered. Whoever has answered by the time that this is read keeps the lead.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import structlog

from accord.contracts.sla_events import BreachWithdrawn, ClockBreached, ClockCancelled, ClockEscalated, ClockMet
from accord.db import UnitOfWork
from accord.messaging.handler import Received
from qualification.definition.domain.rules import Rules
from qualification.lifecycle.domain.lead import Lead
from qualification.lifecycle.queries import leads
from qualification.routing.domain.document import Routing, open_stages
from qualification.routing.queries import assignments
from qualification.routing.service.assignment import Breach, PendingAssignment, assign_leads

log = structlog.get_logger(__name__)


async def process_breaches(
    unit_of_work: UnitOfWork, received: Sequence[Received], routing: Routing | None, rules: Rules | None
) -> None:
    """Apply these events. Those of clauses that take no lead away are passed over."""
    broken, over = _latest_breaches([item.event.data for item in received])
    if not broken and not over:
        return
    connection = await unit_of_work.connection()
    if broken and routing is not None and rules is not None:
        done = await assignments.find_handled_breaches(connection, (event.breach_id for event in broken))
        fresh = [event for event in broken if event.breach_id not in done]
        locked = await leads.lock(connection, (lead_id for event in fresh if (lead_id := event.lead_id)), rules.kinds)
        pending = _pending(fresh, locked, rules)
        log.info("breaches_processed", received=len(broken), duplicates=len(done), reassigned=len(pending))
        await assign_leads(unit_of_work, pending, routing, rules, bump_revision=True)
    await assignments.delete_waiting_of_clocks(connection, over)


Escalation = ClockEscalated | ClockBreached
"""What takes a lead away: a step of its clause, or with SLA monitors before those the breach itself."""


def _latest_breaches(data: Sequence[object]) -> tuple[list[Escalation], list[UUID]]:
    """Breaches that stand at the end of these events, and clocks whose breach is void or answered."""
    broken: dict[UUID, Escalation] = {}
    over: dict[UUID, None] = {}
    for event in data:
        if isinstance(event, Escalation) and event.reassign and event.lead_id is not None and not event.backfill:
            broken[event.clock_id] = event
        elif isinstance(event, ClockMet | BreachWithdrawn | ClockCancelled):
            broken.pop(event.clock_id, None)
            over[event.clock_id] = None
    return list(broken.values()), list(over)


def _pending(broken: Sequence[Escalation], locked: dict[UUID, Lead], rules: Rules) -> list[PendingAssignment]:
    """Leads that still are with whom the breach speaks of, in an open stage; each once."""
    opened = open_stages(rules)
    found: dict[UUID, PendingAssignment] = {}
    for event in broken:
        lead = locked[event.lead_id] if event.lead_id else None
        while lead is not None and lead.merged_into is not None:
            lead = locked[lead.merged_into]
        if lead is None or lead.erased or lead.stage not in opened or lead.owner is None or lead.owner != event.owner:
            continue
        breach = Breach(event.breach_id, event.clock_id, event.clause, event.owner)
        found.setdefault(lead.lead_id, PendingAssignment(lead, "breach", breach))
    return list(found.values())
