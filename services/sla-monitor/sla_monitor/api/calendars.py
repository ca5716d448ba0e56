"""HTTP: explains when something would be due, by a calendar of the SLA in force."""

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query

from accord.contracts.values import Timestamp
from accord.db import Database
from accord.http.auth import Caller, require
from accord.http.openapi import problems
from accord.http.problems import Problem, parameter_error
from accord.terms.durations import parse_duration
from sla_monitor.api.models import DueAnswer, step_answer
from sla_monitor.usecases.agreements import SlaVersionCache
from sla_monitor.usecases.view import NoSla, NoSuchCalendar, explain_due

BUSINESS_MAX = timedelta(days=90)
"""The most open time in one request; over a year of office hours."""


def router(database: Database, sla_cache: SlaVersionCache) -> APIRouter:
    """The routes over one database and the SLA in force."""
    routes = APIRouter(tags=["calendar"])

    @routes.get(
        "/v1/calendar/due",
        summary="When something would be due",
        operation_id="get_calendar_due",
        responses=problems(404),
    )
    async def calendar_due(
        calendar: Annotated[str, Query(min_length=1, max_length=60, examples=["office"])],
        start: Annotated[Timestamp, Query(examples=["2027-01-09T16:00:00-06:00"])],
        business: Annotated[str, Query(max_length=40, description="ISO 8601.", examples=["PT4H"])],
        _caller: Caller = require("sla:read"),
    ) -> DueAnswer:
        """The moment at which the business time has passed since the start, with each stretch in between explained."""
        amount = _parse_business(business)
        try:
            explanation = await explain_due(database, sla_cache, calendar, start, amount)
        except NoSla:
            raise Problem(404, "not-found", "No SLA is in force", "Without an SLA there is no calendar.") from None
        except NoSuchCalendar as error:
            detail = (
                f"The SLA in force has these: {', '.join(error.available)}."
                if error.available
                else "The SLA in force has none."
            )
            raise Problem(404, "not-found", "No such calendar", detail) from None
        return DueAnswer(
            due=explanation.due,
            timezone=explanation.zone,
            sla_version=explanation.sla_version,
            steps=[step_answer(step) for step in explanation.steps],
        )

    return routes


def _parse_business(text: str) -> timedelta:
    try:
        amount = parse_duration(text)
    except ValueError as error:
        raise parameter_error("business", str(error)) from None
    if not timedelta() < amount <= BUSINESS_MAX:
        raise parameter_error("business", f"must be greater than zero and at most {BUSINESS_MAX.days} times 24 hours")
    return amount
