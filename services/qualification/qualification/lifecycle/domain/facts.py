"""The facts of a lead's log, each with its position. They say what happened, never what follows.

A log is ordered by position: the moment, then the rank of the kind, then a tie-breaker that grows with recording. Time
itself comes first in its moment (rank TIME), so that its effects come before any other fact of that moment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import NamedTuple
from uuid import UUID

from msgspec import Struct, field

from accord.contracts.intake_events import LeadState
from accord.contracts.values import Department, Money, Party

TIME, PROFILE, ACTIVITY, DECISION, ASSIGNMENT, MERGE, VERSION = range(-1, 6)
"""The ranks of one moment: a profile before the activity that it came with, and both before what was decided on them."""

NIL = UUID(int=0)
LAST, LAST_TIE = 99, UUID(int=2**128 - 1)
"""After all facts of a moment."""


class LogPosition(NamedTuple):
    """Where a fact stands in the order of its lead's log."""

    at: datetime
    rank: int
    tie: UUID


class ProfileChanged(Struct, frozen=True, gc=False):
    """The whole public profile as intake published it. `at` is the moment it counts from: never before the lead's capture."""

    at: datetime
    sequence: int
    state: LeadState

    @property
    def position(self) -> LogPosition:
        return LogPosition(self.at, PROFILE, UUID(int=self.sequence))


@dataclass(frozen=True, slots=True)
class ActivityOccurred:
    """An activity around the lead."""

    at: datetime
    activity_id: UUID
    kind: str
    by: Party

    @property
    def position(self) -> LogPosition:
        return LogPosition(self.at, ACTIVITY, self.activity_id)


Answer = bool | str
"""A BANT answer: yes or no, or one short word of the sales team's own scale. Never free text."""


class Fields(Struct, frozen=True, gc=False):
    """What a decision carries, checked for type; None or absent is not given."""

    amount: Money | None = None
    expected_close: date | None = None
    answers: Mapping[str, Answer] = field(default_factory=dict)

    def has(self, name: str) -> bool:
        if name == "amount":
            return self.amount is not None
        if name == "expected_close":
            return self.expected_close is not None
        return name in self.answers


NO_FIELDS = Fields()


class Decision(Struct, frozen=True, gc=False):
    """A decision of a person or the CRM. `occurred_at` is in UTC."""

    decision_id: UUID
    decision: str
    actor: str
    occurred_at: datetime
    department: Department | None = None
    reason: str | None = None
    fields: Fields = NO_FIELDS


class DecisionAccepted(Struct, frozen=True, gc=False):
    """A decision that was accepted, and where it led under the version of that moment. Later facts do not change it."""

    at: datetime
    decision: Decision
    stage: str
    version: int

    @property
    def position(self) -> LogPosition:
        return LogPosition(self.at, DECISION, self.decision.decision_id)


class OwnerAssigned(Struct, frozen=True, gc=False):
    """The lead was given to somebody, or to nobody. Rules choose by the state of all leads, so a replay takes it as it was."""

    at: datetime
    assignment_id: UUID
    owner: str | None

    @property
    def position(self) -> LogPosition:
        return LogPosition(self.at, ASSIGNMENT, self.assignment_id)


class MergeApplied(Struct, frozen=True, gc=False):
    """Another lead turned out to be this one: what it does from here on belongs to this lead."""

    at: datetime
    merge_id: UUID
    merged_lead_id: UUID
    sequence: int
    state: LeadState

    @property
    def position(self) -> LogPosition:
        return LogPosition(self.at, MERGE, self.merge_id)


class VersionApplied(Struct, frozen=True, gc=False):
    """From here on the lead is evaluated by this version of the definition."""

    at: datetime
    version: int

    @property
    def position(self) -> LogPosition:
        return LogPosition(self.at, VERSION, UUID(int=self.version))


Fact = ProfileChanged | ActivityOccurred | DecisionAccepted | OwnerAssigned | MergeApplied | VersionApplied
