"""What happened to leads: each stage entry and each decision, appended once and never rewritten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg
import orjson

from accord.contracts.qualification_events import LeadDecided, LeadStageChanged
from qualification.domain.decisions import Fields

_ENTER = """
INSERT INTO stage_entry (
    lead_id, sequence, stage, stage_kind, stage_rank, stage_owner, visit, from_stage, from_since, entered_at, recorded_at,
    cause, decision_id, definition_version
)
SELECT * FROM unnest(
    $1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::smallint[], $6::text[], $7::int[], $8::text[], $9::timestamptz[],
    $10::timestamptz[], $11::timestamptz[], $12::text[], $13::uuid[], $14::int[]
)
"""

_DECIDE = """
INSERT INTO decision (
    lead_id, decision_id, decision, reason, from_stage, stage, occurred_at, recorded_at, actor, department, fields,
    definition_version
)
SELECT lead_id, decision_id, decision, reason, from_stage, stage, occurred_at, recorded_at, actor, department, fields::jsonb,
    definition_version
FROM unnest(
    $1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::timestamptz[], $8::timestamptz[], $9::text[],
    $10::text[], $11::text[], $12::int[]
) AS row (
    lead_id, decision_id, decision, reason, from_stage, stage, occurred_at, recorded_at, actor, department, fields,
    definition_version
)
"""

_NOTE = """
INSERT INTO decision_note (lead_id, decision_id, note) SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[])
"""

_PERSONS = "lead_id IN (SELECT lead_id FROM lead WHERE lead_id = ANY ($1::uuid[]) OR merged_into = ANY ($1::uuid[]))"
_FORGET = (
    f"DELETE FROM decision_note WHERE {_PERSONS}",
    f"UPDATE decision SET fields = fields - 'answers' WHERE {_PERSONS} AND fields ? 'answers'",
)

_PAGE = """
SELECT
    entry.sequence, entry.stage, entry.stage_kind, entry.stage_owner, entry.visit, entry.from_stage, entry.from_since,
    entry.entered_at, entry.recorded_at, entry.cause, entry.definition_version, decision.decision_id, decision.decision,
    decision.reason, decision.actor, decision.department, decision.fields::text AS fields, decision_note.note
FROM stage_entry AS entry
LEFT JOIN decision ON decision.lead_id = entry.lead_id AND decision.decision_id = entry.decision_id
LEFT JOIN decision_note ON $4 AND decision_note.lead_id = entry.lead_id AND decision_note.decision_id = entry.decision_id
WHERE entry.lead_id = $1 AND entry.sequence > $2
ORDER BY entry.sequence
LIMIT $3
"""


@dataclass(frozen=True, slots=True)
class Note:
    """Free text that somebody wrote beside a decision."""

    lead_id: UUID
    decision_id: UUID
    text: str


async def append(
    driver: asyncpg.Connection,
    entries: Sequence[LeadStageChanged],
    decisions: Sequence[LeadDecided],
    fields: Mapping[UUID, Fields],
    notes: Sequence[Note],
) -> None:
    """Write what the events say, by one statement per table. `fields` are those of the decisions, by decision id."""
    if entries:
        await driver.execute(
            _ENTER,
            [entry.lead_id for entry in entries],
            [entry.sequence for entry in entries],
            [entry.stage for entry in entries],
            [entry.stage_kind for entry in entries],
            [entry.stage_rank for entry in entries],
            [entry.stage_owner for entry in entries],
            [entry.visit for entry in entries],
            [entry.from_stage for entry in entries],
            [entry.from_since for entry in entries],
            [entry.occurred_at for entry in entries],
            [entry.recorded_at for entry in entries],
            [entry.cause for entry in entries],
            [entry.decision_id for entry in entries],
            [entry.definition_version for entry in entries],
        )
    if decisions:
        await driver.execute(
            _DECIDE,
            [decision.lead_id for decision in decisions],
            [decision.decision_id for decision in decisions],
            [decision.decision for decision in decisions],
            [decision.reason for decision in decisions],
            [decision.from_stage for decision in decisions],
            [decision.stage for decision in decisions],
            [decision.occurred_at for decision in decisions],
            [decision.recorded_at for decision in decisions],
            [decision.actor for decision in decisions],
            [decision.department for decision in decisions],
            [_fields_json(fields[decision.decision_id]) for decision in decisions],
            [decision.definition_version for decision in decisions],
        )
    if notes:
        await driver.execute(
            _NOTE,
            [note.lead_id for note in notes],
            [note.decision_id for note in notes],
            [note.text for note in notes],
        )


async def forget(driver: asyncpg.Connection, lead_ids: Sequence[UUID]) -> None:
    """Drop what was written about erased persons, also under leads that were merged into theirs: notes and answers.

    Entries, decisions and amounts stay as counts.
    """
    for statement in _FORGET:
        await driver.execute(statement, lead_ids)


async def page(
    driver: asyncpg.Connection, lead_id: UUID, after: int, rows_max: int, *, with_notes: bool
) -> list[dict[str, Any]]:
    """Stage entries of one lead after a sequence, oldest first, each with the decision that led to it."""
    return [dict(row) for row in await driver.fetch(_PAGE, lead_id, after, rows_max, with_notes)]


def _fields_json(fields: Fields) -> str:
    given: dict[str, object] = {}
    if fields.amount is not None:
        given["amount"] = fields.amount.model_dump(mode="json")
    if fields.expected_close is not None:
        given["expected_close"] = fields.expected_close.isoformat()
    if fields.answers:
        given["answers"] = dict(fields.answers)
    return orjson.dumps(given).decode()
