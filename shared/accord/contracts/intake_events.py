"""What intake says: leads as they enter, change, merge and vanish, and the activities around them. Key: the lead id."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal
from uuid import UUID

from msgspec import field

from accord.contracts.base import EventData, LeadEvent, event
from accord.contracts.values import (
    ActorKind,
    Attributes,
    Campaign,
    Count,
    Digest,
    Handle,
    Money,
    Party,
    PolicyFailure,
    Share,
    SourceName,
    Timestamp,
    Value,
    Verdict,
    Version,
    limits,
)


class LeadState(Value, frozen=True, kw_only=True):
    """All that is public about a lead, carried whole so that no consumer has to call back."""

    source: SourceName
    """The first source; it never changes, also not by a merge."""
    captured_at: Timestamp
    """When the submission that made the lead occurred; it never changes."""
    account_id: UUID | None = None
    attributes: Attributes = field(default_factory=dict)
    campaign: Campaign | None = None
    """The campaign of the first touch."""
    external_keys: list[Digest] = field(default_factory=list)
    """`external_key(source, external_id)` of every known external id: a CRM names a lead and no raw id travels."""
    verdict: Verdict
    policy_version: Version | None = None
    quality_score: Share | None = None
    """Weight passed / weight applicable under `policy_version`."""


@event
class LeadCaptured(LeadEvent, frozen=True, kw_only=True):
    """A lead entered. `occurred_at` is `state.captured_at`."""

    type: ClassVar[str] = "lead.captured.v1"
    state: LeadState


@event
class LeadUpdated(LeadEvent, frozen=True, kw_only=True):
    """A later submission or correction changed the lead."""

    type: ClassVar[str] = "lead.updated.v1"
    state: LeadState
    changed: list[str]
    """Names the public fields that differ."""


@event
class LeadMerged(LeadEvent, frozen=True, kw_only=True):
    """Two leads turned out to be one person. `lead_id` survives; what `merged_lead_id` did is its own from now on."""

    type: ClassVar[str] = "lead.merged.v1"
    merge_id: UUID
    merged_lead_id: UUID
    state: LeadState

    @property
    def keys(self) -> tuple[str, ...]:
        return str(self.lead_id), str(self.merged_lead_id)


@event
class LeadUnmerged(LeadEvent, frozen=True, kw_only=True):
    """A merge was reverted: `lead_id` is the survivor as it is now, `restored_lead_id` lives again."""

    type: ClassVar[str] = "lead.unmerged.v1"
    merge_id: UUID
    restored_lead_id: UUID
    state: LeadState
    restored_state: LeadState

    @property
    def keys(self) -> tuple[str, ...]:
        return str(self.lead_id), str(self.restored_lead_id)


@event
class LeadQuarantined(LeadEvent, frozen=True, kw_only=True):
    """A submission waits for a person; the lead does not enter, or does not change, until it is released."""

    type: ClassVar[str] = "lead.quarantined.v1"
    submission_id: UUID
    source: SourceName
    policy_version: Version
    quality_score: Share
    failed: list[PolicyFailure]


@event
class LeadRejected(EventData, frozen=True, kw_only=True):
    """A submission was refused by the data policy. There is no lead; the key is the submission."""

    type: ClassVar[str] = "lead.rejected.v1"
    submission_id: UUID
    source: SourceName
    policy_version: Version
    quality_score: Share
    failed: list[PolicyFailure]

    @property
    def key(self) -> str:
        return str(self.submission_id)


@event
class LeadErased(LeadEvent, frozen=True, kw_only=True):
    """The person was erased. Consumers drop the id's free attributes and keep only counts."""

    type: ClassVar[str] = "lead.erased.v1"


@event
class ActivityRecorded(LeadEvent, frozen=True, kw_only=True):
    """Something happened with a lead. Free properties stay in intake."""

    type: ClassVar[str] = "activity.recorded.v1"
    activity_id: UUID
    kind: Annotated[str, *limits(max_length=100, pattern=r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+$")]
    """An open `noun.verb`."""
    by: Party
    """Who did it."""
    actor: Handle | None = None
    actor_kind: ActorKind | None = None
    """None where the tool does not tell."""
    source: SourceName | None = None
    campaign: Campaign | None = None


class ImportCounts(Value, frozen=True, kw_only=True):
    """How many rows of an import were read, and how they ended."""

    read: Count
    created: Count
    updated: Count
    merged: Count
    quarantined: Count
    rejected: Count
    failed: Count
    unchanged: Count = 0
    """Word for word what the same source has said before; they changed nothing."""


@event
class ImportFinished(EventData, frozen=True, kw_only=True):
    """An import came to its end. The key is its document's kind."""

    type: ClassVar[str] = "import.finished.v1"
    import_id: UUID
    source: SourceName
    state: Literal["finished", "cancelled", "failed"]
    rows: ImportCounts
    cost: Money | None = None

    @property
    def key(self) -> str:
        return "import"
