"""Reads why revenue differs from the plan: by source and factor, each with what it depends on. It writes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from fractions import Fraction
from zoneinfo import ZoneInfo

from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from accord.agreements import AgreementStore
from accord.db import Database
from accord.terms.dimensions import parse_dimension
from metrics.domain.allocation import allocate
from metrics.domain.definition_view import Stages
from metrics.domain.diagnosis import Chain, Split, split_gap
from metrics.domain.funnel import Tally, compute_reach
from metrics.domain.money import minor_units
from metrics.domain.periods import Period, to_moment
from metrics.domain.report_query import DIMENSION_NAMES, ReportQuery
from metrics.domain.reverse_funnel import ReverseFunnel, due_day
from metrics.queries import funnel as funnel_query
from metrics.queries import stages as stages_query
from metrics.queries import wins as wins_query
from metrics.queries.wins import Win, WinCursor, select_period
from metrics.usecases.plan_progress import PlanInForce, fetch_plan
from metrics.usecases.reports import LEAD_TOPICS, choose_won_stage

BY_SOURCE = (parse_dimension("source", DIMENSION_NAMES),)


class OutsidePlan(ValueError):
    """The period is not within the plan's."""


class SourceDiagnosis(Struct, frozen=True):
    """One source's gap. `source` is None for all sources together, where the plan says nothing about them."""

    source: str | None
    planned: Chain
    actual: Chain
    planned_units: int
    actual_units: int
    split: Split


class DiagnosisReport(Struct, frozen=True):
    """The gap of a period. The cohort are the leads that were due for its wins, by when they were captured."""

    in_force: PlanInForce
    stages: Stages
    gates: Mapping[str, tuple[int, object]]
    """Of the definition in force, the index and the gate of each stage."""
    as_of: datetime | None
    period: tuple[datetime, datetime]
    cohort: tuple[datetime, datetime]
    sources: Sequence[SourceDiagnosis]


class WinPage(Struct, frozen=True):
    """A page of wins; `next` is the cursor of the following page, None at the end."""

    as_of: datetime | None
    items: Sequence[Win]
    next: WinCursor | None


async def get_diagnosis(database: Database, plans: AgreementStore, first: date, end: date) -> DiagnosisReport:
    """Get the gap between two days of the plan, the second not included. Raises NoPlan and OutsidePlan."""
    async with database.read_transaction() as conn:
        await stages_query.begin_snapshot(conn)
        in_force = await fetch_plan(conn, plans)
        funnel, zone = in_force.funnel, ZoneInfo(in_force.plan.period.timezone)
        if not funnel.whole.first <= first < end <= funnel.whole.end:
            raise OutsidePlan
        stages = await stages_query.fetch_stages(conn)
        gates = await stages_query.fetch_gates(conn)
        as_of, _ = await stages_query.fetch_as_of(conn, LEAD_TOPICS)
        period = Period(first, end).bounds(zone)
        shift = funnel.days_to_win[in_force.plan.funnel[0].stage]
        cohort = to_moment(due_day(first, shift), zone), to_moment(due_day(end, shift), zone)
        actual = await _fetch_actual(conn, in_force, stages, period, cohort)
    planned = _plan_chains(in_force, Period(first, end))
    return DiagnosisReport(
        in_force, stages, gates, as_of, period, cohort, _compare(in_force, Period(first, end), planned, actual)
    )


def _plan_chains(in_force: PlanInForce, period: Period) -> dict[str | None, Chain]:
    funnel, plan = in_force.funnel, in_force.plan
    due = _share_of_wins(funnel, period)
    shares: dict[str | None, Fraction] = {entry.source: Fraction(str(entry.share)) for entry in plan.sources}
    chains = {}
    for source, share in (shares or {None: Fraction(1)}).items():
        reached = tuple(leads * due * share for leads in funnel.leads.values())
        chains[source] = Chain(reached, reached[-1], reached[-1] * Fraction(plan.average_deal.amount))
    return chains


def _share_of_wins(funnel: ReverseFunnel, period: Period) -> Fraction:
    return funnel.cumulate(funnel.position(period.end)) - funnel.cumulate(funnel.position(period.first))


async def _fetch_actual(
    conn: AsyncConnection,
    in_force: PlanInForce,
    stages: Stages,
    period: tuple[datetime, datetime],
    cohort: tuple[datetime, datetime],
) -> dict[str | None, Chain]:
    plan = in_force.plan
    names = [entry.stage for entry in plan.funnel]
    query = ReportQuery(since=cohort[0], until=cohort[1], by=BY_SOURCE)
    reached: dict[str | None, dict[str, int]] = {}
    for tally in await funnel_query.fetch_tallies(conn, query):
        _add_reached(reached.setdefault(_source_of(in_force, tally), {}), stages, tally, query)
    won_ever = await _fetch_wins(conn, in_force, ReportQuery(entry="last", since=cohort[0], until=cohort[1]))
    wins = await _fetch_wins(conn, in_force, select_period(*period))
    chains = {}
    for source in reached.keys() | wins.keys():
        counts = [Fraction(reached.get(source, {}).get(name, 0)) for name in names[:-1]]
        (ever, _), (won, revenue) = won_ever.get(source, _NO_WINS), wins.get(source, _NO_WINS)
        chains[source] = Chain((*counts, Fraction(ever)), Fraction(won), revenue)
    return chains


_NO_WINS = (0, Fraction(0))


async def _fetch_wins(
    conn: AsyncConnection, in_force: PlanInForce, query: ReportQuery
) -> dict[str | None, tuple[int, Fraction]]:
    """Fetch wins and revenue by source; all under None where the plan names no sources."""
    plan = in_force.plan
    wins: dict[str | None, tuple[int, Fraction]] = {}
    found = await wins_query.sum_revenue_by_source(conn, query, plan.funnel[-1].stage, plan.revenue.currency)
    for source, (count, revenue) in found.items():
        key = source if plan.sources else None
        before, amount = wins.get(key, _NO_WINS)
        wins[key] = (before + count, amount + Fraction(revenue))
    return wins


def _source_of(in_force: PlanInForce, tally: Tally) -> str | None:
    (source,) = tally.group
    return source if in_force.plan.sources and isinstance(source, str) else None


def _add_reached(counts: dict[str, int], stages: Stages, tally: Tally, query: ReportQuery) -> None:
    for stage in compute_reach(stages, tally.path, query.order, query.entry).reached:
        counts[stage] = counts.get(stage, 0) + tally.leads


def _compare(
    in_force: PlanInForce, period: Period, planned: dict[str | None, Chain], actual: dict[str | None, Chain]
) -> list[SourceDiagnosis]:
    """Compare source by source; planned money is split so that the sources sum to the plan's."""
    units = minor_units(in_force.plan.revenue.currency)
    whole = Fraction(in_force.plan.revenue.amount) * _share_of_wins(in_force.funnel, period)
    parts = allocate(round(whole * units), [chain.revenue for chain in planned.values()])
    planned_units = dict(zip(planned, parts, strict=True))
    nothing = Chain((Fraction(0),) * len(in_force.plan.funnel), Fraction(0), Fraction(0))
    found = []
    for source in sorted(planned.keys() | actual.keys(), key=lambda name: (name is None, name or "")):
        before, after = planned.get(source, nothing), actual.get(source, nothing)
        plan_units, actual_units = planned_units.get(source, 0), round(after.revenue * units)
        split = split_gap(before, after, actual_units - plan_units, units)
        found.append(SourceDiagnosis(source, before, after, plan_units, actual_units, split))
    return found


async def get_wins(
    database: Database, query: ReportQuery, stage: str | None, *, after: WinCursor | None, limit: int
) -> WinPage:
    """Get the wins of a period, the first ones first. Raises UnknownStage."""
    async with database.read_transaction() as conn:
        await stages_query.begin_snapshot(conn)
        won = choose_won_stage(await stages_query.fetch_stages(conn), stage)
        as_of, _ = await stages_query.fetch_as_of(conn, LEAD_TOPICS)
        items = await wins_query.fetch_wins(conn, query, won, after=after, limit=limit + 1)
    page, more = items[:limit], len(items) > limit
    return WinPage(as_of, page, WinCursor(page[-1].won_at, page[-1].lead_id) if more else None)
