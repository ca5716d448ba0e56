"""Finds one lead for those who read. It writes nothing."""

from __future__ import annotations

from hashlib import sha256
from uuid import UUID

import orjson
from pydantic import ValidationError

from accord.contracts.codec import to_object
from accord.contracts.external_key import external_key
from accord.db import Database, connection_of
from accord.http.problems import Problem, validation_error
from intake.leads.domain.keys import IdentityKind
from intake.leads.domain.submission import External
from intake.leads.queries import lookup
from intake.leads.queries.lookup import FoundLead
from intake.leads.service.merge_group import make_not_found
from intake.leads.service.normalization import parse_email, parse_phone


def compute_etag(found: FoundLead, *, personal: bool) -> str:
    """The ETag of a lead as a caller with or without `personal:read` is shown it; that of the one tells nothing of the other's."""
    lead = found.lead
    shown: list[object] = [
        *(str(lead.lead_id), lead.source, lead.captured_at, lead.pending, lead.verdict, lead.quality_score),
        *(lead.policy_version, lead.account_id, lead.attributes, [str(one) for one in found.merged]),
        None if lead.campaign is None else to_object(lead.campaign),
    ]
    if personal:
        shown += [dict(lead.person), found.external]
    content = orjson.dumps(shown, default=str, option=orjson.OPT_SORT_KEYS)
    return f'"{sha256(content).hexdigest()[:32]}"'


async def get_by_id(database: Database, lead_id: UUID) -> FoundLead:
    """The lead, or the one into which it was merged. Raises Problem 404 or 410."""
    async with database.read_transaction() as conn:
        found = await lookup.find_lead(conn, lead_id)
        if found is None:
            raise await make_not_found(await connection_of(conn), lead_id)
        return found


async def find_by_email(database: Database, email: str) -> FoundLead | None:
    """The lead with this address, however it is spelt. Raises Problem 422 for what is no address."""
    address = parse_email(email).address
    if address is None:
        raise _no_key("email", f"Is not an e-mail address{_PLUS}")
    return await _find_by_key(database, "email", address)


async def find_by_phone(database: Database, phone: str) -> FoundLead | None:
    """The lead with this number, in international form. Raises Problem 422 for what is no such number."""
    number = parse_phone(phone, None).e164
    if number is None:
        raise _no_key("phone", f"Is not a valid phone number in international form{_PLUS}")
    return await _find_by_key(database, "phone", number)


async def find_by_external(database: Database, text: str) -> FoundLead | None:
    """The lead that a source calls by an id, given as `source:id`. Raises Problem 422 for what no submission could have."""
    source, _, external_id = text.partition(":")
    try:
        named = External(source=source, id=external_id)
    except ValidationError as error:
        raise _no_key("external", _describe(error)) from None
    return await _find_by_key(database, "external", external_key(named.source, named.id))


_PLUS = "; a + stands in a query as %2B"


def _describe(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_context=False)[0]
    return f"The {found['loc'][0]}: {found['msg'].removeprefix('Value error, ')}"


def _no_key(parameter: str, message: str) -> Problem:
    return validation_error(f"{parameter}: {message}.", {"parameter": parameter, "message": message})


async def _find_by_key(database: Database, kind: IdentityKind, value: str) -> FoundLead | None:
    async with database.read_transaction() as conn:
        return await lookup.find_lead_by_key(conn, kind, value)
