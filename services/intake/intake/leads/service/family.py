"""Whom an id means: the lead that lives under it and all that were merged into that. Erased ids are told from unknown ones."""

from __future__ import annotations

from uuid import UUID

import asyncpg

from accord.db import Database, connection_of
from accord.http.problems import Problem, gone, not_found
from intake.leads.queries import family


class NotThere(Problem):
    """404 for an id under which nothing is, 410 where it was erased."""

    def __init__(self, what: str, *, erased: bool) -> None:
        told = gone(what) if erased else not_found(what)
        super().__init__(told.status, told.type, told.title, told.text)
        self.erased = erased


async def family_of(connection: asyncpg.Connection, lead_id: UUID) -> list[UUID]:
    """The lead's own id first, then those of the leads that were merged into it. Raises Problem 404 or 410."""
    found = await family.ids_of(connection, lead_id)
    if not found:
        raise await absent(connection, lead_id)
    return found


async def absent(connection: asyncpg.Connection, lead_id: UUID, what: str = "lead") -> NotThere:
    """Why nothing is under this id."""
    return NotThere(what, erased=bool(await family.erased_among(connection, [lead_id])))


async def absence(database: Database, lead_id: UUID) -> NotThere:
    """The same for those who have no transaction open."""
    async with database.read_transaction() as conn:
        return await absent(await connection_of(conn), lead_id)
