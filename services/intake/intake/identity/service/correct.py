"""Puts a lead right by a person's word, in one transaction: values, keys and judgement. What wins over what, the domain says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

import asyncpg
import orjson

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
from intake.leads.queries.lookup import Found
from intake.leads.service.family import family_of
from intake.leads.service.ledger import tried, write
from intake.leads.service.recognise import account_domain, account_id_of, email_facts, phone_facts
from intake.policy.domain.judge import Judge
from intake.policy.service.judging import InForce, RejectedByPolicy, judged


@dataclass(frozen=True, slots=True)
class Asked:
    """A correction with who asks for it and the JSON in which it came. `as_expected` says whether the lead is as the caller read it."""

    said: CorrectionIn
    content: str
    caller: str
    as_expected: Callable[[Found], bool] = lambda _: True


class Correct:
    """The use case."""

    def __init__(self, database: Database, policies: ActiveCache[Judge]) -> None:
        self._database = database
        self._policies = policies

    async def apply(self, lead_id: UUID, asked: Asked) -> Found:
        """The lead after the correction; one that was merged is followed to its survivor.

        Raises Problem 404 and 410 for a lead that is not there, 409 where a key belongs to another lead, 412 where the lead is not as
        expected, 422 for values that do not fit, and RejectedByPolicy. Then nothing is written.
        """
        return await tried(lambda: self._in_transaction(lead_id, asked))

    async def _in_transaction(self, lead_id: UUID, asked: Asked) -> Found:
        in_force = await self._policies.current()
        async with self._database.write_transaction() as unit_of_work:
            connection = await unit_of_work.connection()
            family = await family_of(connection, lead_id)
            said = _recognised(asked.said, in_force, unit_of_work.now)
            lead, owners = await _locked(connection, family[0], said)
            found = await lookup.found(connection, lead)
            if not asked.as_expected(found):
                raise precondition_failed()
            if not asked.said.model_fields_set:
                return found
            after = await _correct(unit_of_work, found, owners, said, asked, in_force)
            return replace(found, lead=after)


@dataclass(frozen=True, slots=True)
class _Said:
    """The values of a correction, recognised: as they are to be kept."""

    person: dict[str, str | None]
    attributes: dict[str, AttributeValue]

    def on(self, lead: Lead, now: datetime) -> Lead:
        person = {**lead.person, **self.person}
        account = _account(person.get("domain"), person.get("email"))
        return correction.corrected(
            lead, Correction(now, self.person, self.attributes, None if account is None else account[0])
        )


async def _locked(connection: asyncpg.Connection, lead_id: UUID, said: _Said) -> tuple[Lead, dict[IdentityKey, UUID]]:
    """The lead, locked, and who has the keys that change, which are locked too: keys before leads, as everywhere."""
    seen = await lead_queries.read_lead(connection, lead_id)
    if seen is None:
        raise lead_queries.Moved
    changing = [key for keys in correction.keys_changed(seen, said.on(seen, seen.captured_at)) for key in keys]
    await lead_queries.lock_keys(connection, changing)
    lead = (await lead_queries.lock_leads(connection, [lead_id])).get(lead_id)
    if lead is None or lead.merged_into is not None or lead.person != seen.person:
        raise lead_queries.Moved
    return lead, await lead_queries.find_keys(connection, changing)


async def _correct(
    unit_of_work: UnitOfWork,
    found: Found,
    owners: dict[IdentityKey, UUID],
    said: _Said,
    asked: Asked,
    in_force: InForce,
) -> Lead:
    connection, now = await unit_of_work.connection(), unit_of_work.now
    lead = found.lead
    after = said.on(lead, now)
    quality = await _judgement(connection, found, after, in_force, now)
    after = correction.judged_anew(after, quality, now)
    dropped, taken = correction.keys_changed(lead, after)
    taken = [key for key in taken if not (key[0] == "phone" and _phones_shared(in_force))]
    _refuse_keys_of_others(lead, taken, owners)
    register = CaptureUnitOfWork(now, {lead.lead_id: lead}, owners)
    register.correct(lead, after, dropped, taken)
    await write(connection, register, now)
    if dropped and not await lookup.has_keys(connection, lead.lead_id):
        raise _unfit([("/" + name, "Is the last thing by which the lead is known") for name, _ in dropped])
    account = _account(after.person.get("domain"), after.person.get("email"))
    if account is not None and account[0] == after.account_id:
        await lead_queries.save_accounts(connection, {account[0]: (account[1], after.person.get("company"))}, now)
    await submissions.insert(connection, [_row(after, found.external, quality, asked, now)], now)
    unit_of_work.publish(*register.events)
    return register.leads[lead.lead_id]


def _row(
    after: Lead, external: Sequence[Mapping[str, str]], quality: Quality, asked: Asked, now: datetime
) -> submissions.Row:
    """The correction as it stands beside submissions; in our form, it is the whole record that was judged."""
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
        asked.caller,
        "updated",
        replace(quality, verdict=correction.verdict_of(quality)),
        asked.content,
        now,
        orjson.dumps(form).decode(),
    )


def _recognised(said: CorrectionIn, in_force: InForce, now: datetime) -> _Said:
    """The values normalised as those of a submission are. Raises Problem 422 with a pointer for each that does not fit."""
    person = said.person
    flaws: list[tuple[str, str]] = []
    if email := person.get("email"):
        person["email"] = email_facts(email).address
        flaws += [] if person["email"] else [("/email", "Is not an e-mail address")]
    if phone := person.get("phone"):
        country = said.attributes.get("country")
        person["phone"] = phone_facts(phone, country if isinstance(country, str) else None).e164
        flaws += [] if person["phone"] else [("/phone", "Is not a valid phone number; give it in international form")]
    public = judged(Facts({}, said.attributes, None, None), in_force, now)[1]
    attributes, validation_error = correction.public_attributes(said.attributes, public)
    message = "Is no public attribute of the data policy in force, or not of its type"
    flaws += [(f"/attributes/{name}", message) for name in validation_error]
    if flaws:
        raise _unfit(flaws)
    return _Said(person, attributes)


async def _judgement(
    connection: asyncpg.Connection, found: Found, after: Lead, in_force: InForce, now: datetime
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
            email_facts(email) if email else None,
            phone_facts(phone, None) if phone else None,
            now,
            given_at,
        )

    quality = judged(facts(after), in_force, now)[0]
    refused = correction.newly_refused(judged(facts(before), in_force, now)[0], quality)
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
                "Another lead is known by it",
                f"The {key[0]} belongs to the lead named in lead_id. If the two are one person, merge them:"
                f" POST /v1/leads/{lead.lead_id}/merge.",
                errors=[{"pointer": f"/{key[0]}", "message": "Belongs to another lead"}],
                lead_id=str(owner),
            )


def _phones_shared(in_force: InForce) -> bool:
    return in_force is not None and in_force[1].policy.phones_shared


def _account(domain: str | None, email: str | None) -> tuple[UUID, str] | None:
    found = account_domain(domain, email.rpartition("@")[2] if email else None)
    return None if found is None else (account_id_of(found), found)


def _unfit(flaws: Sequence[tuple[str, str]]) -> Problem:
    return validation_error(
        "; ".join(f"{pointer}: {message}" for pointer, message in flaws) + ".",
        *[{"pointer": pointer, "message": message} for pointer, message in flaws],
    )
