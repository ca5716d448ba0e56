"""Progress against the plan's goals: what was reached, what was expected by now, and where this pace leads. Pure.

Figures are exact fractions; whoever shows them rounds. Periods and days are those of the plan's time zone.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from fractions import Fraction
from typing import Literal
from zoneinfo import ZoneInfo

from msgspec import Struct

from metrics.domain.allocation import allocate
from metrics.domain.money import minor_units
from metrics.domain.periods import Period, find_period, split_period, to_day, to_moment
from metrics.domain.plan import Goal
from metrics.domain.reverse_funnel import ReverseFunnel

Status = Literal["reached", "missed", "on_track", "at_risk", "unknown"]


class Target(Struct, frozen=True, gc=False):
    """What a goal asks for in one of its periods."""

    goal: Goal
    period: Period
    """The days of the period that the plan covers."""
    value: Fraction
    parts: tuple[tuple[Period, Fraction], ...]
    """The value by month, in order. A share of leads has none: it does not add up over time."""


class Progress(Struct, frozen=True, gc=False):
    """One goal in one period. `actual` is None where nothing can be measured yet, the others where they depend on it."""

    target: Target
    actual: Fraction | None
    expected: Fraction
    pace: Fraction | None
    """`actual` as a share of `expected`."""
    projection: Fraction | None
    """What the period ends with, if the pace stays."""
    status: Status


def find_targets(funnel: ReverseFunnel, goal: Goal, day: date) -> list[Target]:
    """Find what a goal asks for in the period before a day's, if the plan has one, and in the day's own.

    Before the plan its first day counts, after it the last.
    """
    whole = funnel.whole
    day = min(max(day, whole.first), whole.end - timedelta(days=1))
    before = find_period(goal.per, day).first - timedelta(days=1)
    return [_find_target(funnel, goal, each) for each in (before, day) if each >= whole.first]


def _find_target(funnel: ReverseFunnel, goal: Goal, day: date) -> Target:
    named = find_period(goal.per, day)
    period = Period(max(named.first, funnel.whole.first), min(named.end, funnel.whole.end))
    if goal.measure.conversion:
        value = _plan_conversion(funnel, *goal.measure.conversion)
        return Target(goal, period, value if goal.target is None else Fraction(str(goal.target)), ())
    stage = goal.measure.stages[0][1]
    if goal.target is None:
        months = dict(_plan_months(funnel, goal, stage))
        parts = tuple((month, months[month]) for month in months if period.first <= month.first < period.end)
        return Target(goal, period, sum((value for _, value in parts), Fraction(0)), parts)
    value = Fraction(goal.target)
    shares = _share_by_month(funnel, stage, period)
    whole = sum((share for _, share in shares), Fraction(0))
    return Target(goal, period, value, tuple((month, value * share / whole) for month, share in shares))


def _plan_conversion(funnel: ReverseFunnel, start: str, end: str) -> Fraction:
    return funnel.leads[end] / funnel.leads[start]


def _plan_months(funnel: ReverseFunnel, goal: Goal, stage: str) -> list[tuple[Period, Fraction]]:
    """What follows from revenue and funnel for each month: leads, or revenue in the currency's minor units."""
    if goal.measure.entered:
        return [(need.month, Fraction(need.leads)) for need in funnel.needs[stage].months]
    units = minor_units(funnel.plan.revenue.currency)
    # The revenue in a stage is that of its leads, if each were an average deal.
    revenue = funnel.leads[stage] * Fraction(funnel.plan.average_deal.amount)
    parts = allocate(round(revenue * units), funnel.month_shares(stage))
    return [(month, Fraction(part, units)) for month, part in zip(funnel.months, parts, strict=True)]


def _share_by_month(funnel: ReverseFunnel, stage: str, period: Period) -> list[tuple[Period, Fraction]]:
    months = split_period("month", period)
    return [(m, funnel.share(stage, funnel.position(m.first), funnel.position(m.end))) for m in months]


def expect_by(funnel: ReverseFunnel, target: Target, at: datetime) -> Fraction:
    """What is expected by a moment: whole months that are over, and of the present one the share that is due by then."""
    if not target.parts:
        return target.value
    stage = target.goal.measure.stages[0][1]
    now = _locate(funnel, at)
    expected = Fraction(0)
    for month, value in target.parts:
        start, end = funnel.position(month.first), funnel.position(month.end)
        due = funnel.share(stage, start, end)
        elapsed = funnel.share(stage, start, min(max(now, start), end))
        expected += value * (elapsed / due)
    return expected


def _locate(funnel: ReverseFunnel, at: datetime) -> Fraction:
    """The position of a moment: whole days of the plan's zone, and the share of the day that has passed."""
    zone = ZoneInfo(funnel.plan.period.timezone)
    day = to_day(at, zone)
    begins, ends = to_moment(day, zone), to_moment(day + timedelta(days=1), zone)
    return funnel.position(day) + Fraction((at - begins) // _MICROSECOND, (ends - begins) // _MICROSECOND)


_MICROSECOND = timedelta(microseconds=1)

STATUS_DESCRIPTION = (
    "Over: reached if actual is at least target, else missed. Running: on_track if the projection is at least target, "
    "else at_risk. Unknown: nothing to measure yet."
)


def measure_progress(funnel: ReverseFunnel, target: Target, actual: Fraction | None, at: datetime) -> Progress:
    """Measure one goal at a moment. A share is compared as it is: it has no pace of time, so it projects itself."""
    expected = expect_by(funnel, target, at)
    pace = None if actual is None or expected == 0 else actual / expected
    projection = pace if pace is None else pace * target.value
    is_over = at >= to_moment(target.period.end, ZoneInfo(funnel.plan.period.timezone))
    return Progress(
        target, actual, expected, pace, projection, _evaluate_status(target.value, actual, projection, is_over)
    )


def _evaluate_status(target: Fraction, actual: Fraction | None, projection: Fraction | None, is_over: bool) -> Status:
    measured = actual if is_over else projection
    if measured is None:
        return "unknown"
    if is_over:
        return "reached" if measured >= target else "missed"
    return "on_track" if measured >= target else "at_risk"


def describe_goal(goal: Goal, currency: str) -> list[str]:
    """Describe how a goal's figures come about, in plain sentences."""
    measure = goal.measure
    if measure.conversion:
        start, end = measure.conversion
        words = [
            f"Divided by: leads whose first entry into {start} is dated in the period.",
            f"Actual: the share of them that entered {end}, or a later stage of the plan, afterwards and until now.",
        ]
    elif measure.entered:
        words = [f"Actual: leads whose first entry into {measure.entered} is dated in the period."]
    else:
        words = [
            f"Actual: amounts in {currency} of leads whose last entry into {measure.revenue} is dated in the period.",
            "A win that was undone does not count. Other currencies and leads without an amount stand beside it.",
        ]
    if goal.target is not None:
        words.append("Target: as agreed for each period, whole also where the plan covers only a part of it.")
    elif measure.conversion:
        words.append("Target: the product of the plan's conversions between the two stages.")
    else:
        words += [
            "Target: what the plan's revenue needs in these months; leads are due the cycle's days before their win.",
            "The time after the plan is assumed to go on like the plan.",
        ]
    if not measure.conversion:
        words.append("Expected: the months that are over, and of this one the share that is due by now.")
    return [*words, "Merged leads do not count; the surviving lead does."]
