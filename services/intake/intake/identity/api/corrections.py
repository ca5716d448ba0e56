"""PATCH /v1/leads/{lead_id}: a person corrects a lead."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Body, Request, Response

from accord.http.auth import Caller, forbidden, require
from accord.http.conditional import LeadMatch, require_if_match
from accord.http.openapi import problems
from intake.identity.domain.correction import CorrectionIn
from intake.identity.service.correct import CorrectionRequest, LeadCorrector
from intake.leads.api import LeadOut, etag_for, to_lead_out
from intake.policy.api import CORRECTED, rejection
from intake.policy.service.evaluation import RejectedByPolicy

_CORRECTION_EXAMPLE: dict[str, object] = {
    "email": "ada@initech.example",
    "title": None,
    "attributes": {"employee_count": 260},
}


def correction_router(corrector: LeadCorrector) -> APIRouter:
    """The route over one use case."""
    router = APIRouter(tags=["leads"])

    @router.patch(
        "/v1/leads/{lead_id}",
        summary="Correct a lead",
        operation_id="correct_lead",
        responses=problems(404, 409, 410, 412),
    )
    async def correct_lead(
        lead_id: UUID,
        said: Annotated[CorrectionIn, Body(openapi_examples={"some": {"value": _CORRECTION_EXAMPLE}})],
        request: Request,
        response: Response,
        _if_match: LeadMatch = None,
        caller: Caller = require("leads:write"),
    ) -> LeadOut:
        """A JSON merge patch (RFC 7396): what is named is replaced, null takes it away. Personal fields need `personal:read`.

        A correction is said now: only what is said later replaces it. It is normalized as a submission is and judged by the data policy:
        one that would make the record be rejected is 422. It is kept among the submissions as of the source `correction`. A corrected
        address or number takes the place of the old one as a key; one that belongs to another lead is 409 with its `lead_id`.
        """
        if said.person and "personal:read" not in caller.scopes:
            raise forbidden("personal:read")
        expected = require_if_match(request) if "if-match" in request.headers else None
        content = (await request.body()).decode()
        asked = CorrectionRequest(
            said, content, caller.name, lambda found: expected is None or expected == etag_for(found, caller)
        )
        try:
            found = await corrector.correct(lead_id, asked)
        except RejectedByPolicy as rejected:
            raise rejection(CORRECTED, rejected.quality, rejected.reason) from None
        response.headers["ETag"] = etag_for(found, caller)
        return to_lead_out(found, caller)

    return router
