"""Leads that nobody could be given find somebody once one is available, and those from before a routing document are looked at.

Bounded by the round and found by index: leads that wait in a pool are looked at only while somebody there, or in the fallback, can be
given a lead. Resumable: what waits is a row, and how far a new document's leads have been looked at is another.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from accord.db import Database, UnitOfWork, clamp_moment
from accord.isolation import process_isolated
from accord.workers import Periodic
from qualification.definition.domain.rules import Rules
from qualification.definition.service import DefinitionVersionCache
from qualification.lifecycle.domain.lead import Lead
from qualification.lifecycle.queries import leads
from qualification.routing.domain.assignment import RoutingState, evaluate_pool
from qualification.routing.domain.document import Routing
from qualification.routing.queries import assignments
from qualification.routing.queries import document as stored
from qualification.routing.queries.assignments import Waiting
from qualification.routing.service.assignment import Breach, PendingAssignment, assign_leads, enqueue_leads
from qualification.routing.service.document import RoutingVersionCache, read_state

LEADS_PER_ROUND_MAX = 200
SWEPT_PER_ROUND_MAX = 1_000
EVERY_S = 1.0
IDLE_EVERY_S = 3.0


async def assign_waiting_leads(
    database: Database, routing: Routing, rules: Rules, leads_max: int = LEADS_PER_ROUND_MAX
) -> int:
    """Try so many waiting leads again; how many were tried. One of which this raises rests, and the others go on."""

    async def claim(unit_of_work: UnitOfWork, only: Sequence[UUID] | None) -> Sequence[UUID]:
        pools = await _pools_with_room(unit_of_work, routing, rules)
        return await assignments.claim_waiting(await unit_of_work.connection(), pools, routing.version, leads_max, only)

    async def work(unit_of_work: UnitOfWork, lead_ids: Sequence[UUID]) -> None:
        connection = await unit_of_work.connection()
        # The lead is locked before it is asked whether it still waits, as everywhere: its row here changes only under that lock.
        locked = await leads.lock(connection, lead_ids, rules.kinds)
        waiting = await assignments.find_waiting(connection, lead_ids)
        pending = [
            PendingAssignment(
                locked[lead_id], "breach" if row.breach_id else "waiting", _breach(row), is_silent=bool(row.pool)
            )
            for lead_id, row in sorted(waiting.items())  # ids are in the order of capture
            if _needs_owner(locked[lead_id], row, routing, rules)
        ]
        done = sorted(waiting.keys() - {item.lead.lead_id for item in pending})
        await assign_leads(unit_of_work, pending, routing, rules, bump_revision=True)
        await assignments.delete_waiting(connection, done)

    return await process_isolated(database, assignments.ASSIGNMENT_WORKER, assignments.IS_WAITING, claim, work)


async def sweep(database: Database, routing: Routing, rules: Rules, leads_max: int = SWEPT_PER_ROUND_MAX) -> bool:
    """Have leads wait that stand in one of the routing's stages without an owner. Whether there may be more to look at."""
    async with database.write_transaction() as unit_of_work:
        connection = await unit_of_work.connection()
        after = await stored.lock_sweep(connection, routing.version)
        if after is None:
            return False
        page = await stored.fetch_sweep_page(connection, routing.stages_of(rules), after, leads_max)
        recent = [
            row["lead_id"]
            for row in page
            if row["owner"] is None
            and (
                routing.entered_within is None
                or unit_of_work.now - clamp_moment(row["stage_since"]) <= routing.entered_within
            )
        ]
        await enqueue_leads(connection, recent, unit_of_work.now)
        done = len(page) < leads_max
        until = (page[-1]["stage"], page[-1]["lead_id"]) if page else after
        await stored.save_sweep(connection, routing.version, until, done=done)
    return not done


def assignment_worker(
    database: Database, routing_cache: RoutingVersionCache, definitions: DefinitionVersionCache
) -> Periodic:
    """The worker that does both."""

    async def work() -> bool | None:
        routing, rules = await routing_cache.in_force(), await definitions.in_force()
        if routing is None or rules is None:
            return None
        more = await sweep(database, routing, rules)
        lead_ids = await assign_waiting_leads(database, routing, rules)
        return lead_ids >= LEADS_PER_ROUND_MAX or more if lead_ids or more else None

    return Periodic(assignments.ASSIGNMENT_WORKER, EVERY_S, work, idle_every_s=IDLE_EVERY_S)


async def _pools_with_room(unit_of_work: UnitOfWork, routing: Routing, rules: Rules) -> list[str]:
    """The pools in which leads wait and for which somebody can be given one now."""
    connection = await unit_of_work.connection()
    pools = await assignments.find_pools_waited_for(connection, routing.pools)
    if not pools:
        return []
    state = await read_state(connection, routing, rules)
    fallback = routing.fallback is not None and _has_room(routing, routing.fallback, state, unit_of_work)
    return [pool for pool in pools if fallback or _has_room(routing, pool, state, unit_of_work)]


def _has_room(routing: Routing, pool: str, state: RoutingState, unit_of_work: UnitOfWork) -> bool:
    return evaluate_pool(routing, pool, state, unit_of_work.now)[1]


def _needs_owner(lead: Lead, row: Waiting, routing: Routing, rules: Rules) -> bool:
    """Whether the lead still needs somebody: it is where it needs an owner and has none, or the one to take it away from."""
    stage = rules.stages.get(lead.stage) if lead.stage else None
    if lead.erased or lead.merged_into is not None or lead.profile is None or stage is None:
        return False
    pending = stage.kind == "open" if row.breach_id else stage.key in routing.stages_of(rules)
    return pending and lead.owner == row.avoid


def _breach(row: Waiting) -> Breach | None:
    if row.breach_id is None or row.clock_id is None or row.clause is None:
        return None
    return Breach(row.breach_id, row.clock_id, row.clause, row.avoid)
