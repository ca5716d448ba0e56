"""Renders the plan in plain words, for the page that both departments read before they sign."""

from __future__ import annotations

import calendar
from collections.abc import Sequence
from decimal import Decimal

from msgspec import Struct

from metrics.domain.plan import Goal, Measure, Plan, PlanMoney, PlanStage, Reward

_PER = {"month": "each month", "quarter": "each quarter", "year": "each year"}


class PaperPart(Struct, frozen=True, gc=False):
    """One part of the page: sentences, then a table whose first row is its head."""

    heading: str
    paragraphs: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()


def render_plan(plan: Plan) -> list[PaperPart]:
    """Render the whole plan, part by part."""
    parts = [
        PaperPart(
            "What we aim for",
            [_describe_aim(plan)],
        ),
        PaperPart(
            "From revenue back to leads",
            ["Of the leads in each stage, this share gets to the next, in about this many days."],
            [
                ("Stage", "Share of the stage before", "Days from the stage before"),
                *(_funnel_row(s) for s in plan.funnel),
            ],
        ),
    ]
    if plan.seasonality:
        parts.append(
            PaperPart(
                "Seasons",
                ["The plan's months weigh differently: this is the weight of each, beside one another."],
                [("Month", "Weight"), *zip(calendar.month_name[1:], (f"{w:g}" for w in plan.seasonality), strict=True)],
            )
        )
    if plan.overrides:
        rows = [(entry.stage, entry.month, f"{entry.leads:,}") for entry in plan.overrides]
        parts.append(PaperPart("Months that we set ourselves", rows=[("Stage", "Month", "Leads needed"), *rows]))
    if plan.sources:
        shares = [(entry.source, _format_percent(entry.share)) for entry in plan.sources]
        parts.append(PaperPart("Where leads come from", rows=[("Source", "Share of the leads"), *shares]))
    if plan.goals:
        parts.append(
            PaperPart(
                "Goals", rows=[("Goal", "Owed by", "What", "How often", "Target"), *(_goal_row(g) for g in plan.goals)]
            )
        )
    if plan.rewards:
        parts.append(PaperPart("Rewards", [_describe_reward(reward) for reward in plan.rewards]))
    return parts


def _describe_aim(plan: Plan) -> str:
    return (
        f"From {plan.period.first:%d %B %Y} to {plan.period.last:%d %B %Y} ({plan.period.timezone}) "
        f"we want to earn {_format_money(plan.revenue)}, with deals of {_format_money(plan.average_deal)} on average."
    )


def _format_money(money: PlanMoney) -> str:
    return f"{money.amount:,f} {money.currency}"


def _format_percent(share: float | Decimal) -> str:
    return f"{(Decimal(str(share)) * 100).normalize():f} %"


def _funnel_row(stage: PlanStage) -> tuple[str, str, str]:
    conversion = "" if stage.conversion is None else _format_percent(stage.conversion)
    return stage.stage, conversion, "" if stage.days is None else f"{stage.days:g}"


def _describe_measure(measure: Measure) -> str:
    if measure.entered:
        return f"leads that enter {measure.entered}"
    if measure.conversion:
        return f"share of leads in {measure.conversion[0]} that get to {measure.conversion[1]}"
    return f"revenue in {measure.revenue}"


def _goal_row(goal: Goal) -> tuple[str, str, str, str, str]:
    owed_by = "marketing and sales" if goal.department == "both" else goal.department
    return goal.key, owed_by, _describe_measure(goal.measure), _PER[goal.per], _format_target(goal)


def _format_target(goal: Goal) -> str:
    if goal.target is None:
        return "as the funnel and the revenue above need it"
    if isinstance(goal.target, Decimal):
        return f"{goal.target:,f}"
    return _format_percent(goal.target) if goal.measure.conversion else f"{goal.target:,}"


def _describe_reward(reward: Reward) -> str:
    who = f"the {reward.to.department} department" if reward.to.department else "the owner of each lead"
    sentences = [
        f"{reward.key}: {who} earns {_format_percent(reward.rate)} of {_describe_measure(reward.measure)}, {_PER[reward.per]}."
    ]
    if reward.gate:
        sentences.append(
            f"Nothing is paid below {_format_percent(reward.gate.at_least)} of the goal {reward.gate.goal}."
        )
    sentences += [
        f"From {_format_percent(step.from_)} of the target on it is {_format_percent(step.rate)}."
        for step in reward.accelerators
    ]
    if reward.cap:
        sentences.append(f"At most {_format_money(reward.cap)}.")
    return " ".join(sentences)
