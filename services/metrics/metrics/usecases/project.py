"""Projects a batch of the other services' events, in the one transaction of the batch. It publishes nothing.

The outcome does not depend on how the topics' events interleave or how they are cut into batches, so a projection
made anew
from the log equals the one that grew with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from uuid import UUID

import asyncpg

from accord.contracts.agreement_events import AgreementActivated
from accord.contracts.base import EventData
from accord.contracts.intake_events import (
    ActivityRecorded,
    LeadCaptured,
    LeadErased,
    LeadMerged,
    LeadUnmerged,
    LeadUpdated,
)
from accord.contracts.qualification_events import LeadAssigned, LeadStageChanged, OpportunityUpdated
from accord.contracts.sla_events import ClockEvent
from accord.db import Recording
from metrics.domain import clock as clocks
from metrics.domain import lead as leads
from metrics.domain.definition_view import stages_of_definition
from metrics.domain.journey import chain
from metrics.domain.lead import Lead
from metrics.queries import projection

_LEAD_EVENTS = (LeadCaptured, LeadUpdated, LeadMerged, LeadUnmerged, LeadErased, LeadAssigned)


async def project(recording: Recording, events: Sequence[EventData]) -> None:
    """Apply events in their order within each key. Types that nothing is projected from are passed over.

    Raises ValueError for a definition whose stages cannot be read.
    """
    driver = await recording.driver()
    changes = [event for event in events if isinstance(event, LeadStageChanged)]
    await _project_leads(driver, [event for event in events if isinstance(event, _LEAD_EVENTS)], changes)
    await projection.add_activities(driver, (event for event in events if isinstance(event, ActivityRecorded)))
    await projection.save_opportunities(driver, (event for event in events if isinstance(event, OpportunityUpdated)))
    await _project_clocks(driver, [event for event in events if isinstance(event, ClockEvent)])
    for event in events:
        if isinstance(event, AgreementActivated) and event.kind == "definition":
            stages_of_definition(event.version, event.content)
            await projection.save_definition(driver, event.version, event.effective_from, event.content)


async def _project_leads(
    driver: asyncpg.Connection, events: Sequence[EventData], changes: Sequence[LeadStageChanged]
) -> None:
    touched = {lead_id for event in events for lead_id in _leads_of(event)} | {change.lead_id for change in changes}
    known = await projection.lock_leads(driver, touched)
    before = dict(known)
    for event in events:
        for lead_id, change in _effects(event):
            known[lead_id] = change(known[lead_id])
    await _project_chains(driver, known, changes)
    await projection.save_leads(driver, (lead for lead_id, lead in sorted(known.items()) if lead != before[lead_id]))


async def _project_chains(
    driver: asyncpg.Connection, known: dict[UUID, Lead], changes: Sequence[LeadStageChanged]
) -> None:
    if not changes:
        return
    await projection.add_changes(driver, changes)
    reported = await projection.changes_of(driver, sorted({change.lead_id for change in changes}))
    chains = {lead_id: chain(of_lead) for lead_id, of_lead in sorted(reported.items())}
    await projection.save_chains(driver, chains, reported)
    for lead_id, entries in chains.items():
        known[lead_id] = leads.on_way(known[lead_id], entries)


def _leads_of(event: EventData) -> Iterable[UUID]:
    return (lead_id for lead_id, _ in _effects(event))


def _effects(event: EventData) -> list[tuple[UUID, Callable[[Lead], Lead]]]:
    """Which leads an event changes, and how."""
    match event:
        case LeadCaptured() | LeadUpdated():
            return [
                (event.lead_id, lambda lead: leads.with_state(lead, event.state, event.sequence, event.recorded_at))
            ]
        case LeadMerged():
            return [
                (event.lead_id, lambda lead: leads.with_state(lead, event.state, event.sequence, event.recorded_at)),
                (event.merged_lead_id, lambda lead: leads.merged(lead, event.lead_id, event.recorded_at)),
            ]
        case LeadUnmerged():
            return [
                (event.lead_id, lambda lead: leads.with_state(lead, event.state, event.sequence, event.recorded_at)),
                (event.restored_lead_id, lambda lead: leads.restored(lead, event.restored_state, event.recorded_at)),
            ]
        case LeadErased():
            return [(event.lead_id, lambda lead: leads.without_attributes(lead, event.sequence))]
        case LeadAssigned():
            return [(event.lead_id, lambda lead: leads.assigned(lead, event.owner, event.sequence))]
        case _:
            return []


async def _project_clocks(driver: asyncpg.Connection, events: Sequence[ClockEvent]) -> None:
    if not events:
        return
    known = await projection.lock_clocks(driver, {event.clock_id for event in events})
    for event in events:
        known[event.clock_id] = clocks.after(known.get(event.clock_id), event)
    await projection.save_clocks(driver, known.values())
