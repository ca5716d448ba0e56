"""Arithmetic of Kafka offsets: where to commit, where to go back to, how far behind. Pure; it talks to no broker."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple


class Place(NamedTuple):
    """One record's place in the cluster."""

    topic: str
    partition: int
    offset: int


Part = tuple[str, int]
"""Topic and partition."""


def next_offsets(places: Iterable[Place]) -> dict[Part, int]:
    """What to commit once all these records are done: per partition, the offset after the last."""
    after: dict[Part, int] = {}
    for topic, partition, offset in places:
        part = (topic, partition)
        if offset >= after.get(part, 0):
            after[part] = offset + 1
    return after


def first_offsets(places: Iterable[Place]) -> dict[Part, int]:
    """Where to go back to so that all these records are read again: per partition, the first offset."""
    first: dict[Part, int] = {}
    for topic, partition, offset in places:
        part = (topic, partition)
        if offset < first.get(part, offset + 1):
            first[part] = offset
    return first


def lag(positions: Mapping[Part, int], ends: Mapping[Part, int]) -> int:
    """Records between the next to read and the end, over the partitions of which both are known."""
    return sum(max(0, ends[part] - position) for part, position in positions.items() if part in ends)
