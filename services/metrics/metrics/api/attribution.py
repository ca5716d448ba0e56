"""GET /v1/attribution: how wins and revenue are shared among the touches before them."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response

from accord.contracts.values import DecimalText
from accord.db import Database
from accord.http.csv_tables import Cell, csv_response, table_responses, wants_csv
from accord.http.problems import parameter_error
from metrics.api.definitions import Answer
from metrics.api.parameters import PeriodWinsQuery, Reader, build_wins_query, unknown_stage_at
from metrics.domain.attribution import DESCRIPTIONS, MODEL_DESCRIPTIONS, Model
from metrics.usecases.attribution import (
    WIN_UNITS,
    WINS_MAX,
    AttributionReport,
    Credit,
    Dimension,
    TooManyWins,
    get_attribution,
)


class AttributionQuery(PeriodWinsQuery):
    """Query of an attribution."""

    model: Model = Field(default="linear", description="How a win is shared.")
    by: Dimension = Field(default="source", description="What gets the credit: what the touch names.")


class CreditOut(Answer):
    """What one source or campaign gets in one currency."""

    value: str | None = Field(description="Null for touches that name none.")
    is_attributed: bool = Field(description="False for wins without a touch.")
    currency: str | None = Field(description="Null for wins without an amount.")
    wins: DecimalText
    amount: DecimalText


class AttributionOut(Answer):
    """The shares of all wins."""

    model: Model
    by: Dimension
    as_of: datetime | None
    from_: datetime | None = Field(alias="from")
    to: datetime | None
    n: int = Field(description="Wins.")
    credits: list[CreditOut]
    words: list[str]


_EXAMPLE = {
    "model": "time_decay",
    "by": "source",
    "as_of": "2027-04-01T00:00:00Z",
    "from": "2027-03-01T00:00:00Z",
    "to": "2027-04-01T00:00:00Z",
    "n": 1,
    "credits": [
        {"value": "ads", "is_attributed": True, "currency": "USD", "wins": "0.4286", "amount": "428.57"},
        {"value": "webinar", "is_attributed": True, "currency": "USD", "wins": "0.5714", "amount": "571.43"},
    ],
    "words": [MODEL_DESCRIPTIONS["time_decay"], *DESCRIPTIONS],
}


def attribution_router(database: Database) -> APIRouter:
    """The attribution route over this database."""
    router = APIRouter(prefix="/v1", tags=["attribution"])

    @router.get(
        "/attribution",
        summary="How wins and revenue are shared among the touches before them",
        operation_id="attribution",
        response_model=AttributionOut,
        responses=table_responses(_EXAMPLE),
    )
    async def attribution(request: Request, parameters: Annotated[AttributionQuery, Query()], caller: Reader) -> Any:
        query = build_wins_query(parameters)
        try:
            with unknown_stage_at():
                report = await get_attribution(database, query, parameters.stage, parameters.model, parameters.by)
        except TooManyWins:
            raise parameter_error("from", f"and to must bound a period of at most {WINS_MAX} wins") from None
        if wants_csv(request):
            return _to_csv(parameters, report)
        return AttributionOut(
            model=parameters.model,
            by=parameters.by,
            as_of=report.as_of,
            from_=query.since,
            to=query.until,
            n=report.wins,
            credits=[_credit_out(credit) for credit in report.credits],
            words=[MODEL_DESCRIPTIONS[parameters.model], *DESCRIPTIONS],
        )

    return router


def _credit_out(credit: Credit) -> CreditOut:
    return CreditOut(
        value=credit.value,
        is_attributed=credit.is_attributed,
        currency=credit.currency,
        wins=DecimalText(Decimal(credit.win_units).scaleb(1 - len(str(WIN_UNITS)))),
        amount=DecimalText(credit.amount),
    )


def _to_csv(parameters: AttributionQuery, report: AttributionReport) -> Response:
    columns = [parameters.by, "is_attributed", "currency", "wins", "amount", "model", "as_of"]
    rows: list[list[Cell]] = []
    for credit in report.credits:
        out = _credit_out(credit)
        money: tuple[Decimal, ...] = (out.wins, out.amount)
        rows.append([out.value, out.is_attributed, out.currency, *money, parameters.model, report.as_of])
    return csv_response("attribution", columns, rows)
