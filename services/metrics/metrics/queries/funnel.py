"""Gathers leads with the same journey into tallies. What a journey counts for is decided in domain/funnel.py."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Integer, Row, Select, func, literal_column, null, select
from sqlalchemy.ext.asyncio import AsyncConnection

from metrics.domain.choices import Choices
from metrics.domain.funnel import Journey, Tally
from metrics.queries.selection import entered_in_period, group_columns, group_key, group_names, selected
from metrics.tables import lead, stage_entry

STAGE_BEFORE_CAPTURE = "stage_before_capture"
"""Some entry is dated before the lead's capture."""
STAGE_OUT_OF_ORDER = "stage_out_of_order"
"""Otherwise: some entry is dated before the one it followed."""


async def tallies(conn: AsyncConnection, choices: Choices) -> list[Tally]:
    """The selected leads, those of one group, journey and anomalies as one."""
    groups = group_names(choices)
    rows = await conn.execute(_cohort(choices) if choices.mode == "cohort" else _period(choices))
    return [_tally(row, len(groups)) for row in rows]


async def selection_anomalies(
    conn: AsyncConnection, choices: Choices
) -> tuple[dict[tuple[Any, ...], int], dict[str, int]]:
    """The number of selected leads by group, and of those with an anomaly by kind."""
    leads: dict[tuple[Any, ...], int] = {}
    anomalies: dict[str, int] = {}
    flagged = _flagged(choices)
    statement = select(
        *(flagged.c[name] for name in group_names(choices)),
        flagged.c.before_capture,
        flagged.c.out_of_order,
        func.count(),
    ).group_by(*(literal_column(str(place + 1), Integer) for place in range(len(choices.by) + 2)))
    for *values, before_capture, out_of_order, count in await conn.execute(statement):
        key = group_key(values)
        leads[key] = leads.get(key, 0) + count
        for kind in _anomalies(before_capture, out_of_order):
            anomalies[kind] = anomalies.get(kind, 0) + count
    return leads, dict(sorted(anomalies.items()))


async def uncaptured(conn: AsyncConnection) -> int:
    """Leads that other services tell of and intake has not yet: they count in no group."""
    statement = (
        select(func.count()).select_from(lead).where(lead.c.captured_at.is_(None), lead.c.first_entered_at.is_not(None))
    )
    return int((await conn.execute(statement)).scalar_one())


def _flagged(choices: Choices) -> Any:
    return (
        select(
            *group_columns(choices),
            lead.c.lead_id,
            lead.c.path,
            func.coalesce(lead.c.first_entered_at < lead.c.captured_at, False).label("before_capture"),
            lead.c.out_of_order,
        )
        .where(selected(choices))
        .subquery("flagged")
    )


def _tallied(flagged: Any, choices: Choices, counted: Any) -> Select[Any]:
    columns = [flagged.c[name] for name in group_names(choices)]
    columns += [flagged.c.path, flagged.c.before_capture, flagged.c.out_of_order, counted]
    places = [literal_column(str(place + 1), Integer) for place in range(len(columns))]
    return select(*columns, func.count().label("leads")).group_by(*places)


def _cohort(choices: Choices) -> Select[Any]:
    return _tallied(_flagged(choices), choices, null().label("counted"))


def _period(choices: Choices) -> Select[Any]:
    inside = (
        select(stage_entry.c.lead_id, func.array_agg(stage_entry.c.position).label("counted"))
        .where(stage_entry.c.position.is_not(None), entered_in_period(choices))
        .group_by(stage_entry.c.lead_id)
        .subquery("inside")
    )
    flagged = _flagged(choices)
    return _tallied(flagged, choices, inside.c.counted).join_from(
        flagged, inside, flagged.c.lead_id == inside.c.lead_id
    )


def _tally(row: Row[Any], groups: int) -> Tally:
    path, before_capture, out_of_order, counted, leads = row[groups:]
    journey = Journey(tuple(path), None if counted is None else frozenset(counted))
    return Tally(group_key(row[:groups]), journey, leads, frozenset(_anomalies(before_capture, out_of_order)))


def _anomalies(before_capture: bool, out_of_order: bool) -> list[str]:
    """One kind a lead, so that the counts add up to the leads whose times are odd."""
    if before_capture:
        return [STAGE_BEFORE_CAPTURE]
    return [STAGE_OUT_OF_ORDER] if out_of_order else []
