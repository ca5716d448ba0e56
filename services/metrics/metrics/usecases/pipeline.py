"""Reads the pipeline as of a moment, and what changed in it between two. It writes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from msgspec import Struct

from accord.db import Database
from metrics.domain.definition_view import Stages
from metrics.domain.pipeline import Change, ClosedDeals, Line, Scope, TermName, build_waterfall
from metrics.domain.report_query import ReportQuery
from metrics.domain.stage_history import to_microseconds
from metrics.queries import pipeline as pipeline_query
from metrics.queries import stages as stages_query
from metrics.queries.pipeline import Deal
from metrics.usecases.reports import LEAD_TOPICS, UnknownStage

CLOSED_DAYS = 365
"""The deals that were closed in so many days before the moment give win rate and cycle."""


class PipelineReport(Struct, frozen=True):
    stages: Stages
    as_of: datetime | None
    at: datetime
    deals: Sequence[Deal]
    """The open deals, by lead id."""
    closed: ClosedDeals


class WaterfallReport(Struct, frozen=True):
    stages: Stages
    as_of: datetime | None
    lines: Sequence[Line]
    changes: Sequence[Change]


class ChangePage(Struct, frozen=True):
    """A page of changes; `next` is the lead after which the following page begins, None at the end."""

    as_of: datetime | None
    items: Sequence[Change]
    next: UUID | None


async def get_pipeline(database: Database, query: ReportQuery, scope: Scope, at: datetime | None) -> PipelineReport:
    """Get the open deals before a moment, else as of the watermark. Raises UnknownStage."""
    async with database.read_transaction() as conn:
        await stages_query.begin_snapshot(conn)
        stages = await stages_query.fetch_stages(conn)
        _require_stage(stages, scope)
        as_of, now = await stages_query.fetch_as_of(conn, LEAD_TOPICS)
        at = at or now
        deals = await pipeline_query.fetch_deals(conn, query, at)
    is_open = [d for d in deals if scope.is_in_stage(stages, d.state) and scope.is_in_days(d.state)]
    return PipelineReport(stages, as_of, at, is_open, _count_closed(stages, deals, at - timedelta(days=CLOSED_DAYS)))


def _count_closed(stages: Stages, deals: Sequence[Deal], since: datetime) -> ClosedDeals:
    won, lost, cycles = 0, 0, []
    for deal in deals:
        stage = stages.by_key.get(deal.state.stage)
        if stage is None or deal.entered_at < since:
            continue
        if stage.kind == "won":
            won += 1
            cycles.append(to_microseconds(deal.entered_at - deal.first_entered_at))
        elif stage.kind == "lost":
            lost += 1
    return ClosedDeals(won, lost, tuple(sorted(cycles)))


def _require_stage(stages: Stages, scope: Scope) -> None:
    if scope.stage is not None and scope.stage not in stages.by_key:
        raise UnknownStage(scope.stage)


async def get_waterfall(
    database: Database, query: ReportQuery, scope: Scope, since: datetime, until: datetime
) -> WaterfallReport:
    """Get what changed in the pipeline between two moments. Raises UnknownStage."""
    async with database.read_transaction() as conn:
        await stages_query.begin_snapshot(conn)
        stages = await stages_query.fetch_stages(conn)
        _require_stage(stages, scope)
        as_of, _ = await stages_query.fetch_as_of(conn, LEAD_TOPICS)
        before = {deal.lead_id: deal.state for deal in await pipeline_query.fetch_deals(conn, query, since)}
        after = {deal.lead_id: deal.state for deal in await pipeline_query.fetch_deals(conn, query, until)}
    deals = [(lead_id, before.get(lead_id), after.get(lead_id)) for lead_id in sorted(before.keys() | after.keys())]
    lines, changes = await asyncio.to_thread(build_waterfall, stages, scope, deals)
    return WaterfallReport(stages, as_of, lines, changes)


async def get_waterfall_leads(
    database: Database,
    query: ReportQuery,
    scope: Scope,
    since: datetime,
    until: datetime,
    term: TermName,
    currency: str | None,
    *,
    after: UUID | None,
    limit: int,
) -> ChangePage:
    """Get the leads behind a term on the line of a currency, by lead id. Raises UnknownStage."""
    report = await get_waterfall(database, query, scope, since, until)
    found = [
        change
        for change in report.changes
        if (change.term, change.currency) == (term, currency) and (after is None or change.lead_id > after)
    ]
    page, more = found[:limit], len(found) > limit
    return ChangePage(report.as_of, page, page[-1].lead_id if more else None)
