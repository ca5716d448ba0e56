"""GET /v1/feedback: what sales made of the leads that it was handed, and which criterion would have changed most. No rules here."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from accord.clock import utc_now
from accord.contracts.values import MOMENT_MIN, Timestamp
from accord.db import Database
from accord.http.auth import Caller, require
from accord.http.openapi import problems
from accord.http.problems import parameter_error
from accord.terms.dimensions import UnknownDimension, split_names
from accord.terms.durations import Duration, format_duration
from qualification.analysis.domain.gate_criteria import CriterionReport
from qualification.analysis.domain.groups import NAMED, parse_dimensions
from qualification.analysis.service.feedback import (
    DECISIONS_EXAMINED_MAX,
    LEADS_EXAMINED_MAX,
    Feedback,
    FeedbackRequest,
    FeedbackService,
    TooManyGroups,
)
from qualification.definition.service import DefinitionVersionCache

STEPS_MAX = 120
DEFAULT_PERIOD = timedelta(weeks=12)
DEFAULT_STEP = timedelta(days=7)


class FeedbackQuery(BaseModel):
    """Which decisions, in which steps, by which groups."""

    model_config = ConfigDict(extra="forbid")

    from_: Timestamp | None = Field(
        default=None, alias="from", description="Decided, or captured, at or after this moment; 12 weeks before `to`."
    )
    to: Timestamp | None = Field(default=None, description="Before this moment; now, if left out.")
    step: Duration = Field(
        default=DEFAULT_STEP, description=f"The length of a step, as `P7D`; the period has at most {STEPS_MAX} of them."
    )
    by: str | None = Field(
        default=None,
        max_length=500,
        description=f"Comma list: `{'`, `'.join(NAMED)}`, `attribute:NAME`.",
        examples=["source"],
    )

    def request(self) -> FeedbackRequest:
        """The question. Raises Problem 422."""
        until = self.to or utc_now()
        since = self.from_ or max(MOMENT_MIN, until - DEFAULT_PERIOD)
        if since >= until:
            raise parameter_error("from", "must be before to")
        if not self.step or (until - since) > self.step * STEPS_MAX:
            raise parameter_error("step", f"must be such that the period has at most {STEPS_MAX} steps")
        try:
            by = parse_dimensions(split_names(self.by))
        except UnknownDimension as error:
            raise parameter_error("by", str(error)) from None
        return FeedbackRequest(since, until, self.step, by)


class ReasonCountsOut(BaseModel):
    """A reason for which leads were rejected."""

    stage: str = Field(description="Where it led.")
    reason: str | None
    title: str | None = Field(description="As it was agreed.")
    rejected: int
    share: float | None = Field(description="Of all rejected.")


class StepCountsOut(BaseModel):
    """One step of the period."""

    since: Timestamp
    accepted: int
    rejected: int
    rejected_share: float | None = Field(
        description="rejected / (accepted + rejected); null where nothing was decided."
    )
    reasons: list[ReasonCountsOut]


class GroupFeedbackOut(BaseModel):
    """The decisions on the leads of one group."""

    by: dict[str, str | None]
    others: bool = Field(description="All leads of groups beyond the largest hundred; `by` is empty.")
    accepted: int
    rejected: int
    rejected_share: float | None
    reasons: list[ReasonCountsOut]
    steps: list[StepCountsOut]


class TighterOut(BaseModel):
    """The best tighter bound among the values that there were."""

    value: int | float
    words: str
    rejected_kept_out: int = Field(description="Rejected leads that it would have kept out at that moment.")
    accepted_lost: int = Field(description="Accepted leads that it would have kept out too; at most a tenth of them.")
    rejected_share: float | None = Field(description="What the share would have been.")


class LooserOut(BaseModel):
    """Leads that did not come in for nothing but this comparison."""

    kept_out: int
    converted: int = Field(description="Of them, won by another way.")
    not_converted: int = Field(description="Of them, lost or disqualified. Of the others the end is not known.")
    worked_on: int = Field(description="Of those others, the ones that sales works on by another way.")


class CriterionOut(BaseModel):
    """One comparison of the gate by which leads are handed over."""

    stage: str
    path: str
    op: str
    value: Any
    within: str | None
    wanted: bool = Field(description="False: it stands under `none`, and is wanted not to hold.")
    words: str
    versions: list[int] = Field(description="The versions of the definition that have it so.")
    accepted: int
    rejected: int
    few: bool = Field(description="Too few decisions to conclude anything.")
    tighten: TighterOut | None = Field(
        description="Null where no bound would have been better, and for what is not a number."
    )
    loosen: LooserOut
    gain: int = Field(description="What the better of the two would have changed; they are ranked by it.")


class ExaminedOut(BaseModel):
    """What the criteria rest on."""

    decisions: int = Field(description=f"The newest ones, at most {DECISIONS_EXAMINED_MAX:,}.")
    all_decisions: bool
    unexplained: int = Field(description="Of them, on leads that had not come in by a gate that is explained here.")
    leads: int = Field(description=f"Those captured last that were not handed over, at most {LEADS_EXAMINED_MAX:,}.")
    all_leads: bool


class FeedbackAnswer(BaseModel):
    """The whole feedback."""

    from_: Timestamp = Field(alias="from")
    to: Timestamp
    step: str
    summary: str
    total: GroupFeedbackOut
    groups: list[GroupFeedbackOut]
    criteria: list[CriterionOut] = Field(description="Those that would have changed most first.")
    examined: ExaminedOut


def _criterion(one: CriterionReport) -> CriterionOut:
    leaf = one.leaf
    same = {name: getattr(one, name) for name in ("stage", "wanted", "words", "accepted", "rejected", "few", "gain")}
    return CriterionOut(
        **same,
        path=leaf.path,
        op=leaf.op,
        value=leaf.expected,
        within=leaf.within,
        versions=list(one.versions),
        tighten=None if one.tighten is None else TighterOut.model_validate(one.tighten, from_attributes=True),
        loosen=LooserOut.model_validate(one.loosen, from_attributes=True),
    )


def _answer(request: FeedbackRequest, found: Feedback) -> FeedbackAnswer:
    return FeedbackAnswer(
        **{"from": request.since},
        to=request.until,
        step=format_duration(request.step),
        summary=found.summary,
        total=GroupFeedbackOut.model_validate(found.total, from_attributes=True),
        groups=[GroupFeedbackOut.model_validate(group, from_attributes=True) for group in found.groups],
        criteria=[_criterion(one) for one in found.criteria],
        examined=ExaminedOut.model_validate(found.examined, from_attributes=True),
    )


def router(database: Database, definitions: DefinitionVersionCache) -> APIRouter:
    """The route over one database and the versions of the definition."""
    routes = APIRouter(tags=["feedback"])
    service = FeedbackService(database, definitions)

    @routes.get(
        "/v1/feedback",
        summary="What sales made of the leads that it was handed",
        operation_id="get_feedback",
        responses=problems(503),
    )
    async def get_feedback(
        query: Annotated[FeedbackQuery, Query()], _caller: Caller = require("leads:read")
    ) -> FeedbackAnswer:
        """The decisions taken in the period on leads that marketing had handed over: accepted and rejected, by step, agreed reason and
        group; and, for each comparison of the gate by which those leads had come in, what would have changed had it been tighter or
        looser, with the lead's facts as they were at its entry.
        """
        request = query.request()
        try:
            return _answer(request, await service.get(request))
        except TooManyGroups:
            raise parameter_error("by", "makes more groups than can be told apart in this period") from None

    return routes
