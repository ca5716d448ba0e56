"""SQL on submissions: every one is kept as it arrived, with its verdict."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import asyncpg
import orjson

from accord.contracts.codec import to_object
from intake.leads.domain.quality import Quality

_COLUMNS = (
    "submission_id",
    "lead_id",
    "source",
    "caller",
    "outcome",
    "verdict",
    "quality_score",
    "policy_version",
    "failed",
    "content",
    "occurred_at",
    "recorded_at",
    "canonical",
    "keys",
    "outcomes",
)


class Row(NamedTuple):
    """A submission with what became of it. `content` is its JSON as it was sent.

    `canonical` is the record in canonical form, for one that came in another or waits in quarantine. `keys` are its identity keys as words
    (`leads.domain.keys.format_key`), for one that waits or was refused: no lead leads to it for sure.
    """

    submission_id: UUID
    lead_id: UUID | None
    source: str
    caller: str
    outcome: str | None
    quality: Quality
    content: str
    occurred_at: datetime
    canonical: str | None = None
    keys: list[str] | None = None


async def insert(connection: asyncpg.Connection, rows: Sequence[Row], now: datetime) -> None:
    """Insert all of them."""
    if rows:
        records = [
            (
                *(row.submission_id, row.lead_id, row.source, row.caller, row.outcome),
                *(row.quality.verdict, row.quality.score, row.quality.policy_version, _failed(row.quality)),
                *(row.content, row.occurred_at, now, row.canonical, row.keys, row.quality.outcomes),
            )
            for row in rows
        ]
        await connection.copy_records_to_table("submission", records=records, columns=_COLUMNS)


def _failed(quality: Quality) -> str:
    if not quality.failed:
        return "[]"
    return orjson.dumps([to_object(failure) for failure in quality.failed]).decode()
