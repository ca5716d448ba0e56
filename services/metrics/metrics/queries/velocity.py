"""Reads durations by group and step, and the leads behind them. domain/velocity.py computes the figures."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from msgspec import Struct
from sqlalchemy import BigInteger, ColumnElement, Select, Subquery, and_, case, cast, func, literal, select, tuple_
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import DateTime

from metrics.domain.funnel import GroupKey
from metrics.domain.report_query import ReportQuery
from metrics.queries.selection import entry_condition, group_key, group_names, period_condition, select_leads
from metrics.tables import stage_entry

_GROUPED_ROWS_AHEAD = 16

LeadState = Literal["done", "waiting", "left", "resting"]


class LeadCursor(Struct, frozen=True):
    """The last lead of the previous page, and the moment up to which its waiting leads were observed."""

    observed_until: datetime
    duration_us: int
    lead_id: UUID


class LeadStep(Struct, frozen=True):
    """One lead's step. `to` is the next stage, if there was one."""

    lead_id: UUID
    group: GroupKey
    entered_at: datetime
    ended_at: datetime | None
    to: str | None
    state: LeadState
    duration_us: int


async def stream_stage_durations(
    conn: AsyncConnection, query: ReportQuery, observed_until: datetime
) -> AsyncIterator[tuple[GroupKey, str, dict[str | None, list[int]]]]:
    """Stream each group's durations in each stage by the next stage, None for leads still there; one stage at a time."""
    steps = _select_stage_steps(query, observed_until)
    columns = [*(steps.c[name] for name in group_names(query)), steps.c.stage, steps.c.to]
    statement = select(*columns, func.array_agg(steps.c.duration_us)).group_by(*columns).order_by(*columns)
    current: tuple[tuple[GroupKey, str], dict[str | None, list[int]]] | None = None
    async with conn.stream(statement, execution_options=_read_ahead(query)) as rows:
        async for *values, stage, to, durations in rows:
            key = (group_key(values), stage)
            if current is not None and current[0] != key:
                yield (*current[0], current[1])
                current = None
            current = current or (key, {})
            current[1].setdefault(to, []).extend(durations)
    if current is not None:
        yield (*current[0], current[1])


def _read_ahead(query: ReportQuery) -> dict[str, int]:
    """The number of rows to read ahead. A row holds all durations of its step, which are many without groups."""
    return {"yield_per": _GROUPED_ROWS_AHEAD if query.by else 1}


async def stream_passage_durations(
    conn: AsyncConnection, query: ReportQuery, from_: str, to: str, resting: Collection[str], observed_until: datetime
) -> AsyncIterator[tuple[GroupKey, LeadState, list[int]]]:
    """Stream each group's durations from one stage to another, by state."""
    steps = _select_passages(query, from_, to, resting, observed_until)
    columns = [*(steps.c[name] for name in group_names(query)), steps.c.state]
    statement = select(*columns, func.array_agg(steps.c.duration_us)).group_by(*columns)
    async with conn.stream(statement, execution_options=_read_ahead(query)) as rows:
        async for *values, state, durations in rows:
            yield group_key(values), state, durations


async def fetch_leads_in_stage(
    conn: AsyncConnection,
    query: ReportQuery,
    stage: str,
    *,
    resting: bool,
    observed_until: datetime,
    states: Sequence[LeadState],
    after: LeadCursor | None,
    limit: int,
) -> list[LeadStep]:
    """Fetch leads that entered the stage, the longest duration first."""
    steps = _select_stage_steps(query, observed_until, stage=stage, resting=resting)
    return await _fetch_page(conn, query, steps, states, after, limit)


async def fetch_leads_between(
    conn: AsyncConnection,
    query: ReportQuery,
    from_: str,
    to: str,
    *,
    resting: Collection[str],
    observed_until: datetime,
    states: Sequence[LeadState],
    after: LeadCursor | None,
    limit: int,
) -> list[LeadStep]:
    """Fetch leads that entered the first stage, the longest duration first."""
    steps = _select_passages(query, from_, to, resting, observed_until)
    return await _fetch_page(conn, query, steps, states, after, limit)


async def _fetch_page(
    conn: AsyncConnection,
    query: ReportQuery,
    steps: Subquery,
    states: Sequence[LeadState],
    after: LeadCursor | None,
    limit: int,
) -> list[LeadStep]:
    c = steps.c
    groups = group_names(query)
    statement = select(c.lead_id, c.entered_at, c.ended_at, c.to, c.state, c.duration_us, *(c[name] for name in groups))
    if states:
        statement = statement.where(c.state.in_(states))
    if after is not None:
        # Longest first, ids ascending: with the duration negated both ascend.
        statement = statement.where(tuple_(-c.duration_us, c.lead_id) > tuple_(-after.duration_us, after.lead_id))
    statement = statement.order_by(c.duration_us.desc(), c.lead_id).limit(limit)
    return [
        LeadStep(lead_id, group_key(values), entered_at, ended_at, to, state, duration_us)
        for lead_id, entered_at, ended_at, to, state, duration_us, *values in await conn.execute(statement)
    ]


def _microseconds(since: ColumnElement[Any], until: ColumnElement[Any]) -> ColumnElement[int]:
    return cast(func.extract("epoch", until - since) * 1_000_000, BigInteger)


def _waiting_us(since: ColumnElement[Any], observed_until: datetime) -> ColumnElement[int]:
    """The waiting time; zero for a lead that entered after `observed_until`."""
    return func.greatest(0, _microseconds(since, literal(observed_until, DateTime(timezone=True))))


def _select_stage_steps(
    query: ReportQuery, observed_until: datetime, *, stage: str | None = None, resting: bool = False
) -> Subquery:
    """Chosen entries with their durations; of one stage or of all."""
    chosen = select_leads(query).subquery("chosen")
    entry = stage_entry.c
    statement = (
        select(
            *chosen.c,
            entry.stage,
            entry.entered_at,
            entry.exited_at.label("ended_at"),
            entry.next_stage.label("to"),
            case((entry.exited_at.is_not(None), "done"), else_="resting" if resting else "waiting").label("state"),
            func.coalesce(entry.duration_us, _waiting_us(entry.entered_at, observed_until)).label("duration_us"),
        )
        .join_from(stage_entry, chosen, entry.lead_id == chosen.c.lead_id)
        .where(entry.position.is_not(None), entry_condition(query), period_condition(query))
    )
    if stage is not None:
        statement = statement.where(entry.stage == stage)
    return statement.subquery("steps")


def _select_passages(
    query: ReportQuery, from_: str, to: str, resting: Collection[str], observed_until: datetime
) -> Subquery:
    """Select passages from the chosen entry into one stage to the next into another, or to the stage where the lead rests."""
    start = _select_starts(query, from_).subquery("start")
    finish = _next_entries(start, to).subquery("finish")
    end, rest = finish.c.entered_at, stage_entry.alias("rest")
    joined = start.outerjoin(finish, finish.c.lead_id == start.c.lead_id).outerjoin(
        rest,
        and_(
            rest.c.lead_id == start.c.lead_id,
            rest.c.next_stage.is_(None),
            rest.c.position > start.c.position,
            rest.c.stage.in_(list(resting)),
        ),
    )
    ended = func.coalesce(end, rest.c.entered_at)
    return (
        select(
            start.c.lead_id,
            *(start.c[name] for name in group_names(query)),
            start.c.entered_at,
            ended.label("ended_at"),
            case((end.is_not(None), to), else_=rest.c.stage).label("to"),
            case((end.is_not(None), "done"), (rest.c.lead_id.is_not(None), "left"), else_="waiting").label("state"),
            case(
                (ended.is_not(None), _microseconds(start.c.entered_at, ended)),
                else_=_waiting_us(start.c.entered_at, observed_until),
            ).label("duration_us"),
        )
        .select_from(joined)
        .subquery("steps")
    )


def _select_starts(query: ReportQuery, from_: str) -> Select[Any]:
    chosen = select_leads(query).subquery("chosen")
    entry = stage_entry.c
    return (
        select(*chosen.c, entry.position, entry.entered_at)
        .join_from(stage_entry, chosen, entry.lead_id == chosen.c.lead_id)
        .where(entry.stage == from_, entry.position.is_not(None), entry_condition(query), period_condition(query))
    )


def _next_entries(start: Subquery, to: str) -> Select[Any]:
    """Each started lead's first entry into `to` after its start."""
    later = stage_entry.alias("later")
    in_order = aggregate_order_by(later.c.entered_at, later.c.position)
    return (
        select(later.c.lead_id, func.array_agg(in_order)[1].label("entered_at"))
        .join_from(later, start, and_(later.c.lead_id == start.c.lead_id, later.c.position > start.c.position))
        .where(later.c.stage == to)
        .group_by(later.c.lead_id)
    )
