"""How far leads have been evaluated anew by each version of the definition, and which come next. Decides nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import asyncpg
from msgspec import Struct

from accord.isolation import is_resting

_FIRST = UUID(int=0)

_BEGIN = """
INSERT INTO reevaluation (version, started_at, after, leads, processed, evaluated, changed)
SELECT $1, $2, $3, (SELECT count(*) FROM lead WHERE stage IS NOT NULL AND merged_into IS NULL AND NOT erased AND applied_version < $1),
    0, 0, 0
WHERE NOT EXISTS (SELECT FROM reevaluation WHERE version = $1)
ON CONFLICT DO NOTHING
"""

# Another process that holds the row is at it already.
_OPEN = """
SELECT version, started_at, done_at, after, leads, processed, evaluated, changed FROM reevaluation WHERE version = $1 AND done_at IS NULL
FOR UPDATE SKIP LOCKED
"""

_NEWEST = """
SELECT version, started_at, done_at, after, greatest(leads, processed), processed, evaluated, changed FROM reevaluation
ORDER BY version DESC LIMIT 1
"""

REEVALUATION_WORKER = "reevaluate-leads"
"""The worker by whose name leads rest."""

_IN_A_STAGE = "stage IS NOT NULL AND merged_into IS NULL AND NOT erased"
_OUTDATED = f"applied_version < $1 AND {_IN_A_STAGE}"
IS_TO_REEVALUATE = f"""
EXISTS (
    SELECT FROM lead JOIN agreement_version AS version ON version.kind = 'definition' AND version.status = 'active'
    WHERE lead.lead_id = stuck_row.key AND lead.applied_version < version.version AND {_IN_A_STAGE}
)
"""
"""Whether a lead that rests is still evaluated by a version before the one in force."""

_PAGE = f"""
SELECT lead_id, stage, applied_version FROM lead WHERE {_OUTDATED} AND lead_id > $2
    AND NOT {is_resting(REEVALUATION_WORKER, "lead.lead_id")}
ORDER BY lead_id LIMIT $3
"""

_SOME = f"SELECT lead_id, stage, applied_version FROM lead WHERE {_OUTDATED} AND lead_id = ANY ($2::uuid[]) ORDER BY lead_id"

_RESTED = f"""
SELECT lead_id FROM lead JOIN stuck_row ON worker = '{REEVALUATION_WORKER}' AND key = lead_id AND retry_at <= now()
WHERE {_OUTDATED} LIMIT $2
"""

IN_FORCE = """
SELECT active_from FROM agreement_version AS version
WHERE kind = 'definition' AND status = 'active' AND active_from <= $1::timestamptz
"""
"""Since when the version in force is, if it came into force up to the watermark $1."""

EARLIEST_PENDING = f"""
{IN_FORCE}
    AND NOT EXISTS (SELECT FROM reevaluation WHERE reevaluation.version = version.version AND done_at IS NOT NULL)
"""
"""When the version in force came into force, while leads are still to be evaluated by it from then on; NULL once all are, but for those
that are stuck."""

_ADVANCE = """
UPDATE reevaluation SET after = $2, processed = processed + $3, evaluated = evaluated + $4, changed = changed + $5
WHERE version = $1
"""

_FINISH = "UPDATE reevaluation SET done_at = $2 WHERE version = $1 AND done_at IS NULL"


class Reevaluation(Struct, frozen=True):
    """How far leads have been evaluated by a version: those after `after` are still to come. `done_at` None: it goes on.

    `leads` is how many there were when it began, `changed` how many entered another stage by it.
    """

    version: int
    started_at: datetime
    done_at: datetime | None
    after: UUID
    leads: int
    processed: int
    evaluated: int
    changed: int


class OutdatedLead(Struct, frozen=True):
    """A lead that an older version judges."""

    lead_id: UUID
    stage: str
    applied_version: int


async def begin_or_resume(connection: asyncpg.Connection, version: int, now: datetime) -> Reevaluation | None:
    """That of this version, begun if need be and locked; None where it is done or another process is at it."""
    await connection.execute(_BEGIN, version, now, _FIRST)
    row = await connection.fetchrow(_OPEN, version)
    return None if row is None else Reevaluation(*row)


async def get_newest(connection: asyncpg.Connection) -> Reevaluation | None:
    """That of the newest version."""
    row = await connection.fetchrow(_NEWEST)
    return None if row is None else Reevaluation(*row)


async def fetch_page(connection: asyncpg.Connection, after: UUID, version: int, rows_max: int) -> list[OutdatedLead]:
    """The next leads that are evaluated by a version before this one, in the order of their ids; none that rests."""
    return [OutdatedLead(*row) for row in await connection.fetch(_PAGE, version, after, rows_max)]


async def fetch_leads(connection: asyncpg.Connection, lead_ids: Sequence[UUID], version: int) -> list[OutdatedLead]:
    """Those of these leads that are evaluated by a version before this one."""
    return [OutdatedLead(*row) for row in await connection.fetch(_SOME, version, lead_ids)]


async def fetch_rested(connection: asyncpg.Connection, version: int, rows_max: int) -> list[UUID]:
    """Leads that are evaluated by a version before this one since they raised, and whose rest is over."""
    return [row[0] for row in await connection.fetch(_RESTED, version, rows_max)]


async def advance(
    connection: asyncpg.Connection,
    version: int,
    after: UUID,
    processed: int,
    evaluated: int,
    changed: int,
) -> None:
    """Note how far it has come."""
    await connection.execute(_ADVANCE, version, after, processed, evaluated, changed)


async def finish(connection: asyncpg.Connection, version: int, now: datetime) -> None:
    """Note that all have been looked at."""
    await connection.execute(_FINISH, version, now)
