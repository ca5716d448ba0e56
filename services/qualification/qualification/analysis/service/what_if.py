"""What a version of the definition would have made of the leads of a period: asked, worked out in the background, read, cancelled.

It writes nothing but what is counted. Each batch of leads is read in one transaction, folded in none, and then the sums, the leads that
differ and the place in the leads are saved together, so that whoever goes on after a crash counts nobody twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from uuid import UUID

import asyncpg
import orjson
import structlog
from msgspec import Struct

from accord.agreements import AgreementStore
from accord.agreements.store import InvalidContent
from accord.batching import Overloaded, TimeBudget
from accord.db import Database, connection_of, is_transient
from accord.http import idempotency
from accord.http.problems import Problem, not_found
from accord.ids import new_id
from accord.terms.dimensions import Dimension
from accord.terms.patterns import check_patterns
from accord.workers import Periodic, yield_to_foreground
from qualification.analysis.domain.groups import group_of
from qualification.analysis.domain.report import Report, build_report, load_stages
from qualification.analysis.domain.what_if import Difference, HistoryComparison, Sums, simulate, watch_entries_only
from qualification.analysis.queries import what_ifs
from qualification.analysis.queries.what_ifs import NewWhatIf, WhatIf
from qualification.analysis.service.activity_budget import take_within_budget
from qualification.definition.domain.checks import check_definition
from qualification.definition.domain.definition import Definition
from qualification.definition.domain.rules import Rules, compile_definition
from qualification.lifecycle.queries import logs
from qualification.lifecycle.queries.logs import LoadedLogs

log = structlog.get_logger(__name__)

OPEN_MAX = 20
"""What-ifs that may wait at once, the one at work among them."""

ENDED_MAX = 50
"""Of those that have ended, the newest so many are kept."""

LEADS_PER_BATCH_MAX = 250
BATCH_TIME_MAX_S = 2.0
"""After it, fewer leads make a batch: what was cancelled, or a process that stops, is not waited for longer."""

BATCHES_PER_TURN = 20
EVERY_S = 1.0
IDLE_EVERY_S = 3.0
_SMOOTHING = 0.2
"""Weight of the newest batch in the rate that is shown."""

_RETRY_AFTER_S = 30.0
_REFUSED = "This version does not pass the checks of this release."
_LAST_ID = UUID(int=2**128 - 1)


class WhatIfQuestion(Struct, frozen=True):
    """Which version, which leads (captured in [since, until)), and by what they are told apart."""

    version: int
    since: datetime
    until: datetime
    by: tuple[Dimension, ...]


class WhatIfService:
    """What can be done with what-ifs from outside."""

    def __init__(self, database: Database, store: AgreementStore) -> None:
        self._database = database
        self._store = store

    async def submit(
        self,
        question: WhatIfQuestion,
        requested_by: str,
        idempotency_request: idempotency.IdempotencyRequest | None,
        encode: Callable[[WhatIf], idempotency.Answer],
    ) -> idempotency.IdempotentResult[WhatIf]:
        """Queue it; the version is taken as it reads now.

        Raises NoSuchVersion, Overloaded where too many wait, and Problem 409 for one that is older than the checks of this release
        and does not pass them.
        """
        try:
            stored = await self._store.check_version(question.version)
        except InvalidContent:
            raise Problem(409, "agreement-refused", "The version is refused", _REFUSED) from None
        async with self._database.write_transaction() as unit_of_work:
            connection = await unit_of_work.connection()

            async def act() -> WhatIf:
                if await what_ifs.lock_and_count_open(connection) >= OPEN_MAX:
                    raise Overloaded(_RETRY_AFTER_S)
                new = NewWhatIf(
                    what_if_id=new_id(),
                    version=question.version,
                    content=orjson.dumps(stored.content).decode(),
                    content_sha256=stored.state.content_sha256,
                    since=question.since,
                    until=question.until,
                    by=[dimension.name for dimension in question.by],
                    requested_by=requested_by,
                    requested_at=unit_of_work.now,
                )
                await what_ifs.insert(connection, new, ENDED_MAX)
                return await _require(connection, new.what_if_id)

            return await idempotency.execute_once(unit_of_work, idempotency_request, act, encode)

    async def get(self, what_if_id: UUID) -> tuple[WhatIf, Report | None]:
        """The what-if, and its report where it is done. Raises Problem 404."""
        async with self._database.read_transaction() as conn:
            connection = await connection_of(conn)
            return await _require(connection, what_if_id), await what_ifs.read_report(connection, what_if_id)

    async def list_what_ifs(self, before: UUID | None, rows_max: int) -> list[WhatIf]:
        """Those asked before this one, latest first."""
        async with self._database.read_transaction() as conn:
            return await what_ifs.fetch_page(await connection_of(conn), before or _LAST_ID, rows_max)

    async def list_differences(
        self, what_if_id: UUID, stage: str | None, after: tuple[str, UUID] | None, rows_max: int
    ) -> list[Difference]:
        """The leads that differ, by stage and id, as far as they were listed. Raises Problem 404."""
        async with self._database.read_transaction() as conn:
            connection = await connection_of(conn)
            await _require(connection, what_if_id)
            return await what_ifs.fetch_differences(
                connection, what_if_id, stage, after or ("", what_ifs.FIRST_LEAD), rows_max
            )

    async def cancel(self, what_if_id: UUID) -> WhatIf:
        """It ends here; cancelling twice is cancelling once. Raises Problem 404, and 409 where it has ended."""
        async with self._database.write_transaction() as unit_of_work:
            connection = await unit_of_work.connection()
            await what_ifs.cancel(connection, what_if_id, unit_of_work.now)
            found = await _require(connection, what_if_id)
        if found.state != "cancelled":
            detail = "It cannot be cancelled any more."
            raise Problem(409, "what-if-has-ended", "This what-if has ended", detail, state=found.state)
        return found


async def _require(connection: asyncpg.Connection, what_if_id: UUID) -> WhatIf:
    found = await what_ifs.read(connection, what_if_id)
    if found is None:
        raise not_found("what-if")
    return found


# --- The work ---


class _Terms(Struct, frozen=True):
    """What a what-if asks, compiled."""

    what_if_id: UUID
    rules: Rules
    by: tuple[Dimension, ...]


class _Page(Struct, frozen=True):
    """The next leads with their logs, and what is counted by now. `leads` is how many there are, where it has not begun."""

    leads: int | None
    lead_ids: Sequence[UUID]
    loaded: LoadedLogs | None
    sums: Sums
    began: float


class WhatIfWorker:
    """Works on the oldest what-if, a batch of leads after another, and yields while the process is `busy` with incoming events. One at
    a time among all processes; should two ever work, the place in the leads lets only one of them save."""

    def __init__(self, database: Database, busy: Callable[[], bool]) -> None:
        self._database = database
        self._busy = busy
        self._terms: _Terms | None = None

    async def work(self) -> bool | None:
        """A turn; whether there may be more to do, None if nothing waits. False too while another process is at it."""
        async with self._database.read_transaction() as conn:
            if await what_ifs.read_next_open(await connection_of(conn)) is None:
                self._terms = None
                return None
        session = await self._database.connect()
        try:
            if not await what_ifs.try_lock_worker(session):
                return False
            for _ in range(BATCHES_PER_TURN):
                if not await self.next_batch():
                    return False
                await yield_to_foreground(self._busy)
            return True
        finally:
            session.terminate()

    async def next_batch(self, leads_max: int = LEADS_PER_BATCH_MAX) -> bool:
        """Judge the next leads; False if nothing waits.

        A what-if that cannot be worked out fails and says so; it takes nothing else with it.
        """
        what_if: WhatIf | None = None
        try:
            async with self._database.read_transaction() as conn:
                connection = await connection_of(conn)
                what_if = await what_ifs.read_next_open(connection)
                if what_if is None:
                    self._terms = None
                    return False
                terms = await self._terms_of(connection, what_if)
                read = await _read_page(connection, what_if, terms.rules.kinds, leads_max)
            await self._advance(what_if, terms, read)
        except Exception as error:
            if what_if is None or is_transient(error):
                raise
            log.exception("what_if_failed", what_if=str(what_if.what_if_id))
            why = _REFUSED if isinstance(error, InvalidContent) else f"An error of the service: {type(error).__name__}"
            await self._fail(what_if, why)
        return True

    async def _advance(self, what_if: WhatIf, terms: _Terms, read: _Page) -> None:
        if what_if.started_at is None:
            async with self._database.write_transaction() as unit_of_work:
                await what_ifs.begin(
                    await unit_of_work.connection(), what_if.what_if_id, unit_of_work.now, read.leads or 0
                )
            return
        if read.loaded is None:
            await self._finish(what_if, terms, read.sums)
            return
        sums, lead_ids = read.sums, read.lead_ids
        with TimeBudget(BATCH_TIME_MAX_S) as budget:
            comparison, done = await asyncio.to_thread(
                _compare, what_if, what_if.started_at, terms, lead_ids, read.loaded, sums.listed, budget
            )
        sums.add(comparison.sums)
        rate = done / max(1e-6, time.monotonic() - read.began)
        if what_if.leads_per_s is not None:
            rate = what_if.leads_per_s + _SMOOTHING * (rate - what_if.leads_per_s)
        async with self._database.write_transaction() as unit_of_work:
            saving = await unit_of_work.connection()
            await what_ifs.advance(saving, what_if, lead_ids[done - 1], done, rate, sums, comparison.differences)

    async def _terms_of(self, connection: asyncpg.Connection, what_if: WhatIf) -> _Terms:
        if self._terms is None or self._terms.what_if_id != what_if.what_if_id:
            content = orjson.loads(await what_ifs.read_content(connection, what_if.what_if_id))
            rules = await asyncio.to_thread(_compile, what_if.version, content)
            self._terms = _Terms(what_if.what_if_id, rules, tuple(Dimension(name) for name in what_if.by))
        return self._terms

    async def _finish(self, what_if: WhatIf, terms: _Terms, sums: Sums) -> None:
        made = await asyncio.to_thread(build_report, sums, terms.rules, terms.by, what_if.since, what_if.until)
        async with self._database.write_transaction() as unit_of_work:
            await what_ifs.finish(await unit_of_work.connection(), what_if, unit_of_work.now, made)

    async def _fail(self, what_if: WhatIf, error: str) -> None:
        async with self._database.write_transaction() as unit_of_work:
            await what_ifs.fail(await unit_of_work.connection(), what_if.what_if_id, unit_of_work.now, error)


def _compile(version: int, content: Mapping[str, object]) -> Rules:
    """The rules of a requested content. Raises InvalidContent for one of an earlier release that does not pass these checks."""
    found = check_patterns(content) or check_definition(content)
    if found:
        raise InvalidContent(found)
    definition = Definition.model_validate(content)
    return watch_entries_only(compile_definition(version, definition), definition)


async def _read_page(connection: asyncpg.Connection, what_if: WhatIf, kinds: Collection[str], leads_max: int) -> _Page:
    began = time.monotonic()
    if what_if.started_at is None:
        return _Page(await what_ifs.count_leads(connection, what_if.since, what_if.until), (), None, Sums(), began)
    lead_ids = take_within_budget(
        await what_ifs.fetch_leads(connection, what_if.since, what_if.until, what_if.after, leads_max)
    )
    loaded = await logs.load(connection, lead_ids, {}, kinds) if lead_ids else None
    return _Page(None, lead_ids, loaded, await what_ifs.read_sums(connection, what_if.what_if_id), began)


def _compare(
    what_if: WhatIf,
    until: datetime,
    terms: _Terms,
    lead_ids: Sequence[UUID],
    loaded: LoadedLogs,
    listed: Mapping[str, int],
    budget: TimeBudget,
) -> tuple[HistoryComparison, int]:
    """The leads until the budget is used up, at least one, and how many. Runs in a thread of its own, so that the event loop is not
    held; it touches nothing that anybody else has."""
    comparison = HistoryComparison(what_if.since, until, load_stages(terms.rules), listed)
    done = 0
    for lead_id in lead_ids:
        if done and budget.is_used_up:
            break
        done += 1
        simulated = simulate(lead_id, loaded.logs, terms.rules, until)
        if simulated.profile is not None:  # erased since the page was read
            actual_entries = [
                entry for entry in loaded.effective_entries.get(lead_id, ()) if entry.occurred_at <= until
            ]
            comparison.add(lead_id, group_of(terms.by, simulated.profile), actual_entries, simulated)
    return comparison, done


def what_if_worker(database: Database, busy: Callable[[], bool]) -> Periodic:
    """The worker that does it."""
    return Periodic("simulate-what-ifs", EVERY_S, WhatIfWorker(database, busy).work, idle_every_s=IDLE_EVERY_S)
