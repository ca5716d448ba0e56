"""Saves what was decided about leads and keys, merges no pair that people have separated, and retries a transaction that conflicted with
another.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TypeVar
from uuid import UUID

import asyncpg

from accord.batching import Overloaded
from intake.leads.domain.unit_of_work import CaptureUnitOfWork
from intake.leads.queries import do_not_merge as do_not_merge_pairs
from intake.leads.queries import leads as lead_queries
from intake.leads.queries.leads import ConcurrentMerge

DoNotMergePairs = set[frozenset[UUID]]
Decided = TypeVar("Decided")
T = TypeVar("T")
TRIES_MAX = 4
_RETRIED = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError, ConcurrentMerge)


async def decide_with_exclusions(
    connection: asyncpg.Connection, decide: Callable[[DoNotMergePairs], tuple[CaptureUnitOfWork, Decided]]
) -> tuple[CaptureUnitOfWork, Decided]:
    """What `decide` decides, given the pairs of leads that people have separated. They are looked up only where it would merge somebody."""
    lead_changes, decided = decide(set())
    if lead_changes.merges and (
        do_not_merge := await do_not_merge_pairs.find_pairs(connection, lead_changes.existing_ids)
    ):
        return decide(do_not_merge)
    return lead_changes, decided


async def save_lead_changes(connection: asyncpg.Connection, lead_changes: CaptureUnitOfWork, now: datetime) -> None:
    """Save what became of leads and keys; the events are published by the caller."""
    await lead_queries.delete_keys(connection, lead_changes.dropped_keys)
    leads = [lead_changes.leads[lead_id] for lead_id in sorted(lead_changes.changed_ids)]
    await lead_queries.insert_leads(
        connection, [lead for lead in leads if lead.lead_id not in lead_changes.existing_ids], now
    )
    await lead_queries.update_leads(
        connection, [lead for lead in leads if lead.lead_id in lead_changes.existing_ids], now
    )
    for merge in lead_changes.merges:
        await lead_queries.save_merge(connection, merge, now)
    await lead_queries.insert_keys(connection, lead_changes.new_keys, lead_changes.external)


async def retry_on_conflict(act: Callable[[], Awaitable[T]]) -> T:
    """What `act` returns; a transaction that conflicted with another is retried a bounded number of times."""
    for _ in range(TRIES_MAX - 1):
        try:
            return await act()
        except _RETRIED:
            continue
    try:
        return await act()
    except ConcurrentMerge:
        raise Overloaded(1.0) from None
