"""The stages in force, and how far the projections have come."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from accord.messaging.consumer_store import watermark
from metrics.domain.definition_view import Stage, Stages, stages_of, stages_of_definition
from metrics.tables import definition_version, stage_entry

# `reading()` has run a statement to see that the server answers; the isolation can only be set before a transaction's
# first.
_BEGIN_ANEW = text("COMMIT AND CHAIN")
_ONE_SNAPSHOT = text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
_BOUND = text("SELECT set_config('statement_timeout', '30s', true), set_config('work_mem', '32MB', true)")
# In the minute before PostgreSQL first counts a table that grew quickly, it takes it for a few rows; a join in a loop,
# which is right for those, took 37 s over 8,000 leads instead of 17 ms.
_NO_LOOPS = text("SELECT set_config('enable_nestloop', 'off', true)")


async def one_snapshot(conn: AsyncConnection, *, of_one_lead: bool = False) -> None:
    """Let all statements of one answer see the same, however many batches are projected meanwhile; none may take over
    30 s.

    Comes first in a reading transaction.
    """
    for statement in (_BEGIN_ANEW, _ONE_SNAPSHOT, _BOUND, *(() if of_one_lead else (_NO_LOOPS,))):
        await conn.execute(statement)


async def stages_in_force(conn: AsyncConnection) -> Stages:
    """The stages of the definition in force; before one is known, those that events have told of."""
    in_force = select(definition_version.c.version, definition_version.c.content)
    newest = in_force.order_by(definition_version.c.effective_from.desc(), definition_version.c.version.desc()).limit(1)
    row = (await conn.execute(newest)).one_or_none()
    if row is not None:
        return stages_of_definition(row.version, row.content)
    entry = stage_entry.c
    told = select(entry.stage, entry.stage_rank, entry.stage_kind).group_by(
        entry.stage, entry.stage_rank, entry.stage_kind
    )
    newest_first = await conn.execute(told.order_by(func.max(entry.definition_version).desc()))
    by_key: dict[str, Stage] = {}
    for key, rank, kind in newest_first:
        by_key.setdefault(key, Stage(key, rank, kind))
    return stages_of(None, by_key.values())


async def as_of(conn: AsyncConnection, topics: Sequence[str]) -> tuple[datetime | None, datetime]:
    """Until when everything recorded has been read (None while a producer was never heard), and until when waiting
    leads
    are observed: the same, or before it is known the transaction's time."""
    known = await watermark(conn, topics)
    if known is not None:
        return known, known
    now: datetime = (await conn.execute(text("SELECT transaction_timestamp()"))).scalar_one()
    return None, now
