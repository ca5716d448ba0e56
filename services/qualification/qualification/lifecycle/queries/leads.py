"""Leads as they are stored: locked and loaded by one statement per batch, written back by one. Decides nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from uuid import UUID

import asyncpg
import orjson

from accord.contracts.codec import encode_value, from_object
from accord.contracts.intake_events import LeadState
from accord.contracts.values import Campaign
from accord.db import bulk, clamp_moment, uuid_sql
from accord.isolation import is_resting, is_stuck
from qualification import tables
from qualification.definition.domain.definition import ACTIVITIES_PER_KIND_MAX
from qualification.lifecycle.domain.facts import LogPosition
from qualification.lifecycle.domain.lead import NO_ACTIVITIES, NO_DEAL, Activities, Deal, Lead, Scores, microseconds
from qualification.lifecycle.queries import reevaluations
from qualification.lifecycle.queries.deals import deal_json, parse_deal

_COLUMNS = """
    lead.lead_id, lead.profile::text, lead.intake_sequence, lead.stage, lead.stage_since, lead.visits::text, lead.owner, lead.fit,
    lead.engagement, lead.grade, lead.definition_version, lead.deal::text, lead.evaluated_at, lead.merged_into, lead.erased,
    lead.sequence, lead.revision, lead.profile_at, lead.position_rank, lead.position_tie, lead.entry_version, lead.applied_version,
    lead.due_at
"""

# Of each asked kind the newest activities only, so that no lead can make a batch large: one short index range each.
_ACTIVITIES = f"""
    LEFT JOIN LATERAL (
        SELECT array_agg(newest.kind) AS kinds, array_agg(newest.occurred_at) AS moments
        FROM unnest($2::text[]) AS asked (kind)
        CROSS JOIN LATERAL (
            SELECT activity.kind, activity.occurred_at
            FROM activity
            WHERE activity.lead_id = wanted.lead_id AND activity.kind = asked.kind
            ORDER BY activity.occurred_at DESC
            LIMIT {ACTIVITIES_PER_KIND_MAX}
        ) AS newest
    ) AS done ON true
"""

# Rows are locked in the order of their ids, so that two batches cannot deadlock. A lead that was merged brings its survivor.
_LOCK = f"""
WITH wanted AS (
    SELECT lead_id FROM unnest($1::uuid[]) AS asked (lead_id)
    UNION
    SELECT merged_into FROM lead WHERE lead_id = ANY ($1::uuid[]) AND merged_into IS NOT NULL
), locked AS MATERIALIZED (
    SELECT {_COLUMNS}
    FROM lead
    WHERE lead.lead_id IN (SELECT lead_id FROM wanted)
    ORDER BY lead.lead_id
    FOR UPDATE
)
SELECT wanted.lead_id AS wanted_id, lead.*, done.kinds, done.moments, seen.revision AS seen_revision,
    lead.lead_id IS NULL AND EXISTS (SELECT FROM activity WHERE activity.lead_id = wanted.lead_id) AS has_early_activities
FROM wanted
LEFT JOIN locked AS lead ON lead.lead_id = wanted.lead_id
LEFT JOIN lead AS seen ON seen.lead_id = wanted.lead_id
{_ACTIVITIES}
"""
# A lock that waited gives the row as it is then; all else, `seen` too, is of the moment before the wait.

_READ = f"""
WITH wanted AS (
    SELECT coalesce(lead.merged_into, lead.lead_id) AS lead_id FROM lead WHERE lead.lead_id = $1
)
SELECT wanted.lead_id AS wanted_id, {_COLUMNS}, done.kinds, done.moments, false AS has_early_activities
FROM wanted
JOIN lead ON lead.lead_id = wanted.lead_id
{_ACTIVITIES}
"""

TIME_TRIGGER_WORKER = "fire-time-triggers"
ENTRY_WORKER = "enter-waiting-leads"
"""The workers by whose names leads rest."""

_ENTERS = "stage IS NULL AND profile IS NOT NULL AND merged_into IS NULL AND NOT erased"
IS_ENTERING = f"EXISTS (SELECT FROM lead WHERE lead.lead_id = stuck_row.key AND {_ENTERS})"
IS_DUE = "EXISTS (SELECT FROM lead WHERE lead.lead_id = stuck_row.key AND due_at <= now())"
"""Whether there is something to do for these of a lead that rests, locked or held as it may be."""

_WAITING = f"""
SELECT lead_id FROM lead
WHERE {_ENTERS}
    AND ($2::uuid[] IS NULL OR lead_id = ANY ($2)) AND NOT {is_resting(ENTRY_WORKER, "lead.lead_id")}
ORDER BY lead_id
LIMIT $1
FOR UPDATE OF lead SKIP LOCKED
"""

_MEMBERS = (
    *("lead_id", "intake_sequence", "stage", "stage_since", "owner", "definition_version", "merged_into", "erased"),
    *("sequence", "profile_at", "entry_version", "applied_version", "due_at"),
)
"""Those of a lead that are a column of the same name."""
_WRITTEN = tuple(column.name for column in tables.lead.columns)
# An unchanged profile is sent as NULL. A row that another transaction changed in between has another revision, and is left; the
# caller sees that it wrote less than it meant to.
_SAVE = bulk.upsert(
    tables.lead,
    _WRITTEN,
    key=["lead_id"],
    changing=[name for name in _WRITTEN if name not in {"lead_id", "profile"}],
    unless_null=["profile"],
    where="lead.revision = excluded.revision - 1",
)

_DUE = f"""
SELECT lead_id FROM lead
WHERE due_at <= $1 AND lead_id::text <> ALL ($4::text[]) AND ($3::uuid[] IS NULL OR lead_id = ANY ($3))
    AND NOT {is_resting(TIME_TRIGGER_WORKER, "lead.lead_id")}
ORDER BY due_at LIMIT $2 FOR UPDATE OF lead SKIP LOCKED
"""

WITH_SURVIVORS = f"""
SELECT unnest($1::text[])
UNION SELECT lead.merged_into::text
FROM unnest($1::text[]) AS held (key) JOIN lead ON lead.lead_id = {uuid_sql("held.key")} WHERE lead.merged_into IS NOT NULL
"""
"""These keys ($1), and the leads that they were merged into: what is missing of one is missing of the other."""

# Every capture is written in UTC and with all its digits down to the second, so the first by letters is in the first second.
_TO_ENTER = f"""
SELECT date_trunc('second', first.captured_at::timestamptz)
FROM (SELECT profile ->> 'captured_at' AS captured_at FROM lead
      WHERE {_ENTERS} AND lead_id::text <> ALL ($2::text[]) AND NOT {is_stuck(ENTRY_WORKER, "lead.lead_id")}
      ORDER BY profile ->> 'captured_at' LIMIT 1) AS first
"""

EARLIEST_PENDING = f"""
SELECT least(
    (SELECT due_at FROM lead
     WHERE due_at <= $1::timestamptz AND NOT {is_stuck(TIME_TRIGGER_WORKER, "lead.lead_id")} AND lead_id::text <> ALL ($2::text[])
     ORDER BY due_at LIMIT 1),
    ({reevaluations.EARLIEST_PENDING}),
    CASE WHEN EXISTS ({reevaluations.IN_FORCE}) THEN ({_TO_ENTER}) END
)
"""
"""The earliest moment that this service still owes, when all before the watermark $1 has been consumed: of what time alone brings to a
lead, of leads that are still to be judged by a new version, or of those that have waited for the first one and enter at the time of
their capture. NULL if it owes none.

A lead that is held ($2), or that is stuck, bounds nothing, since it may be so for ever: it is announced as held instead.
"""

_POINT_TO = "UPDATE lead SET merged_into = $2 WHERE lead_id = ANY ($1::uuid[])"
_FOLLOW = "UPDATE lead SET merged_into = $2 WHERE merged_into = ANY ($1::uuid[])"


async def lock(connection: asyncpg.Connection, lead_ids: Iterable[UUID], kinds: Collection[str]) -> dict[UUID, Lead]:
    """These leads, and the survivors of those that were merged, locked until the transaction ends.

    A lead that is not stored comes as an empty one of revision 0, with the activities that were kept for it. Only activities
    of `kinds` are loaded.
    """
    asked = sorted(set(lead_ids))
    leads = await _lock(connection, asked, kinds)
    # A merge between our reading and our locking can name a survivor that is not among them yet.
    while missing := {lead.merged_into for lead in leads.values() if lead.merged_into} - leads.keys():
        leads |= await _lock(connection, sorted(missing), kinds)
    return leads


async def _lock(connection: asyncpg.Connection, lead_ids: Sequence[UUID], kinds: Collection[str]) -> dict[UUID, Lead]:
    rows = await connection.fetch(_LOCK, lead_ids, sorted(kinds))
    if any(row["revision"] != row["seen_revision"] for row in rows):
        rows = await connection.fetch(
            _LOCK, lead_ids, sorted(kinds)
        )  # the activities as well, now that nobody can add any
    return {row["wanted_id"]: _lead(row) for row in rows}


async def claim_waiting(
    connection: asyncpg.Connection, rows_max: int, only: Sequence[UUID] | None = None
) -> list[UUID]:
    """Up to so many leads that have entered and have no stage yet, locked; those at rest or that others hold are passed over.

    `only` asks for some.
    """
    return [row[0] for row in await connection.fetch(_WAITING, rows_max, only)]


async def read(connection: asyncpg.Connection, lead_id: UUID, kinds: Collection[str]) -> Lead | None:
    """One lead without a lock; in place of one that was merged, its survivor."""
    row = await connection.fetchrow(_READ, lead_id, sorted(kinds))
    return _lead(row) if row is not None else None


async def save(
    connection: asyncpg.Connection, leads: Sequence[Lead], before: Mapping[UUID, Lead], now: datetime
) -> None:
    """Write leads that `lock` gave and the domain changed, each under the revision after the one that it has.

    Raises asyncpg.SerializationError, to be tried again, where another transaction made one of the rows in between.
    """
    ordered = sorted(leads, key=lambda lead: lead.lead_id)
    made = [_row(lead, before[lead.lead_id], now) for lead in ordered if lead.revision == 0]
    changed = [_row(lead, before[lead.lead_id], now) for lead in ordered if lead.revision != 0]
    if await _SAVE.execute(connection, changed) != len(changed):
        raise asyncpg.SerializationError("a lead was changed by another transaction")
    if made:
        records = [tuple(row[name] for name in _WRITTEN) for row in made]
        try:  # takes half of the time of an INSERT
            await connection.copy_records_to_table("lead", records=records, columns=_WRITTEN)
        except asyncpg.UniqueViolationError as error:
            raise asyncpg.SerializationError("a lead was made by another transaction") from error


def _row(lead: Lead, before: Lead, now: datetime) -> dict[str, object]:
    scores, position, profile = lead.scores, lead.position, lead.profile
    return {
        **{name: getattr(lead, name) for name in _MEMBERS},
        "profile": encode_value(profile).decode() if profile and profile is not before.profile else None,
        "visits": orjson.dumps(lead.visits).decode(),
        "fit": scores.fit if scores else None,
        "engagement": scores.engagement if scores else None,
        "grade": scores.grade if scores else None,
        "deal": "{}" if lead.deal is NO_DEAL else deal_json(lead.deal),
        "evaluated_at": position.at if position else None,
        "revision": lead.revision + 1,
        "changed_at": now,
        "position_rank": position.rank if position else None,
        "position_tie": position.tie if position else None,
    }


async def claim_due(
    connection: asyncpg.Connection,
    until: datetime,
    held: Sequence[str],
    rows_max: int,
    only: Sequence[UUID] | None = None,
) -> list[UUID]:
    """Up to so many leads for which time alone may change something by `until`, locked; those at rest, those that are `held`, and
    those that another transaction has locked are passed over. `only` asks for some.
    """
    return [row[0] for row in await connection.fetch(_DUE, until, rows_max, only, held)]


async def add_survivors(connection: asyncpg.Connection, held: Sequence[str]) -> Sequence[str]:
    """These leads, and those that they were merged into: what is missing of one is missing of the other."""
    return held if not held else [row[0] for row in await connection.fetch(WITH_SURVIVORS, held)]


async def redirect_merged(connection: asyncpg.Connection, merged: Sequence[UUID], survivor: UUID) -> None:
    """Let leads that were merged into `merged` earlier point to where those went, so that no pointer has a second step."""
    await connection.execute(_FOLLOW, merged, survivor)


async def set_survivor(connection: asyncpg.Connection, merged: Sequence[UUID], survivor: UUID) -> None:
    """Let these merged leads point to another: the one into which they had been merged before that one itself was."""
    if merged:
        await connection.execute(_POINT_TO, merged, survivor)


def _lead(row: asyncpg.Record) -> Lead:
    activities = _activities(row["kinds"], row["moments"])
    if row["lead_id"] is None:
        return Lead(row["wanted_id"], activities=activities, has_early_activities=row["has_early_activities"])
    profile = row["profile"]
    fit = row["fit"]
    return Lead(
        lead_id=row["lead_id"],
        profile=None if profile is None else parse_state(profile),
        intake_sequence=row["intake_sequence"],
        stage=row["stage"],
        stage_since=row["stage_since"] and clamp_moment(row["stage_since"]),
        visits=orjson.loads(row["visits"]),
        owner=row["owner"],
        scores=None if fit is None else Scores(fit, row["engagement"], row["grade"]),
        definition_version=row["definition_version"],
        deal=NO_DEAL if row["deal"] == "{}" else parse_deal(row["deal"], Deal),
        activities=activities,
        merged_into=row["merged_into"],
        erased=row["erased"],
        sequence=row["sequence"],
        revision=row["revision"],
        profile_at=row["profile_at"],
        position=None
        if row["position_rank"] is None
        else LogPosition(clamp_moment(row["evaluated_at"]), row["position_rank"], row["position_tie"]),
        entry_version=row["entry_version"],
        applied_version=row["applied_version"],
        due_at=row["due_at"],
        has_early_activities=False,
    )


def parse_state(profile: str) -> LeadState:
    """A profile as it was stored; it was checked before that, so nothing is looked at again."""
    given = orjson.loads(profile)
    account_id, campaign = given["account_id"], given["campaign"]
    return LeadState(
        source=given["source"],
        captured_at=datetime.fromisoformat(given["captured_at"]),
        account_id=None if account_id is None else UUID(account_id),
        attributes=given["attributes"],
        campaign=None if campaign is None else from_object(Campaign, campaign),
        external_keys=given["external_keys"],
        verdict=given["verdict"],
        policy_version=given["policy_version"],
        quality_score=given["quality_score"],
    )


def _activities(kinds: Sequence[str] | None, moments: Sequence[datetime] | None) -> Activities:
    if not kinds:
        return NO_ACTIVITIES
    by_kind: dict[str, list[int]] = {}
    for kind, moment in zip(kinds or (), moments or (), strict=True):
        by_kind.setdefault(kind, []).append(microseconds(moment))
    return Activities(by_kind)
