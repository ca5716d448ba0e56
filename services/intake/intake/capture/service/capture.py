"""Takes submissions in: many requests, one transaction. The decisions are pure and stand between two reads and the writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

import orjson

from accord.agreements import ActiveCache
from accord.db import Database, UnitOfWork
from accord.http.idempotency import Answer, Fresh, IdempotentResult, claim_requests, complete_requests
from accord.ids import new_id
from accord.terms.findings import Finding
from intake.leads.domain.keys import key_word
from intake.leads.domain.quality import Quality
from intake.leads.domain.submission import Submission, is_ahead
from intake.leads.domain.unit_of_work import Candidate, CaptureUnitOfWork, Outcome
from intake.leads.queries import consents, submissions
from intake.leads.queries import leads as lead_queries
from intake.leads.service.ledger import Apart, tried, with_pairs_apart, write
from intake.leads.service.person import CaptureRequest, Recognised, ahead_of_time, candidate_of, consent_of, recognise
from intake.policy.domain.judge import Judge
from intake.policy.service.judging import InForce, as_the_policy_knows, judged


class Taken(NamedTuple):
    """What became of one submission. `lead_id` and `outcome` are None for one that the policy rejected."""

    submission_id: UUID
    lead_id: UUID | None
    outcome: Outcome | None
    quality: Quality


CaptureResult = Taken | Finding
"""What became of one submission, or what is wrong with one that left no trace."""


class Decision(NamedTuple):
    """What a transaction has decided about submissions, one outcome for each, and has still to write."""

    register: CaptureUnitOfWork
    outcomes: list[CaptureResult]
    rows: list[submissions.Row]
    said: list[consents.Row]
    accounts: dict[UUID, tuple[str, str | None]]


class Capture:
    """The use case. `apply` is what a GroupCommit calls; `ingest`, or `decide` and `write`, are for those with a transaction of their
    own. `encode` makes the answer that is saved under a request's key."""

    def __init__(
        self, database: Database, policies: ActiveCache[Judge], encode: Callable[[CaptureResult], Answer]
    ) -> None:
        self.encode = encode
        self._database = database
        self._policies = policies
        self._accounts = _KnownAccounts()

    async def apply(self, requests: Sequence[CaptureRequest]) -> list[IdempotentResult[CaptureResult] | Exception]:
        """What became of each request, in order, after the commit."""
        recognised = [recognise(request) for request in requests]
        return await tried(lambda: self._record(recognised))

    async def ingest(
        self, unit_of_work: UnitOfWork, recognised: Sequence[Recognised], in_force: InForce
    ) -> list[CaptureResult]:
        """Ingest submissions in the caller's transaction and in order.

        Raises what `ledger.tried` tries again. Idempotency keys are not looked at. `in_force` is what `policy_in_force` gave
        before the transaction was opened.
        """
        decision = await self.decide(unit_of_work, recognised, in_force)
        await self.write(unit_of_work, decision)
        return decision.outcomes

    async def policy_in_force(self) -> InForce:
        """The data policy in force. Ask before a transaction is opened: looking takes a connection."""
        return await self._policies.current()

    async def decide(self, unit_of_work: UnitOfWork, recognised: Sequence[Recognised], in_force: InForce) -> Decision:
        """What becomes of submissions; their keys and the leads that these name are locked until the commit. The caller sees it written,
        in the same transaction."""
        recognised = as_the_policy_knows(recognised, in_force)
        connection, now = await unit_of_work.connection(), unit_of_work.now
        keys, leads = await lead_queries.lock_matches(connection, [key for one in recognised for key in one.keys])

        def play(apart: Apart) -> tuple[CaptureUnitOfWork, Decision]:
            register = CaptureUnitOfWork(now, dict(leads), dict(keys), apart)
            return register, self._play(recognised, in_force, register)

        return (await with_pairs_apart(connection, play))[1]

    async def write(self, unit_of_work: UnitOfWork, decision: Decision) -> None:
        """Write what was decided, and have it published."""
        connection, now = await unit_of_work.connection(), unit_of_work.now
        await write(connection, decision.register, now)
        await submissions.insert(connection, decision.rows, now)
        await consents.insert(connection, decision.said, now)
        if decision.accounts:
            self._accounts.saw(await lead_queries.save_accounts(connection, decision.accounts, now))
        unit_of_work.publish(*decision.register.events)

    def _play(self, recognised: Sequence[Recognised], in_force: InForce, register: CaptureUnitOfWork) -> Decision:
        """Decide about one submission after the other."""
        now = register.now
        outcomes: list[CaptureResult] = []
        rows: list[submissions.Row] = []
        said: list[consents.Row] = []
        accounts: dict[UUID, tuple[str, str | None]] = {}
        for one in recognised:
            flaw = one.flaw or (ahead_of_time() if is_ahead(one.request.submission.occurred_at, now) else None)
            if flaw is not None:
                outcomes.append(flaw)
                continue
            candidate = _candidate(one, in_force, now)
            lead_id, outcome = register.apply(candidate)
            if one.account is not None and lead_id is not None and one.account[0] not in self._accounts:
                accounts.setdefault(one.account[0], (one.account[1], one.request.submission.company))
            rows.append(_row(one, candidate, lead_id, outcome))
            if (
                one.request.submission.consent is not None
                and lead_id is not None
                and candidate.quality.verdict != "quarantined"
            ):
                said.append(consent_of(one.request, candidate.submission_id, lead_id, candidate.values.at, now))
            outcomes.append(Taken(candidate.submission_id, lead_id, outcome, candidate.quality))
        return Decision(register, outcomes, rows, said, accounts)

    async def _record(self, recognised: Sequence[Recognised]) -> list[IdempotentResult[CaptureResult] | Exception]:
        idempotency_requests = [one.request.idempotency_request for one in recognised]
        in_force = await self.policy_in_force()
        async with self._database.write_transaction() as unit_of_work:
            verdicts = await claim_requests(unit_of_work, idempotency_requests)
            fresh = [one for one, verdict in zip(recognised, verdicts, strict=True) if isinstance(verdict, Fresh)]
            results = await self.ingest(unit_of_work, fresh, in_force)
            return await complete_requests(unit_of_work, idempotency_requests, verdicts, results, self.encode)


class _KnownAccounts:
    """Ids of accounts that are surely in the database: they were there before a transaction asked, so no rollback takes them away."""

    _MAX = 50_000

    def __init__(self) -> None:
        self._ids: set[UUID] = set()

    def __contains__(self, account_id: UUID) -> bool:
        return account_id in self._ids

    def saw(self, account_ids: set[UUID]) -> None:
        if len(self._ids) + len(account_ids) > self._MAX:
            self._ids.clear()
        self._ids |= account_ids


def _candidate(one: Recognised, in_force: InForce, now: datetime) -> Candidate:
    quality, attributes = judged(one.facts, in_force, now)
    at = one.request.submission.occurred_at
    return candidate_of(one, new_id(), now if at is None else min(at, now), quality, attributes)


def _row(one: Recognised, candidate: Candidate, lead_id: UUID | None, outcome: Outcome | None) -> submissions.Row:
    request, values = one.request, candidate.values
    verdict = values.quality.verdict
    form = keys = None
    if verdict in ("quarantined", "rejected"):
        keys = [key_word(key) for key in candidate.keys]
    if verdict == "quarantined" or not request.is_form:
        form = form_of(request.submission)
    return submissions.Row(
        candidate.submission_id,
        lead_id,
        values.source,
        request.caller,
        outcome,
        values.quality,
        request.content,
        values.at,
        form,
        keys,
    )


def form_of(submission: Submission) -> str:
    """What was said, as JSON in our form: what `model_dump_json(exclude_unset=True)` gives, in half of the time."""
    return orjson.dumps(_dump_given_fields(submission), default=_dump_given_fields, option=orjson.OPT_UTC_Z).decode()


def _dump_given_fields(value: object) -> object:
    if isinstance(value, Decimal):
        return format(value, "f")
    fields, said = value.__dict__, value.__pydantic_fields_set__  # type: ignore[attr-defined]  # else it is a part of the form
    return {name: said_value for name, said_value in fields.items() if name in said}
