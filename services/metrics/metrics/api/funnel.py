"""GET /v1/funnel and /v1/funnel/leads: how many leads reached each stage, and which."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from accord.contracts.values import StageKind
from accord.db import Database
from accord.http.csv_tables import Cell, csv_response, table_responses, wants_csv
from accord.http.paging import encode_cursor
from metrics.api.cursors import decode_cursor_of, fingerprint
from metrics.api.definitions import Answer, Definition, GroupValues, build_definition, group_values, query_cells
from metrics.api.parameters import FunnelLeadsParameters, FunnelParameters, Reader, build_query, unknown_stage_at
from metrics.domain.funnel import Group, describe_funnel
from metrics.domain.report_query import ReportQuery
from metrics.queries.funnel import FunnelCursor
from metrics.usecases.reports import FunnelLeadPage, FunnelReport, get_funnel, get_funnel_leads

Interval = tuple[float, float]


class StageOut(Answer):
    """One stage of the path from capture to won."""

    stage: str
    kind: StageKind
    entered: int = Field(description="Leads that entered the stage.")
    reached: int = Field(description="Leads that count as having reached the stage, by the chosen order.")
    conversion_from_previous: float | None = Field(
        description="reached / reached of the stage before; null for the first."
    )
    interval_95: Interval | None = Field(description="Wilson interval of conversion_from_previous.")
    conversion_from_first: float | None = Field(description="reached / reached of the first stage; null for the first.")
    interval_95_from_first: Interval | None = Field(description="Wilson interval of conversion_from_first.")


class ExitOut(Answer):
    """One stage off the path to won."""

    stage: str
    kind: StageKind | None = Field(description="Null for a stage that the definition in force does not have.")
    entered: int = Field(description="Leads that entered the stage.")


class GroupOut(Answer):
    """The funnel of one group of leads."""

    by: GroupValues = Field(description="The group's values; null for leads without a value.")
    leads: int
    stages: list[StageOut]
    exits: list[ExitOut]


class FunnelOut(Answer):
    """A funnel with its definition."""

    definition: Definition
    as_of: datetime | None = Field(
        description="Everything recorded before this has been read; null until all topics have been read."
    )
    groups: list[GroupOut]
    anomalies: dict[str, int] = Field(description="Leads with an anomaly, by kind; they count too.")


class FunnelLeadOut(Answer):
    """One lead behind a figure."""

    lead_id: UUID
    by: GroupValues
    captured_at: datetime
    entered_at: datetime | None = Field(
        description="Its counted entry into the stage; null if it reached the stage by a later one."
    )
    stage: str | None = Field(description="The stage in which it stands.")


class FunnelLeadsOut(Answer):
    """A page of leads, the first captured first."""

    as_of: datetime | None
    items: list[FunnelLeadOut]
    next_cursor: str | None


_LEADS_EXAMPLE = {
    "as_of": "2027-02-03T10:15:00Z",
    "items": [
        {
            "lead_id": "019472d4-8c00-7000-8000-000000000001",
            "by": {"source": "website"},
            "captured_at": "2027-01-04T15:30:00Z",
            "entered_at": "2027-01-06T09:00:00Z",
            "stage": "won",
        }
    ],
    "next_cursor": None,
}

_EXAMPLE = {
    "definition": {
        "mode": "cohort",
        "order": "any",
        "entry": "first",
        "from": "2027-01-01T00:00:00Z",
        "to": "2027-02-01T00:00:00Z",
        "timezone": "UTC",
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


def funnel_router(database: Database) -> APIRouter:
    """The funnel routes over this database."""
    router = APIRouter(prefix="/v1", tags=["funnel"])

    @router.get(
        "/funnel",
        summary="How many leads reached each stage",
        operation_id="funnel",
        response_model=FunnelOut,
        responses=table_responses(_EXAMPLE),
    )
    async def funnel(request: Request, parameters: FunnelParameters, caller: Reader) -> Any:
        query = build_query(parameters)
        report = await get_funnel(database, query)
        return _to_csv(query, report) if wants_csv(request) else _to_json(query, report)

    @router.get(
        "/funnel/leads",
        summary="The leads behind a figure of the funnel, the first captured first",
        operation_id="funnel_leads",
        response_model=FunnelLeadsOut,
        responses=table_responses(_LEADS_EXAMPLE),
    )
    async def leads(request: Request, parameters: FunnelLeadsParameters, caller: Reader) -> Any:
        query = build_query(parameters)
        query_id = fingerprint(query, parameters.stage, parameters.figure)
        with unknown_stage_at():
            page = await get_funnel_leads(
                database,
                query,
                parameters.stage,
                parameters.figure,
                after=decode_cursor_of(query_id, parameters.cursor, FunnelCursor, datetime, UUID),
                limit=parameters.limit,
            )
        next_cursor = None if page.next is None else encode_cursor(query_id, page.next.captured_at, page.next.lead_id)
        if wants_csv(request):
            return _leads_to_csv(query, page, next_cursor)
        items = [
            FunnelLeadOut(
                lead_id=item.lead_id,
                by=group_values(query, item.group),
                captured_at=item.captured_at,
                entered_at=item.entered_at,
                stage=item.stage,
            )
            for item in page.items
        ]
        return FunnelLeadsOut(as_of=page.as_of, items=items, next_cursor=next_cursor)

    return router


def _leads_to_csv(query: ReportQuery, page: FunnelLeadPage, next_cursor: str | None) -> Response:
    columns = [
        "lead_id",
        *(dimension.name for dimension in query.by),
        "captured_at",
        "entered_at",
        "stands_in",
        "as_of",
    ]
    rows = (
        [str(item.lead_id), *item.group, item.captured_at, item.entered_at, item.stage, page.as_of]
        for item in page.items
    )
    return csv_response("funnel-leads", columns, rows, next_cursor)


def _to_json(query: ReportQuery, report: FunnelReport) -> FunnelOut:
    return FunnelOut(
        definition=build_definition(query, report.stages, report.funnel.leads, describe_funnel(query), ordered=True),
        as_of=report.as_of,
        groups=[_group_out(query, group) for group in report.funnel.groups],
        anomalies=dict(report.funnel.anomalies),
    )


def _group_out(query: ReportQuery, group: Group) -> GroupOut:
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
    exits = [ExitOut(stage=exit_.stage, kind=exit_.kind, entered=exit_.entered) for exit_ in group.exits]
    return GroupOut(by=group_values(query, group.key), leads=group.leads, stages=stages, exits=exits)


_COLUMNS = (
    "stage kind leads entered reached conversion_from_previous interval_95_low interval_95_high conversion_from_first "
    "interval_95_from_first_low interval_95_from_first_high"
).split()


def _to_csv(query: ReportQuery, report: FunnelReport) -> Response:
    names, cells = query_cells(query, report.as_of)
    columns = [*(dimension.name for dimension in query.by), *_COLUMNS, "order", *names]
    rows = ([*line, query.order, *cells] for group in report.funnel.groups for line in _csv_lines(group))
    return csv_response("funnel", columns, rows)


def _csv_lines(group: Group) -> Iterator[list[Cell]]:
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
    for exit_ in group.exits:
        yield [
            *group.key,
            exit_.stage,
            exit_.kind,
            group.leads,
            exit_.entered,
            None,
            None,
            None,
            None,
            None,
            None,
            None,
        ]
