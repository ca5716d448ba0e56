"""Splits a whole number of units over parts, so that the parts sum to the whole to the last unit."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import floor


def allocate(total: int, weights: Sequence[Fraction]) -> list[int]:
    """Allocate units in proportion to the weights by largest remainder; of equal remainders the first gets the unit.

    A negative total is the mirror of the positive one, so that what is taken back is what was given. Money is allocated in
    its minor units. Without any weight everything goes to the first part.
    Raises ValueError if there is nothing to allocate to, or a weight is negative.
    """
    if not weights or any(weight < 0 for weight in weights):
        raise ValueError("there must be weights, and none below zero")
    if total < 0:
        return [-part for part in allocate(-total, weights)]
    whole = sum(weights)
    if whole == 0:
        return [total, *[0] * (len(weights) - 1)]
    exact = [total * weight / whole for weight in weights]
    parts = [floor(part) for part in exact]
    by_remainder = sorted(range(len(parts)), key=lambda index: (parts[index] - exact[index], index))
    for index in by_remainder[: total - sum(parts)]:
        parts[index] += 1
    return parts
