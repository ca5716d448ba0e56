"""Progress: what is expected by now, the pace, and what it leads to. Over HTTP with a signed plan, and as pure functions."""

from collections.abc import Callable
from datetime import date
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.metrics.plans import plan_content

from accord.agreements import AgreementStore
from accord.contracts.values import utc
from accord.db import Database
from metrics.domain.money import round_decimal
from metrics.domain.periods import to_moment
from metrics.domain.plan import parse_plan, validate_plan
from metrics.domain.progress import Target, expect_by, find_targets, measure_progress
from metrics.domain.reverse_funnel import ReverseFunnel
from metrics.usecases.plan_agreement import PLAN
from metrics.usecases.plan_progress import NoPlan, get_progress

CHICAGO = ZoneInfo("America/Chicago")


def funnel(year: int = 2027, **changes: Any) -> ReverseFunnel:
    document = plan_content(year, **changes)
    assert validate_plan(document) == []
    return ReverseFunnel(parse_plan(document))


def target(of: ReverseFunnel, key: str, day: date) -> Target:
    (goal,) = [goal for goal in of.plan.goals if goal.key == key]
    return find_targets(of, goal, day)[-1]


def test_expected_by_now_counts_the_days_of_its_own_month() -> None:
    leap = funnel(2028)
    february = target(leap, "mqls", date(2028, 2, 15))
    assert (february.value, february.period.days) == (290, 29)
    assert expect_by(leap, february, to_moment(date(2028, 2, 15), CHICAGO)) == 140
    assert expect_by(leap, february, to_moment(date(2028, 3, 1), CHICAGO)) == 290
    assert expect_by(leap, february, to_moment(date(2028, 2, 1), CHICAGO)) == 0


def test_day_with_a_change_of_the_clock_is_one_day() -> None:
    plan = funnel()
    march = target(plan, "mqls", date(2027, 3, 14))
    noon = expect_by(plan, march, utc(2027, 3, 14, 17, 30))
    assert noon == Fraction(290, 31) * (13 + Fraction(23, 2) / 23)


@pytest.mark.parametrize("key", ["leads", "revenue"])
def test_targets_of_the_periods_sum_to_what_the_plan_needs(key: str) -> None:
    plan = funnel(revenue={"amount": "1000000.01", "currency": "USD"})
    targets = {found.period.first: found.value for m in range(1, 13) for found in [target(plan, key, date(2027, m, 9))]}
    if key == "leads":
        assert sum(targets.values()) == plan.needs["inquiry"].leads == 1_600 + 1
    else:
        assert sum(targets.values()) == Fraction("1000000.01")


def test_conversion_without_a_target_is_the_plans() -> None:
    assert target(funnel(), "accept", date(2027, 5, 1)).value == Fraction(1, 2)


def test_override_is_the_target_of_its_month() -> None:
    plan = funnel(overrides=[{"stage": "inquiry", "month": "2027-03", "leads": 1000}])
    march = target(plan, "leads", date(2027, 3, 1))
    assert march.value == 1000
    assert expect_by(plan, march, to_moment(date(2027, 4, 1), CHICAGO)) == 1000


def test_goal_shows_the_period_before_and_its_own() -> None:
    plan = funnel()
    periods = {
        day: [found.period.first for found in find_targets(plan, plan.plan.goals[0], day)]
        for day in (date(2026, 5, 1), date(2027, 1, 31), date(2027, 2, 1), date(2028, 2, 1))
    }
    assert list(periods.values()) == [
        [date(2027, 1, 1)],
        [date(2027, 1, 1)],
        [date(2027, 1, 1), date(2027, 2, 1)],
        [date(2027, 11, 1), date(2027, 12, 1)],
    ]


@pytest.mark.parametrize(
    ("actual", "at", "status", "projection"),
    [
        (0, to_moment(date(2028, 2, 1), CHICAGO), "unknown", None),
        (140, to_moment(date(2028, 2, 15), CHICAGO), "on_track", 290),
        (139, to_moment(date(2028, 2, 15), CHICAGO), "at_risk", Fraction(139 * 29, 14)),
        (290, to_moment(date(2028, 3, 1), CHICAGO), "reached", 290),
        (289, to_moment(date(2028, 3, 1), CHICAGO), "missed", 289),
    ],
)
def test_status_follows_its_rule(actual: int, at: Any, status: str, projection: Fraction | None) -> None:
    plan = funnel(2028)
    found = measure_progress(plan, target(plan, "mqls", date(2028, 2, 10)), Fraction(actual), at)
    assert (found.status, found.projection) == (status, projection)


@given(
    st.dates(date(2027, 1, 1), date(2027, 12, 31)),
    st.integers(0, 86_399),
    st.sampled_from(["mqls", "leads", "revenue"]),
)
def test_expected_grows_from_nothing_to_the_target(day: date, second: int, key: str) -> None:
    plan = funnel(seasonality=[float(month) for month in range(1, 13)])
    found = target(plan, key, day)
    begins, ends = found.period.bounds(CHICAGO)
    at = begins + (ends - begins) * second / 86_400
    assert expect_by(plan, found, begins) == 0
    assert expect_by(plan, found, ends) == found.value
    assert 0 <= expect_by(plan, found, at) <= found.value


def test_money_is_rounded_to_what_the_currency_has() -> None:
    assert [str(round_decimal(Fraction(1, 8), places)) for places in (0, 2, 3)] == ["0", "0.12", "0.125"]
    assert str(round_decimal(Fraction(-5, 2), 0)) == "-2"


async def test_progress_without_a_plan_raises(database: Database) -> None:
    with pytest.raises(NoPlan):
        await get_progress(database, AgreementStore(database, PLAN), None)


async def test_progress_measures_what_happened_in_the_plans_zone(
    database: Database, history: Any, apply: Callable[..., Any], sign_plan: Callable[..., Any]
) -> None:
    history.define()
    before_midnight, after_midnight = 24 * 31 + 5.99, 24 * 31 + 6
    won = []
    for at in (before_midnight, after_midnight, after_midnight + 1):
        lead_id = history.capture(at=at)
        history.move(lead_id, "inquiry", at)
        history.move(lead_id, "mql", at)
        won.append(lead_id)
    history.move(won[1], "sal", 24 * 40)
    for lead_id, amount in zip(won, ("24000.00", "26000.00", None), strict=True):
        history.move(lead_id, "won", 24 * 41)
        if amount:
            history.deal(lead_id, 24 * 41, amount)
    history.move(won[0], "sal", 24 * 42)
    await apply(database, history.interleave(history.random), batch=3)
    plans = await sign_plan(database)
    report = await get_progress(database, plans, utc(2027, 2, 15, 6))
    found = {
        (goal.progress.target.goal.key, goal.progress.target.period.first.month): (
            goal.progress.actual,
            goal.leads,
            goal.progress.status,
        )
        for goal in report.goals
    }
    assert found == {
        ("mqls", 1): (1, 1, "missed"),
        ("mqls", 2): (2, 2, "at_risk"),
        ("leads", 1): (1, 1, "missed"),
        ("leads", 2): (2, 2, "at_risk"),
        ("accept", 1): (1, 3, "on_track"),
        ("revenue", 1): (26_000, 1, "at_risk"),
    }
    revenue = next(goal for goal in report.goals if goal.progress.target.goal.key == "revenue")
    assert [(part.currency, part.leads, part.amount) for part in revenue.revenue] == [
        ("USD", 1, 26_000),
        (None, 1, None),
    ]
