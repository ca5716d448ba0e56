"""What the SLA monitor says: clocks started, at risk, breached, met or cancelled. Key: the lead id, else the clause."""

from __future__ import annotations

from typing import ClassVar
from uuid import UUID

from pydantic import Field

from accord.contracts.base import EventData, event
from accord.contracts.values import Department, Handle, Key, SourceName, Timestamp, Version, Why


class ClockEvent(EventData):
    """One clock of one clause."""

    clock_id: UUID
    lead_id: UUID | None = None
    """None for clauses over a period (volume, rate), whose key is the clause."""
    sequence: int = Field(ge=1)
    """Counts this clock's events from 1, without gaps."""
    clause: Key
    obliges: Department
    sla_version: Version
    owner: Handle | None = None
    source: SourceName | None = None
    started_at: Timestamp
    due_at: Timestamp
    backfill: bool = False
    """True for history imported from the past: it counts in attainment but notifies nobody."""

    @property
    def key(self) -> str:
        return str(self.lead_id) if self.lead_id else self.clause


@event
class ClockStarted(ClockEvent):
    """A clause began to run for a lead."""

    type: ClassVar[str] = "sla.clock_started.v1"


@event
class ClockAtRisk(ClockEvent):
    """A warning fraction of the time has passed."""

    type: ClassVar[str] = "sla.at_risk.v1"
    fraction: float = Field(gt=0)


@event
class ClockBreached(ClockEvent):
    """The deadline passed with the clause unkept, and everything recorded before it has been read."""

    type: ClassVar[str] = "sla.breached.v1"
    breach_id: UUID
    reassign: bool = False
    """The clause says that the lead is then taken away from `owner` and given to somebody else."""


@event
class ClockMet(ClockEvent):
    """The clause was kept at `occurred_at`."""

    type: ClassVar[str] = "sla.met.v1"
    late: bool
    """This was after the deadline."""


@event
class BreachWithdrawn(ClockEvent):
    """A late report showed that the clause had been kept in time at `met_at`."""

    type: ClassVar[str] = "sla.breach_withdrawn.v1"
    breach_id: UUID
    met_at: Timestamp


@event
class ClockCancelled(ClockEvent):
    """The lead left the clause's scope before the deadline; neither met nor breached."""

    type: ClassVar[str] = "sla.clock_cancelled.v1"
    why: Why
