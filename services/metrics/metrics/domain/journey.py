"""A lead's way through the stages, derived from the stage changes reported so far. Reads nothing and forgets nothing.

The chain follows the producer's `sequence`, not the times: a deal may be reported as won before its lead was
captured, and it
was won all the same. A correction says itself where it belongs: in place of an entry, after one, or, that an entry
never was.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Change:
    """One stage change as reported. `sequence` is unique within the lead; `replaces` and `follows` name others by it, and
    `follows` 0 is the first place. `withdrawn`: nothing comes in place of what it replaces."""

    sequence: int
    stage: str
    visit: int
    occurred_at: datetime
    correction: bool
    replaces: int | None = None
    withdrawn: bool = False
    follows: int | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry that counts: its place in the chain from 0, and where and when it went on, if it did."""

    sequence: int
    stage: str
    position: int
    entered_at: datetime
    exited_at: datetime | None
    next_stage: str | None
    first: bool
    """The lead's first entry into this stage."""
    last: bool
    """The lead's last entry into this stage so far."""

    @property
    def duration_us(self) -> int | None:
        """Microseconds from entry to exit as reported, so negative where the exit was dated earlier; None while it
        stays."""
        return None if self.exited_at is None else microseconds(self.exited_at - self.entered_at)


def microseconds(duration: timedelta) -> int:
    return duration // MICROSECOND


def chain(changes: Iterable[Change]) -> list[Entry]:
    """The entries that count, in order. The order and the multiplicity in which changes arrived do not matter.

    A later report of the same visit to a stage replaces the earlier one, which is then in no entry.
    """
    ordered: list[Change] = []
    for change in sorted({change.sequence: change for change in changes}.values(), key=lambda change: change.sequence):
        if change.replaces is not None:
            _replace(ordered, change)
        elif change.follows is not None:
            ordered.insert(_place_after(ordered, change), change)
        else:
            _report(ordered, change)
    return _entries(ordered)


def _replace(ordered: list[Change], change: Change) -> None:
    """In place of the one that it names; of one that was never heard of nothing can be withdrawn."""
    place = _place_of(ordered, change.replaces)
    if place is not None:
        ordered[place : place + 1] = [] if change.withdrawn else [change]
    elif not change.withdrawn:
        ordered.insert(_place_by_time(ordered, change.occurred_at), change)


def _place_after(ordered: list[Change], change: Change) -> int:
    if change.follows == 0:
        return 0
    place = _place_of(ordered, change.follows)
    return _place_by_time(ordered, change.occurred_at) if place is None else place + 1


def _place_of(ordered: list[Change], sequence: int | None) -> int | None:
    return next((place for place, known in enumerate(ordered) if known.sequence == sequence), None)


def _report(ordered: list[Change], change: Change) -> None:
    """The next one, or a later report of a visit that is there; a correction that names nothing is placed by its time."""
    place = _place_of_visit(ordered, change)
    if change.correction:
        if place is not None:
            del ordered[place]
        ordered.insert(_place_by_time(ordered, change.occurred_at), change)
    elif place is not None:
        ordered[place] = change
    else:
        ordered.append(change)


def _place_of_visit(ordered: list[Change], change: Change) -> int | None:
    for place, known in enumerate(ordered):
        if known.stage == change.stage and known.visit == change.visit:
            return place
    return None


def _place_by_time(ordered: list[Change], at: datetime) -> int:
    for place in range(len(ordered), 0, -1):
        if ordered[place - 1].occurred_at <= at:
            return place
    return 0


def _entries(ordered: list[Change]) -> list[Entry]:
    last_place = {change.stage: place for place, change in enumerate(ordered)}
    seen: set[str] = set()
    entries = []
    for place, change in enumerate(ordered):
        following = ordered[place + 1] if place + 1 < len(ordered) else None
        entries.append(
            Entry(
                sequence=change.sequence,
                stage=change.stage,
                position=place,
                entered_at=change.occurred_at,
                exited_at=following.occurred_at if following else None,
                next_stage=following.stage if following else None,
                first=change.stage not in seen,
                last=last_place[change.stage] == place,
            )
        )
        seen.add(change.stage)
    return entries
