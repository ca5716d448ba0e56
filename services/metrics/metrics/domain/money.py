"""Currencies: how many minor units make one, so that money is split and rounded to what can be paid."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction

_PLACES = {
    **dict.fromkeys("BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF".split(), 0),
    **dict.fromkeys("BHD IQD JOD KWD LYD OMR TND".split(), 3),
    **dict.fromkeys("CLF UYW".split(), 4),
}
"""Decimal places other than two. Source: ISO 4217, list one, 2026."""


def decimal_places(currency: str) -> int:
    return _PLACES.get(currency, 2)


def minor_units(currency: str) -> int:
    """How many minor units make one of the currency."""
    return int(10 ** decimal_places(currency))


def round_decimal(value: Fraction, places: int) -> Decimal:
    """An exact figure as a decimal, half to even."""
    units = round(value * 10**places)
    return Decimal(units).scaleb(-places).quantize(Decimal(1).scaleb(-places), ROUND_HALF_EVEN)
