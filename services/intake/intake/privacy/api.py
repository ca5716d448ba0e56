"""What a person can ask for: everything that is held about them, what they said of consent, and to be erased."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import orjson
from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from starlette.responses import StreamingResponse

from accord.contracts.codec import from_object
from accord.contracts.values import PolicyFailure, Timestamp
from accord.db import Database
from accord.http.auth import Caller, require
from accord.http.idempotency import Answer, IdempotencyRequest, idempotency
from accord.http.openapi import problems
from accord.http.paging import CursorText, Limit, Page, decode_cursor, decode_single_cursor, make_page
from intake.leads.api import LEAD_ID, QualityOut
from intake.leads.domain.consent import Consent
from intake.privacy.domain import ErasureRecord, Reason
from intake.privacy.service import consent as consents
from intake.privacy.service.consent import RecordedConsent
from intake.privacy.service.erase import PersonEraser
from intake.privacy.service.export import FORMAT, Export, submissions_of

_FIRST = UUID(int=0)
_NO_STORE = {"Cache-Control": "no-store"}


class SubmissionOut(BaseModel):
    """A record as it came, and what became of it."""

    submission_id: UUID
    lead_id: UUID = Field(description="The lead that it was of when it came; that may have been merged since.")
    source: str
    sent_by: str = Field(description="The name of the key that sent it.")
    outcome: str | None
    verdict: str
    quality: QualityOut
    state: Literal["waiting", "released", "corrected", "discarded", "expired"] | None = Field(
        description="How it stands with quarantine; null for one that never was in it."
    )
    occurred_at: datetime
    recorded_at: datetime
    dropped: bool = Field(description="Whether what it said was dropped because it is old.")
    content: str | None = Field(description="What was sent, as it was sent. Null without personal:read.")


class ConsentIn(BaseModel):
    """What was said of consent."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"basis": "withdrawn", "given_at": "2026-02-01T09:00:00Z"}]}
    )

    basis: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z_]{0,49}$")] = Field(
        description="On what basis the person may be contacted; `withdrawn` ends every other one."
    )
    given_at: Timestamp | None = Field(default=None, description="When it was said; default: now.")
    text: Annotated[str, Field(max_length=5_000)] | None = Field(default=None, description="What exactly was said.")


class RecordedConsentOut(BaseModel):
    """It is written down."""

    consent_id: UUID
    lead_id: UUID
    basis: str
    given_at: datetime
    recorded_at: datetime


class ConsentOut(BaseModel):
    """One thing that was said of consent."""

    consent_id: UUID
    basis: str
    given_at: datetime
    dated: bool = Field(
        description="False where nobody said when: it lifts no withdrawal, and `given_at` is the record's own time."
    )
    recorded_at: datetime
    text: str | None
    source: str | None
    sent_by: str = Field(description="The name of the key that sent or wrote it.")
    submission_id: UUID | None = Field(description="The record that brought it.")


class ConsentsOut(Page[ConsentOut]):
    """The history in the order in which it was given, and what holds now."""

    in_force: ConsentOut | None = Field(
        description="What holds now; null where nothing was said, and after a withdrawal."
    )


class ErasureOut(BaseModel):
    """That a person was erased. It names nobody."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "erasure_id": "019f3b1e-7a52-7c31-9a55-8a4f3c1d2e20",
                    "lead_ids": [LEAD_ID],
                    "reason": "request",
                    "erased_by": "privacy-desk",
                    "erased_at": "2026-02-01T09:00:00Z",
                    "policy_version": 3,
                    "removed": {"leads": 1, "identity_keys": 2, "submissions": 3, "activities": 12},
                }
            ]
        }
    )

    erasure_id: UUID
    lead_ids: list[UUID] = Field(description="The lead's id and those of all that had been merged into it.")
    reason: Reason
    erased_by: str = Field(description="The name of the key.")
    erased_at: datetime
    policy_version: int | None = Field(description="The data policy in force at that moment.")
    removed: dict[str, int] = Field(description="How many rows of what are gone; what there was none of is left out.")


def privacy_router(database: Database, erase: PersonEraser) -> APIRouter:
    """The routes over one database."""
    router = APIRouter(tags=["privacy"])

    @router.delete(
        "/v1/leads/{lead_id}",
        status_code=204,
        summary="Erase a person",
        operation_id="erase_lead",
        responses={204: {"description": "They are gone; `Location` names the record of it."}, **problems(404, 410)},
    )
    async def erase_lead(
        lead_id: UUID,
        reason: Annotated[Reason, Query(description="Why; a word, so that it names nobody.")] = "request",
        caller: Caller = require("admin"),
    ) -> Response:
        """Everything that intake holds of them goes in one transaction: the lead, all leads that were merged into it, submissions,
        activities, consent, saved answers. The other services drop what they have under the ids when they hear of it.

        The ids are 410 from then on, here and for every other request about them. The same person coming again is a new lead.
        """
        proof = await erase.erase(lead_id, reason, caller.name)
        return Response(status_code=204, headers={"Location": f"/v1/erasures/{proof.erasure_id}"})

    @router.get(
        "/v1/leads/{lead_id}/export",
        summary="Everything that is held about a person",
        operation_id="export_lead",
        response_class=Response,
        responses={
            200: {
                "description": f"One JSON document of format `{FORMAT}`, as an attachment.",
                "content": {"application/json": {"schema": {"type": "object"}}},
            },
            **problems(404, 410),
        },
    )
    async def export_lead(lead_id: UUID, caller: Caller = require("personal:read")) -> Response:
        """`format`, `exported_at`, `lead_id`, `consent_in_force`, and the lists `leads`, `keys`, `merges`, `consents`, `submissions`
        (with what was decided about those in quarantine), `activities`, `hook_events` and `import_rows`. It is sent as it is read; one
        that breaks off is not whole.
        """
        found = Export(database, lead_id, caller.name)
        await found.prepare()
        headers = {**_NO_STORE, "Content-Disposition": f'attachment; filename="lead-{found.lead_id}.json"'}
        return StreamingResponse(found.document(), media_type="application/json", headers=headers)

    @router.get(
        "/v1/leads/{lead_id}/submissions",
        summary="The submissions of a lead",
        operation_id="list_submissions",
        responses=problems(404, 410),
    )
    async def list_submissions(
        lead_id: UUID, caller: Caller = require("leads:read"), limit: Limit = 50, cursor: CursorText = None
    ) -> Page[SubmissionOut]:
        """Oldest first, those of leads that were merged into it among them. `content` needs `personal:read`."""
        found = await submissions_of(
            database,
            lead_id,
            decode_single_cursor(cursor, UUID) or _FIRST,
            limit + 1,
            content="personal:read" in caller.scopes,
        )
        rows, next_cursor = make_page(found, limit, lambda row: str(row["submission_id"]))
        return Page(items=[_submission(row) for row in rows], next_cursor=next_cursor)

    @router.get(
        "/v1/leads/{lead_id}/consents",
        summary="What was said of consent",
        operation_id="list_consents",
        responses=problems(404, 410),
    )
    async def list_consents(
        lead_id: UUID, _: Caller = require("personal:read"), limit: Limit = 50, cursor: CursorText = None
    ) -> ConsentsOut:
        """Kept as long as the lead, also when the records that brought it are dropped."""
        found, current = await consents.list_consents(
            database, lead_id, decode_cursor(cursor, datetime, UUID), limit + 1
        )
        page, next_cursor = make_page(found, limit, lambda one: (one.given_at, one.consent_id))
        return ConsentsOut(
            items=[_consent(one) for one in page],
            next_cursor=next_cursor,
            in_force=None if current is None else _consent(current),
        )

    @router.post(
        "/v1/leads/{lead_id}/consents",
        status_code=201,
        summary="Write down what was said of consent",
        operation_id="record_consent",
        response_model=RecordedConsentOut,
        responses=problems(404, 409, 410),
    )
    async def record_consent(
        lead_id: UUID,
        body: ConsentIn,
        caller: Caller = require("leads:write"),
        idempotency_request: IdempotencyRequest | None = idempotency(),
    ) -> Response:
        """Consent given elsewhere, or withdrawn. A withdrawal is also an activity `consent.withdrawn` by the lead, so that definition and
        SLA can act on it and everybody sees it in the timeline. The text stays in intake.
        """
        statement = consents.ConsentStatement(body.basis, body.given_at, body.text)
        return (
            await consents.record(database, lead_id, statement, caller.name, idempotency_request, _encode_consent)
        ).answer.response()

    @router.get("/v1/erasures", summary="Who was erased, by ids", operation_id="list_erasures")
    async def list_erasures(
        _: Caller = require("admin"), limit: Limit = 50, cursor: CursorText = None
    ) -> Page[ErasureOut]:
        """Newest first. What is kept names nobody: ids, a reason, and how many of what was removed."""
        found = await erase.list_erasures(decode_single_cursor(cursor, UUID), limit + 1)
        page, next_cursor = make_page(found, limit, lambda one: one.erasure_id)
        return Page(items=[_erasure(one) for one in page], next_cursor=next_cursor)

    @router.get("/v1/erasures/{erasure_id}", summary="One erasure", operation_id="get_erasure", responses=problems(404))
    async def get_erasure(erasure_id: UUID, _: Caller = require("admin")) -> ErasureOut:
        return _erasure(await erase.get_erasure(erasure_id))

    return router


def _submission(row: Mapping[str, Any]) -> SubmissionOut:
    failed = [from_object(PolicyFailure, one) for one in row["failed"]]
    return SubmissionOut(
        submission_id=row["submission_id"],
        lead_id=row["lead_id"],
        source=row["source"],
        sent_by=row["caller"],
        outcome=row["outcome"],
        verdict=row["verdict"],
        quality=QualityOut(score=row["quality_score"], policy_version=row["policy_version"], failed=failed),
        state=row["settled"] or "waiting" if row["verdict"] == "quarantined" else None,
        occurred_at=row["occurred_at"],
        recorded_at=row["recorded_at"],
        dropped=row["dropped"],
        content=row["content"],
    )


def _encode_consent(recorded: RecordedConsent) -> Answer:
    lead_id, consent = recorded
    body = {
        "consent_id": consent.consent_id,
        "lead_id": lead_id,
        "basis": consent.basis,
        "given_at": consent.given_at,
        "recorded_at": consent.recorded_at,
    }
    content = orjson.dumps(body, default=str, option=orjson.OPT_UTC_Z)
    return Answer(201, content, {"location": f"/v1/leads/{lead_id}/consents"}, subject=lead_id)


def _consent(one: Consent) -> ConsentOut:
    return ConsentOut(
        consent_id=one.consent_id,
        basis=one.basis,
        given_at=one.given_at,
        dated=one.dated,
        recorded_at=one.recorded_at,
        text=one.text,
        source=one.source,
        sent_by=one.caller,
        submission_id=one.submission_id,
    )


def _erasure(one: ErasureRecord) -> ErasureOut:
    return ErasureOut(
        erasure_id=one.erasure_id,
        lead_ids=list(one.lead_ids),
        reason=one.reason,
        erased_by=one.caller,
        erased_at=one.recorded_at,
        policy_version=one.policy_version,
        removed=dict(one.removed),
    )
