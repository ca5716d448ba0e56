"""Reading: one lead with every gate and score explained, its history, and lists. Changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import orjson

from accord.db import Database, clamp_moment, connection_of
from qualification.definition.domain.rules import Rules
from qualification.definition.service import Definitions
from qualification.lifecycle.domain.decisions import allowed_decisions
from qualification.lifecycle.domain.facts import LAST, LAST_TIE, DecisionAccepted, LogPosition, VersionApplied
from qualification.lifecycle.domain.history import fold, living_at
from qualification.lifecycle.domain.lead import Lead, Scores
from qualification.lifecycle.domain.progress import GateExplained, explain_gates
from qualification.lifecycle.domain.scoring import ScoreLine, explain_scores, scores
from qualification.lifecycle.queries import external_keys, history, leads, listing, logs


@dataclass(frozen=True, slots=True)
class LeadView:
    """A lead at one moment: its stored state, and what the definition in force makes of it then."""

    lead: Lead
    at: datetime
    scores: Scores | None
    allowed: tuple[str, ...]
    gates: Sequence[GateExplained]
    lines: Sequence[ScoreLine]
    version: int | None


@dataclass(frozen=True, slots=True)
class Row:
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


async def view_lead(database: Database, named: UUID | str, rules: Rules | None, now: datetime) -> LeadView | None:
    """The lead with this id or digest of an external id; in place of one that was merged, its survivor. None if there is none."""
    async with database.read_transaction() as conn:
        connection = await connection_of(conn)
        lead = await _find(connection, named, rules)
    if lead is None:
        return None
    at = lead.at_present(now)
    return _judged(lead, rules, at)


def _judged(lead: Lead, rules: Rules | None, at: datetime) -> LeadView:
    judged = rules if rules is not None and lead.profile is not None and not lead.erased else None
    return LeadView(
        lead=lead,
        at=at,
        scores=scores(lead.profile, lead.activities, judged, at) if judged and judged.scored else None,
        allowed=allowed_decisions(lead, rules),
        gates=explain_gates(lead, judged, at) if judged else (),
        lines=explain_scores(lead, judged, at) if judged else (),
        version=judged.version if judged else lead.definition_version,
    )


async def view_past(database: Database, named: UUID | str, definitions: Definitions, at: datetime) -> LeadView | None:
    """The lead as it was at a past moment, from its log as it is known now, judged by the version of then.

    A lead that has been merged since is shown as itself where it was not merged yet. None if there is no such lead, or was none then.
    """
    versions = (await definitions.known()).versions
    async with database.read_transaction() as conn:
        connection = await connection_of(conn)
        lead = await _find(connection, named, None)
        if lead is None:
            return None
        if lead.erased:
            return LeadView(lead, at, None, (), (), (), None)
        asked = await external_keys.named(connection, named)
        found = await logs.load(connection, [lead.lead_id], {})
    lead_id = living_at(asked or lead.lead_id, found.logs, at)
    if lead_id not in found.logs:
        return None
    await definitions.know(
        {
            fact.version
            for log in found.logs.values()
            for fact in log.facts
            if isinstance(fact, VersionApplied | DecisionAccepted)
        }
    )
    await definitions.know({log.entered_under for log in found.logs.values() if log.entered_under is not None})
    past = fold(lead_id, found.logs, versions, until=at, before=LogPosition(at, LAST, LAST_TIE)).lead
    if past.profile is None or past.profile.captured_at > at:
        return None
    rules = versions[past.ruled_by] if past.ruled_by else None
    return _judged(past, rules, at)


async def view_history(
    database: Database, named: UUID | str, after: int, rows_max: int, *, with_notes: bool
) -> tuple[Lead, list[dict[str, Any]]] | None:
    """The lead and its stage entries after a sequence. None if there is no such lead."""
    async with database.read_transaction() as conn:
        connection = await connection_of(conn)
        lead = await _find(connection, named, None)
        if lead is None:
            return None
        rows = await history.page(connection, lead.lead_id, after, rows_max, with_notes=with_notes)
        stands = (await logs.stands(connection, [lead.lead_id])).get(lead.lead_id, [])
    places = {entry.sequence: place for place, entry in enumerate(stands)}
    return lead, [{**row, "position": places.get(row["sequence"])} for row in rows]


async def list_leads(database: Database, asked: listing.Filter, rows_max: int) -> list[Row]:
    """The next leads that the filter asks for."""
    async with database.read_transaction() as conn:
        rows = await listing.page(await connection_of(conn), asked, rows_max)
    return [list_row(row) for row in rows]


async def _find(connection: asyncpg.Connection, named: UUID | str, rules: Rules | None) -> Lead | None:
    lead_id = named if isinstance(named, UUID) else (await external_keys.find(connection, [named])).get(named)
    if lead_id is None:
        return None
    lead = await leads.read(connection, lead_id, rules.kinds if rules else ())
    return lead if lead is not None and (lead.profile is not None or lead.erased) else None


def list_row(row: asyncpg.Record) -> Row:
    """One lead of a list, from its stored row."""
    stage = row["stage"]
    return Row(
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
