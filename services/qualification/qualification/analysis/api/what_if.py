"""What a version of the definition would have done: ask, follow, read the report and the leads that differ, cancel. No rules here."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Body, Path, Query, Response
from pydantic import BaseModel, Field

from accord.agreements import AgreementStore
from accord.agreements.store import NoSuchVersion
from accord.clock import utc_now
from accord.contracts.values import MOMENT_MIN, Department, Timestamp
from accord.db import Database
from accord.http.auth import Caller, require
from accord.http.idempotency import Answer, IdempotencyRequest, idempotency
from accord.http.openapi import problems
from accord.http.paging import CursorText, Limit, Page, decode_cursor, decode_single_cursor, make_page
from accord.http.problems import not_found, validation_error_at
from accord.terms.dimensions import DIMENSIONS_MAX, Dimension, UnknownDimension
from qualification.analysis.domain.groups import NAMED, parse_dimensions
from qualification.analysis.domain.report import Report
from qualification.analysis.queries.what_ifs import State, WhatIf
from qualification.analysis.service.what_if import WhatIfQuestion, WhatIfService
from qualification.lifecycle.api.models import Wire

_WHAT_IF: dict[str, Any] = {"from": "2027-01-01T00:00:00Z", "to": "2028-01-01T00:00:00Z", "by": ["source"]}


PERIOD_DAYS_MAX = 3_660
DEFAULT_PERIOD = timedelta(days=365)

Version = Annotated[int, Path(ge=1, le=2**31 - 1, description="Number of the version; a draft may be asked about too.")]
_GROUPS = f"`{'`, `'.join(NAMED)}` or `attribute:NAME`"


class WhatIfRequest(Wire):
    """Which leads, by their capture, and by what they are told apart."""

    from_: Timestamp | None = Field(
        default=None, alias="from", description="Captured at or after this moment; a year before `to`, if left out."
    )
    to: Timestamp | None = Field(
        default=None,
        description=f"Captured before this moment; now, if left out. At most {PERIOD_DAYS_MAX} days after `from`.",
    )
    by: Annotated[list[Annotated[str, Field(max_length=120)]], Field(max_length=DIMENSIONS_MAX)] = Field(
        default=["source"], description=f"What groups are made by: {_GROUPS}.", examples=[["source"]]
    )

    def question(self, version: int) -> WhatIfQuestion:
        """The question. Raises Problem 422."""
        until = self.to or utc_now()
        since = self.from_ or max(MOMENT_MIN, until - DEFAULT_PERIOD)
        if since >= until:
            raise validation_error_at("/from", "Must be before to")
        if until - since > timedelta(days=PERIOD_DAYS_MAX):
            raise validation_error_at("/from", f"Must be at most {PERIOD_DAYS_MAX} days before to")
        try:
            by: tuple[Dimension, ...] = parse_dimensions(self.by)
        except UnknownDimension as error:
            raise validation_error_at("/by", str(error)) from None
        return WhatIfQuestion(version, since, until, by)


# --- Answers ---


class WhatIfProgress(BaseModel):
    """How far it has come."""

    leads_done: int
    leads_count: int | None = Field(description="Leads of the period when it began; null before.")
    leads_per_s: float | None = Field(description="Of late.")
    eta_s: float | None = Field(description="Seconds that the rest will take, if it goes on like this.")


class WhatIfRow(BaseModel):
    """One what-if as it stands."""

    what_if_id: UUID
    version: int
    content_sha256: str = Field(
        description="Of the content as it was when this was asked; a draft may have changed since."
    )
    from_: Timestamp = Field(alias="from")
    to: Timestamp
    by: list[str]
    state: State
    progress: WhatIfProgress
    requested_by: str
    requested_at: Timestamp
    started_at: Timestamp | None = Field(description="What happened after it counts in neither of the two histories.")
    finished_at: Timestamp | None
    error: str | None


class StageCountsOut(BaseModel):
    """Leads that entered a stage in what happened (`actual`) and by the asked version (`would`)."""

    stage: str
    actual: int
    would: int
    both: int
    only_actual: int
    only_would: int
    moved: int = Field(description="Of `both`, at another moment.")


class GroupCountsOut(BaseModel):
    """One group of leads."""

    by: dict[str, str | None] = Field(description="The group's values; null where a lead has none.")
    others: bool = Field(description="All leads of groups beyond the first hundred; `by` is empty.")
    leads: int
    known: int = Field(description="Leads whose outcome is known: they stand in a won, lost or disqualified stage.")
    won: int
    stages: list[StageCountsOut]


class PickOut(BaseModel):
    """How well entering a stage picked those who were won."""

    let_in: int
    known: int = Field(description="Of those let in, with a known outcome.")
    won: int
    precision: float | None = Field(description="won / known; null where known is 0.")
    recall: float | None = Field(description="won / all that were won; null where none was.")
    lift: float | None = Field(description="precision / the share won of all known outcomes; null where there is none.")


class GatePickOut(BaseModel):
    """The gate of a stage, as a picker of winners."""

    stage: str
    would: PickOut
    actual: PickOut


class WeekCountsOut(BaseModel):
    """Entries of one ISO week."""

    week: str = Field(examples=["2027-W03"])
    actual: int
    would: int


class StageLoadOut(BaseModel):
    """Entries into one stage in which sales has work, each visit counted."""

    stage: str
    owner: Department
    hands_over: bool = Field(description="Here leads of marketing wait for a decision of sales.")
    actual: int
    would: int
    weeks: list[WeekCountsOut]


class DecisionCountsOut(BaseModel):
    """Decisions that people took."""

    decision: str
    applied: int = Field(description="The stage in which the lead would then have been allows it.")
    ignored: int = Field(description="It does not; the lead stays where it would have been.")


class DifferenceCountsOut(BaseModel):
    """Leads that differ in one stage."""

    stage: str
    differing: int
    listed: int = Field(description="How many of them `…/leads` lists.")


class WhatIfReportOut(BaseModel):
    """The whole report."""

    leads: int
    known: int
    won: int
    base_rate: float | None = Field(description="won / known.")
    summary: str
    total: GroupCountsOut
    groups: list[GroupCountsOut]
    picks: list[GatePickOut] = Field(description="For each stage that the version enters by criteria.")
    load: list[StageLoadOut] = Field(description="For each stage in which sales has work.")
    decisions: list[DecisionCountsOut]
    differing: list[DifferenceCountsOut]


class WhatIfAnswer(WhatIfRow):
    """One what-if, with its report when it is done."""

    report: WhatIfReportOut | None = None


class DifferenceOut(BaseModel):
    """A lead that differs."""

    lead_id: UUID
    stage: str
    did_enter_at: Timestamp | None = Field(description="Null: it did not.")
    would_enter_at: Timestamp | None = Field(description="Null: it would not have.")


def _values(what_if: WhatIf) -> dict[str, Any]:
    leads, done, rate = what_if.leads, what_if.leads_done, what_if.leads_per_s
    eta_s = round(max(0, leads - done) / rate, 1) if what_if.state == "running" and leads is not None and rate else None
    same = (
        "what_if_id",
        "version",
        "content_sha256",
        "state",
        "requested_by",
        "requested_at",
        "started_at",
        "finished_at",
        "error",
    )
    return {
        **{name: getattr(what_if, name) for name in same},
        "from": what_if.since,
        "to": what_if.until,
        "by": list(what_if.by),
        "progress": WhatIfProgress(
            leads_done=done,
            leads_count=leads,
            leads_per_s=None if rate is None else round(rate, 1),
            eta_s=eta_s,
        ),
    }


def _row(what_if: WhatIf) -> WhatIfRow:
    return WhatIfRow(**_values(what_if))


def _answer(what_if: WhatIf, report: Report | None) -> WhatIfAnswer:
    shown = None if report is None else WhatIfReportOut.model_validate(report, from_attributes=True)
    return WhatIfAnswer(**_values(what_if), report=shown)


def _encode_accepted(what_if: WhatIf) -> Answer:
    body = _row(what_if).model_dump_json(by_alias=True).encode()
    return Answer(202, body, {"Location": f"/v1/what-ifs/{what_if.what_if_id}"})


# --- Routes ---

Reader = Annotated[Caller, require("leads:read")]
Requester = Annotated[Caller, require("agreements:write")]
OptionalIdempotency = Annotated[IdempotencyRequest | None, idempotency()]
StageName = Annotated[str | None, Query(min_length=1, max_length=60, pattern=r"^[a-z0-9][a-z0-9_-]*$")]


def router(database: Database, store: AgreementStore) -> APIRouter:
    """The routes over one database and the versions of the definition."""
    routes = APIRouter(tags=["what-if"])
    service = WhatIfService(database, store)

    @routes.post(
        "/v1/definition/versions/{version}/what-if",
        status_code=202,
        summary="What a version would have made of the leads of a period",
        operation_id="ask_what_if",
        response_model=WhatIfRow,
        responses={
            202: {"headers": {"Location": {"schema": {"type": "string"}}}},
            **problems(404, 409, 503),
        },
    )
    async def submit(
        version: Version,
        caller: Requester,
        idempotency_request: OptionalIdempotency,
        body: Annotated[WhatIfRequest, Body(openapi_examples={"a year": {"value": _WHAT_IF}})],
    ) -> Response:
        """The leads captured in the period are folded anew from their logs as if this version had been in force all the time, and compared
        with what happened. Nothing of it touches a lead, and nothing is published. It is worked out in the background, one after the
        other; 503 while too many wait.

        Decisions that people took are applied where the stage in which the lead would then have been allows them, and are passed over
        and counted otherwise.
        """
        try:
            done = await service.submit(body.question(version), caller.name, idempotency_request, _encode_accepted)
        except NoSuchVersion:
            raise not_found("version") from None
        return done.answer.response()

    @routes.get("/v1/what-ifs", summary="What-ifs, latest first", operation_id="list_what_ifs")
    async def list_what_ifs(_caller: Reader, limit: Limit = 50, cursor: CursorText = None) -> Page[WhatIfRow]:
        """Those that have ended are kept for a time: the newest fifty."""
        found = await service.list_what_ifs(decode_single_cursor(cursor, UUID), limit + 1)
        items, next_cursor = make_page(found, limit, lambda one: one.what_if_id)
        return Page(items=[_row(one) for one in items], next_cursor=next_cursor)

    @routes.get(
        "/v1/what-ifs/{what_if_id}",
        summary="One what-if: how far it has come, and its report",
        operation_id="get_what_if",
        responses=problems(404),
    )
    async def get_what_if(what_if_id: UUID, _caller: Reader) -> WhatIfAnswer:
        """The report is there when `state` is `done`. Every share stands beside the counts that it is made of."""
        return _answer(*await service.get(what_if_id))

    @routes.get(
        "/v1/what-ifs/{what_if_id}/leads",
        summary="The leads that differ",
        operation_id="list_what_if_leads",
        responses=problems(404),
    )
    async def leads(
        what_if_id: UUID, _caller: Reader, stage: StageName = None, limit: Limit = 100, cursor: CursorText = None
    ) -> Page[DifferenceOut]:
        """By stage and id: those that entered it in one of the two histories only, or at another moment. `differing` in the report says
        how many there are and how many of them are listed."""
        found = await service.list_differences(what_if_id, stage, decode_cursor(cursor, str, UUID), limit + 1)
        items, next_cursor = make_page(found, limit, lambda item: (item.stage, item.lead_id))
        return Page(items=[DifferenceOut(**item._asdict()) for item in items], next_cursor=next_cursor)

    @routes.post(
        "/v1/what-ifs/{what_if_id}/cancel",
        summary="Cancel a what-if",
        operation_id="cancel_what_if",
        responses=problems(404, 409),
    )
    async def cancel(what_if_id: UUID, _caller: Requester) -> WhatIfRow:
        """It ends at once. Cancelling twice is cancelling once."""
        return _row(await service.cancel(what_if_id))

    return routes
