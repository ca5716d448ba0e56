"""Leads are given to people: those of a batch one after another under one lock, those that wait, and those of a breach.

The pools are locked together, after the leads and in one order, so that pointers and counts of open leads hold until the commit and no
two transactions give one person the last place. A unit of work in which no lead needs anybody asks the database for nothing here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Literal
from uuid import UUID

import asyncpg
import msgspec
from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from accord.contracts.qualification_events import LeadAssigned
from accord.db import UnitOfWork
from accord.ids import new_id
from qualification.definition.domain.rules import Rules
from qualification.lifecycle.domain.lead import Activities, Lead
from qualification.lifecycle.service.evaluation_context import AfterSave, Changes, PrepareAfterSave
from qualification.routing.domain.assignment import Assignment, RoutingInput, RoutingState, assign
from qualification.routing.domain.document import Routing, open_stages
from qualification.routing.domain.pointer import Pointer
from qualification.routing.queries import assignments
from qualification.routing.queries import document as stored
from qualification.routing.queries.assignments import AssignmentRow, Waiting
from qualification.routing.service.document import RoutingVersionCache, facts_of

Cause = Literal["stage", "waiting", "breach", "person", "merge"]
"""Why a lead was given to somebody: it entered a stage, somebody has become available, a clause was broken, a person said so, or two
leads became one."""


WHY_MERGED = "the lead that was merged into this one had this owner, and nobody worked on this one"
WHY_REVERTED = "the merge by which this lead had got its owner was reverted"


class Breach(Struct, frozen=True):
    """The breach that a lead is taken away from its owner for."""

    breach_id: UUID
    clock_id: UUID
    clause: str
    owner: str | None


class PendingAssignment(Struct, frozen=True):
    """A lead that needs an owner. `is_silent`: no event if nobody is found, since that was published before."""

    lead: Lead
    cause: Cause
    breach: Breach | None = None
    is_silent: bool = False
    traceparent: str | None = None


class FixedAssignment(Struct, frozen=True):
    """An assignment that was decided elsewhere: by a person, or by a merge."""

    lead: Lead
    owner: str | None
    cause: Cause
    why: str
    actor: str | None = None
    reason: str | None = None
    traceparent: str | None = None
    occurred_at: datetime | None = None
    """When it was made, if not now."""
    merge_id: UUID | None = None
    """The merge by which it came, which is then its id: reverted, it is found by it."""


def assign_after_save(routing_cache: RoutingVersionCache) -> PrepareAfterSave:
    """What is done after leads are saved: they are assigned by the routing in force."""

    async def prepare(conn: AsyncConnection | None) -> AfterSave:
        return partial(assign_entered_leads, routing=await routing_cache.in_force(conn))

    return prepare


async def assign_entered_leads(
    unit_of_work: UnitOfWork, changes: Changes, rules: Rules | None, *, routing: Routing | None
) -> None:
    """After the leads of a unit of work were written: those that entered one of the routing's stages are given to people.

    A survivor on which nobody works takes the owner of the lead that was merged into it, until the merge is reverted. Leads that are
    merged or erased belong to nobody.
    """
    taken_over: Collection[UUID] = ()
    if changes.merges or changes.erased:
        taken_over = await _release_owners(unit_of_work, changes, rules)
    if changes.reverted_merges:
        await _separate_owners(unit_of_work, changes, routing)
    if not changes.entries or routing is None or rules is None:
        return
    entered = _select_entered(changes, routing, rules, unit_of_work.now)
    pending = [PendingAssignment(lead, "stage") for lead in entered if lead.lead_id not in taken_over]
    await assign_leads(unit_of_work, pending, routing, rules, bump_revision=False)


def _select_entered(changes: Changes, routing: Routing, rules: Rules, now: datetime) -> list[Lead]:
    """Leads that need somebody since they entered a stage: those without an owner, and those that came back.

    One that goes on from an open stage to another keeps its owner without a word.
    """
    stages, opened = routing.stages_of(rules), open_stages(rules)
    found: dict[UUID, Lead] = {}
    for entry in changes.entries:
        lead = changes.now[entry.lead_id]
        if lead.stage not in stages or lead.merged_into is not None or lead.erased or lead.lead_id in found:
            continue
        from_closed = entry.from_stage is not None and entry.from_stage not in opened
        came_back = from_closed and entry.stage in stages and not entry.correction
        if (lead.owner is None or came_back) and not _is_too_old(lead, routing, now):
            found[lead.lead_id] = lead
    return list(found.values())


def _is_too_old(lead: Lead, routing: Routing, now: datetime) -> bool:
    age = now - lead.stage_since if lead.stage_since else timedelta()
    return routing.entered_within is not None and age > routing.entered_within


async def _release_owners(unit_of_work: UnitOfWork, changes: Changes, rules: Rules | None) -> Collection[UUID]:
    """Take owners away from leads that are gone, and give them to survivors that have none or were in no open stage; which survivors
    those were."""
    opened = open_stages(rules) if rules else frozenset()
    fixed: dict[UUID, FixedAssignment] = {}
    for merge_id, merged_id, survivor_id in changes.merges:
        owner, survivor = changes.before[merged_id].owner, changes.now[survivor_id]
        is_free = survivor.owner is None or changes.before[survivor_id].stage not in opened
        if owner is not None and is_free and survivor.stage in opened and not survivor.erased:
            fixed.setdefault(survivor_id, FixedAssignment(survivor, owner, "merge", WHY_MERGED, merge_id=merge_id))
    await record_assignments(unit_of_work, list(fixed.values()), bump_revision=False)
    connection = await unit_of_work.connection()
    gone = {merge.other_id for merge in changes.merges} | set(changes.erased)
    await assignments.release(connection, sorted(gone))
    await assignments.erase(connection, sorted(changes.erased))
    return fixed.keys()


async def _separate_owners(unit_of_work: UnitOfWork, changes: Changes, routing: Routing | None) -> None:
    """After merges were reverted: a survivor that got its owner by one has the owner of before, and whoever has none now waits."""
    connection = await unit_of_work.connection()
    survivors = sorted({merge.survivor_id for merge in changes.reverted_merges})
    last = await assignments.find_last_assignments(connection, survivors)
    fixed = [
        FixedAssignment(changes.now[merge.survivor_id], last[merge.survivor_id].previous_owner, "merge", WHY_REVERTED)
        for merge in changes.reverted_merges
        if merge.survivor_id in last and last[merge.survivor_id].assignment_id == merge.merge_id
    ]
    await record_assignments(unit_of_work, fixed, bump_revision=False)
    if routing is None:
        return
    owners = {item.lead.lead_id: item.owner for item in fixed}
    parted = {lead_id for merge in changes.reverted_merges for lead_id in (merge.other_id, merge.survivor_id)}
    await enqueue_leads(
        connection,
        [
            lead_id
            for lead_id in sorted(parted)
            if owners.get(lead_id, changes.now[lead_id].owner) is None
            and not _is_too_old(changes.now[lead_id], routing, unit_of_work.now)
        ],
        unit_of_work.now,
    )


async def enqueue_leads(connection: asyncpg.Connection, lead_ids: Sequence[UUID], now: datetime) -> None:
    """Have these leads wait, as if they had been tried under a version before the first: they are tried next, where they still need
    somebody then."""
    known = await assignments.find_waiting(connection, lead_ids)
    rows = [Waiting(lead_id, "", 0) for lead_id in lead_ids if lead_id not in known]
    await assignments.upsert_waiting(connection, rows, now)


async def assign_leads(
    unit_of_work: UnitOfWork,
    pending: Sequence[PendingAssignment],
    routing: Routing,
    rules: Rules,
    *,
    bump_revision: bool,
) -> dict[UUID, Assignment]:
    """Assign these locked leads, in order, and publish it. A lead for which nobody is found waits.

    `bump_revision`: the leads' revision grows by this; else the caller's own writing of the leads has seen to that.
    """
    if not pending:
        return {}
    connection = await unit_of_work.connection()
    session = await _AssignmentSession.open(connection, pending, routing, rules, unit_of_work.now)
    made = {item.lead.lead_id: session.assign(item) for item in pending}
    await session.save(unit_of_work, bump_revision=bump_revision)
    return made


async def record_assignments(
    unit_of_work: UnitOfWork, fixed: Sequence[FixedAssignment], *, bump_revision: bool
) -> list[LeadAssigned]:
    """Save and publish what was decided elsewhere. No pointer moves; the pools are locked, so that counts hold."""
    if not fixed:
        return []
    connection = await unit_of_work.connection()
    await stored.lock_pointers(connection)
    rows: list[AssignmentRow] = []
    events: list[LeadAssigned] = []
    for item in fixed:
        at = item.occurred_at or unit_of_work.now
        event = _build_event(item.lead, item.owner, None, item.why, unit_of_work.now, at)
        rows.append(
            AssignmentRow(
                lead_id=item.lead.lead_id,
                assignment_id=item.merge_id or new_id(),
                sequence=event.sequence,
                owner=item.owner,
                previous_owner=item.lead.owner,
                pool=None,
                cause=item.cause,
                why=item.why,
                occurred_at=at,
                reason=item.reason,
                actor=item.actor,
            )
        )
        events.append(event)
        unit_of_work.publish(event, traceparent=item.traceparent)
    await assignments.insert(connection, rows, unit_of_work.now, bump_revision=bump_revision)
    await assignments.delete_waiting(connection, [item.lead.lead_id for item in fixed])
    owned = [(item.lead, item.owner) for item in fixed if item.owner is not None]
    await stored.save_account_owners(connection, _account_owners(owned), unit_of_work.now)
    return events


class _AssignmentSession:
    """The state of all pools, locked, while the leads of one unit of work are given out. Lives for one `assign_leads`."""

    def __init__(
        self,
        routing: Routing,
        rules: Rules,
        now: datetime,
        state: RoutingState,
        accounts: dict[UUID, str],
        extra_activities: Mapping[UUID, Activities],
    ) -> None:
        self._routing = routing
        self._rules = rules
        self._now = now
        self._state = state
        self._account_owners = accounts
        self._extra_activities = extra_activities
        self._open = open_stages(rules)
        self._before = state.pointers
        self._rows: list[AssignmentRow] = []
        self._events: list[tuple[LeadAssigned, str | None]] = []
        self._waiting_rows: list[Waiting] = []
        self._owned: list[tuple[Lead, str]] = []
        self._assigned_ids: list[UUID] = []

    @classmethod
    async def open(
        cls,
        connection: asyncpg.Connection,
        pending: Sequence[PendingAssignment],
        routing: Routing,
        rules: Rules,
        now: datetime,
    ) -> _AssignmentSession:
        pointers: Mapping[str, Pointer] = await stored.lock_pointers(connection)
        leads = [item.lead for item in pending]
        people = {*routing.people, *(lead.owner for lead in leads if lead.owner is not None)}
        counts = await stored.count_open_leads(connection, people, open_stages(rules))
        accounts = await stored.find_account_owners(connection, _account_ids(leads)) if routing.same_account else {}
        extra_activities = await stored.load_activities(
            connection, [lead.lead_id for lead in leads], routing.kinds - rules.kinds
        )
        return cls(routing, rules, now, RoutingState(pointers, counts), accounts, extra_activities)

    def assign(self, item: PendingAssignment) -> Assignment:
        """Find an owner for one lead, in the state that those before it have left."""
        lead = item.lead
        account = lead.profile.account_id if lead.profile else None
        asked = RoutingInput(
            lead_id=lead.lead_id,
            facts=facts_of(lead, self._extra_activities.get(lead.lead_id), self._rules, self._now),
            owner=lead.owner,
            counted=lead.owner is not None and lead.stage in self._open,
            account_owner=self._account_owners.get(account) if account else None,
            avoid=item.breach.owner if item.breach else None,
        )
        made, self._state = assign(asked, self._routing, self._state, self._now)
        if made.owner is not None:
            self._assigned_ids.append(lead.lead_id)
            self._owned.append((lead, made.owner))
            if account is not None:
                self._account_owners[account] = made.owner
        else:
            self._waiting_rows.append(self._waiting_row(item, made))
        if made.owner is not None or not (item.is_silent or asked.avoid):
            self._record(item, made)
        return made

    async def save(self, unit_of_work: UnitOfWork, *, bump_revision: bool) -> None:
        """Save and publish everything, by one statement a table."""
        connection = await unit_of_work.connection()
        pointers = self._state.pointers
        moved = {pool: pointer for pool, pointer in pointers.items() if pointer != self._before.get(pool)}
        await stored.move_pointers(connection, moved)
        await assignments.insert(connection, self._rows, self._now, bump_revision=bump_revision)
        await assignments.delete_waiting(connection, self._assigned_ids)
        await assignments.upsert_waiting(connection, self._waiting_rows, self._now)
        await stored.save_account_owners(connection, _account_owners(self._owned), self._now)
        for event, traceparent in self._events:
            unit_of_work.publish(event, traceparent=traceparent)

    def _record(self, item: PendingAssignment, made: Assignment) -> None:
        why = f"the clause {item.breach.clause} was broken; {made.why}" if item.breach else made.why
        breach_id = item.breach.breach_id if item.breach else None
        event = _build_event(item.lead, made.owner, made.pool, why, self._now, self._now, breach_id)
        self._events.append((event, item.traceparent))
        self._rows.append(
            AssignmentRow(
                lead_id=item.lead.lead_id,
                assignment_id=new_id(),
                sequence=event.sequence,
                owner=made.owner,
                previous_owner=item.lead.owner,
                pool=made.pool,
                cause=item.cause,
                why=why,
                occurred_at=self._now,
                clause=item.breach.clause if item.breach else None,
                breach_id=breach_id,
                routing_version=self._routing.version,
                explanation=explanation_json(made).decode(),
            )
        )

    def _waiting_row(self, item: PendingAssignment, made: Assignment) -> Waiting:
        breach = item.breach
        return Waiting(
            lead_id=item.lead.lead_id,
            pool=made.pool or "",
            routing_version=self._routing.version,
            avoid=breach.owner if breach else None,
            clause=breach.clause if breach else None,
            breach_id=breach.breach_id if breach else None,
            clock_id=breach.clock_id if breach else None,
        )


def explanation_json(made: Assignment) -> bytes:
    """Why, as JSON, as it is stored and answered."""
    return msgspec.json.encode({"how": made.how, "rules": made.rules, "sticky": made.sticky, "pools": made.pools})


def _build_event(
    lead: Lead,
    owner: str | None,
    pool: str | None,
    why: str,
    now: datetime,
    occurred_at: datetime,
    breach_id: UUID | None = None,
) -> LeadAssigned:
    return LeadAssigned(
        lead_id=lead.lead_id,
        sequence=lead.sequence + 1,
        occurred_at=occurred_at,
        recorded_at=now,
        owner=owner,
        previous_owner=lead.owner,
        pool=pool,
        breach_id=breach_id,
        why=why[:_WHY_CHARS_MAX],
    )


_WHY_CHARS_MAX = 2_000


def _account_ids(leads: Iterable[Lead]) -> set[UUID]:
    return {lead.profile.account_id for lead in leads if lead.profile and lead.profile.account_id}


def _account_owners(owned: Iterable[tuple[Lead, str]]) -> dict[UUID, str]:
    """Account → who was given a lead of it last."""
    return {lead.profile.account_id: owner for lead, owner in owned if lead.profile and lead.profile.account_id}
