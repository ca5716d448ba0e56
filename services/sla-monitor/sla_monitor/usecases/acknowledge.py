"""Acknowledges breaches: somebody of either department takes note, with a few words that stay in this database."""

from __future__ import annotations

from uuid import UUID

from accord.db import Database
from sla_monitor.domain.clock import Acknowledgement, Clock, acknowledge_breach
from sla_monitor.queries import cases, listing


async def acknowledge(database: Database, breach_id: UUID, by: str, note: str | None) -> Clock | None:
    """Acknowledge a breach that stands; None if there is no such one. Again, it replaces the note and keeps the moment."""
    async with database.write_transaction() as unit_of_work:
        connection = await unit_of_work.connection()
        clock = await listing.lock_breached_clock(connection, breach_id)
        if clock is None or clock.withdrawn_at is not None:
            return None
        at = clock.acknowledgement.at if clock.acknowledgement else unit_of_work.now
        transition = acknowledge_breach(clock, Acknowledgement(at, by, note), unit_of_work.now)
        unit_of_work.publish(*transition.events)
        await cases.update_clocks(connection, [(clock, transition.clock)])
        return transition.clock
