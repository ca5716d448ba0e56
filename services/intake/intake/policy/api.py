"""How a verdict came about, and what a version of the policy would have made of the newest submissions. No value of any record is shown."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field

from accord.agreements import ActiveCache
from accord.db import Database
from accord.http.auth import Caller, require
from accord.http.openapi import problems
from accord.http.problems import Problem, not_found
from intake.leads.api import encode_quality
from intake.leads.domain.quality import Quality, SubmissionVerdict
from intake.policy.domain.evaluator import PolicyEvaluator
from intake.policy.domain.policy import Consequence
from intake.policy.domain.report import Effect, Outcome, Tally, describe_effect
from intake.policy.service.report import (
    PREVIEW_DAYS,
    PREVIEW_ROWS_MAX,
    PREVIEW_TIME_MAX_S,
    EffectPreviews,
    QualityReport,
    quality_report,
)

POLICY_EXAMPLE: dict[str, object] = {
    "kind": "policy",
    "title": "What every record must meet",
    "attributes": {"employee_count": {"type": "integer"}},
    "parameters": [
        {"key": "reachable", "rule": "email", "consequence": "reject", "weight": 3},
        {
            "key": "company-size",
            "rule": "range",
            "attribute": "employee_count",
            "min": 50,
            "consequence": "flag",
            "weight": 2,
        },
    ],
    "score_min": 0.5,
}


class ParameterOut(BaseModel):
    """One parameter of the policy, and what came of it."""

    parameter: str
    requirement: str = Field(description="In plain words.")
    outcome: Outcome = Field(
        description="`not_applicable`: there was no value, and the parameter lets that pass. `not_recorded`: judged by a release that"
        " did not keep it."
    )
    weight: float
    consequence: Consequence
    reason: str | None = Field(description="Why it failed; names the class of the value, never the value.")


class QualityReportOut(BaseModel):
    """One verdict, and how it came about. `score` = `weight_passed` / `weight_applicable`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "submission_id": "019f3b1e-7a52-7c31-9a55-8a4f3c1d2e11",
                    "lead_id": "019f3b1e-7a52-7c31-9a55-8a4f3c1d2e10",
                    "source": "website",
                    "occurred_at": "2026-01-04T15:30:00Z",
                    "recorded_at": "2026-01-04T15:30:01Z",
                    "verdict": "flagged",
                    "score": 0.6,
                    "score_min": 0.5,
                    "policy_version": 3,
                    "weight_passed": 3,
                    "weight_applicable": 5,
                    "parameters": [
                        {
                            "parameter": "reachable",
                            "requirement": "the e-mail address is well formed under a public domain, not a disposable one",
                            "outcome": "passed",
                            "weight": 3,
                            "consequence": "reject",
                            "reason": None,
                        },
                        {
                            "parameter": "company-size",
                            "requirement": "employee count is 50 or more",
                            "outcome": "failed",
                            "weight": 2,
                            "consequence": "flag",
                            "reason": "employee_count is below 50",
                        },
                    ],
                }
            ]
        }
    )

    submission_id: UUID
    lead_id: UUID | None = Field(description="Null for a record that was refused.")
    source: str
    occurred_at: datetime
    recorded_at: datetime
    verdict: SubmissionVerdict
    score: float | None = Field(description="Null where no policy was in force.")
    score_min: float | None = Field(description="Below it a record is quarantined.")
    policy_version: int | None
    weight_passed: float | None
    weight_applicable: float | None = Field(description="Null, as `weight_passed`, where some outcome is not recorded.")
    parameters: list[ParameterOut]


class TallyOut(BaseModel):
    """Of the sample, how many came out in each way."""

    judged: int
    accepted: int
    flagged: int
    quarantined: int
    rejected: int


class ParameterEffectOut(BaseModel):
    """Of the sample, to how many the parameter applies, and how many do not meet it."""

    parameter: str
    applies: int
    failed: int


class EffectOut(BaseModel):
    """What this version would have made of the newest submissions, beside what the policy in force makes of the same. Each is judged as
    at the moment when it came."""

    version: int
    days: int
    sample: Literal["all", "newest"] = Field(
        description=f"`newest`: there are more than those judged, which are at most {PREVIEW_ROWS_MAX:,}, and as many as "
        f"{PREVIEW_TIME_MAX_S:.0f} seconds allow."
    )
    unread: int = Field(description="Submissions of the sample that are not kept in a form that can be judged again.")
    proposed: TallyOut
    in_force: TallyOut | None = Field(description="Null where no policy is in force.")
    parameters: list[ParameterEffectOut]
    warnings: list[str] = Field(
        description="What both departments should know before they sign; as the proposal answers."
    )


def quality_router(database: Database, policies: ActiveCache[PolicyEvaluator], previews: EffectPreviews) -> APIRouter:
    """The two routes."""
    router = APIRouter(tags=["quality"])

    @router.get(
        "/v1/submissions/{submission_id}/quality",
        summary="How a submission's verdict came about, parameter by parameter",
        responses=problems(404),
    )
    async def get_quality_report(submission_id: UUID, caller: Caller = require("leads:read")) -> QualityReportOut:
        found = await quality_report(database, policies, submission_id)
        if found is None:
            raise not_found("submission")
        return _report(found)

    @router.get(
        "/v1/policy/versions/{version}/effect",
        summary="What a version of the policy would have made of the newest submissions",
        responses=problems(404, 409),
    )
    async def get_effect(
        version: Annotated[int, Path(ge=1, le=2**31 - 1, description="Number of the version; a draft too.")],
        caller: Caller = require("leads:read"),
        days: Annotated[int, Query(ge=1, le=365, description="How far back to look.")] = PREVIEW_DAYS,
    ) -> EffectOut:
        found = await previews.of_version(version, days)
        if found is None:
            raise not_found("version")
        return _effect(version, found)

    return router


def _report(found: QualityReport) -> QualityReportOut:
    verdict, parameters = found.verdict, found.parameters
    known = bool(parameters) and all(one.outcome != "not_recorded" for one in parameters)
    passed = [one.weight for one in parameters if one.outcome == "passed"]
    applicable = [one.weight for one in parameters if one.outcome != "not_applicable"]
    return QualityReportOut(
        submission_id=verdict.submission_id,
        lead_id=verdict.lead_id,
        source=verdict.source,
        occurred_at=verdict.occurred_at,
        recorded_at=verdict.recorded_at,
        verdict=verdict.verdict,
        score=verdict.score,
        score_min=None if found.policy is None else found.policy.score_min,
        policy_version=verdict.policy_version,
        weight_passed=sum(passed) if known else None,
        weight_applicable=sum(applicable) if known else None,
        parameters=[
            ParameterOut(
                parameter=one.parameter,
                requirement=one.requirement,
                outcome=one.outcome,
                weight=one.weight,
                consequence=one.consequence,
                reason=one.reason,
            )
            for one in parameters
        ],
    )


def _effect(version: int, found: Effect) -> EffectOut:
    proposed = found.proposed
    return EffectOut(
        version=version,
        days=found.days,
        sample="all" if found.whole else "newest",
        unread=found.unread,
        proposed=_tally(proposed),
        in_force=None if found.in_force is None else _tally(found.in_force),
        parameters=[
            ParameterEffectOut(
                parameter=one.key, applies=proposed.applicable_count(place), failed=proposed.failed_count(place)
            )
            for place, one in enumerate(proposed.policy.parameters)
        ],
        warnings=describe_effect(found),
    )


def _tally(tally: Tally) -> TallyOut:
    verdicts = tally.verdicts
    return TallyOut(
        judged=tally.judged,
        accepted=verdicts["accepted"],
        flagged=verdicts["flagged"],
        quarantined=verdicts["quarantined"],
        rejected=verdicts["rejected"],
    )


CORRECTED = "Correction rejected by the data policy"


def rejection(title: str, quality: Quality, refusal: str, submission_id: UUID | None = None) -> Problem:
    """422 for a record that the policy refuses."""
    problem = Problem(422, "rejected-by-policy", title, refusal, quality=encode_quality(quality))
    if submission_id is not None:
        problem.extra["submission_id"] = str(submission_id)
    return problem
