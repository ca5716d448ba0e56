"""POST /v1/activities and /v1/activities:batch: what happened with leads."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from pydantic import BaseModel, Field
from starlette.routing import BaseRoute, Route

from accord.batching import GroupCommit
from accord.db import Database
from accord.http.idempotency import IdempotentResult
from accord.http.openapi import operation
from intake.capture.api.rows import NDJSON, ROWS_MAX, RowRoutes
from intake.capture.api.submissions import RefusedRow
from intake.capture.service.record import ActivityRequest, ActivityResult
from intake.leads.api import LEAD_ID, LEFT_OUT, LeftOutOut
from intake.leads.domain.submission import ActivityIn

_ACTIVITY_EXAMPLE: dict[str, object] = {
    "lead_id": LEAD_ID,
    "kind": "email.clicked",
    "by": "lead",
    "occurred_at": "2026-01-05T10:12:00Z",
    "campaign": {"name": "spring"},
    "properties": {"link": "pricing"},
}


class RecordedOut(BaseModel):
    """The activity is saved. `lead_id` is the survivor's where the lead was merged."""

    activity_id: UUID
    lead_id: UUID
    outcome: Literal["replayed"] | None = None
    left_out: list[LeftOutOut] = Field(default=[], description=LEFT_OUT)


class RecordedRow(RecordedOut):
    """The result of one row."""

    status: Literal[200, 202]


class ActivityBatchOut(BaseModel):
    """One result for each row, in order."""

    results: list[RecordedRow | RefusedRow]


def activity_routes(
    database: Database, activities: GroupCommit[ActivityRequest, IdempotentResult[ActivityResult]]
) -> list[BaseRoute]:
    """The two routes."""
    rows = RowRoutes(
        database,
        ActivityIn,
        activities,
        lambda row, _, caller, idempotency_request: ActivityRequest(row, caller.name, idempotency_request),
    )
    return [
        Route("/v1/activities", rows.post_one, methods=["POST"]),
        Route("/v1/activities:batch", rows.post_many, methods=["POST"]),
    ]


_EXAMPLE: dict[str, object] = {
    "activity_id": "019f3b1e-7a52-7c31-9a55-8a4f3c1d2e12",
    "lead_id": LEAD_ID,
    "left_out": [],
}

ACTIVITIES_OPENAPI = {
    "/v1/activities": {
        "post": operation(
            "Record an activity",
            scope="leads:write",
            description="Something that the lead, marketing or sales did. 202 once it is saved; 404 if there is no such lead.",
            tags=["activities"],
            operation_id="record_activity",
            body=ActivityIn,
            body_examples={"activity": _ACTIVITY_EXAMPLE},
            answers={202: RecordedOut, 200: RecordedOut},
            answer_examples={202: _EXAMPLE, 200: {**_EXAMPLE, "outcome": "replayed"}},
            problems=(404, 409, 415, 422, 503),
            idempotent=True,
        )
    },
    "/v1/activities:batch": {
        "post": operation(
            "Record many activities",
            scope="leads:write",
            description=f"A JSON array or NDJSON of 1 to {ROWS_MAX} activities. Every row has its own result, in order.",
            tags=["activities"],
            operation_id="record_activities",
            body=list[ActivityIn],
            body_examples={"activities": [_ACTIVITY_EXAMPLE]},
            body_media=("application/json", NDJSON),
            answers={200: ActivityBatchOut},
            answer_examples={200: {"results": [{"status": 202, **_EXAMPLE}]}},
            problems=(415, 422, 503),
            idempotent=True,
        )
    },
}
