"""Quantiles of durations, by one stated definition. Durations are whole microseconds, so that no sum depends on its
order."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor

QUANTILE_DESCRIPTION = (
    "p50, p75 and p90 interpolate linearly between the two nearest of the sorted durations (Hyndman and Fan's type 7)."
)


def quantile(ordered: Sequence[int], q: float) -> float | None:
    """The q-quantile of an ascending sequence, in its own unit; None when it is empty.

    Linear interpolation at (n - 1) q, as PostgreSQL's percentile_cont and numpy's default.
    Source: R. J. Hyndman, Y. Fan, "Sample quantiles in statistical packages", The American Statistician 50 (1996)
    361-365, type 7.
    """
    if not ordered:
        return None
    rank = (len(ordered) - 1) * q
    below = floor(rank)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (rank - below)
