"""Gathers durations, by group and step, and the leads behind them. What is made of them is decided in
domain/velocity.py."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import BigInteger, ColumnElement, Select, Subquery, and_, case, cast, func, literal, select, tuple_
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import DateTime

from metrics.domain.choices import Choices
from metrics.domain.funnel import GroupKey
from metrics.queries.selection import chosen_entry, entered_in_period, group_key, group_names, leads
from metrics.tables import stage_entry

_GROUPED_ROWS_AHEAD = 16

LeadState = Literal["done", "waiting", "left", "resting"]


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last lead of the page before, and until when its waiting leads were observed."""

    observed_until: datetime
    duration_us: int
    lead_id: UUID


@dataclass(frozen=True, slots=True)
class LeadStep:
    """One lead's step. `to` is the stage it went on to, if it did."""

    lead_id: UUID
    group: GroupKey
    entered_at: datetime
    ended_at: datetime | None
    to: str | None
    state: LeadState
    duration_us: int


async def stage_durations(
    conn: AsyncConnection, choices: Choices, observed_until: datetime
) -> AsyncIterator[tuple[GroupKey, str, dict[str | None, list[int]]]]:
    """Each group's durations in each stage by the stage that followed, None for those still there; one stage at a
    time."""
    steps = _stage_steps(choices, observed_until)
    columns = [*(steps.c[name] for name in group_names(choices)), steps.c.stage, steps.c.to]
    statement = select(*columns, func.array_agg(steps.c.duration_us)).group_by(*columns).order_by(*columns)
    held: tuple[tuple[GroupKey, str], dict[str | None, list[int]]] | None = None
    async with conn.stream(statement, execution_options=_ahead(choices)) as rows:
        async for *values, stage, to, durations in rows:
            place = (group_key(values), stage)
            if held is not None and held[0] != place:
                yield (*held[0], held[1])
                held = None
            held = held or (place, {})
            held[1].setdefault(to, []).extend(durations)
    if held is not None:
        yield (*held[0], held[1])


def _ahead(choices: Choices) -> dict[str, int]:
    """How many rows to read ahead: a row holds all durations of its step, which are many where there are no groups."""
    return {"yield_per": _GROUPED_ROWS_AHEAD if choices.by else 1}


async def passage_durations(
    conn: AsyncConnection, choices: Choices, from_: str, to: str, resting: Collection[str], observed_until: datetime
) -> AsyncIterator[tuple[GroupKey, LeadState, list[int]]]:
    """Each group's durations from one stage to another, by how they ended."""
    steps = _passages(choices, from_, to, resting, observed_until)
    columns = [*(steps.c[name] for name in group_names(choices)), steps.c.state]
    statement = select(*columns, func.array_agg(steps.c.duration_us)).group_by(*columns)
    async with conn.stream(statement, execution_options=_ahead(choices)) as rows:
        async for *values, state, durations in rows:
            yield group_key(values), state, durations


async def leads_in_stage(
    conn: AsyncConnection,
    choices: Choices,
    stage: str,
    *,
    resting: bool,
    observed_until: datetime,
    states: Sequence[LeadState],
    after: Cursor | None,
    limit: int,
) -> list[LeadStep]:
    """Leads that entered the stage, longest there first."""
    steps = _stage_steps(choices, observed_until, stage=stage, resting=resting)
    return await _page(conn, choices, steps, states, after, limit)


async def leads_between(
    conn: AsyncConnection,
    choices: Choices,
    from_: str,
    to: str,
    *,
    resting: Collection[str],
    observed_until: datetime,
    states: Sequence[LeadState],
    after: Cursor | None,
    limit: int,
) -> list[LeadStep]:
    """Leads that entered the first stage, longest on their way first."""
    steps = _passages(choices, from_, to, resting, observed_until)
    return await _page(conn, choices, steps, states, after, limit)


async def _page(
    conn: AsyncConnection,
    choices: Choices,
    steps: Subquery,
    states: Sequence[LeadState],
    after: Cursor | None,
    limit: int,
) -> list[LeadStep]:
    c = steps.c
    groups = group_names(choices)
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


def _waited(since: ColumnElement[Any], observed_until: datetime) -> ColumnElement[int]:
    """A lead that entered after the last look was observed for no time at all."""
    return func.greatest(0, _microseconds(since, literal(observed_until, DateTime(timezone=True))))


def _stage_steps(
    choices: Choices, observed_until: datetime, *, stage: str | None = None, resting: bool = False
) -> Subquery:
    """Chosen entries with their durations; of one stage or of all."""
    chosen = leads(choices).subquery("chosen")
    entry = stage_entry.c
    statement = (
        select(
            *chosen.c,
            entry.stage,
            entry.entered_at,
            entry.exited_at.label("ended_at"),
            entry.next_stage.label("to"),
            case((entry.exited_at.is_not(None), "done"), else_="resting" if resting else "waiting").label("state"),
            func.coalesce(entry.duration_us, _waited(entry.entered_at, observed_until)).label("duration_us"),
        )
        .join_from(stage_entry, chosen, entry.lead_id == chosen.c.lead_id)
        .where(entry.position.is_not(None), chosen_entry(choices), entered_in_period(choices))
    )
    if stage is not None:
        statement = statement.where(entry.stage == stage)
    return statement.subquery("steps")


def _passages(choices: Choices, from_: str, to: str, resting: Collection[str], observed_until: datetime) -> Subquery:
    """From the chosen entry into one stage to the next entry into another, or to where the lead came to rest without
    it."""
    start = _starts(choices, from_).subquery("start")
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
            *(start.c[name] for name in group_names(choices)),
            start.c.entered_at,
            ended.label("ended_at"),
            case((end.is_not(None), to), else_=rest.c.stage).label("to"),
            case((end.is_not(None), "done"), (rest.c.lead_id.is_not(None), "left"), else_="waiting").label("state"),
            case(
                (ended.is_not(None), _microseconds(start.c.entered_at, ended)),
                else_=_waited(start.c.entered_at, observed_until),
            ).label("duration_us"),
        )
        .select_from(joined)
        .subquery("steps")
    )


def _starts(choices: Choices, from_: str) -> Select[Any]:
    chosen = leads(choices).subquery("chosen")
    entry = stage_entry.c
    return (
        select(*chosen.c, entry.position, entry.entered_at)
        .join_from(stage_entry, chosen, entry.lead_id == chosen.c.lead_id)
        .where(entry.stage == from_, entry.position.is_not(None), chosen_entry(choices), entered_in_period(choices))
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
