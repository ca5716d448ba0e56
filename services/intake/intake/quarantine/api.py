"""/v1/quarantine: submissions that the policy held back wait here for a person. The record itself is shown with personal:read only."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any, Literal
from uuid import UUID

import orjson
from fastapi import APIRouter, Body, Query, Response
from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints

from accord.contracts.values import PolicyFailure, SourceName, Timestamp, Verdict
from accord.http.auth import Caller, forbidden, require
from accord.http.idempotency import Answer, IdempotencyRequest, idempotency
from accord.http.openapi import problems
from accord.http.paging import CursorText, Limit, Page, decode_single_cursor, make_page
from intake.leads.api import LEAD_ID, QualityOut, encode_quality
from intake.leads.domain.quality import Quality
from intake.policy.api import CORRECTED, rejection
from intake.policy.service.evaluation import RejectedByPolicy
from intake.quarantine.domain import Action, SettledState
from intake.quarantine.queries import Decision, QuarantineItem
from intake.quarantine.service import Quarantine, Settlement

_FIRST = UUID(int=0)
_SUBMISSION_ID = "019f3b1e-7a52-7c31-9a55-8a4f3c1d2e11"
_QUALITY = {
    "score": 0.42,
    "policy_version": 3,
    "failed": [{"parameter": "vertical", "consequence": "quarantine", "reason": "industry is not one of the agreed"}],
}
Remark = Annotated[str, StringConstraints(min_length=1, max_length=2_000, strip_whitespace=True)]


class QuarantinedOut(BaseModel):
    """A submission that waits in quarantine, or waited."""

    submission_id: UUID
    lead_id: UUID | None = Field(
        description="The lead: pending if nothing acceptable of this person has come yet. Null where it went with its last submission."
    )
    pending: bool = Field(description="Whether the lead has not entered and is known to nobody else.")
    state: Literal["waiting", "released", "corrected", "discarded", "expired"]
    settled_at: datetime | None
    source: str
    sent_by: str = Field(description="The name of the key that sent it.")
    occurred_at: datetime
    recorded_at: datetime
    expires_at: datetime = Field(description="When it is dropped if nobody has decided by then.")
    quality: QualityOut = Field(description="What failed and why, as of its last correction.")
    corrected_at: datetime | None = Field(description="When it was last corrected and went on waiting.")
    corrected_by: str | None
    record: dict[str, JsonValue] | None = Field(
        description="The record as it stands. Null without personal:read, and once it is dropped."
    )


class DecisionOut(BaseModel):
    """What somebody did with it."""

    action: Action = Field(description="`requarantined`: corrected, and it went on waiting.")
    by: str = Field(description="The name of the key.")
    at: datetime
    verdict: str | None = Field(description="How a correction was judged.")
    note: str | None = Field(description="The note or reason. Null without personal:read.")
    fields: dict[str, JsonValue] | None = Field(description="What was corrected. Null without personal:read.")


class QuarantineDetailOut(QuarantinedOut):
    """The same with what was done, oldest first."""

    decisions: list[DecisionOut]


class ReleaseIn(BaseModel):
    """Why it may come in as it is."""

    model_config = ConfigDict(extra="forbid")

    note: Remark | None = None


class CorrectIn(BaseModel):
    """What is right."""

    model_config = ConfigDict(extra="forbid")

    fields: Annotated[dict[str, JsonValue], Field(min_length=1, max_length=100)] = Field(
        description="JSON Merge Patch (RFC 7396) of the record: null takes a field away, objects are merged. Not `source` and"
        " `occurred_at`."
    )


class DiscardIn(BaseModel):
    """Why it does not come in."""

    model_config = ConfigDict(extra="forbid")

    reason: Remark


class ReleaseOut(BaseModel):
    """What became of it."""

    submission_id: UUID
    state: Literal["released", "corrected", "waiting"] = Field(
        description="`waiting`: it was corrected and is still quarantined, for what `quality` says."
    )
    lead_id: UUID | None
    outcome: Literal["created", "updated", "merged"] | None = Field(description="Null while it waits.")
    verdict: Verdict = Field(description="What was let in as it was is `flagged`, with all that had failed.")
    quality: QualityOut


class DiscardedOut(BaseModel):
    """It will not come in."""

    submission_id: UUID
    state: Literal["discarded"]
    lead_id: UUID | None = Field(
        description="Null where the lead was pending for this submission alone and went with it."
    )


def _examples(value: object) -> dict[int | str, dict[str, Any]]:
    return {200: {"content": {"application/json": {"example": value}}}}


_LET_IN = {
    "submission_id": _SUBMISSION_ID,
    "state": "released",
    "lead_id": LEAD_ID,
    "outcome": "created",
    "verdict": "flagged",
    "quality": _QUALITY,
}
_DISCARDED = {"submission_id": _SUBMISSION_ID, "state": "discarded", "lead_id": None}


def quarantine_router(quarantine: Quarantine, retention_period: timedelta) -> APIRouter:
    """The routes over one use case."""
    router = APIRouter(tags=["quarantine"])

    @router.get("/v1/quarantine", summary="What waits for a person", operation_id="list_quarantine")
    async def list_quarantine(
        caller: Caller = require("leads:read"),
        source: Annotated[SourceName | None, Query(description="Only those of this source.")] = None,
        since: Annotated[Timestamp | None, Query(description="Only those that came at or after this moment.")] = None,
        limit: Limit = 50,
        cursor: CursorText = None,
    ) -> Page[QuarantinedOut]:
        """Oldest first. `record` needs `personal:read`."""
        found = await quarantine.page(decode_single_cursor(cursor, UUID) or _FIRST, source, since, limit + 1)
        items, next_cursor = make_page(found, limit, lambda one: one.submission.submission_id)
        return Page(
            items=[QuarantinedOut(**_encode_item(one, caller, retention_period)) for one in items],
            next_cursor=next_cursor,
        )

    @router.get(
        "/v1/quarantine/{submission_id}",
        summary="One submission and what was done with it",
        operation_id="get_quarantined",
        responses=problems(404, 410),
    )
    async def get_quarantined(submission_id: UUID, caller: Caller = require("leads:read")) -> QuarantineDetailOut:
        """Also after it was decided. 410 if the person was erased while it waited."""
        found, decisions = await quarantine.get_submission(submission_id)
        return QuarantineDetailOut(
            **_encode_item(found, caller, retention_period),
            decisions=[_decision(decision, caller) for decision in decisions],
        )

    @router.post(
        "/v1/quarantine/{submission_id}/release",
        summary="Let a submission in as it is",
        operation_id="release_quarantined",
        response_model=ReleaseOut,
        responses={**_examples(_LET_IN), **problems(404, 409, 410)},
    )
    async def release(
        submission_id: UUID,
        body: Annotated[ReleaseIn | None, Body()] = None,
        caller: Caller = require("leads:write"),
        idempotency_request: IdempotencyRequest | None = idempotency(),
    ) -> Response:
        """Its lead enters, or is updated if it is in, as of when the submission happened. The judgement stays the policy's, but the
        verdict is `flagged`. Of two people who decide at once one wins; the other gets 409 with `state`.
        """
        note = body.note if body is not None else None
        return (
            await quarantine.release(submission_id, note, caller.name, idempotency_request, _encode_release)
        ).answer.response()

    @router.post(
        "/v1/quarantine/{submission_id}/correct",
        summary="Correct a submission",
        operation_id="correct_quarantined",
        response_model=ReleaseOut,
        responses={**_examples({**_LET_IN, "state": "corrected", "verdict": "accepted"}), **problems(404, 409, 410)},
    )
    async def correct(
        submission_id: UUID,
        body: CorrectIn,
        caller: Caller = require("leads:write"),
        idempotency_request: IdempotencyRequest | None = idempotency(),
    ) -> Response:
        """Needs `personal:read` too. The corrected record is judged by the policy in force: it comes in, or waits on with the new
        judgement; one that is rejected is 422 and stays as it was.
        """
        if "personal:read" not in caller.scopes:
            raise forbidden("personal:read")
        try:
            done = await quarantine.correct(
                submission_id, body.fields, caller.name, idempotency_request, _encode_release
            )
        except RejectedByPolicy as rejected:
            raise rejection(CORRECTED, rejected.quality, rejected.reason, submission_id) from None
        return done.answer.response()

    @router.post(
        "/v1/quarantine/{submission_id}/discard",
        summary="Discard a submission",
        operation_id="discard_quarantined",
        response_model=DiscardedOut,
        responses={**_examples(_DISCARDED), **problems(404, 409, 410)},
    )
    async def discard(
        submission_id: UUID,
        body: DiscardIn,
        caller: Caller = require("leads:write"),
        idempotency_request: IdempotencyRequest | None = idempotency(),
    ) -> Response:
        """Nothing of it is ever applied. A lead that was pending for it alone goes with it, so that the same person is a new lead when they
        come again."""
        return (
            await quarantine.discard(submission_id, body.reason, caller.name, idempotency_request, _encode_discard)
        ).answer.response()

    return router


def _encode_item(listed: QuarantineItem, caller: Caller, retention_period: timedelta) -> dict[str, Any]:
    one = listed.submission
    settled: SettledState | None = one.settled
    record = None
    if "personal:read" in caller.scopes and one.canonical is not None:
        record = orjson.loads(one.canonical)
    return {
        "submission_id": one.submission_id,
        "lead_id": one.lead_id,
        "pending": listed.pending,
        "state": settled or "waiting",
        "settled_at": one.settled_at,
        "source": one.source,
        "sent_by": one.caller,
        "occurred_at": one.occurred_at,
        "recorded_at": one.recorded_at,
        "expires_at": one.recorded_at + retention_period,
        "quality": quality_out(listed.quality),
        "corrected_at": listed.corrected_at,
        "corrected_by": listed.corrected_by,
        "record": record,
    }


def _encode_discard(settled: Settlement) -> Answer:
    body = {"submission_id": settled.submission_id, "state": settled.state, "lead_id": settled.lead_id}
    return Answer(200, orjson.dumps(body, default=str), subject=settled.about)


def _encode_release(settled: Settlement) -> Answer:
    quality = settled.quality
    assert quality is not None  # noqa: S101 - whatever is not discarded was judged
    body = {
        "submission_id": settled.submission_id,
        "state": settled.state,
        "lead_id": settled.lead_id,
        "outcome": settled.outcome,
        "verdict": quality.verdict,
        "quality": encode_quality(quality),
    }
    return Answer(200, orjson.dumps(body, default=str), subject=settled.about)


def _decision(one: Decision, caller: Caller) -> DecisionOut:
    personal = "personal:read" in caller.scopes
    return DecisionOut(
        action=one.action,
        by=one.caller,
        at=one.recorded_at,
        verdict=one.quality.verdict if one.quality else None,
        note=one.note if personal else None,
        fields=one.fields if personal else None,
    )


def quality_out(quality: Quality) -> QualityOut:
    """A judgement as it is shown."""
    failed: list[PolicyFailure] = list(quality.failed)
    return QualityOut(score=quality.score, policy_version=quality.policy_version, failed=failed)
