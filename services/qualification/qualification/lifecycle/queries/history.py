"""What happened to leads: each stage entry and each decision, appended once and never rewritten."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any
from uuid import UUID

import asyncpg
from msgspec import Struct

from accord.contracts.qualification_events import LeadDecided, LeadStageChanged
from accord.db import clamp_moment
from qualification import tables
from qualification.lifecycle.domain.facts import DecisionAccepted
from qualification.lifecycle.queries.deals import deal_json

_ENTRY_COLUMNS = tuple(column.name for column in tables.stage_entry.columns)
_entry_values = attrgetter(*("occurred_at" if name == "entered_at" else name for name in _ENTRY_COLUMNS))

_OF_FACT = ("fields", "effective_at")
_OF_EVENT = tuple(column.name for column in tables.decision.columns if column.name not in _OF_FACT)
_decision_values = attrgetter(*_OF_EVENT)

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
    entry.entered_at, entry.recorded_at, entry.cause, entry.definition_version, entry.correction, entry.withdrawn, entry.replaces,
    decision.decision_id, decision.decision,
    decision.reason, decision.actor, decision.department, decision.fields::text AS fields, decision_note.note
FROM stage_entry AS entry
LEFT JOIN decision ON decision.lead_id = entry.lead_id AND decision.decision_id = entry.decision_id
LEFT JOIN decision_note ON $4 AND decision_note.lead_id = entry.lead_id AND decision_note.decision_id = entry.decision_id
WHERE entry.lead_id = $1 AND entry.sequence > $2
ORDER BY entry.sequence
LIMIT $3
"""


class Note(Struct, frozen=True):
    """Free text that somebody wrote beside a decision."""

    lead_id: UUID
    decision_id: UUID
    text: str


async def insert(
    connection: asyncpg.Connection,
    entries: Sequence[LeadStageChanged],
    decisions: Sequence[tuple[LeadDecided, DecisionAccepted]],
    notes: Sequence[Note],
) -> None:
    """Write what the events say, by one COPY per table: rows are never written twice. A decision comes with its place and fields."""
    if entries:
        rows = [_entry_values(entry) for entry in entries]
        await connection.copy_records_to_table("stage_entry", records=rows, columns=_ENTRY_COLUMNS)
    if decisions:
        made = [
            (*_decision_values(event), deal_json(accepted.decision.fields), accepted.at)
            for event, accepted in decisions
        ]
        await connection.copy_records_to_table("decision", records=made, columns=(*_OF_EVENT, *_OF_FACT))
    if notes:
        await connection.execute(
            _NOTE,
            [note.lead_id for note in notes],
            [note.decision_id for note in notes],
            [note.text for note in notes],
        )


async def erase(connection: asyncpg.Connection, lead_ids: Sequence[UUID]) -> None:
    """Drop what was written about erased persons, also under leads that were merged into theirs: notes and answers.

    Entries, decisions and amounts stay as counts.
    """
    for statement in _FORGET:
        await connection.execute(statement, lead_ids)


async def fetch_page(
    connection: asyncpg.Connection, lead_id: UUID, after: int, rows_max: int, *, with_notes: bool
) -> list[dict[str, Any]]:
    """Stage entries of one lead after a sequence, oldest first, each with the decision that led to it."""
    rows = await connection.fetch(_PAGE, lead_id, after, rows_max, with_notes)
    return [
        {
            **row,
            "entered_at": clamp_moment(row["entered_at"]),
            "from_since": row["from_since"] and clamp_moment(row["from_since"]),
        }
        for row in rows
    ]
