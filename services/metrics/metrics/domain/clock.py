"""The projection of one SLA clock, and how each event changes it. The SLA monitor makes every decision.

Each event sets or clears the breach, the settlement or both; of each the change with the highest sequence counts. So the
result does not depend on the order in which events are read, and a dead letter may be replayed late."""

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
    """One clock. `settled_at` is when it was met or cancelled; `breached_at` stays after a late answer.

    `sequence` is the highest one read; the other two are those of the events that set breach and settlement.
    """

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
    breach_sequence: int = 0
    settlement_sequence: int = 0


def apply_event(clock: Clock | None, event: ClockEvent) -> Clock:
    """Apply an event to the clock, in any order with the others, any number of times."""
    if clock is None:
        clock = _create_clock(event)
    elif event.sequence > clock.sequence:
        clock = replace(
            clock,
            owner=event.owner,
            source=event.source,
            due_at=event.due_at,
            backfill=event.backfill,
            sequence=event.sequence,
        )
    return _apply(clock, event)


def _create_clock(event: ClockEvent) -> Clock:
    return Clock(
        clock_id=event.clock_id,
        lead_id=event.lead_id,
        clause=event.clause,
        obliges=event.obliges,
        sla_version=event.sla_version,
        owner=event.owner,
        source=event.source,
        started_at=event.started_at,
        due_at=event.due_at,
        state="running",
        warned_fraction=None,
        breached_at=None,
        settled_at=None,
        backfill=event.backfill,
        sequence=event.sequence,
    )


def _apply(clock: Clock, event: ClockEvent) -> Clock:  # noqa: PLR0911 - one for each type
    match event:
        case ClockStarted():  # again, if a correction removed what had settled it
            return _set_settlement(_set_breach(clock, None, event.sequence), None, None, event.sequence)
        case ClockAtRisk():
            return replace(clock, warned_fraction=max(clock.warned_fraction or 0, event.fraction))
        case ClockBreached():  # after a settlement too, if a correction removed the answer
            return _set_settlement(_set_breach(clock, event.occurred_at, event.sequence), None, None, event.sequence)
        case ClockMet():
            return _set_settlement(clock, "met_late" if event.late else "met", event.occurred_at, event.sequence)
        case BreachWithdrawn():
            return _set_settlement(_set_breach(clock, None, event.sequence), "met", event.met_at, event.sequence)
        case ClockCancelled():
            return _set_settlement(clock, "cancelled", event.occurred_at, event.sequence)
        case _:
            return clock


def _set_breach(clock: Clock, at: datetime | None, sequence: int) -> Clock:
    """The clock with this breach, or without one, unless a later event has set it."""
    if sequence < clock.breach_sequence:
        return clock
    state = clock.state
    if state in ("running", "breached"):
        state = "running" if at is None else "breached"
    return replace(clock, breached_at=at, state=state, breach_sequence=sequence)


def _set_settlement(clock: Clock, settlement: ClockState | None, at: datetime | None, sequence: int) -> Clock:
    """The clock with this settlement, or without one, unless a later event has set it."""
    if sequence < clock.settlement_sequence:
        return clock
    state = settlement or ("running" if clock.breached_at is None else "breached")
    return replace(clock, state=state, settled_at=at, settlement_sequence=sequence)
