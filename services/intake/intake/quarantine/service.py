"""What people do with submissions that the policy held back: look at them, let them in, correct or discard them. Each in one
transaction; of two people at once one wins, and the other learns what became of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Literal
from uuid import UUID

import asyncpg
import orjson
from msgspec import Struct
from msgspec.structs import replace
from pydantic import JsonValue, ValidationError

from accord.agreements import ActiveCache
from accord.db import Database, UnitOfWork, clamp_moment, connection_of, is_transient
from accord.http.idempotency import Answer, IdempotencyRequest, IdempotentResult, execute_once
from accord.http.problems import Problem, from_validation_error, validation_error_at
from accord.ids import new_id
from accord.isolation import process_isolated
from intake.leads.domain.keys import IdentityKey
from intake.leads.domain.lead import Lead
from intake.leads.domain.quality import Quality
from intake.leads.domain.submission import Submission
from intake.leads.domain.unit_of_work import Candidate, CaptureOutcome, CaptureUnitOfWork, Outcome
from intake.leads.domain.usable_ids import read_id
from intake.leads.queries import consents, merge_group
from intake.leads.queries import leads as lead_queries
from intake.leads.queries.leads import ConcurrentMerge
from intake.leads.service.merge_group import make_not_found
from intake.leads.service.submissions import (
    CaptureRequest,
    NormalizedSubmission,
    build_candidate,
    build_consent,
    invalid_submission,
    normalize_submission,
)
from intake.leads.service.unit_of_work import (
    DoNotMergePairs,
    decide_with_exclusions,
    retry_on_conflict,
    save_lead_changes,
)
from intake.policy.domain.evaluator import PolicyEvaluator
from intake.policy.service.evaluation import ActivePolicy, RejectedByPolicy, apply_key_policy, evaluate_policy
from intake.quarantine import queries
from intake.quarantine.domain import (
    Action,
    FixedField,
    SettledState,
    apply_merge_patch,
    flag_released,
    remove_submission,
)
from intake.quarantine.queries import Decision, OtherSubmissions, QuarantinedSubmission, QuarantineItem

WHAT = "quarantined submission"
_NOBODY = OtherSubmissions(None, frozenset())


class _LockedContext(Struct, frozen=True):
    """Everything that one waiting submission touches, locked."""

    leads: dict[UUID, Lead]
    keys: dict[IdentityKey, UUID]
    own: Lead | None
    """The pending lead that waits for it; None where its lead is in."""
    others: OtherSubmissions
    """What else waits for that lead."""
    first: Candidate | None
    """The oldest of that."""

    @property
    def sole_pending(self) -> Lead | None:
        return self.own if self.others.first is None else None


class Settlement(Struct, frozen=True):
    """What became of a submission that a person decided about. `about` is whom the answer speaks of."""

    submission_id: UUID
    state: SettledState | Literal["waiting"]
    lead_id: UUID | None
    about: UUID | None
    outcome: Outcome | None = None
    quality: Quality | None = None
    """How it was judged; None for one that was discarded."""


Encode = Callable[[Settlement], Answer]


class Quarantine:
    """The use case. `encode` makes the answer that is saved under a request's key."""

    def __init__(self, database: Database, policies: ActiveCache[PolicyEvaluator]) -> None:
        self._database = database
        self._policies = policies

    # -- those who look --

    async def page(
        self, after: UUID, source: str | None, since: datetime | None, rows_max: int
    ) -> list[QuarantineItem]:
        """What waits, oldest first, after the submission with this id."""
        async with self._database.read_transaction() as conn:
            return await queries.page(await connection_of(conn), after, source, since, rows_max)

    async def get_submission(self, submission_id: UUID) -> tuple[QuarantineItem, list[Decision]]:
        """One submission that waits or waited, with what was done. Raises Problem 404 or 410."""
        async with self._database.read_transaction() as conn:
            connection = await connection_of(conn)
            found = await queries.fetch_submission(connection, submission_id)
            if found is None:
                raise await make_not_found(connection, submission_id, WHAT)
            return found, await queries.list_decisions(connection, [submission_id])

    # -- those who decide --

    async def release(
        self,
        submission_id: UUID,
        note: str | None,
        caller: str,
        idempotency_request: IdempotencyRequest | None,
        encode: Encode,
    ) -> IdempotentResult[Settlement]:
        """Let it in as it is, with its original time. Raises Problem 404, 409 or 410."""

        async def act(unit_of_work: UnitOfWork, active_policy: ActivePolicy) -> Settlement:
            connection = await unit_of_work.connection()
            submission = await self._get_undecided(connection, submission_id)
            one = _normalize(_submission(submission), submission, active_policy)
            if one.error is not None:
                raise invalid_submission(one.error)
            attributes = evaluate_policy(one.facts, active_policy, submission.recorded_at).attributes
            candidate = build_candidate(
                one, submission_id, submission.occurred_at, flag_released(submission.quality), attributes
            )
            decision = Decision(submission_id, new_id(), "released", caller, unit_of_work.now, note=note)
            return await self._accept(unit_of_work, submission, one, candidate, active_policy, decision)

        return await self._once(idempotency_request, act, encode)

    async def correct(
        self,
        submission_id: UUID,
        fields: Mapping[str, JsonValue],
        caller: str,
        idempotency_request: IdempotencyRequest | None,
        encode: Encode,
    ) -> IdempotentResult[Settlement]:
        """Change its fields (JSON Merge Patch) and judge it again, by the policy in force and as of when it came.

        Raises Problem 404, 409, 410, 422 where the outcome is no record, and RejectedByPolicy: then nothing has changed.
        """

        async def act(unit_of_work: UnitOfWork, active_policy: ActivePolicy) -> Settlement:
            connection = await unit_of_work.connection()
            submission = await self._get_undecided(connection, submission_id)
            one = _normalize(_patch_submission(submission, fields), submission, active_policy)
            if one.error is not None:
                raise _prefix_pointers(invalid_submission(one.error))
            quality, attributes, _ = evaluate_policy(one.facts, active_policy, submission.recorded_at)
            if quality.verdict == "rejected":
                raise RejectedByPolicy(quality, quality.rejection_reason)
            candidate = build_candidate(one, submission_id, submission.occurred_at, quality, attributes)
            action: Action = "requarantined" if quality.verdict == "quarantined" else "corrected"
            decision = Decision(
                submission_id, new_id(), action, caller, unit_of_work.now, fields=dict(fields), quality=quality
            )
            if action == "requarantined":
                return await self._requarantine(unit_of_work, submission, one, candidate, active_policy, decision)
            return await self._accept(unit_of_work, submission, one, candidate, active_policy, decision)

        return await self._once(idempotency_request, act, encode)

    async def discard(
        self,
        submission_id: UUID,
        reason: str,
        caller: str,
        idempotency_request: IdempotencyRequest | None,
        encode: Encode,
    ) -> IdempotentResult[Settlement]:
        """It does not come in. Raises Problem 404, 409 or 410."""

        async def act(unit_of_work: UnitOfWork, active_policy: ActivePolicy) -> Settlement:
            submission = await self._get_undecided(await unit_of_work.connection(), submission_id)
            dismissed = await self._dismiss(unit_of_work, [submission], active_policy, "discarded", caller, reason)
            if not dismissed:
                raise ConcurrentMerge  # somebody was quicker; look again, and say so
            about = submission.lead_id or submission_id
            return Settlement(submission_id, "discarded", dismissed[submission_id], about)

        return await self._once(idempotency_request, act, encode)

    async def expire(self, before: UUID, rows_max: int) -> int:
        """Let those go for which nobody decided, of those that came before this id was made; how many.

        One of which this raises rests, and the others go.
        """

        async def attempt() -> int:
            active_policy = await self._policies.current()

            async def claim(unit_of_work: UnitOfWork, only: Sequence[UUID] | None) -> Sequence[UUID]:
                return await queries.find_overdue(await unit_of_work.connection(), before, rows_max, only)

            async def work(unit_of_work: UnitOfWork, overdue: Sequence[UUID]) -> None:
                submission = await queries.read(await unit_of_work.connection(), overdue, lock=False)
                await self._dismiss(
                    unit_of_work, list(submission.values()), active_policy, "expired", "retention", None
                )

            return await process_isolated(
                self._database, queries.EXPIRING, queries.IS_UNDECIDED, claim, work, _is_retryable
            )

        return await retry_on_conflict(attempt)

    async def withdraw(
        self, unit_of_work: UnitOfWork, submission_ids: Sequence[UUID], active_policy: ActivePolicy, caller: str
    ) -> None:
        """Take waiting submissions from the leads that they hang on, before the caller deletes them: a pending lead loses what only they
        said. Raises what `retry_on_conflict` retries."""
        if submission_ids:
            found = await queries.read(await unit_of_work.connection(), submission_ids, lock=False)
            await self._dismiss(unit_of_work, list(found.values()), active_policy, "expired", caller, None)

    # -- steps --

    async def _once(
        self,
        idempotency_request: IdempotencyRequest | None,
        act: Callable[[UnitOfWork, ActivePolicy], Awaitable[Settlement]],
        encode: Encode,
    ) -> IdempotentResult[Settlement]:
        async def attempt() -> IdempotentResult[Settlement]:
            active_policy = await self._policies.current()
            async with self._database.write_transaction() as unit_of_work:
                return await execute_once(
                    unit_of_work, idempotency_request, lambda: act(unit_of_work, active_policy), encode
                )

        return await retry_on_conflict(attempt)

    async def _get_undecided(self, connection: asyncpg.Connection, submission_id: UUID) -> QuarantinedSubmission:
        """The submission, which is still undecided; not locked yet."""
        found = (await queries.read(connection, [submission_id], lock=False)).get(submission_id)
        if found is None:
            raise await make_not_found(connection, submission_id, WHAT)
        if found.settled is not None or found.canonical is None:
            raise already_settled(found)
        return found

    async def _accept(
        self,
        unit_of_work: UnitOfWork,
        submission: QuarantinedSubmission,
        one: NormalizedSubmission,
        candidate: Candidate,
        active_policy: ActivePolicy,
        decision: Decision,
    ) -> Settlement:
        connection, now = await unit_of_work.connection(), unit_of_work.now
        context = await self._lock_context(connection, submission, candidate.keys, active_policy)
        corrected = decision.action == "corrected"
        lead_changes, captured = await decide_with_exclusions(
            connection,
            lambda do_not_merge: _decide_release(
                context, submission, candidate, now, do_not_merge, corrected=corrected
            ),
        )
        await _write(connection, lead_changes, context, now)
        if one.account is not None:
            account_id, domain = one.account
            await lead_queries.save_accounts(connection, {account_id: (domain, one.request.submission.company)}, now)
        if one.request.submission.consent is not None and captured.lead_id is not None:
            said = build_consent(one.request, submission.submission_id, captured.lead_id, submission.occurred_at, now)
            await consents.insert(connection, [said], now)
        how: SettledState = "corrected" if corrected else "released"
        canonical = _encode_canonical(one) if corrected else submission.canonical
        await queries.settle(
            connection, submission, how, now, lead_id=captured.lead_id, outcome=captured.outcome, canonical=canonical
        )
        await queries.save_decisions(connection, [replace(decision, lead_id=captured.lead_id)])
        unit_of_work.publish(*lead_changes.events)
        return Settlement(
            submission.submission_id, how, captured.lead_id, captured.lead_id, captured.outcome, candidate.quality
        )

    async def _requarantine(
        self,
        unit_of_work: UnitOfWork,
        submission: QuarantinedSubmission,
        one: NormalizedSubmission,
        candidate: Candidate,
        active_policy: ActivePolicy,
        decision: Decision,
    ) -> Settlement:
        connection, now = await unit_of_work.connection(), unit_of_work.now
        context = await self._lock_context(connection, submission, candidate.keys, active_policy)
        lead_changes = CaptureUnitOfWork(now, dict(context.leads), dict(context.keys))
        own = _shrink_pending(lead_changes, context, submission, candidate.keys)
        captured = lead_changes.keep_pending(candidate, own if context.sole_pending else None)
        await _write(connection, lead_changes, context, now)
        await queries.save_correction(
            connection, submission.submission_id, _encode_canonical(one), candidate.keys, captured.lead_id
        )
        await queries.save_decisions(connection, [replace(decision, lead_id=captured.lead_id)])
        return Settlement(
            submission.submission_id, "waiting", captured.lead_id, captured.lead_id, quality=candidate.quality
        )

    async def _lock_context(
        self,
        connection: asyncpg.Connection,
        submission: QuarantinedSubmission,
        keys: Iterable[IdentityKey],
        active_policy: ActivePolicy,
    ) -> _LockedContext:
        """Lock keys, then leads, then the submission, as everybody does, and look whether it is still as it was read."""
        found, leads = await lead_queries.lock_matches(connection, {*submission.keys, *keys})
        ids = await merge_group.find_lead_ids(connection, submission.lead_id) if submission.lead_id else []
        leads |= await _lock_roots(connection, leads, ids[:1])
        locked = (await queries.read(connection, [submission.submission_id], lock=True)).get(submission.submission_id)
        if locked is not None and locked.settled is not None:
            raise already_settled(locked)
        if locked is None or _changed(submission, locked):
            raise ConcurrentMerge
        own = leads[ids[0]] if ids and leads[ids[0]].pending else None
        others = await queries.find_others(connection, ids, [submission.submission_id]) if own else _NOBODY
        return _LockedContext(leads, found, own, others, await self._first_candidate(connection, others, active_policy))

    async def _first_candidate(
        self, connection: asyncpg.Connection, others: OtherSubmissions, active_policy: ActivePolicy
    ) -> Candidate | None:
        if others.first is None:
            return None
        submission = (await queries.read(connection, [others.first], lock=False))[others.first]
        try:
            one = _normalize(_submission(submission), submission, active_policy)
        except ValidationError:  # taken by an older version, and no record any more: its keys stay, its values do not
            return None
        attributes = evaluate_policy(one.facts, active_policy, submission.recorded_at).attributes
        return build_candidate(one, submission.submission_id, submission.occurred_at, submission.quality, attributes)

    async def _dismiss(
        self,
        unit_of_work: UnitOfWork,
        submissions: Sequence[QuarantinedSubmission],
        active_policy: ActivePolicy,
        how: SettledState,
        caller: str,
        note: str | None,
    ) -> dict[UUID, UUID | None]:
        """Settle those of these that still wait, without capturing them; the lead of each, None where it went with its last submission."""
        connection, now = await unit_of_work.connection(), unit_of_work.now
        _, leads = await lead_queries.lock_matches(connection, {key for one in submissions for key in one.keys})
        families = {
            one: await merge_group.find_lead_ids(connection, one)
            for one in sorted({w.lead_id for w in submissions if w.lead_id})
        }
        leads |= await _lock_roots(connection, leads, [ids[0] for ids in families.values() if ids])
        locked = await queries.read(connection, [one.submission_id for one in submissions], lock=True)
        if any(one.submission_id in locked and _changed(one, locked[one.submission_id]) for one in submissions):
            raise ConcurrentMerge
        going = [one for one in locked.values() if one.settled is None]
        by_root: dict[UUID, list[QuarantinedSubmission]] = {}
        for one in going:
            ids = families.get(one.lead_id, []) if one.lead_id else []
            if ids and leads[ids[0]].pending:
                by_root.setdefault(ids[0], []).append(one)
        gone: list[UUID] = []
        for root, of_root in by_root.items():
            ids = families[of_root[0].lead_id] if of_root[0].lead_id else []
            gone += await self._shrink(connection, leads[root], ids, of_root, active_policy, now)
        ids = [one.submission_id for one in going]
        await queries.dismiss(connection, ids, how, now, gone=gone, drop=how == "expired")
        await queries.save_decisions(
            connection,
            [Decision(one.submission_id, new_id(), how, caller, now, lead_id=one.lead_id, note=note) for one in going],
        )
        return {one.submission_id: None if one.lead_id in gone else one.lead_id for one in going}

    async def _shrink(
        self,
        connection: asyncpg.Connection,
        pending: Lead,
        ids: list[UUID],
        going: Sequence[QuarantinedSubmission],
        active_policy: ActivePolicy,
        now: datetime,
    ) -> list[UUID]:
        """A pending lead without some of what it waited for: the ids that are no leads any more, which is all where nothing else waits."""
        others = await queries.find_others(connection, ids, [one.submission_id for one in going])
        if others.first is None:
            await lead_queries.delete_leads(connection, ids)
            return ids
        lead = remove_submission(pending, await self._first_candidate(connection, others, active_policy), others.keys)
        await lead_queries.update_leads(connection, [lead], now)
        if (lead.source, lead.captured_at) != (pending.source, pending.captured_at):
            await queries.update_origin(connection, lead.lead_id, lead.source, lead.captured_at)
        dropped = {key: pending.lead_id for one in going for key in one.keys if key not in others.keys}
        await lead_queries.delete_keys(connection, dropped)
        return []


def already_settled(submission: QuarantinedSubmission) -> Problem:
    """409 for a submission that was decided before."""
    return Problem(
        409,
        "already-settled",
        "Submission already decided",
        f"This submission is {submission.settled}.",
        state=submission.settled,
        settled_at=submission.settled_at,
    )


async def _lock_roots(
    connection: asyncpg.Connection, leads: Mapping[UUID, Lead], roots: Iterable[UUID]
) -> dict[UUID, Lead]:
    """The leads of these ids that are not locked yet, locked. Raises ConcurrentMerge if one of them was merged or went meanwhile."""
    missing = sorted({root for root in roots if root not in leads})
    locked = await lead_queries.lock_leads(connection, missing) if missing else {}
    if len(locked) != len(missing) or any(lead.merged_into is not None for lead in locked.values()):
        raise ConcurrentMerge
    return locked


def _decide_release(
    context: _LockedContext,
    submission: QuarantinedSubmission,
    candidate: Candidate,
    now: datetime,
    do_not_merge: DoNotMergePairs,
    *,
    corrected: bool,
) -> tuple[CaptureUnitOfWork, CaptureOutcome]:
    """Decide about a submission that comes in, on a fresh unit of work."""
    lead_changes = CaptureUnitOfWork(now, dict(context.leads), dict(context.keys), do_not_merge)
    own = context.own
    if corrected or submission.keys != frozenset(candidate.keys):
        own = _shrink_pending(lead_changes, context, submission, candidate.keys)
    return lead_changes, lead_changes.release(candidate, own if context.sole_pending else None)


def _shrink_pending(
    lead_changes: CaptureUnitOfWork,
    context: _LockedContext,
    submission: QuarantinedSubmission,
    keys: Iterable[IdentityKey],
) -> Lead | None:
    """The pending lead without what the submission said before it was corrected."""
    if context.own is None:
        return None
    own = remove_submission(context.own, context.first, context.others.keys)
    lead_changes.shrink_pending(own, submission.keys - context.others.keys - frozenset(keys))
    return own


async def _write(
    connection: asyncpg.Connection, lead_changes: CaptureUnitOfWork, context: _LockedContext, now: datetime
) -> None:
    await save_lead_changes(connection, lead_changes, now)
    for lead_id in lead_changes.changed_ids:
        before, after = context.leads.get(lead_id), lead_changes.leads[lead_id]
        if before is not None and (before.source, before.captured_at) != (after.source, after.captured_at):
            await queries.update_origin(connection, lead_id, after.source, after.captured_at)


def _normalize(
    record: Submission, submission: QuarantinedSubmission, active_policy: ActivePolicy
) -> NormalizedSubmission:
    request = CaptureRequest(record, submission.canonical or "", submission.caller)
    return apply_key_policy([normalize_submission(request)], active_policy)[0]


def _submission(submission: QuarantinedSubmission) -> Submission:
    """The record that waits. Raises Problem 422 where nothing of it can be a record by now."""
    document = _read_canonical(submission)
    try:
        return Submission.model_validate_json(orjson.dumps(document))
    except ValidationError as error:
        raise from_validation_error(error, document) from None


def _read_canonical(submission: QuarantinedSubmission) -> dict[str, JsonValue]:
    """The record as it was taken, with its moments in the range that is taken by now, and without an id that is none by now."""
    document: dict[str, JsonValue] = orjson.loads(submission.canonical or "{}")
    external_id = document.get("external_id")
    if isinstance(external_id, str) and read_id(external_id) is None:
        del document["external_id"]
    for part, name in ((document, "occurred_at"), (document.get("consent"), "given_at")):
        said = part.get(name) if isinstance(part, dict) else None
        if isinstance(part, dict) and isinstance(said, str):
            with suppress(ValueError):  # what is no moment at all is said where it is read
                part[name] = clamp_moment(datetime.fromisoformat(said)).isoformat()
    return document


def _patch_submission(submission: QuarantinedSubmission, fields: Mapping[str, JsonValue]) -> Submission:
    """The submission with these fields changed. Raises Problem 422 with pointers into the request."""
    try:
        document = apply_merge_patch(_read_canonical(submission), fields)
    except FixedField as error:
        message = "Is a fact about the sender and cannot be corrected"
        raise validation_error_at(f"/fields/{error.field}", message) from None
    try:
        return Submission.model_validate_json(orjson.dumps(document))
    except ValidationError as error:
        raise _prefix_pointers(from_validation_error(error, document)) from None


def _prefix_pointers(problem: Problem) -> Problem:
    """The same problem, whose places are those of a record, with places in the request that corrects it."""
    problem.errors = [
        {**error, "pointer": f"/fields{error['pointer']}"} if "pointer" in error else error for error in problem.errors
    ]
    return problem


def _encode_canonical(one: NormalizedSubmission) -> str:
    return one.request.submission.model_dump_json(exclude_unset=True)


def _is_retryable(error: BaseException) -> bool:
    return is_transient(error) or isinstance(error, ConcurrentMerge)


def _changed(before: QuarantinedSubmission, after: QuarantinedSubmission) -> bool:
    """Whether a submission says something else, or is somebody else's, than when it was read without a lock."""
    return (before.canonical, before.lead_id, before.keys) != (after.canonical, after.lead_id, after.keys)
