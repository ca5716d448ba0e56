"""Leads, read: one with its gates and scores explained, its history, and lists."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Response

from accord.clock import utc_now
from accord.contracts.values import Timestamp
from accord.db import Database
from accord.http.auth import Caller, require
from accord.http.openapi import problems
from accord.http.paging import CursorText, Limit, Page, decode_single_cursor, make_page
from accord.http.problems import not_found, parameter_error
from qualification.definition.service import DefinitionVersionCache
from qualification.lifecycle.api.models import (
    EntryAnswer,
    LeadAnswer,
    LeadRow,
    build_entry_answer,
    build_lead_answer,
    build_lead_row,
)
from qualification.lifecycle.api.references import ERASED, Reference, format_etag, lead_erased, require_reference
from qualification.lifecycle.queries.listing import Filter
from qualification.lifecycle.service.views import LeadView, list_leads, view_history, view_lead, view_lead_at

_LEAD: dict[str, Any] = {
    "lead_id": "0198c0de-0000-7000-8000-000000000001",
    "source": "website",
    "captured_at": "2027-01-04T15:30:00Z",
    "stage": "mql",
    "stage_since": "2027-01-04T15:30:00Z",
    "visit": 1,
    "owner": None,
    "fit": 40.0,
    "engagement": 0.0,
    "grade": None,
    "definition_version": 1,
    "allowed_decisions": ["accept", "lose"],
    "amount": None,
    "expected_close": None,
    "gates": [
        {
            "stage": "mql",
            "holds": True,
            "why": [
                {
                    "path": "attributes.employee_count",
                    "op": "gte",
                    "expected": 50,
                    "actual": 250,
                    "held": True,
                    "at": "/all/0",
                }
            ],
        }
    ],
    "score": [{"rule": "size", "score": "fit", "points": 40.0, "reason": "employee count is 200 or more"}],
    "as_of": "2027-01-04T16:00:00Z",
}


Word = Annotated[str | None, Query(min_length=1, max_length=100)]


def router(database: Database, definitions: DefinitionVersionCache) -> APIRouter:
    """The routes over one database and the definition in force."""
    routes = APIRouter(tags=["leads"])

    @routes.get("/v1/leads", summary="List leads", operation_id="list_leads")
    async def get_leads(
        stage: Word = None,
        owner: Word = None,
        grade: Word = None,
        since: Annotated[Timestamp | None, Query(description="In their present stage since then or later.")] = None,
        limit: Limit = 100,
        cursor: CursorText = None,
        _caller: Caller = require("leads:read"),
    ) -> Page[LeadRow]:
        """Leads in the order of their ids, which is that of their capture; with the scores as they were last published."""
        filters = Filter(stage, owner, grade, since, decode_single_cursor(cursor, UUID))
        rows = await list_leads(database, filters, limit + 1)
        items, next_cursor = make_page([build_lead_row(row) for row in rows], limit, lambda row: row.lead_id)
        return Page(items=items, next_cursor=next_cursor)

    @routes.get(
        "/v1/leads/{lead}",
        summary="One lead, explained",
        operation_id="get_lead",
        responses={200: {"content": {"application/json": {"example": _LEAD}}}, **problems(404), **ERASED},
    )
    async def get_lead(
        lead: Reference,
        response: Response,
        at: Annotated[
            Timestamp | None,
            Query(
                description="As of this past moment, by what is known now; judged by the version that judged it then."
            ),
        ] = None,
        _caller: Caller = require("leads:read"),
    ) -> LeadAnswer:
        """Stage, scores and what may be decided; every automatic gate with each comparison, and every rule with its points.

        Scores and gates are those of this moment under the definition in force, or, with `at`, those of a past moment, recomputed
        from the lead's log. A lead that was merged is answered by its survivor, whose id it carries; with `at` before the merge, by
        itself. An erased one is 410.
        """
        view = await _view(database, definitions, lead, at)
        if at is None:
            response.headers["ETag"] = format_etag(view.lead.revision)
        return build_lead_answer(view)

    @routes.get(
        "/v1/leads/{lead}/history",
        summary="The stages of a lead",
        operation_id="get_lead_history",
        responses={**problems(404), **ERASED},
    )
    async def get_history(
        lead: Reference, limit: Limit = 100, cursor: CursorText = None, caller: Caller = require("leads:read")
    ) -> Page[EntryAnswer]:
        """Each entry into a stage, in the order in which it was said, with its cause, version and the decision that led to it.

        What was heard late corrects entries: those that stand now have a `position`, others have none and stay to be seen. `entered_at`
        is as reported and may be earlier than that of the entry before. Notes need `personal:read`.
        """
        after = decode_single_cursor(cursor, int) or 0
        found = await view_history(
            database, require_reference(lead), after, limit + 1, with_notes="personal:read" in caller.scopes
        )
        if found is None:
            raise not_found("lead")
        if found[0].erased:
            raise lead_erased()
        rows, next_cursor = make_page(found[1], limit, lambda row: int(row["sequence"]))
        return Page(items=[build_entry_answer(row) for row in rows], next_cursor=next_cursor)

    return routes


async def _view(database: Database, definitions: DefinitionVersionCache, lead: str, at: datetime | None) -> LeadView:
    """The lead as it is, or as it was. Raises Problem 404, 410, 422."""
    now = utc_now()
    if at is None:
        view = await view_lead(database, require_reference(lead), await definitions.in_force(), now)
    elif at > now:
        raise parameter_error("at", "must not be in the future")
    else:
        view = await view_lead_at(database, require_reference(lead), definitions, at)
    if view is None:
        raise not_found("lead")
    if view.lead.erased:
        raise lead_erased()
    return view
