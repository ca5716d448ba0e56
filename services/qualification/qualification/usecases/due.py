"""What time alone brings about: a score that has fallen below a threshold, a window that has moved on, an age, a cool-down.

Only leads whose moment has come are looked at, by index and in batches that pass over what others hold. The wall clock decides
nothing: a moment comes once everything that intake recorded before it has been read, so that a consumer that lags delays an entry
and does not bring about one that would have to be corrected.
"""

from __future__ import annotations

from accord.contracts.topics import INTAKE_EVENTS
from accord.database import Database
from accord.messaging.watermarks import Watermarks
from accord.workers import Periodic
from qualification.queries import leads
from qualification.usecases.batch import LeadBatch
from qualification.usecases.definitions import Book, Definitions

LEADS_PER_ROUND_MAX = 500
EVERY_S = 1.0


async def pass_time(
    database: Database, book: Book, watermarks: Watermarks, leads_max: int = LEADS_PER_ROUND_MAX
) -> int:
    """Do what is due of up to so many leads, in one recording; how many there were."""
    async with database.recording() as recording:
        until = (await watermarks.read(recording.conn)).until([INTAKE_EVENTS])
        if until is None:
            return 0
        due = await leads.due(await recording.driver(), until, leads_max)
        if due:
            batch = await LeadBatch.lock(recording, book, due)
            for lead_id in due:
                batch.pass_time(lead_id, until)
            await batch.save()
    return len(due)


def timekeeping(database: Database, definitions: Definitions, watermarks: Watermarks) -> Periodic:
    """The worker that does it."""

    async def work() -> bool:
        book = await definitions.book()
        return book.in_force is not None and await pass_time(database, book, watermarks) >= LEADS_PER_ROUND_MAX

    return Periodic("what-time-brings", EVERY_S, work)
