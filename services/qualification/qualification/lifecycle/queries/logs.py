"""The logs of leads: what they are folded from. Facts that have a table of their own are read from it, the others are kept here."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg
import orjson

from accord.contracts.codec import decode_value, encode_value, from_object
from accord.contracts.intake_events import LeadState
from accord.contracts.qualification_events import LeadStageChanged
from accord.db import bulk
from qualification import tables
from qualification.lifecycle.domain.facts import (
    ActivityOccurred,
    Decision,
    DecisionAccepted,
    Fact,
    Fields,
    MergeApplied,
    OwnerAssigned,
    ProfileChanged,
    VersionApplied,
)
from qualification.lifecycle.domain.history import Log, effective_entries
from qualification.lifecycle.queries.deals import parse_deal

_MICROSECOND = timedelta(microseconds=1)

KIND_ACTIVITIES_MAX = 5_000
"""Of one lead, and of those merged into it together, the newest so many activities of a kind are folded: five times what counts."""

OTHER_KINDS = "*"
"""Stands for the kinds that nobody asks for. Any activity of its own lets a recycled lead come back, so those are read of such leads."""

_LEADS = """
SELECT lead_id, profile::text AS profile, profile_at, intake_sequence, entry_version, merged_into, erased
FROM lead WHERE lead_id = ANY ($1::uuid[])
"""

_FACTS = """
SELECT lead_id, effective_at, rank, tie, fact::text AS fact FROM lead_fact WHERE lead_id = ANY ($1::uuid[])
ORDER BY lead_id, effective_at, rank, tie
"""

_ACTIVITIES = f"""
SELECT asked.lead_id AS stored_for, wanted.kind AS wanted_kind, coalesce(newest.recorded_for, newest.lead_id) AS lead_id, newest.kind,
    newest.occurred_at, newest.activity_id, newest.by
FROM unnest($1::uuid[]) AS asked (lead_id)
CROSS JOIN unnest($2::text[]) AS wanted (kind)
CROSS JOIN LATERAL (
    SELECT activity.* FROM activity WHERE activity.lead_id = asked.lead_id AND activity.kind = wanted.kind
    ORDER BY activity.occurred_at DESC LIMIT $3
) AS newest
UNION ALL
SELECT asked.lead_id, '{OTHER_KINDS}', coalesce(newest.recorded_for, newest.lead_id), newest.kind, newest.occurred_at,
    newest.activity_id, newest.by
FROM unnest($1::uuid[]) AS asked (lead_id)
CROSS JOIN LATERAL (
    SELECT activity.* FROM activity
    WHERE activity.lead_id = asked.lead_id AND activity.kind <> ALL ($2::text[]) AND activity.by = 'lead'
    ORDER BY activity.occurred_at DESC LIMIT $3
) AS newest
WHERE EXISTS (SELECT FROM stage_entry WHERE stage_entry.lead_id = asked.lead_id AND stage_entry.stage_kind = 'recycled')
"""

_DECISIONS = """
SELECT lead_id, decision_id, decision, reason, stage, occurred_at, effective_at, actor, department, fields::text AS fields,
    definition_version
FROM decision WHERE lead_id = ANY ($1::uuid[]) AND effective_at IS NOT NULL
"""

_ASSIGNMENTS = """
SELECT lead_id, assignment_id, owner, occurred_at FROM assignment WHERE lead_id = ANY ($1::uuid[]) ORDER BY lead_id, sequence
"""

_ENTRIES = """
SELECT entry.lead_id, entry.sequence, entry.stage, entry.stage_kind, entry.stage_rank, entry.stage_owner, entry.visit,
    entry.from_stage, entry.from_since, entry.entered_at, entry.recorded_at, entry.cause, entry.definition_version,
    entry.decision_id, entry.correction, entry.withdrawn, entry.replaces, entry.follows, decision.decision, decision.reason,
    decision.actor
FROM stage_entry AS entry
LEFT JOIN LATERAL (
    SELECT * FROM decision WHERE decision.lead_id = entry.lead_id AND decision.decision_id = entry.decision_id LIMIT 1
) AS decision ON true
WHERE entry.lead_id = ANY ($1::uuid[])
ORDER BY entry.lead_id, entry.sequence
"""

# A profile can come twice, as the newest one and then as one that was superseded.
_INSERT = bulk.insert(tables.lead_fact, on_conflict="DO NOTHING")

_UNDO = """
UPDATE lead_fact SET fact = fact || '{"undone": true}' WHERE lead_id = $1 AND tie = $2 AND fact ->> 'kind' = 'merge'
"""

_FORGET = """
DELETE FROM lead_fact
WHERE lead_id IN (SELECT lead_id FROM lead WHERE lead_id = ANY ($1::uuid[]) OR merged_into = ANY ($1::uuid[]))
"""


@dataclass(slots=True)
class LoadedLogs:
    """The logs of some leads and of all that were merged into them, and the entries that stand of each."""

    logs: dict[UUID, Log] = field(default_factory=dict)
    effective_entries: dict[UUID, list[LeadStageChanged]] = field(default_factory=dict)


async def load(
    connection: asyncpg.Connection,
    lead_ids: Iterable[UUID],
    merged_now: Mapping[UUID, Sequence[UUID]],
    kinds: Collection[str],
) -> LoadedLogs:
    """Everything that a fold of these leads needs, by a few statements for each generation of merges.

    `kinds` of activity are those that a version asks for by which they are folded. `merged_now`: leads that are being merged into
    others by this transaction, by the lead in whose log that stands.
    """
    found: dict[UUID, list[Fact]] = {}
    entered: dict[UUID, int | None] = {}
    reverted_merges: dict[UUID, set[UUID]] = defaultdict(set)
    loaded = LoadedLogs()
    wanted = set(lead_ids)
    while wanted:
        ids = sorted(wanted)
        for lead_id in ids:
            found[lead_id] = []
            loaded.effective_entries[lead_id] = []
        joined = await _read(connection, ids, found, entered, reverted_merges, loaded)
        joined |= {other for lead_id in ids for other in merged_now.get(lead_id, ())}
        wanted = joined - found.keys()
    activities, cut = await _read_activities(connection, sorted(found), kinds)
    for lead_id, facts in found.items():
        log = (*facts, *activities.get(lead_id, ()))
        reverted = frozenset(reverted_merges[lead_id])
        loaded.logs[lead_id] = Log(lead_id, entered.get(lead_id), log, reverted, is_cut=lead_id in cut)
    return loaded


async def _read_activities(
    connection: asyncpg.Connection, lead_ids: Sequence[UUID], kinds: Collection[str]
) -> tuple[dict[UUID, list[Fact]], set[UUID]]:
    """Activities by the lead that they were recorded for; and the leads, under whose ids they are stored, of which there are more."""
    activities: dict[UUID, list[Fact]] = defaultdict(list)
    counts: Counter[tuple[UUID, str]] = Counter()
    for row in await connection.fetch(_ACTIVITIES, lead_ids, sorted(kinds), KIND_ACTIVITIES_MAX):
        fact = ActivityOccurred(row["occurred_at"], row["activity_id"], row["kind"], row["by"])
        activities[row["lead_id"]].append(fact)
        counts[row["stored_for"], row["wanted_kind"]] += 1
    return activities, {lead_id for (lead_id, _), count in counts.items() if count >= KIND_ACTIVITIES_MAX}


async def _read(
    connection: asyncpg.Connection,
    ids: Sequence[UUID],
    found: dict[UUID, list[Fact]],
    entered: dict[UUID, int | None],
    reverted_merges: dict[UUID, set[UUID]],
    loaded: LoadedLogs,
) -> set[UUID]:
    """Read one generation; the leads that were merged into these."""
    joined: set[UUID] = set()
    sequences: dict[UUID, set[int]] = defaultdict(set)
    for row in await connection.fetch(_FACTS, ids):
        given = orjson.loads(row["fact"])
        if given["kind"] == "merge":
            sequences[row["lead_id"]].add(given["sequence"])
            if given.get("undone"):
                reverted_merges[row["lead_id"]].add(row["tie"])
                continue
            joined.add(UUID(given["merged_lead_id"]))
        fact = _parse_fact(row, given)
        if not isinstance(fact, ProfileChanged) or fact.sequence not in sequences[row["lead_id"]]:
            found[row["lead_id"]].append(fact)
    await _read_leads(connection, ids, found, entered, sequences)
    for row in await connection.fetch(_DECISIONS, ids):
        found[row["lead_id"]].append(_accepted_decision(row))
    for lead_id, assigned in _assigned(await connection.fetch(_ASSIGNMENTS, ids)):
        found[lead_id].append(assigned)
    loaded.effective_entries |= await load_effective_entries(connection, ids)
    return joined


def _assigned(rows: Iterable[asyncpg.Record]) -> Iterable[tuple[UUID, OwnerAssigned]]:
    """Assignments with their leads, in the order in which they were made. Whoever was given a lead last has it, also where the
    transaction that did it began before that of the one before, and waited."""
    last: dict[UUID, datetime] = {}
    for row in rows:
        lead_id, at = row["lead_id"], row["occurred_at"]
        if lead_id in last and at <= last[lead_id]:
            at = last[lead_id] + _MICROSECOND
        last[lead_id] = at
        yield lead_id, OwnerAssigned(at, row["assignment_id"], row["owner"])


async def load_effective_entries(
    connection: asyncpg.Connection, lead_ids: Sequence[UUID]
) -> dict[UUID, list[LeadStageChanged]]:
    """The stage entries of these leads that stand, in order."""
    found: dict[UUID, list[LeadStageChanged]] = defaultdict(list)
    for row in await connection.fetch(_ENTRIES, lead_ids):
        found[row["lead_id"]].append(_parse_entry(row))
    return {lead_id: effective_entries(entries) for lead_id, entries in found.items()}


async def _read_leads(
    connection: asyncpg.Connection,
    ids: Sequence[UUID],
    found: dict[UUID, list[Fact]],
    entered: dict[UUID, int | None],
    sequences: Mapping[UUID, Collection[int]],
) -> None:
    """The newest profile stands in the lead's own row, unless that was merged and keeps none."""
    for row in await connection.fetch(_LEADS, ids):
        lead_id = row["lead_id"]
        entered[lead_id] = row["entry_version"]
        sequence = row["intake_sequence"]
        known = {fact.sequence for fact in found[lead_id] if isinstance(fact, ProfileChanged)}
        if row["profile_at"] is None or row["merged_into"] is not None or row["erased"]:
            continue
        if sequence not in known and sequence not in sequences.get(lead_id, ()):
            state = decode_value(LeadState, row["profile"])
            found[lead_id].append(ProfileChanged(row["profile_at"], sequence, state))


async def insert_facts(connection: asyncpg.Connection, facts: Sequence[tuple[UUID, Fact]], now: datetime) -> None:
    """Keep facts that have no table of their own."""
    rows: list[dict[str, object]] = [
        {
            "lead_id": lead_id,
            "effective_at": fact.position.at,
            "rank": fact.position.rank,
            "tie": fact.position.tie,
            "recorded_at": now,
            "fact": _fact_json(fact),
        }
        for lead_id, fact in sorted(facts, key=lambda one: (one[0], one[1].position))
    ]
    await _INSERT.execute(connection, rows)


async def mark_reverted(connection: asyncpg.Connection, lead_id: UUID, merge_id: UUID) -> None:
    """A merge that was taken back counts no more."""
    await connection.execute(_UNDO, lead_id, merge_id)


async def delete(connection: asyncpg.Connection, lead_ids: Sequence[UUID]) -> None:
    """Drop the logs of erased persons, also those of leads that were merged into theirs."""
    await connection.execute(_FORGET, lead_ids)


def _fact_json(fact: Fact) -> str:
    given: dict[str, object]
    match fact:
        case ProfileChanged():
            given = {
                "kind": "profile",
                "sequence": fact.sequence,
                "state": orjson.Fragment(encode_value(fact.state)),
            }
        case MergeApplied():
            given = {
                "kind": "merge",
                "merged_lead_id": str(fact.merged_lead_id),
                "sequence": fact.sequence,
                "state": orjson.Fragment(encode_value(fact.state)),
            }
        case VersionApplied():
            given = {"kind": "version", "version": fact.version}
        case _:
            raise AssertionError(f"{type(fact).__name__} has a table of its own")
    return orjson.dumps(given).decode()


def _parse_fact(row: asyncpg.Record, given: Mapping[str, object]) -> ProfileChanged | MergeApplied | VersionApplied:
    at = row["effective_at"]
    if given["kind"] == "profile":
        return ProfileChanged(at, int(str(given["sequence"])), from_object(LeadState, given["state"]))
    if given["kind"] == "merge":
        return MergeApplied(
            at=at,
            merge_id=row["tie"],
            merged_lead_id=UUID(str(given["merged_lead_id"])),
            sequence=int(str(given["sequence"])),
            state=from_object(LeadState, given["state"]),
        )
    return VersionApplied(at, int(str(given["version"])))


def _accepted_decision(row: asyncpg.Record) -> DecisionAccepted:
    decision = Decision(
        decision_id=row["decision_id"],
        decision=row["decision"],
        actor=row["actor"],
        occurred_at=row["occurred_at"],
        department=row["department"],
        reason=row["reason"],
        fields=parse_deal(row["fields"], Fields),
    )
    return DecisionAccepted(row["effective_at"], decision, row["stage"], row["definition_version"])


def _parse_entry(row: asyncpg.Record) -> LeadStageChanged:
    said_with_it = ("occurred_at", "present_stage")  # the one by another name, the other true only when it was said
    values = {name: row[name] for name in LeadStageChanged.__struct_fields__ if name not in said_with_it}
    return LeadStageChanged(**values, occurred_at=row["entered_at"])
