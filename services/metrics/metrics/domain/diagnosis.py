"""Diagnosis: the gap between planned and actual revenue, split into volume, conversions, cycle time and deal size.

Revenue is a product: leads at the top, times the conversion of each stage, times the wins of the period for each win of
those leads, times the average deal. The split is the logarithmic mean Divisia index, whose terms sum to the gap.
Source: B. W. Ang, "The LMDI approach to decomposition analysis: a practical guide", Energy Policy 33 (2005) 867-871.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Context, Decimal, localcontext
from fractions import Fraction
from itertools import pairwise
from math import floor, prod
from typing import Literal

from msgspec import Struct

Method = Literal["logarithmic_mean", "first_zero_factor", "substitution", "nothing"]

METHOD_DESCRIPTIONS: dict[Method, str] = {
    "logarithmic_mean": "Each factor's term is the logarithmic mean of planned and actual revenue times ln(actual / planned).",
    "first_zero_factor": "Nothing was planned, or nothing came in: the whole gap is the first factor that is zero.",
    "substitution": "Revenue below zero has no logarithm: the factors are replaced one after the other.",
    "nothing": "Neither planned nor actual: there is no gap.",
}

_PRECISION = Context(prec=60)


class Chain(Struct, frozen=True, gc=False):
    """One side of the comparison: the leads that reached each stage, the wins of the period, and their revenue.

    The wins are those dated in the period; the last stage's leads are the wins of the leads that were due for it.
    """

    reached: tuple[Fraction, ...]
    wins: Fraction
    revenue: Fraction


class Split(Struct, frozen=True, gc=False):
    """The gap by factor, in the order volume, conversion into each further stage, cycle time, deal size."""

    method: Method
    terms: tuple[int, ...]
    """In minor units; they sum to the gap."""


def list_factors(chain: Chain) -> list[Fraction | None]:
    """List the factors of a chain; None where there is nothing to divide by."""
    conversions = [_divide(after, before) for before, after in pairwise(chain.reached)]
    cycle = _divide(chain.wins, chain.reached[-1])
    return [chain.reached[0], *conversions, cycle, _divide(chain.revenue, chain.wins)]


def _divide(part: Fraction, whole: Fraction) -> Fraction | None:
    return part / whole if whole else None


def split_gap(planned: Chain, actual: Chain, gap: int, units: int) -> Split:
    """Split the gap between two chains of the same stages; `gap` is in minor units, of which `units` make one.

    Where wins came from leads that were not due for the period, no conversion explains them: from the first stage that no
    due lead reached, all factors up to the cycle time count as cycle time.
    """
    before, after = list_factors(planned), list_factors(actual)
    if planned.revenue == 0 or actual.revenue == 0:
        return _split_zero(before, after, planned, actual, gap)
    empty = next((index for index, leads in enumerate(actual.reached) if leads == 0), None)
    if empty is not None:
        before, after = (
            _merge_into_cycle(chain, factors, empty) for chain, factors in ((planned, before), (actual, after))
        )
    pairs = [
        (Fraction(1) if x is None else x, Fraction(1) if y is None else y) for x, y in zip(before, after, strict=True)
    ]
    if planned.revenue < 0 or actual.revenue < 0:
        terms = [term * units for term in _substitute(pairs)]
        return Split("substitution", _round_to_sum(terms, gap))
    mean = _logarithmic_mean(planned.revenue * units, actual.revenue * units)
    with localcontext(_PRECISION):
        logarithms = [_decimal(y / x).ln() for x, y in pairs]
        return Split("logarithmic_mean", _round_to_sum([Fraction(mean * each) for each in logarithms], gap))


def _split_zero(
    before: Sequence[Fraction | None], after: Sequence[Fraction | None], planned: Chain, actual: Chain, gap: int
) -> Split:
    if planned.revenue == actual.revenue:
        return Split("nothing", (0,) * len(before))
    zero = before if planned.revenue == 0 else after
    index = zero.index(Fraction(0))
    return Split("first_zero_factor", tuple(gap if index == at else 0 for at in range(len(zero))))


def _merge_into_cycle(chain: Chain, factors: Sequence[Fraction | None], empty: int) -> list[Fraction | None]:
    cycle = len(factors) - 2
    merged = chain.wins / chain.reached[empty - 1] if empty else chain.wins
    kept: list[Fraction | None] = [factor if index < empty else None for index, factor in enumerate(factors[:cycle])]
    return [*kept, merged, factors[-1]]


def _substitute(pairs: Sequence[tuple[Fraction, Fraction]]) -> list[Fraction]:
    """The change as each factor is replaced, those before it by then actual and those after it still planned."""
    terms = []
    for index, (before, after) in enumerate(pairs):
        done = prod((y for _, y in pairs[:index]), start=Fraction(1))
        rest = prod((x for x, _ in pairs[index + 1 :]), start=Fraction(1))
        terms.append(done * (after - before) * rest)
    return terms


def _logarithmic_mean(before: Fraction, after: Fraction) -> Decimal:
    """L(a, b) = (b - a) / (ln b - ln a), and a where both are equal."""
    with localcontext(_PRECISION):
        if before == after:
            return _decimal(before)
        return _decimal(after - before) / _decimal(after / before).ln()


def _decimal(value: Fraction) -> Decimal:
    return Decimal(value.numerator) / Decimal(value.denominator)


def _round_to_sum(terms: Sequence[Fraction], total: int) -> tuple[int, ...]:
    """Round terms so that they sum to the total, which is their sum but for rounding; largest remainders go up."""
    parts = [floor(term) for term in terms]
    by_remainder = sorted(range(len(parts)), key=lambda index: (parts[index] - terms[index], index))
    missing = total - sum(parts)
    step = 1 if missing > 0 else -1
    for number in range(abs(missing)):
        parts[by_remainder[number % len(parts) if missing > 0 else -1 - number % len(parts)]] += step
    return tuple(parts)
