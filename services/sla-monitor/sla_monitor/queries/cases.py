"""Leads with their clocks, what waits and what happened: locked and loaded by one statement each, written back by one each.

Leads are locked in the order of their ids, so that two batches cannot deadlock. Clocks are not locked: whoever writes one
says how many events it had, and a clock that another transaction has moved on in between makes the write fail, to be tried
again. So an event that leaves a clock as it is costs no write on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import orjson

from accord.db import finite
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

# JSON comes as text and is read by orjson: SQLAlchemy's own codec for jsonb takes several times as long.
CLOCK_COLUMNS = """
    clock.lead_id, clock.clock_id, clock.clause, clock.obliges, clock.sla_version, clock.trigger_kind, clock.trigger_key,
    clock.trigger_sequence, clock.trigger_recorded_at, clock.trigger_stage_kind, clock.trigger_cause, clock.started_at,
    clock.due_at, clock.warnings::text, clock.backfill, clock.owner, clock.source, clock.state, clock.answered_at, clock.ended_at,
    clock.ended_sequence, clock.ended_why, clock.breach_id, clock.breached_at, clock.withdrawn_at, clock.said
"""

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

_FACT_COLUMNS = "lead_id, occurred_at, key, kind, name, recorded_at, sequence, by, stage_kind, cause"

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

_SAVE_LEADS = """
UPDATE lead SET
    profiles = row.profiles::jsonb,
    standings = row.standings::jsonb,
    source = row.source,
    owner = row.owner,
    owner_sequence = row.owner_sequence,
    merged_into = row.merged_into,
    merged_at = row.merged_at,
    merge_recorded_at = row.merge_recorded_at,
    erased_at = row.erased_at
FROM unnest(
    $1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::uuid[], $8::timestamptz[],
    $9::timestamptz[], $10::timestamptz[]
) AS row (lead_id, profiles, standings, source, owner, owner_sequence, merged_into, merged_at, merge_recorded_at, erased_at)
WHERE lead.lead_id = row.lead_id
"""

_NEW_CLOCKS = """
INSERT INTO clock (
    lead_id, clock_id, warnings, owner, source, state, answered_at, ended_at, ended_sequence, ended_why, breach_id, breached_at,
    withdrawn_at, said, next_at, clause, obliges, sla_version, trigger_kind, trigger_key, trigger_sequence,
    trigger_recorded_at, trigger_stage_kind, trigger_cause, started_at, due_at, backfill
)
SELECT
    lead_id, clock_id, warnings::jsonb, owner, source, state, answered_at, ended_at, ended_sequence, ended_why, breach_id,
    breached_at, withdrawn_at, said, next_at, clause, obliges, sla_version, trigger_kind, trigger_key, trigger_sequence,
    trigger_recorded_at, trigger_stage_kind, trigger_cause, started_at, due_at, backfill
FROM unnest(
    $1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::timestamptz[], $8::timestamptz[],
    $9::bigint[], $10::text[], $11::uuid[], $12::timestamptz[], $13::timestamptz[], $14::int[], $15::timestamptz[],
    $16::text[], $17::text[], $18::int[], $19::text[], $20::text[], $21::bigint[], $22::timestamptz[], $23::text[],
    $24::uuid[], $25::timestamptz[], $26::timestamptz[], $27::bool[]
) AS row (
    lead_id, clock_id, warnings, owner, source, state, answered_at, ended_at, ended_sequence, ended_why, breach_id, breached_at,
    withdrawn_at, said, next_at, clause, obliges, sla_version, trigger_kind, trigger_key, trigger_sequence,
    trigger_recorded_at, trigger_stage_kind, trigger_cause, started_at, due_at, backfill
)
"""

_MOVED_CLOCKS = """
UPDATE clock SET
    warnings = row.warnings::jsonb,
    owner = row.owner,
    source = row.source,
    state = row.state,
    answered_at = row.answered_at,
    ended_at = row.ended_at,
    ended_sequence = row.ended_sequence,
    ended_why = row.ended_why,
    breach_id = row.breach_id,
    breached_at = row.breached_at,
    withdrawn_at = row.withdrawn_at,
    said = row.said,
    next_at = row.next_at,
    trigger_key = row.trigger_key,
    trigger_sequence = row.trigger_sequence
FROM unnest(
    $1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::timestamptz[], $8::timestamptz[],
    $9::bigint[], $10::text[], $11::uuid[], $12::timestamptz[], $13::timestamptz[], $14::int[], $15::timestamptz[],
    $16::int[], $17::text[], $18::bigint[]
) AS row (
    lead_id, clock_id, warnings, owner, source, state, answered_at, ended_at, ended_sequence, ended_why, breach_id, breached_at,
    withdrawn_at, said, next_at, said_before, trigger_key, trigger_sequence
)
WHERE clock.lead_id = row.lead_id AND clock.clock_id = row.clock_id AND clock.said = row.said_before
"""

_SAVE_FACTS = f"""
INSERT INTO fact ({_FACT_COLUMNS})
SELECT * FROM unnest(
    $1::uuid[], $2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::bigint[], $8::text[],
    $9::text[], $10::uuid[]
)
ON CONFLICT DO NOTHING
"""

_FORGET_SOME = """
DELETE FROM fact USING unnest($1::uuid[], $2::text[]) AS gone (lead_id, key)
WHERE fact.lead_id = gone.lead_id AND fact.key = gone.key
"""

_GIVE_BACK = """
DELETE FROM fact USING unnest($1::uuid[], $2::uuid[]) AS parted (lead_id, other_id), fact AS theirs
WHERE theirs.lead_id = parted.other_id AND theirs.kind = 'activity'
    AND fact.lead_id = parted.lead_id AND fact.occurred_at = theirs.occurred_at AND fact.key = theirs.key
"""

_FORGET_FACTS = "DELETE FROM fact WHERE lead_id = ANY ($1::uuid[])"

_SAVE_WAITING = """
INSERT INTO waiting (lead_id, clause, trigger_key, recorded_at, started_at, sla_version, judged_of)
SELECT lead_id, clause, trigger_key, recorded_at, started_at, sla_version, judged_of::jsonb
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::timestamptz[], $5::timestamptz[], $6::int[], $7::text[])
    AS row (lead_id, clause, trigger_key, recorded_at, started_at, sla_version, judged_of)
ON CONFLICT DO NOTHING
"""

_SETTLE_WAITING = """
DELETE FROM waiting USING unnest($1::uuid[], $2::text[], $3::text[]) AS row (lead_id, clause, trigger_key)
WHERE waiting.lead_id = row.lead_id AND waiting.clause = row.clause AND waiting.trigger_key = row.trigger_key
"""

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
    await _save_leads(driver, [case.lead for old, case in changed if case.lead is not old.lead])
    await _save_facts(
        driver, {lead_id: facts for lead_id, facts in happened.items() if after[lead_id].lead.erased_at is None}
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
    if gone:
        await driver.execute(_FORGET_SOME, [lead_id for lead_id, _ in gone], [key for _, key in gone])


async def add_clocks(driver: asyncpg.Connection, clocks: Sequence[Clock]) -> None:
    """Write clocks that are new."""
    if clocks:
        await driver.execute(
            _NEW_CLOCKS,
            *_changing(clocks),
            [clock.clause for clock in clocks],
            [clock.obliges for clock in clocks],
            [clock.sla_version for clock in clocks],
            [clock.trigger.kind for clock in clocks],
            [clock.trigger.key for clock in clocks],
            [clock.trigger.sequence for clock in clocks],
            [clock.trigger.recorded_at for clock in clocks],
            [clock.trigger.stage_kind for clock in clocks],
            [clock.trigger.cause for clock in clocks],
            [clock.started_at for clock in clocks],
            [clock.due_at for clock in clocks],
            [clock.backfill for clock in clocks],
        )


async def move_clocks(driver: asyncpg.Connection, moved: Sequence[tuple[Clock, Clock]]) -> None:
    """Write clocks, each as it was read and as it is now.

    Raises asyncpg.SerializationError, to be tried again, where another transaction has moved one on in between.
    """
    if not moved:
        return
    moved = sorted(moved, key=lambda pair: (pair[1].lead_id, pair[1].clock_id))
    done = await driver.execute(
        _MOVED_CLOCKS,
        *_changing([clock for _, clock in moved]),
        [old.said for old, _ in moved],
        [clock.trigger.key for _, clock in moved],
        [clock.trigger.sequence for _, clock in moved],
    )
    if int(done.rsplit(" ", 1)[1]) != len(moved):
        raise asyncpg.SerializationError("a clock was moved on by another transaction")


def _changing(clocks: Sequence[Clock]) -> tuple[list[Any], ...]:
    """The columns of a clock's key and of all that can change in it."""
    return (
        [clock.lead_id for clock in clocks],
        [clock.clock_id for clock in clocks],
        [_json([[warning.fraction, warning.at] for warning in clock.warnings]) for clock in clocks],
        [clock.owner for clock in clocks],
        [clock.source for clock in clocks],
        [clock.state for clock in clocks],
        [clock.answered_at for clock in clocks],
        [clock.ended_at for clock in clocks],
        [clock.ended_sequence for clock in clocks],
        [clock.end for clock in clocks],
        [clock.breach_id for clock in clocks],
        [clock.breached_at for clock in clocks],
        [clock.withdrawn_at for clock in clocks],
        [clock.said for clock in clocks],
        [clock.next_at for clock in clocks],
    )


async def _save_leads(driver: asyncpg.Connection, leads: Sequence[Lead]) -> None:
    if leads:
        await driver.execute(
            _SAVE_LEADS,
            [lead.lead_id for lead in leads],
            [_json([_profile_json(profile) for profile in lead.profiles]) for lead in leads],
            [_json([_standing_json(standing) for standing in lead.standings]) for lead in leads],
            [lead.source for lead in leads],
            [lead.owner for lead in leads],
            [lead.owner_sequence for lead in leads],
            [lead.merged_into for lead in leads],
            [lead.merged_at for lead in leads],
            [lead.merge_recorded_at for lead in leads],
            [lead.erased_at for lead in leads],
        )


async def _save_facts(driver: asyncpg.Connection, happened: Mapping[UUID, Sequence[Fact]]) -> None:
    rows = [(lead_id, fact) for lead_id, facts_ in happened.items() for fact in facts_]
    if rows:
        await driver.execute(
            _SAVE_FACTS,
            [lead_id for lead_id, _ in rows],
            [fact.occurred_at for _, fact in rows],
            [fact.key for _, fact in rows],
            [fact.kind for _, fact in rows],
            [fact.name for _, fact in rows],
            [fact.recorded_at for _, fact in rows],
            [fact.sequence for _, fact in rows],
            [fact.by for _, fact in rows],
            [fact.stage_kind for _, fact in rows],
            [fact.cause for _, fact in rows],
        )


async def _save_waiting(driver: asyncpg.Connection, changed: Sequence[tuple[Case, Case]]) -> None:
    settled: list[tuple[UUID, tuple[str, str]]] = []
    new: list[tuple[UUID, Waiting]] = []
    for old, case in changed:
        known, still = {one.key for one in old.waiting}, {one.key for one in case.waiting}
        settled += [(case.lead.lead_id, key) for key in known - still]
        new += [(case.lead.lead_id, one) for one in case.waiting if one.key not in known]
    if settled:
        await driver.execute(
            _SETTLE_WAITING, [row[0] for row in settled], [row[1][0] for row in settled], [row[1][1] for row in settled]
        )
    if new:
        await driver.execute(
            _SAVE_WAITING,
            [lead_id for lead_id, _ in new],
            [one.clause for _, one in new],
            [one.fact.key for _, one in new],
            [one.fact.recorded_at for _, one in new],
            [one.fact.occurred_at for _, one in new],
            [one.sla_version for _, one in new],
            [_json(_waiting_json(one)) for _, one in new],
        )


# --- Rows to values and back ---


def clock_of(row: asyncpg.Record) -> Clock:
    """The clock in a row that has all its columns."""
    return Clock(
        clock_id=row["clock_id"],
        lead_id=row["lead_id"],
        clause=row["clause"],
        obliges=row["obliges"],
        sla_version=row["sla_version"],
        trigger=Trigger(
            kind=row["trigger_kind"],
            key=row["trigger_key"],
            sequence=row["trigger_sequence"],
            recorded_at=row["trigger_recorded_at"],
            stage_kind=row["trigger_stage_kind"],
            cause=row["trigger_cause"],
        ),
        started_at=finite(row["started_at"]),
        due_at=finite(row["due_at"]),
        warnings=tuple(WarnAt(fraction, _time(at)) for fraction, at in orjson.loads(row["warnings"])),
        backfill=row["backfill"],
        owner=row["owner"],
        source=row["source"],
        state=row["state"],
        answered_at=row["answered_at"] and finite(row["answered_at"]),
        ended_at=row["ended_at"] and finite(row["ended_at"]),
        ended_sequence=row["ended_sequence"],
        end=row["ended_why"],
        breach_id=row["breach_id"],
        breached_at=row["breached_at"],
        withdrawn_at=row["withdrawn_at"],
        said=row["said"],
    )


def _lead(row: asyncpg.Record) -> Lead:
    return Lead(
        lead_id=row["lead_id"],
        profiles=tuple(_profile(stored) for stored in orjson.loads(row["profiles"])),
        standings=tuple(_standing(stored) for stored in orjson.loads(row["standings"])),
        source=row["source"],
        owner=row["owner"],
        owner_sequence=row["owner_sequence"],
        merged_into=row["merged_into"],
        merged_at=row["merged_at"],
        merge_recorded_at=row["merge_recorded_at"],
        erased_at=row["erased_at"],
    )


def _fact(row: asyncpg.Record) -> Fact:
    return Fact(
        kind=row["kind"],
        key=row["key"],
        name=row["name"],
        occurred_at=finite(row["occurred_at"]),
        recorded_at=row["recorded_at"],
        sequence=row["sequence"],
        by=row["by"],
        stage_kind=row["stage_kind"],
        cause=row["cause"],
    )


def _waiting(row: asyncpg.Record) -> Waiting:
    stored = orjson.loads(row["judged_of"])
    fact = stored["fact"]
    return Waiting(
        clause=row["clause"],
        sla_version=row["sla_version"],
        fact=Fact(
            kind=fact["kind"],
            key=fact["key"],
            name=fact["name"],
            occurred_at=_time(fact["occurred_at"]),
            recorded_at=_time(fact["recorded_at"]),
            sequence=fact["sequence"],
            by=fact["by"],
            stage_kind=fact["stage_kind"],
            cause=UUID(fact["cause"]) if fact["cause"] else None,
        ),
        profile=_profile(stored["profile"]) if stored["profile"] else None,
        standing=_standing(stored["standing"]) if stored["standing"] else None,
    )


def _waiting_json(one: Waiting) -> dict[str, object]:
    fact = one.fact
    return {
        "fact": {
            "kind": fact.kind,
            "key": fact.key,
            "name": fact.name,
            "occurred_at": fact.occurred_at,
            "recorded_at": fact.recorded_at,
            "sequence": fact.sequence,
            "by": fact.by,
            "stage_kind": fact.stage_kind,
            "cause": fact.cause,
        },
        "profile": _profile_json(one.profile) if one.profile else None,
        "standing": _standing_json(one.standing) if one.standing else None,
    }


def _profile_json(profile: Profile) -> dict[str, object]:
    return {
        "recorded_at": profile.recorded_at,
        "sequence": profile.sequence,
        "source": profile.source,
        "captured_at": profile.captured_at,
        "campaign": profile.campaign,
        "attributes": profile.attributes,
    }


def _profile(stored: Mapping[str, Any]) -> Profile:
    times = {name: _time(stored[name]) for name in ("recorded_at", "captured_at")}
    return Profile(**{**stored, **times})


def _standing_json(standing: Standing) -> dict[str, object]:
    return {
        "recorded_at": standing.recorded_at,
        "sequence": standing.sequence,
        "stage": standing.stage,
        "grade": standing.grade,
        "fit": standing.fit,
        "engagement": standing.engagement,
    }


def _standing(stored: Mapping[str, Any]) -> Standing:
    return Standing(**{**stored, "recorded_at": _time(stored["recorded_at"])})


def _time(stored: object) -> datetime:
    return datetime.fromisoformat(str(stored))


def _json(value: object) -> str:
    return orjson.dumps(value).decode()
