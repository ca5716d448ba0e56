"""A person gives a lead to somebody by hand, and who was given which lead is read. No pointer of any pool moves."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from uuid import UUID

import asyncpg
from msgspec import Struct

from accord.db import Database, UnitOfWork, connection_of
from accord.http import idempotency
from qualification.definition.domain.rules import Rules
from qualification.lifecycle.domain.decisions import LeadModified, LeadNotFound, LeadWasErased, allowed_decisions
from qualification.lifecycle.domain.lead import Lead
from qualification.lifecycle.queries import external_keys, leads
from qualification.lifecycle.service.decisions import Author
from qualification.lifecycle.service.views import ListedLead, build_listed_lead
from qualification.routing.domain.document import Routing, open_stages
from qualification.routing.queries import assignments
from qualification.routing.service.assignment import FixedAssignment, record_assignments

WHY_BY_HAND = "by hand"


class OwnerChange(Struct, frozen=True):
    """A person wants a lead to go to somebody. `lead` is an id or the digest of an external id; `revision` as in Proposal."""

    lead: UUID | str
    owner: str
    reason: str | None
    revision: int | None = None


class UnknownOwner(Exception):
    """The routing document names no such person."""


class OwnerChangeResult(Struct, frozen=True):
    """What came of a wish. Where the person had the lead already, nothing was recorded and `changed` is false."""

    lead_id: UUID
    owner: str
    previous_owner: str | None
    changed: bool
    revision: int
    at: datetime


async def assign_by_hand(
    database: Database,
    routing: Routing | None,
    rules: Rules | None,
    change: OwnerChange,
    author: Author,
    idempotency_request: idempotency.IdempotencyRequest | None,
    encode: Callable[[OwnerChangeResult], idempotency.Answer],
) -> idempotency.IdempotentResult[OwnerChangeResult]:
    """Assign the lead to the person. Raises UnknownOwner, decisions.LeadNotFound, LeadWasErased or LeadModified."""
    async with database.write_transaction() as unit_of_work:
        return await idempotency.execute_once(
            unit_of_work,
            idempotency_request,
            lambda: _change_owner(unit_of_work, routing, rules, change, author),
            encode,
        )


async def _change_owner(
    unit_of_work: UnitOfWork, routing: Routing | None, rules: Rules | None, change: OwnerChange, author: Author
) -> OwnerChangeResult:
    if routing is not None and change.owner not in routing.people:
        raise UnknownOwner(change.owner)
    lead = await _lock_lead(unit_of_work, change, rules)
    result = OwnerChangeResult(
        lead.lead_id, change.owner, lead.owner, lead.owner != change.owner, lead.revision, unit_of_work.now
    )
    if not result.changed:
        return result
    fixed = FixedAssignment(lead, change.owner, "person", WHY_BY_HAND, actor=author.name, reason=change.reason)
    await record_assignments(unit_of_work, [fixed], bump_revision=True)
    return OwnerChangeResult(lead.lead_id, change.owner, lead.owner, True, lead.revision + 1, unit_of_work.now)


async def _lock_lead(unit_of_work: UnitOfWork, change: OwnerChange, rules: Rules | None) -> Lead:
    connection = await unit_of_work.connection()
    lead_id = await external_keys.resolve(connection, change.lead)
    if lead_id is None:
        raise LeadNotFound("no lead is known by this external id")
    locked = await leads.lock(connection, [lead_id], rules.kinds if rules else ())
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
