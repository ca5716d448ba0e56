"""Whom a submission speaks of, and what it says of them: keys, values, facts and consent. It asks nobody and writes nothing."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from accord.contracts.external_key import external_key
from accord.contracts.values import Attributes, Verdict
from accord.http.idempotency import IdempotencyRequest
from accord.http.problems import Problem, validation_error
from accord.ids import new_id
from accord.terms.findings import Finding
from intake.leads.domain.consent import resolve_given_at
from intake.leads.domain.facts import Facts, PhoneFacts
from intake.leads.domain.keys import IdentityKey
from intake.leads.domain.lead import Values
from intake.leads.domain.quality import Quality
from intake.leads.domain.submission import Submission
from intake.leads.domain.unit_of_work import Candidate
from intake.leads.queries import consents
from intake.leads.service.normalization import derive_account_id, find_account_domain, parse_email, parse_phone


class CaptureRequest(NamedTuple):
    """One submission with who sent it, its JSON as it came, and its idempotency key if it has one.

    `is_canonical`: what came is the submission in canonical form already. Anything else, a tool's event or a row of a file, is stored in
    canonical form too, so that another policy can judge it. `left_out`: what had to go before it was a submission.
    """

    submission: Submission
    content: str
    caller: str
    idempotency_request: IdempotencyRequest | None = None
    is_canonical: bool = False
    left_out: tuple[Finding, ...] = ()
    id_is_guessed: bool = False
    """Nobody has said that its id is one: the name of a column has."""


class NormalizedSubmission(NamedTuple):
    """A submission whose person, keys and facts are known; what the policy says of it comes later."""

    request: CaptureRequest
    person: dict[str, str]
    keys: tuple[IdentityKey, ...]
    facts: Facts
    account: tuple[UUID, str] | None
    external: str | None
    error: Finding | None
    """Why nobody can be identified in it."""
    left_out: tuple[Finding, ...] = ()
    """What of it is not used, or stays in intake."""


_COMPANY_FIELDS = ("first_name", "last_name", "company", "domain", "title")
_KEY_FIELDS = ("email", "phone", "external_id")


def normalize_submission(request: CaptureRequest) -> NormalizedSubmission:
    """Who a submission is about and what is known of its address, number and company."""
    submission = request.submission
    given = submission.__dict__  # the form's fields by name, read a dozen times for each submission
    email = parse_email(submission.email) if submission.email else None
    phone = parse_submission_phone(submission)
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
    left_out = request.left_out
    if phone is not None and phone.e164:
        person["phone"] = phone.e164
        keys.append(("phone", phone.e164))
    elif phone is not None:
        left_out += (Finding("/phone", "Is not a valid phone number"),)
    if (
        email is not None
        and email.address
        and submission.email
        and submission.email.count("@") > email.address.count("@")
    ):
        left_out += (Finding("/email", "Holds several addresses, of which the first is used"),)
    if submission.campaign is not None:
        left_out += submission.campaign.find_held_back()
    error = None if keys and (email_domain or not submission.email) else _find_identity_error(submission)
    if submission.external_id:
        external = external_key(submission.source, submission.external_id)
        keys.append(("external", external))
    domain = find_account_domain(submission.domain, email_domain)
    return NormalizedSubmission(
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
        (derive_account_id(domain), domain) if domain else None,
        external,
        error,
        left_out,
    )


def parse_submission_phone(submission: Submission) -> PhoneFacts | None:
    """Facts of its number; one without + is dialled in its country."""
    country = submission.attributes.get("country")
    return parse_phone(submission.phone, country if isinstance(country, str) else None) if submission.phone else None


def extract_facts(submission: Submission) -> Facts:
    """What a policy can ask of a submission, for those who only judge it."""
    return normalize_submission(CaptureRequest(submission, "", "")).facts


NO_ADDRESS = Finding("/email", "Is not an e-mail address")


def _find_identity_error(submission: Submission) -> Finding | None:
    """What is wrong with a submission whose address is none, or that has neither an address nor a valid number."""
    if submission.email:
        return NO_ADDRESS
    if not submission.external_id:
        return Finding("/phone", "Is not a valid phone number, and there is no other way to know the person")
    return None


def invalid_submission(error: Finding) -> Problem:
    """422 for a submission with this error."""
    return validation_error(
        f"{error.pointer[1:]}: {error.message}.", {"pointer": error.pointer, "message": error.message}
    )


GUESSED_ID = Finding(
    "/external_id",
    "Leads to a person with another address; nobody has said that this column identifies people, so map it if it does",
)


def build_consent(
    request: CaptureRequest, submission_id: UUID, lead_id: UUID, at: datetime, now: datetime
) -> consents.Row:
    """What a submission that was taken says of consent; it has some."""
    said = request.submission.consent
    assert said is not None  # noqa: S101 - the caller has checked
    when = resolve_given_at(said.given_at, at, now)
    source, caller = request.submission.source, request.caller
    return consents.Row(
        lead_id, submission_id, submission_id, source, caller, said.basis, said.text, when, said.is_dated
    )


def build_candidate(
    one: NormalizedSubmission, submission_id: UUID, at: datetime, quality: Quality, attributes: Attributes
) -> Candidate:
    """A normalized submission that happened at a moment, as it was judged."""
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


def _verdict(quality: Quality) -> Verdict:
    # A rejected submission makes no lead, so its values carry no verdict that a lead could have.
    verdict = quality.verdict
    return "unchecked" if verdict == "rejected" else verdict


def future_time_error(name: str = "occurred_at") -> Finding:
    """What is wrong with a time further in the future than clocks may differ."""
    return Finding(f"/{name}", "Must not be in the future")
