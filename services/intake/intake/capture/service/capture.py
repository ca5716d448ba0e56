"""Captures submissions: many requests, one transaction. The decisions are pure and stand between two reads and the writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import orjson

from accord.agreements import ActiveCache
from accord.contracts.codec import to_object
from accord.contracts.values import Money
from accord.db import Database, UnitOfWork
from accord.http.idempotency import Answer, Fresh, IdempotentResult, claim_requests, complete_requests
from accord.ids import new_id
from accord.terms.findings import Finding
from intake.leads.domain.keys import format_key
from intake.leads.domain.quality import Quality
from intake.leads.domain.submission import Submission, is_in_future
from intake.leads.domain.unit_of_work import Candidate, CaptureUnitOfWork, Outcome
from intake.leads.queries import consents, submissions
from intake.leads.queries import leads as lead_queries
from intake.leads.service.submissions import (
    GUESSED_ID,
    CaptureRequest,
    NormalizedSubmission,
    build_candidate,
    build_consent,
    future_time_error,
    normalize_submission,
)
from intake.leads.service.unit_of_work import (
    DoNotMergePairs,
    decide_with_exclusions,
    retry_on_conflict,
    save_lead_changes,
)
from intake.policy.domain.evaluator import PolicyEvaluator
from intake.policy.service.evaluation import ActivePolicy, apply_key_policy, evaluate_policy


class CapturedSubmission(NamedTuple):
    """What became of one submission. `lead_id` and `outcome` are None for one that the policy rejected. `left_out`: its values that went
    no further than intake, or nowhere, each with why."""

    submission_id: UUID
    lead_id: UUID | None
    outcome: Outcome | None
    quality: Quality
    left_out: tuple[Finding, ...] = ()


CaptureResult = CapturedSubmission | Finding
"""What became of one submission, or what is wrong with one that left no trace."""


class CaptureDecision(NamedTuple):
    """What a transaction has decided about submissions, one outcome for each, and has still to write beside leads."""

    outcomes: list[CaptureResult]
    rows: list[submissions.Row]
    said: list[consents.Row]
    accounts: dict[UUID, tuple[str, str | None]]


class Capture:
    """The use case. `apply` is what a GroupCommit calls; `ingest` is for those with a transaction of their own. `encode` makes the answer
    that is saved under a request's key."""

    def __init__(
        self, database: Database, policies: ActiveCache[PolicyEvaluator], encode: Callable[[CaptureResult], Answer]
    ) -> None:
        self.encode = encode
        self._database = database
        self._policies = policies
        self._accounts = _KnownAccounts()

    async def apply(self, requests: Sequence[CaptureRequest]) -> list[IdempotentResult[CaptureResult] | Exception]:
        """What became of each request, in order, after the commit."""
        normalized = [normalize_submission(request) for request in requests]
        return await retry_on_conflict(lambda: self._record(normalized))

    async def ingest(
        self, unit_of_work: UnitOfWork, normalized: Sequence[NormalizedSubmission], active_policy: ActivePolicy
    ) -> list[CaptureResult]:
        """Ingest submissions in the caller's transaction and in order.

        Raises what `retry_on_conflict` retries. Idempotency keys are not looked at. `active_policy` is what `get_active_policy` returned
        before the transaction was opened.
        """
        normalized = apply_key_policy(normalized, active_policy)
        connection, now = await unit_of_work.connection(), unit_of_work.now
        keys, leads = await lead_queries.lock_matches(connection, [key for one in normalized for key in one.keys])

        def decide(do_not_merge: DoNotMergePairs) -> tuple[CaptureUnitOfWork, CaptureDecision]:
            lead_changes = CaptureUnitOfWork(now, dict(leads), dict(keys), do_not_merge)
            return lead_changes, self._decide_each(normalized, active_policy, lead_changes)

        lead_changes, decision = await decide_with_exclusions(connection, decide)
        await save_lead_changes(connection, lead_changes, now)
        await submissions.insert(connection, decision.rows, now)
        await consents.insert(connection, decision.said, now)
        if decision.accounts:
            self._accounts.add(await lead_queries.save_accounts(connection, decision.accounts, now))
        unit_of_work.publish(*lead_changes.events)
        return decision.outcomes

    async def get_active_policy(self) -> ActivePolicy:
        """The data policy in force. Ask before a transaction is opened: looking takes a connection."""
        return await self._policies.current()

    def _decide_each(
        self, normalized: Sequence[NormalizedSubmission], active_policy: ActivePolicy, lead_changes: CaptureUnitOfWork
    ) -> CaptureDecision:
        """Decide about one submission after the other."""
        now = lead_changes.now
        outcomes: list[CaptureResult] = []
        rows: list[submissions.Row] = []
        said: list[consents.Row] = []
        accounts: dict[UUID, tuple[str, str | None]] = {}
        for one in normalized:
            error = one.error or (
                future_time_error() if is_in_future(one.request.submission.occurred_at, now) else None
            )
            if error is None and one.request.id_is_guessed and lead_changes.contradicts_id(one.keys):
                error = GUESSED_ID
            if error is not None:
                outcomes.append(error)
                continue
            candidate, left_out = _build_candidate(one, active_policy, now)
            lead_id, outcome = lead_changes.apply(candidate)
            if one.account is not None and lead_id is not None and one.account[0] not in self._accounts:
                accounts.setdefault(one.account[0], (one.account[1], one.request.submission.company))
            rows.append(_build_row(one, candidate, lead_id, outcome))
            if (
                one.request.submission.consent is not None
                and lead_id is not None
                and candidate.quality.verdict != "quarantined"
            ):
                said.append(build_consent(one.request, candidate.submission_id, lead_id, candidate.values.at, now))
            outcomes.append(CapturedSubmission(candidate.submission_id, lead_id, outcome, candidate.quality, left_out))
        return CaptureDecision(outcomes, rows, said, accounts)

    async def _record(
        self, normalized: Sequence[NormalizedSubmission]
    ) -> list[IdempotentResult[CaptureResult] | Exception]:
        idempotency_requests = [one.request.idempotency_request for one in normalized]
        active_policy = await self.get_active_policy()
        async with self._database.write_transaction() as unit_of_work:
            verdicts = await claim_requests(unit_of_work, idempotency_requests)
            fresh = [one for one, verdict in zip(normalized, verdicts, strict=True) if isinstance(verdict, Fresh)]
            results = await self.ingest(unit_of_work, fresh, active_policy)
            return await complete_requests(unit_of_work, idempotency_requests, verdicts, results, self.encode)


class _KnownAccounts:
    """Ids of accounts that are surely in the database: they were there before a transaction asked, so no rollback takes them away."""

    _MAX = 50_000

    def __init__(self) -> None:
        self._ids: set[UUID] = set()

    def __contains__(self, account_id: UUID) -> bool:
        return account_id in self._ids

    def add(self, account_ids: set[UUID]) -> None:
        if len(self._ids) + len(account_ids) > self._MAX:
            self._ids.clear()
        self._ids |= account_ids


def _build_candidate(
    one: NormalizedSubmission, active_policy: ActivePolicy, now: datetime
) -> tuple[Candidate, tuple[Finding, ...]]:
    quality, attributes, left_out = evaluate_policy(one.facts, active_policy, now)
    at = one.request.submission.occurred_at
    candidate = build_candidate(one, new_id(), now if at is None else min(at, now), quality, attributes)
    return candidate, one.left_out + left_out


def _build_row(
    one: NormalizedSubmission, candidate: Candidate, lead_id: UUID | None, outcome: Outcome | None
) -> submissions.Row:
    request, values = one.request, candidate.values
    verdict = values.quality.verdict
    canonical = keys = None
    if verdict in ("quarantined", "rejected"):
        keys = [format_key(key) for key in candidate.keys]
    if verdict == "quarantined" or not request.is_canonical:
        canonical = encode_canonical(request.submission)
    return submissions.Row(
        candidate.submission_id,
        lead_id,
        values.source,
        request.caller,
        outcome,
        values.quality,
        request.content,
        values.at,
        canonical,
        keys,
    )


def encode_canonical(submission: Submission) -> str:
    """What was said, as JSON in canonical form: what `model_dump_json(exclude_unset=True)` gives, in half of the time."""
    return orjson.dumps(_dump_given_fields(submission), default=_dump_given_fields, option=orjson.OPT_UTC_Z).decode()


def _dump_given_fields(value: object) -> object:
    if isinstance(value, Money):
        return to_object(value)
    fields, said = value.__dict__, value.__pydantic_fields_set__  # type: ignore[attr-defined]  # else it is a part of the canonical form
    return {name: said_value for name, said_value in fields.items() if name in said}
