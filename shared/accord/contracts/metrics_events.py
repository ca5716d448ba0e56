"""What metrics says: goals reached and rewards earned or taken back. Key: the goal, or the reward's rule."""

from __future__ import annotations

from typing import ClassVar, Literal
from uuid import UUID

from accord.contracts.base import EventData, event
from accord.contracts.values import Day, DecimalText, Handle, Key, Money, Value, Version, Why


class Period(Value, frozen=True, kw_only=True):
    """First and last day, both included, in the plan's time zone."""

    first: Day
    last: Day


@event
class GoalReached(EventData, frozen=True, kw_only=True):
    """A goal of the plan was reached for the first time in its period."""

    type: ClassVar[str] = "goal.reached.v1"
    goal: Key
    department: Literal["marketing", "sales", "both"]
    period: Period
    plan_version: Version
    target: DecimalText
    actual: DecimalText

    @property
    def key(self) -> str:
        return self.goal


class RewardEvent(EventData, frozen=True, kw_only=True):
    """One line of the reward ledger."""

    entry_id: UUID
    reward: Key
    beneficiary: Handle
    period: Period
    plan_version: Version
    amount: Money
    basis_lead_id: UUID | None = None
    """The lead that earned it, where one did."""
    why: Why

    @property
    def key(self) -> str:
        return self.reward


@event
class RewardAccrued(RewardEvent, frozen=True, kw_only=True):
    """A reward was earned."""

    type: ClassVar[str] = "reward.accrued.v1"


@event
class RewardReversed(RewardEvent, frozen=True, kw_only=True):
    """An accrual was taken back, for example because a win was undone."""

    type: ClassVar[str] = "reward.reversed.v1"
    reverses_entry_id: UUID
