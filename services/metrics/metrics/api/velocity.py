"""GET /v1/velocity and /v1/velocity/leads: how long steps take, and the leads behind each figure."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from accord.db import Database
from accord.http.csv_tables import csv_response, table_responses, wants_csv
from accord.http.paging import encode_cursor
from accord.http.problems import parameter_error
from metrics.api.cursors import decode_cursor_of, fingerprint
from metrics.api.definitions import Answer, Definition, GroupValues, build_definition, group_values, query_cells
from metrics.api.parameters import (
    Reader,
    VelocityLeadsParameters,
    VelocityLeadsQuery,
    VelocityParameters,
    build_query,
    parse_stage_pair,
    unknown_stage_at,
)
from metrics.domain.report_query import ReportQuery
from metrics.domain.velocity import Step, describe_velocity
from metrics.queries.velocity import LeadCursor, LeadStep
from metrics.usecases.reports import LeadPage, StagePair, VelocityReport, get_leads, get_velocity

_SECOND_US = 1_000_000


class StepOut(Answer):
    """One step; durations in seconds, null without observations."""

    from_: str = Field(alias="from")
    to: str | None = Field(description="Null: the time in the stage, whatever the next stage.")
    n: int = Field(description="Leads that finished the step.")
    waiting: int = Field(description="Leads still in it.")
    left: int = Field(description="Leads that left by another exit.")
    mean_s: float | None
    p50_s: float | None
    p75_s: float | None
    p90_s: float | None
    max_s: float | None
    km_median_s: float | None = Field(
        description="Kaplan-Meier median with waiting leads; null while fewer than half finished."
    )


class VelocityGroupOut(Answer):
    """The steps of one group of leads."""

    by: GroupValues
    leads: int
    steps: list[StepOut]


class VelocityOut(Answer):
    """Durations with their definition."""

    definition: Definition
    as_of: datetime | None
    groups: list[VelocityGroupOut]
    anomalies: dict[str, int]


class LeadStepOut(Answer):
    """One lead behind a figure."""

    lead_id: UUID
    by: GroupValues
    entered_at: datetime
    ended_at: datetime | None
    to: str | None = Field(
        description="The next stage, or the second of `between`, or the stage in which it rests without it."
    )
    state: Literal["done", "waiting", "left", "resting"]
    duration_s: float = Field(description="Until it ended, else until as_of.")


class LeadStepsOut(Answer):
    """A page of leads, longest first."""

    definition: Definition | None = None
    as_of: datetime | None
    items: list[LeadStepOut]
    next_cursor: str | None


def velocity_router(database: Database) -> APIRouter:
    """The velocity routes over this database."""
    router = APIRouter(prefix="/v1/velocity", tags=["velocity"])

    @router.get(
        "",
        summary="How long steps take",
        operation_id="velocity",
        response_model=VelocityOut,
        responses=table_responses(),
    )
    async def velocity(request: Request, parameters: VelocityParameters, caller: Reader) -> Any:
        query, between = build_query(parameters), parse_stage_pair(parameters.between)
        with unknown_stage_at("between"):
            report = await get_velocity(database, query, between)
        if wants_csv(request):
            return _to_csv(query, report)
        return _to_json(query, report, between)

    @router.get(
        "/leads",
        summary="The leads behind a figure, longest first",
        operation_id="velocity_leads",
        response_model=LeadStepsOut,
        responses=table_responses(),
    )
    async def leads(request: Request, parameters: VelocityLeadsParameters, caller: Reader) -> Any:
        query, where = build_query(parameters), _parse_where(parameters)
        query_id = fingerprint(query, where, parameters.state)
        with unknown_stage_at("between" if isinstance(where, StagePair) else "stage"):
            report = await get_leads(
                database,
                query,
                where,
                states=(parameters.state,) if parameters.state else (),
                after=decode_cursor_of(query_id, parameters.cursor, LeadCursor, datetime, int, UUID),
                limit=parameters.limit,
            )
        next_cursor = _next_cursor(report, query_id)
        if wants_csv(request):
            return _leads_to_csv(query, report, next_cursor)
        return _leads_to_json(query, report, next_cursor)

    return router


def _parse_where(parameters: VelocityLeadsQuery) -> str | StagePair:
    between = parse_stage_pair(parameters.between)
    if between is not None and parameters.stage is None:
        return between
    if between is None and parameters.stage:
        return parameters.stage
    raise parameter_error("stage", "or between must be given, and only one of them")


def _seconds(microseconds: float | None) -> float | None:
    return None if microseconds is None else microseconds / _SECOND_US


def _step_out(step: Step) -> StepOut:
    return StepOut(
        from_=step.from_,
        to=step.to,
        n=step.n,
        waiting=step.waiting,
        left=step.left,
        mean_s=_seconds(step.mean_us),
        p50_s=_seconds(step.p50_us),
        p75_s=_seconds(step.p75_us),
        p90_s=_seconds(step.p90_us),
        max_s=_seconds(step.max_us),
        km_median_s=_seconds(step.km_median_us),
    )


def _to_json(query: ReportQuery, report: VelocityReport, between: StagePair | None) -> VelocityOut:
    n = sum(group.leads for group in report.groups)
    words = describe_velocity(query, between=between is not None)
    return VelocityOut(
        definition=build_definition(query, report.stages, n, words, ordered=False),
        as_of=report.as_of,
        groups=[
            VelocityGroupOut(
                by=group_values(query, group.key), leads=group.leads, steps=[_step_out(step) for step in group.steps]
            )
            for group in report.groups
        ],
        anomalies=dict(report.anomalies),
    )


_STEP_COLUMNS = "from to n waiting left mean_s p50_s p75_s p90_s max_s km_median_s".split()


def _to_csv(query: ReportQuery, report: VelocityReport) -> Response:
    names, cells = query_cells(query, report.as_of)
    # "from" and "to" are stages here; the bounds of the period have other names.
    names = [f"period_{name}" if name in ("from", "to") else name for name in names]
    columns = [*(dimension.name for dimension in query.by), *_STEP_COLUMNS, *names]
    rows = (
        [*group.key, *_step_out(step).model_dump(by_alias=True).values(), *cells]
        for group in report.groups
        for step in group.steps
    )
    return csv_response("velocity", columns, rows)


def _next_cursor(report: LeadPage, query_id: str) -> str | None:
    if report.next is None:
        return None
    return encode_cursor(query_id, report.next.observed_until, report.next.duration_us, report.next.lead_id)


def _lead_step_out(query: ReportQuery, item: LeadStep) -> LeadStepOut:
    return LeadStepOut(
        lead_id=item.lead_id,
        by=group_values(query, item.group),
        entered_at=item.entered_at,
        ended_at=item.ended_at,
        to=item.to,
        state=item.state,
        duration_s=item.duration_us / _SECOND_US,
    )


def _leads_to_json(query: ReportQuery, report: LeadPage, next_cursor: str | None) -> LeadStepsOut:
    items = [_lead_step_out(query, item) for item in report.items]
    return LeadStepsOut(as_of=report.as_of, items=items, next_cursor=next_cursor)


def _leads_to_csv(query: ReportQuery, report: LeadPage, next_cursor: str | None) -> Response:
    columns = ["lead_id", *(step.name for step in query.by), *"entered_at ended_at to state duration_s as_of".split()]
    rows = (
        [str(i.lead_id), *i.group, i.entered_at, i.ended_at, i.to, i.state, i.duration_us / _SECOND_US, report.as_of]
        for i in report.items
    )
    return csv_response("velocity-leads", columns, rows, next_cursor)
