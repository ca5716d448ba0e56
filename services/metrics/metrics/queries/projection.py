"""Reads and writes the projections of one batch of events, in a few statements whatever its size.

Rows are locked and written in the order of their keys, so that two consumers cannot deadlock.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from uuid import UUID

import asyncpg

from accord.contracts.intake_events import ActivityRecorded
from accord.contracts.qualification_events import LeadAssigned, LeadStageChanged, OpportunityUpdated
from accord.db import bulk
from metrics import tables
from metrics.domain.clock import Clock
from metrics.domain.lead import Lead
from metrics.domain.stage_history import StageChange, StageEntry

_INSERT_LEADS = "INSERT INTO lead (lead_id) SELECT unnest($1::uuid[]) ON CONFLICT DO NOTHING"

_LEAD_MEMBERS = Lead.__struct_fields__

_LOCK_LEADS = f"""
SELECT {", ".join(_LEAD_MEMBERS)} FROM lead WHERE lead_id = ANY ($1) ORDER BY lead_id FOR UPDATE
"""

_SAVE_LEADS = bulk.update(tables.lead, ["lead_id"], _LEAD_MEMBERS[1:])

_CHANGES = """
SELECT lead_id, sequence, stage, visit, entered_at, correction, replaces, withdrawn, follows
FROM stage_entry WHERE lead_id = ANY ($1)
"""

_REPORTED = (
    *("lead_id", "sequence", "stage", "stage_kind", "stage_rank", "visit", "correction", "cause", "decision", "reason"),
    *("actor", "definition_version", "recorded_at", "replaces", "withdrawn", "follows"),
)
"""The fields of a stage change that have a column of the same name."""
_INSERT_ENTRIES = bulk.insert(
    tables.stage_entry, [*_REPORTED, "entered_at", "is_first", "is_last"], on_conflict="DO NOTHING"
)

_DERIVED = ("position", "exited_at", "next_stage", "duration_us", "is_first", "is_last")
_SAVE_ENTRIES = bulk.update(
    tables.stage_entry,
    ["lead_id", "sequence"],
    _DERIVED,
    where="(stage_entry.position, stage_entry.exited_at, stage_entry.next_stage, stage_entry.is_first, stage_entry.is_last)"
    " IS DISTINCT FROM (new.position, new.exited_at, new.next_stage, new.is_first, new.is_last)",
)

_NO_POSITION = {**dict.fromkeys(_DERIVED), "is_first": False, "is_last": False}

_INSERT_ASSIGNMENTS = bulk.insert(
    tables.assignment, ["lead_id", "sequence", "assigned_at", "owner"], on_conflict="DO NOTHING"
)

_ACTIVITY_MEMBERS = ("lead_id", "occurred_at", "activity_id", "kind", "by", "actor", "source")
_INSERT_ACTIVITIES = bulk.insert(tables.activity, [*_ACTIVITY_MEMBERS, "campaign"], on_conflict="DO NOTHING")

_CLOCK_MEMBERS = Clock.__struct_fields__

_LOCK_CLOCKS = f"""
SELECT {", ".join(_CLOCK_MEMBERS)} FROM clock WHERE clock_id = ANY ($1) ORDER BY clock_id FOR UPDATE
"""

_SAVE_CLOCKS = bulk.upsert(
    tables.clock,
    _CLOCK_MEMBERS,
    key=["clock_id"],
    changing=[
        name for name in _CLOCK_MEMBERS if name not in ("clock_id", "lead_id", "clause", "obliges", "started_at")
    ],
    where="excluded.sequence >= clock.sequence",
)

_OPPORTUNITY_MEMBERS = ("stage", "amount", "currency", "expected_close", "sequence")
_SAVE_OPPORTUNITIES = bulk.upsert(
    tables.opportunity,
    ["lead_id", *_OPPORTUNITY_MEMBERS],
    key=["lead_id"],
    changing=_OPPORTUNITY_MEMBERS,
    where="excluded.sequence > opportunity.sequence",
)

_OPPORTUNITY_CHANGE_MEMBERS = ("amount", "currency", "expected_close")
_INSERT_OPPORTUNITY_CHANGES = bulk.insert(
    tables.opportunity_change,
    ["lead_id", "sequence", "occurred_at", *_OPPORTUNITY_CHANGE_MEMBERS],
    on_conflict="DO NOTHING",
)

_SAVE_DEFINITION = """
INSERT INTO definition_version (version, effective_from, content) VALUES ($1, $2, $3::jsonb)
ON CONFLICT (version) DO NOTHING
"""


async def lock_leads(connection: asyncpg.Connection, ids: Iterable[UUID]) -> dict[UUID, Lead]:
    """Lock these leads; unknown ones are inserted."""
    ordered = sorted(set(ids))
    if not ordered:
        return {}
    await connection.execute(_INSERT_LEADS, ordered)
    return {row["lead_id"]: _lead_from_row(row) for row in await connection.fetch(_LOCK_LEADS, ordered)}


def _lead_from_row(row: asyncpg.Record) -> Lead:
    # SQLAlchemy has set the connection's codec: jsonb comes as plain values, and is sent as text.
    return Lead(**{**row, "path": tuple(row["path"])})


async def save_leads(connection: asyncpg.Connection, leads: Iterable[Lead]) -> None:
    """Save leads that `lock_leads` has locked."""
    rows = [
        {
            **{name: getattr(lead, name) for name in _LEAD_MEMBERS},
            "attributes": json.dumps(lead.attributes),
            "path": json.dumps(lead.path),
        }
        for lead in leads
    ]
    await _SAVE_LEADS.execute(connection, rows)


async def insert_changes(connection: asyncpg.Connection, changes: Iterable[LeadStageChanged]) -> None:
    """Insert reported stage changes; an existing one stays unchanged."""
    rows = [
        {
            **{name: getattr(change, name) for name in _REPORTED},
            "entered_at": change.occurred_at,
            "is_first": False,
            "is_last": False,
        }
        for change in sorted(changes, key=lambda change: (change.lead_id, change.sequence))
    ]
    await _INSERT_ENTRIES.execute(connection, rows)


async def fetch_changes(connection: asyncpg.Connection, ids: Sequence[UUID]) -> Mapping[UUID, list[StageChange]]:
    """Fetch all stage changes reported so far of these leads."""
    found: dict[UUID, list[StageChange]] = defaultdict(list)
    for row in await connection.fetch(_CHANGES, ids):
        found[row[0]].append(StageChange(*row[1:]))
    return found


async def save_stage_histories(
    connection: asyncpg.Connection,
    histories: Mapping[UUID, Sequence[StageEntry]],
    changes: Mapping[UUID, Sequence[StageChange]],
) -> None:
    """Save the derived history of each lead; changes outside it lose their position."""
    rows: list[dict[str, object]] = []
    for lead_id, entries in histories.items():
        rows += [
            {
                "lead_id": lead_id,
                "sequence": entry.sequence,
                "position": entry.position,
                "exited_at": entry.exited_at,
                "next_stage": entry.next_stage,
                "duration_us": entry.duration_us,
                "is_first": entry.is_first,
                "is_last": entry.is_last,
            }
            for entry in entries
        ]
        removed = {change.sequence for change in changes[lead_id]} - {entry.sequence for entry in entries}
        rows += [{"lead_id": lead_id, "sequence": sequence, **_NO_POSITION} for sequence in sorted(removed)]
    await _SAVE_ENTRIES.execute(connection, rows)


async def insert_assignments(connection: asyncpg.Connection, assignments: Iterable[LeadAssigned]) -> None:
    """Insert who got which lead and when, each once."""
    rows: list[dict[str, object]] = [
        {"lead_id": event.lead_id, "sequence": event.sequence, "assigned_at": event.occurred_at, "owner": event.owner}
        for event in sorted(assignments, key=lambda event: (event.lead_id, event.sequence))
    ]
    await _INSERT_ASSIGNMENTS.execute(connection, rows)


async def insert_activities(connection: asyncpg.Connection, activities: Iterable[ActivityRecorded]) -> None:
    """Insert activities, each once."""
    by_id = {activity.activity_id: activity for activity in activities}
    rows = [
        {
            **{name: getattr(activity, name) for name in _ACTIVITY_MEMBERS},
            "campaign": activity.campaign and activity.campaign.name,
        }
        for activity in sorted(
            by_id.values(), key=lambda activity: (activity.lead_id, activity.occurred_at, activity.activity_id)
        )
    ]
    await _INSERT_ACTIVITIES.execute(connection, rows)


async def lock_clocks(connection: asyncpg.Connection, ids: Iterable[UUID]) -> dict[UUID, Clock]:
    """Lock the existing ones of these clocks."""
    return {row["clock_id"]: Clock(**row) for row in await connection.fetch(_LOCK_CLOCKS, sorted(set(ids)))}


async def save_clocks(connection: asyncpg.Connection, clocks: Iterable[Clock]) -> None:
    """Save clocks, new or existing."""
    ordered = sorted(clocks, key=lambda clock: clock.clock_id)
    await _SAVE_CLOCKS.execute(
        connection, [{name: getattr(clock, name) for name in _CLOCK_MEMBERS} for clock in ordered]
    )


async def save_opportunities(connection: asyncpg.Connection, updates: Sequence[OpportunityUpdated]) -> None:
    """Save the newest state of each lead's opportunity, and each that it had."""
    newest: dict[UUID, OpportunityUpdated] = {}
    changes: dict[tuple[UUID, int], OpportunityUpdated] = {}
    for update in updates:
        changes[update.lead_id, update.sequence] = update
        if update.lead_id not in newest or update.sequence > newest[update.lead_id].sequence:
            newest[update.lead_id] = update
    rows = [{**_deal_row(update), "stage": update.stage} for _, update in sorted(newest.items())]
    await _SAVE_OPPORTUNITIES.execute(connection, rows)
    rows = [{**_deal_row(update), "occurred_at": update.occurred_at} for _, update in sorted(changes.items())]
    await _INSERT_OPPORTUNITY_CHANGES.execute(connection, rows)


def _deal_row(update: OpportunityUpdated) -> dict[str, object]:
    return {
        "lead_id": update.lead_id,
        "sequence": update.sequence,
        "amount": update.amount and update.amount.amount,
        "currency": update.amount and update.amount.currency,
        "expected_close": update.expected_close,
    }


async def save_definition(
    connection: asyncpg.Connection, version: int, effective_from: datetime, content: Mapping[str, object]
) -> None:
    """Save a definition that was activated."""
    await connection.execute(_SAVE_DEFINITION, version, effective_from, json.dumps(content))
