"""SQL on submissions: every one is kept as it arrived, with its verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg
import orjson

from intake.domain.quality import Quality

_SAVE = """
INSERT INTO submission (submission_id, lead_id, source, caller, outcome, verdict, quality_score, policy_version, failed, content,
                        occurred_at, recorded_at)
SELECT submission_id, lead_id, source, caller, outcome, verdict, quality_score, policy_version, failed::jsonb, content, occurred_at, $12
FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::float8[], $8::int[], $9::text[],
            $10::text[], $11::timestamptz[])
     AS s (submission_id, lead_id, source, caller, outcome, verdict, quality_score, policy_version, failed, content, occurred_at)
"""


@dataclass(frozen=True, slots=True)
class Row:
    """A submission with what became of it. `content` is its JSON as it was sent."""

    submission_id: UUID
    lead_id: UUID | None
    source: str
    caller: str
    outcome: str | None
    quality: Quality
    content: str
    occurred_at: datetime


async def save(driver: asyncpg.Connection, rows: Sequence[Row], now: datetime) -> None:
    """Insert all of them in one statement."""
    if not rows:
        return
    await driver.execute(
        _SAVE,
        [row.submission_id for row in rows],
        [row.lead_id for row in rows],
        [row.source for row in rows],
        [row.caller for row in rows],
        [row.outcome for row in rows],
        [row.quality.verdict for row in rows],
        [row.quality.score for row in rows],
        [row.quality.policy_version for row in rows],
        [_failed(row.quality) for row in rows],
        [row.content for row in rows],
        [row.occurred_at for row in rows],
        now,
    )


def _failed(quality: Quality) -> str:
    if not quality.failed:
        return "[]"
    return orjson.dumps([failure.model_dump() for failure in quality.failed]).decode()
