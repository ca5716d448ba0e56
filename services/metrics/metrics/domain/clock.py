"""The projection of one SLA clock, and how each event changes it. The SLA monitor makes every decision."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from accord.contracts.sla_events import (
    BreachWithdrawn,
    ClockAtRisk,
    ClockBreached,
    ClockCancelled,
    ClockEvent,
    ClockMet,
    ClockStarted,
)
from accord.contracts.values import Department

ClockState = Literal["running", "breached", "met", "met_late", "cancelled"]


class Clock(Struct, frozen=True, gc=False):
    """One clock. `settled_at` is when it was met or cancelled; `breached_at` stays after a late answer."""

    clock_id: UUID
    lead_id: UUID | None
    clause: str
    obliges: Department
    sla_version: int
    owner: str | None
    source: str | None
    started_at: datetime
    due_at: datetime
    state: ClockState
    warned_fraction: float | None
    """The greatest warning fraction passed."""
    breached_at: datetime | None
    settled_at: datetime | None
    backfill: bool
    sequence: int


def apply_event(clock: Clock | None, event: ClockEvent) -> Clock:
    """Apply an event to the clock. A stale event, by `sequence`, changes nothing."""
    if clock is not None and event.sequence <= clock.sequence:
        return clock
    current = Clock(
        clock_id=event.clock_id,
        lead_id=event.lead_id,
        clause=event.clause,
        obliges=event.obliges,
        sla_version=event.sla_version,
        owner=event.owner,
        source=event.source,
        started_at=event.started_at,
        due_at=event.due_at,
        state=clock.state if clock else "running",
        warned_fraction=clock.warned_fraction if clock else None,
        breached_at=clock.breached_at if clock else None,
        settled_at=clock.settled_at if clock else None,
        backfill=event.backfill,
        sequence=event.sequence,
    )
    return _apply(current, event)


def _apply(current: Clock, event: ClockEvent) -> Clock:  # noqa: PLR0911 - one for each type
    match event:
        case ClockStarted():  # again, if a correction removed what had settled it
            return replace(current, state="running", breached_at=None, settled_at=None)
        case ClockAtRisk():
            return replace(current, warned_fraction=max(current.warned_fraction or 0, event.fraction))
        case ClockBreached():
            return replace(current, state="breached", breached_at=event.occurred_at)
        case ClockMet():
            return replace(current, state="met_late" if event.late else "met", settled_at=event.occurred_at)
        case BreachWithdrawn():
            return replace(current, state="met", breached_at=None, settled_at=event.met_at)
        case ClockCancelled():
            return replace(current, state="cancelled", settled_at=event.occurred_at)
        case _:
            return current
