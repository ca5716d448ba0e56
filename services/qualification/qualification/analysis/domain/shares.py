"""Shares of counts, as reports show them, and when there is too little to take one seriously."""

from __future__ import annotations

DECIMALS = 4

FEW = 20
"""With fewer leads or decisions than these a share is called too small to say anything, and nothing is concluded from it."""


def share(part: int, whole: int) -> float | None:
    """part / whole, rounded; None of nothing."""
    return round(part / whole, DECIMALS) if whole else None
