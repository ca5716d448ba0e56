"""SQL on verdicts: one submission's, and the newest submissions to judge again by another policy."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import orjson
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from accord.contracts.codec import from_object
from accord.contracts.values import PolicyFailure
from accord.db import from_json
from accord.ids import id_at
from intake.leads.domain.quality import SubmissionVerdict

_VERDICT = text(
    "SELECT submission_id, lead_id, source, verdict, quality_score, policy_version, failed, outcomes, occurred_at, recorded_at"
    " FROM submission WHERE submission_id = :submission_id"
)
# Ids are UUIDv7, so that the newest stand at the end of the primary key. A text that is too long to be judged again is not fetched.
_NEWEST = text(
    "SELECT submission_id, recorded_at,"
    " CASE WHEN octet_length(coalesce(canonical, content)) <= :bytes_max THEN coalesce(canonical, content) END AS canonical"
    " FROM submission WHERE submission_id < :before AND submission_id >= :first AND recorded_at >= :since"
    " ORDER BY submission_id DESC LIMIT :rows"
)
_IN_FORCE = text("SELECT content FROM agreement_version WHERE kind = 'policy' AND status = 'active'")
_VERSION = text("SELECT content FROM agreement_version WHERE kind = 'policy' AND version = :version")

LAST_ID = UUID(int=2**128 - 1)


class Verdict(NamedTuple):
    """What is kept of one judgement."""

    submission_id: UUID
    lead_id: UUID | None
    source: str
    verdict: SubmissionVerdict
    score: float | None
    policy_version: int | None
    failed: tuple[PolicyFailure, ...]
    outcomes: str
    occurred_at: datetime
    recorded_at: datetime


class StoredSubmission(NamedTuple):
    """A submission as it can be judged again; `canonical` is None where it is too long, or gone."""

    submission_id: UUID
    recorded_at: datetime
    canonical: str | None


async def find_verdict(conn: AsyncConnection, submission_id: UUID) -> Verdict | None:
    """The verdict on one submission; None if there is no such one."""
    row = (await conn.execute(_VERDICT, {"submission_id": submission_id})).one_or_none()
    if row is None:
        return None
    failed = from_json(row.failed)
    return Verdict(
        row.submission_id,
        row.lead_id,
        row.source,
        row.verdict,
        row.quality_score,
        row.policy_version,
        tuple(from_object(PolicyFailure, one) for one in failed),
        row.outcomes,
        row.occurred_at,
        row.recorded_at,
    )


async def list_newest(
    conn: AsyncConnection, before: UUID, since: datetime, rows: int, bytes_max: int
) -> list[StoredSubmission]:
    """Submissions since a moment, from the newest, with ids below `before`."""
    # A submission's id is made a little before it is recorded.
    values = {"before": before, "first": id_at(since), "since": since, "rows": rows, "bytes_max": bytes_max}
    return [
        StoredSubmission(row.submission_id, row.recorded_at, row.canonical)
        for row in await conn.execute(_NEWEST, values)
    ]


async def find_active_content(conn: AsyncConnection) -> dict[str, object] | None:
    """The policy in force as a document; None without one."""
    return _document((await conn.execute(_IN_FORCE)).scalar_one_or_none())


async def find_content(conn: AsyncConnection, version: int) -> dict[str, object] | None:
    """A version in any state as a document; None if there is no such one."""
    return _document((await conn.execute(_VERSION, {"version": version})).scalar_one_or_none())


def _document(content: str | None) -> dict[str, object] | None:
    return None if content is None else orjson.loads(content)
