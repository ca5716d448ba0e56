"""HTTP: reads clocks, breaches and attainment."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from accord.contracts.values import Department, Timestamp
from accord.db import Database
from accord.http.auth import Caller, require
from accord.http.openapi import problems
from accord.http.paging import CursorText, Limit, decode_cursor, make_page
from accord.http.problems import not_found
from sla_monitor.api.models import (
    AcknowledgeIn,
    AttainmentAnswer,
    AttainmentDefinition,
    BreachAnswer,
    BreachPage,
    ClockAnswer,
    ClockPage,
    LeadClocks,
    attainment_group,
    breach_answer,
    clock_answer,
)
from sla_monitor.domain.clock import ClockState
from sla_monitor.queries.attainment import By
from sla_monitor.queries.listing import BreachFilter, ClockFilter, PageCursor
from sla_monitor.usecases.acknowledge import acknowledge
from sla_monitor.usecases.agreements import SlaVersionCache
from sla_monitor.usecases.view import get_attainment, get_lead_clocks, list_breaches, list_clocks

CLOCKS_OF_LEAD_MAX = 500

Word = Annotated[str | None, Query(min_length=1, max_length=100)]
Since = Annotated[Timestamp | None, Query(alias="from", description="Due then or later.")]
Until = Annotated[Timestamp | None, Query(alias="to", description="Due before then.")]


def router(database: Database, sla_cache: SlaVersionCache) -> APIRouter:
    """The routes over one database."""
    routes = APIRouter(tags=["clocks"])

    @routes.get("/v1/clocks", summary="List clocks", operation_id="list_clocks")
    async def clocks(
        state: ClockState | None = None,
        clause: Word = None,
        owner: Word = None,
        due_before: Timestamp | None = None,
        limit: Limit = 100,
        cursor: CursorText = None,
        _caller: Caller = require("sla:read"),
    ) -> ClockPage:
        """Clocks by their deadline, the soonest first."""
        filters = ClockFilter(state, clause, owner, due_before, decode_cursor(cursor, datetime, UUID))
        found = await list_clocks(database, filters, limit + 1)
        items, next_cursor = make_page([clock_answer(clock) for clock in found.items], limit, _cursor)
        return ClockPage(items=items, next_cursor=next_cursor, as_of=found.as_of)

    @routes.get(
        "/v1/leads/{lead_id}/clocks",
        summary="The clocks of a lead",
        operation_id="get_lead_clocks",
        responses=problems(404),
    )
    async def lead_clocks(lead_id: UUID, _caller: Caller = require("sla:read")) -> LeadClocks:
        """All clocks of one lead, the latest start first; at most 500."""
        found = await get_lead_clocks(database, lead_id, CLOCKS_OF_LEAD_MAX)
        if found is None:
            raise not_found("lead")
        return LeadClocks(lead_id=lead_id, items=[clock_answer(clock) for clock in found.items], as_of=found.as_of)

    @routes.get("/v1/breaches", summary="List breaches", operation_id="list_breaches")
    async def breaches(
        since: Since = None,
        until: Until = None,
        clause: Word = None,
        obliges: Department | None = None,
        withdrawn: Annotated[bool, Query(description="Include breaches that a late report withdrew.")] = False,
        limit: Limit = 100,
        cursor: CursorText = None,
        _caller: Caller = require("sla:read"),
    ) -> BreachPage:
        """Breached clauses of both departments, by deadline."""
        filters = BreachFilter(since, until, clause, obliges, withdrawn, decode_cursor(cursor, datetime, UUID))
        found = await list_breaches(database, filters, limit + 1)
        items, next_cursor = make_page([breach_answer(clock) for clock in found.items], limit, _cursor)
        return BreachPage(items=items, next_cursor=next_cursor, as_of=found.as_of)

    @routes.post(
        "/v1/breaches/{breach_id}/acknowledge",
        summary="Acknowledge a breach",
        operation_id="acknowledge_breach",
        responses=problems(404),
    )
    async def acknowledge_one(
        breach_id: UUID, body: AcknowledgeIn, caller: Caller = require("sla:write")
    ) -> BreachAnswer:
        """No further step of its clock notifies. Its other consequences follow all the same; again, it replaces the note."""
        clock = await acknowledge(database, breach_id, caller.name, body.note)
        if clock is None:
            raise not_found("breach")
        return breach_answer(clock)

    @routes.get("/v1/attainment", summary="Attainment", operation_id="get_attainment")
    async def get_attainment_of_period(
        since: Since = None,
        until: Until = None,
        by: By | None = None,
        _caller: Caller = require("sla:read"),
    ) -> AttainmentAnswer:
        """Met / (met + breached) of what was due in the period; without `by` one group whose `by` is `{}`."""
        found = await get_attainment(database, sla_cache, since, until, by)
        return AttainmentAnswer(
            definition=AttainmentDefinition(timezone=found.zone, from_=since, to=until),
            as_of=found.as_of,
            groups=[attainment_group(counts, by) for counts in found.groups],
        )

    return routes


def _cursor(answer: ClockAnswer | BreachAnswer) -> PageCursor:
    return answer.due_at, answer.clock_id
