"""POST /v1/leads and /v1/leads:batch: submissions in, the hottest paths of the product."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from pydantic import BaseModel, Field
from starlette.routing import BaseRoute, Route

from accord.batching import GroupCommit
from accord.contracts.values import Verdict
from accord.db import Database
from accord.http.idempotency import IdempotentResult
from accord.http.openapi import operation
from accord.http.problems import ProblemDocument
from intake.capture.api.rows import NDJSON, ROWS_MAX, RowRoutes
from intake.capture.service.capture import CaptureResult
from intake.leads.api import LEAD_ID, LEFT_OUT, LeftOutOut, QualityOut
from intake.leads.domain.submission import Submission
from intake.leads.service.submissions import CaptureRequest

_SUBMISSION_EXAMPLE: dict[str, object] = {
    "source": "website",
    "external_id": "42",
    "email": "ada@initech.example",
    "phone": "+1 202 555 0143",
    "first_name": "Ada",
    "last_name": "Byron",
    "company": "Initech",
    "domain": "initech.example",
    "title": "CTO",
    "attributes": {
        "employee_count": 250,
        "industry": "541511",
        "country": "US",
        "line_of_business": "software",
        "dnb_rating": "4A1",
        "bbb_rating": "A+",
    },
    "campaign": {
        "name": "spring",
        "medium": "cpc",
        "content": "a",
        "term": "crm",
        "landing_page": "/demo",
        "cost": {"amount": "2.10", "currency": "USD"},
    },
    "consent": {"basis": "consent", "given_at": "2026-01-04T09:29:00-06:00"},
    "occurred_at": "2026-01-04T09:30:00-06:00",
}
_CAPTURED_EXAMPLE: dict[str, object] = {
    "submission_id": "019f3b1e-7a52-7c31-9a55-8a4f3c1d2e11",
    "lead_id": LEAD_ID,
    "outcome": "created",
    "verdict": "flagged",
    "quality": {
        "score": 0.86,
        "policy_version": 3,
        "failed": [{"parameter": "company-size", "consequence": "flag", "reason": "employee_count is below 50"}],
    },
    "left_out": [{"pointer": "/attributes/country", "message": "Is no country: nearly Philippines (PH)"}],
}


class CapturedOut(BaseModel):
    """What became of a submission, saved before it was answered."""

    submission_id: UUID
    lead_id: UUID = Field(description="The lead; a quarantined one does not enter before it is released.")
    outcome: Literal["created", "updated", "merged", "replayed"]
    verdict: Verdict
    quality: QualityOut
    left_out: list[LeftOutOut] = Field(default=[], description=LEFT_OUT)


class CapturedRow(CapturedOut):
    """The result of one row."""

    status: Literal[200, 201]


class RefusedRow(BaseModel):
    """A row that was not taken, and why."""

    status: int = Field(ge=400, le=599)
    problem: ProblemDocument


class BatchOut(BaseModel):
    """One result for each row, in order."""

    results: list[CapturedRow | RefusedRow]


def submission_routes(
    database: Database, captures: GroupCommit[CaptureRequest, IdempotentResult[CaptureResult]]
) -> list[BaseRoute]:
    """The two routes."""
    rows = RowRoutes(
        database,
        Submission,
        captures,
        lambda row, content, caller, idempotency_request: CaptureRequest(
            row, content, caller.name, idempotency_request, is_canonical=True
        ),
    )
    return [
        Route("/v1/leads", rows.post_one, methods=["POST"]),
        Route("/v1/leads:batch", rows.post_many, methods=["POST"]),
    ]


SUBMISSIONS_OPENAPI = {
    "/v1/leads": {
        "post": operation(
            "Submit a lead",
            scope="leads:write",
            description=(
                "Takes one record from any source, judges it by the data policy in force and answers once it is saved."
                " 201 for a new lead, 200 for a known one. A record that the policy refuses is 422 of type"
                " `/problems/rejected-by-policy` with `quality`; it is kept all the same."
            ),
            tags=["leads"],
            operation_id="submit_lead",
            body=Submission,
            body_examples={"lead": _SUBMISSION_EXAMPLE},
            answers={201: CapturedOut, 200: CapturedOut},
            answer_examples={201: _CAPTURED_EXAMPLE, 200: {**_CAPTURED_EXAMPLE, "outcome": "updated"}},
            problems=(409, 415, 422, 503),
            idempotent=True,
        )
    },
    "/v1/leads:batch": {
        "post": operation(
            "Submit many leads",
            scope="leads:write",
            description=(
                f"A JSON array or NDJSON of 1 to {ROWS_MAX} records. Every row has its own result, in order; a row that does"
                " not fit spoils no other. With an Idempotency-Key each row happens once."
            ),
            tags=["leads"],
            operation_id="submit_leads",
            body=list[Submission],
            body_examples={"leads": [_SUBMISSION_EXAMPLE]},
            body_media=("application/json", NDJSON),
            answers={200: BatchOut},
            answer_examples={200: {"results": [{"status": 201, **_CAPTURED_EXAMPLE}]}},
            problems=(415, 422, 503),
            idempotent=True,
        )
    },
}
