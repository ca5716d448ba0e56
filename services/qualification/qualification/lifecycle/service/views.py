"""Reading: one lead with every gate and score explained, its history, and lists. Changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import orjson
from msgspec import Struct

from accord.db import Database, clamp_moment, connection_of
from qualification.definition.domain.rules import Rules
from qualification.definition.service import DefinitionVersionCache
from qualification.lifecycle.domain.decisions import allowed_decisions
from qualification.lifecycle.domain.facts import LAST, LAST_TIE, DecisionAccepted, LogPosition, VersionApplied
from qualification.lifecycle.domain.gates import GateExplanation, explain_gates
from qualification.lifecycle.domain.history import fold, survivor_at
from qualification.lifecycle.domain.lead import Lead, Scores
from qualification.lifecycle.domain.scoring import ScoreLine, explain_scores, scores
from qualification.lifecycle.queries import external_keys, history, leads, listing, logs


class LeadView(Struct, frozen=True):
    """A lead at one moment: its stored state, and what the definition in force makes of it then."""

    lead: Lead
    at: datetime
    scores: Scores | None
    allowed: tuple[str, ...]
    gates: Sequence[GateExplanation]
    score_lines: Sequence[ScoreLine]
    version: int | None


class ListedLead(Struct, frozen=True):
    """One lead of a list, with the scores as they were last published."""

    lead_id: UUID
    source: str
    captured_at: datetime
    stage: str | None
    stage_since: datetime | None
    visit: int | None
    owner: str | None
    fit: float | None
    engagement: float | None
    grade: str | None
    definition_version: int | None


async def view_lead(database: Database, reference: UUID | str, rules: Rules | None, now: datetime) -> LeadView | None:
    """The lead with this id or digest of an external id; in place of one that was merged, its survivor. None if there is none."""
    async with database.read_transaction() as conn:
        connection = await connection_of(conn)
        lead = await _find_lead(connection, reference, rules)
    if lead is None:
        return None
    at = lead.latest_moment(now)
    return _build_view(lead, rules, at)


def _build_view(lead: Lead, rules: Rules | None, at: datetime) -> LeadView:
    effective = rules if rules is not None and lead.profile is not None and not lead.erased else None
    return LeadView(
        lead=lead,
        at=at,
        scores=scores(lead.profile, lead.activities, effective, at) if effective and effective.scored else None,
        allowed=allowed_decisions(lead, rules),
        gates=explain_gates(lead, effective, at) if effective else (),
        score_lines=explain_scores(lead, effective, at) if effective else (),
        version=effective.version if effective else lead.definition_version,
    )


async def view_lead_at(
    database: Database, reference: UUID | str, definitions: DefinitionVersionCache, at: datetime
) -> LeadView | None:
    """The lead as it was at a past moment, from its log as it is known now, judged by the version of then.

    A lead that has been merged since is shown as itself where it was not merged yet. None if there is no such lead, or was none then.
    """
    _, versions, kinds = await definitions.get_versions()
    async with database.read_transaction() as conn:
        connection = await connection_of(conn)
        lead = await _find_lead(connection, reference, None)
        if lead is None:
            return None
        if lead.erased:
            return LeadView(lead, at, None, (), (), (), None)
        filters = await external_keys.resolve(connection, reference)
        found = await logs.load(connection, [lead.lead_id], {}, kinds)
    lead_id = survivor_at(filters or lead.lead_id, found.logs, at)
    if lead_id not in found.logs:
        return None
    await definitions.load_versions(
        {
            fact.version
            for log in found.logs.values()
            for fact in log.facts
            if isinstance(fact, VersionApplied | DecisionAccepted)
        }
    )
    await definitions.load_versions({log.entry_version for log in found.logs.values() if log.entry_version is not None})
    past = fold(lead_id, found.logs, versions, until=at, before=LogPosition(at, LAST, LAST_TIE)).lead
    if past.profile is None or past.profile.captured_at > at:
        return None
    rules = versions[past.applied_version] if past.applied_version else None
    return _build_view(past, rules, at)


async def view_history(
    database: Database, reference: UUID | str, after: int, rows_max: int, *, with_notes: bool
) -> tuple[Lead, list[dict[str, Any]]] | None:
    """The lead and its stage entries after a sequence. None if there is no such lead."""
    async with database.read_transaction() as conn:
        connection = await connection_of(conn)
        lead = await _find_lead(connection, reference, None)
        if lead is None:
            return None
        rows = await history.fetch_page(connection, lead.lead_id, after, rows_max, with_notes=with_notes)
        entries = (await logs.load_effective_entries(connection, [lead.lead_id])).get(lead.lead_id, [])
    places = {entry.sequence: place for place, entry in enumerate(entries)}
    return lead, [{**row, "position": places.get(row["sequence"])} for row in rows]


async def list_leads(database: Database, filters: listing.Filter, rows_max: int) -> list[ListedLead]:
    """The next leads that the filter asks for."""
    async with database.read_transaction() as conn:
        rows = await listing.fetch_page(await connection_of(conn), filters, rows_max)
    return [build_listed_lead(row) for row in rows]


async def _find_lead(connection: asyncpg.Connection, reference: UUID | str, rules: Rules | None) -> Lead | None:
    lead_id = (
        reference if isinstance(reference, UUID) else (await external_keys.find(connection, [reference])).get(reference)
    )
    if lead_id is None:
        return None
    lead = await leads.read(connection, lead_id, rules.kinds if rules else ())
    return lead if lead is not None and (lead.profile is not None or lead.erased) else None


def build_listed_lead(row: asyncpg.Record) -> ListedLead:
    """One lead of a list, from its stored row."""
    stage = row["stage"]
    return ListedLead(
        lead_id=row["lead_id"],
        source=row["source"],
        captured_at=row["captured_at"],
        stage=stage,
        stage_since=row["stage_since"] and clamp_moment(row["stage_since"]),
        visit=None if stage is None else orjson.loads(row["visits"])[stage],
        owner=row["owner"],
        fit=row["fit"],
        engagement=row["engagement"],
        grade=row["grade"],
        definition_version=row["definition_version"],
    )
