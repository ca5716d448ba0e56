"""Finds one lead for those who read. It writes nothing."""

from __future__ import annotations

from hashlib import sha256
from uuid import UUID

import orjson

from accord.contracts.codec import to_object
from accord.contracts.external_key import external_key
from accord.db import Database
from intake.leads.domain.keys import IdentityKind
from intake.leads.queries import lookup
from intake.leads.queries.lookup import Found
from intake.leads.service.recognise import email_facts, phone_facts


def etag_of(found: Found, *, personal: bool) -> str:
    """The ETag of a lead as a caller with or without `personal:read` is shown it; that of the one tells nothing of the other's."""
    lead = found.lead
    shown: list[object] = [
        *(str(lead.lead_id), lead.source, lead.captured_at, lead.held, lead.verdict, lead.quality_score),
        *(lead.policy_version, lead.account_id, lead.attributes, [str(one) for one in found.merged]),
        None if lead.campaign is None else to_object(lead.campaign),
    ]
    if personal:
        shown += [dict(lead.person), found.external]
    content = orjson.dumps(shown, default=str, option=orjson.OPT_SORT_KEYS)
    return f'"{sha256(content).hexdigest()[:32]}"'


async def find_by_id(database: Database, lead_id: UUID) -> Found | None:
    """The lead, or the one into which it was merged; None if there is none."""
    async with database.read_transaction() as conn:
        return await lookup.by_id(conn, lead_id)


async def find_by_email(database: Database, email: str) -> Found | None:
    """The lead with this address, however it is spelt."""
    address = email_facts(email).address
    return None if address is None else await _by(database, "email", address)


async def find_by_phone(database: Database, phone: str) -> Found | None:
    """The lead with this number, in international form."""
    number = phone_facts(phone, None).e164
    return None if number is None else await _by(database, "phone", number)


async def find_by_external(database: Database, source: str, external_id: str) -> Found | None:
    """The lead that `source` calls `external_id`."""
    return await _by(database, "external", external_key(source, external_id))


async def _by(database: Database, kind: IdentityKind, value: str) -> Found | None:
    async with database.read_transaction() as conn:
        return await lookup.by_key(conn, kind, value)
