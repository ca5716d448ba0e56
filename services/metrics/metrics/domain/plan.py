"""The plan agreement: one set of targets for both departments. The shape of its content, and its validation.

Money and rates are decimals written as text, so that no reader rounds them to a binary fraction.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from itertools import pairwise
from typing import Annotated, Literal
from zoneinfo import available_timezones

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from accord.contracts.values import Day
from accord.terms.findings import Finding, find_shape_errors

_PERIOD_DAYS_MAX = 3660
_DECIMAL = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,9})?", re.ASCII)


def _parse_decimal(value: object) -> Decimal:
    if not isinstance(value, str):
        raise ValueError('must be a decimal written as text, such as "0.5"')
    if not _DECIMAL.fullmatch(value):
        raise ValueError('must be a decimal number, such as "0.5"')
    return Decimal(value)


def _check_zone(name: str) -> str:
    if name not in available_timezones():
        raise ValueError("is not an IANA time zone")
    return name


TextDecimal = Annotated[Decimal, BeforeValidator(_parse_decimal)]
Key = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
Share = Annotated[float, Field(gt=0, le=1)]
Per = Literal["month", "quarter", "year"]


class _PlanModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class PlanMoney(_PlanModel):
    """An amount above zero in a currency (ISO 4217 code)."""

    amount: Annotated[TextDecimal, Field(gt=0)]
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]


class PlanPeriod(_PlanModel):
    """First and last day, both included, in the time zone."""

    first: Annotated[Day, Field(alias="from", strict=False)]
    last: Annotated[Day, Field(alias="to", strict=False)]
    timezone: Annotated[str, AfterValidator(_check_zone)]


class PlanStage(_PlanModel):
    """One stage: the conversion from the stage before, and the days that it usually takes."""

    stage: Key
    conversion: Share | None = None
    days: Annotated[float, Field(ge=0, le=3660)] | None = None


class Override(_PlanModel):
    """The leads that a stage needs in a month, in place of those that follow from the revenue."""

    stage: Key
    month: Annotated[str, Field(pattern=r"^[0-9]{4}-(0[1-9]|1[0-2])$")]
    leads: Annotated[int, Field(ge=0, le=10**9)]


class SourceShare(_PlanModel):
    """The share of the leads at the top that a source brings."""

    source: Annotated[str, Field(min_length=1, max_length=100)]
    share: Share


class Measure(_PlanModel):
    """What is measured: entries into a stage, the conversion between two, or revenue in a stage. Exactly one."""

    entered: Key | None = None
    conversion: Annotated[list[Key], Field(min_length=2, max_length=2)] | None = None
    revenue: Key | None = None

    @property
    def stages(self) -> list[tuple[str, str]]:
        """The stages it names, each with its pointer inside the measure."""
        pair = [(f"/conversion/{index}", stage) for index, stage in enumerate(self.conversion or [])]
        return [
            (f"/{name}", stage) for name, stage in (("entered", self.entered), ("revenue", self.revenue)) if stage
        ] + pair


class Goal(_PlanModel):
    """A goal of one department or both. Without a target it follows from the funnel and the revenue."""

    key: Key
    department: Literal["marketing", "sales", "both"]
    measure: Measure
    per: Per
    target: Share | Annotated[int, Field(ge=1)] | TextDecimal | None = None


class Beneficiary(_PlanModel):
    """Who earns a reward: a department, or the owner of each lead."""

    department: Literal["marketing", "sales"] | None = None
    owner: Literal[True] | None = None


class RewardGate(_PlanModel):
    """The share of the goal below which nothing is paid."""

    goal: Key
    at_least: Annotated[float, Field(gt=0, le=10)]


class Accelerator(_PlanModel):
    """Another rate from this share of the target on."""

    from_: Annotated[float, Field(alias="from", gt=0, le=10)]
    rate: Annotated[TextDecimal, Field(gt=0, le=1)]


class Reward(_PlanModel):
    """A share of the measured revenue, from a gate on, up to a cap."""

    key: Key
    to: Beneficiary
    measure: Measure
    per: Per
    gate: RewardGate | None = None
    rate: Annotated[TextDecimal, Field(gt=0, le=1)]
    accelerators: Annotated[list[Accelerator], Field(max_length=20)] = []
    cap: PlanMoney | None = None


class Plan(_PlanModel):
    """The content of a plan."""

    kind: Literal["plan"]
    title: Annotated[str, Field(min_length=1, max_length=200)]
    glossary: Annotated[dict[str, str], Field(max_length=500)] = {}
    period: PlanPeriod
    revenue: PlanMoney
    average_deal: PlanMoney
    seasonality: Annotated[list[Annotated[float, Field(gt=0, le=1000)]], Field(min_length=12, max_length=12)] | None = (
        None
    )
    """How much each calendar month weighs, from January. Without it the year is even by days."""
    funnel: Annotated[list[PlanStage], Field(min_length=2, max_length=50)]
    overrides: Annotated[list[Override], Field(max_length=1000)] = []
    sources: Annotated[list[SourceShare], Field(max_length=200)] = []
    """Where the leads come from; without it the plan speaks of all sources together."""
    goals: Annotated[list[Goal], Field(max_length=100)] = []
    rewards: Annotated[list[Reward], Field(max_length=100)] = []


def parse_plan(content: Mapping[str, object]) -> Plan:
    """Parse a plan. Raises pydantic's ValidationError if the content is none."""
    return Plan.model_validate(content)


def validate_plan(content: Mapping[str, object]) -> list[Finding]:
    """Validate a plan by itself. An empty list means that it can be signed."""
    try:
        plan = parse_plan(content)
    except ValidationError as error:
        return find_shape_errors(error, content)
    return [
        *_check_period(plan),
        *_check_money(plan),
        *_check_funnel(plan),
        *_check_overrides(plan),
        *_check_sources(plan),
        *_check_goals(plan),
        *_check_rewards(plan),
    ]


def find_unknown_stages(plan: Plan, stages: Iterable[str]) -> list[Finding]:
    """Find stages of the plan's funnel that a definition lacks. These are warnings: definitions change apart from plans."""
    defined = set(stages)
    return [
        Finding(f"/funnel/{index}/stage", f"the definition in force has no stage {entry.stage}")
        for index, entry in enumerate(plan.funnel)
        if entry.stage not in defined
    ]


def _check_period(plan: Plan) -> Iterable[Finding]:
    days = (plan.period.last - plan.period.first).days
    if days < 0:
        yield Finding("/period/to", "must not be before from")
    elif days > _PERIOD_DAYS_MAX:
        yield Finding("/period/to", "must be within ten years of from")


def _check_money(plan: Plan) -> Iterable[Finding]:
    currency = plan.revenue.currency
    if plan.average_deal.currency != currency:
        yield Finding("/average_deal/currency", f"must be {currency}, as the revenue is")
    for index, reward in enumerate(plan.rewards):
        if reward.cap and reward.cap.currency != currency:
            yield Finding(f"/rewards/{index}/cap/currency", f"must be {currency}, as the revenue is")


def _check_funnel(plan: Plan) -> Iterable[Finding]:
    yield from _check_unique("/funnel", "stage", [entry.stage for entry in plan.funnel])
    for index, entry in enumerate(plan.funnel):
        if index == 0:
            for name, value in (("conversion", entry.conversion), ("days", entry.days)):
                if value is not None:
                    yield Finding(f"/funnel/0/{name}", "the first stage has no stage before it")
        else:
            for name, value in (("conversion", entry.conversion), ("days", entry.days)):
                if value is None:
                    yield Finding(f"/funnel/{index}/{name}", "is missing: every stage after the first needs it")


def _check_overrides(plan: Plan) -> Iterable[Finding]:
    stages = {entry.stage for entry in plan.funnel}
    first, last = f"{plan.period.first:%Y-%m}", f"{plan.period.last:%Y-%m}"
    seen = set()
    for index, override in enumerate(plan.overrides):
        if override.stage not in stages:
            yield Finding(f"/overrides/{index}/stage", f"the funnel has no stage {override.stage}")
        if not first <= override.month <= last:
            yield Finding(f"/overrides/{index}/month", "must be a month of the period")
        if (override.stage, override.month) in seen:
            yield Finding(f"/overrides/{index}", f"{override.stage} in {override.month} appears twice")
        seen.add((override.stage, override.month))


def _check_sources(plan: Plan) -> Iterable[Finding]:
    yield from _check_unique("/sources", "source", [entry.source for entry in plan.sources])
    shares = [Decimal(str(entry.share)) for entry in plan.sources]
    if shares and sum(shares) != 1:
        yield Finding("/sources", f"the shares must sum to 1, not {sum(shares)}")


def _check_goals(plan: Plan) -> Iterable[Finding]:
    yield from _check_unique("/goals", "key", [goal.key for goal in plan.goals])
    for index, goal in enumerate(plan.goals):
        yield from _check_measure(plan, f"/goals/{index}/measure", goal.measure)
        yield from _check_target(f"/goals/{index}/target", goal)


def _check_measure(plan: Plan, pointer: str, measure: Measure) -> Iterable[Finding]:
    if len([part for part in (measure.entered, measure.conversion, measure.revenue) if part is not None]) != 1:
        yield Finding(pointer, "must name exactly one of entered, conversion and revenue")
    stages = [entry.stage for entry in plan.funnel]
    for within, stage in measure.stages:
        if stage not in stages:
            yield Finding(pointer + within, f"the funnel has no stage {stage}")
    if measure.conversion and all(stage in stages for stage in measure.conversion):
        start, end = (stages.index(stage) for stage in measure.conversion)
        if start >= end:
            yield Finding(pointer + "/conversion", "must lead from a stage to a later one")


def _check_target(pointer: str, goal: Goal) -> Iterable[Finding]:
    target = goal.target
    if target is None:
        return
    if goal.measure.entered and not isinstance(target, int):
        yield Finding(pointer, "must be a whole number of entries")
    elif goal.measure.conversion and not (isinstance(target, float) or target == 1):
        yield Finding(pointer, "must be a share above 0 and up to 1")
    elif goal.measure.revenue and not (isinstance(target, Decimal) and target > 0):
        yield Finding(pointer, 'must be an amount written as text, such as "1250000"')


def _check_rewards(plan: Plan) -> Iterable[Finding]:
    yield from _check_unique("/rewards", "key", [reward.key for reward in plan.rewards])
    goals = {goal.key for goal in plan.goals}
    for index, reward in enumerate(plan.rewards):
        pointer = f"/rewards/{index}"
        if (reward.to.department is None) == (reward.to.owner is None):
            yield Finding(f"{pointer}/to", "must be exactly one of a department and the owner")
        yield from _check_measure(plan, f"{pointer}/measure", reward.measure)
        if reward.measure.revenue is None and reward.measure.stages:
            yield Finding(f"{pointer}/measure", "must be revenue: the rate is a share of an amount")
        if reward.gate and reward.gate.goal not in goals:
            yield Finding(f"{pointer}/gate/goal", f"there is no goal {reward.gate.goal}")
        for at, (before, after) in enumerate(pairwise(reward.accelerators), start=1):
            if after.from_ <= before.from_:
                yield Finding(f"{pointer}/accelerators/{at}/from", "must be above the one before it")


def _check_unique(pointer: str, name: str, keys: list[str]) -> Iterable[Finding]:
    for index, key in enumerate(keys):
        if key in keys[:index]:
            yield Finding(f"{pointer}/{index}/{name}", f"{key} appears twice")
