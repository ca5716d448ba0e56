"""Whom an id means: the survivor and all that were merged into it. Erased ids are distinguished from unknown ones."""

from __future__ import annotations

from uuid import UUID

import asyncpg

from accord.http.problems import Problem, gone, not_found
from intake.leads.queries import merge_group


class RecordNotFound(Problem):
    """404 for an id under which nothing is, 410 where it was erased."""

    def __init__(self, what: str, *, erased: bool) -> None:
        told = gone(what) if erased else not_found(what)
        super().__init__(told.status, told.type, told.title, told.text)
        self.erased = erased


async def get_merge_group(connection: asyncpg.Connection, lead_id: UUID) -> list[UUID]:
    """The lead's own id first, then those of the leads that were merged into it. Raises Problem 404 or 410."""
    found = await merge_group.find_lead_ids(connection, lead_id)
    if not found:
        raise await make_not_found(connection, lead_id)
    return found


async def make_not_found(connection: asyncpg.Connection, lead_id: UUID, what: str = "lead") -> RecordNotFound:
    """Why nothing is under this id."""
    return RecordNotFound(what, erased=bool(await merge_group.find_erased(connection, [lead_id])))
