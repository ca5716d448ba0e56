"""GET /v1/leads/{lead_id}, and the lookups. Personal fields are shown to keys with personal:read only."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field

from accord.contracts.values import Attributes, Campaign, PolicyFailure, Verdict
from accord.db import Database
from accord.http.auth import Caller, require
from accord.http.openapi import problems
from accord.http.problems import validation_error
from accord.terms.findings import Finding
from intake.leads.domain.quality import Quality
from intake.leads.queries.lookup import FoundLead
from intake.leads.service.lookup import compute_etag, find_by_email, find_by_external, find_by_phone, get_by_id

LEAD_ID = "019f3b1e-7a52-7c31-9a55-8a4f3c1d2e10"


class ExternalOut(BaseModel):
    """The id that another system gave the lead."""

    source: str
    id: str


class PersonOut(BaseModel):
    """The personal fields; present for keys with `personal:read`."""

    email: str | None = None
    phone: str | None = None
    first_name: str | None = None
    last_name: str | None = None
    company: str | None = None
    domain: str | None = None
    title: str | None = None
    external: list[ExternalOut] = []


class LeadOut(BaseModel):
    """A lead as intake knows it."""

    lead_id: UUID
    source: str = Field(description="Where the lead was first heard of.")
    captured_at: datetime = Field(description="When its first submission occurred.")
    pending: bool = Field(description="True while nothing but quarantined submissions has come: it has not entered.")
    verdict: Verdict
    quality_score: float | None
    policy_version: int | None
    account_id: UUID | None
    attributes: Attributes
    campaign: Campaign | None
    merged: list[UUID] = Field(description="Leads that were merged into this one; their ids lead here.")
    person: PersonOut | None = Field(description="Null without personal:read.")


class LeadsOut(BaseModel):
    """The lead that a key names, if there is one."""

    items: list[LeadOut]
    next_cursor: None = None


def lead_router(database: Database) -> APIRouter:
    """The routes that read leads."""
    router = APIRouter(tags=["leads"])

    @router.get("/v1/leads/{lead_id}", summary="One lead", operation_id="get_lead", responses=problems(404, 410))
    async def get_lead(lead_id: UUID, response: Response, caller: Caller = require("leads:read")) -> LeadOut:
        """The lead, or the one into which it was merged. Its ETag changes with what is shown, not with every activity."""
        found = await get_by_id(database, lead_id)
        response.headers["ETag"] = etag_for(found, caller)
        return to_lead_out(found, caller)

    @router.get("/v1/leads", summary="Find a lead by one of its keys")
    async def find_by_key(
        caller: Caller = require("leads:read"),
        email: Annotated[str | None, Query(max_length=500)] = None,
        phone: Annotated[str | None, Query(max_length=50, description="International form, +…")] = None,
        external: Annotated[str | None, Query(max_length=401, description="`source:id`", pattern="^[^:]+:.+$")] = None,
    ) -> LeadsOut:
        """Exactly one of `email`, `phone`, `external`. What can be no such key is 422."""
        if sum(given is not None for given in (email, phone, external)) != 1:
            raise validation_error(
                "Give exactly one of email, phone, external.",
                {"parameter": "email", "message": "Give exactly one of email, phone, external"},
            )
        found = await _find(email, phone, external)
        return LeadsOut(items=[] if found is None else [to_lead_out(found, caller)])

    async def _find(email: str | None, phone: str | None, external: str | None) -> FoundLead | None:
        if email is not None:
            return await find_by_email(database, email)
        if phone is not None:
            return await find_by_phone(database, phone)
        return await find_by_external(database, external or "")

    return router


def etag_for(found: FoundLead, caller: Caller) -> str:
    """The ETag of a lead as this caller may see it."""
    return compute_etag(found, personal="personal:read" in caller.scopes)


def to_lead_out(found: FoundLead, caller: Caller) -> LeadOut:
    """A lead as this caller may see it."""
    lead = found.lead
    person = None
    if "personal:read" in caller.scopes:
        external = [ExternalOut(source=one["source"], id=one["id"]) for one in found.external]
        person = PersonOut(**lead.person, external=external)
    return LeadOut(
        lead_id=lead.lead_id,
        source=lead.source,
        captured_at=lead.captured_at,
        pending=lead.pending,
        verdict=lead.verdict,
        quality_score=lead.quality_score,
        policy_version=lead.policy_version,
        account_id=lead.account_id,
        attributes=lead.attributes,
        campaign=lead.campaign,
        merged=found.merged,
        person=person,
    )


class QualityOut(BaseModel):
    """How the data policy judged the record. `score` is null where no policy is in force."""

    score: float | None = Field(description="Weight passed / weight applicable, from 0 to 1.")
    policy_version: int | None
    failed: list[PolicyFailure]


class LeftOutOut(BaseModel):
    """A value that was sent and not used, or kept in intake alone."""

    pointer: str = Field(description="Where it stands in the record, as a JSON Pointer.")
    message: str = Field(description="Why. It never holds the value.")


LEFT_OUT = "Values that could not be read, or that may not leave intake. They stay with what was sent."


def encode_findings(findings: Iterable[Finding]) -> list[dict[str, str]]:
    """What was left out, as it is answered."""
    return [{"pointer": one.pointer, "message": one.message} for one in findings]


def encode_quality(quality: Quality) -> dict[str, object]:
    """The judgement as it is answered."""
    return {
        "score": quality.score,
        "policy_version": quality.policy_version,
        "failed": [
            {"parameter": one.parameter, "consequence": one.consequence, "reason": one.reason} for one in quality.failed
        ],
    }
