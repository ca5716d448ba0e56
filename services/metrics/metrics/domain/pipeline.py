"""The pipeline: open deals, how fast they become revenue, and what changed between two moments. Pure.

Amounts of different currencies are never added: each currency is a line of its own, and so are deals without an amount.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from decimal import Decimal
from fractions import Fraction
from typing import Literal
from uuid import UUID

from msgspec import Struct

from metrics.domain.definition_view import Stages
from metrics.domain.quantiles import quantile

Reason = Literal["no_closed_deal", "cycle_of_zero_days"]

_DAY_US = 86_400_000_000


class ClosedDeals(Struct, frozen=True, gc=False):
    """The deals that were closed in a period. `cycles_us` are the wins' durations from first entry to win, ascending."""

    won: int
    lost: int
    cycles_us: tuple[int, ...]

    @property
    def win_rate(self) -> Fraction | None:
        closed = self.won + self.lost
        return Fraction(self.won, closed) if closed else None

    @property
    def median_cycle_us(self) -> float | None:
        return quantile(self.cycles_us, 0.5)


def measure_velocity(total: Decimal, closed: ClosedDeals) -> tuple[Fraction | None, Reason | None]:
    """Measure revenue a day: open deals x their average amount (which is their total) x win rate / median cycle in days.

    None with a reason where there is nothing to divide by; without any win it is zero.
    """
    if closed.win_rate is None:
        return None, "no_closed_deal"
    if closed.win_rate == 0:
        return Fraction(0), None
    cycle = closed.median_cycle_us
    if not cycle or cycle <= 0:
        return None, "cycle_of_zero_days"
    return Fraction(total) * closed.win_rate * _DAY_US / Fraction(cycle), None


TermName = Literal[
    "came_in",
    "grew",
    "shrank",
    "slipped",
    "pulled_in",
    "won",
    "lost",
    "recycled",
    "disqualified",
    "moved_on",
    "moved_back",
    "withdrawn",
    "revalued",
]
TERMS: tuple[TermName, ...] = TermName.__args__  # type: ignore[attr-defined]
"""In the order in which they are shown."""


class DealState(Struct, frozen=True, gc=False):
    """A lead's deal as of a moment: where it stood and what it was worth."""

    stage: str
    amount: Decimal | None
    currency: str | None
    expected_close: date | None


class Scope(Struct, frozen=True, gc=False):
    """Which deals are the pipeline: in an open stage, or in this one; and expected to close on these days, if given."""

    stage: str | None = None
    close_from: date | None = None
    close_to: date | None = None

    def is_in_stage(self, stages: Stages, deal: DealState) -> bool:
        known = stages.by_key.get(deal.stage)
        return known is not None and known.kind == "open" and self.stage in (None, deal.stage)

    def is_in_days(self, deal: DealState) -> bool:
        if self.close_from is None and self.close_to is None:
            return True
        day = deal.expected_close
        if day is None:
            return False
        return (self.close_from or day) <= day and (self.close_to is None or day < self.close_to)


class Change(Struct, frozen=True, gc=False):
    """One lead's part of a term, on the line of a currency. `leads` is how it changes the number of leads on the line."""

    lead_id: UUID
    currency: str | None
    term: TermName
    leads: int
    amount: Decimal


class Line(Struct, frozen=True, gc=False):
    """The waterfall of one currency: it opens, each term changes it, it closes."""

    currency: str | None
    opening_leads: int
    opening_amount: Decimal
    closing_leads: int
    closing_amount: Decimal
    terms: dict[TermName, tuple[int, int, Decimal]]
    """Of each term the leads behind it, how they change the number of leads, and the amount."""


_ZERO = Decimal(0)


def list_changes(
    stages: Stages, scope: Scope, lead_id: UUID, before: DealState | None, after: DealState | None
) -> list[Change]:
    """List what changed of one lead between two moments. Only the two ends are compared, for money and leads alike.

    A deal that leaves grows or shrinks first, and leaves with the amount that it has by then.
    """
    was_in = before is not None and scope.is_in_stage(stages, before) and scope.is_in_days(before)
    is_in = after is not None and scope.is_in_stage(stages, after) and scope.is_in_days(after)
    if before is None or not was_in:
        if after is None or not is_in:
            return []
        pulled = before is not None and scope.is_in_stage(stages, before)
        return [Change(lead_id, after.currency, "pulled_in" if pulled else "came_in", 1, after.amount or _ZERO)]
    if after is None:
        return [Change(lead_id, before.currency, "withdrawn", -1, -(before.amount or _ZERO))]
    changes = _list_value_changes(lead_id, before, after)
    if not is_in:
        changes.append(
            Change(lead_id, after.currency, _name_exit(stages, scope, before, after), -1, -(after.amount or _ZERO))
        )
    return changes


def _list_value_changes(lead_id: UUID, before: DealState, after: DealState) -> list[Change]:
    old, new = before.amount or _ZERO, after.amount or _ZERO
    if before.currency != after.currency:
        return [
            Change(lead_id, before.currency, "revalued", -1, -old),
            Change(lead_id, after.currency, "revalued", 1, new),
        ]
    if old == new:
        return []
    return [Change(lead_id, after.currency, "grew" if new > old else "shrank", 0, new - old)]


def _name_exit(stages: Stages, scope: Scope, before: DealState, after: DealState) -> TermName:
    stood, stands = stages.by_key.get(before.stage), stages.by_key.get(after.stage)
    if stands is None or stood is None:
        return "withdrawn"
    if scope.is_in_stage(stages, after):
        return "slipped"
    if stands.kind == "open":
        return "moved_on" if stands.rank > stood.rank else "moved_back"
    return stands.kind


def build_waterfall(
    stages: Stages, scope: Scope, deals: Iterable[tuple[UUID, DealState | None, DealState | None]]
) -> tuple[list[Line], list[Change]]:
    """Build the line of each currency, and the changes behind the terms."""
    opening: dict[str | None, list[Decimal]] = {}
    closing: dict[str | None, list[Decimal]] = {}
    changes: list[Change] = []
    for lead_id, before, after in deals:
        changes += list_changes(stages, scope, lead_id, before, after)
        for state, side in ((before, opening), (after, closing)):
            if state is not None and scope.is_in_stage(stages, state) and scope.is_in_days(state):
                side.setdefault(state.currency, []).append(state.amount or _ZERO)
    currencies = opening.keys() | closing.keys() | {change.currency for change in changes}
    lines = []
    for currency in sorted(currencies, key=lambda name: (name is None, name or "")):
        first, last = opening.get(currency, []), closing.get(currency, [])
        terms = _sum_terms(change for change in changes if change.currency == currency)
        lines.append(Line(currency, len(first), sum(first, _ZERO), len(last), sum(last, _ZERO), terms))
    return lines, changes


def _sum_terms(changes: Iterable[Change]) -> dict[TermName, tuple[int, int, Decimal]]:
    found: dict[TermName, tuple[int, int, Decimal]] = dict.fromkeys(TERMS, (0, 0, _ZERO))
    for change in changes:
        behind, leads, amount = found[change.term]
        found[change.term] = behind + 1, leads + change.leads, amount + change.amount
    return found
