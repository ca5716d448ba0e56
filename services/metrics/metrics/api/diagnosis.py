"""GET /v1/plan/diagnosis and /v1/wins: why revenue differs from the plan, and the wins behind it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Any, Literal
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from accord.agreements import AgreementStore
from accord.contracts.values import Day, DecimalText
from accord.db import Database
from accord.http.csv_tables import Cell, csv_response, table_responses, wants_csv
from accord.http.openapi import problems
from accord.http.paging import encode_cursor
from accord.http.problems import not_found, parameter_error
from metrics.api.cursors import decode_cursor_of, fingerprint
from metrics.api.definitions import Answer
from metrics.api.parameters import Reader, WinsParameters, build_wins_query, unknown_stage_at
from metrics.api.plan_progress import PlanRef, describe_plan
from metrics.domain.diagnosis import METHOD_DESCRIPTIONS, Method, list_factors
from metrics.domain.money import decimal_places, minor_units, round_decimal
from metrics.queries.wins import WinCursor
from metrics.usecases.diagnosis import (
    DiagnosisReport,
    OutsidePlan,
    SourceDiagnosis,
    WinPage,
    get_diagnosis,
    get_wins,
)
from metrics.usecases.plan_progress import NoPlan

FactorName = Literal["volume", "conversion", "cycle_time", "deal_size"]

WORDS = [
    "Planned: the plan's revenue that is due in the period. Actual: amounts in the plan's currency of the period's wins.",
    "Volume: leads captured in the cohort, which were due for wins of the period by the plan's cycle.",
    "Conversion: of those that reached the stage before, the share that reached this one or a later one, until now.",
    "Leads that are still open have not converted, and a win that was undone is none.",
    "Cycle time: wins dated in the period for each win of the cohort. Below one, due leads were won outside the period.",
    "Deal size: revenue for each win; wins without an amount, or in another currency, count with none.",
    "Terms sum to the gap, and sources to the whole, to the last minor unit.",
]


class DependsOn(Answer):
    """The gate of the shared definition that decides a conversion."""

    definition_version: int
    pointer: str
    gate: Any


class TermOut(Answer):
    """One factor's part of a source's gap."""

    factor: FactorName
    stage: str | None = Field(description="Of a conversion, the stage that it leads to.")
    planned: DecimalText | None = Field(description="The factor; null where there is nothing to divide by.")
    actual: DecimalText | None
    amount: DecimalText = Field(description="Its part of the gap.")
    leads: int = Field(description="Leads behind the actual factor.")
    leads_url: str = Field(description="The request that lists them, as many.")
    depends_on: DependsOn | None


class SourceOut(Answer):
    """One source; null for all together, where the plan does not name sources."""

    source: str | None
    planned: DecimalText
    actual: DecimalText
    gap: DecimalText
    method: Method
    terms: list[TermOut]


class TotalOut(Answer):
    """One factor over all sources."""

    factor: FactorName
    stage: str | None
    amount: DecimalText


class DiagnosisOut(Answer):
    """The gap of a period, by factor and source."""

    plan: PlanRef
    from_: datetime = Field(alias="from")
    to: datetime
    cohort_from: datetime
    cohort_to: datetime
    as_of: datetime | None
    currency: str
    planned: DecimalText
    actual: DecimalText
    gap: DecimalText
    terms: list[TotalOut]
    sources: list[SourceOut]
    methods: dict[str, str] = Field(description="What each method is.")
    words: list[str]


class DiagnosisQuery(BaseModel):
    """Query of a diagnosis: days of the plan's zone."""

    model_config = ConfigDict(extra="forbid")

    from_: Day = Field(alias="from", description="The first day.", examples=["2027-01-01"])
    to: Day = Field(description="The day after the last.", examples=["2027-04-01"])


class WinOut(Answer):
    """One win."""

    lead_id: UUID
    source: str | None
    won_at: datetime
    amount: DecimalText | None
    currency: str | None
    expected_close: date | None


class WinsOut(Answer):
    """A page of wins, the first ones first."""

    as_of: datetime | None
    items: list[WinOut]
    next_cursor: str | None


_TERM_EXAMPLE = {
    "factor": "volume",
    "stage": None,
    "planned": "100.0000",
    "actual": "120.0000",
    "amount": "1895.21",
    "leads": 120,
    "leads_url": "/v1/funnel/leads?mode=cohort&stage=inquiry&from=2026-10-20T05%3A00%3A00Z&to=2026-11-20T06%3A00%3A00Z",
    "depends_on": {"definition_version": 1, "pointer": "/stages/0/gate", "gate": {"on": "capture"}},
}
_DIAGNOSIS_EXAMPLE = {
    "plan": {"version": 1, "from": "2027-01-01", "to": "2027-12-31", "timezone": "America/Chicago"},
    "from": "2027-01-01T06:00:00Z",
    "to": "2027-02-01T06:00:00Z",
    "cohort_from": "2026-10-20T05:00:00Z",
    "cohort_to": "2026-11-20T06:00:00Z",
    "as_of": "2027-02-03T10:15:00Z",
    "currency": "USD",
    "planned": "10000.00",
    "actual": "10800.00",
    "gap": "800.00",
    "terms": [{"factor": "volume", "stage": None, "amount": "1895.21"}],
    "sources": [
        {
            "source": None,
            "planned": "10000.00",
            "actual": "10800.00",
            "gap": "800.00",
            "method": "logarithmic_mean",
            "terms": [_TERM_EXAMPLE],
        }
    ],
    "methods": METHOD_DESCRIPTIONS,
    "words": WORDS,
}
_WINS_EXAMPLE = {
    "as_of": "2027-02-03T10:15:00Z",
    "items": [
        {
            "lead_id": "019472d4-8c00-7000-8000-000000000001",
            "source": "website",
            "won_at": "2027-01-20T17:00:00Z",
            "amount": "24000.00",
            "currency": "USD",
            "expected_close": "2027-01-31",
        }
    ],
    "next_cursor": None,
}


def diagnosis_router(database: Database, plans: AgreementStore) -> APIRouter:
    """The routes of the diagnosis and of the wins over this database."""
    router = APIRouter(prefix="/v1", tags=["plan"])

    @router.get(
        "/plan/diagnosis",
        summary="Why revenue differs from the plan, by factor and source",
        operation_id="plan_diagnosis",
        response_model=DiagnosisOut,
        responses={**table_responses(_DIAGNOSIS_EXAMPLE), **problems(404)},
    )
    async def diagnosis(request: Request, parameters: Annotated[DiagnosisQuery, Query()], caller: Reader) -> Any:
        try:
            report = await get_diagnosis(database, plans, parameters.from_, parameters.to)
        except NoPlan:
            raise not_found("plan in force") from None
        except OutsidePlan:
            raise parameter_error("from", "and to must be days of the plan, and from before to") from None
        return _to_csv(report) if wants_csv(request) else _to_json(report)

    @router.get(
        "/wins",
        summary="The wins of a period with their amounts",
        operation_id="wins",
        response_model=WinsOut,
        responses=table_responses(_WINS_EXAMPLE),
    )
    async def wins(request: Request, parameters: WinsParameters, caller: Reader) -> Any:
        query = build_wins_query(parameters)
        query_id = fingerprint(query, parameters.stage)
        with unknown_stage_at():
            page = await get_wins(
                database,
                query,
                parameters.stage,
                after=decode_cursor_of(query_id, parameters.cursor, WinCursor, datetime, UUID),
                limit=parameters.limit,
            )
        next_cursor = None if page.next is None else encode_cursor(query_id, page.next.won_at, page.next.lead_id)
        return _wins_to_csv(page, next_cursor) if wants_csv(request) else _wins_to_json(page, next_cursor)

    return router


def _money(report: DiagnosisReport, units: int) -> DecimalText:
    currency = report.in_force.plan.revenue.currency
    return DecimalText(round_decimal(Fraction(units, minor_units(currency)), decimal_places(currency)))


def _name_factors(report: DiagnosisReport) -> list[tuple[FactorName, str | None]]:
    later: list[tuple[FactorName, str | None]] = [("conversion", s.stage) for s in report.in_force.plan.funnel[1:]]
    return [("volume", None), *later, ("cycle_time", None), ("deal_size", None)]


def _factor(value: Fraction | None) -> DecimalText | None:
    return None if value is None else DecimalText(round_decimal(value, 4))


def _source_out(report: DiagnosisReport, found: SourceDiagnosis) -> SourceOut:
    planned, actual = list_factors(found.planned), list_factors(found.actual)
    terms = []
    for index, (factor, stage) in enumerate(_name_factors(report)):
        leads, request = _locate_leads(report, found, index)
        terms.append(
            TermOut(
                factor=factor,
                stage=stage,
                planned=_factor(planned[index]),
                actual=_factor(actual[index]),
                amount=_money(report, found.split.terms[index]),
                leads=leads,
                leads_url=request,
                depends_on=_find_gate(report, index),
            )
        )
    return SourceOut(
        source=found.source,
        planned=_money(report, found.planned_units),
        actual=_money(report, found.actual_units),
        gap=_money(report, found.actual_units - found.planned_units),
        method=found.split.method,
        terms=terms,
    )


def _locate_leads(report: DiagnosisReport, found: SourceDiagnosis, index: int) -> tuple[int, str]:
    """How many leads are behind a factor, and the request that lists them."""
    names = [entry.stage for entry in report.in_force.plan.funnel]
    where = {} if found.source is None else {"where": f"source={found.source}"}
    if index < len(names):
        route = "/v1/funnel/leads" if index < len(names) - 1 else "/v1/wins"
        query = {"mode": "cohort", "stage": names[index], **_bounds(*report.cohort), **where}
        return int(found.actual.reached[index]), f"{route}?{urlencode(query)}"
    query = {"stage": names[-1], **_bounds(*report.period), **where}
    return int(found.actual.wins), f"/v1/wins?{urlencode(query)}"


def _bounds(since: datetime, until: datetime) -> dict[str, str]:
    return {"from": f"{since:%Y-%m-%dT%H:%M:%SZ}", "to": f"{until:%Y-%m-%dT%H:%M:%SZ}"}


def _find_gate(report: DiagnosisReport, index: int) -> DependsOn | None:
    """The gate of the stage that a factor counts. Cycle time and deal size depend on none."""
    funnel = report.in_force.plan.funnel
    version = report.stages.version
    if version is None or index >= len(funnel) or funnel[index].stage not in report.gates:
        return None
    position, gate = report.gates[funnel[index].stage]
    return DependsOn(definition_version=version, pointer=f"/stages/{position}/gate", gate=gate)


def _to_json(report: DiagnosisReport) -> DiagnosisOut:
    planned = sum(found.planned_units for found in report.sources)
    actual = sum(found.actual_units for found in report.sources)
    return DiagnosisOut(
        plan=describe_plan(report.in_force),
        from_=report.period[0],
        to=report.period[1],
        cohort_from=report.cohort[0],
        cohort_to=report.cohort[1],
        as_of=report.as_of,
        currency=report.in_force.plan.revenue.currency,
        planned=_money(report, planned),
        actual=_money(report, actual),
        gap=_money(report, actual - planned),
        terms=[
            TotalOut(
                factor=factor,
                stage=stage,
                amount=_money(report, sum(found.split.terms[index] for found in report.sources)),
            )
            for index, (factor, stage) in enumerate(_name_factors(report))
        ],
        sources=[_source_out(report, found) for found in report.sources],
        methods=dict(METHOD_DESCRIPTIONS),
        words=WORDS,
    )


_COLUMNS = "source factor stage planned actual amount currency method leads from to as_of".split()


def _to_csv(report: DiagnosisReport) -> Response:
    return csv_response("plan-diagnosis", _COLUMNS, _csv_lines(report))


def _csv_lines(report: DiagnosisReport) -> Iterator[list[Cell]]:
    for found in report.sources:
        out = _source_out(report, found)
        for term in out.terms:
            figures: tuple[Decimal | None, ...] = (term.planned, term.actual, term.amount)
            yield [
                *(out.source, term.factor, term.stage),
                *figures,
                *(report.in_force.plan.revenue.currency, out.method, term.leads),
                *(*report.period, report.as_of),
            ]


def _wins_to_json(page: WinPage, next_cursor: str | None) -> WinsOut:
    items = [
        WinOut(
            lead_id=win.lead_id,
            source=win.source,
            won_at=win.won_at,
            amount=None if win.amount is None else DecimalText(win.amount),
            currency=win.currency,
            expected_close=win.expected_close,
        )
        for win in page.items
    ]
    return WinsOut(as_of=page.as_of, items=items, next_cursor=next_cursor)


def _wins_to_csv(page: WinPage, next_cursor: str | None) -> Response:
    columns = "lead_id source won_at amount currency expected_close as_of".split()
    rows: list[list[Cell]] = [
        [
            *(str(win.lead_id), win.source, win.won_at, win.amount, win.currency),
            *(None if win.expected_close is None else win.expected_close.isoformat(), page.as_of),
        ]
        for win in page.items
    ]
    return csv_response("wins", columns, rows, next_cursor)
