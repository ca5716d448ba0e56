"""SQL on consent: what was said of it, kept for as long as the lead. It stays under the lead that a record was of, so it follows merges
and their reversal without being moved.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import asyncpg

from intake.leads.domain.consent import Consent

_COLUMNS = (
    "lead_id",
    "consent_id",
    "submission_id",
    "source",
    "caller",
    "basis",
    "text",
    "given_at",
    "dated",
    "recorded_at",
)
_SHOWN = "consent_id, basis, given_at, recorded_at, caller, text, source, submission_id, dated"
_PAGE = f"""
SELECT {_SHOWN} FROM consent
WHERE lead_id = ANY ($1::uuid[]) AND ($2::timestamptz IS NULL OR (given_at, consent_id) > ($2, $3::uuid))
ORDER BY given_at, consent_id LIMIT $4
"""
_NEWEST = f"""
SELECT {_SHOWN} FROM consent WHERE lead_id = ANY ($1::uuid[])
ORDER BY dated DESC, given_at DESC, recorded_at DESC, consent_id DESC LIMIT 1
"""


class Row(NamedTuple):
    """One thing that was said. That of a submission has its id."""

    lead_id: UUID
    consent_id: UUID
    submission_id: UUID | None
    source: str | None
    caller: str
    basis: str
    text: str | None
    given_at: datetime
    dated: bool = True


async def insert(connection: asyncpg.Connection, rows: Sequence[Row], now: datetime) -> None:
    """Insert all of them."""
    if rows:
        await connection.copy_records_to_table("consent", records=[(*row, now) for row in rows], columns=_COLUMNS)


async def page(
    connection: asyncpg.Connection, lead_ids: Sequence[UUID], after: tuple[datetime, UUID] | None, rows_max: int
) -> list[Consent]:
    """What was said of these leads after a place, in the order in which it was given."""
    at, id_ = after or (None, None)
    return [Consent(**row) for row in await connection.fetch(_PAGE, lead_ids, at, id_, rows_max)]


async def newest(connection: asyncpg.Connection, lead_ids: Sequence[UUID]) -> list[Consent]:
    """What was said last, if anything was."""
    return [Consent(**row) for row in await connection.fetch(_NEWEST, lead_ids)]
