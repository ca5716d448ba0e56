"""HTTP: explains when something would be due, and lists the days on which a calendar of the SLA is closed."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query

from accord.agreements import AgreementStore
from accord.agreements.store import NoSuchVersion
from accord.contracts.values import Timestamp
from accord.db import Database
from accord.http.auth import Caller, require
from accord.http.openapi import problems
from accord.http.problems import Problem, not_found, parameter_error
from accord.terms.durations import parse_duration
from sla_monitor.api.models import ClosedDaysAnswer, DueAnswer, closed_day_answer, step_answer
from sla_monitor.domain.calendars import DAYS_FROM, DAYS_TO
from sla_monitor.usecases.agreements import SlaVersionCache
from sla_monitor.usecases.view import NoSla, NoSuchCalendar, explain_due, get_closed_days

BUSINESS_MAX = timedelta(days=90)
"""The most open time in one request; over a year of office hours."""


CalendarName = Annotated[str, Query(min_length=1, max_length=60, examples=["office"])]


def router(database: Database, store: AgreementStore, sla_cache: SlaVersionCache) -> APIRouter:
    """The routes over one database and the versions of the SLA."""
    routes = APIRouter(tags=["calendar"])

    @routes.get(
        "/v1/calendar/due",
        summary="When something would be due",
        operation_id="get_calendar_due",
        responses=problems(404),
    )
    async def calendar_due(
        calendar: CalendarName,
        start: Annotated[Timestamp, Query(examples=["2027-01-09T16:00:00-06:00"])],
        business: Annotated[str, Query(max_length=40, description="ISO 8601.", examples=["PT4H"])],
        _caller: Caller = require("sla:read"),
    ) -> DueAnswer:
        """The moment at which the business time has passed since the start, with each stretch in between explained."""
        amount = _parse_business(business)
        with _unknown_as_not_found():
            explanation = await explain_due(database, sla_cache, calendar, start, amount)
        return DueAnswer(
            due=explanation.due,
            timezone=explanation.zone,
            sla_version=explanation.sla_version,
            steps=[step_answer(step) for step in explanation.steps],
        )

    @routes.get(
        "/v1/calendar/closed-days",
        summary="The closed days of a year",
        operation_id="get_calendar_closed_days",
        responses=problems(404),
    )
    async def closed_days(
        calendar: CalendarName,
        year: Annotated[int, Query(ge=DAYS_FROM.year, le=DAYS_TO.year, examples=[2027])],
        version: Annotated[
            int | None,
            Query(ge=1, le=2**31 - 1, description="A version in any state, a draft too; without it, that in force."),
        ] = None,
        _caller: Caller = require("sla:read"),
    ) -> ClosedDaysAnswer:
        """The days on which the calendar is closed though its week is open; a Saturday of a Monday-to-Friday week is not listed."""
        with _unknown_as_not_found():
            found = await get_closed_days(database, store, calendar, version, year)
        return ClosedDaysAnswer(
            calendar=calendar,
            year=year,
            timezone=found.zone,
            sla_version=found.sla_version,
            items=[closed_day_answer(day) for day in found.items],
        )

    return routes


@contextmanager
def _unknown_as_not_found() -> Iterator[None]:
    """Turns an SLA, a version or a calendar that is not there into Problem 404."""
    try:
        yield
    except NoSla:
        raise Problem(404, "not-found", "No SLA is in force", "Without an SLA there is no calendar.") from None
    except NoSuchVersion:
        raise not_found("version") from None
    except NoSuchCalendar as error:
        names = f"these: {', '.join(error.available)}" if error.available else "none"
        raise Problem(404, "not-found", "No such calendar", f"This version of the SLA has {names}.") from None


def _parse_business(text: str) -> timedelta:
    try:
        amount = parse_duration(text)
    except ValueError as error:
        raise parameter_error("business", str(error)) from None
    if not timedelta() < amount <= BUSINESS_MAX:
        raise parameter_error("business", f"must be greater than zero and at most {BUSINESS_MAX.days} times 24 hours")
    return amount
