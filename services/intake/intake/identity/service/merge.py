"""Merges two leads by a person's decision, and takes merges back; each in one transaction. What the rules are, the domain says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar
from uuid import UUID

import asyncpg

from accord.db import Database, UnitOfWork, connection_of
from accord.http.idempotency import Answer, IdempotencyRequest, IdempotentResult, execute_once
from accord.http.problems import Problem, gone, not_found, validation_error_at
from accord.ids import new_id
from intake.identity.domain.merging import Later, parted
from intake.identity.queries import merges
from intake.identity.queries.merges import Made, Recorded
from intake.leads.domain.lead import Lead
from intake.leads.domain.unit_of_work import CaptureUnitOfWork
from intake.leads.queries import apart as apart_queries
from intake.leads.queries import leads as lead_queries
from intake.leads.service.family import NotThere, family_of
from intake.leads.service.ledger import tried, write
from intake.leads.service.recognise import account_domain, account_id_of

_REREADS_MAX = 10
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Who:
    """Who asks, under which idempotency key if there is one."""

    caller: str
    idempotency_request: IdempotencyRequest | None = None


class Merged(NamedTuple):
    """A merge that was just made, and those of the ids asked for that had been merged before."""

    made: Made
    followed: list[UUID]


async def merge_leads(
    database: Database, lead_id: UUID, other_id: UUID, who: Who, encode: Callable[[Merged], Answer]
) -> IdempotentResult[Merged]:
    """Merge two leads. One that was merged before is followed to its survivor.

    Raises Problem 404 and 410 for a lead that is not there, 409 where the two are one lead already, 422 for a lead with itself.
    """
    return await _once(database, who, lambda unit_of_work: _merge(unit_of_work, lead_id, other_id, who.caller), encode)


async def take_back(
    database: Database, merge_id: UUID, who: Who, encode: Callable[[Made], Answer]
) -> IdempotentResult[Made]:
    """Take a merge back. Raises Problem 404, and 409 where it cannot be taken back now."""
    return await _once(database, who, lambda unit_of_work: _take_back(unit_of_work, merge_id, who.caller), encode)


async def find_merge(database: Database, merge_id: UUID) -> Made | None:
    """One merge; None if there is none."""
    async with database.read_transaction() as conn:
        recorded = await merges.read(await connection_of(conn), merge_id)
        return None if recorded is None else recorded.made


async def merges_of(database: Database, lead_id: UUID, after: UUID | None, rows_max: int) -> list[Made]:
    """The merges in which this lead, or one that was merged into it, took part; newest first. Raises Problem 404 or 410."""
    async with database.read_transaction() as conn:
        connection = await connection_of(conn)
        return await merges.page(connection, [*await family_of(connection, lead_id), lead_id], after, rows_max)


async def _once(
    database: Database, who: Who, act: Callable[[UnitOfWork], Awaitable[T]], encode: Callable[[T], Answer]
) -> IdempotentResult[T]:
    async def attempt() -> IdempotentResult[T]:
        async with database.write_transaction() as unit_of_work:
            return await execute_once(unit_of_work, who.idempotency_request, lambda: act(unit_of_work), encode)

    return await tried(attempt)


async def _merge(unit_of_work: UnitOfWork, lead_id: UUID, other_id: UUID, caller: str) -> Merged:
    if lead_id == other_id:
        raise validation_error_at("/with", "Must be another lead")
    connection = await unit_of_work.connection()
    one, other = await _living(connection, lead_id, other_id)
    if one.lead_id == other.lead_id:
        raise Problem(
            409,
            "already-merged",
            "They are one lead already",
            "Both ids lead to one lead, named in survivor_id.",
            survivor_id=str(one.lead_id),
        )
    register = CaptureUnitOfWork(unit_of_work.now, {one.lead_id: one, other.lead_id: other}, {})
    register.merge(one, other, new_id(), None, caller)
    await write(connection, register, unit_of_work.now)
    await apart_queries.join_again(connection, one.lead_id, other.lead_id)
    unit_of_work.publish(*register.events)
    (merge,) = register.merges
    made = Made(merge.merge_id, merge.survivor.lead_id, merge.other.lead_id, None, caller, unit_of_work.now, None, None)
    return Merged(made, [asked for asked, lead in ((lead_id, one), (other_id, other)) if asked != lead.lead_id])


async def _living(connection: asyncpg.Connection, lead_id: UUID, other_id: UUID) -> tuple[Lead, Lead]:
    """The leads that live under these ids, locked. One that is merged meanwhile is looked for again."""
    for _ in range(_REREADS_MAX):
        one = (await family_of(connection, lead_id))[0]
        try:
            other = (await family_of(connection, other_id))[0]
        except NotThere as absence:
            if absence.erased:
                raise
            raise validation_error_at("/with", "There is no such lead") from None
        locked = await lead_queries.lock_leads(connection, {one, other})
        if {one, other} <= locked.keys() and all(lead.merged_into is None for lead in locked.values()):
            return locked[one], locked[other]
    raise lead_queries.Moved


async def _take_back(unit_of_work: UnitOfWork, merge_id: UUID, caller: str) -> Made:
    connection, now = await unit_of_work.connection(), unit_of_work.now
    recorded, leads = await _locked(connection, merge_id)
    made = recorded.made
    survivor, absorbed = leads.get(made.survivor_id), leads.get(made.merged_lead_id)
    if survivor is None or absorbed is None:
        raise gone("lead")
    await _refuse_what_stands_on_it(connection, made, survivor)
    later = await merges.later(connection, made)
    if not {one.made.merged_lead_id for one in later} <= leads.keys():
        raise lead_queries.Moved
    owners = await lead_queries.find_keys(connection, recorded.keys_moved)
    returned = [key for key in recorded.keys_moved if owners.get(key, survivor.lead_id) == survivor.lead_id]
    back = parted(
        survivor,
        absorbed,
        recorded.before,
        returned,
        [Later(one.made.merge_id, leads[one.made.merged_lead_id], one.before) for one in later],
        merge_id,
        now,
        _account_of,
    )
    await lead_queries.update_leads(connection, [back.survivor, back.restored], now)
    await merges.take_back(connection, recorded, returned, caller, now)
    await merges.rewrite(connection, back.survivor, back.later)
    unit_of_work.publish(*back.events)
    return replace(made, reverted_at=now, reverted_by=caller)


async def _locked(connection: asyncpg.Connection, merge_id: UUID) -> tuple[Recorded, dict[UUID, Lead]]:
    """The merge, with its keys locked, and its leads and those that the survivor absorbed later, locked. Raises Problem 404, 409."""
    recorded = await merges.read(connection, merge_id)
    if recorded is None:
        raise not_found("merge")
    await lead_queries.lock_keys(connection, recorded.keys_moved)
    made = recorded.made
    others = [one.made.merged_lead_id for one in await merges.later(connection, made)]
    leads = await lead_queries.lock_leads(connection, {made.survivor_id, made.merged_lead_id, *others})
    recorded = await merges.read(connection, merge_id)  # as it is now that nobody else can take it back
    if recorded is None:
        raise not_found("merge")
    if recorded.made.reverted_at is not None:
        raise Problem(
            409,
            "already-reverted",
            "It was taken back",
            "This merge was taken back before.",
            reverted_at=recorded.made.reverted_at,
        )
    return recorded, leads


async def _refuse_what_stands_on_it(connection: asyncpg.Connection, made: Made, survivor: Lead) -> None:
    if survivor.merged_into is None:
        return
    above = await merges.that_took(connection, survivor.lead_id)
    raise Problem(
        409,
        "revert-another-first",
        "Its survivor was merged on",
        "The survivor of this merge was merged into another lead since. Take that merge back first, named in revert_first.",
        revert_first=None if above is None else str(above.merge_id),
    )


def _account_of(person: Mapping[str, str]) -> UUID | None:
    email = person.get("email")
    domain = account_domain(person.get("domain"), email.rpartition("@")[2] if email else None)
    return None if domain is None else account_id_of(domain)
