"""GET /v1/leads/{lead_id}/timeline: one lead's stages, clocks and activities across both departments, in time order."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from accord.contracts.values import Attributes, DecimalText, Department, Money, StageKind
from accord.db import Database
from accord.http.csv_tables import csv_response, table_responses, wants_csv
from accord.http.openapi import problems
from accord.http.paging import CursorText, Limit, decode_cursor, encode_cursor
from accord.http.problems import not_found, parameter_error
from metrics.api.definitions import Answer
from metrics.api.parameters import Reader
from metrics.domain.clock import ClockState
from metrics.queries.timeline import RANK, TimelineCursor
from metrics.usecases.reports import Timeline, UnknownLead, get_timeline, measure_wait

_SECOND_US = 1_000_000


class StageItem(Answer):
    """An entry into a stage."""

    type: Literal["stage"] = "stage"
    at: datetime = Field(description="When it entered.")
    stage: str
    kind: StageKind
    visit: int
    position: int = Field(
        description="Position in the lead's stage history, from 0. It follows the reports, not the times."
    )
    exited_at: datetime | None
    next_stage: str | None
    duration_s: float | None = Field(description="Until it left, else until as_of; null while as_of is unknown.")
    cause: str
    decision: str | None
    reason: str | None
    actor: str | None
    definition_version: int


class ClockItem(Answer):
    """A clock of the SLA."""

    type: Literal["clock"] = "clock"
    at: datetime = Field(description="When it started.")
    clock_id: UUID
    clause: str
    obliges: Department
    owner: str | None
    state: ClockState
    due_at: datetime
    breached_at: datetime | None
    settled_at: datetime | None = Field(description="When it was met or cancelled.")
    sla_version: int


class ActivityItem(Answer):
    """An activity of the lead."""

    type: Literal["activity"] = "activity"
    at: datetime
    activity_id: UUID
    lead_id: UUID = Field(description="The lead it was recorded for: this one, or one merged into it.")
    kind: str
    by: Literal["lead", "marketing", "sales"]
    actor: str | None
    source: str | None
    campaign: str | None


Item = Annotated[StageItem | ClockItem | ActivityItem, Field(discriminator="type")]


class TimelineOut(Answer):
    """The lead, and a page of its timeline."""

    lead_id: UUID
    merged_into: UUID | None
    erased: bool
    source: str | None
    campaign: str | None
    captured_at: datetime | None = Field(description="Null until intake's event of the lead has been read.")
    account_id: UUID | None
    attributes: Attributes
    owner: str | None
    stage: str | None = Field(description="The current stage.")
    amount: Money | None
    expected_close: date | None
    as_of: datetime | None
    stages: list[StageItem] = Field(
        description="The whole stage history, in the order reported; the same on each page."
    )
    items: list[Item] = Field(description="Stages, clocks and activities in time order, page by page.")
    next_cursor: str | None


def timeline_router(database: Database) -> APIRouter:
    """The timeline route over this database."""
    router = APIRouter(prefix="/v1/leads", tags=["timeline"])

    @router.get(
        "/{lead_id}/timeline",
        summary="One lead's stages, clocks and activities in time order",
        operation_id="timeline",
        response_model=TimelineOut,
        responses={**table_responses(), **problems(404)},
    )
    async def timeline(
        request: Request,
        lead_id: UUID,
        caller: Reader,
        limit: Limit = 500,
        cursor: CursorText = None,
    ) -> Any:
        try:
            found = await get_timeline(database, lead_id, _decode_cursor(cursor), limit)
        except UnknownLead:
            raise not_found("lead") from None
        return _to_csv(found) if wants_csv(request) else _to_json(found)

    return router


def _decode_cursor(cursor: str | None) -> TimelineCursor | None:
    values = decode_cursor(cursor, datetime, str, str)
    if values is None:
        return None
    at, name, id_ = values
    type_ = next((item_type for item_type in RANK if item_type == name), None)
    if type_ is None or not (_is_number(id_) if type_ == "stage" else _is_uuid(id_)):
        raise parameter_error("cursor", "is not a cursor of this list")
    return TimelineCursor(at, type_, id_)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


def _to_items(found: Timeline) -> list[StageItem | ClockItem | ActivityItem]:
    return [_to_item(cursor, row, found.as_of) for cursor, row in found.items]


def _to_item(cursor: TimelineCursor, row: Any, as_of: datetime | None) -> StageItem | ClockItem | ActivityItem:
    if cursor.type == "stage":
        return _stage_item(row, as_of)
    if cursor.type == "clock":
        return ClockItem(
            at=row.started_at,
            clock_id=row.clock_id,
            clause=row.clause,
            obliges=row.obliges,
            owner=row.owner,
            state=row.state,
            due_at=row.due_at,
            breached_at=row.breached_at,
            settled_at=row.settled_at,
            sla_version=row.sla_version,
        )
    return ActivityItem(
        at=row.occurred_at,
        activity_id=row.activity_id,
        lead_id=row.lead_id,
        kind=row.kind,
        by=row.by,
        actor=row.actor,
        source=row.source,
        campaign=row.campaign,
    )


def _stage_item(row: Any, as_of: datetime | None) -> StageItem:
    so_far = measure_wait(row.entered_at, as_of)
    duration_s = so_far.total_seconds() if so_far is not None else None
    return StageItem(
        at=row.entered_at,
        stage=row.stage,
        kind=row.stage_kind,
        visit=row.visit,
        position=row.position,
        exited_at=row.exited_at,
        next_stage=row.next_stage,
        duration_s=row.duration_us / _SECOND_US if row.duration_us is not None else duration_s,
        cause=row.cause,
        decision=row.decision,
        reason=row.reason,
        actor=row.actor,
        definition_version=row.definition_version,
    )


def _next_cursor(found: Timeline) -> str | None:
    if found.next is None:
        return None
    return encode_cursor(found.next.at, found.next.type, found.next.id)


def _to_json(found: Timeline) -> TimelineOut:
    lead = found.lead
    return TimelineOut(
        lead_id=lead.lead_id,
        merged_into=lead.merged_into,
        erased=lead.erased,
        source=lead.source,
        campaign=lead.campaign,
        captured_at=lead.captured_at,
        account_id=lead.account_id,
        attributes=lead.attributes,
        owner=lead.owner,
        stage=lead.path[-1] if lead.path else None,
        amount=None if lead.amount is None else Money(amount=DecimalText(lead.amount), currency=lead.currency),
        expected_close=lead.expected_close,
        as_of=found.as_of,
        stages=[_stage_item(row, found.as_of) for row in found.stages],
        items=_to_items(found),
        next_cursor=_next_cursor(found),
    )


_COLUMNS = (
    "type at name visit exited_at next_stage duration_s cause decision reason actor state due_at breached_at settled_at"
).split()


def _to_csv(found: Timeline) -> Response:
    rows = []
    for item in _to_items(found):
        values = item.model_dump()
        values["name"] = values.get("stage") or values.get("clause") or values["kind"]
        rows.append([values.get(column) for column in _COLUMNS])
    return csv_response("timeline", _COLUMNS, rows, _next_cursor(found))
