"""What the SLA monitor says: clocks started, at risk, breached, met or cancelled. Key: the lead id, else the clause."""

from __future__ import annotations

from typing import Annotated, ClassVar
from uuid import UUID

from msgspec import field

from accord.contracts.base import EventData, event
from accord.contracts.values import (
    ActorKind,
    Department,
    Handle,
    Key,
    Ordinal,
    Severity,
    SourceName,
    Timestamp,
    Version,
    Why,
    limits,
)


class ClockEvent(EventData, frozen=True, kw_only=True):
    """One clock of one clause."""

    clock_id: UUID
    lead_id: UUID | None = None
    """None for clauses over a period (volume, rate), whose key is the clause."""
    sequence: Ordinal
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
class ClockStarted(ClockEvent, frozen=True, kw_only=True):
    """A clause began to run for a lead."""

    type: ClassVar[str] = "sla.clock_started.v1"


@event
class ClockAtRisk(ClockEvent, frozen=True, kw_only=True):
    """A warning fraction of the time has passed."""

    type: ClassVar[str] = "sla.at_risk.v1"
    fraction: Annotated[float, *limits(gt=0)]


@event
class ClockBreached(ClockEvent, frozen=True, kw_only=True):
    """The deadline passed with the clause unkept, and everything recorded before it has been read."""

    type: ClassVar[str] = "sla.breached.v1"
    breach_id: UUID
    reassign: bool = False
    """The clause says that the lead is then taken away from `owner` and given to somebody else. Said by versions before
    `sla.escalated.v1`, which says it now."""


@event
class ClockMet(ClockEvent, frozen=True, kw_only=True):
    """The clause was kept at `occurred_at`."""

    type: ClassVar[str] = "sla.met.v1"
    late: bool
    """This was after the deadline."""
    actor_kind: ActorKind | None = None
    """Whose activity it was; None for decisions and stages, and where the tool does not tell."""


@event
class BreachWithdrawn(ClockEvent, frozen=True, kw_only=True):
    """A late report showed that the clause had been kept in time at `met_at`."""

    type: ClassVar[str] = "sla.breach_withdrawn.v1"
    breach_id: UUID
    met_at: Timestamp


@event
class ClockCancelled(ClockEvent, frozen=True, kw_only=True):
    """The lead left the clause's scope before the deadline; neither met nor breached."""

    type: ClassVar[str] = "sla.clock_cancelled.v1"
    why: Why


@event
class ClockRescheduled(ClockEvent, frozen=True, kw_only=True):
    """A pause began, ended or was corrected: `due_at` is the deadline now."""

    type: ClassVar[str] = "sla.clock_rescheduled.v1"
    paused: bool
    """The time stands still; the deadline moves until it goes on."""


@event
class ClockEscalated(ClockEvent, frozen=True, kw_only=True):
    """A fraction of the time has passed at which the clause agrees on a step. Once for each clock and fraction."""

    type: ClassVar[str] = "sla.escalated.v1"
    fraction: Annotated[float, *limits(gt=0)]
    breach_id: UUID
    """That of the breach; of a step before the deadline, the one that a breach would have."""
    notify: list[Handle] = field(default_factory=list)
    """Whom the clause names. Empty where the breach was acknowledged."""
    severity: Severity | None = None
    """The severity that the promise has from now on."""
    reassign: bool = False
    """The lead is taken away from `owner` and given to somebody else."""
    acknowledged_by: Handle | None = None


@event
class BreachAcknowledged(ClockEvent, frozen=True, kw_only=True):
    """Somebody took note of a breach: no further step of its clock notifies."""

    type: ClassVar[str] = "sla.breach_acknowledged.v1"
    breach_id: UUID
    acknowledged_by: Handle
