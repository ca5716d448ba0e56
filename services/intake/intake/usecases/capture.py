"""Takes submissions in: many requests, one transaction. The decisions are pure and stand between two reads and the writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

import asyncpg
import orjson
from uuid_utils.compat import uuid7

from accord.agreements import ActiveCache
from accord.contracts.external_key import external_key
from accord.contracts.values import Attributes, PolicyFailure, Verdict
from accord.database import Database, Recording
from accord.http.idempotency import Answer, Fresh, Ticket
from accord.http.problems import MEDIA_TYPE, Problem
from intake.domain.capture import Candidate, Captured, IdentityKey, Register, keys_of
from intake.domain.lead import Values
from intake.domain.quality import Facts, Judge, Quality, unchecked
from intake.domain.submission import Submission, is_ahead
from intake.queries import leads as lead_queries
from intake.queries import submissions
from intake.recognise import account_domain, account_id_of, email_facts, phone_facts
from intake.usecases.batch import ahead_of_time, answered, claimed, refused, tried

_InForce = tuple[int, Judge] | None
"""The policy's version and the policy, None while nothing is in force."""


@dataclass(frozen=True, slots=True)
class CaptureRequest:
    """One submission with who sent it, its JSON as it came, and its idempotency key if it has one."""

    submission: Submission
    content: str
    caller: str
    ticket: Ticket | None = None


@dataclass(frozen=True, slots=True)
class _Recognised:
    """A submission whose person, keys and facts are known; what the policy says of it comes later."""

    request: CaptureRequest
    person: dict[str, str]
    keys: tuple[IdentityKey, ...]
    facts: Facts
    account: tuple[UUID, str] | None
    external: str | None
    flaw: Problem | None
    """Why nobody can be recognised in it."""


class Capture:
    """The use case. `apply` is what a GroupCommit calls."""

    def __init__(self, database: Database, policies: ActiveCache[Judge]) -> None:
        self._database = database
        self._policies = policies

    async def apply(self, requests: Sequence[CaptureRequest]) -> list[Answer | Exception]:
        """One answer for each request, in order, after the commit."""
        recognised = [_recognise(request) for request in requests]
        return await tried(lambda: self._record(recognised))

    async def _record(self, recognised: Sequence[_Recognised]) -> list[Answer | Exception]:
        in_force = await self._policies.current()
        tickets = [one.request.ticket for one in recognised]
        async with self._database.recording() as recording:
            verdicts = await claimed(recording, tickets)
            fresh = [one for one, verdict in zip(recognised, verdicts, strict=True) if isinstance(verdict, Fresh)]
            answers = await self._take(recording, fresh, in_force)
            return await answered(recording, tickets, verdicts, answers)

    async def _take(self, recording: Recording, fresh: Sequence[_Recognised], in_force: _InForce) -> list[Answer]:
        driver, now = await recording.driver(), recording.now
        keys, leads = await lead_queries.lock_matches(driver, (key for one in fresh for key in one.keys))
        register = Register(now, leads, keys)
        answers: list[Answer] = []
        rows: list[submissions.Row] = []
        accounts: dict[UUID, tuple[str, str | None]] = {}
        for one in fresh:
            submission = one.request.submission
            if one.flaw is not None:
                answers.append(refused(one.flaw))
                continue
            if is_ahead(submission.occurred_at, now):
                answers.append(ahead_of_time())
                continue
            candidate = _candidate(one, in_force, now)
            captured = register.take(candidate)
            if one.account is not None and captured.lead_id is not None:
                accounts.setdefault(one.account[0], (one.account[1], submission.company))
            rows.append(_row(one, candidate, captured))
            answers.append(_answer(candidate, captured))
        await _write(driver, register, rows, accounts, now)
        recording.publish(*register.events)
        return answers


async def _write(
    driver: asyncpg.Connection,
    register: Register,
    rows: Sequence[submissions.Row],
    accounts: dict[UUID, tuple[str, str | None]],
    now: datetime,
) -> None:
    touched = sorted(register.touched)
    await lead_queries.save_leads(driver, [register.leads[lead_id] for lead_id in touched], now)
    for merge in register.merges:
        await lead_queries.save_merge(driver, merge, now)
    await lead_queries.save_keys(driver, register.new_keys)
    await lead_queries.save_accounts(driver, accounts, now)
    await submissions.save(driver, rows, now)


def _recognise(request: CaptureRequest) -> _Recognised:
    submission = request.submission
    country = submission.attributes.get("country")
    email = email_facts(submission.email) if submission.email else None
    phone = phone_facts(submission.phone, country if isinstance(country, str) else None) if submission.phone else None
    person = {
        name: value
        for name in ("first_name", "last_name", "company", "domain", "title")
        if (value := getattr(submission, name))
    }
    known: dict[str, str] = {}
    if email is not None and email.address:
        known["email"] = email.address
    if phone is not None and phone.e164:
        known["phone"] = phone.e164
    external = external_key(submission.source, submission.external_id) if submission.external_id else None
    raw = {"email": submission.email, "phone": submission.phone, "external_id": submission.external_id}
    fields = person | {name: value for name, value in raw.items() if value}
    if submission.consent is not None:
        fields["consent"] = submission.consent.basis
    domain = account_domain(submission.domain, known["email"].rpartition("@")[2] if "email" in known else None)
    return _Recognised(
        request,
        person | known,
        keys_of(known, external),
        Facts(fields, submission.attributes, email, phone),
        (account_id_of(domain), domain) if domain else None,
        external,
        _flaw(submission, known),
    )


def _flaw(submission: Submission, known: Mapping[str, str]) -> Problem | None:
    """An address that is none, or nothing left by which the person could be known again."""
    if submission.email and "email" not in known:
        name, message = "email", "Is not an e-mail address"
    elif not known and not submission.external_id:
        name, message = "phone", "Is not a valid phone number, and there is no other way to know the person"
    else:
        return None
    return Problem(
        422,
        "validation-failed",
        "The request does not fit",
        f"{name}: {message}.",
        errors=[{"pointer": f"/{name}", "message": message}],
    )


def _candidate(one: _Recognised, in_force: _InForce, now: datetime) -> Candidate:
    submission = one.request.submission
    quality, attributes = _judged(one.facts, in_force)
    at = submission.occurred_at
    values = Values(
        source=submission.source,
        at=now if at is None else min(at, now),
        person=one.person,
        attributes=attributes,
        account_id=one.account[0] if one.account else None,
        campaign=submission.campaign.public() if submission.campaign else None,
        external_key=one.external,
        quality=quality,
        verdict=_verdict(quality),
    )
    return Candidate(uuid7(), uuid7(), (uuid7(), uuid7()), one.keys, values)


def _judged(facts: Facts, in_force: _InForce) -> tuple[Quality, Attributes]:
    if in_force is None:
        return unchecked(facts.attributes)
    version, judge = in_force
    return judge.assess(facts, version), judge.public(facts.attributes)


def _verdict(quality: Quality) -> Verdict:
    # A rejected submission makes no lead, so its values carry no verdict that a lead could have.
    verdict = quality.verdict
    return "unchecked" if verdict == "rejected" else verdict


def _row(one: _Recognised, candidate: Candidate, captured: Captured) -> submissions.Row:
    return submissions.Row(
        candidate.submission_id,
        captured.lead_id,
        candidate.values.source,
        one.request.caller,
        captured.outcome,
        candidate.quality,
        one.request.content,
        candidate.values.at,
    )


_STATUS = {"created": 201, "updated": 200, "merged": 200}


def _answer(candidate: Candidate, captured: Captured) -> Answer:
    quality = _quality(candidate.quality)
    if captured.outcome is None:
        problem = Problem(
            422,
            "rejected-by-policy",
            "The data policy refuses this record",
            "; ".join(f.reason for f in candidate.quality.failed if f.consequence == "reject"),
            errors=[],
            quality=quality,
            submission_id=str(candidate.submission_id),
        )
        return Answer(422, orjson.dumps(problem.document(), default=str), {"content-type": MEDIA_TYPE})
    body = {
        "submission_id": candidate.submission_id,
        "lead_id": captured.lead_id,
        "outcome": captured.outcome,
        "verdict": candidate.quality.verdict,
        "quality": quality,
    }
    return Answer(_STATUS[captured.outcome], orjson.dumps(body, default=str))


def _quality(quality: Quality) -> dict[str, object]:
    return {
        "score": quality.score,
        "policy_version": quality.policy_version,
        "failed": [_failure(failure) for failure in quality.failed],
    }


def _failure(failure: PolicyFailure) -> dict[str, str]:
    return {"parameter": failure.parameter, "consequence": failure.consequence, "reason": failure.reason}


def replayed(answer: Answer) -> Answer:
    """A saved answer, as it is given again: the outcome says so, and nothing was created this time."""
    if not answer.replayed or answer.status not in (200, 201, 202):
        return answer
    body = orjson.loads(answer.body)
    body["outcome"] = "replayed"
    return replace(answer, status=200, body=orjson.dumps(body, default=str))
