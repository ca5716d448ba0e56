"""SQL that reads everything held about one person, in pages of bounded size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import asyncpg
import orjson

PAGE_ROWS = 1_000
PAGE_BYTES = 4 * 1024 * 1024
"""A page ends behind the row with which its texts get larger than this; one text is bounded by the size of a request's body."""

_LEADS = """
SELECT l.lead_id, l.source, l.captured_at, l.recorded_at, l.pending, l.merged_into, l.verdict, l.quality_score, l.policy_version,
       l.email, l.phone, l.first_name, l.last_name, l.company, l.domain, l.title, l.attributes::text AS attributes,
       l.campaign::text AS campaign, l.field_timestamps::text AS field_timestamps,
       l.account_id, a.domain AS account_domain, a.name AS account_name
FROM lead l LEFT JOIN account a USING (account_id)
WHERE l.lead_id = ANY ($1::uuid[]) ORDER BY l.lead_id = $2 DESC, l.lead_id
"""
_KEYS = """
SELECT kind, CASE WHEN kind = 'external' THEN external_id ELSE value END AS value, source, lead_id
FROM identity_key WHERE lead_id = ANY ($1::uuid[]) ORDER BY kind, value
"""
_MERGES = """
SELECT merge_id, survivor_id, merged_lead_id, submission_id, caller, recorded_at, reverted_at, reverted_by,
       survivor_before::text AS survivor_before
FROM merge WHERE survivor_id = ANY ($1::uuid[]) OR merged_lead_id = ANY ($1::uuid[]) ORDER BY recorded_at, merge_id
"""


def _bounded(size: str, page: str, order: str) -> str:
    """Rows of a page up to the one with which it gets too large."""
    return f"""
    SELECT * FROM (
        SELECT p.*, sum({size}) OVER (ORDER BY {order}) - {size} AS bytes_before FROM ({page} LIMIT {PAGE_ROWS}) p
    ) bounded WHERE bytes_before < {PAGE_BYTES} ORDER BY {order}
    """


_SUBMISSIONS = _bounded(
    "coalesce(octet_length(content), 0)",
    """
    SELECT submission_id, lead_id, source, caller, outcome, verdict, quality_score, policy_version, failed::text AS failed,
           occurred_at, recorded_at, content, canonical, settled, settled_at
    FROM submission
    WHERE (lead_id = ANY ($1::uuid[]) OR (keys IS NOT NULL AND keys && $2::text[])) AND submission_id > $3
    ORDER BY submission_id
    """,
    "submission_id",
)
_ACTIVITIES = _bounded(
    "octet_length(properties)",
    """
    SELECT lead_id, activity_id, kind, by, actor, actor_kind, campaign::text AS campaign, properties::text AS properties, caller,
           occurred_at, recorded_at
    FROM activity WHERE lead_id = $1 AND activity_id > $2 ORDER BY activity_id
    """,
    "activity_id",
)
_HOOK_EVENTS = _bounded(
    "octet_length(content)",
    """
    SELECT hook_event_id, source, event_id, action, reference::text AS reference, state, content, occurred_at, recorded_at
    FROM hook_event WHERE keys && $1::text[] AND hook_event_id > $2 ORDER BY hook_event_id
    """,
    "hook_event_id",
)
_IMPORT_FAILURES = _bounded(
    "octet_length(content)",
    """
    SELECT f.import_id, f.row_number, f.outcome, f.error, f.content, j.source, j.created_at
    FROM import_failure f JOIN import_job j USING (import_id)
    WHERE f.keys && $1::text[] AND (f.import_id, f.row_number) > ($2::uuid, $3::bigint) ORDER BY f.import_id, f.row_number
    """,
    "import_id, row_number",
)
_OF_LEADS = """
SELECT s.submission_id, s.lead_id, s.source, s.caller, s.outcome, s.verdict, s.quality_score, s.policy_version,
       s.failed::text AS failed, s.occurred_at, s.recorded_at, s.settled, s.settled_at, s.content IS NULL AS dropped,
       CASE WHEN $4 THEN s.content END AS content
FROM submission s WHERE s.lead_id = ANY ($1::uuid[]) AND s.submission_id > $2 ORDER BY s.submission_id LIMIT $3
"""

_JSON = frozenset(
    {"attributes", "campaign", "field_timestamps", "survivor_before", "failed", "properties", "reference"}
)
_HELPERS = frozenset({"bytes_before"})

Row = dict[str, Any]


async def force_index_order(connection: asyncpg.Connection) -> None:
    """Have this transaction read pages in the order of an index, also while the planner takes a table that has just grown for a small
    one: it would sort all rows of a person for each page."""
    await connection.execute("SET LOCAL enable_sort = off")


async def leads(connection: asyncpg.Connection, lead_ids: Sequence[UUID]) -> list[Row]:
    """The lead itself first, then those that were merged into it."""
    return _rows(await connection.fetch(_LEADS, lead_ids, lead_ids[0]))


async def keys(connection: asyncpg.Connection, lead_ids: Sequence[UUID]) -> list[Row]:
    """Addresses, numbers and the ids that other systems gave."""
    return _rows(await connection.fetch(_KEYS, lead_ids))


async def merges(connection: asyncpg.Connection, lead_ids: Sequence[UUID]) -> list[Row]:
    """Merges in which they took part, with what was remembered to revert them."""
    return _rows(await connection.fetch(_MERGES, lead_ids))


async def submissions(
    connection: asyncpg.Connection, lead_ids: Sequence[UUID], key_words: Sequence[str], after: UUID
) -> list[Row]:
    """A page of submissions, also of those that name the person and were refused or wait with another lead."""
    return _rows(await connection.fetch(_SUBMISSIONS, lead_ids, key_words, after))


async def activities(connection: asyncpg.Connection, lead_id: UUID, after: UUID) -> list[Row]:
    """A page of activities of one lead."""
    return _rows(await connection.fetch(_ACTIVITIES, lead_id, after))


async def hook_events(connection: asyncpg.Connection, key_words: Sequence[str], after: UUID) -> list[Row]:
    """A page of what tools have sent and is not done with."""
    return _rows(await connection.fetch(_HOOK_EVENTS, key_words, after))


async def import_failures(
    connection: asyncpg.Connection, key_words: Sequence[str], after: tuple[UUID, int]
) -> list[Row]:
    """A page of rows of imports that were not taken."""
    return _rows(await connection.fetch(_IMPORT_FAILURES, key_words, *after))


async def submissions_of(
    connection: asyncpg.Connection, lead_ids: Sequence[UUID], after: UUID, rows_max: int, *, content: bool
) -> list[Row]:
    """Submissions of a lead and of those merged into it, oldest first; what they said only on demand."""
    return _rows(await connection.fetch(_OF_LEADS, lead_ids, after, rows_max, content))


def _rows(records: Sequence[asyncpg.Record]) -> list[Row]:
    return [
        {
            name: orjson.loads(value) if name in _JSON and value is not None else value
            for name, value in record.items()
            if name not in _HELPERS
        }
        for record in records
    ]
