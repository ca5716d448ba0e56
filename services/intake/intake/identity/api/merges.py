"""POST /v1/leads/{lead_id}/merge, /v1/merges/{merge_id} and its revert: one person once, and a mistake about it undone."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated
from uuid import UUID

import orjson
from fastapi import APIRouter, Body, Response
from pydantic import BaseModel, ConfigDict, Field

from accord.db import Database
from accord.http.auth import Caller, require
from accord.http.idempotency import Answer, IdempotencyRequest, idempotency
from accord.http.openapi import problems
from accord.http.paging import CursorText, Limit, Page, decode_single_cursor, make_page
from accord.http.problems import not_found
from intake.identity.queries.merges import MergeRecord
from intake.identity.service import merge
from intake.identity.service.merge import MergeResult, Requester
from intake.leads.api import LEAD_ID

_OTHER_LEAD_ID = "019f3b1e-7a52-7c31-9a55-8a4f3c1d2e20"
_MERGE_EXAMPLE: dict[str, object] = {
    "merge_id": "019f3b1e-7a52-7c31-9a55-8a4f3c1d2e21",
    "survivor_id": LEAD_ID,
    "merged_lead_id": _OTHER_LEAD_ID,
    "submission_id": None,
    "merged_by": "marketing",
    "merged_at": "2026-01-06T08:00:00Z",
    "reverted_at": None,
    "reverted_by": None,
}
_MERGED_EXAMPLE: dict[str, object] = {**_MERGE_EXAMPLE, "followed": []}
_REVERTED_EXAMPLE: dict[str, object] = {
    **_MERGE_EXAMPLE,
    "reverted_at": "2026-01-07T08:00:00Z",
    "reverted_by": "marketing",
}


class MergeIn(BaseModel):
    """The other lead."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    with_: UUID = Field(alias="with", description="The id of the lead that is the same person.")


class MergeOut(BaseModel):
    """Two leads that turned out to be one person. It holds no personal data."""

    merge_id: UUID
    survivor_id: UUID = Field(description="The survivor: the older one, or the one that has entered.")
    merged_lead_id: UUID = Field(description="The lead whose id leads to the survivor since.")
    submission_id: UUID | None = Field(
        description="The submission whose keys named both; null for a person's decision."
    )
    merged_by: str | None = Field(description="The key of the person who decided; null where a submission did.")
    merged_at: datetime
    reverted_at: datetime | None = Field(description="When it was reverted; null while it stands.")
    reverted_by: str | None


class MergedOut(MergeOut):
    """A merge that was just made."""

    followed: list[UUID] = Field(
        description="Those of the ids asked for that had been merged before, so that their survivors were merged now."
    )


def _encode_record(record: MergeRecord) -> dict[str, object]:
    """A merge as it is answered."""
    return {
        "merge_id": record.merge_id,
        "survivor_id": record.survivor_id,
        "merged_lead_id": record.merged_lead_id,
        "submission_id": record.submission_id,
        "merged_by": record.caller,
        "merged_at": record.recorded_at,
        "reverted_at": record.reverted_at,
        "reverted_by": record.reverted_by,
    }


def _encode_merge(merged: MergeResult) -> Answer:
    record, followed = merged
    return _answer(
        201, {**_encode_record(record), "followed": followed}, record, {"location": f"/v1/merges/{record.merge_id}"}
    )


def _encode_revert(record: MergeRecord) -> Answer:
    return _answer(200, _encode_record(record), record, {})


def _answer(status: int, body: Mapping[str, object], record: MergeRecord, headers: Mapping[str, str]) -> Answer:
    content = orjson.dumps(body, default=str, option=orjson.OPT_UTC_Z)
    return Answer(status, content, headers, subject=record.survivor_id)


def _example(value: object) -> dict[str, object]:
    return {"content": {"application/json": {"example": value}}}


def merge_router(database: Database) -> APIRouter:
    """The routes over one database."""
    router = APIRouter(tags=["merges"])

    @router.post(
        "/v1/leads/{lead_id}/merge",
        status_code=201,
        summary="Merge two leads",
        operation_id="merge_leads",
        response_model=MergedOut,
        responses={201: _example(_MERGED_EXAMPLE), **problems(404, 409, 410)},
    )
    async def merge_leads(
        lead_id: UUID,
        body: Annotated[MergeIn, Body(openapi_examples={"other": {"value": {"with": _OTHER_LEAD_ID}}})],
        caller: Caller = require("leads:write"),
        idempotency_request: IdempotencyRequest | None = idempotency(),
    ) -> Response:
        """By the rules of every merge: the older lead survives with its source, the newest value of each field wins, and activities and
        keys move. Nothing is lost, so that the merge can be reverted.

        An id that was merged before stands for its survivor, and is named in `followed`. Two ids of one lead are 409 with `survivor_id`.
        """
        done = await merge.merge_leads(
            database, lead_id, body.with_, Requester(caller.name, idempotency_request), _encode_merge
        )
        return done.answer.response()

    @router.get(
        "/v1/leads/{lead_id}/merges",
        summary="The merges of a lead",
        operation_id="list_merges",
        responses=problems(404, 410),
    )
    async def list_merges(
        lead_id: UUID, limit: Limit = 50, cursor: CursorText = None, _caller: Caller = require("leads:read")
    ) -> Page[MergeOut]:
        """Every merge in which the lead took part, or one that was merged into it; newest first, also those that were reverted."""
        found = await merge.list_merges(database, lead_id, decode_single_cursor(cursor, UUID), limit + 1)
        record, next_cursor = make_page(found, limit, lambda one: one.merge_id)
        return Page(items=[MergeOut.model_validate(_encode_record(one)) for one in record], next_cursor=next_cursor)

    @router.get(
        "/v1/merges/{merge_id}",
        summary="One merge",
        operation_id="get_merge",
        responses={200: _example(_MERGE_EXAMPLE), **problems(404)},
    )
    async def one(merge_id: UUID, _caller: Caller = require("leads:read")) -> MergeOut:
        record = await merge.find_merge(database, merge_id)
        if record is None:
            raise not_found("merge")
        return MergeOut.model_validate(_encode_record(record))

    @router.post(
        "/v1/merges/{merge_id}/revert",
        summary="Revert a merge",
        operation_id="revert_merge",
        response_model=MergeOut,
        responses={200: _example(_REVERTED_EXAMPLE), **problems(404, 409, 410)},
    )
    async def revert(
        merge_id: UUID,
        caller: Caller = require("leads:write"),
        idempotency_request: IdempotencyRequest | None = idempotency(),
    ) -> Response:
        """The merged lead is restored with its own keys, activities and values. The survivor keeps what it has learnt from elsewhere
        since and loses what came from the other alone.

        No submission merges the two from then on: one that names both goes to the one with its strongest key (e-mail, then phone, then
        external id), until a person merges them again. Where the survivor was itself merged on, 409 names in `revert_first` the merge
        that must be reverted before.
        """
        return (
            await merge.revert_merge(database, merge_id, Requester(caller.name, idempotency_request), _encode_revert)
        ).answer.response()

    return router
