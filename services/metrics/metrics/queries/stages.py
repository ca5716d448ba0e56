"""Fetches the stages in force and the watermark of the projections. Begins the snapshot of a report."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from accord.messaging.consumer_store import watermark
from metrics.domain.definition_view import Stage, Stages, order_stages, parse_stages
from metrics.tables import definition_version, stage_entry

# `read_transaction()` has run a statement to see that the server answers; the isolation can only be set before a transaction's
# first.
_RESTART_TRANSACTION = text("COMMIT AND CHAIN")
_ONE_SNAPSHOT = text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
_BOUND = text("SELECT set_config('statement_timeout', '30s', true), set_config('work_mem', '32MB', true)")
# Until PostgreSQL has analyzed a table that grew quickly, about a minute, it estimates a few rows. A nested loop, right for
# a few rows, took 37 s over 8,000 leads instead of 17 ms.
_NO_LOOPS = text("SELECT set_config('enable_nestloop', 'off', true)")


async def begin_snapshot(conn: AsyncConnection, *, of_one_lead: bool = False) -> None:
    """Begin a snapshot that all statements of one report read; each may take at most 30 s.

    It comes first in a reading transaction.
    """
    for statement in (_RESTART_TRANSACTION, _ONE_SNAPSHOT, _BOUND, *(() if of_one_lead else (_NO_LOOPS,))):
        await conn.execute(statement)


async def fetch_stages(conn: AsyncConnection) -> Stages:
    """Fetch the stages of the definition in force; before the first one, the stages that events named."""
    in_force = select(definition_version.c.version, definition_version.c.content)
    newest = in_force.order_by(definition_version.c.effective_from.desc(), definition_version.c.version.desc()).limit(1)
    row = (await conn.execute(newest)).one_or_none()
    if row is not None:
        return parse_stages(row.version, row.content)
    entry = stage_entry.c
    observed = select(entry.stage, entry.stage_rank, entry.stage_kind).group_by(
        entry.stage, entry.stage_rank, entry.stage_kind
    )
    newest_first = await conn.execute(observed.order_by(func.max(entry.definition_version).desc()))
    by_key: dict[str, Stage] = {}
    for key, rank, kind in newest_first:
        by_key.setdefault(key, Stage(key, rank, kind))
    return order_stages(None, by_key.values())


async def fetch_gates(conn: AsyncConnection) -> dict[str, tuple[int, object]]:
    """Fetch the index and the gate of each stage of the definition in force; none before the first one."""
    effective_from, version = definition_version.c.effective_from, definition_version.c.version
    newest = select(definition_version.c.content).order_by(effective_from.desc(), version.desc()).limit(1)
    content = (await conn.execute(newest)).scalar_one_or_none() or {}
    return {stage["key"]: (index, stage.get("gate")) for index, stage in enumerate(content.get("stages", []))}


async def fetch_as_of(conn: AsyncConnection, topics: Sequence[str]) -> tuple[datetime | None, datetime]:
    """Fetch the watermark of the topics (None before each has one), and the moment up to which waiting leads are observed.

    The second is the watermark or, without one, the time of the transaction.
    """
    at = await watermark(conn, topics)
    if at is not None:
        return at, at
    now: datetime = (await conn.execute(text("SELECT transaction_timestamp()"))).scalar_one()
    return None, now
