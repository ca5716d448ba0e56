"""HTTP: the monthly statement, as JSON, as a table, and as a page to print."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Query, Request
from starlette.responses import HTMLResponse, Response

from accord.agreements.paper import HEADERS, render_page
from accord.contracts.values import Department
from accord.db import Database
from accord.http.auth import Caller, require
from accord.http.csv_tables import Cell, csv_response, wants_csv
from accord.http.problems import parameter_error
from accord.terms.durations import describe_duration
from accord.terms.paper import Section
from sla_monitor.api.models import StatementAnswer, statement_answer
from sla_monitor.domain.clock import Clock
from sla_monitor.usecases.agreements import SlaVersionCache
from sla_monitor.usecases.statement import ClauseLine, Statement, make_statement

_DEPARTMENTS: tuple[Department, ...] = ("marketing", "sales")
_MEDIA: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/html": {"schema": {"type": "string"}}, "text/csv": {"schema": {"type": "string"}}}}
}


def router(database: Database, sla_cache: SlaVersionCache) -> APIRouter:
    """The routes over one database and the SLA in force."""
    routes = APIRouter(tags=["clocks"])

    @routes.get(
        "/v1/statement",
        summary="The statement of a month",
        operation_id="get_statement",
        response_model=StatementAnswer,
        responses=_MEDIA,
    )
    async def statement(
        request: Request,
        month: Annotated[
            str | None,
            Query(
                pattern=r"^[0-9]{4}-(0[1-9]|1[0-2])$",
                description="Of the SLA's own time zone; without it, the last whole one.",
                examples=["2027-05"],
            ),
        ] = None,
        _caller: Caller = require("sla:read"),
    ) -> StatementAnswer | Response:
        """What both departments kept and broke in a month, beside the months before. `Accept: text/html` is a page to print."""
        if month is not None and not "1970-05" <= month <= "2199-11":
            raise parameter_error("month", "must be from 1970-05 to 2199-11")
        found = await make_statement(database, sla_cache, month)
        if "text/html" in request.headers.get("accept", ""):
            return HTMLResponse(render_statement(found), headers={**HEADERS, "Vary": "Accept"})
        if wants_csv(request):
            return csv_response(f"sla-statement-{found.month}", _columns(found), _rows(found))
        return statement_answer(found)

    return routes


def _columns(statement: Statement) -> Sequence[str]:
    counts = ("met", "breached", "met_late", "running", "cancelled", "attainment")
    return (
        "month",
        "timezone",
        "department",
        "clause",
        *counts,
        *(f"attainment {name}" for name in statement.months_before),
    )


def _rows(statement: Statement) -> Iterator[Sequence[Cell]]:
    for line in statement.lines:
        counts = line.counts
        yield (
            *(statement.month, statement.zone, line.department, line.clause, counts.met, counts.breached),
            *(counts.met_late, counts.running, counts.cancelled, counts.attainment, *line.before),
        )


# --- The page ---


def render_statement(statement: Statement) -> str:
    """The statement as a page to print."""
    zone = ZoneInfo(statement.zone)
    standing = "All of the month has been read." if statement.is_final else "The month is not complete yet."
    if statement.as_of is not None:
        standing += f" As of {statement.as_of.astimezone(zone):%d %B %Y, %H:%M} {statement.zone}."
    sections = [_summary(statement), *(_department(statement, department) for department in _DEPARTMENTS)]
    sections.append(_breaches(statement, zone))
    sections.append(
        Section(
            "How it is counted",
            [
                (
                    "A promise belongs to the month of its deadline. Kept are those answered by then; broken the others, "
                    "also those that were answered late (counted in both). The months beside it show the share kept. Open "
                    "and cancelled ones count in neither. A breach that a late report withdrew is kept or cancelled."
                ),
                f"Months are those of {statement.zone}.",
            ],
        )
    )
    return render_page("Service level statement", f"{statement.start.astimezone(zone):%B %Y}", standing, sections)


def _summary(statement: Statement) -> Section:
    sentences = []
    for department in _DEPARTMENTS:
        total = statement.total(department)
        judged = total.met + total.breached
        who = department.capitalize()
        if judged:
            sentences.append(f"{who} kept {total.met:,} of {judged:,} promises ({_percent(total.attainment)}).")
        else:
            sentences.append(f"{who} had no promise that was due.")
    return Section("In short", sentences)


def _department(statement: Statement, department: Department) -> Section:
    lines = [line for line in statement.lines if line.department == department]
    heading = f"What {department} owed"
    if not lines:
        return Section(heading, [f"No clause obliged {department} in this time."])
    before = (f"{datetime.strptime(month, '%Y-%m').replace(tzinfo=UTC):%b}" for month in statement.months_before)
    columns = ("Clause", "Kept", "Broken", "Late", "Open", "Cancelled", "Share kept", *before)
    return Section(heading, columns=columns, rows=[_clause_row(line) for line in lines])


def _clause_row(line: ClauseLine) -> tuple[str, ...]:
    counts = line.counts
    numbers = (counts.met, counts.breached, counts.met_late, counts.running, counts.cancelled)
    return (
        line.clause,
        *(f"{number:,}" for number in numbers),
        _percent(counts.attainment),
        *map(_percent, line.before),
    )


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}".removesuffix(".0") + "\u00a0%"


def _breaches(statement: Statement, zone: ZoneInfo) -> Section:
    heading = "What waited longest"
    if not statement.breaches:
        return Section(heading, ["Nothing was broken in this month."])
    columns = ("Clause", "Lead", "Owner", "Due", "Answered", "Acknowledged")
    return Section(heading, columns=columns, rows=[_breach_row(clock, zone) for clock in statement.breaches])


def _breach_row(clock: Clock, zone: ZoneInfo) -> tuple[str, ...]:
    lead = "–" if clock.trigger.kind == "period" else str(clock.lead_id)
    due = f"{clock.due_at.astimezone(zone):%d %b %H:%M}"
    noted = clock.acknowledgement
    return (clock.clause, lead, clock.owner or "–", due, _lateness(clock), f"by {noted.by}" if noted else "–")


def _lateness(clock: Clock) -> str:
    if clock.answered_at is None:
        return "not yet" if clock.trigger.kind != "period" else "–"
    late = clock.answered_at - clock.due_at
    return f"{describe_duration(timedelta(minutes=max(1, late // timedelta(minutes=1))))} late"
