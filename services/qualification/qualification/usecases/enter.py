"""Leads that were captured while no definition was in force enter, in the background, once there is one.

Resumable without a mark, since a lead that has a stage is no longer among those that wait; bounded and throttled by batch and pause.
"""

from __future__ import annotations

from accord.database import Database
from accord.workers import Periodic
from qualification.queries import leads
from qualification.usecases.batch import LeadBatch
from qualification.usecases.definitions import Book, Definitions

LEADS_PER_ROUND_MAX = 500
EVERY_S = 0.25
"""With LEADS_PER_ROUND_MAX: at most 2,000 leads a second, which leaves room for what arrives meanwhile."""


async def enter_waiting(database: Database, book: Book, leads_max: int = LEADS_PER_ROUND_MAX) -> int:
    """Let up to so many waiting leads enter at the time of their capture; how many there were."""
    async with database.recording() as recording:
        waiting = await leads.waiting(await recording.driver(), leads_max)
        if waiting:
            batch = await LeadBatch.lock(recording, book, waiting)
            await batch.enter(waiting)
            await batch.save()
    return len(waiting)


def entering(database: Database, definitions: Definitions) -> Periodic:
    """The worker that does it."""

    async def work() -> bool:
        book = await definitions.book()
        if book.in_force is not None:
            await enter_waiting(database, book)
        return False  # the pause between rounds is the throttle

    return Periodic("enter-waiting-leads", EVERY_S, work)
