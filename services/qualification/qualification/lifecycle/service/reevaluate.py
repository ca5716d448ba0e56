"""A new version of the definition: leads on their way are judged by it in the background, from the moment on at which it came into
force.

Resumable, since how far it has come is a row in the transaction of each round; between two rounds what is told meanwhile goes
first. Won and lost leads are left alone; each comes under the newest version with the next thing that is told of it.
"""

from __future__ import annotations

from asyncio import sleep
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from accord.db import Database, UnitOfWork, connection_of
from accord.isolation import process_isolated
from accord.workers import Periodic, yield_to_foreground
from qualification.definition.domain.rules import Rules
from qualification.lifecycle.queries import reevaluations
from qualification.lifecycle.queries.reevaluations import Reevaluation
from qualification.lifecycle.service.batch import LeadBatch
from qualification.lifecycle.service.book import Book, Books

LEADS_PER_ROUND_MAX = 120
LEADS_PER_TURN_MAX = 5
"""After so many the loop gets its turn, so that a round does not hold up what is told meanwhile (some 1 ms)."""

ROUNDS_PER_TURN = 20
EVERY_S = 1.0
IDLE_EVERY_S = 5.0
SETTLED_AFTER = timedelta(seconds=3)
"""By then every process knows the version, so that no lead enters under the one before any more."""

_LEFT_ALONE = frozenset({"won", "lost"})


@dataclass(frozen=True, slots=True)
class Progress:
    """How far leads have been judged by a version. `done_at` None: it goes on. `leads` is how many there were when it began."""

    version: int
    started_at: datetime
    done_at: datetime | None
    leads: int
    looked_at: int
    judged: int
    changed: int
    """Those that entered another stage by it."""


async def reevaluate_some(database: Database, book: Book, leads_max: int = LEADS_PER_ROUND_MAX) -> bool:
    """Judge the next leads by the version in force; whether there may be more.

    One of which this raises rests, and the others go on; it is tried again after its rest, also when all others are done.
    """
    rules = book.in_force
    if rules is None:
        return False
    round_ = _Round(book, rules, leads_max)
    await process_isolated(database, reevaluations.REEVALUATING, reevaluations.IS_TO_JUDGE, round_.claim, round_.work)
    if round_.is_last:
        async with database.write_transaction() as unit_of_work:
            await reevaluations.finish(await unit_of_work.connection(), rules.version, unit_of_work.now)
    return round_.has_more


class _Round:
    """The next leads, as one transaction or, where one of them raises, as several."""

    def __init__(self, book: Book, rules: Rules, leads_max: int) -> None:
        self._book = book
        self._rules = rules
        self._leads_max = leads_max
        self._state: Reevaluation | None = None
        self._after: UUID | None = None
        self.is_last = False
        """Whether all leads have been looked at with these."""
        self.has_more = False

    async def claim(self, unit_of_work: UnitOfWork, only: Sequence[UUID] | None) -> Sequence[UUID]:
        self._state = self._after = None
        version, since = self._rules.version, self._rules.since
        if since is not None and unit_of_work.now < since + SETTLED_AFTER:
            return ()
        connection = await unit_of_work.connection()
        self._state = await reevaluations.open_for(connection, version, unit_of_work.now)
        if only is not None:
            return only
        page: Sequence[UUID] = ()
        if self._state is not None:
            rows = await reevaluations.page(connection, self._state.after, version, self._leads_max)
            page = [row.lead_id for row in rows]
            self._after = page[-1] if page else None
            self.has_more = len(page) >= self._leads_max
            self.is_last = not self.has_more
        rested = await reevaluations.rested(connection, version, self._leads_max)
        return [*page, *(lead_id for lead_id in rested if lead_id not in page)]

    async def work(self, unit_of_work: UnitOfWork, lead_ids: Sequence[UUID]) -> None:
        book, version = self._book, self._rules.version
        connection = await unit_of_work.connection()
        rows = await reevaluations.some(connection, lead_ids, version)
        await book.know({row.ruled_by for row in rows}, unit_of_work.conn)
        on_their_way = [row.lead_id for row in rows if not _is_left_alone(book.versions[row.ruled_by], row.stage)]
        judged = changed = 0
        if on_their_way:
            batch = await LeadBatch.lock(unit_of_work, book, on_their_way)
            for number, lead_id in enumerate(on_their_way, start=1):
                judged += batch.reevaluate(lead_id)
                if number % LEADS_PER_TURN_MAX == 0:
                    await sleep(0)
            changed = len({entry.lead_id for entry in batch.entries if entry.cause == "definition"})
            await batch.save()
        state = self._state
        if state is not None:
            after = self._after or state.after
            await reevaluations.advance(connection, version, after, len(rows), judged, changed)


def _is_left_alone(rules: Rules, stage: str) -> bool:
    known = rules.stages.get(stage)
    return known is not None and known.kind in _LEFT_ALONE


async def progress(database: Database) -> Progress | None:
    """That of the newest version by which leads are or were judged anew; None if there was none."""
    async with database.read_transaction() as conn:
        found: Reevaluation | None = await reevaluations.newest(await connection_of(conn))
    if found is None:
        return None
    return Progress(
        version=found.version,
        started_at=found.started_at,
        done_at=found.done_at,
        leads=max(found.leads, found.looked_at),
        looked_at=found.looked_at,
        judged=found.judged,
        changed=found.changed,
    )


def reevaluating(database: Database, books: Books, busy: Callable[[], bool]) -> Periodic:
    """The worker that does it, and gives way while the process is `busy` with what is told."""

    async def work() -> bool | None:
        for _ in range(ROUNDS_PER_TURN):
            if not await reevaluate_some(database, await books.open()):
                return None
            await yield_to_foreground(busy)
        return True

    return Periodic(reevaluations.REEVALUATING, EVERY_S, work, idle_every_s=IDLE_EVERY_S)
