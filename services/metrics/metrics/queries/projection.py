"""Reads and writes the projections of one batch of events: a few statements whatever its size. It decides nothing.

Rows are locked and written in the order of their keys, so that two consumers cannot deadlock.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple
from datetime import datetime
from uuid import UUID

import asyncpg

from accord.contracts.intake_events import ActivityRecorded
from accord.contracts.qualification_events import LeadStageChanged, OpportunityUpdated
from metrics.domain.clock import Clock
from metrics.domain.journey import Change, Entry
from metrics.domain.lead import Lead

_ENSURE_LEADS = "INSERT INTO lead (lead_id) SELECT unnest($1::uuid[]) ON CONFLICT DO NOTHING"

_LOCK_LEADS = """
SELECT lead_id, source, captured_at, account_id, attributes, campaign, owner, merged_into, erased, intake_sequence,
    state_recorded_at, merge_recorded_at, owner_sequence, path, first_entered_at, out_of_order
FROM lead WHERE lead_id = ANY ($1) ORDER BY lead_id FOR UPDATE
"""

_SAVE_LEADS = """
UPDATE lead SET source = new.source, captured_at = new.captured_at, account_id = new.account_id,
    attributes = new.attributes::jsonb, campaign = new.campaign, owner = new.owner, merged_into = new.merged_into,
    erased = new.erased, intake_sequence = new.intake_sequence, state_recorded_at = new.state_recorded_at,
    merge_recorded_at = new.merge_recorded_at, owner_sequence = new.owner_sequence, path = new.path::jsonb,
    first_entered_at = new.first_entered_at, out_of_order = new.out_of_order
FROM unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::uuid[], $5::text[], $6::text[], $7::text[], $8::uuid[],
            $9::bool[], $10::bigint[], $11::timestamptz[], $12::timestamptz[], $13::bigint[], $14::text[],
            $15::timestamptz[], $16::bool[])
    AS new (lead_id, source, captured_at, account_id, attributes, campaign, owner, merged_into, erased,
            intake_sequence, state_recorded_at, merge_recorded_at, owner_sequence, path, first_entered_at, out_of_order)
WHERE lead.lead_id = new.lead_id
"""

_CHANGES = """
SELECT lead_id, sequence, stage, visit, entered_at, correction, replaces, withdrawn, follows
FROM stage_entry WHERE lead_id = ANY ($1)
"""

_ADD_ENTRIES = """
INSERT INTO stage_entry (lead_id, sequence, stage, stage_kind, stage_rank, visit, entered_at, correction, cause,
decision,
                         reason, actor, definition_version, recorded_at, replaces, withdrawn, follows, is_first,
                         is_last)
SELECT *, false, false
FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::int[], $6::int[], $7::timestamptz[], $8::bool[],
            $9::text[], $10::text[], $11::text[], $12::text[], $13::int[], $14::timestamptz[], $15::bigint[],
            $16::bool[], $17::bigint[])
ON CONFLICT DO NOTHING
"""

_SAVE_ENTRIES = """
UPDATE stage_entry SET position = new.position, exited_at = new.exited_at, next_stage = new.next_stage,
    duration_us = new.duration_us, is_first = new.is_first, is_last = new.is_last
FROM unnest($1::uuid[], $2::bigint[], $3::int[], $4::timestamptz[], $5::text[], $6::bigint[], $7::bool[], $8::bool[])
    AS new (lead_id, sequence, position, exited_at, next_stage, duration_us, is_first, is_last)
WHERE stage_entry.lead_id = new.lead_id AND stage_entry.sequence = new.sequence
    AND (stage_entry.position, stage_entry.exited_at, stage_entry.next_stage, stage_entry.is_first, stage_entry.is_last)
        IS DISTINCT FROM (new.position, new.exited_at, new.next_stage, new.is_first, new.is_last)
"""

_ADD_ACTIVITIES = """
INSERT INTO activity (lead_id, occurred_at, activity_id, kind, by, actor, source, campaign)
SELECT * FROM unnest($1::uuid[], $2::timestamptz[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[],
$8::text[])
ON CONFLICT DO NOTHING
"""

_LOCK_CLOCKS = """
SELECT clock_id, lead_id, clause, obliges, sla_version, owner, source, started_at, due_at, state, warned, breached_at,
    settled_at, backfill, sequence
FROM clock WHERE clock_id = ANY ($1) ORDER BY clock_id FOR UPDATE
"""

_SAVE_CLOCKS = """
INSERT INTO clock AS known (clock_id, lead_id, clause, obliges, sla_version, owner, source, started_at, due_at, state,
                            warned, breached_at, settled_at, backfill, sequence)
SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::int[], $6::text[], $7::text[],
                     $8::timestamptz[], $9::timestamptz[], $10::text[], $11::float8[], $12::timestamptz[],
                     $13::timestamptz[], $14::bool[], $15::bigint[])
ON CONFLICT (clock_id) DO UPDATE SET
    owner = excluded.owner, due_at = excluded.due_at, state = excluded.state, warned = excluded.warned,
    breached_at = excluded.breached_at, settled_at = excluded.settled_at, backfill = excluded.backfill,
    sequence = excluded.sequence
WHERE excluded.sequence > known.sequence
"""

_SAVE_OPPORTUNITIES = """
INSERT INTO opportunity AS known (lead_id, stage, amount, currency, expected_close, sequence)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::numeric[], $4::text[], $5::date[], $6::bigint[])
ON CONFLICT (lead_id) DO UPDATE SET
    stage = excluded.stage, amount = excluded.amount, currency = excluded.currency,
    expected_close = excluded.expected_close, sequence = excluded.sequence
WHERE excluded.sequence > known.sequence
"""

_SAVE_DEFINITION = """
INSERT INTO definition_version (version, effective_from, content) VALUES ($1, $2, $3::jsonb)
ON CONFLICT (version) DO NOTHING
"""


def _columns(rows: Iterable[tuple[object, ...]]) -> list[Sequence[object]]:
    return list(zip(*rows, strict=True))


async def lock_leads(driver: asyncpg.Connection, ids: Iterable[UUID]) -> dict[UUID, Lead]:
    """These leads, locked; those never heard of are made."""
    ordered = sorted(set(ids))
    if not ordered:
        return {}
    await driver.execute(_ENSURE_LEADS, ordered)
    return {row["lead_id"]: _lead(row) for row in await driver.fetch(_LOCK_LEADS, ordered)}


def _lead(row: asyncpg.Record) -> Lead:
    # SQLAlchemy has set the connection's codec: jsonb comes as plain values, and is sent as text.
    return Lead(**{**row, "path": tuple(row["path"])})


async def save_leads(driver: asyncpg.Connection, leads: Iterable[Lead]) -> None:
    """Write leads that `lock_leads` has locked."""
    rows = [
        (
            lead.lead_id,
            lead.source,
            lead.captured_at,
            lead.account_id,
            json.dumps(lead.attributes),
            lead.campaign,
            lead.owner,
            lead.merged_into,
            lead.erased,
            lead.intake_sequence,
            lead.state_recorded_at,
            lead.merge_recorded_at,
            lead.owner_sequence,
            json.dumps(lead.path),
            lead.first_entered_at,
            lead.out_of_order,
        )
        for lead in leads
    ]
    if rows:
        await driver.execute(_SAVE_LEADS, *_columns(rows))


async def add_changes(driver: asyncpg.Connection, changes: Iterable[LeadStageChanged]) -> None:
    """Keep reported stage changes; one that is there already stays as it is."""
    rows = [
        (
            change.lead_id,
            change.sequence,
            change.stage,
            change.stage_kind,
            change.stage_rank,
            change.visit,
            change.occurred_at,
            change.correction,
            change.cause,
            change.decision,
            change.reason,
            change.actor,
            change.definition_version,
            change.recorded_at,
            change.replaces,
            change.withdrawn,
            change.follows,
        )
        for change in sorted(changes, key=lambda change: (change.lead_id, change.sequence))
    ]
    if rows:
        await driver.execute(_ADD_ENTRIES, *_columns(rows))


async def changes_of(driver: asyncpg.Connection, ids: Sequence[UUID]) -> Mapping[UUID, list[Change]]:
    """All stage changes reported so far of these leads."""
    found: dict[UUID, list[Change]] = defaultdict(list)
    for row in await driver.fetch(_CHANGES, ids):
        found[row[0]].append(Change(*row[1:]))
    return found


async def save_chains(
    driver: asyncpg.Connection, chains: Mapping[UUID, Sequence[Entry]], changes: Mapping[UUID, Sequence[Change]]
) -> None:
    """Write what was derived of each lead's entries; changes that are in no chain lose their place."""
    rows: list[tuple[object, ...]] = []
    for lead_id, entries in chains.items():
        rows += [
            (lead_id, e.sequence, e.position, e.exited_at, e.next_stage, e.duration_us, e.first, e.last)
            for e in entries
        ]
        gone = {change.sequence for change in changes[lead_id]} - {entry.sequence for entry in entries}
        rows += [(lead_id, sequence, None, None, None, None, False, False) for sequence in sorted(gone)]
    if rows:
        await driver.execute(_SAVE_ENTRIES, *_columns(rows))


async def add_activities(driver: asyncpg.Connection, activities: Iterable[ActivityRecorded]) -> None:
    """Keep activities, each once."""
    rows = sorted(
        (a.lead_id, a.occurred_at, a.activity_id, a.kind, a.by, a.actor, a.source, a.campaign and a.campaign.name)
        for a in {activity.activity_id: activity for activity in activities}.values()
    )
    if rows:
        await driver.execute(_ADD_ACTIVITIES, *_columns(rows))


async def lock_clocks(driver: asyncpg.Connection, ids: Iterable[UUID]) -> dict[UUID, Clock]:
    """Those of these clocks that are known, locked."""
    return {row["clock_id"]: Clock(**row) for row in await driver.fetch(_LOCK_CLOCKS, sorted(set(ids)))}


async def save_clocks(driver: asyncpg.Connection, clocks: Iterable[Clock]) -> None:
    """Write clocks, new or known."""
    rows = [astuple(clock) for clock in sorted(clocks, key=lambda clock: clock.clock_id)]
    if rows:
        await driver.execute(_SAVE_CLOCKS, *_columns(rows))


async def save_opportunities(driver: asyncpg.Connection, updates: Iterable[OpportunityUpdated]) -> None:
    """Write the newest of each lead's deal."""
    newest: dict[UUID, OpportunityUpdated] = {}
    for update in updates:
        if update.lead_id not in newest or update.sequence > newest[update.lead_id].sequence:
            newest[update.lead_id] = update
    rows = [
        (
            update.lead_id,
            update.stage,
            update.amount and update.amount.amount,
            update.amount and update.amount.currency,
            update.expected_close,
            update.sequence,
        )
        for _, update in sorted(newest.items())
    ]
    if rows:
        await driver.execute(_SAVE_OPPORTUNITIES, *_columns(rows))


async def save_definition(
    driver: asyncpg.Connection, version: int, effective_from: datetime, content: Mapping[str, object]
) -> None:
    """Keep a definition that was activated."""
    await driver.execute(_SAVE_DEFINITION, version, effective_from, json.dumps(content))
