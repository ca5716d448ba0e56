"""Decisions of people and of the CRM: one transaction for one or for many, in order; a refused one spoils no other.

The leads are locked first, so of two people who decide at once one wins and the other gets the present state.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeGuard
from uuid import UUID

from accord.contracts.base import LeadEvent
from accord.contracts.qualification_events import LeadStageChanged
from accord.contracts.values import Department
from accord.db import Database, UnitOfWork
from accord.http import idempotency
from accord.ids import new_id
from qualification.lifecycle.domain.decisions import (
    DefinitionChanged,
    LeadModified,
    LeadNotFound,
    Refused,
    allowed_decisions,
)
from qualification.lifecycle.domain.facts import Decision, Fields
from qualification.lifecycle.domain.lead import Lead
from qualification.lifecycle.queries import external_keys
from qualification.lifecycle.service.batch import LeadBatch
from qualification.lifecycle.service.evaluation_context import EvaluationContext, EvaluationContexts

DECISIONS_PER_TURN_MAX = 200
"""After so many the loop gets its turn, so that a large batch does not hold up other requests."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A decision that somebody wants to take.

    `lead` is an id, or the digest of an external id (accord.contracts.external_key). `revision` is what the lead must still
    be at, and `definition_version` what must still be in force, if it matters; `occurred_at` None is now.
    """

    lead: UUID | str
    decision: str
    reason: str | None
    fields: Fields
    note: str | None
    occurred_at: datetime | None
    revision: int | None = None
    definition_version: int | None = None


@dataclass(frozen=True, slots=True)
class DecisionResult:
    """A recorded decision: the lead after it and after every gate that this opened.
    `requested_lead_id` is the lead that was named, which may have been merged into it."""

    decision: Decision
    entered: LeadStageChanged
    lead: Lead
    revision: int
    allowed: tuple[str, ...]
    requested_lead_id: UUID


@dataclass(frozen=True, slots=True)
class Author:
    """Who decides: the key's name and its department."""

    name: str
    department: Department | None


DecisionOutcome = DecisionResult | Refused
Encode = Callable[[Sequence[DecisionOutcome]], idempotency.Answer]


async def record_decisions(
    database: Database,
    contexts: EvaluationContexts,
    proposals: Sequence[Proposal],
    author: Author,
    idempotency_request: idempotency.IdempotencyRequest | None,
    encode: Encode,
    *,
    is_batch: bool = False,
) -> idempotency.Done[Sequence[DecisionOutcome]]:
    """Apply these decisions in one transaction and save what `encode` makes of the outcomes under the idempotency key.

    What `encode` raises (for a single decision that is refused) rolls the transaction back and leaves the key free.
    """
    context = await contexts.open()
    async with database.write_transaction() as unit_of_work:

        async def act() -> Sequence[DecisionOutcome]:
            return await decide(unit_of_work, proposals, context, author, is_batch=is_batch)

        return await idempotency.once(unit_of_work, idempotency_request, act, encode)


async def decide(
    unit_of_work: UnitOfWork,
    proposals: Sequence[Proposal],
    context: EvaluationContext,
    author: Author,
    *,
    is_batch: bool = False,
) -> list[DecisionOutcome]:
    """Apply these decisions one after another; an outcome for each, in order."""
    named = await external_keys.find(
        await unit_of_work.connection(), (p.lead for p in proposals if isinstance(p.lead, str))
    )
    targets = [p.lead if isinstance(p.lead, UUID) else named.get(p.lead) for p in proposals]
    batch = await LeadBatch.lock(unit_of_work, context, (lead_id for lead_id in targets if lead_id is not None))
    dated = [
        (lead_id, p.occurred_at) for p, lead_id in zip(proposals, targets, strict=True) if lead_id and p.occurred_at
    ]
    await batch.prefetch_logs_for_decisions(dated)
    answers: list[DecisionOutcome] = []
    for proposal, lead_id in zip(proposals, targets, strict=True):
        answers.append(
            await _apply_proposal(batch, proposal, lead_id, author, unit_of_work.now, context, is_batch=is_batch)
        )
        if len(answers) % DECISIONS_PER_TURN_MAX == 0:
            await asyncio.sleep(0)
    await batch.save()
    return answers


def _build_decision(proposal: Proposal, author: Author, lead: Lead, now: datetime) -> Decision:
    """Without a date it is about the lead as it is now that it is locked, so after all that it has done. Whoever waited for the lock
    began before that, and would otherwise decide about a lead of the past."""
    return Decision(
        decision_id=new_id(),
        decision=proposal.decision,
        actor=author.name,
        occurred_at=proposal.occurred_at or lead.next_moment(now),
        department=author.department,
        reason=proposal.reason,
        fields=proposal.fields,
    )


async def _apply_proposal(
    batch: LeadBatch,
    proposal: Proposal,
    lead_id: UUID | None,
    author: Author,
    now: datetime,
    context: EvaluationContext,
    *,
    is_batch: bool,
) -> DecisionOutcome:
    if lead_id is None:
        return LeadNotFound("no lead is known by this external id")
    before = batch.lead(lead_id)
    if proposal.revision is not None and before.profile is not None and before.revision != proposal.revision:
        return LeadModified(before.revision, before.stage, allowed_decisions(before, context.rules_of(before)))
    in_force = context.in_force.version if context.in_force else None
    if proposal.definition_version not in (None, in_force) and before.profile is not None and not before.erased:
        return DefinitionChanged(in_force, before.stage, allowed_decisions(before, context.rules_of(before)))
    decision = _build_decision(proposal, author, before, now)
    try:
        emitted = await batch.decide(lead_id, decision, proposal.note, is_batch=is_batch)
    except Refused as refusal:
        return refusal
    lead = emitted.lead
    return DecisionResult(
        decision=decision,
        entered=next(event for event in emitted.events if _is_entry_by(event, decision)),
        lead=lead,
        revision=lead.revision + 1,
        allowed=allowed_decisions(lead, context.rules_of(lead)),
        requested_lead_id=lead_id,
    )


def _is_entry_by(event: LeadEvent, decision: Decision) -> TypeGuard[LeadStageChanged]:
    return isinstance(event, LeadStageChanged) and event.decision_id == decision.decision_id and not event.withdrawn
