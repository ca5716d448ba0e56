"""Finds one lead for those who read. It writes nothing."""

from __future__ import annotations

from uuid import UUID

from accord.contracts.external_key import external_key
from accord.database import Database
from intake.domain.capture import IdentityKind
from intake.queries import lookup
from intake.queries.lookup import Found
from intake.recognise import email_facts, phone_facts


async def find_by_id(database: Database, lead_id: UUID) -> Found | None:
    """The lead, or the one into which it was merged; None if there is none."""
    async with database.reading() as conn:
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
    async with database.reading() as conn:
        return await lookup.by_key(conn, kind, value)
