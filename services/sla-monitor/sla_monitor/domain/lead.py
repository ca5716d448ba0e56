"""What the SLA monitor knows of one lead: versions of its profile and standing, so that `where` can be asked as of a moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol, TypeVar
from uuid import UUID

from accord.contracts.values import AttributeValue

VERSIONS_MAX = 20
"""Of each lead at most so many versions are kept; fewer as soon as both topics have been read past them."""


@dataclass(frozen=True, slots=True)
class Profile:
    """What intake told of the lead at one time: its public attributes and where it came from."""

    recorded_at: datetime
    sequence: int
    source: str
    captured_at: datetime
    campaign: str | None
    attributes: Mapping[str, AttributeValue]


@dataclass(frozen=True, slots=True)
class Standing:
    """What qualification told of the lead at one time."""

    recorded_at: datetime
    sequence: int
    stage: str | None = None
    grade: str | None = None
    fit: float | None = None
    engagement: float | None = None


class _Told(Protocol):
    @property
    def recorded_at(self) -> datetime: ...
    @property
    def sequence(self) -> int: ...


T = TypeVar("T", bound=_Told)


@dataclass(frozen=True, slots=True)
class Lead:
    """One lead. Versions ascend by sequence; the last is the present one."""

    lead_id: UUID
    profiles: tuple[Profile, ...] = ()
    standings: tuple[Standing, ...] = ()
    source: str | None = None
    """Kept also when the person is erased."""
    owner: str | None = None
    owner_sequence: int = 0
    merged_into: UUID | None = None
    merged_at: datetime | None = None
    merge_recorded_at: datetime | None = None
    """When the newest merge of this lead, or its end, was recorded; what is heard of older ones changes nothing."""
    erased_at: datetime | None = None

    @property
    def standing(self) -> Standing | None:
        """The present standing."""
        return self.standings[-1] if self.standings else None

    def with_profile(self, profile: Profile, read_until: datetime | None) -> Lead:
        """With one more version of the profile, wherever it belongs in their order."""
        if self.erased_at is not None:
            return self
        return replace(self, profiles=with_version(self.profiles, profile, read_until), source=profile.source)

    def with_standing(self, standing: Standing, read_until: datetime | None) -> Lead:
        """With one more version of the standing."""
        if self.erased_at is not None:
            return self
        return replace(self, standings=with_version(self.standings, standing, read_until))


def with_version(versions: tuple[T, ...], version: T, read_until: datetime | None) -> tuple[T, ...]:
    """The versions and one more, without those that nobody can ask for any more.

    A trigger that is still to be read was recorded at `read_until` or later, so of the versions before that only the last
    is needed.
    """
    if any(known.sequence == version.sequence for known in versions):
        return versions
    if not versions or version.sequence > versions[-1].sequence:
        found = (*versions, version)
    else:
        found = tuple(sorted((*versions, version), key=lambda known: known.sequence))
    if read_until is not None:
        needless = sum(known.recorded_at < read_until for known in found) - 1
        found = found[max(needless, 0) :]
    return found[-VERSIONS_MAX:]


def as_of(versions: tuple[T, ...], moment: datetime) -> T | None:
    """The version that had been recorded by a moment; None if none had."""
    known: T | None = None
    for version in versions:
        if version.recorded_at > moment:
            break
        known = version
    return known
