"""SQL on submissions that wait in quarantine, and on what people did with them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import orjson
from msgspec import Struct

from accord.contracts.codec import from_object, to_object
from accord.contracts.values import PolicyFailure
from accord.db import bulk
from accord.isolation import is_resting
from intake import tables
from intake.leads.domain.keys import IdentityKey, format_key, parse_key
from intake.leads.domain.quality import Quality
from intake.quarantine.domain import Action, SettledState

_WAITS = "s.verdict = 'quarantined' AND s.settled IS NULL"
_COLUMNS = """s.submission_id, s.lead_id, s.source, s.caller, s.verdict, s.quality_score, s.policy_version, s.failed::text AS failed,
    s.outcomes, s.occurred_at, s.recorded_at, coalesce(s.canonical, s.content) AS canonical, s.keys, s.settled, s.settled_at"""
_READ = f"SELECT {_COLUMNS} FROM submission s WHERE s.submission_id = ANY ($1::uuid[]) AND s.verdict = 'quarantined'"
_LOCK = f"{_READ} ORDER BY s.submission_id FOR UPDATE"
_OTHERS = f"""
SELECT array_agg(DISTINCT word) AS words, (array_agg(submission_id ORDER BY submission_id))[1] AS first
FROM (SELECT s.submission_id, unnest(s.keys) AS word FROM submission s
      WHERE s.lead_id = ANY ($1::uuid[]) AND {_WAITS} AND s.submission_id <> ALL ($2::uuid[])) AS others
"""
_PAGE = f"""
SELECT {_COLUMNS}, coalesce(l.pending, false) AS pending, d.verdict AS now_verdict, d.quality_score AS now_score,
       d.policy_version AS now_version, d.failed::text AS now_failed, d.recorded_at AS corrected_at, d.caller AS corrected_by
FROM submission s
LEFT JOIN lead l ON l.lead_id = s.lead_id
LEFT JOIN LATERAL (SELECT * FROM quarantine_decision d WHERE d.submission_id = s.submission_id AND d.action = 'requarantined'
                   ORDER BY d.decision_id DESC LIMIT 1) d ON true
"""
_WAITING_PAGE = f"""
{_PAGE}
WHERE {_WAITS} AND s.submission_id > $1 AND ($2::text IS NULL OR s.source = $2)
  AND ($3::timestamptz IS NULL OR s.recorded_at >= $3)
ORDER BY s.submission_id LIMIT $4
"""
_ONE = f"{_PAGE} WHERE s.submission_id = $1 AND s.verdict = 'quarantined'"
EXPIRING = "expire-quarantined"
"""The worker by whose name submissions rest."""

IS_UNDECIDED = f"EXISTS (SELECT FROM submission s WHERE s.submission_id = stuck_row.key AND {_WAITS})"
"""Whether nobody has decided about a submission that rests."""

_EXPIRED = f"""
SELECT s.submission_id FROM submission s
WHERE {_WAITS} AND s.submission_id < $1 AND ($3::uuid[] IS NULL OR s.submission_id = ANY ($3))
    AND NOT {is_resting(EXPIRING, "s.submission_id")}
ORDER BY s.submission_id LIMIT $2
"""
_SETTLE = """
UPDATE submission SET settled = $2, settled_at = $3, lead_id = $4, outcome = coalesce($5, outcome), keys = $6, canonical = $7
WHERE submission_id = $1
"""
_DISMISS = """
UPDATE submission s SET settled = $2, settled_at = $3, content = CASE WHEN $4 THEN NULL ELSE s.content END,
    canonical = CASE WHEN $4 THEN NULL ELSE s.canonical END, keys = CASE WHEN $4 THEN NULL ELSE s.keys END
WHERE s.submission_id = ANY ($1::uuid[])
"""
_LEAVE = "UPDATE submission SET lead_id = NULL WHERE lead_id = ANY ($1::uuid[])"
_KEEP = "UPDATE submission SET canonical = $2, keys = $3, lead_id = $4 WHERE submission_id = $1"
_DECIDED = bulk.insert(tables.quarantine_decision)
# Retention walks each submission once. What it has passed has no second turn, so a decision about it drops at once.
_PASSED = "SELECT dropped_to FROM retention WHERE kind = 'submission'"
_DROP_PASSED = f"""
UPDATE submission SET content = NULL, canonical = NULL, keys = NULL
WHERE submission_id = ANY ($1::uuid[]) AND settled IS NOT NULL AND submission_id <= ({_PASSED})
"""
_DROP_PASSED_NOTES = f"""
UPDATE quarantine_decision SET note = NULL, fields = NULL WHERE submission_id = ANY ($1::uuid[]) AND submission_id <= ({_PASSED})
"""
_DECISIONS = """
SELECT submission_id, decision_id, action, caller, note, fields::text AS fields, verdict, quality_score, policy_version,
       failed::text AS failed, recorded_at
FROM quarantine_decision WHERE submission_id = ANY ($1::uuid[]) ORDER BY submission_id, decision_id
"""
_UPDATE_ORIGIN = "UPDATE lead SET source = $2, captured_at = $3 WHERE lead_id = $1"


class QuarantinedSubmission(Struct, frozen=True):
    """A submission that the policy held back. `canonical` is its record as it stands, None after it was dropped; `keys` are its own."""

    submission_id: UUID
    lead_id: UUID | None
    source: str
    caller: str
    quality: Quality
    occurred_at: datetime
    recorded_at: datetime
    canonical: str | None
    keys: frozenset[IdentityKey]
    settled: SettledState | None
    settled_at: datetime | None


class QuarantineItem(Struct, frozen=True):
    """The same as it is shown: with the judgement of its last correction, if there was one that left it waiting."""

    submission: QuarantinedSubmission
    pending: bool
    quality: Quality
    corrected_at: datetime | None
    corrected_by: str | None


class Decision(Struct, frozen=True):
    """What somebody did with a submission, and how a correction was judged. `note` and `fields` are personal."""

    submission_id: UUID
    decision_id: UUID
    action: Action
    caller: str
    recorded_at: datetime
    lead_id: UUID | None = None
    note: str | None = None
    fields: dict[str, Any] | None = None
    quality: Quality | None = None


class OtherSubmissions(Struct, frozen=True):
    """What else waits for a pending lead: the oldest of it, and the keys of all of it."""

    first: UUID | None
    keys: frozenset[IdentityKey]


async def read(
    connection: asyncpg.Connection, submission_ids: Sequence[UUID], *, lock: bool
) -> dict[UUID, QuarantinedSubmission]:
    """Submissions that waited or wait, in the order of their ids."""
    rows = await connection.fetch(_LOCK if lock else _READ, submission_ids)
    return {row["submission_id"]: _submission(row) for row in rows}


async def find_others(
    connection: asyncpg.Connection, lead_ids: Sequence[UUID], excluding: Sequence[UUID]
) -> OtherSubmissions:
    """What waits for these leads beside some submissions. The leads are locked, so no more can come."""
    (row,) = await connection.fetch(_OTHERS, lead_ids, excluding)
    return OtherSubmissions(row["first"], frozenset(parse_key(word) for word in row["words"] or ()))


async def page(
    connection: asyncpg.Connection, after: UUID, source: str | None, since: datetime | None, rows_max: int
) -> list[QuarantineItem]:
    """What waits, oldest first."""
    return [_item(row) for row in await connection.fetch(_WAITING_PAGE, after, source, since, rows_max)]


async def fetch_submission(connection: asyncpg.Connection, submission_id: UUID) -> QuarantineItem | None:
    """One submission that waits or waited."""
    row = await connection.fetchrow(_ONE, submission_id)
    return None if row is None else _item(row)


async def find_overdue(
    connection: asyncpg.Connection, before: UUID, rows_max: int, only: Sequence[UUID] | None = None
) -> list[UUID]:
    """The oldest that wait and came before this id was made; none that rests. `only` asks for some."""
    return [row[0] for row in await connection.fetch(_EXPIRED, before, rows_max, only)]


async def settle(
    connection: asyncpg.Connection,
    submission: QuarantinedSubmission,
    how: SettledState,
    now: datetime,
    *,
    lead_id: UUID | None,
    outcome: str | None,
    canonical: str | None,
) -> None:
    """It has come in as a submission of this lead, which leads to it from now on: its keys are its lead's."""
    await connection.execute(_SETTLE, submission.submission_id, how, now, lead_id, outcome, None, canonical)


async def dismiss(
    connection: asyncpg.Connection,
    submission_ids: Sequence[UUID],
    how: SettledState,
    now: datetime,
    *,
    gone: Sequence[UUID],
    drop: bool,
) -> None:
    """They will not come in. What was of leads that are `gone`, also what was dismissed before, belongs to none any more. `drop`: their
    content goes at once."""
    await connection.execute(_DISMISS, submission_ids, how, now, drop)
    if gone:
        await connection.execute(_LEAVE, gone)


async def save_correction(
    connection: asyncpg.Connection,
    submission_id: UUID,
    canonical: str,
    keys: Sequence[IdentityKey],
    lead_id: UUID | None,
) -> None:
    """It waits on, corrected."""
    await connection.execute(_KEEP, submission_id, canonical, [format_key(key) for key in keys], lead_id)


async def save_decisions(connection: asyncpg.Connection, decisions: Sequence[Decision]) -> None:
    """Record what was done, as the last step of a decision. What retention has passed keeps no content and no notes."""
    await _DECIDED.execute(connection, [_decision_row(one) for one in decisions])
    decided = [one.submission_id for one in decisions]
    await connection.execute(_DROP_PASSED, decided)
    await connection.execute(_DROP_PASSED_NOTES, decided)


async def list_decisions(connection: asyncpg.Connection, submission_ids: Sequence[UUID]) -> list[Decision]:
    """What was done with these, in order."""
    return [_decision(row) for row in await connection.fetch(_DECISIONS, submission_ids)]


async def update_origin(connection: asyncpg.Connection, lead_id: UUID, source: str, captured_at: datetime) -> None:
    """A pending lead was first heard of from elsewhere, at another time, than was thought. Nothing of it has been published."""
    await connection.execute(_UPDATE_ORIGIN, lead_id, source, captured_at)


def _submission(row: asyncpg.Record) -> QuarantinedSubmission:
    return QuarantinedSubmission(
        row["submission_id"],
        row["lead_id"],
        row["source"],
        row["caller"],
        Quality("quarantined", row["quality_score"], row["policy_version"], _failures(row["failed"]), row["outcomes"]),
        row["occurred_at"],
        row["recorded_at"],
        row["canonical"],
        frozenset(parse_key(word) for word in row["keys"] or ()),
        row["settled"],
        row["settled_at"],
    )


def _item(row: asyncpg.Record) -> QuarantineItem:
    submission = _submission(row)
    quality = submission.quality
    if row["now_verdict"] is not None:
        quality = Quality("quarantined", row["now_score"], row["now_version"], _failures(row["now_failed"]))
    return QuarantineItem(submission, row["pending"], quality, row["corrected_at"], row["corrected_by"])


def _decision_row(one: Decision) -> dict[str, object]:
    quality = one.quality
    return {
        "submission_id": one.submission_id,
        "decision_id": one.decision_id,
        "action": one.action,
        "caller": one.caller,
        "note": one.note,
        "lead_id": one.lead_id,
        "recorded_at": one.recorded_at,
        "fields": None if one.fields is None else orjson.dumps(one.fields).decode(),
        "verdict": None if quality is None else quality.verdict,
        "quality_score": None if quality is None else quality.score,
        "policy_version": None if quality is None else quality.policy_version,
        "failed": "[]"
        if quality is None
        else orjson.dumps([to_object(failure) for failure in quality.failed]).decode(),
    }


def _decision(row: asyncpg.Record) -> Decision:
    quality = None
    if row["verdict"] is not None:
        quality = Quality(row["verdict"], row["quality_score"], row["policy_version"], _failures(row["failed"]))
    return Decision(
        row["submission_id"],
        row["decision_id"],
        row["action"],
        row["caller"],
        row["recorded_at"],
        note=row["note"],
        fields=None if row["fields"] is None else orjson.loads(row["fields"]),
        quality=quality,
    )


def _failures(text: str) -> tuple[PolicyFailure, ...]:
    return tuple(from_object(PolicyFailure, one) for one in orjson.loads(text))
