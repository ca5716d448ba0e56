"""GET /v1/pipeline, /v1/waterfall and /v1/waterfall/leads: open deals, and what changed between two moments."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from accord.contracts.values import Day, DecimalText
from accord.db import Database
from accord.http.csv_tables import Cell, csv_response, table_responses, wants_csv
from accord.http.paging import encode_cursor
from accord.http.problems import parameter_error
from metrics.api.cursors import decode_cursor_of, fingerprint
from metrics.api.definitions import Answer
from metrics.api.parameters import (
    Moment,
    Reader,
    check_zone,
    parse_bounds,
    parse_filters,
    parse_moment,
    unknown_stage_at,
)
from metrics.domain.money import decimal_places, round_decimal
from metrics.domain.pipeline import Line, Reason, Scope, TermName, measure_velocity
from metrics.domain.report_query import ReportQuery, describe_dimensions
from metrics.queries.pipeline import Deal
from metrics.usecases.pipeline import (
    CLOSED_DAYS,
    PipelineReport,
    WaterfallReport,
    get_pipeline,
    get_waterfall,
    get_waterfall_leads,
)

SCOPE_WORDS = [
    "Deals: leads in an open stage of which an opportunity is known; with `stage` those in it.",
    "With `close_from` and `close_to` only those expected to close on these days.",
    "A deal counts as it was before the moment, by the times that are reported. Merged leads do not count.",
    "Currencies are never added: each is a line of its own, and so are deals without an amount (null).",
]
PIPELINE_WORDS = [
    *SCOPE_WORDS,
    "Velocity: revenue a day = open deals x their average amount x win rate / median cycle in days.",
    f"Win rate: won / (won + lost) of the deals that were closed in the {CLOSED_DAYS} days before and still stand there.",
    "Cycle: from the lead's first stage to its win. Win rate and cycle are of all stages and currencies together.",
]
WATERFALL_WORDS = [
    *SCOPE_WORDS,
    "Only the two ends are compared, for money and leads alike: who came and went between them does not count.",
    "A deal that leaves grows or shrinks first, and leaves with its amount at the end.",
    "slipped and pulled_in: the expected close left or entered the days. revalued: the currency changed or became known.",
    "withdrawn: the deal or its stage is no longer known.",
]


class DealsQuery(BaseModel):
    """Which deals."""

    model_config = ConfigDict(extra="forbid")

    stage: str | None = Field(default=None, max_length=100, description="Only deals in this open stage.")
    close_from: Day | None = Field(default=None, description="Only deals expected to close on this day or later.")
    close_to: Day | None = Field(default=None, description="Only deals expected to close before this day.")
    timezone: str = Field(default="UTC", max_length=64, description="IANA time zone in which days begin.")
    where: list[Annotated[str, Field(max_length=300)]] = Field(
        default_factory=list, max_length=10, description="Only leads with this value: `DIMENSION=VALUE`."
    )


class PipelineQuery(DealsQuery):
    """Query of the pipeline."""

    at: Moment = Field(default=None, description="A day or a moment with offset. Default: as of the watermark.")


class WaterfallQuery(DealsQuery):
    """Query of a waterfall."""

    from_: str = Field(alias="from", max_length=40, description="The opening: a day or a moment with offset.")
    to: str = Field(max_length=40, description="The closing: a day or a moment with offset.")


class WaterfallLeadsQuery(WaterfallQuery):
    """Query of the leads behind a term."""

    term: TermName
    currency: str | None = Field(
        default=None, max_length=3, description="The line; without it deals without an amount."
    )
    limit: int = Field(default=100, ge=1, le=500)
    cursor: str | None = Field(default=None, max_length=1_000)


class StageDeals(Answer):
    """The deals of one stage."""

    stage: str
    deals: int
    amount: DecimalText


class PipelineLine(Answer):
    """The open deals of one currency; null for those without an amount."""

    currency: str | None
    deals: int
    amount: DecimalText
    average: DecimalText
    velocity_per_day: DecimalText | None
    reason: Reason | None = Field(description="Why there is no velocity.")
    stages: list[StageDeals]


class PipelineOut(Answer):
    """The pipeline as of a moment."""

    at: datetime
    as_of: datetime | None
    lines: list[PipelineLine]
    won: int
    lost: int
    win_rate: float | None
    median_cycle_s: float | None
    words: list[str]


class WaterfallTerm(Answer):
    """One term of a waterfall."""

    term: TermName
    leads: int = Field(description="Leads behind it.")
    leads_change: int = Field(description="How it changes the number of deals.")
    amount: DecimalText


class WaterfallLine(Answer):
    """The waterfall of one currency."""

    currency: str | None
    opening_leads: int
    opening_amount: DecimalText
    terms: list[WaterfallTerm]
    closing_leads: int
    closing_amount: DecimalText


class WaterfallOut(Answer):
    """What changed between two moments."""

    from_: datetime = Field(alias="from")
    to: datetime
    as_of: datetime | None
    lines: list[WaterfallLine]
    words: list[str]


class WaterfallLeadOut(Answer):
    """One lead behind a term."""

    lead_id: UUID
    leads_change: int
    amount: DecimalText


class ChangesOut(Answer):
    """A page of leads, by their id."""

    as_of: datetime | None
    items: list[WaterfallLeadOut]
    next_cursor: str | None


_PIPELINE_EXAMPLE = {
    "at": "2027-04-01T00:00:00Z",
    "as_of": "2027-04-01T00:00:00Z",
    "lines": [
        {
            "currency": "USD",
            "deals": 3,
            "amount": "80000.00",
            "average": "26666.67",
            "velocity_per_day": "1333.33",
            "reason": None,
            "stages": [{"stage": "opportunity", "deals": 3, "amount": "80000.00"}],
        }
    ],
    "won": 10,
    "lost": 10,
    "win_rate": 0.5,
    "median_cycle_s": 2592000.0,
    "words": PIPELINE_WORDS,
}
_WATERFALL_EXAMPLE = {
    "from": "2027-03-01T00:00:00Z",
    "to": "2027-04-01T00:00:00Z",
    "as_of": "2027-04-01T00:00:00Z",
    "lines": [
        {
            "currency": "USD",
            "opening_leads": 5,
            "opening_amount": "150000.00",
            "terms": [{"term": "won", "leads": 1, "leads_change": -1, "amount": "-12000.00"}],
            "closing_leads": 3,
            "closing_amount": "80000.00",
        }
    ],
    "words": WATERFALL_WORDS,
}
_CHANGES_EXAMPLE = {
    "as_of": "2027-04-01T00:00:00Z",
    "items": [{"lead_id": "019472d4-8c00-7000-8000-000000000001", "leads_change": -1, "amount": "-12000.00"}],
    "next_cursor": None,
}


def pipeline_router(database: Database) -> APIRouter:
    """The routes of pipeline and waterfall over this database."""
    router = APIRouter(prefix="/v1", tags=["pipeline"])

    @router.get(
        "/pipeline",
        summary="Open deals, their amounts by currency, and how fast they become revenue",
        operation_id="pipeline",
        response_model=PipelineOut,
        responses=table_responses(_PIPELINE_EXAMPLE),
    )
    async def pipeline(request: Request, parameters: Annotated[PipelineQuery, Query()], caller: Reader) -> Any:
        query, scope = _build_query(parameters), _build_scope(parameters)
        at = parse_moment("at", parameters.at, query.timezone)
        with unknown_stage_at():
            report = await get_pipeline(database, query, scope, at)
        return _pipeline_to_csv(report) if wants_csv(request) else _pipeline_to_json(query, report)

    @router.get(
        "/waterfall",
        summary="What changed in the pipeline between two moments",
        operation_id="waterfall",
        response_model=WaterfallOut,
        responses=table_responses(_WATERFALL_EXAMPLE),
    )
    async def waterfall(request: Request, parameters: Annotated[WaterfallQuery, Query()], caller: Reader) -> Any:
        query, scope = _build_query(parameters), _build_scope(parameters)
        since, until = _parse_bounds(parameters, query)
        with unknown_stage_at():
            report = await get_waterfall(database, query, scope, since, until)
        if wants_csv(request):
            return _waterfall_to_csv(report, since, until)
        return WaterfallOut(
            from_=since,
            to=until,
            as_of=report.as_of,
            lines=[_line_out(line) for line in report.lines],
            words=[*WATERFALL_WORDS, *describe_dimensions(query)],
        )

    @router.get(
        "/waterfall/leads",
        summary="The leads behind a term of the waterfall",
        operation_id="waterfall_leads",
        response_model=ChangesOut,
        responses=table_responses(_CHANGES_EXAMPLE),
    )
    async def leads(request: Request, parameters: Annotated[WaterfallLeadsQuery, Query()], caller: Reader) -> Any:
        query, scope = _build_query(parameters), _build_scope(parameters)
        since, until = _parse_bounds(parameters, query)
        query_id = fingerprint(query, scope, since, until, parameters.term, parameters.currency)
        after = decode_cursor_of(query_id, parameters.cursor, lambda lead_id: lead_id, UUID)
        with unknown_stage_at():
            page = await get_waterfall_leads(
                database,
                query,
                scope,
                since,
                until,
                parameters.term,
                parameters.currency,
                after=after,
                limit=parameters.limit,
            )
        next_cursor = None if page.next is None else encode_cursor(query_id, page.next)
        if wants_csv(request):
            rows: list[list[Cell]] = [[str(item.lead_id), item.leads, item.amount, page.as_of] for item in page.items]
            return csv_response("waterfall-leads", ["lead_id", "leads_change", "amount", "as_of"], rows, next_cursor)
        items = [
            WaterfallLeadOut(lead_id=item.lead_id, leads_change=item.leads, amount=DecimalText(item.amount))
            for item in page.items
        ]
        return ChangesOut(as_of=page.as_of, items=items, next_cursor=next_cursor)

    return router


def _build_query(parameters: DealsQuery) -> ReportQuery:
    return ReportQuery(where=parse_filters(parameters.where), timezone=check_zone(parameters.timezone))


def _build_scope(parameters: DealsQuery) -> Scope:
    close_from, close_to = parameters.close_from, parameters.close_to
    if close_from is not None and close_to is not None and close_from >= close_to:
        raise parameter_error("close_to", "must be after close_from")
    return Scope(parameters.stage, close_from, close_to)


def _parse_bounds(parameters: WaterfallQuery, query: ReportQuery) -> tuple[datetime, datetime]:
    since, until = parse_bounds(parameters.from_, parameters.to, query.timezone)
    if since is None or until is None:
        raise AssertionError("both are required")
    return since, until


def _sum_amounts(deals: list[Deal]) -> Decimal:
    return sum((deal.state.amount or Decimal(0) for deal in deals), Decimal(0))


def _pipeline_lines(report: PipelineReport) -> Iterator[PipelineLine]:
    by_currency: dict[str | None, list[Deal]] = {}
    for deal in report.deals:
        by_currency.setdefault(deal.state.currency, []).append(deal)
    for currency in sorted(by_currency, key=lambda name: (name is None, name or "")):
        deals = by_currency[currency]
        places = decimal_places(currency or "")
        total = _sum_amounts(deals)
        velocity, reason = (None, None) if currency is None else measure_velocity(total, report.closed)
        by_stage = [
            (stage.key, [deal for deal in deals if deal.state.stage == stage.key]) for stage in report.stages.by_rank
        ]
        yield PipelineLine(
            currency=currency,
            deals=len(deals),
            amount=DecimalText(total),
            average=DecimalText(round_decimal(Fraction(total) / len(deals), places)),
            velocity_per_day=None if velocity is None else DecimalText(round_decimal(velocity, places)),
            reason=reason,
            stages=[
                StageDeals(stage=stage, deals=len(found), amount=DecimalText(_sum_amounts(found)))
                for stage, found in by_stage
                if found
            ],
        )


def _pipeline_to_json(query: ReportQuery, report: PipelineReport) -> PipelineOut:
    rate, cycle = report.closed.win_rate, report.closed.median_cycle_us
    return PipelineOut(
        at=report.at,
        as_of=report.as_of,
        lines=list(_pipeline_lines(report)),
        won=report.closed.won,
        lost=report.closed.lost,
        win_rate=None if rate is None else float(rate),
        median_cycle_s=None if cycle is None else cycle / 1_000_000,
        words=[*PIPELINE_WORDS, *describe_dimensions(query)],
    )


def _pipeline_to_csv(report: PipelineReport) -> Response:
    columns = "currency deals amount average velocity_per_day reason at as_of".split()
    rows: list[list[Cell]] = []
    for line in _pipeline_lines(report):
        money: tuple[Decimal | None, ...] = (line.amount, line.average, line.velocity_per_day)
        rows.append([line.currency, line.deals, *money, line.reason, report.at, report.as_of])
    return csv_response("pipeline", columns, rows)


def _line_out(line: Line) -> WaterfallLine:
    return WaterfallLine(
        currency=line.currency,
        opening_leads=line.opening_leads,
        opening_amount=DecimalText(line.opening_amount),
        terms=[
            WaterfallTerm(term=name, leads=behind, leads_change=leads, amount=DecimalText(amount))
            for name, (behind, leads, amount) in line.terms.items()
        ],
        closing_leads=line.closing_leads,
        closing_amount=DecimalText(line.closing_amount),
    )


def _waterfall_to_csv(report: WaterfallReport, since: datetime, until: datetime) -> Response:
    columns = "currency term leads leads_change amount from to as_of".split()
    rows: list[list[Cell]] = []
    for line in report.lines:
        ends = (since, until, report.as_of)
        rows.append([line.currency, "opening", line.opening_leads, line.opening_leads, line.opening_amount, *ends])
        for name, (behind, leads, amount) in line.terms.items():
            rows.append([line.currency, name, behind, leads, amount, *ends])
        rows.append([line.currency, "closing", line.closing_leads, line.closing_leads, line.closing_amount, *ends])
    return csv_response("waterfall", columns, rows)
