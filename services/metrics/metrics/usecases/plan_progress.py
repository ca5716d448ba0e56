"""Reads the plan in force, what it needs month by month, and how far its goals are. It writes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from fractions import Fraction
from zoneinfo import ZoneInfo

from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from accord.agreements import AgreementStore
from accord.db import Database
from metrics.domain.periods import to_day, to_moment
from metrics.domain.plan import Plan, parse_plan
from metrics.domain.progress import Progress, Target, find_targets, measure_progress
from metrics.domain.reverse_funnel import ReverseFunnel
from metrics.queries import progress as progress_query
from metrics.queries import stages as stages_query
from metrics.queries import wins as wins_query
from metrics.queries.wins import Revenue, select_period
from metrics.usecases.reports import LEAD_TOPICS


class NoPlan(LookupError):
    """No plan is in force."""


class PlanInForce(Struct, frozen=True):
    """The plan in force and what it needs."""

    version: int
    plan: Plan
    funnel: ReverseFunnel


class GoalProgress(Struct, frozen=True):
    """One goal's progress; `leads` are those behind the actual figure, `revenue` its amounts by currency."""

    progress: Progress
    since: datetime
    end: datetime
    leads: int
    revenue: Sequence[Revenue]


class ProgressReport(Struct, frozen=True):
    in_force: PlanInForce
    as_of: datetime | None
    at: datetime
    goals: Sequence[GoalProgress]


async def get_plan(database: Database, plans: AgreementStore) -> PlanInForce:
    """Get the plan in force. Raises NoPlan."""
    async with database.read_transaction() as conn:
        return await fetch_plan(conn, plans)


async def fetch_plan(conn: AsyncConnection, plans: AgreementStore) -> PlanInForce:
    """Fetch the plan in force. Raises NoPlan."""
    active = await plans.active(conn)
    if active is None:
        raise NoPlan
    plan = parse_plan(active.content)
    return PlanInForce(active.version, plan, ReverseFunnel(plan))


async def get_progress(database: Database, plans: AgreementStore, at: datetime | None) -> ProgressReport:
    """Get the progress of every goal at a moment, else as of the watermark. Raises NoPlan."""
    async with database.read_transaction() as conn:
        await stages_query.begin_snapshot(conn)
        in_force = await fetch_plan(conn, plans)
        as_of, now = await stages_query.fetch_as_of(conn, LEAD_TOPICS)
        at = at or now
        day = to_day(at, ZoneInfo(in_force.plan.period.timezone))
        goals = [
            await _measure_goal(conn, in_force, target, at)
            for goal in in_force.plan.goals
            for target in find_targets(in_force.funnel, goal, day)
        ]
    return ProgressReport(in_force, as_of, at, goals)


async def _measure_goal(conn: AsyncConnection, in_force: PlanInForce, target: Target, at: datetime) -> GoalProgress:
    zone = ZoneInfo(in_force.plan.period.timezone)
    since, end = to_moment(target.period.first, zone), to_moment(target.period.end, zone)
    until = min(max(at, since), end)
    measure = target.goal.measure
    actual: Fraction | None = Fraction(0)
    leads, revenue = 0, list[Revenue]()
    if since < until and measure.entered:
        leads = await progress_query.count_entries(conn, measure.entered, since, until)
        actual = Fraction(leads)
    elif since < until and measure.conversion:
        start, end_stage = measure.conversion
        path = list(in_force.funnel.leads)
        ends = path[path.index(end_stage) :]
        leads, converted = await progress_query.count_conversions(conn, start, ends, since, until)
        actual = Fraction(converted, leads) if leads else None
    elif since < until and measure.revenue:
        revenue = await wins_query.sum_revenue(conn, select_period(since, until), measure.revenue)
        ours = [found for found in revenue if found.currency == in_force.plan.revenue.currency]
        leads = sum(found.leads for found in ours)
        actual = sum((Fraction(found.amount or 0) for found in ours), Fraction(0))
    elif measure.conversion:
        actual = None
    return GoalProgress(measure_progress(in_force.funnel, target, actual, at), since, end, leads, revenue)
