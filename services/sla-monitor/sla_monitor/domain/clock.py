"""One clock of one clause on one lead: how it is opened, answered, left and fired. Pure; it reads no clock.

What becomes of a clock follows from four moments alone, in whatever order they become known:

- `started_at`, when the trigger occurred, and `due_at`, when the time allowed is used up;
- `answered_at`, the earliest answer known that occurred at or after the start;
- `left_at`, the earliest moment known at which the lead left the scope (won, lost, disqualified, merged, erased).

An answer until the deadline keeps the clause (`met`); else leaving until the deadline cancels the clock; else it is breached
at the deadline, and met late by an answer after it. An answer in time is good news at once, and nothing takes it back.
Everything else waits until the watermark has passed: then whatever was recorded before it has been read. What was in time
and is reported later than that withdraws the breach, once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID, uuid5

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

State = Literal["running", "met", "breached", "met_late", "cancelled"]

BACKFILL_AFTER = timedelta(hours=1)
"""A trigger that was recorded later than this after it occurred is history: its clock counts and notifies nobody."""

_NAMES = UUID("6f1f3f0a-5d0f-4c1f-9a3e-0a52c1b0c5e1")


@dataclass(frozen=True, slots=True)
class Warn:
    """The moment at which this fraction of the time has passed."""

    fraction: float
    at: datetime


@dataclass(frozen=True, slots=True)
class Clock:
    """A clause running for a lead, pinned to the version it started under. `sequence` counts what was said of it."""

    clock_id: UUID
    lead_id: UUID
    clause: str
    obliges: Department
    sla_version: int
    trigger: str
    """What started it, unique for the clause and the lead: `stage:mql:2`."""
    cause: UUID | None
    """The decision that led to the trigger. What it led to besides is neither an answer nor leaving."""
    owner: str | None
    source: str | None
    started_at: datetime
    due_at: datetime
    warnings: tuple[Warn, ...] = ()
    warned: int = 0
    state: State = "running"
    answered_at: datetime | None = None
    left_at: datetime | None = None
    left_why: str | None = None
    breached: bool = False
    """A breach was announced; it stays so when the breach is withdrawn."""
    withdrawn_at: datetime | None = None
    """When the breach was withdrawn (the time of recording)."""
    backfill: bool = False
    sequence: int = 0

    @property
    def breach_id(self) -> UUID | None:
        return breach_id(self.clock_id) if self.breached else None

    @property
    def next_due(self) -> datetime | None:
        """When there is something to fire, once the watermark has passed it; None if it is settled."""
        if self.state != "running":
            return None
        moments = [self.due_at]
        if self.left_at is not None:
            moments.append(self.left_at)
        if self.warned < len(self.warnings):
            moments.append(self.warnings[self.warned].at)
        return min(moments)


@dataclass(frozen=True, slots=True)
class Decision:
    """The clock after something became known, and what there is to say of it, in order."""

    clock: Clock
    events: tuple[ClockEvent, ...] = ()


def clock_id(lead_id: UUID, clause: str, trigger: str) -> UUID:
    """The same for the same trigger, however often it is read."""
    return uuid5(_NAMES, f"{lead_id}/{clause}/{trigger}")


def breach_id(clock: UUID) -> UUID:
    """A clock has one breach at most."""
    return uuid5(clock, "breach")


def start(clock: Clock, now: datetime) -> Decision:
    """Announce a clock that was opened."""
    return _saying(clock, now, ("started", clock.started_at))


def answer(clock: Clock, at: datetime, now: datetime) -> Decision:
    """An answer that occurred at `at`. One before the start, or later than one that is known, changes nothing."""
    if at < clock.started_at or (clock.answered_at is not None and clock.answered_at <= at):
        return Decision(clock)
    return _settle(replace(clock, answered_at=at), now)


def leave(clock: Clock, at: datetime, why: str, now: datetime) -> Decision:
    """The lead left the scope at `at`. Before the start, or later than is known, it changes nothing."""
    if at < clock.started_at or (clock.left_at is not None and clock.left_at <= at):
        return Decision(clock)
    return _settle(replace(clock, left_at=at, left_why=why), now)


def fire(clock: Clock, watermark: datetime, now: datetime) -> Decision:
    """What the passing of time says of a running clock, now that all recorded before `watermark` has been read."""
    if clock.state != "running":
        return Decision(clock)
    said: list[tuple[str, datetime]] = []
    end = clock.due_at if clock.left_at is None else min(clock.due_at, clock.left_at)
    warned = clock.warned
    while warned < len(clock.warnings) and clock.warnings[warned].at < watermark:
        if clock.warnings[warned].at < end:
            said.append((f"at_risk:{warned}", clock.warnings[warned].at))
        warned += 1
    clock = replace(clock, warned=warned)
    if end < watermark:
        clock, more = _at_the_end(clock)
        said += more
    return _saying(clock, now, *said)


def outcome(clock: Clock) -> State:
    """What becomes of a clock whose deadline has passed, if nothing more becomes known."""
    answered, left, due = clock.answered_at, clock.left_at, clock.due_at
    if answered is not None and answered <= due:
        return "met"
    if left is not None and left <= due:
        return "cancelled"
    return "breached" if answered is None else "met_late"


def _at_the_end(clock: Clock) -> tuple[Clock, list[tuple[str, datetime]]]:
    """A running clock whose deadline, or the lead's leaving, lies below the watermark."""
    state = outcome(clock)
    if state == "cancelled" and clock.left_at is not None:
        return replace(clock, state=state), [("cancelled", clock.left_at)]
    said = [("breached", clock.due_at)]
    if state == "met_late" and clock.answered_at is not None:
        said.append(("met_late", clock.answered_at))
    return replace(clock, state=state, breached=True), said


def _settle(clock: Clock, now: datetime) -> Decision:
    """An answer or a leaving became known: what it changes without waiting for the watermark."""
    after = outcome(clock)
    if after == clock.state:
        return Decision(clock)
    if clock.state != "running":
        return _revise(clock, after, now)
    if after == "met" and clock.answered_at is not None:
        return _saying(replace(clock, state="met"), now, ("met", clock.answered_at))
    return Decision(clock)


def _revise(clock: Clock, after: State, now: datetime) -> Decision:
    """A settled clock turns out otherwise, and for the better, by a late report."""
    at = clock.left_at if after == "cancelled" else clock.answered_at
    if at is None:
        return Decision(clock)
    settled = replace(clock, state=after)
    said: list[tuple[str, datetime]] = []
    if clock.state != "cancelled" and after in ("met", "cancelled"):
        settled = replace(settled, withdrawn_at=now)
        said.append(("withdrawn", at))
    if after != "met" or clock.state == "cancelled":
        said.append((after, at))
    return _saying(settled, now, *said)


def _saying(clock: Clock, now: datetime, *said: tuple[str, datetime]) -> Decision:
    """The clock with its sequence advanced, and the events."""
    events = tuple(_event(clock, clock.sequence + number, what, at, now) for number, (what, at) in enumerate(said, 1))
    return Decision(replace(clock, sequence=clock.sequence + len(events)), events)


def _event(clock: Clock, sequence: int, what: str, at: datetime, now: datetime) -> ClockEvent:
    fields: dict[str, object] = {
        "clock_id": clock.clock_id,
        "lead_id": clock.lead_id,
        "sequence": sequence,
        "clause": clock.clause,
        "obliges": clock.obliges,
        "sla_version": clock.sla_version,
        "owner": clock.owner,
        "source": clock.source,
        "started_at": clock.started_at,
        "due_at": clock.due_at,
        "backfill": clock.backfill,
        "occurred_at": at,
        "recorded_at": now,
    }
    breach = {"breach_id": breach_id(clock.clock_id)}
    name, _, number = what.partition(":")
    match name:
        case "started":
            return ClockStarted.model_validate(fields)
        case "at_risk":
            return ClockAtRisk.model_validate({**fields, "fraction": clock.warnings[int(number)].fraction})
        case "breached":
            return ClockBreached.model_validate({**fields, **breach})
        case "withdrawn":
            return BreachWithdrawn.model_validate({**fields, **breach, "met_at": at})
        case "cancelled":
            return ClockCancelled.model_validate({**fields, "why": clock.left_why or "the lead left the scope"})
        case _:
            return ClockMet.model_validate({**fields, "late": name == "met_late"})
