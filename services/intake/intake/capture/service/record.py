"""Records activities of leads: many requests, one transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import asyncpg
from msgspec import Struct
from msgspec.structs import replace

from accord.contracts.external_key import external_key
from accord.contracts.intake_events import ActivityRecorded
from accord.db import Database, UnitOfWork
from accord.http.idempotency import (
    Answer,
    Fresh,
    IdempotencyRequest,
    IdempotentResult,
    claim_requests,
    complete_requests,
)
from accord.ids import new_id
from accord.terms.findings import Finding
from intake.leads.domain.consent import WITHDRAWAL, WITHDRAWN
from intake.leads.domain.keys import IdentityKey
from intake.leads.domain.lead import Lead
from intake.leads.domain.submission import ActivityIn, is_in_future
from intake.leads.queries import activities, consents, merge_group
from intake.leads.queries import leads as lead_queries
from intake.leads.service.merge_group import RecordNotFound
from intake.leads.service.normalization import parse_email
from intake.leads.service.submissions import NO_ADDRESS, future_time_error
from intake.leads.service.unit_of_work import retry_on_conflict

_TRIES_MAX = 20
"""For leads that are merged again until they are locked."""


class ActivityRequest(Struct, frozen=True):
    """One activity with who sent it, and its idempotency key if it has one."""

    activity: ActivityIn
    caller: str
    idempotency_request: IdempotencyRequest | None = None
    left_out: tuple[Finding, ...] = ()
    """What had to go before it was an activity."""


class Recorded(NamedTuple):
    """An activity that was saved; `lead_id` is the survivor's where the lead was merged."""

    activity_id: UUID
    lead_id: UUID
    left_out: tuple[Finding, ...] = ()


ActivityResult = Recorded | Finding | RecordNotFound
"""What became of one activity, or why it left no trace."""


class ActivityRecorder:
    """The use case. `apply` is what a GroupCommit calls; `encode` makes the answer that is saved under a request's key."""

    def __init__(self, database: Database, encode: Callable[[ActivityResult], Answer]) -> None:
        self._database = database
        self._encode = encode

    async def apply(self, requests: Sequence[ActivityRequest]) -> list[IdempotentResult[ActivityResult] | Exception]:
        """What became of each request, in order, after the commit."""
        return await retry_on_conflict(lambda: self._record(requests))

    async def _record(self, requests: Sequence[ActivityRequest]) -> list[IdempotentResult[ActivityResult] | Exception]:
        idempotency_requests = [request.idempotency_request for request in requests]
        async with self._database.write_transaction() as unit_of_work:
            verdicts = await claim_requests(unit_of_work, idempotency_requests)
            fresh = [one for one, verdict in zip(requests, verdicts, strict=True) if isinstance(verdict, Fresh)]
            return await complete_requests(
                unit_of_work,
                idempotency_requests,
                verdicts,
                await _record_activities(unit_of_work, fresh),
                self._encode,
            )


async def _record_activities(unit_of_work: UnitOfWork, requests: Sequence[ActivityRequest]) -> list[ActivityResult]:
    connection, now = await unit_of_work.connection(), unit_of_work.now
    leads = await _lock_leads_of(connection, requests)
    results: list[ActivityResult] = []
    rows: list[activities.Row] = []
    touched: dict[UUID, Lead] = {}
    for request, lead_id in zip(requests, leads.named, strict=True):
        activity = request.activity
        lead = None if lead_id is None else touched.get(lead_id) or leads.locked.get(lead_id)
        if is_in_future(activity.occurred_at, now):
            results.append(future_time_error())
        elif activity.email is not None and parse_email(activity.email).address is None:
            results.append(NO_ADDRESS)
        elif lead is None:
            results.append(RecordNotFound("lead", erased=activity.lead_id in leads.erased))
        else:
            lead = replace(lead, sequence=lead.sequence + 1)
            touched[lead.lead_id] = lead
            row = activities.Row(
                lead.lead_id, new_id(), activity, request.caller, min(activity.occurred_at or now, now)
            )
            rows.append(row)
            unit_of_work.publish(_event(row, lead, now))
            held_back = activity.campaign.find_held_back() if activity.campaign else ()
            results.append(Recorded(row.activity_id, lead.lead_id, request.left_out + held_back))
    await lead_queries.save_sequences(connection, list(touched.values()))
    await activities.save(connection, rows, now)
    await consents.insert(connection, [_withdrawal(row) for row in rows if row.activity.kind == WITHDRAWAL], now)
    return results


def _withdrawal(row: activities.Row) -> consents.Row:
    """What an activity says of consent: whoever reports a withdrawal, it counts."""
    source = row.activity.external.source if row.activity.external else None
    return consents.Row(row.lead_id, row.activity_id, None, source, row.caller, WITHDRAWN, None, row.occurred_at)


class _Leads(Struct, frozen=True):
    """The lead that each request names (None: there is none), and those leads, locked; ids of those who were erased."""

    named: list[UUID | None]
    locked: dict[UUID, Lead]
    erased: set[UUID]


async def _lock_leads_of(connection: asyncpg.Connection, requests: Sequence[ActivityRequest]) -> _Leads:
    """Find and lock the leads; one that was merged into another meanwhile is followed to the survivor."""
    keys = [_identity_key(request.activity) for request in requests]
    found = await lead_queries.find_key_owners(connection, (key for key in keys if key is not None))
    named = [
        request.activity.lead_id if key is None else found.get(key) for request, key in zip(requests, keys, strict=True)
    ]
    locked = await lead_queries.lock_leads(connection, {lead_id for lead_id in named if lead_id is not None})
    for _ in range(_TRIES_MAX):
        merged = {lead_id for lead_id in named if lead_id in locked and locked[lead_id].merged_into}
        if not merged:
            break
        moved = await merge_group.find_survivors(connection, merged)
        named = [moved.get(lead_id, lead_id) if lead_id else None for lead_id in named]
        missing = {lead_id for lead_id in named if lead_id is not None and lead_id not in locked}
        locked |= await lead_queries.lock_leads(connection, missing) if missing else {}
    survivors = {lead_id: lead for lead_id, lead in locked.items() if lead.merged_into is None}
    absent = {lead_id for lead_id in named if lead_id is not None and lead_id not in survivors}
    return _Leads(named, survivors, await merge_group.find_erased(connection, list(absent)))


def _identity_key(activity: ActivityIn) -> IdentityKey | None:
    """The identity key that names the lead; None where its id does, or nothing."""
    if activity.email is not None:
        address = parse_email(activity.email).address
        return None if address is None else ("email", address)
    if activity.external is not None:
        return "external", external_key(activity.external.source, activity.external.id)
    return None


def _event(row: activities.Row, lead: Lead, now: datetime) -> ActivityRecorded:
    said = row.activity
    return ActivityRecorded(
        lead_id=row.lead_id,
        sequence=lead.sequence,
        occurred_at=row.occurred_at,
        recorded_at=now,
        activity_id=row.activity_id,
        kind=said.kind,
        by=said.by,
        actor=said.actor,
        actor_kind=said.actor_kind,
        source=said.external.source if said.external else None,
        campaign=said.campaign.public() if said.campaign else None,
    )
