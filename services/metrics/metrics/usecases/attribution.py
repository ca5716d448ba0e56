"""Reads how the wins of a period are shared among the touches before them. It writes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Literal
from uuid import UUID

from msgspec import Struct

from accord.db import Database
from metrics.domain.allocation import allocate
from metrics.domain.attribution import Model, Touch, weigh_touches
from metrics.domain.report_query import ReportQuery
from metrics.queries import attribution as attribution_query
from metrics.queries import stages as stages_query
from metrics.queries.attribution import AttributedWin
from metrics.usecases.reports import LEAD_TOPICS, choose_won_stage

Dimension = Literal["source", "campaign"]
WINS_MAX = 20_000
WIN_UNITS = 10_000
"""A win is shared in so many parts."""


class TooManyWins(ValueError):
    """The period has more wins than one report computes."""


class Credit(Struct, frozen=True):
    """What one source or campaign gets in one currency. Without a touch it is not attributed."""

    value: str | None
    is_attributed: bool
    currency: str | None
    win_units: int
    amount: Decimal


class AttributionReport(Struct, frozen=True):
    as_of: datetime | None
    wins: int
    credits: Sequence[Credit]


async def get_attribution(
    database: Database, query: ReportQuery, stage: str | None, model: Model, by: Dimension
) -> AttributionReport:
    """Get the credit of each source or campaign. Raises UnknownStage and TooManyWins."""
    async with database.read_transaction() as conn:
        await stages_query.begin_snapshot(conn)
        stages = await stages_query.fetch_stages(conn)
        won = choose_won_stage(stages, stage)
        opened = [known.key for known in stages.sales_path if known.kind == "open"]
        as_of, _ = await stages_query.fetch_as_of(conn, LEAD_TOPICS)
        last_open = opened[-1] if opened else None
        wins = await attribution_query.fetch_attributed_wins(conn, query, won, last_open, WINS_MAX + 1)
        if len(wins) > WINS_MAX:
            raise TooManyWins
        touches = await attribution_query.fetch_touches(conn, [found.win.lead_id for found in wins])
    credit = await asyncio.to_thread(share_wins, model, by, wins, touches)
    return AttributionReport(as_of, len(wins), credit)


def share_wins(
    model: Model, by: Dimension, wins: Sequence[AttributedWin], touches: Mapping[UUID, Sequence[Touch]]
) -> list[Credit]:
    """Share each win and its amount among the touches, and add up what each source or campaign got."""
    totals: dict[tuple[bool, str | None, str | None], tuple[int, Decimal]] = {}
    for found in wins:
        win, path = found.win, touches.get(found.win.lead_id, ())
        weights = weigh_touches(model, found.path, path)
        receivers = [(True, touch.source if by == "source" else touch.campaign) for touch in path]
        if not any(weights):
            weights, receivers = [Fraction(1)], [(False, None)]
        amount = win.amount or Decimal(0)
        exponent = amount.as_tuple().exponent
        places = max(2, -exponent if isinstance(exponent, int) else 2)
        parts = allocate(int(amount.scaleb(places)), weights)
        for (is_attributed, value), units, part in zip(receivers, allocate(WIN_UNITS, weights), parts, strict=True):
            key = (is_attributed, value, win.currency)
            before = totals.get(key, (0, Decimal(0)))
            totals[key] = (before[0] + units, before[1] + Decimal(part).scaleb(-places))
    return [
        Credit(value, is_attributed, currency, units, amount)
        for (is_attributed, value, currency), (units, amount) in sorted(totals.items(), key=_sort_key)
        if units or amount
    ]


def _sort_key(item: tuple[tuple[bool, str | None, str | None], object]) -> tuple[bool, bool, str, bool, str]:
    """Values by name, then touches that name none, then what is not attributed."""
    is_attributed, value, currency = item[0]
    return not is_attributed, value is None, value or "", currency is None, currency or ""
