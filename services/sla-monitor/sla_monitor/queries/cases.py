"""Leads with their clocks, what waits and what happened: locked and loaded by one statement each, written back by one each.

Leads are locked in the order of their ids, so that two batches cannot deadlock. Clocks are not locked: whoever writes one
says how many events it had, and a clock that another transaction has moved on in between makes the write fail, to be tried
again. So an event that leaves a clock as it is costs no write on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import orjson

from accord.db import bulk, finite
from sla_monitor import tables
from sla_monitor.domain.case import Case, Waiting
from sla_monitor.domain.clock import Clock, Trigger, WarnAt
from sla_monitor.domain.facts import Fact
from sla_monitor.domain.lead import Lead, Profile, Standing

CLOCKS_PER_LEAD_MAX = 200
"""Of a lead, the newest so many clocks that have ended can still change; with two or three clauses that is dozens of visits. One that
runs can always be answered."""

FACTS_PER_LEAD_MAX = 500
"""A new clock looks at the first so many activities since its start that any clause names, and the same of moves."""

_SURVIVORS = "SELECT merged_into FROM lead WHERE lead_id = ANY ($1::uuid[]) AND merged_into IS NOT NULL"

_ENSURE = """
INSERT INTO lead (lead_id) SELECT lead_id FROM unnest($1::uuid[]) AS asked (lead_id) ORDER BY lead_id ON CONFLICT DO NOTHING
"""

_LOCK = """
SELECT lead_id, profiles::text, standings::text, source, owner, owner_sequence, merged_into, merged_at, merge_recorded_at,
    erased_at
FROM lead WHERE lead_id = ANY ($1::uuid[]) ORDER BY lead_id FOR UPDATE
"""

_CLOCK_MEMBERS = tuple(field.name for field in fields(Clock) if field.name not in {"trigger", "warnings", "end"})
"""Those that are a column each, of the same name."""
_CLOCK_TIMES = ("started_at", "due_at", "answered_at", "ended_at")
"""Those that a client may have given, and that are brought into the range of every answer."""
_TRIGGER_MEMBERS = tuple(field.name for field in fields(Trigger))

# JSON comes as text and is read by orjson: SQLAlchemy's own codec for jsonb takes several times as long.
CLOCK_COLUMNS = ", ".join(
    f"clock.{name}"
    for name in (*_CLOCK_MEMBERS, *(f"trigger_{name}" for name in _TRIGGER_MEMBERS), "warnings::text", "ended_why")
)

_CLOCKS = f"""
SELECT known.*
FROM unnest($1::uuid[]) AS asked (lead_id)
CROSS JOIN LATERAL (
    (SELECT {CLOCK_COLUMNS} FROM clock WHERE clock.lead_id = asked.lead_id AND state <> 'running'
     ORDER BY clock.started_at DESC LIMIT {CLOCKS_PER_LEAD_MAX})
    UNION ALL
    (SELECT {CLOCK_COLUMNS} FROM clock WHERE clock.lead_id = asked.lead_id AND state = 'running')
) AS known
"""

_WAITING = "SELECT lead_id, clause, sla_version, judged_of::text FROM waiting WHERE lead_id = ANY ($1::uuid[])"

_FACT_MEMBERS = tuple(field.name for field in fields(Fact))
_FACT_COLUMNS = ", ".join(column.name for column in tables.fact.columns)

_FACTS = f"""
SELECT known.*
FROM unnest($1::uuid[], $2::timestamptz[]) AS asked (lead_id, since)
CROSS JOIN LATERAL (
    (SELECT {_FACT_COLUMNS} FROM fact
     WHERE fact.lead_id = asked.lead_id AND fact.occurred_at >= asked.since AND kind = 'activity' AND name = ANY ($3::text[])
     ORDER BY fact.occurred_at LIMIT {FACTS_PER_LEAD_MAX})
    UNION ALL
    (SELECT {_FACT_COLUMNS} FROM fact
     WHERE fact.lead_id = asked.lead_id AND kind <> 'activity'
     ORDER BY fact.occurred_at DESC LIMIT {FACTS_PER_LEAD_MAX})
) AS known
"""

_GIVE_BACK = """
DELETE FROM fact USING unnest($1::uuid[], $2::uuid[]) AS parted (lead_id, other_id), fact AS theirs
WHERE theirs.lead_id = parted.other_id AND theirs.kind = 'activity'
    AND fact.lead_id = parted.lead_id AND fact.occurred_at = theirs.occurred_at AND fact.key = theirs.key
"""

_FORGET_FACTS = "DELETE FROM fact WHERE lead_id = ANY ($1::uuid[])"

_LEAD_MEMBERS = ("source", "owner", "owner_sequence", "merged_into", "merged_at", "merge_recorded_at", "erased_at")
_SAVE_LEADS = bulk.update(tables.lead, ["lead_id"], ["profiles", "standings", *_LEAD_MEMBERS])

_CLOCK_CHANGES = (
    *("warnings", "owner", "source", "state", "answered_at", "ended_at", "ended_sequence", "ended_why", "breach_id"),
    *("breached_at", "withdrawn_at", "said", "next_at", "trigger_key", "trigger_sequence"),
)
_INSERT_CLOCKS = bulk.insert(tables.clock, [column.name for column in tables.clock.columns])
_UPDATE_CLOCKS = bulk.update(
    tables.clock,
    ["lead_id", "clock_id"],
    _CLOCK_CHANGES,
    beside={"said_before": "said"},
    where="clock.said = new.said_before",
)

_INSERT_FACTS = bulk.insert(tables.fact, [column.name for column in tables.fact.columns], on_conflict="DO NOTHING")
_DELETE_FACTS = bulk.delete(tables.fact, ["lead_id", "key"])

_INSERT_WAITING = bulk.insert(
    tables.waiting, [column.name for column in tables.waiting.columns], on_conflict="DO NOTHING"
)
_DELETE_WAITING = bulk.delete(tables.waiting, ["lead_id", "clause", "trigger_key"])

_HOPS_MAX = 10


async def lock(driver: asyncpg.Connection, lead_ids: Iterable[UUID]) -> dict[UUID, Case]:
    """These leads, and the survivors of those that were merged, locked until the transaction ends; without facts.

    A lead that is not stored yet is made, so that there is something to lock.
    """
    asked = await _with_survivors(driver, sorted(set(lead_ids)))
    await driver.execute(_ENSURE, asked)
    cases = await _lock(driver, asked)
    # A merge between our looking and our locking can name a survivor that is not among them yet.
    for _ in range(_HOPS_MAX):
        merged = {case.lead.merged_into for case in cases.values()}
        missing = sorted(into for into in merged if into is not None and into not in cases)
        if not missing:
            break
        await driver.execute(_ENSURE, missing)
        cases |= await _lock(driver, missing)
    return cases


async def _with_survivors(driver: asyncpg.Connection, lead_ids: Sequence[UUID]) -> list[UUID]:
    found, latest = set(lead_ids), list(lead_ids)
    for _ in range(_HOPS_MAX):
        latest = [row[0] for row in await driver.fetch(_SURVIVORS, latest) if row[0] not in found]
        if not latest:
            break
        found.update(latest)
    return sorted(found)


async def _lock(driver: asyncpg.Connection, lead_ids: Sequence[UUID]) -> dict[UUID, Case]:
    # Three statements, each with a snapshot of its own: what others made while we waited for the locks is seen.
    leads = {row["lead_id"]: _lead(row) for row in await driver.fetch(_LOCK, lead_ids)}
    clocks: dict[UUID, dict[UUID, Clock]] = {lead_id: {} for lead_id in leads}
    for row in await driver.fetch(_CLOCKS, lead_ids):
        clocks[row["lead_id"]][row["clock_id"]] = clock_of(row)
    waiting: dict[UUID, list[Waiting]] = {lead_id: [] for lead_id in leads}
    for row in await driver.fetch(_WAITING, lead_ids):
        waiting[row["lead_id"]].append(_waiting(row))
    return {lead_id: Case(lead, clocks[lead_id], tuple(waiting[lead_id])) for lead_id, lead in leads.items()}


async def facts(
    driver: asyncpg.Connection, since: Mapping[UUID, datetime], activities: Iterable[str]
) -> dict[UUID, tuple[Fact, ...]]:
    """What happened with leads: activities of these kinds since a moment for each, and decisions and stage entries."""
    found: dict[UUID, list[Fact]] = {lead_id: [] for lead_id in since}
    if since:
        for row in await driver.fetch(_FACTS, list(since), list(since.values()), sorted(activities)):
            found[row["lead_id"]].append(_fact(row))
    return {lead_id: tuple(known) for lead_id, known in found.items()}


async def save(
    driver: asyncpg.Connection,
    before: Mapping[UUID, Case],
    after: Mapping[UUID, Case],
    happened: Mapping[UUID, Sequence[Fact]],
) -> None:
    """Write what has changed. `happened`: the facts that are new, by lead.

    Raises asyncpg.SerializationError, to be tried again, where another transaction has moved a clock on in between.
    """
    changed = [(before[lead_id], case) for lead_id, case in after.items() if case is not before[lead_id]]
    await _SAVE_LEADS.execute(driver, [_lead_row(case.lead) for old, case in changed if case.lead is not old.lead])
    happened = {lead_id: facts for lead_id, facts in happened.items() if after[lead_id].lead.erased_at is None}
    await _INSERT_FACTS.execute(
        driver, [_fact_row(lead_id, fact) for lead_id, facts in happened.items() for fact in facts]
    )
    erased = [case.lead.lead_id for old, case in changed if case.lead.erased_at and not old.lead.erased_at]
    if erased:
        await driver.execute(_FORGET_FACTS, erased)
    await _save_waiting(driver, changed)
    new: list[Clock] = []
    moved: list[tuple[Clock, Clock]] = []
    for old, case in changed:
        for clock_id, clock in case.clocks.items():
            known = old.clocks.get(clock_id)
            if known is None:
                new.append(clock)
            elif known is not clock:
                moved.append((known, clock))
    await add_clocks(driver, new)
    await move_clocks(driver, moved)


async def give_back(driver: asyncpg.Connection, parted: Sequence[tuple[UUID, UUID]]) -> None:
    """Delete the activities that leads had taken along from others: (who had, whose they are)."""
    if parted:
        await driver.execute(_GIVE_BACK, [lead_id for lead_id, _ in parted], [other_id for _, other_id in parted])


async def forget_facts(driver: asyncpg.Connection, gone: Sequence[tuple[UUID, str]]) -> None:
    """Delete facts that were corrected away, by lead and key."""
    await _DELETE_FACTS.execute(driver, [{"lead_id": lead_id, "key": key} for lead_id, key in gone])


async def add_clocks(driver: asyncpg.Connection, clocks: Sequence[Clock]) -> None:
    """Write clocks that are new."""
    await _INSERT_CLOCKS.execute(driver, [_clock_row(clock) for clock in clocks])


async def move_clocks(driver: asyncpg.Connection, moved: Sequence[tuple[Clock, Clock]]) -> None:
    """Write clocks, each as it was read and as it is now.

    Raises asyncpg.SerializationError, to be tried again, where another transaction has moved one on in between.
    """
    moved = sorted(moved, key=lambda pair: (pair[1].lead_id, pair[1].clock_id))
    written = await _UPDATE_CLOCKS.execute(
        driver, [{**_clock_row(clock), "said_before": old.said} for old, clock in moved]
    )
    if written != len(moved):
        raise asyncpg.SerializationError("a clock was moved on by another transaction")


async def _save_waiting(driver: asyncpg.Connection, changed: Sequence[tuple[Case, Case]]) -> None:
    settled: list[dict[str, object]] = []
    new: list[dict[str, object]] = []
    for old, case in changed:
        lead_id, known, still = case.lead.lead_id, {one.key for one in old.waiting}, {one.key for one in case.waiting}
        settled += [{"lead_id": lead_id, "clause": clause, "trigger_key": key} for clause, key in known - still]
        new += [_waiting_row(lead_id, one) for one in case.waiting if one.key not in known]
    await _DELETE_WAITING.execute(driver, settled)
    await _INSERT_WAITING.execute(driver, new)


# --- Rows to values and back ---


def clock_of(row: asyncpg.Record) -> Clock:
    """The clock in a row that has all its columns."""
    members: dict[str, Any] = {name: row[name] for name in _CLOCK_MEMBERS}
    members |= {name: row[name] and finite(row[name]) for name in _CLOCK_TIMES}
    return Clock(
        **members,
        trigger=Trigger(**{name: row[f"trigger_{name}"] for name in _TRIGGER_MEMBERS}),
        warnings=tuple(WarnAt(fraction, _time(at)) for fraction, at in orjson.loads(row["warnings"])),
        end=row["ended_why"],
    )


def _clock_row(clock: Clock) -> dict[str, object]:
    return {
        **{name: getattr(clock, name) for name in _CLOCK_MEMBERS},
        **{f"trigger_{name}": getattr(clock.trigger, name) for name in _TRIGGER_MEMBERS},
        "next_at": clock.next_at,
        "warnings": _json([[warning.fraction, warning.at] for warning in clock.warnings]),
        "ended_why": clock.end,
    }


def _lead_row(lead: Lead) -> dict[str, object]:
    return {
        **{name: getattr(lead, name) for name in ("lead_id", *_LEAD_MEMBERS)},
        "profiles": _json(lead.profiles),
        "standings": _json(lead.standings),
    }


def _waiting_row(lead_id: UUID, one: Waiting) -> dict[str, object]:
    fact = one.fact
    return {
        "lead_id": lead_id,
        "clause": one.clause,
        "sla_version": one.sla_version,
        "trigger_key": fact.key,
        "recorded_at": fact.recorded_at,
        "started_at": fact.occurred_at,
        "judged_of": _json({"fact": fact, "profile": one.profile, "standing": one.standing}),
    }


def _lead(row: asyncpg.Record) -> Lead:
    return Lead(
        **{
            **row,
            "profiles": tuple(_profile(stored) for stored in orjson.loads(row["profiles"])),
            "standings": tuple(_standing(stored) for stored in orjson.loads(row["standings"])),
        }
    )


def _fact(row: asyncpg.Record) -> Fact:
    members: dict[str, Any] = {name: row[name] for name in _FACT_MEMBERS}
    return Fact(**{**members, "occurred_at": finite(row["occurred_at"])})


def _fact_row(lead_id: UUID, fact: Fact) -> dict[str, object]:
    return {"lead_id": lead_id, **{name: getattr(fact, name) for name in _FACT_MEMBERS}}


def _waiting(row: asyncpg.Record) -> Waiting:
    stored = orjson.loads(row["judged_of"])
    fact = stored["fact"]
    return Waiting(
        clause=row["clause"],
        sla_version=row["sla_version"],
        fact=Fact(
            **{
                **fact,
                **{name: _time(fact[name]) for name in ("occurred_at", "recorded_at")},
                "cause": UUID(fact["cause"]) if fact["cause"] else None,
            }
        ),
        profile=_profile(stored["profile"]) if stored["profile"] else None,
        standing=_standing(stored["standing"]) if stored["standing"] else None,
    )


def _profile(stored: Mapping[str, Any]) -> Profile:
    times = {name: _time(stored[name]) for name in ("recorded_at", "captured_at")}
    return Profile(**{**stored, **times})


def _standing(stored: Mapping[str, Any]) -> Standing:
    return Standing(**{**stored, "recorded_at": _time(stored["recorded_at"])})


def _time(stored: object) -> datetime:
    return datetime.fromisoformat(str(stored))


def _json(value: object) -> str:
    return orjson.dumps(value).decode()
