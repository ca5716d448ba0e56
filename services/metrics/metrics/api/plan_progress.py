"""GET /v1/plan/needs and /v1/plan/progress: what the plan needs month by month, and how far its goals are."""

from __future__ import annotations

from datetime import date, datetime
from fractions import Fraction
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from accord.agreements import AgreementStore
from accord.contracts.values import DecimalText, Money
from accord.db import Database
from accord.http.csv_tables import Cell, csv_response, table_responses, wants_csv
from accord.http.openapi import problems
from accord.http.problems import not_found
from metrics.api.definitions import Answer
from metrics.api.parameters import Moment, Reader, parse_moment
from metrics.domain.money import decimal_places, round_decimal
from metrics.domain.plan import Goal
from metrics.domain.progress import STATUS_DESCRIPTION, Status, describe_goal
from metrics.usecases.plan_progress import (
    GoalProgress,
    NoPlan,
    PlanInForce,
    ProgressReport,
    get_plan,
    get_progress,
)

_SHARE_PLACES = 4
_LEAD_PLACES = 2

NEEDS_WORDS = [
    "The wins are revenue / average deal; each stage before needs the leads after it / their conversion.",
    "A stage's leads are rounded up once, at the end.",
    "A lead is due in a stage as many days before its win as the cycle takes from there.",
    "Months are split by largest remainder and sum to the stage's leads; an override of the plan stands as it is.",
    "The time after the plan is assumed to go on like the plan.",
    "due_before: leads for wins of the plan that were due before its first day.",
]


class PlanRef(Answer):
    """The plan that the figures are of."""

    version: int
    from_: date = Field(alias="from")
    to: date = Field(description="The last day, included.")
    timezone: str


class MonthNeedOut(Answer):
    """The leads that are due in a stage in a month."""

    month: str
    leads: int
    is_override: bool


class StageNeedOut(Answer):
    """What one stage needs."""

    stage: str
    exact: DecimalText = Field(description="Before it is rounded, to two places.")
    leads: int
    days_to_win: DecimalText
    due_before: int = Field(description="Leads for wins of the plan that were due before its first day.")
    due_from: date | None = Field(description="When the first of those was due.")
    months: list[MonthNeedOut]


class NeedsOut(Answer):
    """What the plan needs."""

    plan: PlanRef
    words: list[str]
    stages: list[StageNeedOut]


class MeasureOut(Answer):
    """What is measured; exactly one of them."""

    entered: str | None = None
    conversion: list[str] | None = None
    revenue: str | None = None


class GoalProgressOut(Answer):
    """One goal in one of its periods. Figures are decimals, in `unit`."""

    goal: str
    department: Literal["marketing", "sales", "both"]
    measure: MeasureOut
    per: Literal["month", "quarter", "year"]
    from_: datetime = Field(alias="from")
    to: datetime = Field(description="The end of the period, not included.")
    unit: str = Field(description="`leads`, `share`, or the currency.")
    target: DecimalText
    actual: DecimalText | None = Field(description="Null where there is nothing to measure yet.")
    expected: DecimalText = Field(description="Expected by the moment.")
    pace: DecimalText | None = Field(description="actual / expected; null while nothing is expected.")
    projection: DecimalText | None = Field(description="What the period ends with, if the pace stays.")
    status: Status
    leads: int = Field(description="Leads behind the actual figure; of a conversion those that it divides by.")
    other_currencies: list[Money] = Field(description="Revenue in other currencies. It is not added.")
    without_amount: int = Field(description="Leads that count for revenue, of which no amount is known.")
    words: list[str]


class ProgressOut(Answer):
    """The goals of both departments."""

    plan: PlanRef
    at: datetime
    as_of: datetime | None = Field(description="Everything recorded before this has been read.")
    status_rule: str
    goals: list[GoalProgressOut] = Field(
        description="Of each goal the period before, if the plan has one, and the period of the moment."
    )


class ProgressQuery(BaseModel):
    """Query of a progress."""

    model_config = ConfigDict(extra="forbid")

    at: Moment = Field(
        default=None,
        description="A day (its midnight in the plan's zone) or a moment with offset. Default: as of the watermark. "
        "History is told as it is known by now.",
    )


_PLAN_EXAMPLE = {"version": 1, "from": "2027-01-01", "to": "2027-12-31", "timezone": "America/Chicago"}
_NEEDS_EXAMPLE = {
    "plan": _PLAN_EXAMPLE,
    "words": NEEDS_WORDS,
    "stages": [
        {
            "stage": "inquiry",
            "exact": "12698.41",
            "leads": 12699,
            "days_to_win": "73",
            "due_before": 2540,
            "due_from": "2026-10-20",
            "months": [{"month": "2027-01", "leads": 1079, "is_override": False}],
        }
    ],
}
_PROGRESS_EXAMPLE = {
    "plan": _PLAN_EXAMPLE,
    "at": "2027-02-15T06:00:00Z",
    "as_of": "2027-02-15T06:00:00Z",
    "status_rule": STATUS_DESCRIPTION,
    "goals": [
        {
            "goal": "mqls",
            "department": "marketing",
            "measure": {"entered": "mql", "conversion": None, "revenue": None},
            "per": "month",
            "from": "2027-02-01T06:00:00Z",
            "to": "2027-03-01T06:00:00Z",
            "unit": "leads",
            "target": "244",
            "actual": "110",
            "expected": "122.00",
            "pace": "0.9016",
            "projection": "220.00",
            "status": "at_risk",
            "leads": 110,
            "other_currencies": [],
            "without_amount": 0,
            "words": ["Actual: leads whose first entry into mql is dated in the period."],
        }
    ],
}


def plan_progress_router(database: Database, plans: AgreementStore) -> APIRouter:
    """The routes of the plan's needs and progress over this database."""
    router = APIRouter(prefix="/v1/plan", tags=["plan"])

    @router.get(
        "/needs",
        summary="The leads that the plan needs, by stage and month",
        operation_id="plan_needs",
        response_model=NeedsOut,
        responses={**table_responses(_NEEDS_EXAMPLE), **problems(404)},
    )
    async def needs(request: Request, caller: Reader) -> Any:
        try:
            in_force = await get_plan(database, plans)
        except NoPlan:
            raise not_found("plan in force") from None
        return _needs_to_csv(in_force) if wants_csv(request) else _needs_to_json(in_force)

    @router.get(
        "/progress",
        summary="How far the goals of both departments are",
        operation_id="plan_progress",
        response_model=ProgressOut,
        responses={**table_responses(_PROGRESS_EXAMPLE), **problems(404)},
    )
    async def progress(request: Request, parameters: Annotated[ProgressQuery, Query()], caller: Reader) -> Any:
        try:
            zone = (await get_plan(database, plans)).plan.period.timezone
            report = await get_progress(database, plans, parse_moment("at", parameters.at, zone))
        except NoPlan:
            raise not_found("plan in force") from None
        return _progress_to_csv(report) if wants_csv(request) else _progress_to_json(report)

    return router


def describe_plan(in_force: PlanInForce) -> PlanRef:
    """Which plan the figures are of."""
    period = in_force.plan.period
    return PlanRef(version=in_force.version, from_=period.first, to=period.last, timezone=period.timezone)


def _decimal(value: Fraction, places: int) -> DecimalText:
    return DecimalText(round_decimal(value, places))


def _needs_to_json(in_force: PlanInForce) -> NeedsOut:
    stages = [
        StageNeedOut(
            stage=need.stage,
            exact=_decimal(need.exact, _LEAD_PLACES),
            leads=need.leads,
            days_to_win=_plain(need.days_to_win),
            due_before=need.due_before,
            due_from=need.due_from,
            months=[
                MonthNeedOut(month=f"{month.month.first:%Y-%m}", leads=month.leads, is_override=month.is_override)
                for month in need.months
            ],
        )
        for need in in_force.funnel.needs.values()
    ]
    return NeedsOut(plan=describe_plan(in_force), words=NEEDS_WORDS, stages=stages)


def _plain(value: Fraction) -> DecimalText:
    """A number of days as it was written: whole, or to two places."""
    return DecimalText(int(value)) if value.denominator == 1 else _decimal(value, _LEAD_PLACES)


def _needs_to_csv(in_force: PlanInForce) -> Response:
    columns = "stage month leads is_override stage_leads days_to_win plan_version timezone".split()
    rows: list[list[Cell]] = [
        [
            *(need.stage, f"{month.month.first:%Y-%m}", month.leads, month.is_override),
            *(need.leads, float(need.days_to_win), in_force.version, in_force.plan.period.timezone),
        ]
        for need in in_force.funnel.needs.values()
        for month in need.months
    ]
    return csv_response("plan-needs", columns, rows)


def _unit(goal: Goal, currency: str) -> tuple[str, int, int]:
    """The unit of a goal's figures, and the places of its target and of what is computed."""
    if goal.measure.entered:
        return "leads", 0, _LEAD_PLACES
    if goal.measure.conversion:
        return "share", _SHARE_PLACES, _SHARE_PLACES
    places = decimal_places(currency)
    return currency, places, places


def _goal_out(report: ProgressReport, found: GoalProgress) -> GoalProgressOut:
    currency = report.in_force.plan.revenue.currency
    progress, goal = found.progress, found.progress.target.goal
    unit, target_places, places = _unit(goal, currency)
    return GoalProgressOut(
        goal=goal.key,
        department=goal.department,
        measure=MeasureOut.model_validate(goal.measure.model_dump()),
        per=goal.per,
        from_=found.since,
        to=found.end,
        unit=unit,
        target=_decimal(progress.target.value, target_places),
        actual=None if progress.actual is None else _decimal(progress.actual, target_places),
        expected=_decimal(progress.expected, places),
        pace=None if progress.pace is None else _decimal(progress.pace, _SHARE_PLACES),
        projection=None if progress.projection is None else _decimal(progress.projection, places),
        status=progress.status,
        leads=found.leads,
        other_currencies=[
            Money(amount=DecimalText(revenue.amount or 0), currency=revenue.currency)
            for revenue in found.revenue
            if revenue.currency not in (None, currency)
        ],
        without_amount=sum(revenue.leads for revenue in found.revenue if revenue.currency is None),
        words=describe_goal(goal, currency),
    )


def _progress_to_json(report: ProgressReport) -> ProgressOut:
    return ProgressOut(
        plan=describe_plan(report.in_force),
        at=report.at,
        as_of=report.as_of,
        status_rule=STATUS_DESCRIPTION,
        goals=[_goal_out(report, found) for found in report.goals],
    )


_COLUMNS = "goal department per from to unit target actual expected pace projection status leads at as_of".split()


def _progress_to_csv(report: ProgressReport) -> Response:
    rows: list[list[Cell]] = []
    for found in report.goals:
        out = _goal_out(report, found)
        figures = (out.target, out.actual, out.expected, out.pace, out.projection)
        rows.append(
            [
                *(out.goal, out.department, out.per, out.from_, out.to, out.unit),
                *(None if figure is None else str(figure) for figure in figures),
                *(out.status, out.leads, report.at, report.as_of),
            ]
        )
    return csv_response("plan-progress", _COLUMNS, rows)
