"""Projects a batch of the other services' events in the batch's transaction. It publishes nothing.

The outcome does not depend on how the topics' events interleave or on the batches. So a projection that is rebuilt from
the log equals the one that grew with it.
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
from accord.db import UnitOfWork
from metrics.domain import clock as clocks
from metrics.domain import lead as leads
from metrics.domain.definition_view import parse_stages
from metrics.domain.lead import Lead
from metrics.domain.stage_history import derive_stage_history
from metrics.queries import projection

_LEAD_EVENTS = (LeadCaptured, LeadUpdated, LeadMerged, LeadUnmerged, LeadErased, LeadAssigned)


async def project_events(unit_of_work: UnitOfWork, events: Sequence[EventData]) -> None:
    """Apply events in their order within each key. Other types of events are skipped.

    Raises ValueError for a definition whose stages cannot be parsed.
    """
    connection = await unit_of_work.connection()
    changes = [event for event in events if isinstance(event, LeadStageChanged)]
    await _project_leads(connection, [event for event in events if isinstance(event, _LEAD_EVENTS)], changes)
    await projection.insert_assignments(connection, (event for event in events if isinstance(event, LeadAssigned)))
    await projection.insert_activities(connection, (event for event in events if isinstance(event, ActivityRecorded)))
    await projection.save_opportunities(
        connection, [event for event in events if isinstance(event, OpportunityUpdated)]
    )
    await _project_clocks(connection, [event for event in events if isinstance(event, ClockEvent)])
    for event in events:
        if isinstance(event, AgreementActivated) and event.kind == "definition":
            parse_stages(event.version, event.content)
            await projection.save_definition(connection, event.version, event.effective_from, event.content)


async def _project_leads(
    connection: asyncpg.Connection, events: Sequence[EventData], changes: Sequence[LeadStageChanged]
) -> None:
    touched = {lead_id for event in events for lead_id in _list_leads(event)} | {change.lead_id for change in changes}
    leads_by_id = await projection.lock_leads(connection, touched)
    before = dict(leads_by_id)
    for event in events:
        for lead_id, change in _list_lead_changes(event):
            leads_by_id[lead_id] = change(leads_by_id[lead_id])
    await _project_stage_histories(connection, leads_by_id, changes)
    await projection.save_leads(
        connection, (lead for lead_id, lead in sorted(leads_by_id.items()) if lead != before[lead_id])
    )


async def _project_stage_histories(
    connection: asyncpg.Connection, leads_by_id: dict[UUID, Lead], changes: Sequence[LeadStageChanged]
) -> None:
    if not changes:
        return
    await projection.insert_changes(connection, changes)
    reported = await projection.fetch_changes(connection, sorted({change.lead_id for change in changes}))
    histories = {lead_id: derive_stage_history(of_lead) for lead_id, of_lead in sorted(reported.items())}
    await projection.save_stage_histories(connection, histories, reported)
    for lead_id, entries in histories.items():
        leads_by_id[lead_id] = leads.with_stage_path(leads_by_id[lead_id], entries)


def _list_leads(event: EventData) -> Iterable[UUID]:
    return (lead_id for lead_id, _ in _list_lead_changes(event))


def _list_lead_changes(event: EventData) -> list[tuple[UUID, Callable[[Lead], Lead]]]:
    """List the leads that an event changes, each with its change."""
    match event:
        case LeadCaptured() | LeadUpdated():
            return [
                (event.lead_id, lambda lead: leads.with_state(lead, event.state, event.sequence, event.recorded_at))
            ]
        case LeadMerged():
            return [
                (event.lead_id, lambda lead: leads.with_state(lead, event.state, event.sequence, event.recorded_at)),
                (event.merged_lead_id, lambda lead: leads.apply_merge(lead, event.lead_id, event.recorded_at)),
            ]
        case LeadUnmerged():
            return [
                (event.lead_id, lambda lead: leads.with_state(lead, event.state, event.sequence, event.recorded_at)),
                (
                    event.restored_lead_id,
                    lambda lead: leads.revert_merge(lead, event.restored_state, event.recorded_at),
                ),
            ]
        case LeadErased():
            return [(event.lead_id, lambda lead: leads.without_attributes(lead, event.sequence))]
        case LeadAssigned():
            return [(event.lead_id, lambda lead: leads.assign_owner(lead, event.owner, event.sequence))]
        case _:
            return []


async def _project_clocks(connection: asyncpg.Connection, events: Sequence[ClockEvent]) -> None:
    if not events:
        return
    clocks_by_id = await projection.lock_clocks(connection, {event.clock_id for event in events})
    for event in events:
        clocks_by_id[event.clock_id] = clocks.apply_event(clocks_by_id.get(event.clock_id), event)
    await projection.save_clocks(connection, clocks_by_id.values())
