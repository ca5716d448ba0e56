"""How many leads are folded at once: few enough that all their activities can be held. It reads none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

ACTIVITIES_MAX = 20_000
"""Of one portion; as many as are folded of a single lead."""


def take_within_budget(page: Sequence[tuple[T, int]]) -> list[T]:
    """The first of a page, each given with how many activities are folded of it, that may be held together; at least one."""
    found: list[T] = []
    activities = 0
    for one, count in page:
        activities += count
        if found and activities > ACTIVITIES_MAX:
            break
        found.append(one)
    return found
