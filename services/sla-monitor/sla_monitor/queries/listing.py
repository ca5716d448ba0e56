"""Fetches pages of clocks and breaches, by deadline. Read-only."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import asyncpg
from msgspec import Struct

from accord.contracts.values import Department
from sla_monitor.domain.clock import Clock, ClockState
from sla_monitor.queries.attainment import COUNTED_AT
from sla_monitor.queries.cases import CLOCK_COLUMNS, clock_from_row

_IS_PUBLISHED = "event_count > 0"
"""Not so of a request that repeats an open one."""

PageCursor = tuple[datetime, UUID]
"""Deadline and id of the last clock of the previous page."""


class ClockFilter(Struct, frozen=True):
    """Filters of clocks; None means all."""

    state: ClockState | None = None
    clause: str | None = None
    owner: str | None = None
    due_before: datetime | None = None
    after: PageCursor | None = None


class BreachFilter(Struct, frozen=True):
    """Filters of breaches, by deadline; None means all. `withdrawn` includes withdrawn ones."""

    since: datetime | None = None
    until: datetime | None = None
    clause: str | None = None
    obliges: Department | None = None
    withdrawn: bool = False
    after: PageCursor | None = None


async def fetch_clocks(connection: asyncpg.Connection, filters: ClockFilter, rows_max: int) -> list[Clock]:
    """Fetch the next clocks, soonest deadline first."""
    conditions = _Conditions(_IS_PUBLISHED)
    conditions.add("state = {}", filters.state)
    conditions.add("clause = {}", filters.clause)
    conditions.add("owner = {}", filters.owner)
    conditions.add("due_at < {}", filters.due_before)
    return await conditions.fetch_page(connection, filters.after, rows_max)


async def fetch_breaches(connection: asyncpg.Connection, filters: BreachFilter, rows_max: int) -> list[Clock]:
    """Fetch the next breached clocks, earliest deadline first."""
    conditions = _Conditions("breach_id IS NOT NULL")
    if not filters.withdrawn:
        conditions.add("withdrawn_at IS NULL")
    conditions.add(f"due_at >= {{0}} AND {COUNTED_AT} >= {{0}}", filters.since)
    conditions.add(f"due_at <= {{0}} AND {COUNTED_AT} < {{0}}", filters.until)
    conditions.add("clause = {}", filters.clause)
    conditions.add("obliges = {}", filters.obliges)
    return await conditions.fetch_page(connection, filters.after, rows_max)


async def lead_exists(connection: asyncpg.Connection, lead_id: UUID) -> bool:
    """Whether any event of this lead was processed."""
    exists: bool = await connection.fetchval("SELECT EXISTS (SELECT FROM lead WHERE lead_id = $1)", lead_id)
    return exists


async def fetch_lead_clocks(connection: asyncpg.Connection, lead_id: UUID, rows_max: int) -> list[Clock]:
    """Fetch the clocks of one lead, the latest start first."""
    statement = f"SELECT {CLOCK_COLUMNS} FROM clock WHERE lead_id = $1 AND {_IS_PUBLISHED} ORDER BY started_at DESC, clock_id LIMIT $2"
    return [clock_from_row(row) for row in await connection.fetch(statement, lead_id, rows_max)]


async def lock_breached_clock(connection: asyncpg.Connection, breach_id: UUID) -> Clock | None:
    """Lock the clock of a breach; None if there is none."""
    lead_id = await connection.fetchval("SELECT lead_id FROM clock WHERE breach_id = $1", breach_id)
    if lead_id is None:
        return None
    # Whatever changes a lead's clocks locks the lead first.
    await connection.execute("SELECT FROM lead WHERE lead_id = $1 FOR UPDATE", lead_id)
    statement = f"SELECT {CLOCK_COLUMNS} FROM clock WHERE lead_id = $1 AND breach_id = $2 FOR UPDATE"
    row = await connection.fetchrow(statement, lead_id, breach_id)
    return None if row is None else clock_from_row(row)


class _Conditions:
    """The conditions of one statement with their values."""

    def __init__(self, *fixed: str) -> None:
        self._conditions = list(fixed)
        self._values: list[object] = []

    def add(self, condition: str, *values: object) -> None:
        """Add a condition, unless one of its values is None."""
        if None in values:
            return
        numbers = [f"${len(self._values) + number}" for number in range(1, len(values) + 1)]
        self._conditions.append(condition.format(*numbers))
        self._values += values

    async def fetch_page(self, connection: asyncpg.Connection, after: PageCursor | None, rows_max: int) -> list[Clock]:
        if after is not None:
            self.add("(due_at, clock_id) > ({}, {})", *after)
        where = f"WHERE {' AND '.join(self._conditions)} " if self._conditions else ""
        statement = f"SELECT {CLOCK_COLUMNS} FROM clock {where}ORDER BY due_at, clock_id LIMIT ${len(self._values) + 1}"
        return [clock_from_row(row) for row in await connection.fetch(statement, *self._values, rows_max)]
