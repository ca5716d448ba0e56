"""Says how a verdict came about, and what a policy would make of the newest submissions. It changes nothing and hands out no value of
any record.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from msgspec import Struct
from pydantic import TypeAdapter, ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection

from accord.agreements import ActiveCache
from accord.batching import ConcurrencyLimit, TimeBudget
from accord.db import Database
from accord.http.problems import Problem
from accord.terms.patterns import check_patterns
from intake.leads.domain.submission import Submission
from intake.leads.service.submissions import extract_facts
from intake.policy import queries
from intake.policy.domain import policy
from intake.policy.domain.evaluator import PolicyEvaluator
from intake.policy.domain.policy import Policy
from intake.policy.domain.report import Effect, ParameterReport, Tally, describe_effect, parameter_reports
from intake.policy.queries import StoredSubmission, Verdict

PREVIEW_DAYS = 30
PREVIEW_ROWS_MAX = 5_000
"""Submissions that a preview judges at most: the newest."""
PREVIEW_TIME_MAX_S = 3.0
"""A proposal waits for its preview, so this ends it; what was judged by then is reported."""
_WAITING_MAX = 4
_RETRY_AFTER_S = 5.0
_PORTION_ROWS = 500
_FORM_BYTES_MAX = 16_384
_SUBMISSION: TypeAdapter[Submission] = TypeAdapter(Submission)


class QualityReport(Struct, frozen=True):
    """One verdict with every parameter of the policy that made it; none where no policy was in force."""

    verdict: Verdict
    policy: Policy | None
    parameters: list[ParameterReport]


async def quality_report(
    database: Database, policies: ActiveCache[PolicyEvaluator], submission_id: UUID
) -> QualityReport | None:
    """The report on one submission; None if there is no such one."""
    async with database.read_transaction() as conn:
        verdict = await queries.find_verdict(conn, submission_id)
    if verdict is None:
        return None
    if verdict.policy_version is None:
        return QualityReport(verdict, None, [])
    judged_by = (await policies.at(verdict.policy_version)).policy
    return QualityReport(verdict, judged_by, parameter_reports(judged_by, verdict.outcomes, verdict.failed))


class EffectPreviews:
    """What a version of the policy would have made of the newest submissions; one at a time in a process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._limit = ConcurrencyLimit(1, _WAITING_MAX, _RETRY_AFTER_S)

    async def of_version(self, version: int, days: int) -> Effect | None:
        """The effect of a version, a draft too; None if there is no such version.

        Raises Overloaded where too many wait, and Problem 409 for a draft that is older than the checks of this release and does not
        pass them.
        """
        async with self._limit, self._database.read_transaction() as conn:
            content = await queries.find_content(conn, version)
            if content is None:
                return None
            if await asyncio.to_thread(_list_errors, content):
                raise Problem(
                    409, "agreement-refused", "Not possible", "This draft does not pass the checks of this release."
                )
            return await preview_effect(conn, content, days)


def _list_errors(content: Mapping[str, object]) -> Sequence[object]:
    return check_patterns(content) or policy.validate_policy(content)[1]


async def proposal_warnings(conn: AsyncConnection, content: Mapping[str, object]) -> Sequence[str]:
    """What both departments should know of a policy before they sign it."""
    return describe_effect(await preview_effect(conn, content, PREVIEW_DAYS))


async def preview_effect(conn: AsyncConnection, content: Mapping[str, object], days: int) -> Effect:
    """What this policy and the one in force make of the newest submissions, each judged as at the moment when it came.

    Bounded by PREVIEW_ROWS_MAX and PREVIEW_TIME_MAX_S. The judging is done beside the loop.
    """
    with TimeBudget(PREVIEW_TIME_MAX_S) as budget:
        preview = await asyncio.to_thread(_PreviewEvaluation.of, content, await queries.find_active_content(conn))
        since = datetime.now(UTC) - timedelta(days=days)
        before, seen, whole = queries.LAST_ID, 0, False
        while seen < PREVIEW_ROWS_MAX and not budget.is_used_up:
            portion = await queries.list_newest(conn, before, since, _PORTION_ROWS, _FORM_BYTES_MAX)
            judged = await asyncio.to_thread(preview.evaluate, portion, budget)
            seen += judged
            if judged == len(portion) < _PORTION_ROWS:
                whole = True
                break
            before = portion[-1].submission_id
    return Effect(days, whole, preview.unread, preview.proposed, preview.in_force)


class _PreviewEvaluation:
    """The two policies of a preview with their tallies."""

    def __init__(self, proposed: Policy, in_force: Policy | None) -> None:
        self._proposed = PolicyEvaluator.of(proposed)
        self._in_force = None if in_force is None else PolicyEvaluator.of(in_force)
        self.proposed = Tally(proposed)
        self.in_force = None if in_force is None else Tally(in_force)
        self.unread = 0

    @classmethod
    def of(cls, proposed: Mapping[str, object], in_force: Mapping[str, object] | None) -> _PreviewEvaluation:
        return cls(policy.parse_policy(proposed), None if in_force is None else policy.parse_policy(in_force))

    def evaluate(self, portion: Sequence[StoredSubmission], budget: TimeBudget) -> int:
        """Judge these until the budget is used up; how many."""
        for number, stored in enumerate(portion):
            if budget.is_used_up:
                return number
            submission = _read(stored.canonical)
            if submission is None:
                self.unread += 1
                continue
            facts = extract_facts(submission)
            self.proposed.add(self._proposed.evaluate(facts, 0, stored.recorded_at)[0])
            if self._in_force is not None and self.in_force is not None:
                self.in_force.add(self._in_force.evaluate(facts, 0, stored.recorded_at)[0])
        return len(portion)


def _read(canonical: str | None) -> Submission | None:
    try:
        return None if canonical is None else _SUBMISSION.validate_json(canonical)
    except ValidationError:
        return None
