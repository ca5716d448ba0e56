"""One lead's versioned profile and qualification state, so that `where` can be evaluated as of a moment."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Protocol, TypeVar
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from accord.contracts.values import AttributeValue

VERSIONS_MAX = 20
"""The most versions of one lead; fewer stay once both topics have been read past them."""


class Profile(Struct, frozen=True, gc=False):
    """What intake published of the lead at one time: its public attributes and its source."""

    recorded_at: datetime
    sequence: int
    source: str
    captured_at: datetime
    campaign: str | None
    attributes: Mapping[str, AttributeValue]


class QualificationState(Struct, frozen=True, gc=False):
    """What qualification published of the lead at one time."""

    recorded_at: datetime
    sequence: int
    stage: str | None = None
    grade: str | None = None
    fit: float | None = None
    engagement: float | None = None


class Versioned(Protocol):
    @property
    def recorded_at(self) -> datetime: ...
    @property
    def sequence(self) -> int: ...


T = TypeVar("T", bound=Versioned)


class Lead(Struct, frozen=True, gc=False):
    """One lead. Versions ascend by sequence; the last is the current one."""

    lead_id: UUID
    profiles: tuple[Profile, ...] = ()
    qualification_states: tuple[QualificationState, ...] = ()
    source: str | None = None
    """It stays when the person is erased."""
    owner: str | None = None
    owner_sequence: int = 0
    merged_into: UUID | None = None
    merged_at: datetime | None = None
    merge_recorded_at: datetime | None = None
    """When the newest merge of this lead, or its reversal, was recorded. Events of older ones change nothing."""
    erased_at: datetime | None = None

    @property
    def qualification_state(self) -> QualificationState | None:
        """The current state."""
        return self.qualification_states[-1] if self.qualification_states else None

    def with_profile(self, profile: Profile, read_until: datetime | None) -> Lead:
        """The lead with one more version of the profile, in order of sequence."""
        if self.erased_at is not None:
            return self
        return replace(self, profiles=add_version(self.profiles, profile, read_until), source=profile.source)

    def with_qualification_state(self, qualification_state: QualificationState, read_until: datetime | None) -> Lead:
        """The lead with one more version of the qualification state."""
        if self.erased_at is not None:
            return self
        return replace(
            self, qualification_states=add_version(self.qualification_states, qualification_state, read_until)
        )


def add_version(versions: tuple[T, ...], version: T, read_until: datetime | None) -> tuple[T, ...]:
    """Add a version and drop those that no trigger can need.

    A trigger that is still unread was recorded at `read_until` or later. So of the versions before that, only the last is
    needed.
    """
    if any(existing.sequence == version.sequence for existing in versions):
        return versions
    if not versions or version.sequence > versions[-1].sequence:
        ordered = (*versions, version)
    else:
        ordered = tuple(sorted((*versions, version), key=lambda existing: existing.sequence))
    if read_until is not None:
        obsolete = sum(existing.recorded_at < read_until for existing in ordered) - 1
        ordered = ordered[max(obsolete, 0) :]
    return ordered[-VERSIONS_MAX:]


def as_of(versions: tuple[T, ...], moment: datetime) -> T | None:
    """The version that was in effect at a moment; None if none had been recorded."""
    latest: T | None = None
    for version in versions:
        if version.recorded_at > moment:
            break
        latest = version
    return latest
