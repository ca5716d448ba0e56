"""Fetches wins with the moments that made them, and the touches before them. domain/attribution.py shares the credit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

from msgspec import Struct
from sqlalchemy import and_, bindparam, func, select, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import UUID as PGUUID
from sqlalchemy.ext.asyncio import AsyncConnection

from metrics.domain.attribution import Path, Touch
from metrics.domain.report_query import ReportQuery
from metrics.queries.wins import Win, fetch_wins
from metrics.tables import lead, stage_entry


class AttributedWin(Struct, frozen=True, gc=False):
    """One win, and when its lead and its opportunity were made."""

    win: Win
    path: Path


# A merged lead's activities are the survivor's, through any number of merges; UNION ends a cycle.
_TOUCHES = text("""
    WITH RECURSIVE family (survivor, lead_id) AS (
        SELECT wanted, wanted FROM unnest(:leads) AS wanted
        UNION SELECT family.survivor, lead.lead_id FROM lead JOIN family ON lead.merged_into = family.lead_id
    )
    SELECT family.survivor, activity.occurred_at, activity.activity_id, activity.source, activity.campaign
    FROM activity JOIN family USING (lead_id)
    WHERE activity.by IN ('lead', 'marketing')
    ORDER BY family.survivor, activity.occurred_at, activity.activity_id
""").bindparams(bindparam("leads", type_=ARRAY(PGUUID)))


async def fetch_attributed_wins(
    conn: AsyncConnection, query: ReportQuery, stage: str, opportunity_stage: str | None, limit: int
) -> list[AttributedWin]:
    """Fetch the first wins of the query."""
    wins = await fetch_wins(conn, query, stage, after=None, limit=limit)
    made = (
        select(lead.c.lead_id, lead.c.captured_at, func.min(stage_entry.c.entered_at))
        .outerjoin_from(
            lead,
            stage_entry,
            and_(
                stage_entry.c.lead_id == lead.c.lead_id,
                stage_entry.c.stage == opportunity_stage,
                stage_entry.c.is_first,
            ),
        )
        .where(lead.c.lead_id.in_([win.lead_id for win in wins]))
        .group_by(lead.c.lead_id, lead.c.captured_at)
    )
    moments = {row[0]: (row[1], row[2]) for row in await conn.execute(made)}
    return [AttributedWin(win, Path(win.won_at, *moments[win.lead_id])) for win in wins]


async def fetch_touches(conn: AsyncConnection, leads: Sequence[UUID]) -> Mapping[UUID, list[Touch]]:
    """Fetch the touches of these leads and of those merged into them, in the order of time."""
    found: dict[UUID, list[Touch]] = {}
    for lead_id, *touch in await conn.execute(_TOUCHES, {"leads": list(leads)}):
        found.setdefault(lead_id, []).append(Touch(*touch))
    return found
