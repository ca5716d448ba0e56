"""Pages of clocks and breaches, by deadline. Read-only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from accord.contracts.values import Department
from sla_monitor.domain.clock import Clock, ClockState
from sla_monitor.queries.cases import CLOCK_COLUMNS, clock_of

Place = tuple[datetime, UUID]
"""Deadline and id of the last clock of the page before."""


@dataclass(frozen=True, slots=True)
class ClockFilter:
    """Which clocks are asked for; None asks for all."""

    state: ClockState | None = None
    clause: str | None = None
    owner: str | None = None
    due_before: datetime | None = None
    after: Place | None = None


@dataclass(frozen=True, slots=True)
class BreachFilter:
    """Which breaches are asked for, by when they were due; None asks for all. Withdrawn ones only on demand."""

    since: datetime | None = None
    until: datetime | None = None
    clause: str | None = None
    obliges: Department | None = None
    withdrawn: bool = False
    after: Place | None = None


async def clocks(driver: asyncpg.Connection, asked: ClockFilter, rows_max: int) -> list[Clock]:
    """The next clocks, soonest deadline first."""
    conditions = _Conditions()
    conditions.add("state = {}", asked.state)
    conditions.add("clause = {}", asked.clause)
    conditions.add("owner = {}", asked.owner)
    conditions.add("due_at < {}", asked.due_before)
    return await conditions.page(driver, asked.after, rows_max)


async def breaches(driver: asyncpg.Connection, asked: BreachFilter, rows_max: int) -> list[Clock]:
    """The next breached clocks, earliest deadline first."""
    conditions = _Conditions("breach_id IS NOT NULL")
    if not asked.withdrawn:
        conditions.add("withdrawn_at IS NULL")
    conditions.add("due_at >= {}", asked.since)
    conditions.add("due_at < {}", asked.until)
    conditions.add("clause = {}", asked.clause)
    conditions.add("obliges = {}", asked.obliges)
    return await conditions.page(driver, asked.after, rows_max)


async def known(driver: asyncpg.Connection, lead_id: UUID) -> bool:
    """Whether anything was ever told of this lead."""
    found: bool = await driver.fetchval("SELECT EXISTS (SELECT FROM lead WHERE lead_id = $1)", lead_id)
    return found


async def of_lead(driver: asyncpg.Connection, lead_id: UUID, rows_max: int) -> list[Clock]:
    """The clocks of one lead, the latest start first."""
    statement = f"SELECT {CLOCK_COLUMNS} FROM clock WHERE lead_id = $1 ORDER BY started_at DESC, clock_id LIMIT $2"
    return [clock_of(row) for row in await driver.fetch(statement, lead_id, rows_max)]


class _Conditions:
    """The conditions of one statement with their values."""

    def __init__(self, *fixed: str) -> None:
        self._conditions = list(fixed)
        self._values: list[object] = []

    def add(self, condition: str, *values: object) -> None:
        """One more condition, unless it is asked with None."""
        if None in values:
            return
        numbers = [f"${len(self._values) + place}" for place in range(1, len(values) + 1)]
        self._conditions.append(condition.format(*numbers))
        self._values += values

    async def page(self, driver: asyncpg.Connection, after: Place | None, rows_max: int) -> list[Clock]:
        if after is not None:
            self.add("(due_at, clock_id) > ({}, {})", *after)
        where = f"WHERE {' AND '.join(self._conditions)} " if self._conditions else ""
        statement = f"SELECT {CLOCK_COLUMNS} FROM clock {where}ORDER BY due_at, clock_id LIMIT ${len(self._values) + 1}"
        return [clock_of(row) for row in await driver.fetch(statement, *self._values, rows_max)]
