"""Merges two leads by a person's decision, and reverts merges; each in one transaction. What the rules are, the domain says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeVar
from uuid import UUID

import asyncpg
from msgspec import Struct
from msgspec.structs import replace

from accord.db import Database, UnitOfWork, connection_of
from accord.http.idempotency import Answer, IdempotencyRequest, IdempotentResult, execute_once
from accord.http.problems import Problem, gone, not_found, validation_error_at
from accord.ids import new_id
from intake.identity.domain.merge_revert import LaterMerge, split_merge
from intake.identity.queries import merges
from intake.identity.queries.merges import MergeRecord, RevertibleMerge
from intake.leads.domain.lead import Lead
from intake.leads.domain.unit_of_work import CaptureUnitOfWork
from intake.leads.queries import do_not_merge as do_not_merge_pairs
from intake.leads.queries import leads as lead_queries
from intake.leads.service.merge_group import RecordNotFound, get_merge_group
from intake.leads.service.normalization import find_account
from intake.leads.service.unit_of_work import retry_on_conflict, save_lead_changes

_REREADS_MAX = 10
T = TypeVar("T")


class Requester(Struct, frozen=True):
    """Who asks, under which idempotency key if there is one."""

    caller: str
    idempotency_request: IdempotencyRequest | None = None


class MergeResult(NamedTuple):
    """A merge that was just made, and those of the ids asked for that had been merged before."""

    record: MergeRecord
    followed: list[UUID]


async def merge_leads(
    database: Database, lead_id: UUID, other_id: UUID, requester: Requester, encode: Callable[[MergeResult], Answer]
) -> IdempotentResult[MergeResult]:
    """Merge two leads. One that was merged before is followed to its survivor.

    Raises Problem 404 and 410 for a lead that is not there, 409 where the two are one lead already, 422 for a lead with itself.
    """
    return await _once(
        database, requester, lambda unit_of_work: _merge(unit_of_work, lead_id, other_id, requester.caller), encode
    )


async def revert_merge(
    database: Database, merge_id: UUID, requester: Requester, encode: Callable[[MergeRecord], Answer]
) -> IdempotentResult[MergeRecord]:
    """Revert a merge. Raises Problem 404, and 409 where it cannot be reverted now."""
    return await _once(
        database, requester, lambda unit_of_work: _revert(unit_of_work, merge_id, requester.caller), encode
    )


async def find_merge(database: Database, merge_id: UUID) -> MergeRecord | None:
    """One merge; None if there is none."""
    async with database.read_transaction() as conn:
        revertible = await merges.read(await connection_of(conn), merge_id)
        return None if revertible is None else revertible.record


async def list_merges(database: Database, lead_id: UUID, after: UUID | None, rows_max: int) -> list[MergeRecord]:
    """The merges in which this lead, or one that was merged into it, took part; newest first. Raises Problem 404 or 410."""
    async with database.read_transaction() as conn:
        connection = await connection_of(conn)
        return await merges.page(connection, [*await get_merge_group(connection, lead_id), lead_id], after, rows_max)


async def _once(
    database: Database, requester: Requester, act: Callable[[UnitOfWork], Awaitable[T]], encode: Callable[[T], Answer]
) -> IdempotentResult[T]:
    async def attempt() -> IdempotentResult[T]:
        async with database.write_transaction() as unit_of_work:
            return await execute_once(unit_of_work, requester.idempotency_request, lambda: act(unit_of_work), encode)

    return await retry_on_conflict(attempt)


async def _merge(unit_of_work: UnitOfWork, lead_id: UUID, other_id: UUID, caller: str) -> MergeResult:
    if lead_id == other_id:
        raise validation_error_at("/with", "Must be another lead")
    connection = await unit_of_work.connection()
    one, other = await _lock_survivors(connection, lead_id, other_id)
    if one.lead_id == other.lead_id:
        raise Problem(
            409,
            "already-merged",
            "Leads already merged",
            "Both ids lead to one lead, named in survivor_id.",
            survivor_id=str(one.lead_id),
        )
    lead_changes = CaptureUnitOfWork(unit_of_work.now, {one.lead_id: one, other.lead_id: other}, {})
    lead_changes.merge(one, other, new_id(), None, caller)
    await save_lead_changes(connection, lead_changes, unit_of_work.now)
    await do_not_merge_pairs.remove_pair(connection, one.lead_id, other.lead_id)
    unit_of_work.publish(*lead_changes.events)
    (merge,) = lead_changes.merges
    record = MergeRecord(
        merge.merge_id, merge.survivor.lead_id, merge.other.lead_id, None, caller, unit_of_work.now, None, None
    )
    return MergeResult(record, [asked for asked, lead in ((lead_id, one), (other_id, other)) if asked != lead.lead_id])


async def _lock_survivors(connection: asyncpg.Connection, lead_id: UUID, other_id: UUID) -> tuple[Lead, Lead]:
    """The survivors under these ids, locked. One that is merged meanwhile is looked for again."""
    for _ in range(_REREADS_MAX):
        one = (await get_merge_group(connection, lead_id))[0]
        try:
            other = (await get_merge_group(connection, other_id))[0]
        except RecordNotFound as absence:
            if absence.erased:
                raise
            raise validation_error_at("/with", "There is no such lead") from None
        locked = await lead_queries.lock_leads(connection, {one, other})
        if {one, other} <= locked.keys() and all(lead.merged_into is None for lead in locked.values()):
            return locked[one], locked[other]
    raise lead_queries.ConcurrentMerge


async def _revert(unit_of_work: UnitOfWork, merge_id: UUID, caller: str) -> MergeRecord:
    connection, now = await unit_of_work.connection(), unit_of_work.now
    revertible, leads = await _lock(connection, merge_id)
    record = revertible.record
    survivor, absorbed = leads.get(record.survivor_id), leads.get(record.merged_lead_id)
    if survivor is None or absorbed is None:
        raise gone("lead")
    await _refuse_if_survivor_was_merged(connection, record, survivor)
    later = await merges.find_later(connection, record)
    if not {one.record.merged_lead_id for one in later} <= leads.keys():
        raise lead_queries.ConcurrentMerge
    owners = await lead_queries.find_key_owners(connection, revertible.keys_moved)
    returned = [key for key in revertible.keys_moved if owners.get(key, survivor.lead_id) == survivor.lead_id]
    back = split_merge(
        survivor,
        absorbed,
        revertible.before,
        returned,
        [LaterMerge(one.record.merge_id, leads[one.record.merged_lead_id], one.before) for one in later],
        merge_id,
        now,
        find_account,
    )
    await lead_queries.update_leads(connection, [back.survivor, back.restored], now)
    await merges.revert_merge(connection, revertible, returned, caller, now)
    await merges.update_snapshots(connection, back.survivor, back.later)
    unit_of_work.publish(*back.events)
    return replace(record, reverted_at=now, reverted_by=caller)


async def _lock(connection: asyncpg.Connection, merge_id: UUID) -> tuple[RevertibleMerge, dict[UUID, Lead]]:
    """The merge, with its keys locked, and its leads and those that the survivor absorbed later, locked. Raises Problem 404, 409."""
    revertible = await merges.read(connection, merge_id)
    if revertible is None:
        raise not_found("merge")
    await lead_queries.lock_keys(connection, revertible.keys_moved)
    record = revertible.record
    others = [one.record.merged_lead_id for one in await merges.find_later(connection, record)]
    leads = await lead_queries.lock_leads(connection, {record.survivor_id, record.merged_lead_id, *others})
    revertible = await merges.read(connection, merge_id)  # as it is now that nobody else can revert it
    if revertible is None:
        raise not_found("merge")
    if revertible.record.reverted_at is not None:
        raise Problem(
            409,
            "already-reverted",
            "Merge already reverted",
            "This merge was reverted before.",
            reverted_at=revertible.record.reverted_at,
        )
    return revertible, leads


async def _refuse_if_survivor_was_merged(connection: asyncpg.Connection, record: MergeRecord, survivor: Lead) -> None:
    if survivor.merged_into is None:
        return
    above = await merges.find_absorbing_merge(connection, survivor.lead_id)
    raise Problem(
        409,
        "revert-later-merge-first",
        "Revert the later merge first",
        "The survivor of this merge was merged into another lead since. Revert that merge first, named in revert_first.",
        revert_first=None if above is None else str(above.merge_id),
    )
