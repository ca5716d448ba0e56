"""Who has a lead: given by hand, read with every comparison, and listed by person. Decides nothing itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal
from uuid import UUID

import asyncpg
import orjson
from fastapi import APIRouter, Body, Path, Request, Response
from pydantic import BaseModel, Field, TypeAdapter

from accord.contracts.values import Handle, Timestamp
from accord.db import Database
from accord.http.auth import Caller, require
from accord.http.conditional import LeadMatch
from accord.http.idempotency import Answer, IdempotencyRequest, idempotency
from accord.http.openapi import problems
from accord.http.paging import CursorText, Limit, Page, decode_cursor, decode_single_cursor, make_page
from accord.http.problems import Problem, not_found, validation_error_at
from qualification.definition.service import DefinitionVersionCache
from qualification.lifecycle.api.batches import build_refused_row, describe_batch, read_batch
from qualification.lifecycle.api.decisions import build_problem
from qualification.lifecycle.api.models import (
    LeadRow,
    RefusedRow,
    RowReference,
    WhyLeaf,
    Wire,
    Word,
    build_lead_row,
)
from qualification.lifecycle.api.references import (
    DESCRIPTION,
    ERASED,
    Reference,
    format_etag,
    lead_erased,
    parse_if_match,
    parse_known_reference,
    require_reference,
)
from qualification.lifecycle.domain.decisions import Refused
from qualification.lifecycle.service.decisions import Author
from qualification.routing.domain.assignment import Assignment, How
from qualification.routing.domain.document import Method
from qualification.routing.service.assignment import Cause, explanation_json
from qualification.routing.service.document import RoutingVersionCache
from qualification.routing.service.manual_assignment import (
    InvalidMoment,
    OwnerChange,
    OwnerChangeOutcome,
    OwnerChangeResult,
    UnknownOwner,
    assign_by_hand,
    list_assignments,
    list_owned,
)

_ASSIGNMENT: dict[str, Any] = {"owner": "ann", "reason": "territory"}

_ASSIGNED: dict[str, Any] = {
    "lead_id": "0198c0de-0000-7000-8000-000000000001",
    "owner": "ann",
    "previous_owner": "bob",
    "changed": True,
    "occurred_at": "2027-01-04T16:00:00Z",
}


Owner = Annotated[
    str,
    Path(
        min_length=1,
        max_length=100,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]*$",
        description="The person's handle, as the routing document has it.",
        examples=["ann"],
    ),
]
_NIL = UUID(int=0)


class AssignmentRequest(Wire):
    """A lead goes to a person."""

    owner: Handle = Field(description="Somebody whom the routing document names.", examples=["ann"])
    reason: Word | None = Field(
        default=None,
        description="One word of the team's own, such as `territory`; no free text.",
        examples=["territory"],
    )
    occurred_at: Timestamp | None = Field(
        default=None,
        description="When the lead was given to the person; now, if left out. Not before its capture or its last assignment.",
    )

    def change(self, lead: UUID | str, revision: int | None = None) -> OwnerChange:
        return OwnerChange(lead, self.owner, self.reason, self.occurred_at, revision)


class AssignmentBatchRow(AssignmentRequest):
    """One assignment of a batch."""

    lead: RowReference = Field(description=DESCRIPTION, examples=["external:crm:4711"])


_ROWS: list[dict[str, Any]] = [
    {"lead": "external:crm:4711", "owner": "ann", "occurred_at": "2027-01-05T10:00:00-06:00"},
    {"lead": "external:crm:4711", "owner": "bob", "reason": "territory", "occurred_at": "2027-02-01T09:00:00-06:00"},
]
_ROW = TypeAdapter(AssignmentBatchRow)


class AssignmentAnswer(BaseModel):
    """Whose the lead is now. `changed` is false where it was already, and then nothing was recorded."""

    lead_id: UUID
    owner: str
    previous_owner: str | None
    changed: bool
    occurred_at: Timestamp


class AssignedRow(AssignmentAnswer):
    """A row that was taken; 200 where the person had the lead already."""

    status: Literal[200, 201]


class AssignmentBatchAnswer(BaseModel):
    """The answers, in the order of the rows."""

    results: list[AssignedRow | RefusedRow]


class RuleAnswer(BaseModel):
    """A rule that was looked at, in order; the first that held named the pool."""

    rule: str
    pool: str
    held: bool
    why: list[WhyLeaf]


class StickyAnswer(BaseModel):
    """Somebody whom the lead would have stayed with: its own owner before, or its account's."""

    because: str = Field(examples=["account"])
    owner: str
    taken: bool
    why: str


class MemberAnswer(BaseModel):
    """A member of a pool before the pick. `current` is nginx's current weight; of those who are available, `current` + `weight` decides."""

    owner: str
    weight: int
    current: float
    open: int = Field(description="Open leads, counted up to 2,000.")
    capacity: int | None
    available: bool
    why_not: str | None


class PoolAnswer(BaseModel):
    """A pool that was asked."""

    pool: str
    method: Method
    fallback: bool
    members: list[MemberAnswer]
    picked: str | None


class ExplanationAnswer(BaseModel):
    """Why, to the last comparison."""

    how: How = Field(
        description="Kept by its own owner, kept with the account, from the pool, from the fallback, or nobody."
    )
    rules: list[RuleAnswer]
    sticky: list[StickyAnswer]
    pools: list[PoolAnswer]


class AssignmentRow(BaseModel):
    """One assignment of a lead. `explanation` is null where a person or a merge decided, and for an erased person."""

    assignment_id: UUID
    owner: str | None = Field(description="Null: nobody was available, and the lead waits.")
    previous_owner: str | None
    pool: str | None
    cause: Cause
    why: str
    reason: str | None
    actor: str | None
    clause: str | None = Field(description="The clause of the SLA that was broken, where that was the cause.")
    breach_id: UUID | None
    routing_version: int | None
    explanation: ExplanationAnswer | None
    occurred_at: Timestamp


class OwnedRow(LeadRow):
    """A lead of one person."""

    open: bool


def router(database: Database, definitions: DefinitionVersionCache, routing_cache: RoutingVersionCache) -> APIRouter:
    """The routes over one database, the definition and the routing in force."""
    routes = APIRouter(tags=["routing"])

    @routes.post(
        "/v1/leads/{lead}/assignment",
        status_code=201,
        summary="Give a lead to a person",
        operation_id="assign_lead",
        response_model=AssignmentAnswer,
        responses={
            200: {"description": "The person had the lead already; nothing was recorded.", "model": AssignmentAnswer},
            201: {"content": {"application/json": {"example": _ASSIGNED}}},
            **problems(404, 412),
            **ERASED,
        },
    )
    async def assign_lead(
        lead: Reference,
        body: Annotated[AssignmentRequest, Body(openapi_examples={"by hand": {"value": _ASSIGNMENT}})],
        if_match: LeadMatch = None,
        caller: Caller = require("decisions:write"),
        idempotency_request: IdempotencyRequest | None = idempotency(),
    ) -> Response:
        """A person decides who has the lead, also beyond a capacity or an absence. No pool's turn is used up by it.

        The owner must be somebody whom the routing document names, under `people` or in a pool; without a document any handle
        goes. A lead that was merged is followed to its survivor, whose id is answered.
        """
        change = body.change(require_reference(lead), parse_if_match(if_match))
        author = Author(caller.name, caller.department)
        routing, rules = await routing_cache.in_force(), await definitions.in_force()
        done = await assign_by_hand(database, routing, rules, [change], author, idempotency_request, _encode)
        return done.answer.response()

    @routes.post(
        "/v1/assignments:batch",
        summary="Give many leads to people",
        operation_id="assign_batch",
        response_model=AssignmentBatchAnswer,
        openapi_extra=describe_batch(AssignmentBatchRow.model_json_schema(), _ROWS),
    )
    async def assign_leads(
        request: Request,
        caller: Caller = require("decisions:write"),
        idempotency_request: IdempotencyRequest | None = idempotency(),
    ) -> Response:
        """Up to 1,000 assignments in one transaction, taken in order; a lead may appear several times, oldest first.

        So a CRM's history of owners is brought in. Each row is answered in its place, with the status and the members that a single
        assignment would have; a row that is refused has a `problem` and spoils no other.
        """
        batch = await read_batch(request, "assignments", _ROW, lambda row: row.change(parse_known_reference(row.lead)))

        def encode(outcomes: Sequence[OwnerChangeOutcome]) -> Answer:
            return batch.encode(outcomes, _build_outcome_row)

        author = Author(caller.name, caller.department)
        routing, rules = await routing_cache.in_force(), await definitions.in_force()
        done = await assign_by_hand(database, routing, rules, batch.inputs, author, idempotency_request, encode)
        return done.answer.response()

    @routes.get(
        "/v1/leads/{lead}/assignments",
        summary="Who was given a lead, and why",
        operation_id="get_lead_assignments",
        responses={**problems(404), **ERASED},
    )
    async def get_assignments(
        lead: Reference, limit: Limit = 100, cursor: CursorText = None, _caller: Caller = require("leads:read")
    ) -> Page[AssignmentRow]:
        """Each assignment in the order in which it was made, with every rule, comparison and member that was looked at."""
        after = decode_single_cursor(cursor, int) or 0
        found = await list_assignments(database, require_reference(lead), after, limit + 1)
        if found is None:
            raise not_found("lead")
        if found[0].erased:
            raise lead_erased()
        rows, next_cursor = make_page(found[1], limit, lambda row: int(row["sequence"]))
        return Page(items=[_build_row(row) for row in rows], next_cursor=next_cursor)

    @routes.get("/v1/owners/{name}/leads", summary="A person's leads", operation_id="list_owned_leads")
    async def get_owned_leads(
        name: Owner, limit: Limit = 100, cursor: CursorText = None, _caller: Caller = require("leads:read")
    ) -> Page[OwnedRow]:
        """The leads that this person has, open ones first, each part in the order of capture."""
        open_ones, after = decode_cursor(cursor, int, UUID) or (1, _NIL)
        found = await list_owned(database, name, await definitions.in_force(), (bool(open_ones), after), limit + 1)
        rows, next_cursor = make_page(found, limit, lambda item: (int(item[0]), item[1].lead_id))
        items = [OwnedRow(**build_lead_row(row).model_dump(), open=opened) for opened, row in rows]
        return Page(items=items, next_cursor=next_cursor)

    return routes


def build_explanation(made: Assignment) -> ExplanationAnswer:
    """Why, of an assignment that was just thought through."""
    return ExplanationAnswer.model_validate(orjson.loads(explanation_json(made)))


def _build_row(row: asyncpg.Record) -> AssignmentRow:
    stored = row["explanation"]
    plain = {name: row[name] for name in AssignmentRow.model_fields if name != "explanation"}
    return AssignmentRow(**plain, explanation=None if stored is None else ExplanationAnswer.model_validate_json(stored))


def _encode(outcomes: Sequence[OwnerChangeOutcome]) -> Answer:
    result = outcomes[0]
    if not isinstance(result, OwnerChangeResult):
        raise _build_problem(result)
    headers = {"ETag": format_etag(result.revision), "Location": f"/v1/leads/{result.lead_id}/assignments"}
    content = orjson.dumps(_result_members(result), option=orjson.OPT_UTC_Z)
    return Answer(201 if result.changed else 200, content, headers, subject=result.lead_id)


def _result_members(result: OwnerChangeResult) -> dict[str, object]:
    return {
        "lead_id": str(result.lead_id),
        "owner": result.owner,
        "previous_owner": result.previous_owner,
        "changed": result.changed,
        "occurred_at": result.at,
    }


def _build_outcome_row(index: int, outcome: OwnerChangeOutcome) -> Mapping[str, object]:
    if isinstance(outcome, OwnerChangeResult):
        return {"status": 201 if outcome.changed else 200, **_result_members(outcome)}
    return build_refused_row(_build_problem(outcome, f"/{index}"))


def _build_problem(refusal: Refused | UnknownOwner | InvalidMoment, at: str = "") -> Problem:
    """The error answer for an assignment that was refused; `at` is the pointer of its row."""
    if isinstance(refusal, Refused):
        return build_problem(refusal, at)
    if isinstance(refusal, InvalidMoment):
        return validation_error_at(f"{at}/occurred_at", str(refusal))
    message = "Is nobody whom the routing document names"
    return Problem(
        422,
        "unknown-owner",
        "Unknown owner",
        f"{message}. Add the person under `people`, or to a pool.",
        errors=[{"pointer": f"{at}/owner", "message": message}],
    )
