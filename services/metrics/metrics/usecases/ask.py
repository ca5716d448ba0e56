"""Answers questions about the projections: funnel, velocity, the leads behind a figure, a lead's timeline. It writes
nothing.

Each answer is read in one snapshot, and says until when everything recorded has been read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from accord.contracts.topics import INTAKE_EVENTS, QUALIFICATION_EVENTS, SLA_EVENTS
from accord.db import Database
from metrics.domain.choices import Choices
from metrics.domain.definition_view import Stages
from metrics.domain.funnel import Funnel, GroupKey, funnel, group_order
from metrics.domain.velocity import RESTING_KINDS, Durations, Step, step, steps_of_stage, velocity
from metrics.queries import funnel as funnel_query
from metrics.queries import stages as stages_query
from metrics.queries import timeline as timeline_query
from metrics.queries import velocity as velocity_query
from metrics.queries.timeline import Place
from metrics.queries.velocity import Cursor, LeadState, LeadStep

T = TypeVar("T")

_LARGE = 10_000
"""Durations beyond which a step is worked out in a thread."""

LEAD_TOPICS = (INTAKE_EVENTS, QUALIFICATION_EVENTS)
"""What leads and their stages are read from."""

LEAD_NOT_CAPTURED = "lead_not_captured"


class UnknownStage(LookupError):
    """The definition in force has no such stage, and no lead was ever in it."""


class UnknownLead(LookupError):
    """No event has told of this lead."""


@dataclass(frozen=True, slots=True)
class FunnelAnswer:
    stages: Stages
    as_of: datetime | None
    funnel: Funnel


@dataclass(frozen=True, slots=True)
class VelocityGroup:
    key: GroupKey
    leads: int
    steps: Sequence[Step]


@dataclass(frozen=True, slots=True)
class VelocityAnswer:
    stages: Stages
    as_of: datetime | None
    groups: Sequence[VelocityGroup]
    anomalies: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class LeadsAnswer:
    """A page of leads; `next` is where the following page begins, None at the end."""

    as_of: datetime | None
    items: Sequence[LeadStep]
    next: Cursor | None


@dataclass(frozen=True, slots=True)
class TimelineAnswer:
    """What is known of one lead, and a page of what happened with it, as rows by type."""

    lead: Row[Any]
    as_of: datetime | None
    stages: Sequence[Row[Any]]
    """The whole chain of entries, in its order."""
    items: Sequence[tuple[Place, Row[Any]]]
    next: Place | None


@dataclass(frozen=True, slots=True)
class Between:
    from_: str
    to: str


async def ask_funnel(database: Database, choices: Choices) -> FunnelAnswer:
    """How many leads got how far."""
    async with database.reading() as conn:
        await stages_query.one_snapshot(conn)
        stages = await stages_query.stages_in_force(conn)
        as_of, _ = await stages_query.as_of(conn, LEAD_TOPICS)
        tallies = await funnel_query.tallies(conn, choices)
        hidden = await funnel_query.uncaptured(conn)
    found = await asyncio.to_thread(funnel, stages, tallies, choices)
    return FunnelAnswer(stages, as_of, Funnel(found.groups, found.leads, _with_hidden(found.anomalies, hidden)))


def _with_hidden(anomalies: Mapping[str, int], hidden: int) -> dict[str, int]:
    return dict(sorted({**anomalies, **({LEAD_NOT_CAPTURED: hidden} if hidden else {})}.items()))


async def ask_velocity(database: Database, choices: Choices, between: Between | None) -> VelocityAnswer:
    """How long each step takes; only the one between two stages where these are named. Raises UnknownStage."""
    async with database.reading() as conn:
        await stages_query.one_snapshot(conn)
        stages = await stages_query.stages_in_force(conn)
        as_of, observed_until = await stages_query.as_of(conn, LEAD_TOPICS)
        leads, anomalies = await funnel_query.selection_anomalies(conn, choices)
        hidden = await funnel_query.uncaptured(conn)
        if not choices.by:
            leads.setdefault((), 0)
        if between is None:
            steps = await _stage_steps(conn, stages, choices, observed_until)
        else:
            steps = await _passage_steps(conn, stages, choices, between, observed_until)
    empty = velocity(stages, {}) if between is None else [step(between.from_, between.to, Durations(()))]
    groups = [VelocityGroup(key, leads[key], steps.get(key, empty)) for key in sorted(leads, key=group_order)]
    return VelocityAnswer(stages, as_of, groups, _with_hidden(anomalies, hidden))


async def _stage_steps(
    conn: AsyncConnection, stages: Stages, choices: Choices, observed_until: datetime
) -> dict[GroupKey, list[Step]]:
    """Each stage is worked out as it is read, so that no more than one stage's durations are held at a time."""
    by_stage: dict[GroupKey, dict[str, list[Step]]] = {}
    async for key, stage, by_exit in velocity_query.stage_durations(conn, choices, observed_until):
        size = sum(len(durations) for durations in by_exit.values())
        by_stage.setdefault(key, {})[stage] = await _beside(partial(steps_of_stage, stages, stage, by_exit), size)
    listed = [stage.key for stage in stages.every]
    found = {}
    for key, known in by_stage.items():
        retired = sorted(stage for stage in known if stage not in stages.by_key)
        found[key] = [
            one for stage in [*listed, *retired] for one in known.get(stage) or steps_of_stage(stages, stage, {})
        ]
    return found


async def _passage_steps(
    conn: AsyncConnection, stages: Stages, choices: Choices, between: Between, observed_until: datetime
) -> dict[GroupKey, list[Step]]:
    _known(stages, between.from_, between.to)
    found: dict[GroupKey, dict[LeadState, list[int]]] = {}
    arguments = (conn, choices, between.from_, between.to, _resting(stages), observed_until)
    async for key, state, durations in velocity_query.passage_durations(*arguments):
        found.setdefault(key, {})[state] = durations
    steps = {}
    for key, by_state in found.items():
        durations_of = Durations(by_state.get("done", ()), by_state.get("waiting", ()), by_state.get("left", ()))
        size = sum(len(durations) for durations in by_state.values())
        steps[key] = [await _beside(partial(step, between.from_, between.to, durations_of), size)]
    return steps


def _resting(stages: Stages) -> list[str]:
    return [stage.key for stage in stages.every if stage.kind in RESTING_KINDS]


def _known(stages: Stages, *keys: str) -> None:
    for key in keys:
        if key not in stages.by_key:
            raise UnknownStage(key)


async def ask_leads(
    database: Database,
    choices: Choices,
    where: str | Between,
    *,
    states: Sequence[LeadState],
    after: Cursor | None,
    limit: int,
) -> LeadsAnswer:
    """The leads behind a figure of the velocity, longest first; `where` is a stage or a way between two. Raises
    UnknownStage."""
    async with database.reading() as conn:
        await stages_query.one_snapshot(conn)
        stages = await stages_query.stages_in_force(conn)
        as_of, observed_until = await stages_query.as_of(conn, LEAD_TOPICS)
        observed_until = after.observed_until if after else observed_until
        resting = _resting(stages)
        if isinstance(where, Between):
            _known(stages, where.from_, where.to)
            items = await velocity_query.leads_between(
                conn,
                choices,
                where.from_,
                where.to,
                resting=resting,
                observed_until=observed_until,
                states=states,
                after=after,
                limit=limit + 1,
            )
        else:
            _known(stages, where)
            items = await velocity_query.leads_in_stage(
                conn,
                choices,
                where,
                resting=where in resting,
                observed_until=observed_until,
                states=states,
                after=after,
                limit=limit + 1,
            )
    page, more = items[:limit], len(items) > limit
    following = Cursor(observed_until, page[-1].duration_us, page[-1].lead_id) if more else None
    return LeadsAnswer(as_of, page, following)


async def ask_timeline(database: Database, lead_id: UUID, after: Place | None, limit: int) -> TimelineAnswer:
    """One lead's stages, clocks and activities in time order. Raises UnknownLead."""
    async with database.reading() as conn:
        await stages_query.one_snapshot(conn, of_one_lead=True)
        lead = await timeline_query.lead_row(conn, lead_id)
        if lead is None:
            raise UnknownLead(str(lead_id))
        as_of, _ = await stages_query.as_of(conn, (*LEAD_TOPICS, SLA_EVENTS))
        chain = await timeline_query.chain(conn, lead_id)
        found = [
            (Place(row.entered_at, "stage", str(row.position)), row)
            for row in await timeline_query.stages(conn, lead_id, after, limit + 1)
        ]
        found += [
            (Place(row.started_at, "clock", str(row.clock_id)), row)
            for row in await timeline_query.clocks(conn, lead_id, after, limit + 1)
        ]
        found += [
            (Place(row.occurred_at, "activity", str(row.activity_id)), row)
            for row in await timeline_query.activities(conn, lead_id, after, limit + 1)
        ]
    found.sort(key=lambda item: _place_order(item[0]))
    page, more = found[:limit], len(found) > limit
    return TimelineAnswer(lead, as_of, chain, page, page[-1][0] if more else None)


async def _beside(work: Callable[[], T], size: int) -> T:
    """Large work in a thread, so that other requests are answered meanwhile."""
    return work() if size < _LARGE else await asyncio.to_thread(work)


def _place_order(place: Place) -> tuple[datetime, int, int, str]:
    position = int(place.id) if place.type == "stage" else 0
    return place.at, timeline_query.RANK[place.type], position, place.id


def waited(since: datetime, until: datetime | None) -> timedelta | None:
    """How long a lead had waited when it was last looked at; None when it is not known."""
    return None if until is None else max(until - since, timedelta(0))
