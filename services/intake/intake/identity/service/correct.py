"""Corrects a lead in one transaction: values, keys and verdict. What wins over what is decided in the domain."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from uuid import UUID

import asyncpg
import orjson
from msgspec import Struct
from msgspec.structs import replace

from accord.agreements import ActiveCache
from accord.contracts.values import AttributeValue
from accord.db import Database, UnitOfWork
from accord.http.conditional import precondition_failed
from accord.http.problems import Problem, validation_error
from accord.ids import new_id
from intake.identity.domain import correction
from intake.identity.domain.correction import Correction, CorrectionIn
from intake.leads.domain.facts import Facts
from intake.leads.domain.keys import IdentityKey
from intake.leads.domain.lead import Lead
from intake.leads.domain.quality import Quality
from intake.leads.domain.unit_of_work import CaptureUnitOfWork
from intake.leads.queries import consents, lookup, submissions
from intake.leads.queries import leads as lead_queries
from intake.leads.queries.lookup import FoundLead
from intake.leads.service.merge_group import get_merge_group
from intake.leads.service.normalization import find_account, parse_email, parse_phone
from intake.leads.service.unit_of_work import retry_on_conflict, save_lead_changes
from intake.policy.domain.evaluator import PolicyEvaluator
from intake.policy.service.evaluation import ActivePolicy, RejectedByPolicy, evaluate_policy


class CorrectionRequest(Struct, frozen=True):
    """A correction with who asks for it and the JSON in which it came. `as_expected` says whether the lead is as the caller read it."""

    values: CorrectionIn
    content: str
    caller: str
    as_expected: Callable[[FoundLead], bool] = lambda _: True


class LeadCorrector:
    """The use case."""

    def __init__(self, database: Database, policies: ActiveCache[PolicyEvaluator]) -> None:
        self._database = database
        self._policies = policies

    async def correct(self, lead_id: UUID, request: CorrectionRequest) -> FoundLead:
        """The lead after the correction; one that was merged is followed to its survivor.

        Raises Problem 404 and 410 for a lead that is not there, 409 where a key belongs to another lead, 412 where the lead is not as
        expected, 422 for values that do not fit, and RejectedByPolicy. Then nothing is written.
        """
        return await retry_on_conflict(lambda: self._correct_in_transaction(lead_id, request))

    async def _correct_in_transaction(self, lead_id: UUID, request: CorrectionRequest) -> FoundLead:
        active_policy = await self._policies.current()
        async with self._database.write_transaction() as unit_of_work:
            connection = await unit_of_work.connection()
            merge_group = await get_merge_group(connection, lead_id)
            values = _normalize(request.values, active_policy, unit_of_work.now)
            lead, owners = await _lock(connection, merge_group[0], values)
            found = await lookup.load_details(connection, lead)
            if not request.as_expected(found):
                raise precondition_failed()
            if not request.values.model_fields_set:
                return found
            if lead.pending:
                raise _build_pending_problem()
            after = await _correct(unit_of_work, found, owners, values, request, active_policy)
            return replace(found, lead=after)


def _build_pending_problem() -> Problem:
    """A release takes the submission as it waits, so a correction of the lead would be lost."""
    return Problem(
        409,
        "lead-is-pending",
        "The lead waits in quarantine",
        "Nobody else knows it yet. Correct the submission that it waits by: POST /v1/quarantine/{submission_id}/correct.",
    )


class _NormalizedCorrection(Struct, frozen=True):
    """The values of a correction, normalized: as they are to be kept."""

    person: dict[str, str | None]
    attributes: dict[str, AttributeValue]

    def apply_to(self, lead: Lead, now: datetime) -> Lead:
        person = {**lead.person, **self.person}
        account = find_account(person)
        return correction.apply_correction(
            lead, Correction(now, self.person, self.attributes, None if account is None else account[0])
        )


async def _lock(
    connection: asyncpg.Connection, lead_id: UUID, values: _NormalizedCorrection
) -> tuple[Lead, dict[IdentityKey, UUID]]:
    """The lead, locked, and who has the keys that change, which are locked too: keys before leads, as everywhere."""
    seen = await lead_queries.read_lead(connection, lead_id)
    if seen is None:
        raise lead_queries.ConcurrentMerge
    changing = [key for keys in correction.diff_keys(seen, values.apply_to(seen, seen.captured_at)) for key in keys]
    await lead_queries.lock_keys(connection, changing)
    lead = (await lead_queries.lock_leads(connection, [lead_id])).get(lead_id)
    if lead is None or lead.merged_into is not None or lead.person != seen.person:
        raise lead_queries.ConcurrentMerge
    return lead, await lead_queries.find_key_owners(connection, changing)


async def _correct(
    unit_of_work: UnitOfWork,
    found: FoundLead,
    owners: dict[IdentityKey, UUID],
    values: _NormalizedCorrection,
    request: CorrectionRequest,
    active_policy: ActivePolicy,
) -> Lead:
    connection, now = await unit_of_work.connection(), unit_of_work.now
    lead = found.lead
    after = values.apply_to(lead, now)
    quality = await _evaluate(connection, found, after, active_policy, now)
    after = correction.apply_verdict(after, quality, now)
    dropped, taken = correction.diff_keys(lead, after)
    taken = [key for key in taken if not (key[0] == "phone" and _phones_shared(active_policy))]
    _refuse_keys_of_others(lead, taken, owners)
    lead_changes = CaptureUnitOfWork(now, {lead.lead_id: lead}, owners)
    lead_changes.correct(lead, after, dropped, taken)
    await save_lead_changes(connection, lead_changes, now)
    if dropped and not await lookup.has_keys(connection, lead.lead_id):
        raise _invalid([("/" + name, "Is the last thing by which the lead is known") for name, _ in dropped])
    account = find_account(after.person)
    if account is not None and account[0] == after.account_id:
        await lead_queries.save_accounts(connection, {account[0]: (account[1], after.person.get("company"))}, now)
    await submissions.insert(connection, [_build_row(after, found.external, quality, request, now)], now)
    unit_of_work.publish(*lead_changes.events)
    return lead_changes.leads[lead.lead_id]


def _build_row(
    after: Lead, external: Sequence[Mapping[str, str]], quality: Quality, request: CorrectionRequest, now: datetime
) -> submissions.Row:
    """The correction as it stands beside submissions; in canonical form, it is the whole record that was judged."""
    form = {
        "source": correction.SOURCE,
        **after.person,
        **({"external_id": external[0]["id"]} if external else {}),
        "attributes": after.attributes,
        "occurred_at": now,
    }
    return submissions.Row(
        new_id(),
        after.lead_id,
        correction.SOURCE,
        request.caller,
        "updated",
        replace(quality, verdict=correction.correction_verdict(quality)),
        request.content,
        now,
        orjson.dumps(form).decode(),
    )


def _normalize(values: CorrectionIn, active_policy: ActivePolicy, now: datetime) -> _NormalizedCorrection:
    """The values normalized as those of a submission are. Raises Problem 422 with a pointer for each that does not fit."""
    person = values.person
    errors: list[tuple[str, str]] = []
    if email := person.get("email"):
        person["email"] = parse_email(email).address
        errors += [] if person["email"] else [("/email", "Is not an e-mail address")]
    if phone := person.get("phone"):
        country = values.attributes.get("country")
        person["phone"] = parse_phone(phone, country if isinstance(country, str) else None).e164
        errors += [] if person["phone"] else [("/phone", "Is not a valid phone number; give it in international form")]
    public = evaluate_policy(Facts({}, values.attributes, None, None), active_policy, now)[1]
    attributes, validation_error = correction.select_public_attributes(values.attributes, public)
    message = "Is no public attribute of the data policy in force, or not of its type"
    errors += [(f"/attributes/{name}", message) for name in validation_error]
    if errors:
        raise _invalid(errors)
    return _NormalizedCorrection(person, attributes)


async def _evaluate(
    connection: asyncpg.Connection, found: FoundLead, after: Lead, active_policy: ActivePolicy, now: datetime
) -> Quality:
    """What the policy says of the corrected record as a whole. Raises RejectedByPolicy where the correction makes it reject the record."""
    before, known = found.lead, found.external
    consent = await consents.newest(connection, [before.lead_id, *found.merged])
    basis, given_at = (consent[0].basis, consent[0].given_at) if consent else (None, None)

    def facts(lead: Lead) -> Facts:
        fields = dict(lead.person)
        fields |= {"external_id": known[0]["id"]} if known else {}
        fields |= {"consent": basis} if basis else {}
        email, phone = lead.person.get("email"), lead.person.get("phone")
        return Facts(
            fields,
            lead.attributes,
            parse_email(email) if email else None,
            parse_phone(phone, None) if phone else None,
            now,
            given_at,
        )

    quality = evaluate_policy(facts(after), active_policy, now)[0]
    refused = correction.find_new_rejections(evaluate_policy(facts(before), active_policy, now)[0], quality)
    if refused:
        raise RejectedByPolicy(quality, "; ".join(failure.reason for failure in refused))
    return quality


def _refuse_keys_of_others(lead: Lead, taken: Sequence[IdentityKey], owners: dict[IdentityKey, UUID]) -> None:
    for key in taken:
        owner = owners.get(key, lead.lead_id)
        if owner != lead.lead_id:
            raise Problem(
                409,
                "belongs-to-another-lead",
                "Key belongs to another lead",
                f"The {key[0]} belongs to the lead named in lead_id. If the two are one person, merge them:"
                f" POST /v1/leads/{lead.lead_id}/merge.",
                errors=[{"pointer": f"/{key[0]}", "message": "Belongs to another lead"}],
                lead_id=str(owner),
            )


def _phones_shared(active_policy: ActivePolicy) -> bool:
    return active_policy is not None and active_policy[1].policy.phones_shared


def _invalid(errors: Sequence[tuple[str, str]]) -> Problem:
    return validation_error(
        "; ".join(f"{pointer}: {message}" for pointer, message in errors) + ".",
        *[{"pointer": pointer, "message": message} for pointer, message in errors],
    )
