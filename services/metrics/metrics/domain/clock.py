"""What metrics knows of one SLA clock, and how each event changes it. The SLA monitor decides; nothing is decided
here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal
from uuid import UUID

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


@dataclass(frozen=True, slots=True)
class Clock:
    """One clock. `settled_at` is when it was met or cancelled; `breached_at` stays after a late fulfilment."""

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
    warned: float | None
    """The greatest warning fraction passed."""
    breached_at: datetime | None
    settled_at: datetime | None
    backfill: bool
    sequence: int


def after(clock: Clock | None, event: ClockEvent) -> Clock:
    """The clock after an event. A stale event, by `sequence`, changes nothing."""
    if clock is not None and event.sequence <= clock.sequence:
        return clock
    known = Clock(
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
        warned=clock.warned if clock else None,
        breached_at=clock.breached_at if clock else None,
        settled_at=clock.settled_at if clock else None,
        backfill=event.backfill,
        sequence=event.sequence,
    )
    return _after(known, event)


def _after(known: Clock, event: ClockEvent) -> Clock:  # noqa: PLR0911 - one for each type
    match event:
        case ClockStarted():  # again, where what had settled it was corrected away
            return replace(known, state="running", breached_at=None, settled_at=None)
        case ClockAtRisk():
            return replace(known, warned=max(known.warned or 0, event.fraction))
        case ClockBreached():
            return replace(known, state="breached", breached_at=event.occurred_at)
        case ClockMet():
            return replace(known, state="met_late" if event.late else "met", settled_at=event.occurred_at)
        case BreachWithdrawn():
            return replace(known, state="met", breached_at=None, settled_at=event.met_at)
        case ClockCancelled():
            return replace(known, state="cancelled", settled_at=event.occurred_at)
        case _:
            return known
