"""Takes submissions in: many requests, one transaction. The decisions are pure and stand between two reads and the writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple, TypeVar
from uuid import UUID

import asyncpg
import orjson

from accord.agreements import ActiveCache
from accord.contracts.external_key import external_key
from accord.contracts.values import Attributes, PolicyFailure, Verdict
from accord.db import Database, Recording
from accord.http.idempotency import Answer, Fresh, Ticket
from accord.http.problems import MEDIA_TYPE, Problem, unfit
from accord.ids import new_id
from intake.domain.capture import Candidate, IdentityKey, Outcome, Register
from intake.domain.consent import given_at
from intake.domain.erasure import key_word
from intake.domain.lead import Values
from intake.domain.quality import Facts, Judge, Quality, unchecked
from intake.domain.submission import Submission, is_ahead
from intake.queries import consents, merges, submissions
from intake.queries import leads as lead_queries
from intake.recognise import account_domain, account_id_of, email_facts, phone_facts
from intake.usecases.batch import ahead_of_time, answered, claimed, refused, tried

InForce = tuple[int, Judge] | None
"""The policy's version and the policy, None while nothing is in force."""
Apart = set[frozenset[UUID]]
Decided = TypeVar("Decided")


class CaptureRequest(NamedTuple):
    """One submission with who sent it, its JSON as it came, and its idempotency key if it has one.

    `is_form`: what came is the submission in our own form already. Anything else, a tool's event or a row of a file, is kept in our form
    beside, so that another policy can judge it.
    """

    submission: Submission
    content: str
    caller: str
    ticket: Ticket | None = None
    is_form: bool = False


class Recognised(NamedTuple):
    """A submission whose person, keys and facts are known; what the policy says of it comes later."""

    request: CaptureRequest
    person: dict[str, str]
    keys: tuple[IdentityKey, ...]
    facts: Facts
    account: tuple[UUID, str] | None
    external: str | None
    flaw: Problem | None
    """Why nobody can be recognised in it."""


class Taken(NamedTuple):
    """What became of one submission. `lead_id` and `outcome` are None for one that the policy rejected."""

    submission_id: UUID
    lead_id: UUID | None
    outcome: Outcome | None
    quality: Quality


class _Played(NamedTuple):
    """What a transaction has decided beside its register, to be written."""

    outcomes: list[Taken | Problem]
    rows: list[submissions.Row]
    said: list[consents.Row]
    accounts: dict[UUID, tuple[str, str | None]]


class Decision(NamedTuple):
    """What a transaction has decided about submissions, one outcome for each, and has still to write."""

    register: Register
    outcomes: list[Taken | Problem]
    rows: list[submissions.Row]
    said: list[consents.Row]
    accounts: dict[UUID, tuple[str, str | None]]


class Capture:
    """The use case. `apply` is what a GroupCommit calls; `recognise` and `take`, or `decide` and
    `write`, are for those with a transaction of their own."""

    def __init__(self, database: Database, policies: ActiveCache[Judge]) -> None:
        self._database = database
        self._policies = policies
        self._accounts = _KnownAccounts()

    async def apply(self, requests: Sequence[CaptureRequest]) -> list[Answer | Exception]:
        """One answer for each request, in order, after the commit."""
        recognised = self.recognise(requests)
        return await tried(lambda: self._record(recognised))

    def recognise(self, requests: Sequence[CaptureRequest]) -> list[Recognised]:
        """Who each submission is about and what is known of its address, number and company. It asks nobody."""
        return [_recognise(request) for request in requests]

    async def ingest(
        self, recording: Recording, recognised: Sequence[Recognised], in_force: InForce
    ) -> list[Taken | Problem]:
        """Ingest submissions in the caller's transaction and in order; a Problem for one that left no trace.

        Raises what `usecases.batch.tried` tries again. Idempotency keys are not looked at. `in_force` is what `policy_in_force` gave
        before the transaction was opened.
        """
        decision = await self.decide(recording, recognised, in_force)
        await self.write(recording, decision)
        return decision.outcomes

    async def policy_in_force(self) -> InForce:
        """The data policy in force. Ask before a transaction is opened: looking takes a connection."""
        return await self._policies.current()

    async def decide(self, recording: Recording, recognised: Sequence[Recognised], in_force: InForce) -> Decision:
        """What becomes of submissions; their keys and the leads that these name are locked until the commit. The caller sees it written,
        in the same transaction."""
        recognised = as_the_policy_knows(recognised, in_force)
        driver, now = await recording.driver(), recording.now
        keys, leads = await lead_queries.lock_matches(driver, [key for one in recognised for key in one.keys])

        def play(apart: Apart) -> tuple[Register, _Played]:
            register = Register(now, dict(leads), dict(keys), apart)
            return register, self._play(recognised, in_force, register)

        register, played = await with_pairs_apart(driver, play)
        return Decision(register, *played)

    async def write(self, recording: Recording, decision: Decision) -> None:
        """Write what was decided, and have it published."""
        driver, now = await recording.driver(), recording.now
        await write(driver, decision.register, now)
        await submissions.insert(driver, decision.rows, now)
        await consents.insert(driver, decision.said, now)
        if decision.accounts:
            self._accounts.saw(await lead_queries.save_accounts(driver, decision.accounts, now))
        recording.publish(*decision.register.events)

    def _play(self, recognised: Sequence[Recognised], in_force: InForce, register: Register) -> _Played:
        """Decide about one submission after the other."""
        now = register.now
        outcomes: list[Taken | Problem] = []
        rows: list[submissions.Row] = []
        said: list[consents.Row] = []
        accounts: dict[UUID, tuple[str, str | None]] = {}
        for one in recognised:
            problem = one.flaw or (ahead_of_time() if is_ahead(one.request.submission.occurred_at, now) else None)
            if problem is not None:
                outcomes.append(problem)
                continue
            candidate = _candidate(one, in_force, now)
            lead_id, outcome = register.take(candidate)
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
        return _Played(outcomes, rows, said, accounts)

    async def _record(self, recognised: Sequence[Recognised]) -> list[Answer | Exception]:
        tickets = [one.request.ticket for one in recognised]
        in_force = await self.policy_in_force()
        async with self._database.recording() as recording:
            verdicts = await claimed(recording, tickets)
            fresh = [one for one, verdict in zip(recognised, verdicts, strict=True) if isinstance(verdict, Fresh)]
            answers = [_answer(outcome) for outcome in await self.ingest(recording, fresh, in_force)]
            return await answered(recording, tickets, verdicts, answers)


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


async def with_pairs_apart(
    driver: asyncpg.Connection, play: Callable[[Apart], tuple[Register, Decided]]
) -> tuple[Register, Decided]:
    """What `play` decides, given the pairs of leads that people have parted. They are looked up only where it would merge somebody."""
    register, decided = play(set())
    if register.merges and (apart := await merges.apart(driver, register.known)):
        return play(apart)
    return register, decided


async def write(driver: asyncpg.Connection, register: Register, now: datetime) -> None:
    """Save what became of leads and keys; the events are published by the caller."""
    await lead_queries.delete_keys(driver, register.dropped_keys)
    leads = [register.leads[lead_id] for lead_id in sorted(register.touched)]
    await lead_queries.insert_leads(driver, [lead for lead in leads if lead.lead_id not in register.known], now)
    await lead_queries.update_leads(driver, [lead for lead in leads if lead.lead_id in register.known], now)
    for merge in register.merges:
        await lead_queries.save_merge(driver, merge, now)
    await lead_queries.insert_keys(driver, register.new_keys, register.external)


_COMPANY_FIELDS = ("first_name", "last_name", "company", "domain", "title")
_KEY_FIELDS = ("email", "phone", "external_id")


def _recognise(request: CaptureRequest) -> Recognised:
    submission = request.submission
    given = submission.__dict__  # the form's fields by name, read a dozen times for each submission
    country = submission.attributes.get("country")
    email = email_facts(submission.email) if submission.email else None
    phone = phone_facts(submission.phone, country if isinstance(country, str) else None) if submission.phone else None
    person: dict[str, str] = {name: value for name in _COMPANY_FIELDS if (value := given[name])}
    fields = person | {name: value for name in _KEY_FIELDS if (value := given[name])}
    if submission.consent is not None:
        fields["consent"] = submission.consent.basis
    keys: list[IdentityKey] = []
    email_domain = external = None
    if email is not None and email.address:
        person["email"] = email.address
        keys.append(("email", email.address))
        email_domain = email.address.rpartition("@")[2]
    if phone is not None and phone.e164:
        person["phone"] = phone.e164
        keys.append(("phone", phone.e164))
    flaw = None if keys and (email_domain or not submission.email) else _flaw(submission)
    if submission.external_id:
        external = external_key(submission.source, submission.external_id)
        keys.append(("external", external))
    domain = account_domain(submission.domain, email_domain)
    return Recognised(
        request,
        person,
        tuple(keys),
        Facts(
            fields,
            submission.attributes,
            email,
            phone,
            submission.occurred_at,
            None if submission.consent is None else submission.consent.given_at,
        ),
        (account_id_of(domain), domain) if domain else None,
        external,
        flaw,
    )


def facts_of(submission: Submission) -> Facts:
    """What a policy can ask of a submission, for those who only judge it."""
    return _recognise(CaptureRequest(submission, "", "")).facts


def as_the_policy_knows(recognised: Sequence[Recognised], in_force: InForce) -> Sequence[Recognised]:
    """The submissions with the keys by which the policy lets people be known: a phone that is shared is a value and names nobody."""
    if in_force is None or not in_force[1].policy.phones_shared:
        return recognised
    return [_without_phone(one) for one in recognised]


def _without_phone(one: Recognised) -> Recognised:
    keys = tuple(key for key in one.keys if key[0] != "phone")
    if keys or one.flaw is not None:
        return one._replace(keys=keys)
    message = (
        "Says not who it is, since phones are shared by the data policy, and there is no other way to know the person"
    )
    return one._replace(keys=keys, flaw=_unfit("phone", message))


def _flaw(submission: Submission) -> Problem | None:
    """What is wrong with a submission whose address is none, or that has neither an address nor a valid number."""
    if submission.email:
        name, message = "email", "Is not an e-mail address"
    elif not submission.external_id:
        name, message = "phone", "Is not a valid phone number, and there is no other way to know the person"
    else:
        return None
    return _unfit(name, message)


def _unfit(name: str, message: str) -> Problem:
    return unfit(f"{name}: {message}.", {"pointer": f"/{name}", "message": message})


def consent_of(
    request: CaptureRequest, submission_id: UUID, lead_id: UUID, at: datetime, now: datetime
) -> consents.Row:
    """What a submission that was taken says of consent; it has some."""
    said = request.submission.consent
    assert said is not None  # noqa: S101 - the caller has looked
    when = given_at(said.given_at, at, now)
    return consents.Row(
        lead_id, submission_id, submission_id, request.submission.source, request.caller, said.basis, said.text, when
    )


def _candidate(one: Recognised, in_force: InForce, now: datetime) -> Candidate:
    quality, attributes = judged(one.facts, in_force, now)
    at = one.request.submission.occurred_at
    return candidate_of(one, new_id(), now if at is None else min(at, now), quality, attributes)


def candidate_of(
    one: Recognised, submission_id: UUID, at: datetime, quality: Quality, attributes: Attributes
) -> Candidate:
    """A recognised submission that happened at a moment, as it was judged."""
    submission = one.request.submission
    values = Values(
        submission.source,
        at,
        one.person,
        attributes,
        one.account[0] if one.account else None,
        submission.campaign.public() if submission.campaign else None,
        one.external,
        quality,
        _verdict(quality),
    )
    external = (submission.source, submission.external_id) if submission.external_id else None
    return Candidate(submission_id, new_id(), one.keys, values, external)


def judged(facts: Facts, in_force: InForce, now: datetime) -> tuple[Quality, Attributes]:
    """What the policy in force says of these facts at this moment, and the attributes that may leave intake."""
    if in_force is None:
        return unchecked(facts.attributes)
    version, judge = in_force
    return judge.judge(facts, version, now)


def _verdict(quality: Quality) -> Verdict:
    # A rejected submission makes no lead, so its values carry no verdict that a lead could have.
    verdict = quality.verdict
    return "unchecked" if verdict == "rejected" else verdict


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
    return orjson.dumps(_said(submission), default=_said, option=orjson.OPT_UTC_Z).decode()


def _said(value: object) -> object:
    if isinstance(value, Decimal):
        return format(value, "f")
    fields, said = value.__dict__, value.__pydantic_fields_set__  # type: ignore[attr-defined]  # else it is a part of the form
    return {name: said_value for name, said_value in fields.items() if name in said}


_STATUS = {"created": 201, "updated": 200, "merged": 200}


def _answer(outcome: Taken | Problem) -> Answer:
    if isinstance(outcome, Problem):
        return refused(outcome)
    quality = quality_shown(outcome.quality)
    if outcome.outcome is None:
        problem = Problem(
            422,
            "rejected-by-policy",
            "The data policy refuses this record",
            "; ".join(f.reason for f in outcome.quality.failed if f.consequence == "reject"),
            errors=[],
            quality=quality,
            submission_id=str(outcome.submission_id),
        )
        document = orjson.dumps(problem.document(), default=str)
        return Answer(422, document, {"content-type": MEDIA_TYPE}, subject=outcome.submission_id)
    body = {
        "submission_id": outcome.submission_id,
        "lead_id": outcome.lead_id,
        "outcome": outcome.outcome,
        "verdict": outcome.quality.verdict,
        "quality": quality,
    }
    return Answer(_STATUS[outcome.outcome], orjson.dumps(body, default=str), subject=outcome.lead_id)


def quality_shown(quality: Quality) -> dict[str, object]:
    """The judgement as it is answered."""
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
