"""The reverse funnel: from the plan's revenue back to the leads that each stage needs, month by month.

Everything is carried as exact fractions and rounded once. The time after the plan is assumed to go on like the plan, so
that the leads due in it sum to what the plan needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from fractions import Fraction
from functools import cached_property
from itertools import accumulate
from math import ceil, floor

from msgspec import Struct

from metrics.domain.allocation import allocate
from metrics.domain.periods import Period, find_period, split_period
from metrics.domain.plan import Plan


class MonthNeed(Struct, frozen=True, gc=False):
    """The leads that are due in one month of the plan."""

    month: Period
    leads: int
    is_override: bool


class StageNeed(Struct, frozen=True, gc=False):
    """What one stage needs. `days_to_win` is how long before its win a lead is due in it."""

    stage: str
    exact: Fraction
    leads: int
    """`exact`, rounded up once. The months sum to it, unless one of them is an override."""
    days_to_win: Fraction
    months: tuple[MonthNeed, ...]
    due_before: int
    """Leads for wins of the plan that were due before its first day."""
    due_from: date | None
    """The first day on which one of those was due."""


class ReverseFunnel:
    """The needs of one plan. Positions in time are days from the plan's first day."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.whole = Period(plan.period.first, plan.period.last + timedelta(days=1))
        self.months = split_period("month", self.whole)
        self._weights = [self._weigh(month) for month in self.months]
        self._until = [Fraction(0), *accumulate(self._weights)]

    def _weigh(self, month: Period) -> Fraction:
        """Weigh a month: evenly by days, or by the plan's seasonality; an incomplete month by its days."""
        if self.plan.seasonality is None:
            return Fraction(month.days)
        weight = Fraction(str(self.plan.seasonality[month.first.month - 1]))
        return weight * month.days / find_period("month", month.first).days

    @cached_property
    def leads(self) -> Mapping[str, Fraction]:
        """The leads that each stage needs, from the first stage to the last."""
        needed = Fraction(self.plan.revenue.amount) / Fraction(self.plan.average_deal.amount)
        found = []
        for stage in reversed(self.plan.funnel):
            found.append((stage.stage, needed))
            needed /= Fraction(str(stage.conversion or 1))
        return dict(reversed(found))

    @cached_property
    def days_to_win(self) -> Mapping[str, Fraction]:
        """How many days before its win a lead is due in each stage."""
        days, found = Fraction(0), []
        for stage in reversed(self.plan.funnel):
            found.append((stage.stage, days))
            days += Fraction(str(stage.days or 0))
        return dict(reversed(found))

    def position(self, day: date) -> Fraction:
        return Fraction((day - self.whole.first).days)

    def cumulate(self, position: Fraction) -> Fraction:
        """The share of the plan's wins that are due before a position; the plan repeats itself before and after."""
        repeats = floor(position / self.whole.days)
        within = position - repeats * self.whole.days
        for index, month in enumerate(self.months):
            start = self.position(month.first)
            if within < start + month.days:
                done = self._until[index] + self._weights[index] * (within - start) / month.days
                return repeats + done / self._until[-1]
        raise AssertionError("a position within the plan is in one of its months")

    def share(self, stage: str, since: Fraction, until: Fraction) -> Fraction:
        """The share of a stage's leads that are due between two positions."""
        shift = self.days_to_win[stage]
        return self.cumulate(until + shift) - self.cumulate(since + shift)

    def month_shares(self, stage: str) -> list[Fraction]:
        """The share of a stage's leads that are due in each month; they sum to one."""
        bounds = [(self.position(month.first), self.position(month.end)) for month in self.months]
        return [self.share(stage, since, until) for since, until in bounds]

    @cached_property
    def needs(self) -> Mapping[str, StageNeed]:
        """What each stage needs, from the first stage to the last."""
        return {stage: self._measure_need(stage) for stage in self.leads}

    def _measure_need(self, stage: str) -> StageNeed:
        exact, shift = self.leads[stage], self.days_to_win[stage]
        overrides = {entry.month: entry.leads for entry in self.plan.overrides if entry.stage == stage}
        months = []
        for month, leads in zip(self.months, allocate(ceil(exact), self.month_shares(stage)), strict=True):
            override = overrides.get(f"{month.first:%Y-%m}")
            months.append(MonthNeed(month, leads if override is None else override, override is not None))
        return StageNeed(
            stage=stage,
            exact=exact,
            leads=ceil(exact),
            days_to_win=shift,
            months=tuple(months),
            due_before=ceil(exact * self.cumulate(min(shift, Fraction(self.whole.days)))),
            due_from=due_day(self.whole.first, shift) if shift else None,
        )


def due_day(win: date, days_to_win: Fraction) -> date:
    """The day on which a lead is due in a stage, to be won on a day."""
    return win - timedelta(days=ceil(days_to_win))
