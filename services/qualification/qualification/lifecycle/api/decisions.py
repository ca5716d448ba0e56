"""Decisions over HTTP: one about a lead, or a CRM's batch. Says what became of each; decides nothing itself."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Body, Request, Response
from pydantic import TypeAdapter

from accord.db import Database
from accord.http.auth import Caller, require
from accord.http.conditional import LeadMatch, precondition_failed
from accord.http.idempotency import Answer, IdempotencyRequest, idempotency
from accord.http.openapi import problems
from accord.http.problems import Problem, not_found
from qualification.lifecycle.api.batches import build_refused_row, describe_batch, read_batch
from qualification.lifecycle.api.models import (
    BatchAnswer,
    DecisionAnswer,
    DecisionRequest,
    DecisionRow,
    build_decision_answer,
)
from qualification.lifecycle.api.references import (
    ERASED,
    Reference,
    format_etag,
    lead_erased,
    parse_if_match,
    parse_known_reference,
    require_reference,
)
from qualification.lifecycle.domain.decisions import (
    DefinitionChanged,
    InvalidDecision,
    LeadModified,
    LeadNotFound,
    LeadWasErased,
    NotAllowed,
    Refused,
)
from qualification.lifecycle.service.decisions import (
    Author,
    DecisionOutcome,
    DecisionResult,
    record_decisions,
)
from qualification.lifecycle.service.evaluation_context import EvaluationContexts

_DECISION: dict[str, Any] = {
    "decision": "win",
    "note": "Signed today.",
    "fields": {"amount": {"amount": "1200.50", "currency": "USD"}, "expected_close": "2027-03-31"},
}

_DECIDED: dict[str, Any] = {
    "lead_id": "0198c0de-0000-7000-8000-000000000001",
    "merged_lead_id": None,
    "decision_id": "0198c0de-0000-7000-8000-000000000002",
    "decision": "win",
    "reason": None,
    "stage": "won",
    "from": "sal",
    "stage_now": "won",
    "visit": 1,
    "occurred_at": "2027-02-01T09:00:00Z",
    "recorded_at": "2027-02-01T09:00:00Z",
    "definition_version": 1,
    "allowed_decisions": ["lose"],
}

_ROWS: list[dict[str, Any]] = [
    {"lead": "external:crm:4711", "decision": "accept", "occurred_at": "2027-01-05T10:00:00-06:00"},
    {"lead": "0198c0de-0000-7000-8000-000000000003", "decision": "lose", "reason": "price"},
]

_ROW = TypeAdapter(DecisionRow)


def router(database: Database, contexts: EvaluationContexts) -> APIRouter:
    """The routes over one database and the books of what leads are judged by."""
    routes = APIRouter(tags=["decisions"])

    @routes.post(
        "/v1/leads/{lead}/decisions",
        status_code=201,
        summary="Decide about a lead",
        operation_id="decide",
        response_model=DecisionAnswer,
        responses={
            201: {"content": {"application/json": {"example": _DECIDED}}},
            **problems(404, 409, 412),
            **ERASED,
        },
    )
    async def decide_lead(
        lead: Reference,
        body: Annotated[DecisionRequest, Body(openapi_examples={"win": {"value": _DECISION}})],
        if_match: LeadMatch = None,
        caller: Caller = require("decisions:write"),
        idempotency_request: IdempotencyRequest | None = idempotency(),
    ) -> Response:
        """Take one of the decisions that the lead's stage allows; 409 says in `allowed_decisions` which those are.

        The reason must be one of those that both departments agreed on, and the fields that the gate asks for must be there.
        `occurred_at` may be in the past, but not before the capture: the decision is put into its place in the lead's history, and what
        followed is derived anew; if the stage of that moment does not allow it, 409 says which was allowed then. A lead that was merged
        is followed to its survivor, and `merged_lead_id` says so. The key's department is recorded with the decision. Of two decisions
        at once one wins, and the other is answered 409 with where the lead stands now.
        """
        proposal = body.proposal(require_reference(lead), parse_if_match(if_match))

        def encode(answers: Sequence[DecisionOutcome]) -> Answer:
            result = answers[0]
            if isinstance(result, Refused):
                raise build_problem(result)
            headers = {
                "ETag": format_etag(result.revision),
                "Location": f"/v1/leads/{result.lead.lead_id}/history",
            }
            return Answer(201, _json(build_decision_answer(result)), headers, subject=result.lead.lead_id)

        author = Author(caller.name, caller.department)
        return (
            await record_decisions(database, contexts, [proposal], author, idempotency_request, encode)
        ).answer.response()

    @routes.post(
        "/v1/decisions:batch",
        summary="Decide about many leads",
        operation_id="decide_batch",
        response_model=BatchAnswer,
        openapi_extra=_batch_body(),
    )
    async def decide_leads(
        request: Request,
        caller: Caller = require("decisions:write"),
        idempotency_request: IdempotencyRequest | None = idempotency(),
    ) -> Response:
        """Up to 1,000 decisions in one transaction, taken in order; a lead may appear several times.

        Each row is answered in its place, with the status and the members that a single decision would have; a row that is
        refused has a `problem` and spoils no other. A CRM may date a row before what it stands on, or before the capture: where its
        place does not allow it and the lead's present stage does, it is taken as the newest decision, dated as it is.
        """
        batch = await read_batch(request, "decisions", _ROW, lambda row: row.proposal(parse_known_reference(row.lead)))

        def encode(outcomes: Sequence[DecisionOutcome]) -> Answer:
            return batch.encode(outcomes, _build_outcome_row)

        author = Author(caller.name, caller.department)
        result = await record_decisions(
            database, contexts, batch.inputs, author, idempotency_request, encode, is_batch=True
        )
        return result.answer.response()

    return routes


def build_problem(refusal: Refused, at: str = "") -> Problem:
    """The error answer for a decision that was refused; `at` is the pointer of its row."""
    stage, allowed = refusal.stage, list(refusal.allowed)
    if isinstance(refusal, NotAllowed):
        return Problem(
            409,
            "decision-not-allowed",
            "Decision not allowed",
            f"{refusal.reason}.".capitalize(),
            stage=stage,
            allowed_decisions=allowed,
        )
    if isinstance(refusal, InvalidDecision):
        errors = [{"pointer": at + pointer, "message": message} for pointer, message in refusal.errors]
        return Problem(
            422,
            "invalid-decision",
            "Invalid decision",
            None,
            errors=errors,
            stage=stage,
            allowed_decisions=allowed,
        )
    if isinstance(refusal, LeadModified):
        return precondition_failed(format_etag(refusal.revision), stage=stage, allowed_decisions=allowed)
    if isinstance(refusal, DefinitionChanged):
        return Problem(
            409,
            "definition-changed",
            "The definition has changed",
            "Another version is in force; look at the lead as it stands by that one.",
            stage=stage,
            allowed_decisions=allowed,
            definition_version=refusal.version,
        )
    if isinstance(refusal, LeadWasErased):
        return lead_erased()
    if isinstance(refusal, LeadNotFound):
        return not_found("lead")
    raise AssertionError(f"{type(refusal).__name__} has no answer")


def _build_outcome_row(index: int, answer: DecisionOutcome) -> Mapping[str, object]:
    if isinstance(answer, DecisionResult):
        return {"status": 201, **build_decision_answer(answer)}
    return build_refused_row(build_problem(answer, f"/{index}"))


def _json(value: object) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_UTC_Z)


def _batch_body() -> dict[str, Any]:
    row = DecisionRow.model_json_schema(ref_template="#/components/schemas/{model}")
    parts = row.pop("$defs", {})
    row["properties"] |= {"fields": parts["DecisionFields"] | {"properties": _inlined(parts)}}
    return describe_batch(row, _ROWS)


def _inlined(parts: Mapping[str, Any]) -> dict[str, Any]:
    properties: dict[str, Any] = dict(parts["DecisionFields"]["properties"])
    properties["amount"] = {"anyOf": [parts["Amount"], {"type": "null"}], "default": None}
    return properties
