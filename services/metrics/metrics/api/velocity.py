"""GET /v1/velocity and /v1/velocity/leads: how long steps take, and the leads behind each figure."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from accord.db import Database
from accord.http.paging import decode_cursor, encode_cursor
from accord.http.problems import unfit_parameter
from metrics.api.csv_tables import csv_answer, wants_csv
from metrics.api.definitions import Answer, Definition, GroupValues, choice_cells, definition_of, group_values
from metrics.api.questions import (
    Reader,
    VelocityLeadsParameters,
    VelocityLeadsQuery,
    VelocityParameters,
    between_of,
    choices_of,
)
from metrics.domain.choices import Choices
from metrics.domain.velocity import Step, velocity_words
from metrics.queries.velocity import Cursor, LeadStep
from metrics.usecases.ask import Between, LeadsAnswer, UnknownStage, VelocityAnswer, ask_leads, ask_velocity

_SECOND_US = 1_000_000


class StepOut(Answer):
    """One step; durations in seconds, null where nothing was measured."""

    from_: str = Field(alias="from")
    to: str | None = Field(description="Null: the time in the stage, wherever the lead went on to.")
    n: int = Field(description="Leads that finished the step.")
    waiting: int = Field(description="Leads still in it.")
    left: int = Field(description="Leads that went another way.")
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
        description="The stage it went on to, or the second of `between`, or where it came to rest without it."
    )
    state: Literal["done", "waiting", "left", "resting"]
    duration_s: float = Field(description="Until it ended, else until as_of.")


class LeadStepsOut(Answer):
    """A page of leads, longest first."""

    definition: Definition | None = None
    as_of: datetime | None
    items: list[LeadStepOut]
    next_cursor: str | None


_CSV: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/csv": {"schema": {"type": "string"}}}},
}


def velocity_router(database: Database) -> APIRouter:
    """Velocity over this database."""
    router = APIRouter(prefix="/v1/velocity", tags=["velocity"])

    @router.get("", summary="How long steps take", operation_id="velocity", response_model=VelocityOut, responses=_CSV)
    async def velocity(request: Request, query: VelocityParameters, caller: Reader) -> Any:
        choices, between = choices_of(query), between_of(query.between)
        try:
            answer = await ask_velocity(database, choices, between)
        except UnknownStage as error:
            raise unfit_parameter(
                "between", f"names a stage that the definition in force does not have: {error}"
            ) from None
        if wants_csv(request):
            return _csv(choices, answer)
        return _json(choices, answer, between)

    @router.get(
        "/leads",
        summary="The leads behind a figure, longest first",
        operation_id="velocity_leads",
        response_model=LeadStepsOut,
        responses=_CSV,
    )
    async def leads(request: Request, query: VelocityLeadsParameters, caller: Reader) -> Any:
        choices, where = choices_of(query), _where(query)
        try:
            answer = await ask_leads(
                database,
                choices,
                where,
                states=(query.state,) if query.state else (),
                after=_after(query.cursor),
                limit=query.limit,
            )
        except UnknownStage as error:
            parameter = "between" if isinstance(where, Between) else "stage"
            raise unfit_parameter(
                parameter, f"names a stage that the definition in force does not have: {error}"
            ) from None
        return _leads_csv(choices, answer) if wants_csv(request) else _leads_json(choices, answer)

    return router


def _where(query: VelocityLeadsQuery) -> str | Between:
    between = between_of(query.between)
    if between is not None and query.stage is None:
        return between
    if between is None and query.stage:
        return query.stage
    raise unfit_parameter("stage", "or between must be given, and only one of them")


def _after(cursor: str | None) -> Cursor | None:
    place = decode_cursor(cursor, datetime, int, UUID)
    return None if place is None else Cursor(*place)


def _seconds(microseconds: float | None) -> float | None:
    return None if microseconds is None else microseconds / _SECOND_US


def _step(one: Step) -> StepOut:
    return StepOut(
        from_=one.from_,
        to=one.to,
        n=one.n,
        waiting=one.waiting,
        left=one.left,
        mean_s=_seconds(one.mean_us),
        p50_s=_seconds(one.p50_us),
        p75_s=_seconds(one.p75_us),
        p90_s=_seconds(one.p90_us),
        max_s=_seconds(one.max_us),
        km_median_s=_seconds(one.km_median_us),
    )


def _json(choices: Choices, answer: VelocityAnswer, between: Between | None) -> VelocityOut:
    n = sum(group.leads for group in answer.groups)
    words = velocity_words(choices, between=between is not None)
    return VelocityOut(
        definition=definition_of(choices, answer.stages, n, words, ordered=False),
        as_of=answer.as_of,
        groups=[
            VelocityGroupOut(
                by=group_values(choices, group.key), leads=group.leads, steps=[_step(one) for one in group.steps]
            )
            for group in answer.groups
        ],
        anomalies=dict(answer.anomalies),
    )


_STEP_COLUMNS = "from to n waiting left mean_s p50_s p75_s p90_s max_s km_median_s".split()


def _csv(choices: Choices, answer: VelocityAnswer) -> Response:
    names, cells = choice_cells(choices, answer.as_of)
    # "from" and "to" are stages here; the period's bounds get names of their own.
    names = [f"period_{name}" if name in ("from", "to") else name for name in names]
    columns = [*(dimension.name for dimension in choices.by), *_STEP_COLUMNS, *names]
    rows = (
        [*group.key, *_step(one).model_dump(by_alias=True).values(), *cells]
        for group in answer.groups
        for one in group.steps
    )
    return csv_answer("velocity", columns, rows)


def _next(answer: LeadsAnswer) -> str | None:
    if answer.next is None:
        return None
    return encode_cursor(answer.next.observed_until, answer.next.duration_us, answer.next.lead_id)


def _lead_step(choices: Choices, item: LeadStep) -> LeadStepOut:
    return LeadStepOut(
        lead_id=item.lead_id,
        by=group_values(choices, item.group),
        entered_at=item.entered_at,
        ended_at=item.ended_at,
        to=item.to,
        state=item.state,
        duration_s=item.duration_us / _SECOND_US,
    )


def _leads_json(choices: Choices, answer: LeadsAnswer) -> LeadStepsOut:
    items = [_lead_step(choices, item) for item in answer.items]
    return LeadStepsOut(as_of=answer.as_of, items=items, next_cursor=_next(answer))


def _leads_csv(choices: Choices, answer: LeadsAnswer) -> Response:
    columns = ["lead_id", *(one.name for one in choices.by), *"entered_at ended_at to state duration_s as_of".split()]
    rows = (
        [str(i.lead_id), *i.group, i.entered_at, i.ended_at, i.to, i.state, i.duration_us / _SECOND_US, answer.as_of]
        for i in answer.items
    )
    return csv_answer("velocity-leads", columns, rows, _next(answer))
