"""/v1/accounts: companies and their leads; /v1/leads/{lead_id}/duplicates: who may be one person."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from accord.db import Database
from accord.http.auth import Caller, require
from accord.http.openapi import problems
from accord.http.paging import CursorText, Limit, Page, decode_single_cursor, make_page
from accord.http.problems import not_found
from intake.identity.domain import similarity as score_pair
from intake.identity.queries.accounts import Account
from intake.identity.queries.duplicates import CANDIDATES_MAX
from intake.identity.service import accounts, suggest
from intake.identity.service.suggest import SUGGESTIONS_MAX
from intake.leads.api import LeadOut, to_lead_out

_ACCOUNT_EXAMPLE: dict[str, object] = {
    "account_id": "1f0b4a57-0f0a-5c3b-9e52-6f0f3c6d2a11",
    "domain": "initech.example",
    "name": "Initech",
    "leads": 12,
    "first_seen_at": "2026-01-04T15:30:00Z",
}


class AccountOut(BaseModel):
    """A company, known by its domain."""

    account_id: UUID
    domain: str | None = Field(description="The registered domain. Null without personal:read.")
    name: str | None = Field(description="The company's name as first heard. Null without personal:read.")
    leads: int = Field(description="Leads of it, merged ones counted once.")
    first_seen_at: datetime


class AccountsOut(BaseModel):
    """The account of a domain, if there is one."""

    items: list[AccountOut]
    next_cursor: None = None


class ReasonOut(BaseModel):
    """In what two leads are alike."""

    field: score_pair.Field
    how: score_pair.How


class DuplicateOut(BaseModel):
    """A lead that may be the same person."""

    score: float = Field(ge=score_pair.SCORE_MIN, le=1, description="How likely it is worth a look; no probability.")
    reasons: list[ReasonOut]
    lead: LeadOut


class DuplicatesOut(BaseModel):
    """Suggestions, the best first."""

    items: list[DuplicateOut]
    compared: int = Field(
        description=f"Leads that were compared: up to {CANDIDATES_MAX} of the account, and up to {CANDIDATES_MAX} of the last name."
    )


def account_router(database: Database) -> APIRouter:
    """The routes over one database."""
    router = APIRouter()

    @router.get("/v1/accounts", tags=["accounts"], summary="Find the account of a domain", operation_id="find_account")
    async def find_account(
        domain: Annotated[
            str,
            Query(
                min_length=1, max_length=500, description="In any spelling, also as an address of the company's site."
            ),
        ],
        caller: Caller = require("leads:read"),
    ) -> AccountsOut:
        """Companies are known by their registered domain: `https://www.eu.initech.co.uk/` is `initech.co.uk`. A domain at which anybody
        can have an address is no company's, and has no account."""
        account = await accounts.find_by_domain(database, domain)
        return AccountsOut(items=[] if account is None else [_to_out(account, caller)])

    @router.get(
        "/v1/accounts/{account_id}",
        tags=["accounts"],
        summary="One account",
        operation_id="get_account",
        responses={200: {"content": {"application/json": {"example": _ACCOUNT_EXAMPLE}}}, **problems(404)},
    )
    async def get_account(account_id: UUID, caller: Caller = require("leads:read")) -> AccountOut:
        account = await accounts.find_account(database, account_id)
        if account is None:
            raise not_found("account")
        return _to_out(account, caller)

    @router.get(
        "/v1/accounts/{account_id}/leads",
        tags=["accounts"],
        summary="The leads of an account",
        operation_id="list_account_leads",
        responses=problems(404),
    )
    async def list_account_leads(
        account_id: UUID, limit: Limit = 50, cursor: CursorText = None, caller: Caller = require("leads:read")
    ) -> Page[LeadOut]:
        """In the order in which they were first heard of."""
        found = await accounts.list_account_leads(database, account_id, decode_single_cursor(cursor, UUID), limit + 1)
        if found is None:
            raise not_found("account")
        rows, next_cursor = make_page(found, limit, lambda row: row.lead.lead_id)
        return Page(items=[to_lead_out(row, caller) for row in rows], next_cursor=next_cursor)

    @router.get(
        "/v1/leads/{lead_id}/duplicates",
        tags=["leads"],
        summary="Leads that may be the same person",
        operation_id="suggest_duplicates",
        dependencies=[require("leads:read")],
        responses=problems(404, 410),
    )
    async def suggest_duplicates(
        lead_id: UUID,
        limit: Annotated[int, Query(ge=1, le=SUGGESTIONS_MAX, description="Suggestions at most.")] = 10,
        caller: Caller = require("personal:read"),
    ) -> DuplicatesOut:
        """Suggestions only: close names at one company, the same name elsewhere. Nothing merges by them; a person does, by
        `POST /v1/leads/{lead_id}/merge`. Leads that a person has separated from this one are left out."""
        found = await suggest.suggest_duplicates(database, lead_id, limit)
        items = [
            DuplicateOut(
                score=get_account.score_pair.score,
                reasons=[ReasonOut(field=reason.field, how=reason.how) for reason in get_account.score_pair.reasons],
                lead=to_lead_out(get_account.found, caller),
            )
            for get_account in found.items
        ]
        return DuplicatesOut(items=items, compared=found.compared)

    return router


def _to_out(account: Account, caller: Caller) -> AccountOut:
    # The domain and name of a company say where a person works, and of a company of one, who it is.
    personal = "personal:read" in caller.scopes
    return AccountOut(
        account_id=account.account_id,
        domain=account.domain if personal else None,
        name=account.name if personal else None,
        leads=account.leads,
        first_seen_at=account.first_seen_at,
    )
