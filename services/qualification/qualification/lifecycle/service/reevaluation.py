"""A new version of the definition: leads on their way are evaluated by it in the background, from the moment on at which it came into
force.

Resumable, since how far it has come is a row in the transaction of each round; between two rounds incoming events go
first. Won and lost leads are skipped; each comes under the newest version with its next event.
"""

from __future__ import annotations

from asyncio import sleep
from collections.abc import Callable, Sequence
from datetime import timedelta
from uuid import UUID

from accord.db import Database, UnitOfWork, connection_of
from accord.isolation import process_isolated
from accord.workers import Periodic, yield_to_foreground
from qualification.definition.domain.rules import Rules
from qualification.lifecycle.queries import reevaluations
from qualification.lifecycle.queries.reevaluations import Reevaluation
from qualification.lifecycle.service.batch import LeadBatch
from qualification.lifecycle.service.evaluation_context import EvaluationContext, EvaluationContexts

LEADS_PER_ROUND_MAX = 120
LEADS_PER_TURN_MAX = 5
"""After so many the loop gets its turn, so that a round does not hold up what is told meanwhile (some 1 ms)."""

ROUNDS_PER_TURN = 20
EVERY_S = 1.0
IDLE_EVERY_S = 5.0
SETTLED_AFTER = timedelta(seconds=3)
"""By then every process knows the version, so that no lead enters under the one before any more."""


async def reevaluate_leads(
    database: Database, context: EvaluationContext, leads_max: int = LEADS_PER_ROUND_MAX
) -> bool:
    """Judge the next leads by the version in force; whether there may be more.

    One of which this raises rests, and the others go on; it is tried again after its rest, also when all others are done.
    """
    rules = context.in_force
    if rules is None:
        return False
    round_ = _Round(context, rules, leads_max)
    await process_isolated(
        database, reevaluations.REEVALUATION_WORKER, reevaluations.IS_TO_REEVALUATE, round_.claim, round_.work
    )
    if round_.is_last:
        async with database.write_transaction() as unit_of_work:
            await reevaluations.finish(await unit_of_work.connection(), rules.version, unit_of_work.now)
    return round_.has_more


class _Round:
    """The next leads, as one transaction or, where one of them raises, as several."""

    def __init__(self, context: EvaluationContext, rules: Rules, leads_max: int) -> None:
        self._context = context
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
        self._state = await reevaluations.begin_or_resume(connection, version, unit_of_work.now)
        if only is not None:
            return only
        page: Sequence[UUID] = ()
        if self._state is not None:
            rows = await reevaluations.fetch_page(connection, self._state.after, version, self._leads_max)
            page = [row.lead_id for row in rows]
            self._after = page[-1] if page else None
            self.has_more = len(page) >= self._leads_max
            self.is_last = not self.has_more
        rested = await reevaluations.fetch_rested(connection, version, self._leads_max)
        return [*page, *(lead_id for lead_id in rested if lead_id not in page)]

    async def work(self, unit_of_work: UnitOfWork, lead_ids: Sequence[UUID]) -> None:
        context, version = self._context, self._rules.version
        connection = await unit_of_work.connection()
        rows = await reevaluations.fetch_leads(connection, lead_ids, version)
        await context.load_versions({row.applied_version for row in rows}, unit_of_work.conn)
        outdated = [row.lead_id for row in rows if not context.versions[row.applied_version].is_closed(row.stage)]
        evaluated = changed = 0
        if outdated:
            batch = await LeadBatch.lock(unit_of_work, context, outdated)
            for number, lead_id in enumerate(outdated, start=1):
                evaluated += batch.reevaluate(lead_id)
                if number % LEADS_PER_TURN_MAX == 0:
                    await sleep(0)
            changed = len({entry.lead_id for entry in batch.entries if entry.cause == "definition"})
            await batch.save()
        state = self._state
        if state is not None:
            after = self._after or state.after
            await reevaluations.advance(connection, version, after, len(rows), evaluated, changed)


async def get_progress(database: Database) -> Reevaluation | None:
    """How far leads have been evaluated by the newest version; None if there was none before it."""
    async with database.read_transaction() as conn:
        return await reevaluations.get_newest(await connection_of(conn))


def reevaluation_worker(database: Database, contexts: EvaluationContexts, busy: Callable[[], bool]) -> Periodic:
    """The worker that does it, and yields while the process is `busy` with incoming events."""

    async def work() -> bool | None:
        for _ in range(ROUNDS_PER_TURN):
            if not await reevaluate_leads(database, await contexts.open()):
                return None
            await yield_to_foreground(busy)
        return True

    return Periodic(reevaluations.REEVALUATION_WORKER, EVERY_S, work, idle_every_s=IDLE_EVERY_S)
