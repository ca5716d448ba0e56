"""What would be due when, by a calendar of the SLA in force, and why."""

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query

from accord.contracts.values import Timestamp
from accord.db import Database
from accord.http.auth import Caller, require
from accord.http.openapi import problems
from accord.http.problems import Problem, unfit_parameter
from accord.terms.durations import parse_duration
from sla_monitor.api.models import DueAnswer, step_answer
from sla_monitor.usecases.agreements import SlaBook
from sla_monitor.usecases.view import NoSla, NoSuchCalendar, when_due

BUSINESS_MAX = timedelta(days=90)
"""Of open time, that is; over a year of office hours."""


def router(database: Database, book: SlaBook) -> APIRouter:
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
        """The moment at which so much business time has passed since the start, with each stretch in between explained."""
        amount = _business(business)
        try:
            found = await when_due(database, book, calendar, start, amount)
        except NoSla:
            raise Problem(404, "not-found", "No SLA is in force", "Without an SLA there is no calendar.") from None
        except NoSuchCalendar as error:
            detail = (
                f"The SLA in force has these: {', '.join(error.known)}."
                if error.known
                else "The SLA in force has none."
            )
            raise Problem(404, "not-found", "No such calendar", detail) from None
        return DueAnswer(
            due=found.due,
            timezone=found.zone,
            sla_version=found.sla_version,
            steps=[step_answer(step) for step in found.steps],
        )

    return routes


def _business(text: str) -> timedelta:
    try:
        amount = parse_duration(text)
    except ValueError as error:
        raise unfit_parameter("business", str(error)) from None
    if not timedelta() < amount <= BUSINESS_MAX:
        raise unfit_parameter("business", f"must be longer than nothing and at most {BUSINESS_MAX.days} times 24 hours")
    return amount
