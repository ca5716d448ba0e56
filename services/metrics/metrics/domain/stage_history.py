"""A lead's stage history, derived from the stage changes reported so far. Pure.

The history follows the producer's `sequence`, not the times: a deal may be reported as won before its lead was captured.
A correction says itself where it belongs: it replaces an entry, follows one, or withdraws one.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from msgspec import Struct

MICROSECOND = timedelta(microseconds=1)


class StageChange(Struct, frozen=True, gc=False):
    """One stage change as reported. `sequence` is unique within the lead; `replaces` and `follows` refer to others by it.

    `follows` 0 puts it first. `withdrawn`: it removes what it replaces.
    """

    sequence: int
    stage: str
    visit: int
    occurred_at: datetime
    correction: bool
    replaces: int | None = None
    withdrawn: bool = False
    follows: int | None = None


class StageEntry(Struct, frozen=True, gc=False):
    """One effective entry: its position in the history from 0, and its exit if there was one."""

    sequence: int
    stage: str
    position: int
    entered_at: datetime
    exited_at: datetime | None
    next_stage: str | None
    is_first: bool
    """The lead's first entry into this stage."""
    is_last: bool
    """The lead's last entry into this stage so far."""

    @property
    def duration_us(self) -> int | None:
        """Microseconds from entry to exit as reported, negative if the exit was dated earlier; None without an exit."""
        return None if self.exited_at is None else to_microseconds(self.exited_at - self.entered_at)


def to_microseconds(duration: timedelta) -> int:
    return duration // MICROSECOND


def derive_stage_history(changes: Iterable[StageChange]) -> list[StageEntry]:
    """Derive the effective entries, in order. The order and the multiplicity in which changes arrive do not matter.

    A later report of the same visit to a stage replaces the earlier one.
    """
    ordered: list[StageChange] = []
    for change in sorted({change.sequence: change for change in changes}.values(), key=lambda change: change.sequence):
        if change.replaces is not None:
            _apply_replacement(ordered, change)
        elif change.follows is not None:
            ordered.insert(_index_after(ordered, change), change)
        else:
            _apply_report(ordered, change)
    return _build_entries(ordered)


def _apply_replacement(ordered: list[StageChange], change: StageChange) -> None:
    """Replace the entry that the change names; to withdraw an unknown entry does nothing."""
    index = _find_index(ordered, change.replaces)
    if index is not None:
        ordered[index : index + 1] = [] if change.withdrawn else [change]
    elif not change.withdrawn:
        ordered.insert(_index_by_time(ordered, change.occurred_at), change)


def _index_after(ordered: list[StageChange], change: StageChange) -> int:
    if change.follows == 0:
        return 0
    index = _find_index(ordered, change.follows)
    return _index_by_time(ordered, change.occurred_at) if index is None else index + 1


def _find_index(ordered: list[StageChange], sequence: int | None) -> int | None:
    return next((index for index, existing in enumerate(ordered) if existing.sequence == sequence), None)


def _apply_report(ordered: list[StageChange], change: StageChange) -> None:
    """Append the change, or replace the same visit; a correction that names no entry is inserted by its time."""
    index = _find_visit(ordered, change)
    if change.correction:
        if index is not None:
            del ordered[index]
        ordered.insert(_index_by_time(ordered, change.occurred_at), change)
    elif index is not None:
        ordered[index] = change
    else:
        ordered.append(change)


def _find_visit(ordered: list[StageChange], change: StageChange) -> int | None:
    for index, existing in enumerate(ordered):
        if existing.stage == change.stage and existing.visit == change.visit:
            return index
    return None


def _index_by_time(ordered: list[StageChange], at: datetime) -> int:
    for index in range(len(ordered), 0, -1):
        if ordered[index - 1].occurred_at <= at:
            return index
    return 0


def _build_entries(ordered: list[StageChange]) -> list[StageEntry]:
    last_position = {change.stage: index for index, change in enumerate(ordered)}
    seen_stages: set[str] = set()
    entries = []
    for index, change in enumerate(ordered):
        following = ordered[index + 1] if index + 1 < len(ordered) else None
        entries.append(
            StageEntry(
                sequence=change.sequence,
                stage=change.stage,
                position=index,
                entered_at=change.occurred_at,
                exited_at=following.occurred_at if following else None,
                next_stage=following.stage if following else None,
                is_first=change.stage not in seen_stages,
                is_last=last_position[change.stage] == index,
            )
        )
        seen_stages.add(change.stage)
    return entries
