"""Reads clocks, breaches, attainment and calendars. Each result has the watermark that it is as of."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from uuid import UUID

from msgspec import Struct

from accord.agreements import AgreementStore
from accord.db import Database, connection_of
from accord.messaging.consumer_store import watermark
from accord.terms.patterns import SKIP_PATTERN_CHECKS
from sla_monitor.domain.business_time import Step, add_open_time, explain_steps
from sla_monitor.domain.calendars import ClosedDay, list_closed_days
from sla_monitor.domain.clock import Clock
from sla_monitor.domain.sla import Sla
from sla_monitor.queries import attainment, listing
from sla_monitor.queries.attainment import AttainmentCounts, By
from sla_monitor.queries.listing import BreachFilter, ClockFilter
from sla_monitor.usecases.agreements import SlaVersionCache
from sla_monitor.usecases.process_events import CONSUMED
from sla_monitor.usecases.public_holidays import public_holidays


class ClockList(Struct, frozen=True):
    """Clocks, and the moment up to which everything recorded has been read; None while that is unknown."""

    items: Sequence[Clock]
    as_of: datetime | None


class Attainment(Struct, frozen=True):
    """Attainment by group. `zone` is that of months: the SLA's own."""

    groups: Sequence[AttainmentCounts]
    zone: str
    as_of: datetime | None


class DueExplanation(Struct, frozen=True):
    """When something would be due, with the stretches of time up to then."""

    due: datetime
    steps: Sequence[Step]
    zone: str
    sla_version: int


class ClosedDayList(Struct, frozen=True):
    """The closed days of a calendar in a year, by a version of the SLA."""

    items: Sequence[ClosedDay]
    zone: str
    sla_version: int


class NoSuchCalendar(LookupError):
    """The version of the SLA has no calendar with this name; `available` lists those it has."""

    def __init__(self, available: Sequence[str]) -> None:
        super().__init__("no such calendar")
        self.available = available


class NoSla(LookupError):
    """No SLA is in force."""


async def list_clocks(database: Database, filters: ClockFilter, rows_max: int) -> ClockList:
    """List clocks by their deadline."""
    async with database.read_transaction() as conn:
        found = await listing.fetch_clocks(await connection_of(conn), filters, rows_max)
        return ClockList(found, await watermark(conn, CONSUMED))


async def get_lead_clocks(database: Database, lead_id: UUID, rows_max: int) -> ClockList | None:
    """List the clocks of one lead, the latest start first; None if the lead is unknown here."""
    async with database.read_transaction() as conn:
        connection = await connection_of(conn)
        if not await listing.lead_exists(connection, lead_id):
            return None
        return ClockList(
            await listing.fetch_lead_clocks(connection, lead_id, rows_max), await watermark(conn, CONSUMED)
        )


async def list_breaches(database: Database, filters: BreachFilter, rows_max: int) -> ClockList:
    """List breached clocks by their deadline."""
    async with database.read_transaction() as conn:
        found = await listing.fetch_breaches(await connection_of(conn), filters, rows_max)
        return ClockList(found, await watermark(conn, CONSUMED))


async def get_attainment(
    database: Database, sla_cache: SlaVersionCache, since: datetime | None, until: datetime | None, by: By | None
) -> Attainment:
    """Get the attainment of what was due in a period."""
    async with database.read_transaction() as conn:
        sla = await sla_cache.get_active(conn)
        zone = sla.zone.key if sla else "UTC"
        groups = await attainment.fetch_attainment(await connection_of(conn), since, until, by, zone)
        return Attainment(groups, zone, await watermark(conn, CONSUMED))


async def explain_due(
    database: Database, sla_cache: SlaVersionCache, calendar: str, start: datetime, business: timedelta
) -> DueExplanation:
    """Explain when business time after a start ends, by a calendar of the SLA in force. Raises NoSla, NoSuchCalendar."""
    async with database.read_transaction() as conn:
        sla = await sla_cache.get_active(conn)
    if sla is None:
        raise NoSla("no SLA is in force")
    terms = sla.calendars.get(calendar)
    if terms is None:
        raise NoSuchCalendar(sorted(sla.calendars))
    due = add_open_time(terms, start, business)
    return DueExplanation(due, explain_steps(terms, start, business), terms.zone.key, sla.version)


async def get_closed_days(
    database: Database, store: AgreementStore, calendar: str, version: int | None, year: int
) -> ClosedDayList:
    """Get the closed days of a year by a version of the SLA in any state; without one, by that in force.

    Raises NoSla, NoSuchVersion, NoSuchCalendar.
    """
    async with database.read_transaction() as conn:
        number = version if version is not None else await store.active_version(conn)
        if number is None:
            raise NoSla("no SLA is in force")
        content = (await store.get(number, conn)).content
    sla = Sla.model_validate(content, context=SKIP_PATTERN_CHECKS)
    terms = sla.calendars.get(calendar)
    if terms is None:
        raise NoSuchCalendar(sorted(sla.calendars))
    first, last = date(year, 1, 1), date(year, 12, 31)
    # In a thread: the first read of a country's holidays takes half a second.
    items = await asyncio.to_thread(lambda: list(list_closed_days(terms, first, last, public_holidays)))
    return ClosedDayList(items, terms.timezone, number)
