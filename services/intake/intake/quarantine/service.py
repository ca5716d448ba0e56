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
from accord.db import Database, Recording, driver_of, finite, is_transient
from accord.http.idempotency import Answer, Done, Ticket, once
from accord.http.problems import Problem, from_validation_error, unfit_at
from accord.ids import new_id
from accord.isolation import process_isolated
from intake.leads.domain.keys import IdentityKey
from intake.leads.domain.lead import Lead
from intake.leads.domain.quality import Quality
from intake.leads.domain.register import Candidate, Captured, Outcome, Register
from intake.leads.domain.submission import Submission
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
        async with self._database.reading() as conn:
            return await queries.page(await driver_of(conn), after, source, since, rows_max)

    async def one(self, submission_id: UUID) -> tuple[Listed, list[Decision]]:
        """One submission that waits or waited, with what was done. Raises Problem 404 or 410."""
        async with self._database.reading() as conn:
            driver = await driver_of(conn)
            found = await queries.one(driver, submission_id)
            if found is None:
                raise await absent(driver, submission_id, WHAT)
            return found, await queries.decisions(driver, [submission_id])

    # -- those who decide --

    async def release(
        self, submission_id: UUID, note: str | None, caller: str, ticket: Ticket | None, encode: Encode
    ) -> Done[Settlement]:
        """Let it in as it is, with its original time. Raises Problem 404, 409 or 410."""

        async def act(recording: Recording, in_force: InForce) -> Settlement:
            driver = await recording.driver()
            waiting = await self._waiting(driver, submission_id)
            one = _recognised(_submission(waiting), waiting, in_force)
            if one.flaw is not None:
                raise unfit_submission(one.flaw)
            _, attributes = judged(one.facts, in_force, waiting.recorded_at)
            candidate = candidate_of(one, submission_id, waiting.occurred_at, as_released(waiting.quality), attributes)
            decision = Decision(submission_id, new_id(), "released", caller, recording.now, note=note)
            return await self._let_in(recording, waiting, one, candidate, in_force, decision)

        return await self._once(ticket, act, encode)

    async def correct(
        self,
        submission_id: UUID,
        fields: Mapping[str, JsonValue],
        caller: str,
        ticket: Ticket | None,
        encode: Encode,
    ) -> Done[Settlement]:
        """Change its fields (JSON Merge Patch) and judge it again, by the policy in force and as of when it came.

        Raises Problem 404, 409, 410, 422 where the outcome is no record, and RejectedByPolicy: then nothing has changed.
        """

        async def act(recording: Recording, in_force: InForce) -> Settlement:
            driver = await recording.driver()
            waiting = await self._waiting(driver, submission_id)
            one = _recognised(_corrected(waiting, fields), waiting, in_force)
            if one.flaw is not None:
                raise _within_fields(unfit_submission(one.flaw))
            quality, attributes = judged(one.facts, in_force, waiting.recorded_at)
            if quality.verdict == "rejected":
                raise RejectedByPolicy(quality, quality.refusal)
            candidate = candidate_of(one, submission_id, waiting.occurred_at, quality, attributes)
            action: Action = "kept" if quality.verdict == "quarantined" else "corrected"
            decision = Decision(
                submission_id, new_id(), action, caller, recording.now, fields=dict(fields), quality=quality
            )
            if action == "kept":
                return await self._keep(recording, waiting, one, candidate, in_force, decision)
            return await self._let_in(recording, waiting, one, candidate, in_force, decision)

        return await self._once(ticket, act, encode)

    async def discard(
        self, submission_id: UUID, reason: str, caller: str, ticket: Ticket | None, encode: Encode
    ) -> Done[Settlement]:
        """It does not come in. Raises Problem 404, 409 or 410."""

        async def act(recording: Recording, in_force: InForce) -> Settlement:
            waiting = await self._waiting(await recording.driver(), submission_id)
            dismissed = await self._dismiss(recording, [waiting], in_force, "discarded", caller, reason)
            if not dismissed:
                raise Moved  # somebody was quicker; look again, and say so
            about = waiting.lead_id or submission_id
            return Settlement(submission_id, "discarded", dismissed[submission_id], about)

        return await self._once(ticket, act, encode)

    async def expire(self, before: UUID, rows_max: int) -> int:
        """Let those go for which nobody decided, of those that came before this id was made; how many.

        One of which this raises rests, and the others go.
        """

        async def attempt() -> int:
            in_force = await self._policies.current()

            async def claim(recording: Recording, only: Sequence[UUID] | None) -> Sequence[UUID]:
                return await queries.overdue(await recording.driver(), before, rows_max, only)

            async def work(recording: Recording, overdue: Sequence[UUID]) -> None:
                waiting = await queries.read(await recording.driver(), overdue, lock=False)
                await self._dismiss(recording, list(waiting.values()), in_force, "expired", "retention", None)

            return await process_isolated(self._database, queries.EXPIRING, queries.IS_UNDECIDED, claim, work, _passes)

        return await tried(attempt)

    # -- steps --

    async def _once(
        self, ticket: Ticket | None, act: Callable[[Recording, InForce], Awaitable[Settlement]], encode: Encode
    ) -> Done[Settlement]:
        async def attempt() -> Done[Settlement]:
            in_force = await self._policies.current()
            async with self._database.recording() as recording:
                return await once(recording, ticket, lambda: act(recording, in_force), encode)

        return await tried(attempt)

    async def _waiting(self, driver: asyncpg.Connection, submission_id: UUID) -> Waiting:
        """The submission, which is still undecided; not locked yet."""
        found = (await queries.read(driver, [submission_id], lock=False)).get(submission_id)
        if found is None:
            raise await absent(driver, submission_id, WHAT)
        if found.settled is not None or found.form is None:
            raise settled_already(found)
        return found

    async def _let_in(
        self,
        recording: Recording,
        waiting: Waiting,
        one: Recognised,
        candidate: Candidate,
        in_force: InForce,
        decision: Decision,
    ) -> Settlement:
        driver, now = await recording.driver(), recording.now
        scene = await self._scene(driver, waiting, candidate.keys, in_force)
        corrected = decision.action == "corrected"
        register, captured = await with_pairs_apart(
            driver, lambda apart: _played(scene, waiting, candidate, now, apart, corrected=corrected)
        )
        await _write(driver, register, scene, now)
        if one.account is not None:
            account_id, domain = one.account
            await lead_queries.save_accounts(driver, {account_id: (domain, one.request.submission.company)}, now)
        if one.request.submission.consent is not None and captured.lead_id is not None:
            said = consent_of(one.request, waiting.submission_id, captured.lead_id, waiting.occurred_at, now)
            await consents.insert(driver, [said], now)
        how: Settled = "corrected" if corrected else "released"
        form = _form_of(one) if corrected else waiting.form
        await queries.settle(driver, waiting, how, now, lead_id=captured.lead_id, outcome=captured.outcome, form=form)
        await queries.decided(driver, [replace(decision, lead_id=captured.lead_id)])
        recording.publish(*register.events)
        return Settlement(
            waiting.submission_id, how, captured.lead_id, captured.lead_id, captured.outcome, candidate.quality
        )

    async def _keep(
        self,
        recording: Recording,
        waiting: Waiting,
        one: Recognised,
        candidate: Candidate,
        in_force: InForce,
        decision: Decision,
    ) -> Settlement:
        driver, now = await recording.driver(), recording.now
        scene = await self._scene(driver, waiting, candidate.keys, in_force)
        register = Register(now, dict(scene.leads), dict(scene.keys))
        own = _reduced(register, scene, waiting, candidate.keys)
        captured = register.wait_on(candidate, own if scene.alone else None)
        await _write(driver, register, scene, now)
        await queries.keep(driver, waiting.submission_id, _form_of(one), candidate.keys, captured.lead_id)
        await queries.decided(driver, [replace(decision, lead_id=captured.lead_id)])
        return Settlement(
            waiting.submission_id, "waiting", captured.lead_id, captured.lead_id, quality=candidate.quality
        )

    async def _scene(
        self, driver: asyncpg.Connection, waiting: Waiting, keys: Iterable[IdentityKey], in_force: InForce
    ) -> _Scene:
        """Lock keys, then leads, then the submission, as everybody does, and look whether it is still as it was read."""
        found, leads = await lead_queries.lock_matches(driver, {*waiting.keys, *keys})
        ids = await family.ids_of(driver, waiting.lead_id) if waiting.lead_id else []
        leads |= await _lock_roots(driver, leads, ids[:1])
        locked = (await queries.read(driver, [waiting.submission_id], lock=True)).get(waiting.submission_id)
        if locked is not None and locked.settled is not None:
            raise settled_already(locked)
        if locked is None or _changed(waiting, locked):
            raise Moved
        own = leads[ids[0]] if ids and leads[ids[0]].held else None
        others = await queries.others(driver, ids, [waiting.submission_id]) if own else _NOBODY
        return _Scene(leads, found, own, others, await self._first(driver, others, in_force))

    async def _first(self, driver: asyncpg.Connection, others: Others, in_force: InForce) -> Candidate | None:
        if others.first is None:
            return None
        waiting = (await queries.read(driver, [others.first], lock=False))[others.first]
        try:
            one = _recognised(_submission(waiting), waiting, in_force)
        except ValidationError:  # taken by an older version, and no record any more: its keys stay, its values do not
            return None
        _, attributes = judged(one.facts, in_force, waiting.recorded_at)
        return candidate_of(one, waiting.submission_id, waiting.occurred_at, waiting.quality, attributes)

    async def _dismiss(
        self,
        recording: Recording,
        asked: Sequence[Waiting],
        in_force: InForce,
        how: Settled,
        caller: str,
        note: str | None,
    ) -> dict[UUID, UUID | None]:
        """Settle those of these that still wait, without taking them in; the lead of each, None where it went with its last submission."""
        driver, now = await recording.driver(), recording.now
        _, leads = await lead_queries.lock_matches(driver, {key for one in asked for key in one.keys})
        families = {one: await family.ids_of(driver, one) for one in sorted({w.lead_id for w in asked if w.lead_id})}
        leads |= await _lock_roots(driver, leads, [ids[0] for ids in families.values() if ids])
        locked = await queries.read(driver, [one.submission_id for one in asked], lock=True)
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
            gone += await self._shrink(driver, leads[root], ids, of_root, in_force, now)
        ids = [one.submission_id for one in going]
        await queries.dismiss(driver, ids, how, now, gone=gone, drop=how == "expired")
        await queries.decided(
            driver,
            [Decision(one.submission_id, new_id(), how, caller, now, lead_id=one.lead_id, note=note) for one in going],
        )
        return {one.submission_id: None if one.lead_id in gone else one.lead_id for one in going}

    async def _shrink(
        self,
        driver: asyncpg.Connection,
        held: Lead,
        ids: list[UUID],
        going: Sequence[Waiting],
        in_force: InForce,
        now: datetime,
    ) -> list[UUID]:
        """A held lead without some of what it waited for: the ids that are no leads any more, which is all where nothing else waits."""
        others = await queries.others(driver, ids, [one.submission_id for one in going])
        if others.first is None:
            await lead_queries.remove_leads(driver, ids)
            return ids
        lead = without(held, await self._first(driver, others, in_force), others.keys)
        await lead_queries.update_leads(driver, [lead], now)
        if (lead.source, lead.captured_at) != (held.source, held.captured_at):
            await queries.redate(driver, lead.lead_id, lead.source, lead.captured_at)
        dropped = {key: held.lead_id for one in going for key in one.keys if key not in others.keys}
        await lead_queries.delete_keys(driver, dropped)
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
    driver: asyncpg.Connection, leads: Mapping[UUID, Lead], roots: Iterable[UUID]
) -> dict[UUID, Lead]:
    """The leads of these ids that are not locked yet, locked. Raises Moved if one of them was merged or went meanwhile."""
    missing = sorted({root for root in roots if root not in leads})
    locked = await lead_queries.lock_leads(driver, missing) if missing else {}
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
) -> tuple[Register, Captured]:
    """Decide about a submission that comes in, on a fresh register."""
    register = Register(now, dict(scene.leads), dict(scene.keys), apart)
    own = scene.own
    if corrected or waiting.keys != frozenset(candidate.keys):
        own = _reduced(register, scene, waiting, candidate.keys)
    return register, register.release(candidate, own if scene.alone else None)


def _reduced(register: Register, scene: _Scene, waiting: Waiting, keys: Iterable[IdentityKey]) -> Lead | None:
    """The held lead without what the submission said before it was corrected."""
    if scene.own is None:
        return None
    own = without(scene.own, scene.first, scene.others.keys)
    register.reduce(own, waiting.keys - scene.others.keys - frozenset(keys))
    return own


async def _write(driver: asyncpg.Connection, register: Register, scene: _Scene, now: datetime) -> None:
    await write(driver, register, now)
    for lead_id in register.touched:
        before, after = scene.leads.get(lead_id), register.leads[lead_id]
        if before is not None and (before.source, before.captured_at) != (after.source, after.captured_at):
            await queries.redate(driver, lead_id, after.source, after.captured_at)


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
                part[name] = finite(datetime.fromisoformat(said)).isoformat()
    return document


def _corrected(waiting: Waiting, fields: Mapping[str, JsonValue]) -> Submission:
    """The submission with these fields changed. Raises Problem 422 with pointers into the request."""
    try:
        document = patched(_read_form(waiting), fields)
    except FixedField as error:
        message = "Is a fact about the sender and cannot be corrected"
        raise unfit_at(f"/fields/{error.field}", message) from None
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
