"""A person gives a lead to somebody by hand, and who was given which lead is read. No pointer of any pool moves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from accord.db import Database, UnitOfWork, connection_of
from accord.http import idempotency
from qualification.definition.domain.rules import Rules
from qualification.lifecycle.domain.decisions import Changed, Gone, Unknown, allowed_decisions
from qualification.lifecycle.domain.lead import Lead
from qualification.lifecycle.queries import external_keys, leads
from qualification.lifecycle.service.decide import Author
from qualification.lifecycle.service.view import Row, list_row
from qualification.routing.domain.document import Routing, open_stages
from qualification.routing.queries import assignments
from qualification.routing.service.give import Told, tell

WHY_BY_HAND = "by hand"


@dataclass(frozen=True, slots=True)
class Wish:
    """A person wants a lead to go to somebody. `lead` is an id or the digest of an external id; `revision` as in Proposal."""

    lead: UUID | str
    owner: str
    reason: str | None
    revision: int | None = None


class Stranger(Exception):
    """The routing document names no such person."""


@dataclass(frozen=True, slots=True)
class Given:
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
    wish: Wish,
    author: Author,
    idempotency_request: idempotency.IdempotencyRequest | None,
    encode: Callable[[Given], idempotency.Answer],
) -> idempotency.IdempotentResult[Given]:
    """Give the lead to the person. Raises Stranger, and decisions.Unknown, Gone or Changed; then nothing has changed."""
    async with database.write_transaction() as unit_of_work:
        return await idempotency.execute_once(
            unit_of_work, idempotency_request, lambda: _give(unit_of_work, routing, rules, wish, author), encode
        )


async def _give(
    unit_of_work: UnitOfWork, routing: Routing | None, rules: Rules | None, wish: Wish, author: Author
) -> Given:
    if routing is not None and wish.owner not in routing.people:
        raise Stranger(wish.owner)
    lead = await _locked(unit_of_work, wish, rules)
    given = Given(lead.lead_id, wish.owner, lead.owner, lead.owner != wish.owner, lead.revision, unit_of_work.now)
    if not given.changed:
        return given
    told = Told(lead, wish.owner, "person", WHY_BY_HAND, actor=author.name, reason=wish.reason)
    await tell(unit_of_work, [told], revised=True)
    return Given(lead.lead_id, wish.owner, lead.owner, True, lead.revision + 1, unit_of_work.now)


async def _locked(unit_of_work: UnitOfWork, wish: Wish, rules: Rules | None) -> Lead:
    connection = await unit_of_work.connection()
    lead_id = await external_keys.named(connection, wish.lead)
    if lead_id is None:
        raise Unknown("no lead is known by this external id")
    locked = await leads.lock(connection, [lead_id], rules.kinds if rules else ())
    lead = locked[lead_id]
    while lead.merged_into is not None:
        lead = locked[lead.merged_into]
    if lead.erased:
        raise Gone("the lead was erased")
    if lead.profile is None:
        raise Unknown("no such lead has entered")
    if wish.revision is not None and wish.revision != lead.revision:
        raise Changed(lead.revision, lead.stage, allowed_decisions(lead, rules))
    return lead


async def list_assignments(
    database: Database, named: UUID | str, after: int, rows_max: int
) -> tuple[Lead, list[asyncpg.Record]] | None:
    """The lead, its survivor where it was merged, and its assignments after a sequence. None if there is no such lead."""
    async with database.read_transaction() as conn:
        connection = await connection_of(conn)
        lead_id = await external_keys.named(connection, named)
        lead = await leads.read(connection, lead_id, ()) if lead_id is not None else None
        if lead is None or (lead.profile is None and not lead.erased):
            return None
        return lead, await assignments.page(connection, lead.lead_id, after, rows_max)


async def list_owned(
    database: Database, owner: str, rules: Rules | None, after: tuple[bool, UUID], rows_max: int
) -> list[tuple[bool, Row]]:
    """The next leads of a person, open ones first; each with whether it is open. `after` is such a pair."""
    stages = sorted(open_stages(rules)) if rules else []
    opened, place = after
    found: list[tuple[bool, Row]] = []
    async with database.read_transaction() as conn:
        connection = await connection_of(conn)
        if opened:
            rows = await assignments.owned(connection, owner, stages, place, rows_max, opened=True)
            found = [(True, list_row(row)) for row in rows]
            place = UUID(int=0)
        if len(found) < rows_max:
            rows = await assignments.owned(connection, owner, stages, place, rows_max - len(found), opened=False)
            found += [(False, list_row(row)) for row in rows]
    return found
