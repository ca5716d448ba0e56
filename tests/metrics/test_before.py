"""Mistakes that other tools made, with the right numbers: counting, empty denominators, totals, whose midnight."""

from collections.abc import Callable
from datetime import date, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from accord.contracts.values import utc
from accord.db import Database
from accord.terms.dimensions import parse_dimension
from metrics.domain.definition_view import Stage, order_stages
from metrics.domain.funnel import StagePath, Tally, compute_funnel
from metrics.domain.intervals import wilson
from metrics.domain.periods import Period, find_period, split_period, to_day
from metrics.domain.report_query import DIMENSION_NAMES, ReportQuery, parse_dimensions, parse_filter
from metrics.domain.velocity import Durations, measure_step
from metrics.usecases.reports import StagePair, get_funnel, get_funnel_leads, get_velocity

Apply = Callable[..., Any]
CHICAGO = ZoneInfo("America/Chicago")
DAY = 86_400_000_000


async def test_steps_in_the_same_instant_convert(database: Database, history: Any, apply: Apply) -> None:
    history.define()
    for after_s in (0, 0, 1.5, None):
        lead_id = history.capture()
        history.move(lead_id, "inquiry", 0)
        if after_s is not None:
            history.move(lead_id, "mql", after_s / 3600)
    await apply(database, history.events)
    for order in ("any", "strict"):
        funnel = (await get_funnel(database, ReportQuery(order=order))).funnel
        mql = funnel.groups[0].stages[1]
        assert (mql.reached, mql.conversion_from_previous) == (3, 0.75)
        assert mql.interval_95 == pytest.approx((0.3006, 0.9544), abs=5e-5)
    (step,) = (await get_velocity(database, ReportQuery(), StagePair("inquiry", "mql"))).groups[0].steps
    assert (step.n, step.mean_us, step.p50_us) == (3, 500_000, 0)


async def test_list_behind_a_figure_has_as_many_leads(database: Database, history: Any, apply: Apply) -> None:
    history.define()
    for number in range(113):
        industry = "541511" if number < 60 else "31" if number < 90 else None
        lead_id = history.capture(at=number, **({"industry": industry} if industry else {}))
        history.move(lead_id, "inquiry", number)
        history.move(lead_id, "mql", number)
        if number % 113 >= 50:
            history.move(lead_id, "sal", number)
        history.move(lead_id, "won", number)
    await apply(database, history.events)

    async def count(query: ReportQuery, limit: int = 500) -> list[int]:
        sizes, after = [], None
        for _ in range(10):
            page = await get_funnel_leads(database, query, "won", "reached", after=after, limit=limit)
            sizes.append(len(page.items))
            after = page.next
            if after is None:
                return sizes
        raise AssertionError("the list does not end")

    assert await count(ReportQuery(), limit=100) == [100, 13]
    assert await count(ReportQuery(order="strict")) == [63]
    by_industry = {"541511": 60, "31": 30, "": 23}
    for industry, leads in by_industry.items():
        query = ReportQuery(where=(parse_filter(f"industry={industry}"),))
        assert (await get_funnel(database, query)).funnel.leads == leads
        assert await count(query) == [leads]
    grouped = (await get_funnel(database, ReportQuery(by=parse_dimensions("industry")))).funnel
    assert [(group.key, group.leads) for group in grouped.groups] == [(("31",), 30), (("541511",), 60), ((None,), 23)]


def test_share_of_nothing_is_null_and_of_all_has_an_interval() -> None:
    stages = order_stages(1, [Stage("inquiry", 0, "open"), Stage("won", 1, "won")])
    (empty,) = compute_funnel(stages, [], ReportQuery()).groups
    assert [(c.reached, c.conversion_from_previous, c.interval_95) for c in empty.stages] == [(0, None, None)] * 2
    assert wilson(0, 5) == pytest.approx((0, 0.4345), abs=5e-5)
    assert wilson(5, 5) == pytest.approx((0.5655, 1), abs=5e-5)


def test_whole_is_computed_from_the_leads_and_not_from_the_groups_shares() -> None:
    stages = order_stages(1, [Stage("inquiry", 0, "open"), Stage("won", 1, "won")])
    tallies = [
        Tally((source,), StagePath(path), leads)
        for source, path, leads in (
            ("website", ("inquiry", "won"), 30),
            ("website", ("inquiry",), 70),
            ("partner", ("inquiry", "won"), 9),
            ("partner", ("inquiry",), 1),
        )
    ]
    query = ReportQuery(by=(parse_dimension("source", DIMENSION_NAMES),))
    shares = [group.stages[1].conversion_from_previous for group in compute_funnel(stages, tallies, query).groups]
    assert shares == [0.9, 0.3]
    (whole,) = compute_funnel(stages, [Tally((), t.path, t.leads) for t in tallies], ReportQuery()).groups
    assert whole.stages[1].conversion_from_previous == pytest.approx(39 / 110)
    assert whole.stages[1].interval_95 == pytest.approx((0.2714, 0.4475), abs=5e-5)


def test_median_of_the_whole_is_of_all_durations() -> None:
    website, partner = [day * DAY for day in (1, 2, 3)], [day * DAY for day in range(10, 80, 10)]
    medians = [measure_step("a", "b", Durations(found)).p50_us for found in (website, partner, website + partner)]
    assert medians == [2 * DAY, 40 * DAY, 25 * DAY]


async def test_entries_count_in_the_month_of_the_zone(database: Database, history: Any, apply: Apply) -> None:
    history.define()
    moments = [utc(2027, 3, 1, 5, 59, 59), utc(2027, 3, 1, 6), utc(2027, 4, 1, 4, 59, 59), utc(2027, 4, 1, 5)]
    for at in moments:
        hours = (at - history.time(0)) / timedelta(hours=1)
        history.move(history.capture(at=hours), "inquiry", hours)
    await apply(database, history.events)
    whole = Period(date(2027, 2, 1), date(2027, 5, 1))
    months = [month.bounds(CHICAGO) for month in split_period("month", whole)]
    assert months[1] == (utc(2027, 3, 1, 6), utc(2027, 4, 1, 5))
    counts = [
        (await get_funnel(database, ReportQuery(mode="period", since=since, until=until))).funnel.leads
        for since, until in months
    ]
    assert counts == [1, 2, 1]


def test_month_with_a_change_of_the_clock_is_one_period() -> None:
    month = find_period("month", date(2027, 3, 14))
    since, until = month.bounds(CHICAGO)
    assert (month.days, (until - since) / timedelta(hours=1)) == (31, 743)


def test_sunday_evening_is_still_in_its_week() -> None:
    week = find_period("week", to_day(utc(2027, 3, 1, 1, 30), CHICAGO))
    assert (week, week.days) == (Period(date(2027, 2, 22), date(2027, 3, 1)), 7)


def test_periods_split_a_whole_without_gap_or_overlap() -> None:
    whole = Period(date(2027, 1, 15), date(2028, 3, 2))
    for kind in ("week", "month", "quarter", "year"):
        parts = split_period(kind, whole)
        assert (parts[0].first, parts[-1].end) == (whole.first, whole.end)
        assert all(before.end == after.first for before, after in pairwise(parts))
        assert sum(part.days for part in parts) == whole.days


async def test_velocity_of_a_period_counts_the_leads_of_the_period(
    database: Database, history: Any, apply: Apply
) -> None:
    history.define()
    for day in range(11):
        lead_id = history.capture(at=24 * day)
        history.move(lead_id, "inquiry", 24 * day)
        history.move(lead_id, "mql", 24 * day - (1 if day == 0 else -1))
    await apply(database, history.events)
    query = ReportQuery(mode="period", since=utc(2027, 1, 5), until=utc(2027, 1, 6))
    velocity = await get_velocity(database, query, None)
    assert [group.leads for group in velocity.groups] == [1]
    assert (velocity.anomalies, (await get_funnel(database, query)).funnel.leads) == ({}, 1)


async def test_reassignment_leaves_past_conversions_with_their_owner(
    database: Database, history: Any, apply: Apply
) -> None:
    history.define()
    won, waiting = history.capture(), history.capture()
    for lead_id in (won, waiting):
        history.move(lead_id, "inquiry", 0)
        history.assign(lead_id, "ann", 1)
        history.move(lead_id, "sal", 24)
    history.move(won, "won", 48)
    for lead_id in (won, waiting):
        history.assign(lead_id, "bob", 24 * 40)
    await apply(database, history.interleave(history.random), batch=2)
    by_owner = parse_dimensions("owner")

    async def leads(query: ReportQuery) -> dict[Any, int]:
        return {group.key: group.leads for group in (await get_funnel(database, query)).funnel.groups}

    january = ReportQuery(mode="period", since=utc(2027, 1, 1), until=utc(2027, 2, 1), by=by_owner)
    assert await leads(january) == {("ann",): 2}
    assert await leads(ReportQuery(by=by_owner)) == {("ann",): 1, ("bob",): 1}
    assert await leads(ReportQuery(where=(parse_filter("owner=ann"),))) == {(): 1}
