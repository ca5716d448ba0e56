"""What people do with submissions that the policy held back: look at them, let them in, correct or discard them. Each in one
transaction; of two people at once one wins, and the other is told what became of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal
from uuid import UUID

import asyncpg
import orjson
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
from intake.leads.domain.unit_of_work import Candidate, Captured, CaptureUnitOfWork, Outcome
from intake.leads.queries import consents, family
from intake.leads.queries import leads as lead_queries
from intake.leads.queries.leads import Moved
from intake.leads.service.family import absent
from intake.leads.service.ledger import Apart, tried, with_pairs_apart, write
from intake.leads.service.person import (
    CaptureRequest,
    Recognised,
    candidate_of,
    consent_of,
    recognise,
    unfit_submission,
)
from intake.policy.domain.judge import Judge
from intake.policy.service.judging import InForce, RejectedByPolicy, as_the_policy_knows, judged
from intake.quarantine import queries
from intake.quarantine.domain import Action, FixedField, Settled, as_released, patched, without
from intake.quarantine.queries import Decision, Listed, Others, Waiting

WHAT = "quarantined submission"
_NOBODY = Others(None, frozenset())


@dataclass(frozen=True, slots=True)
class _Scene:
    """Everything that one waiting submission touches, locked."""

    leads: dict[UUID, Lead]
    keys: dict[IdentityKey, UUID]
    own: Lead | None
    """The held lead that waits for it; None where its lead is in."""
    others: Others
    """What else waits for that lead."""
    first: Candidate | None
    """The oldest of that."""

    @property
    def alone(self) -> Lead | None:
        return self.own if self.others.first is None else None


@dataclass(frozen=True, slots=True)
class Settlement:
    """What became of a submission that a person decided about. `about` is whom the answer speaks of."""

    submission_id: UUID
    state: Settled | Literal["waiting"]
    lead_id: UUID | None
    about: UUID | None
    outcome: Outcome | None = None
    quality: Quality | None = None
    """How it was judged; None for one that was discarded."""


Encode = Callable[[Settlement], Answer]


class Quarantine:
    """The use case. `encode` makes the answer that is saved under a request's key."""

    def __init__(self, database: Database, policies: ActiveCache[Judge]) -> None:
        self._database = database
        self._policies = policies

    # -- those who look --

    async def page(self, after: UUID, source: str | None, since: datetime | None, rows_max: int) -> list[Listed]:
        """What waits, oldest first, after the submission with this id."""
        async with self._database.read_transaction() as conn:
            return await queries.page(await connection_of(conn), after, source, since, rows_max)

    async def get_submission(self, submission_id: UUID) -> tuple[Listed, list[Decision]]:
        """One submission that waits or waited, with what was done. Raises Problem 404 or 410."""
        async with self._database.read_transaction() as conn:
            connection = await connection_of(conn)
            found = await queries.fetch_submission(connection, submission_id)
            if found is None:
                raise await absent(connection, submission_id, WHAT)
            return found, await queries.decisions(connection, [submission_id])

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

        async def act(unit_of_work: UnitOfWork, in_force: InForce) -> Settlement:
            connection = await unit_of_work.connection()
            waiting = await self._waiting(connection, submission_id)
            one = _recognised(_submission(waiting), waiting, in_force)
            if one.flaw is not None:
                raise unfit_submission(one.flaw)
            _, attributes = judged(one.facts, in_force, waiting.recorded_at)
            candidate = candidate_of(one, submission_id, waiting.occurred_at, as_released(waiting.quality), attributes)
            decision = Decision(submission_id, new_id(), "released", caller, unit_of_work.now, note=note)
            return await self._let_in(unit_of_work, waiting, one, candidate, in_force, decision)

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

        async def act(unit_of_work: UnitOfWork, in_force: InForce) -> Settlement:
            connection = await unit_of_work.connection()
            waiting = await self._waiting(connection, submission_id)
            one = _recognised(_corrected(waiting, fields), waiting, in_force)
            if one.flaw is not None:
                raise _within_fields(unfit_submission(one.flaw))
            quality, attributes = judged(one.facts, in_force, waiting.recorded_at)
            if quality.verdict == "rejected":
                raise RejectedByPolicy(quality, quality.refusal)
            candidate = candidate_of(one, submission_id, waiting.occurred_at, quality, attributes)
            action: Action = "kept" if quality.verdict == "quarantined" else "corrected"
            decision = Decision(
                submission_id, new_id(), action, caller, unit_of_work.now, fields=dict(fields), quality=quality
            )
            if action == "kept":
                return await self._keep(unit_of_work, waiting, one, candidate, in_force, decision)
            return await self._let_in(unit_of_work, waiting, one, candidate, in_force, decision)

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

        async def act(unit_of_work: UnitOfWork, in_force: InForce) -> Settlement:
            waiting = await self._waiting(await unit_of_work.connection(), submission_id)
            dismissed = await self._dismiss(unit_of_work, [waiting], in_force, "discarded", caller, reason)
            if not dismissed:
                raise Moved  # somebody was quicker; look again, and say so
            about = waiting.lead_id or submission_id
            return Settlement(submission_id, "discarded", dismissed[submission_id], about)

        return await self._once(idempotency_request, act, encode)

    async def expire(self, before: UUID, rows_max: int) -> int:
        """Let those go for which nobody decided, of those that came before this id was made; how many.

        One of which this raises rests, and the others go.
        """

        async def attempt() -> int:
            in_force = await self._policies.current()

            async def claim(unit_of_work: UnitOfWork, only: Sequence[UUID] | None) -> Sequence[UUID]:
                return await queries.overdue(await unit_of_work.connection(), before, rows_max, only)

            async def work(unit_of_work: UnitOfWork, overdue: Sequence[UUID]) -> None:
                waiting = await queries.read(await unit_of_work.connection(), overdue, lock=False)
                await self._dismiss(unit_of_work, list(waiting.values()), in_force, "expired", "retention", None)

            return await process_isolated(self._database, queries.EXPIRING, queries.IS_UNDECIDED, claim, work, _passes)

        return await tried(attempt)

    # -- steps --

    async def _once(
        self,
        idempotency_request: IdempotencyRequest | None,
        act: Callable[[UnitOfWork, InForce], Awaitable[Settlement]],
        encode: Encode,
    ) -> IdempotentResult[Settlement]:
        async def attempt() -> IdempotentResult[Settlement]:
            in_force = await self._policies.current()
            async with self._database.write_transaction() as unit_of_work:
                return await execute_once(
                    unit_of_work, idempotency_request, lambda: act(unit_of_work, in_force), encode
                )

        return await tried(attempt)

    async def _waiting(self, connection: asyncpg.Connection, submission_id: UUID) -> Waiting:
        """The submission, which is still undecided; not locked yet."""
        found = (await queries.read(connection, [submission_id], lock=False)).get(submission_id)
        if found is None:
            raise await absent(connection, submission_id, WHAT)
        if found.settled is not None or found.form is None:
            raise settled_already(found)
        return found

    async def _let_in(
        self,
        unit_of_work: UnitOfWork,
        waiting: Waiting,
        one: Recognised,
        candidate: Candidate,
        in_force: InForce,
        decision: Decision,
    ) -> Settlement:
        connection, now = await unit_of_work.connection(), unit_of_work.now
        scene = await self._scene(connection, waiting, candidate.keys, in_force)
        corrected = decision.action == "corrected"
        register, captured = await with_pairs_apart(
            connection, lambda apart: _played(scene, waiting, candidate, now, apart, corrected=corrected)
        )
        await _write(connection, register, scene, now)
        if one.account is not None:
            account_id, domain = one.account
            await lead_queries.save_accounts(connection, {account_id: (domain, one.request.submission.company)}, now)
        if one.request.submission.consent is not None and captured.lead_id is not None:
            said = consent_of(one.request, waiting.submission_id, captured.lead_id, waiting.occurred_at, now)
            await consents.insert(connection, [said], now)
        how: Settled = "corrected" if corrected else "released"
        form = _form_of(one) if corrected else waiting.form
        await queries.settle(
            connection, waiting, how, now, lead_id=captured.lead_id, outcome=captured.outcome, form=form
        )
        await queries.decided(connection, [replace(decision, lead_id=captured.lead_id)])
        unit_of_work.publish(*register.events)
        return Settlement(
            waiting.submission_id, how, captured.lead_id, captured.lead_id, captured.outcome, candidate.quality
        )

    async def _keep(
        self,
        unit_of_work: UnitOfWork,
        waiting: Waiting,
        one: Recognised,
        candidate: Candidate,
        in_force: InForce,
        decision: Decision,
    ) -> Settlement:
        connection, now = await unit_of_work.connection(), unit_of_work.now
        scene = await self._scene(connection, waiting, candidate.keys, in_force)
        register = CaptureUnitOfWork(now, dict(scene.leads), dict(scene.keys))
        own = _reduced(register, scene, waiting, candidate.keys)
        captured = register.wait_on(candidate, own if scene.alone else None)
        await _write(connection, register, scene, now)
        await queries.keep(connection, waiting.submission_id, _form_of(one), candidate.keys, captured.lead_id)
        await queries.decided(connection, [replace(decision, lead_id=captured.lead_id)])
        return Settlement(
            waiting.submission_id, "waiting", captured.lead_id, captured.lead_id, quality=candidate.quality
        )

    async def _scene(
        self, connection: asyncpg.Connection, waiting: Waiting, keys: Iterable[IdentityKey], in_force: InForce
    ) -> _Scene:
        """Lock keys, then leads, then the submission, as everybody does, and look whether it is still as it was read."""
        found, leads = await lead_queries.lock_matches(connection, {*waiting.keys, *keys})
        ids = await family.ids_of(connection, waiting.lead_id) if waiting.lead_id else []
        leads |= await _lock_roots(connection, leads, ids[:1])
        locked = (await queries.read(connection, [waiting.submission_id], lock=True)).get(waiting.submission_id)
        if locked is not None and locked.settled is not None:
            raise settled_already(locked)
        if locked is None or _changed(waiting, locked):
            raise Moved
        own = leads[ids[0]] if ids and leads[ids[0]].held else None
        others = await queries.others(connection, ids, [waiting.submission_id]) if own else _NOBODY
        return _Scene(leads, found, own, others, await self._first(connection, others, in_force))

    async def _first(self, connection: asyncpg.Connection, others: Others, in_force: InForce) -> Candidate | None:
        if others.first is None:
            return None
        waiting = (await queries.read(connection, [others.first], lock=False))[others.first]
        try:
            one = _recognised(_submission(waiting), waiting, in_force)
        except ValidationError:  # taken by an older version, and no record any more: its keys stay, its values do not
            return None
        _, attributes = judged(one.facts, in_force, waiting.recorded_at)
        return candidate_of(one, waiting.submission_id, waiting.occurred_at, waiting.quality, attributes)

    async def _dismiss(
        self,
        unit_of_work: UnitOfWork,
        asked: Sequence[Waiting],
        in_force: InForce,
        how: Settled,
        caller: str,
        note: str | None,
    ) -> dict[UUID, UUID | None]:
        """Settle those of these that still wait, without taking them in; the lead of each, None where it went with its last submission."""
        connection, now = await unit_of_work.connection(), unit_of_work.now
        _, leads = await lead_queries.lock_matches(connection, {key for one in asked for key in one.keys})
        families = {
            one: await family.ids_of(connection, one) for one in sorted({w.lead_id for w in asked if w.lead_id})
        }
        leads |= await _lock_roots(connection, leads, [ids[0] for ids in families.values() if ids])
        locked = await queries.read(connection, [one.submission_id for one in asked], lock=True)
        if any(one.submission_id in locked and _changed(one, locked[one.submission_id]) for one in asked):
            raise Moved
        going = [one for one in locked.values() if one.settled is None]
        by_root: dict[UUID, list[Waiting]] = {}
        for one in going:
            ids = families.get(one.lead_id, []) if one.lead_id else []
            if ids and leads[ids[0]].held:
                by_root.setdefault(ids[0], []).append(one)
        gone: list[UUID] = []
        for root, of_root in by_root.items():
            ids = families[of_root[0].lead_id] if of_root[0].lead_id else []
            gone += await self._shrink(connection, leads[root], ids, of_root, in_force, now)
        ids = [one.submission_id for one in going]
        await queries.dismiss(connection, ids, how, now, gone=gone, drop=how == "expired")
        await queries.decided(
            connection,
            [Decision(one.submission_id, new_id(), how, caller, now, lead_id=one.lead_id, note=note) for one in going],
        )
        return {one.submission_id: None if one.lead_id in gone else one.lead_id for one in going}

    async def _shrink(
        self,
        connection: asyncpg.Connection,
        held: Lead,
        ids: list[UUID],
        going: Sequence[Waiting],
        in_force: InForce,
        now: datetime,
    ) -> list[UUID]:
        """A held lead without some of what it waited for: the ids that are no leads any more, which is all where nothing else waits."""
        others = await queries.others(connection, ids, [one.submission_id for one in going])
        if others.first is None:
            await lead_queries.remove_leads(connection, ids)
            return ids
        lead = without(held, await self._first(connection, others, in_force), others.keys)
        await lead_queries.update_leads(connection, [lead], now)
        if (lead.source, lead.captured_at) != (held.source, held.captured_at):
            await queries.redate(connection, lead.lead_id, lead.source, lead.captured_at)
        dropped = {key: held.lead_id for one in going for key in one.keys if key not in others.keys}
        await lead_queries.delete_keys(connection, dropped)
        return []


def settled_already(waiting: Waiting) -> Problem:
    """409 for a submission that was decided before."""
    return Problem(
        409,
        "already-settled",
        "Somebody has decided already",
        f"This submission is {waiting.settled}.",
        state=waiting.settled,
        settled_at=waiting.settled_at,
    )


async def _lock_roots(
    connection: asyncpg.Connection, leads: Mapping[UUID, Lead], roots: Iterable[UUID]
) -> dict[UUID, Lead]:
    """The leads of these ids that are not locked yet, locked. Raises Moved if one of them was merged or went meanwhile."""
    missing = sorted({root for root in roots if root not in leads})
    locked = await lead_queries.lock_leads(connection, missing) if missing else {}
    if len(locked) != len(missing) or any(lead.merged_into is not None for lead in locked.values()):
        raise Moved
    return locked


def _played(
    scene: _Scene,
    waiting: Waiting,
    candidate: Candidate,
    now: datetime,
    apart: Apart,
    *,
    corrected: bool,
) -> tuple[CaptureUnitOfWork, Captured]:
    """Decide about a submission that comes in, on a fresh register."""
    register = CaptureUnitOfWork(now, dict(scene.leads), dict(scene.keys), apart)
    own = scene.own
    if corrected or waiting.keys != frozenset(candidate.keys):
        own = _reduced(register, scene, waiting, candidate.keys)
    return register, register.release(candidate, own if scene.alone else None)


def _reduced(register: CaptureUnitOfWork, scene: _Scene, waiting: Waiting, keys: Iterable[IdentityKey]) -> Lead | None:
    """The held lead without what the submission said before it was corrected."""
    if scene.own is None:
        return None
    own = without(scene.own, scene.first, scene.others.keys)
    register.reduce(own, waiting.keys - scene.others.keys - frozenset(keys))
    return own


async def _write(connection: asyncpg.Connection, register: CaptureUnitOfWork, scene: _Scene, now: datetime) -> None:
    await write(connection, register, now)
    for lead_id in register.touched:
        before, after = scene.leads.get(lead_id), register.leads[lead_id]
        if before is not None and (before.source, before.captured_at) != (after.source, after.captured_at):
            await queries.redate(connection, lead_id, after.source, after.captured_at)


def _recognised(submission: Submission, waiting: Waiting, in_force: InForce) -> Recognised:
    request = CaptureRequest(submission, waiting.form or "", waiting.caller)
    return as_the_policy_knows([recognise(request)], in_force)[0]


def _submission(waiting: Waiting) -> Submission:
    return Submission.model_validate_json(orjson.dumps(_read_form(waiting)))


def _read_form(waiting: Waiting) -> dict[str, JsonValue]:
    """The record as it was taken, with its moments in the range that is taken by now."""
    document: dict[str, JsonValue] = orjson.loads(waiting.form or "{}")
    for part, name in ((document, "occurred_at"), (document.get("consent"), "given_at")):
        said = part.get(name) if isinstance(part, dict) else None
        if isinstance(part, dict) and isinstance(said, str):
            with suppress(ValueError):  # what is no moment at all is said where it is read
                part[name] = clamp_moment(datetime.fromisoformat(said)).isoformat()
    return document


def _corrected(waiting: Waiting, fields: Mapping[str, JsonValue]) -> Submission:
    """The submission with these fields changed. Raises Problem 422 with pointers into the request."""
    try:
        document = patched(_read_form(waiting), fields)
    except FixedField as error:
        message = "Is a fact about the sender and cannot be corrected"
        raise validation_error_at(f"/fields/{error.field}", message) from None
    try:
        return Submission.model_validate_json(orjson.dumps(document))
    except ValidationError as error:
        raise _within_fields(from_validation_error(error, document)) from None


def _within_fields(problem: Problem) -> Problem:
    """The same problem, whose places are those of a record, with places in the request that corrects it."""
    problem.errors = [
        {**error, "pointer": f"/fields{error['pointer']}"} if "pointer" in error else error for error in problem.errors
    ]
    return problem


def _form_of(one: Recognised) -> str:
    return one.request.submission.model_dump_json(exclude_unset=True)


def _passes(error: BaseException) -> bool:
    return is_transient(error) or isinstance(error, Moved)


def _changed(before: Waiting, after: Waiting) -> bool:
    """Whether a submission says something else, or is somebody else's, than when it was read without a lock."""
    return (before.form, before.lead_id, before.keys) != (after.form, after.lead_id, after.keys)
