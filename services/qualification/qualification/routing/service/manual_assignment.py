"""A person gives a lead to somebody by hand, and who was given which lead is read. No pointer of any pool moves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from uuid import UUID

import asyncpg
from msgspec import Struct
from msgspec.structs import replace

from accord.db import Database, UnitOfWork, connection_of
from accord.http import idempotency
from qualification.definition.domain.rules import Rules
from qualification.lifecycle.domain.decisions import (
    LeadModified,
    LeadNotFound,
    LeadWasErased,
    Refused,
    allowed_decisions,
)
from qualification.lifecycle.domain.lead import Lead
from qualification.lifecycle.queries import external_keys, leads
from qualification.lifecycle.service.decisions import Author
from qualification.lifecycle.service.views import ListedLead, build_listed_lead
from qualification.routing.domain.document import Routing, open_stages
from qualification.routing.queries import assignments
from qualification.routing.service.assignment import FixedAssignment, record_assignments

WHY_BY_HAND = "by hand"


class OwnerChange(Struct, frozen=True):
    """A person wants a lead to go to somebody. `lead` is an id or the digest of an external id; `revision` as in Proposal; `occurred_at`
    None is now."""

    lead: UUID | str
    owner: str
    reason: str | None
    occurred_at: datetime | None = None
    revision: int | None = None


class UnknownOwner(Exception):
    """The routing document names no such person."""


class InvalidMoment(Exception):
    """The assignment is dated where none can be: ahead of now, before the lead's capture or before its last assignment."""


class OwnerChangeResult(Struct, frozen=True):
    """What came of a wish. Where the person had the lead already, nothing was recorded and `changed` is false."""

    lead_id: UUID
    owner: str
    previous_owner: str | None
    changed: bool
    revision: int
    at: datetime


OwnerChangeOutcome = OwnerChangeResult | Refused | UnknownOwner | InvalidMoment


async def assign_by_hand(
    database: Database,
    routing: Routing | None,
    rules: Rules | None,
    changes: Sequence[OwnerChange],
    author: Author,
    idempotency_request: idempotency.IdempotencyRequest | None,
    encode: Callable[[Sequence[OwnerChangeOutcome]], idempotency.Answer],
) -> idempotency.IdempotentResult[Sequence[OwnerChangeOutcome]]:
    """Assign these leads in one transaction, in order, and save what `encode` makes of the outcomes under the idempotency key.

    What `encode` raises rolls the transaction back.
    """
    async with database.write_transaction() as unit_of_work:
        return await idempotency.execute_once(
            unit_of_work,
            idempotency_request,
            lambda: _change_owners(unit_of_work, routing, rules, changes, author),
            encode,
        )


async def _change_owners(
    unit_of_work: UnitOfWork,
    routing: Routing | None,
    rules: Rules | None,
    changes: Sequence[OwnerChange],
    author: Author,
) -> list[OwnerChangeOutcome]:
    connection = await unit_of_work.connection()
    named = await external_keys.find(connection, (change.lead for change in changes if isinstance(change.lead, str)))
    targets = [change.lead if isinstance(change.lead, UUID) else named.get(change.lead) for change in changes]
    asked = {lead_id for lead_id in targets if lead_id is not None}
    locked = await leads.lock(connection, asked, rules.kinds if rules else ())
    last = await assignments.find_last_assignments(connection, sorted(locked))
    reached = {lead_id: assignment.occurred_at for lead_id, assignment in last.items()}
    fixed: list[FixedAssignment] = []
    outcomes: list[OwnerChangeOutcome] = []
    for change, lead_id in zip(changes, targets, strict=True):
        try:
            lead = _find_lead(locked, lead_id, change, rules)
            at = change.occurred_at or unit_of_work.now
            if routing is not None and change.owner not in routing.people:
                raise UnknownOwner(change.owner)
            _check_moment(lead, change, reached.get(lead.lead_id), unit_of_work.now)
        except (Refused, UnknownOwner, InvalidMoment) as refusal:
            outcomes.append(refusal)
            continue
        revision, is_changed = lead.revision, lead.owner != change.owner
        if is_changed:
            fixed.append(
                FixedAssignment(
                    lead,
                    change.owner,
                    "person",
                    WHY_BY_HAND,
                    actor=author.name,
                    reason=change.reason,
                    occurred_at=at,
                )
            )
            locked[lead.lead_id] = replace(lead, owner=change.owner, sequence=lead.sequence + 1)
            reached[lead.lead_id] = at
            revision += 1
        outcomes.append(OwnerChangeResult(lead.lead_id, change.owner, lead.owner, is_changed, revision, at))
    await record_assignments(unit_of_work, fixed, bump_revision=True)
    return outcomes


def _find_lead(locked: Mapping[UUID, Lead], lead_id: UUID | None, change: OwnerChange, rules: Rules | None) -> Lead:
    """The lead, its survivor where it was merged. Raises Refused."""
    if lead_id is None:
        raise LeadNotFound("no lead is known by this external id")
    lead = locked[lead_id]
    while lead.merged_into is not None:
        lead = locked[lead.merged_into]
    if lead.erased:
        raise LeadWasErased("the lead was erased")
    if lead.profile is None:
        raise LeadNotFound("no such lead has entered")
    if change.revision is not None and change.revision != lead.revision:
        raise LeadModified(lead.revision, lead.stage, allowed_decisions(lead, rules))
    return lead


def _check_moment(lead: Lead, change: OwnerChange, last: datetime | None, now: datetime) -> None:
    """An owner's history is written in its order, so a date lies after the last assignment. Raises InvalidMoment."""
    at = change.occurred_at
    if at is None:
        return
    if at > now:
        raise InvalidMoment("is in the future")
    if lead.profile is not None and at < lead.profile.captured_at:
        raise InvalidMoment("is before the lead was captured")
    if last is not None and at < last:
        raise InvalidMoment("is before the last assignment of the lead")


async def list_assignments(
    database: Database, reference: UUID | str, after: int, rows_max: int
) -> tuple[Lead, list[asyncpg.Record]] | None:
    """The lead, its survivor where it was merged, and its assignments after a sequence. None if there is no such lead."""
    async with database.read_transaction() as conn:
        connection = await connection_of(conn)
        lead_id = await external_keys.resolve(connection, reference)
        lead = await leads.read(connection, lead_id, ()) if lead_id is not None else None
        if lead is None or (lead.profile is None and not lead.erased):
            return None
        return lead, await assignments.fetch_page(connection, lead.lead_id, after, rows_max)


async def list_owned(
    database: Database, owner: str, rules: Rules | None, after: tuple[bool, UUID], rows_max: int
) -> list[tuple[bool, ListedLead]]:
    """The next leads of a person, open ones first; each with whether it is open. `after` is such a pair."""
    stages = sorted(open_stages(rules)) if rules else []
    opened, after_id = after
    found: list[tuple[bool, ListedLead]] = []
    async with database.read_transaction() as conn:
        connection = await connection_of(conn)
        if opened:
            rows = await assignments.fetch_owned(connection, owner, stages, after_id, rows_max, opened=True)
            found = [(True, build_listed_lead(row)) for row in rows]
            after_id = UUID(int=0)
        if len(found) < rows_max:
            rows = await assignments.fetch_owned(
                connection, owner, stages, after_id, rows_max - len(found), opened=False
            )
            found += [(False, build_listed_lead(row)) for row in rows]
    return found
