"""Shows the events of a source that wait or were given up, and lets a person have them tried again or dropped."""

from __future__ import annotations

from uuid import UUID

import asyncpg

from accord.db import Database, connection_of
from accord.http.problems import Problem, not_found
from intake.hooks import queries as hook_events
from intake.hooks.queries import HookEvent, State
from intake.sources import queries as sources


class HookEvents:
    """The use case."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(self, source: str, state: State, before: UUID | None, rows: int) -> list[HookEvent]:
        """Events of a source in a state, the newest first. Raises Problem 404 for a source that is not configured."""
        async with self._database.read_transaction() as conn:
            if await sources.read(conn, source) is None:
                raise not_found("source")
            return await hook_events.page(await connection_of(conn), source, state, before, rows)

    async def get(self, source: str, event_id: UUID) -> HookEvent:
        """Raises Problem 404."""
        async with self._database.read_transaction() as conn:
            found = await hook_events.fetch_event(await connection_of(conn), source, event_id)
        if found is None:
            raise not_found("event")
        return found

    async def retry(self, source: str, event_id: UUID) -> HookEvent:
        """Have an event that was given up tried again, for another day. Raises Problem 404, or 409 for one that was not given up."""
        async with self._database.write_transaction() as unit_of_work:
            connection = await unit_of_work.connection()
            found = await hook_events.requeue(connection, source, event_id, unit_of_work.now)
            return found or await self._raise_conflict(connection, source, event_id, "failed")

    async def discard(self, source: str, event_id: UUID) -> HookEvent:
        """Give an event up for good; its content goes. Raises Problem 404, or 409 for one that is done."""
        async with self._database.write_transaction() as unit_of_work:
            connection = await unit_of_work.connection()
            found = await hook_events.discard(connection, source, event_id, unit_of_work.now)
            return found or await self._raise_conflict(connection, source, event_id, "waiting or failed")

    @staticmethod
    async def _raise_conflict(connection: asyncpg.Connection, source: str, event_id: UUID, wanted: str) -> HookEvent:
        found = await hook_events.fetch_event(connection, source, event_id)
        if found is None:
            raise not_found("event")
        raise Problem(409, "conflict", "Not possible in this state", f"The event is {found.state}, not {wanted}.")
