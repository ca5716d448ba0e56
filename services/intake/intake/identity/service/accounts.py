"""Finds companies and their leads for those who read. It writes nothing; accounts come with submissions."""

from __future__ import annotations

from uuid import UUID

from accord.db import Database, connection_of
from intake.identity.queries import accounts
from intake.identity.queries.accounts import Account
from intake.leads.queries import lookup
from intake.leads.queries.lookup import FoundLead
from intake.leads.service.normalization import derive_account_id, parse_company_domain


async def find_account(database: Database, account_id: UUID) -> Account | None:
    """The account; None if there is none."""
    async with database.read_transaction() as conn:
        return await accounts.read(await connection_of(conn), account_id)


async def find_by_domain(database: Database, domain: str) -> Account | None:
    """The account that this domain belongs to, however it is spelt; None for a domain that is no company's."""
    registered = parse_company_domain(domain)
    return None if registered is None else await find_account(database, derive_account_id(registered))


async def list_account_leads(
    database: Database, account_id: UUID, after: UUID | None, rows_max: int
) -> list[FoundLead] | None:
    """The account's leads after a place, in the order of their ids; None if there is no such account."""
    async with database.read_transaction() as conn:
        connection = await connection_of(conn)
        if await accounts.read(connection, account_id) is None:
            return None
        return await lookup.find_leads(connection, await accounts.lead_ids(connection, account_id, after, rows_max))
