"""Reads reports from the projections: funnel, velocity, the leads behind a figure, a lead's timeline. It writes nothing.

Each report is read in one snapshot and has the watermark that it is as of.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

from msgspec import Struct
from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from accord.contracts.topics import INTAKE_EVENTS, QUALIFICATION_EVENTS, SLA_EVENTS
from accord.db import Database
from metrics.domain.definition_view import Stages
from metrics.domain.funnel import Figure, Funnel, GroupKey, compute_funnel, group_sort_key, select_paths
from metrics.domain.report_query import ReportQuery
from metrics.domain.velocity import RESTING_KINDS, Durations, Step, measure_stage, measure_stages, measure_step
from metrics.queries import funnel as funnel_query
from metrics.queries import stages as stages_query
from metrics.queries import timeline as timeline_query
from metrics.queries import velocity as velocity_query
from metrics.queries.funnel import FunnelCursor, FunnelLead
from metrics.queries.timeline import TimelineCursor
from metrics.queries.velocity import LeadCursor, LeadState, LeadStep

T = TypeVar("T")

_THREAD_DURATIONS_MIN = 10_000
"""From this many durations on, a step is measured in a thread."""

LEAD_TOPICS = (INTAKE_EVENTS, QUALIFICATION_EVENTS)
"""The topics of leads and their stages."""

LEAD_NOT_CAPTURED = "lead_not_captured"


class UnknownStage(LookupError):
    """The definition in force has no such stage, and no lead ever entered it."""


class UnknownLead(LookupError):
    """No event of this lead was processed."""


class FunnelReport(Struct, frozen=True):
    stages: Stages
    as_of: datetime | None
    funnel: Funnel


class VelocityGroup(Struct, frozen=True):
    key: GroupKey
    leads: int
    steps: Sequence[Step]


class VelocityReport(Struct, frozen=True):
    stages: Stages
    as_of: datetime | None
    groups: Sequence[VelocityGroup]
    anomalies: Mapping[str, int]


class LeadPage(Struct, frozen=True):
    """A page of leads; `next` is the cursor of the following page, None at the end."""

    as_of: datetime | None
    items: Sequence[LeadStep]
    next: LeadCursor | None


class FunnelLeadPage(Struct, frozen=True):
    """A page of leads; `next` is the cursor of the following page, None at the end."""

    as_of: datetime | None
    items: Sequence[FunnelLead]
    next: FunnelCursor | None


class Timeline(Struct, frozen=True):
    """One lead, and a page of its timeline as rows by type."""

    lead: Row[Any]
    as_of: datetime | None
    stages: Sequence[Row[Any]]
    """The whole stage history, in its order."""
    items: Sequence[tuple[TimelineCursor, Row[Any]]]
    next: TimelineCursor | None


class StagePair(Struct, frozen=True):
    from_: str
    to: str


async def get_funnel(database: Database, query: ReportQuery) -> FunnelReport:
    """Get how many leads reached each stage."""
    async with database.read_transaction() as conn:
        await stages_query.begin_snapshot(conn)
        stages = await stages_query.fetch_stages(conn)
        as_of, _ = await stages_query.fetch_as_of(conn, LEAD_TOPICS)
        tallies = await funnel_query.fetch_tallies(conn, query)
        uncaptured = await funnel_query.count_uncaptured(conn)
    funnel = await asyncio.to_thread(compute_funnel, stages, tallies, query)
    return FunnelReport(
        stages, as_of, Funnel(funnel.groups, funnel.leads, _add_uncaptured(funnel.anomalies, uncaptured))
    )


def _add_uncaptured(anomalies: Mapping[str, int], uncaptured: int) -> dict[str, int]:
    return dict(sorted({**anomalies, **({LEAD_NOT_CAPTURED: uncaptured} if uncaptured else {})}.items()))


async def get_funnel_leads(
    database: Database, query: ReportQuery, stage: str, figure: Figure, *, after: FunnelCursor | None, limit: int
) -> FunnelLeadPage:
    """Get the leads behind a figure of the funnel, the first captured first. Raises UnknownStage."""
    async with database.read_transaction() as conn:
        await stages_query.begin_snapshot(conn)
        stages = await stages_query.fetch_stages(conn)
        as_of, _ = await stages_query.fetch_as_of(conn, LEAD_TOPICS)
        paths = {tally.path for tally in await funnel_query.fetch_tallies(conn, query)}
        if not any(stage in path.stages for path in paths):
            _require_stages(stages, stage)
        paths = await asyncio.to_thread(select_paths, stages, paths, query, stage, figure)
        items = await funnel_query.fetch_leads(conn, query, stage, paths, after=after, limit=limit + 1)
    page, more = items[:limit], len(items) > limit
    return FunnelLeadPage(as_of, page, FunnelCursor(page[-1].captured_at, page[-1].lead_id) if more else None)


async def get_velocity(database: Database, query: ReportQuery, between: StagePair | None) -> VelocityReport:
    """Get how long each step takes, or only the one between two stages. Raises UnknownStage."""
    async with database.read_transaction() as conn:
        await stages_query.begin_snapshot(conn)
        stages = await stages_query.fetch_stages(conn)
        as_of, observed_until = await stages_query.fetch_as_of(conn, LEAD_TOPICS)
        leads, anomalies = await funnel_query.fetch_anomalies(conn, query)
        uncaptured = await funnel_query.count_uncaptured(conn)
        if not query.by:
            leads.setdefault((), 0)
        if between is None:
            steps = await _measure_stage_steps(conn, stages, query, observed_until)
        else:
            steps = await _measure_passage_steps(conn, stages, query, between, observed_until)
    empty = measure_stages(stages, {}) if between is None else [measure_step(between.from_, between.to, Durations(()))]
    groups = [VelocityGroup(key, leads[key], steps.get(key, empty)) for key in sorted(leads, key=group_sort_key)]
    return VelocityReport(stages, as_of, groups, _add_uncaptured(anomalies, uncaptured))


async def _measure_stage_steps(
    conn: AsyncConnection, stages: Stages, query: ReportQuery, observed_until: datetime
) -> dict[GroupKey, list[Step]]:
    """Measure each stage as it is read, so that memory holds one stage's durations at a time."""
    by_stage: dict[GroupKey, dict[str, list[Step]]] = {}
    async for key, stage, by_exit in velocity_query.stream_stage_durations(conn, query, observed_until):
        size = sum(len(durations) for durations in by_exit.values())
        by_stage.setdefault(key, {})[stage] = await _run_in_thread_if_large(
            partial(measure_stage, stages, stage, by_exit), size
        )
    split_names = [stage.key for stage in stages.by_rank]
    found = {}
    for key, steps_of in by_stage.items():
        retired = sorted(stage for stage in steps_of if stage not in stages.by_key)
        found[key] = [
            step
            for stage in [*split_names, *retired]
            for step in steps_of.get(stage) or measure_stage(stages, stage, {})
        ]
    return found


async def _measure_passage_steps(
    conn: AsyncConnection, stages: Stages, query: ReportQuery, between: StagePair, observed_until: datetime
) -> dict[GroupKey, list[Step]]:
    _require_stages(stages, between.from_, between.to)
    found: dict[GroupKey, dict[LeadState, list[int]]] = {}
    arguments = (conn, query, between.from_, between.to, _list_resting_stages(stages), observed_until)
    async for key, state, durations in velocity_query.stream_passage_durations(*arguments):
        found.setdefault(key, {})[state] = durations
    steps = {}
    for key, by_state in found.items():
        durations_of = Durations(by_state.get("done", ()), by_state.get("waiting", ()), by_state.get("left", ()))
        size = sum(len(durations) for durations in by_state.values())
        steps[key] = [
            await _run_in_thread_if_large(partial(measure_step, between.from_, between.to, durations_of), size)
        ]
    return steps


def _list_resting_stages(stages: Stages) -> list[str]:
    return [stage.key for stage in stages.by_rank if stage.kind in RESTING_KINDS]


def _require_stages(stages: Stages, *keys: str) -> None:
    for key in keys:
        if key not in stages.by_key:
            raise UnknownStage(key)


async def get_leads(
    database: Database,
    query: ReportQuery,
    where: str | StagePair,
    *,
    states: Sequence[LeadState],
    after: LeadCursor | None,
    limit: int,
) -> LeadPage:
    """Get the leads behind a velocity figure, longest first; `where` is a stage or a pair. Raises UnknownStage."""
    async with database.read_transaction() as conn:
        await stages_query.begin_snapshot(conn)
        stages = await stages_query.fetch_stages(conn)
        as_of, observed_until = await stages_query.fetch_as_of(conn, LEAD_TOPICS)
        observed_until = after.observed_until if after else observed_until
        resting = _list_resting_stages(stages)
        if isinstance(where, StagePair):
            _require_stages(stages, where.from_, where.to)
            items = await velocity_query.fetch_leads_between(
                conn,
                query,
                where.from_,
                where.to,
                resting=resting,
                observed_until=observed_until,
                states=states,
                after=after,
                limit=limit + 1,
            )
        else:
            _require_stages(stages, where)
            items = await velocity_query.fetch_leads_in_stage(
                conn,
                query,
                where,
                resting=where in resting,
                observed_until=observed_until,
                states=states,
                after=after,
                limit=limit + 1,
            )
    page, more = items[:limit], len(items) > limit
    following = LeadCursor(observed_until, page[-1].duration_us, page[-1].lead_id) if more else None
    return LeadPage(as_of, page, following)


async def get_timeline(database: Database, lead_id: UUID, after: TimelineCursor | None, limit: int) -> Timeline:
    """Get one lead's stages, clocks and activities in time order. Raises UnknownLead."""
    async with database.read_transaction() as conn:
        await stages_query.begin_snapshot(conn, of_one_lead=True)
        lead = await timeline_query.fetch_lead(conn, lead_id)
        if lead is None:
            raise UnknownLead(str(lead_id))
        as_of, _ = await stages_query.fetch_as_of(conn, (*LEAD_TOPICS, SLA_EVENTS))
        history = await timeline_query.fetch_stage_history(conn, lead_id)
        found = [
            (TimelineCursor(row.entered_at, "stage", str(row.position)), row)
            for row in await timeline_query.fetch_stages(conn, lead_id, after, limit + 1)
        ]
        found += [
            (TimelineCursor(row.started_at, "clock", str(row.clock_id)), row)
            for row in await timeline_query.fetch_clocks(conn, lead_id, after, limit + 1)
        ]
        found += [
            (TimelineCursor(row.occurred_at, "activity", str(row.activity_id)), row)
            for row in await timeline_query.fetch_activities(conn, lead_id, after, limit + 1)
        ]
    found.sort(key=lambda item: _item_sort_key(item[0]))
    page, more = found[:limit], len(found) > limit
    return Timeline(lead, as_of, history, page, page[-1][0] if more else None)


async def _run_in_thread_if_large(work: Callable[[], T], size: int) -> T:
    """Run large work in a thread, so that other requests are answered meanwhile."""
    return work() if size < _THREAD_DURATIONS_MIN else await asyncio.to_thread(work)


def _item_sort_key(cursor: TimelineCursor) -> tuple[datetime, int, int, str]:
    position = int(cursor.id) if cursor.type == "stage" else 0
    return cursor.at, timeline_query.RANK[cursor.type], position, cursor.id


def measure_wait(since: datetime, until: datetime | None) -> timedelta | None:
    """Measure how long a lead had waited when it was last observed; None if that is unknown."""
    return None if until is None else max(until - since, timedelta(0))


def choose_won_stage(stages: Stages, key: str | None) -> str:
    """The stage that counts as won: this one, or the definition's first of that kind. Raises UnknownStage."""
    won = [stage.key for stage in stages.sales_path if stage.kind == "won"]
    if key is None and not won:
        raise UnknownStage("none is of the kind won")
    found = won[0] if key is None else key
    _require_stages(stages, found)
    return found
