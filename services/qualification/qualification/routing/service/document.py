"""The routing document: written as a new version each time, at hand for every batch, and asked what it would do. Gives nobody a lead."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg
from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from accord.agreements import CurrentValue
from accord.agreements.documents import Document
from accord.agreements.store import OutdatedVersion
from accord.db import Database, connection_of
from accord.terms.criteria import MISSING, Facts
from accord.terms.findings import Finding
from accord.terms.patterns import SKIP_PATTERN_CHECKS
from qualification.definition.domain.rules import Rules
from qualification.lifecycle.domain.lead import Activities, Lead
from qualification.lifecycle.domain.scoring import LeadFacts, scores
from qualification.lifecycle.queries import leads
from qualification.routing.domain.assignment import (
    Assignment,
    PoolEvaluation,
    RoutingInput,
    RoutingState,
    assign,
    evaluate_pool,
)
from qualification.routing.domain.checks import check_routing
from qualification.routing.domain.document import Routing, RoutingDocument, compile_routing, open_stages
from qualification.routing.queries import assignments
from qualification.routing.queries import document as stored
from qualification.routing.queries.document import Version

WAITING_COUNTED_MAX = 10_000


class InvalidDocument(Exception):
    """The document has findings and is not taken."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        super().__init__(f"{len(findings)} places are wrong")
        self.findings = findings


class VersionConflict(Exception):
    """The document has changed since the caller read it. `version` is the present one, None where there is none."""

    def __init__(self, version: int | None) -> None:
        super().__init__("the document has changed")
        self.version = version


class RoutingVersionCache:
    """The document in force, compiled once for each version. Another process's version is seen after a second at most."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._newest: Routing | None = None
        self._current = CurrentValue(self._read, "routing")

    async def in_force(self, conn: AsyncConnection | None = None) -> Routing | None:
        """The routing by which leads are given now; None while nobody has written one.

        Whoever holds a transaction gives its connection: looking takes one of its own otherwise.
        """
        return await self._current.get(conn)

    async def write(
        self, document: Document, rules: Rules | None, based_on: int | None, author: str
    ) -> tuple[Version, bool]:
        """Keep a new version; the one in force and whether it is new. The same content again makes none.

        `based_on` is the version that the caller has read. Raises InvalidDocument and VersionConflict.
        """
        findings = await asyncio.to_thread(check_routing, document.content, rules)
        if findings:
            raise InvalidDocument(findings)
        pools = RoutingDocument.model_validate(document.content).pools
        async with self._database.write_transaction() as unit_of_work:
            connection = await unit_of_work.connection()
            await stored.lock_writers(connection)
            before = await stored.read_newest(connection)
            number = before.version if before else None
            if number != based_on:
                raise VersionConflict(number)
            if before is not None and before.sha256 == document.sha256:
                return before, False
            written = Version((number or 0) + 1, document.content, document.sha256, unit_of_work.now, author)
            await stored.insert_version(connection, written, pools)
        self._current.expire()
        return written, True

    async def find_outdated(self) -> list[OutdatedVersion]:
        """What this release would refuse of the document in force, looked at by itself."""
        newest = await get_newest_version(self._database)
        findings = [] if newest is None else await asyncio.to_thread(check_routing, newest.content, None)
        return [OutdatedVersion("routing", newest.version, "active", findings)] if newest and findings else []

    async def _read(self, conn: AsyncConnection | None) -> Routing | None:
        if conn is None:
            async with self._database.read_transaction() as own:
                return await self._read(own)
        connection = await connection_of(conn)
        number = await stored.read_newest_number(connection)
        if number is not None and (self._newest is None or self._newest.version != number):
            self._newest = _compiled(await stored.read_newest(connection))
        return self._newest


def _compiled(version: Version | None) -> Routing | None:
    if version is None:
        return None
    return compile_routing(
        version.version, RoutingDocument.model_validate(version.content, context=SKIP_PATTERN_CHECKS)
    )


# --- Reading ---


async def get_newest_version(database: Database) -> Version | None:
    """The version in force, as it was written."""
    async with database.read_transaction() as conn:
        return await stored.read_newest(await connection_of(conn))


async def get_version(database: Database, number: int) -> Version | None:
    """One version, as it was written."""
    async with database.read_transaction() as conn:
        return await stored.read_version(await connection_of(conn), number)


async def list_versions(database: Database, before: int, rows_max: int) -> list[asyncpg.Record]:
    """Versions below a number, the newest first."""
    async with database.read_transaction() as conn:
        return await stored.fetch_page(await connection_of(conn), before, rows_max)


class PoolView(Struct, frozen=True):
    """A pool as it stands: each member with its current weight, open leads and why it gets none now; `waiting` leads wait for it."""

    evaluation: PoolEvaluation
    waiting: int


async def view_pools(database: Database, routing: Routing, rules: Rules | None, now: datetime) -> list[PoolView]:
    """How every pool stands at this moment."""
    async with database.read_transaction() as conn:
        connection = await connection_of(conn)
        state = await read_state(connection, routing, rules)
        waiting = await assignments.count_waiting(connection, routing.pools, WAITING_COUNTED_MAX)
    return [PoolView(evaluate_pool(routing, pool, state, now)[0], waiting.get(pool, 0)) for pool in routing.pools]


async def read_state(connection: asyncpg.Connection, routing: Routing, rules: Rules | None) -> RoutingState:
    """Where the pools stand, without locking anything."""
    counts = await stored.count_open_leads(connection, routing.people, open_stages(rules)) if rules else {}
    return RoutingState(await stored.read_pointers(connection), counts)


# --- What it would do ---


_ATTRIBUTE = "attributes."


class GivenFacts:
    """Facts that a caller made up: a value for each path."""

    def __init__(self, values: Mapping[str, object]) -> None:
        self._values = values
        self.attributes = {
            path.removeprefix(_ATTRIBUTE): value for path, value in values.items() if path.startswith(_ATTRIBUTE)
        }

    def value(self, path: str, within: timedelta | None) -> object:
        """The value at a path, MISSING if none was given. A count that was not given is 0, whatever its window."""
        if path in self._values:
            return self._values[path]
        return 0 if path.startswith("activities.") else MISSING


def facts_of(lead: Lead, extra_activities: Activities | None, rules: Rules, now: datetime) -> Facts:
    """What routing may ask of a lead at this moment, or at its own clock where that is later.

    `more` are activities of kinds that only routing asks for.
    """
    at = lead.latest_moment(now)
    made = scores(lead.profile, lead.activities, rules, at)
    activities = lead.activities.merged_with(extra_activities) if extra_activities else lead.activities
    return LeadFacts(lead.profile, activities, lead.stage, at, made)


async def preview_lead(
    database: Database, lead_id: UUID, routing: Routing, rules: Rules, now: datetime
) -> Assignment | None:
    """Whom this lead would be given to now, if it had to be given to somebody; its present owner keeps it if possible.

    None if there is no such lead.
    """
    async with database.read_transaction() as conn:
        connection = await connection_of(conn)
        lead = await leads.read(connection, lead_id, rules.kinds)
        if lead is None or lead.profile is None or lead.erased:
            return None
        state = await read_state(connection, routing, rules)
        account = lead.profile.account_id
        owners = await stored.find_account_owners(connection, [account] if account else [])
        extra_activities = await stored.load_activities(connection, [lead.lead_id], routing.kinds - rules.kinds)
    asked = RoutingInput(
        lead_id=lead.lead_id,
        facts=facts_of(lead, extra_activities.get(lead.lead_id), rules, now),
        owner=lead.owner,
        counted=lead.owner is not None and lead.stage in open_stages(rules),
        account_owner=owners.get(account) if account else None,
    )
    return await _assign(asked, routing, state, now)


async def preview_facts(
    database: Database, facts: Facts, account_id: UUID | None, routing: Routing, rules: Rules | None, now: datetime
) -> Assignment:
    """Whom a lead with these facts would be given to now."""
    async with database.read_transaction() as conn:
        connection = await connection_of(conn)
        state = await read_state(connection, routing, rules)
        owners = await stored.find_account_owners(connection, [account_id] if account_id else [])
    owner = owners.get(account_id) if account_id else None
    return await _assign(RoutingInput(UUID(int=0), facts, account_owner=owner), routing, state, now)


async def _assign(asked: RoutingInput, routing: Routing, state: RoutingState, now: datetime) -> Assignment:
    # Beside the loop: patterns of a document that is only tried are anybody's.
    return (await asyncio.to_thread(assign, asked, routing, state, now))[0]
