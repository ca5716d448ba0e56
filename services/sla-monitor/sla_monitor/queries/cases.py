"""Leads with their clocks, pending triggers and facts: each loaded by one statement and written by one.

Leads are locked in the order of their ids, so that two batches cannot deadlock. Clocks are not locked: a write compares the
event count, and fails for a retry if another transaction has changed the clock. So an event that leaves a clock unchanged
costs no write on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import orjson
from msgspec import Struct

from accord.db import bulk, clamp_moment
from sla_monitor import tables
from sla_monitor.domain.case import Case, PendingTrigger
from sla_monitor.domain.clock import Acknowledgement, Answer, Clock, StepTime, Tally, Trigger
from sla_monitor.domain.facts import Fact
from sla_monitor.domain.lead import Lead, Profile, QualificationState
from sla_monitor.domain.rules import Pause

CLOCKS_PER_LEAD_MAX = 200
"""Only the newest of a lead's settled clocks can still change; with two or three clauses this covers dozens of visits. A running clock
can always be answered."""

FACTS_PER_LEAD_MAX = 500
"""A new clock applies at most this many activities that a clause names, and at most this many other facts."""

_SURVIVORS = "SELECT merged_into FROM lead WHERE lead_id = ANY ($1::uuid[]) AND merged_into IS NOT NULL"

_INSERT_LEADS = """
INSERT INTO lead (lead_id) SELECT lead_id FROM unnest($1::uuid[]) AS requested (lead_id) ORDER BY lead_id ON CONFLICT DO NOTHING
"""

_LOCK = """
SELECT lead_id, profiles::text, qualification_states::text, source, owner, owner_sequence, merged_into, merged_at, merge_recorded_at,
    erased_at
FROM lead WHERE lead_id = ANY ($1::uuid[]) ORDER BY lead_id FOR UPDATE
"""


class Progress(Struct, frozen=True, array_like=True):
    """What of a clock is stored as one column."""

    steps: tuple[StepTime, ...]
    passed: tuple[float, ...]
    answers: tuple[Answer, ...]
    pauses: tuple[Pause, ...]
    tally: Tally | None = None


_PROGRESS = msgspec.json.Decoder(Progress)
_ELSEWHERE = {"trigger", "acknowledgement", *Progress.__struct_fields__}
_CLOCK_MEMBERS = tuple(name for name in Clock.__struct_fields__ if name not in _ELSEWHERE)
"""The fields that have a column of the same name."""
_CLOCK_TIMES = ("started_at", "due_at", "ended_at")
"""Times that a client may have sent; reading bounds them to the range of every response."""
_TRIGGER_MEMBERS = Trigger.__struct_fields__

_ACKNOWLEDGED = ("acknowledged_at", "acknowledged_by", "acknowledged_note")

# JSON comes as text and is read by orjson: SQLAlchemy's own codec for jsonb takes several times as long.
CLOCK_COLUMNS = ", ".join(
    f"clock.{name}"
    for name in (*_CLOCK_MEMBERS, *(f"trigger_{name}" for name in _TRIGGER_MEMBERS), *_ACKNOWLEDGED, "progress::text")
)

_CLOCKS = f"""
SELECT loaded.*
FROM unnest($1::uuid[]) AS requested (lead_id)
CROSS JOIN LATERAL (
    (SELECT {CLOCK_COLUMNS} FROM clock WHERE clock.lead_id = requested.lead_id AND state NOT IN ('running', 'paused')
     ORDER BY clock.started_at DESC LIMIT {CLOCKS_PER_LEAD_MAX})
    UNION ALL
    (SELECT {CLOCK_COLUMNS} FROM clock WHERE clock.lead_id = requested.lead_id AND state IN ('running', 'paused'))
) AS loaded
"""

_PENDING = "SELECT lead_id, clause, sla_version, inputs::text FROM pending_trigger WHERE lead_id = ANY ($1::uuid[])"

_FACT_MEMBERS = Fact.__struct_fields__
_FACT_COLUMNS = ", ".join(column.name for column in tables.fact.columns)

_FACTS = f"""
SELECT loaded.*
FROM unnest($1::uuid[], $2::timestamptz[]) AS requested (lead_id, since)
CROSS JOIN LATERAL (
    (SELECT {_FACT_COLUMNS} FROM fact
     WHERE fact.lead_id = requested.lead_id AND fact.occurred_at >= requested.since AND kind = 'activity' AND name = ANY ($3::text[])
     ORDER BY fact.occurred_at LIMIT {FACTS_PER_LEAD_MAX})
    UNION ALL
    (SELECT {_FACT_COLUMNS} FROM fact
     WHERE fact.lead_id = requested.lead_id AND kind <> 'activity'
     ORDER BY fact.occurred_at DESC LIMIT {FACTS_PER_LEAD_MAX})
) AS loaded
"""

_REMOVE_ACTIVITIES = """
DELETE FROM fact USING unnest($1::uuid[], $2::uuid[]) AS reverted (survivor_id, merged_id), fact AS copied
WHERE copied.lead_id = reverted.merged_id AND copied.kind = 'activity'
    AND fact.lead_id = reverted.survivor_id AND fact.occurred_at = copied.occurred_at AND fact.key = copied.key
"""

_DELETE_FACTS_OF = "DELETE FROM fact WHERE lead_id = ANY ($1::uuid[])"

_DELETE_NOTES_OF = """
UPDATE clock SET acknowledged_note = NULL WHERE lead_id = ANY ($1::uuid[]) AND acknowledged_note IS NOT NULL
"""
"""What somebody wrote about a breach may name the person."""

_LEAD_MEMBERS = ("source", "owner", "owner_sequence", "merged_into", "merged_at", "merge_recorded_at", "erased_at")
_SAVE_LEADS = bulk.update(tables.lead, ["lead_id"], ["profiles", "qualification_states", *_LEAD_MEMBERS])

_CLOCK_CHANGES = (
    *("progress", "owner", "source", "state", "due_at", "answered_at", "actor_kind", "ended_at", "ended_key"),
    *("ended_sequence", "ended_why", "severity", "breach_id", "breached_at", "breach_due_at", "withdrawn_at"),
    *("event_count", "next_at", "trigger_key", "trigger_sequence", *_ACKNOWLEDGED),
)
_INSERT_CLOCKS = bulk.insert(tables.clock)
_UPDATE_CLOCKS = bulk.update(
    tables.clock,
    ["lead_id", "clock_id"],
    _CLOCK_CHANGES,
    beside={"event_count_before": "event_count"},
    where="clock.event_count = new.event_count_before",
)

_FIRED_MEMBERS = (
    "state",
    "severity",
    "breach_id",
    "breached_at",
    "breach_due_at",
    "withdrawn_at",
    "event_count",
    "next_at",
)
"""What firing changes, beside the progress."""
_UPDATE_FIRED = bulk.update(
    tables.clock,
    ["lead_id", "clock_id"],
    ["progress", *_FIRED_MEMBERS],
    beside={"event_count_before": "event_count"},
    where="clock.event_count = new.event_count_before",
)

_INSERT_FACTS = bulk.insert(tables.fact, on_conflict="DO NOTHING")
_DELETE_FACTS = bulk.delete(tables.fact, ["lead_id", "key"])

_INSERT_PENDING = bulk.insert(tables.pending_trigger, on_conflict="DO NOTHING")
_DELETE_PENDING = bulk.delete(tables.pending_trigger, ["lead_id", "clause", "trigger_key"])

_HOPS_MAX = 10


async def lock_cases(connection: asyncpg.Connection, lead_ids: Iterable[UUID]) -> dict[UUID, Case]:
    """Lock these leads and the survivors of merged ones until the transaction ends; their cases, without facts.

    A lead that is not stored yet is inserted, so that there is a row to lock.
    """
    locked_ids = await _fetch_with_survivors(connection, sorted(set(lead_ids)))
    await connection.execute(_INSERT_LEADS, locked_ids)
    cases = await _load_cases(connection, locked_ids)
    # A merge between the look-up and the lock can name a survivor that is not locked yet.
    for _ in range(_HOPS_MAX):
        merged = {case.lead.merged_into for case in cases.values()}
        missing = sorted(into for into in merged if into is not None and into not in cases)
        if not missing:
            break
        await connection.execute(_INSERT_LEADS, missing)
        cases |= await _load_cases(connection, missing)
    return cases


async def _fetch_with_survivors(connection: asyncpg.Connection, lead_ids: Sequence[UUID]) -> list[UUID]:
    found, latest = set(lead_ids), list(lead_ids)
    for _ in range(_HOPS_MAX):
        latest = [row[0] for row in await connection.fetch(_SURVIVORS, latest) if row[0] not in found]
        if not latest:
            break
        found.update(latest)
    return sorted(found)


async def _load_cases(connection: asyncpg.Connection, lead_ids: Sequence[UUID]) -> dict[UUID, Case]:
    # Three statements, each with a snapshot of its own: changes that were committed during the wait for the locks are seen.
    leads = {row["lead_id"]: _lead_from_row(row) for row in await connection.fetch(_LOCK, lead_ids)}
    clocks: dict[UUID, dict[UUID, Clock]] = {lead_id: {} for lead_id in leads}
    for row in await connection.fetch(_CLOCKS, lead_ids):
        clocks[row["lead_id"]][row["clock_id"]] = clock_from_row(row)
    pending: dict[UUID, list[PendingTrigger]] = {lead_id: [] for lead_id in leads}
    for row in await connection.fetch(_PENDING, lead_ids):
        pending[row["lead_id"]].append(_pending_from_row(row))
    return {lead_id: Case(lead, clocks[lead_id], tuple(pending[lead_id])) for lead_id, lead in leads.items()}


async def fetch_facts(
    connection: asyncpg.Connection, since: Mapping[UUID, datetime], activities: Iterable[str]
) -> dict[UUID, tuple[Fact, ...]]:
    """Fetch the facts of leads: activities of these kinds since a moment for each, and all other facts."""
    found: dict[UUID, list[Fact]] = {lead_id: [] for lead_id in since}
    if since:
        for row in await connection.fetch(_FACTS, list(since), list(since.values()), sorted(activities)):
            found[row["lead_id"]].append(_fact_from_row(row))
    return {lead_id: tuple(facts) for lead_id, facts in found.items()}


async def save_cases(
    connection: asyncpg.Connection,
    before: Mapping[UUID, Case],
    after: Mapping[UUID, Case],
    new_facts: Mapping[UUID, Sequence[Fact]],
) -> None:
    """Write the changes of cases. `new_facts`: by lead.

    Raises asyncpg.SerializationError, for a retry, if another transaction has changed a clock in between.
    """
    changed = [(before[lead_id], case) for lead_id, case in after.items() if case is not before[lead_id]]
    await _SAVE_LEADS.execute(
        connection, [_lead_to_row(case.lead) for old, case in changed if case.lead is not old.lead]
    )
    new_facts = {lead_id: facts for lead_id, facts in new_facts.items() if after[lead_id].lead.erased_at is None}
    await _INSERT_FACTS.execute(
        connection, [_fact_to_row(lead_id, fact) for lead_id, facts in new_facts.items() for fact in facts]
    )
    erased = [case.lead.lead_id for old, case in changed if case.lead.erased_at and not old.lead.erased_at]
    if erased:
        await connection.execute(_DELETE_FACTS_OF, erased)
    await _save_pending(connection, changed)
    new: list[Clock] = []
    changed_clocks: list[tuple[Clock, Clock]] = []
    for old, case in changed:
        for clock_id, clock in case.clocks.items():
            previous = old.clocks.get(clock_id)
            if previous is None:
                new.append(clock)
            elif previous is not clock:
                changed_clocks.append((previous, clock))
    await insert_clocks(connection, new)
    await update_clocks(connection, changed_clocks)
    if erased:
        await connection.execute(_DELETE_NOTES_OF, erased)


async def remove_activities(connection: asyncpg.Connection, reverted: Sequence[tuple[UUID, UUID]]) -> None:
    """Delete the activities that survivors copied from merged leads: pairs of survivor and merged lead."""
    if reverted:
        await connection.execute(
            _REMOVE_ACTIVITIES, [lead_id for lead_id, _ in reverted], [other_id for _, other_id in reverted]
        )


async def delete_facts(connection: asyncpg.Connection, removed: Sequence[tuple[UUID, str]]) -> None:
    """Delete facts that a correction removed, by lead and key."""
    await _DELETE_FACTS.execute(connection, [{"lead_id": lead_id, "key": key} for lead_id, key in removed])


async def insert_clocks(connection: asyncpg.Connection, clocks: Sequence[Clock]) -> None:
    """Insert new clocks."""
    await _INSERT_CLOCKS.execute(connection, [_clock_to_row(clock) for clock in clocks])


async def update_clocks(connection: asyncpg.Connection, changed_clocks: Sequence[tuple[Clock, Clock]]) -> None:
    """Update clocks, each given as it was read and as it is now.

    Raises asyncpg.SerializationError, for a retry, if another transaction has changed one in between.
    """
    changed_clocks = sorted(changed_clocks, key=lambda pair: (pair[1].lead_id, pair[1].clock_id))
    written = await _UPDATE_CLOCKS.execute(
        connection, [{**_clock_to_row(clock), "event_count_before": old.event_count} for old, clock in changed_clocks]
    )
    if written != len(changed_clocks):
        raise asyncpg.SerializationError("another transaction changed a clock")


async def update_fired_clocks(connection: asyncpg.Connection, changed_clocks: Sequence[tuple[Clock, Clock]]) -> None:
    """The same for clocks that were fired, of which only some columns can have changed."""
    changed_clocks = sorted(changed_clocks, key=lambda pair: (pair[1].lead_id, pair[1].clock_id))
    rows: list[dict[str, object]] = [
        {
            "lead_id": clock.lead_id,
            "clock_id": clock.clock_id,
            "progress": _progress_to_json(clock),
            **{name: getattr(clock, name) for name in _FIRED_MEMBERS},
            "event_count_before": old.event_count,
        }
        for old, clock in changed_clocks
    ]
    if await _UPDATE_FIRED.execute(connection, rows) != len(rows):
        raise asyncpg.SerializationError("another transaction changed a clock")


async def _save_pending(connection: asyncpg.Connection, changed: Sequence[tuple[Case, Case]]) -> None:
    settled: list[dict[str, object]] = []
    new: list[dict[str, object]] = []
    for old, case in changed:
        lead_id = case.lead.lead_id
        keys_before = {trigger.key for trigger in old.pending}
        keys_after = {trigger.key for trigger in case.pending}
        settled += [
            {"lead_id": lead_id, "clause": clause, "trigger_key": key} for clause, key in keys_before - keys_after
        ]
        new += [_pending_to_row(lead_id, trigger) for trigger in case.pending if trigger.key not in keys_before]
    await _DELETE_PENDING.execute(connection, settled)
    await _INSERT_PENDING.execute(connection, new)


# --- Rows to values and back ---


def clock_from_row(row: asyncpg.Record) -> Clock:
    """Make the clock from a row with all its columns."""
    members: dict[str, Any] = {name: row[name] for name in _CLOCK_MEMBERS}
    members |= {name: row[name] and clamp_moment(row[name]) for name in _CLOCK_TIMES}
    return Clock(
        **members,
        **msgspec.structs.asdict(_PROGRESS.decode(row["progress"])),
        trigger=Trigger(**{name: row[f"trigger_{name}"] for name in _TRIGGER_MEMBERS}),
        acknowledgement=_acknowledgement_from_row(row),
    )


def _acknowledgement_from_row(row: asyncpg.Record) -> Acknowledgement | None:
    if row["acknowledged_at"] is None:
        return None
    return Acknowledgement(row["acknowledged_at"], row["acknowledged_by"], row["acknowledged_note"])


def _clock_to_row(clock: Clock) -> dict[str, object]:
    noted = clock.acknowledgement
    return {
        **{name: getattr(clock, name) for name in _CLOCK_MEMBERS},
        **{f"trigger_{name}": getattr(clock.trigger, name) for name in _TRIGGER_MEMBERS},
        "next_at": clock.next_at,
        "answered_at": clock.answered_at,
        "actor_kind": clock.last_answer.actor_kind if clock.last_answer else None,
        "acknowledged_at": noted.at if noted else None,
        "acknowledged_by": noted.by if noted else None,
        "acknowledged_note": noted.note if noted else None,
        "progress": _progress_to_json(clock),
    }


def _progress_to_json(clock: Clock) -> str:
    return _to_json(Progress(clock.steps, clock.passed, clock.answers, clock.pauses, clock.tally))


def _lead_to_row(lead: Lead) -> dict[str, object]:
    return {
        **{name: getattr(lead, name) for name in ("lead_id", *_LEAD_MEMBERS)},
        "profiles": _to_json(lead.profiles),
        "qualification_states": _to_json(lead.qualification_states),
    }


def _pending_to_row(lead_id: UUID, trigger: PendingTrigger) -> dict[str, object]:
    fact = trigger.fact
    return {
        "lead_id": lead_id,
        "clause": trigger.clause,
        "sla_version": trigger.sla_version,
        "trigger_key": fact.key,
        "recorded_at": fact.recorded_at,
        "started_at": fact.occurred_at,
        "inputs": _to_json(
            {"fact": fact, "profile": trigger.profile, "qualification_state": trigger.qualification_state}
        ),
    }


def _lead_from_row(row: asyncpg.Record) -> Lead:
    return Lead(
        **{
            **row,
            "profiles": tuple(_profile_from_json(stored) for stored in orjson.loads(row["profiles"])),
            "qualification_states": tuple(
                map(_qualification_state_from_json, orjson.loads(row["qualification_states"]))
            ),
        }
    )


def _fact_from_row(row: asyncpg.Record) -> Fact:
    members: dict[str, Any] = {name: row[name] for name in _FACT_MEMBERS}
    return Fact(**{**members, "occurred_at": clamp_moment(row["occurred_at"])})


def _fact_to_row(lead_id: UUID, fact: Fact) -> dict[str, object]:
    return {"lead_id": lead_id, **{name: getattr(fact, name) for name in _FACT_MEMBERS}}


def _pending_from_row(row: asyncpg.Record) -> PendingTrigger:
    inputs = orjson.loads(row["inputs"])
    fact, profile, state = inputs["fact"], inputs["profile"], inputs["qualification_state"]
    return PendingTrigger(
        clause=row["clause"],
        sla_version=row["sla_version"],
        fact=Fact(
            **{
                **fact,
                **{name: _parse_time(fact[name]) for name in ("occurred_at", "recorded_at")},
                "cause": UUID(fact["cause"]) if fact["cause"] else None,
            }
        ),
        profile=_profile_from_json(profile) if profile else None,
        qualification_state=_qualification_state_from_json(state) if state else None,
    )


def _profile_from_json(stored: Mapping[str, Any]) -> Profile:
    times = {name: _parse_time(stored[name]) for name in ("recorded_at", "captured_at")}
    return Profile(**{**stored, **times})


def _qualification_state_from_json(stored: Mapping[str, Any]) -> QualificationState:
    return QualificationState(**{**stored, "recorded_at": _parse_time(stored["recorded_at"])})


def _parse_time(stored: object) -> datetime:
    return datetime.fromisoformat(str(stored))


def _to_json(value: object) -> str:
    return msgspec.json.encode(value).decode()
