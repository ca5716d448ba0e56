"""What is asked of clocks, breaches, attainment and calendars; read-only, each answer with the watermark it is as of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from accord.db import Database, driver_of
from accord.messaging.consumer_store import watermark
from sla_monitor.domain.business_time import Step, due, steps
from sla_monitor.domain.clock import Clock
from sla_monitor.queries import attainment, listing
from sla_monitor.queries.attainment import By, Kept
from sla_monitor.queries.listing import BreachFilter, ClockFilter
from sla_monitor.usecases.agreements import SlaBook
from sla_monitor.usecases.follow import CONSUMED


@dataclass(frozen=True, slots=True)
class Clocks:
    """Clocks, and until when everything recorded has been read; None while that is unknown."""

    items: Sequence[Clock]
    as_of: datetime | None


@dataclass(frozen=True, slots=True)
class Attained:
    """Attainment by group."""

    groups: Sequence[Kept]
    as_of: datetime | None


@dataclass(frozen=True, slots=True)
class Due:
    """When something would be due, and how that comes about."""

    due: datetime
    steps: Sequence[Step]
    zone: str
    sla_version: int


class NoSuchCalendar(LookupError):
    """The SLA in force has no calendar with this name; `known` are those it has."""

    def __init__(self, known: Sequence[str]) -> None:
        super().__init__("no such calendar")
        self.known = known


class NoSla(LookupError):
    """No SLA is in force."""


async def list_clocks(database: Database, asked: ClockFilter, rows_max: int) -> Clocks:
    """Clocks by their deadline."""
    async with database.reading() as conn:
        found = await listing.clocks(await driver_of(conn), asked, rows_max)
        return Clocks(found, await watermark(conn, CONSUMED))


async def clocks_of_lead(database: Database, lead_id: UUID, rows_max: int) -> Clocks | None:
    """The clocks of one lead, the latest start first; None if the lead is unknown here."""
    async with database.reading() as conn:
        driver = await driver_of(conn)
        if not await listing.known(driver, lead_id):
            return None
        return Clocks(await listing.of_lead(driver, lead_id, rows_max), await watermark(conn, CONSUMED))


async def list_breaches(database: Database, asked: BreachFilter, rows_max: int) -> Clocks:
    """Breached clocks by their deadline."""
    async with database.reading() as conn:
        found = await listing.breaches(await driver_of(conn), asked, rows_max)
        return Clocks(found, await watermark(conn, CONSUMED))


async def attain(database: Database, since: datetime | None, until: datetime | None, by: By | None) -> Attained:
    """How much was kept of what was due in a period."""
    async with database.reading() as conn:
        groups = await attainment.kept(await driver_of(conn), since, until, by)
        return Attained(groups, await watermark(conn, CONSUMED))


async def when_due(database: Database, book: SlaBook, calendar: str, start: datetime, business: timedelta) -> Due:
    """When so much business time after a start ends, by a calendar of the SLA in force. Raises NoSla, NoSuchCalendar."""
    async with database.reading() as conn:
        rules = await book.in_force(conn)
    if rules is None:
        raise NoSla("no SLA is in force")
    found = rules.calendars.get(calendar)
    if found is None:
        raise NoSuchCalendar(sorted(rules.calendars))
    return Due(due(found, start, business), steps(found, start, business), found.zone.key, rules.version)
