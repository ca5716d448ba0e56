"""GET /v1/funnel: how many leads got how far."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from accord.contracts.values import StageKind
from accord.db import Database
from metrics.api.csv_tables import Cell, csv_answer, wants_csv
from metrics.api.definitions import Answer, Definition, GroupValues, choice_cells, definition_of, group_values
from metrics.api.questions import FunnelParameters, Reader, choices_of
from metrics.domain.choices import Choices
from metrics.domain.funnel import Group, funnel_words
from metrics.usecases.ask import FunnelAnswer, ask_funnel

Interval = tuple[float, float]


class StageOut(Answer):
    """One stage of the way from capture to won."""

    stage: str
    kind: StageKind
    entered: int = Field(description="Leads that were in the stage.")
    reached: int = Field(description="Leads that count as having got to the stage, by the chosen order.")
    conversion_from_previous: float | None = Field(
        description="reached / reached of the stage before; null for the first."
    )
    interval_95: Interval | None = Field(description="Wilson interval of conversion_from_previous.")
    conversion_from_first: float | None = Field(description="reached / reached of the first stage; null for the first.")
    interval_95_from_first: Interval | None = Field(description="Wilson interval of conversion_from_first.")


class ExitOut(Answer):
    """One stage off the way."""

    stage: str
    kind: StageKind | None = Field(description="Null for a stage that the definition in force does not have.")
    entered: int = Field(description="Leads that were in the stage.")


class GroupOut(Answer):
    """The funnel of one group of leads."""

    by: GroupValues = Field(description="The group's values; null where a lead's value is not known.")
    leads: int
    stages: list[StageOut]
    exits: list[ExitOut]


class FunnelOut(Answer):
    """A funnel with its definition."""

    definition: Definition
    as_of: datetime | None = Field(
        description="Everything recorded before this has been read; null until all topics were heard."
    )
    groups: list[GroupOut]
    anomalies: dict[str, int] = Field(
        description="Leads with something odd about them, by kind; they are counted all the same."
    )


_EXAMPLE = {
    "definition": {
        "mode": "cohort",
        "order": "any",
        "entry": "first",
        "from": "2027-01-01T00:00:00Z",
        "to": "2027-02-01T00:00:00Z",
        "by": ["source"],
        "where": [],
        "definition_version": 1,
        "n": 400,
        "words": ["Leads captured in the period, and how far they have got since."],
    },
    "as_of": "2027-02-03T10:15:00Z",
    "groups": [
        {
            "by": {"source": "website"},
            "leads": 400,
            "stages": [
                {
                    "stage": "inquiry",
                    "kind": "open",
                    "entered": 400,
                    "reached": 400,
                    "conversion_from_previous": None,
                    "interval_95": None,
                    "conversion_from_first": None,
                    "interval_95_from_first": None,
                },
                {
                    "stage": "won",
                    "kind": "won",
                    "entered": 42,
                    "reached": 42,
                    "conversion_from_previous": 0.105,
                    "interval_95": [0.07854, 0.13899],
                    "conversion_from_first": 0.105,
                    "interval_95_from_first": [0.07854, 0.13899],
                },
            ],
            "exits": [{"stage": "lost", "kind": "lost", "entered": 17}],
        }
    ],
    "anomalies": {"stage_before_capture": 1},
}
RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/json": {"example": _EXAMPLE}, "text/csv": {"schema": {"type": "string"}}}}
}


def funnel_router(database: Database) -> APIRouter:
    """The funnel over this database."""
    router = APIRouter(prefix="/v1", tags=["funnel"])

    @router.get(
        "/funnel",
        summary="How many leads got how far",
        operation_id="funnel",
        response_model=FunnelOut,
        responses=RESPONSES,
    )
    async def funnel(request: Request, query: FunnelParameters, caller: Reader) -> Any:
        choices = choices_of(query)
        answer = await ask_funnel(database, choices)
        return _csv(choices, answer) if wants_csv(request) else _json(choices, answer)

    return router


def _json(choices: Choices, answer: FunnelAnswer) -> FunnelOut:
    return FunnelOut(
        definition=definition_of(choices, answer.stages, answer.funnel.leads, funnel_words(choices), ordered=True),
        as_of=answer.as_of,
        groups=[_group(choices, group) for group in answer.funnel.groups],
        anomalies=dict(answer.funnel.anomalies),
    )


def _group(choices: Choices, group: Group) -> GroupOut:
    stages = [
        StageOut(
            stage=count.stage.key,
            kind=count.stage.kind,
            entered=count.entered,
            reached=count.reached,
            conversion_from_previous=count.conversion_from_previous,
            interval_95=count.interval_95,
            conversion_from_first=count.conversion_from_first,
            interval_95_from_first=count.interval_95_from_first,
        )
        for count in group.stages
    ]
    exits = [ExitOut(stage=one.stage, kind=one.kind, entered=one.entered) for one in group.exits]
    return GroupOut(by=group_values(choices, group.key), leads=group.leads, stages=stages, exits=exits)


_COLUMNS = (
    "stage kind leads entered reached conversion_from_previous interval_95_low interval_95_high conversion_from_first "
    "interval_95_from_first_low interval_95_from_first_high"
).split()


def _csv(choices: Choices, answer: FunnelAnswer) -> Response:
    names, cells = choice_cells(choices, answer.as_of)
    columns = [*(dimension.name for dimension in choices.by), *_COLUMNS, "order", *names]
    rows = ([*line, choices.order, *cells] for group in answer.funnel.groups for line in _lines(group))
    return csv_answer("funnel", columns, rows)


def _lines(group: Group) -> Iterator[list[Cell]]:
    for count in group.stages:
        yield [
            *group.key,
            count.stage.key,
            count.stage.kind,
            group.leads,
            count.entered,
            count.reached,
            count.conversion_from_previous,
            *(count.interval_95 or (None, None)),
            count.conversion_from_first,
            *(count.interval_95_from_first or (None, None)),
        ]
    for one in group.exits:
        yield [*group.key, one.stage, one.kind, group.leads, one.entered, None, None, None, None, None, None, None]
