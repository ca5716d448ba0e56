"""Writes what was decided about leads and keys, with the pairs that people have parted kept apart, and does again a transaction that met
another one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TypeVar
from uuid import UUID

import asyncpg

from accord.batching import Overloaded
from intake.leads.domain.unit_of_work import CaptureUnitOfWork
from intake.leads.queries import apart as apart_queries
from intake.leads.queries import leads as lead_queries
from intake.leads.queries.leads import Moved

Apart = set[frozenset[UUID]]
Decided = TypeVar("Decided")
T = TypeVar("T")
TRIES_MAX = 4
_RETRIED = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError, Moved)


async def with_pairs_apart(
    connection: asyncpg.Connection, play: Callable[[Apart], tuple[CaptureUnitOfWork, Decided]]
) -> tuple[CaptureUnitOfWork, Decided]:
    """What `play` decides, given the pairs of leads that people have parted. They are looked up only where it would merge somebody."""
    register, decided = play(set())
    if register.merges and (apart := await apart_queries.find_separated_pairs(connection, register.known)):
        return play(apart)
    return register, decided


async def write(connection: asyncpg.Connection, register: CaptureUnitOfWork, now: datetime) -> None:
    """Save what became of leads and keys; the events are published by the caller."""
    await lead_queries.delete_keys(connection, register.dropped_keys)
    leads = [register.leads[lead_id] for lead_id in sorted(register.touched)]
    await lead_queries.insert_leads(connection, [lead for lead in leads if lead.lead_id not in register.known], now)
    await lead_queries.update_leads(connection, [lead for lead in leads if lead.lead_id in register.known], now)
    for merge in register.merges:
        await lead_queries.save_merge(connection, merge, now)
    await lead_queries.insert_keys(connection, register.new_keys, register.external)


async def tried(act: Callable[[], Awaitable[T]]) -> T:
    """What `act` gives; a transaction that met another one is done again, a bounded number of times."""
    for _ in range(TRIES_MAX - 1):
        try:
            return await act()
        except _RETRIED:
            continue
    try:
        return await act()
    except Moved:
        raise Overloaded(1.0) from None
