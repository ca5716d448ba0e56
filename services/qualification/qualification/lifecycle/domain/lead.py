"""What qualification knows of one lead, as a frozen value. It holds no personal data and decides nothing.

Activities are kept as moments per kind, in microseconds since the epoch, so that scores and counts need no objects per activity.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from msgspec import Struct, field
from msgspec.structs import replace

from accord.contracts.intake_events import LeadState
from accord.contracts.values import Money
from qualification.definition.domain.definition import ACTIVITIES_PER_KIND_MAX
from qualification.lifecycle.domain.facts import Answer, LogPosition

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def microseconds(moment: datetime) -> int:
    """Exact microseconds since the epoch."""
    return (moment - _EPOCH) // _MICROSECOND


def from_microseconds(microseconds: int) -> datetime:
    """The moment, in UTC, of so many microseconds since the epoch."""
    return _EPOCH + timedelta(microseconds=microseconds)


Moments = tuple[int, ...]
"""Ascending, in microseconds since the epoch."""


class Activities:
    """When the lead had which kind of activity. Immutable; only kinds that a definition asks for need to be here."""

    __slots__ = ("by_kind",)

    def __init__(self, moments: Mapping[str, Iterable[int]] | None = None) -> None:
        self.by_kind: Mapping[str, Moments] = {
            kind: found
            for kind, times in (moments or {}).items()
            if (found := tuple(sorted(times)[-ACTIVITIES_PER_KIND_MAX:]))
        }

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Activities) and self.by_kind == other.by_kind

    def __hash__(self) -> int:
        return hash(tuple(sorted(self.by_kind.items())))

    def __repr__(self) -> str:
        return f"Activities({self.by_kind})"

    def moments_of(self, kind: str) -> Moments:
        """The moments of one kind, ascending."""
        return self.by_kind.get(kind, ())

    def moments_until(self, kind: str, at: int) -> Moments:
        """Those that had happened by `at`."""
        moments = self.moments_of(kind)
        return moments if not moments or moments[-1] <= at else moments[: bisect_right(moments, at)]

    def count(self, kind: str, at: int, within: int | None = None) -> int:
        """How many had happened by `at`; with `within` microseconds, from `at - within` on, both ends included."""
        moments = self.moments_of(kind)
        first = 0 if within is None else bisect_left(moments, at - within)
        return bisect_right(moments, at) - first

    def with_activity(self, kind: str, at: int) -> Activities:
        """These and one more."""
        return Activities._from_sorted({**self.by_kind, kind: _merged(self.moments_of(kind), (at,))})

    def merged_with(self, other: Activities) -> Activities:
        """These and those of another lead."""
        kinds = self.by_kind.keys() | other.by_kind.keys()
        return Activities._from_sorted({kind: _merged(self.moments_of(kind), other.moments_of(kind)) for kind in kinds})

    def moments_after(self, at: int) -> Moments:
        """The distinct moments later than `at` at which anything happened, ascending."""
        return tuple(sorted({moment for times in self.by_kind.values() for moment in times if moment > at}))

    @classmethod
    def _from_sorted(cls, moments: dict[str, Moments]) -> Activities:
        made = cls.__new__(cls)
        made.by_kind = moments
        return made


def _merged(some: Moments, more: Moments) -> Moments:
    if not some:
        return more
    return tuple(sorted(some + more)[-ACTIVITIES_PER_KIND_MAX:])


NO_ACTIVITIES = Activities()


class Deal(Struct, frozen=True, gc=False):
    """What decisions have said about the sale: the latest value of each field."""

    amount: Money | None = None
    expected_close: date | None = None
    answers: Mapping[str, Answer] = field(default_factory=dict)


NO_DEAL = Deal()


class Scores(NamedTuple):
    """Points from 0 to the definition's maximum, to two decimals, and the grade made of them."""

    fit: float
    engagement: float
    grade: str | None


class Lead(Struct, frozen=True, gc=False):
    """One lead's state. `profile` is None only where the lead was merged or erased before its capture arrived.

    `position` is that of the latest fact that it was evaluated by, or of the moment at which time alone moved it; a fact before it is
    late. `due_at`: before it, time alone changes nothing. `entry_version` and `applied_version` are the versions of the definition by
    which it entered and is evaluated. `sequence` counts the events that qualification has published of this lead; `intake_sequence` is
    that of the newest profile, which counts since `profile_at`. `has_early_activities`: activities came before it entered.
    """

    lead_id: UUID
    profile: LeadState | None = None
    intake_sequence: int = 0
    stage: str | None = None
    stage_since: datetime | None = None
    visits: Mapping[str, int] = field(default_factory=dict)
    owner: str | None = None
    scores: Scores | None = None
    definition_version: int | None = None
    deal: Deal = NO_DEAL
    activities: Activities = NO_ACTIVITIES
    merged_into: UUID | None = None
    erased: bool = False
    sequence: int = 0
    revision: int = 0
    profile_at: datetime | None = None
    position: LogPosition | None = None
    entry_version: int | None = None
    applied_version: int | None = None
    due_at: datetime | None = None
    has_early_activities: bool = False

    @property
    def evaluated_at(self) -> datetime | None:
        """The moment of the lead's position."""
        return None if self.position is None else self.position.at

    def latest_moment(self, now: datetime) -> datetime:
        """Now, or the moment of the lead's position where that is ahead."""
        return now if self.position is None else max(now, self.position.at)

    def next_moment(self, now: datetime) -> datetime:
        """The first moment from now on that comes after all that the lead was evaluated by."""
        return now if self.position is None or self.position.at < now else self.position.at + _MICROSECOND

    @property
    def visit(self) -> int | None:
        """Which entry into the present stage this is, from 1."""
        return None if self.stage is None else self.visits[self.stage]


def as_merged(lead: Lead, survivor_id: UUID) -> Lead:
    """What remains under the id of a lead that was merged into another: a pointer, and its history."""
    return replace(_without_attributes(lead), merged_into=survivor_id)


def as_erased(lead: Lead) -> Lead:
    """What remains of an erased person: counts."""
    return replace(_without_attributes(lead), erased=True)


def _without_attributes(lead: Lead) -> Lead:
    """Stage, visits and amounts stay as counts."""
    profile = lead.profile
    if profile is not None:
        profile = LeadState(
            source=profile.source,
            captured_at=profile.captured_at,
            verdict=profile.verdict,
            policy_version=profile.policy_version,
        )
    deal = Deal(lead.deal.amount, lead.deal.expected_close)
    return replace(lead, profile=profile, deal=deal, activities=NO_ACTIVITIES, due_at=None)
