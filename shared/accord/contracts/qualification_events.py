"""What qualification says: scores, stages, decisions, owners and deals. Key: the lead id."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal
from uuid import UUID

from accord.contracts.base import LeadEvent, event
from accord.contracts.values import (
    Count,
    Day,
    Department,
    Handle,
    Key,
    Money,
    Ordinal,
    StageKind,
    Timestamp,
    Version,
    Why,
    limits,
)

StageCause = Literal["capture", "automatic", "decision", "definition", "merge"]
"""Why a stage was entered: the capture gate, criteria that hold, a decision, a new definition, a merge of two leads."""

Grade = Annotated[str, *limits(pattern=r"^[A-D][1-4]$")]
"""A letter of fit and a digit of engagement."""


@event
class LeadScored(LeadEvent, frozen=True, kw_only=True):
    """The lead's scores changed. Points from 0 to the definition's maximum."""

    type: ClassVar[str] = "lead.scored.v1"
    definition_version: Version
    fit: float
    engagement: float
    grade: Grade | None = None
    """A letter of fit and a digit of engagement."""


@event
class LeadStageChanged(LeadEvent, frozen=True, kw_only=True):
    """The lead entered `stage` at `occurred_at`."""

    type: ClassVar[str] = "lead.stage_changed.v1"
    definition_version: Version
    stage: Key
    stage_kind: StageKind
    stage_rank: Count
    """Place of the stage in the definition, from 0."""
    stage_owner: Department
    visit: Ordinal
    """Numbers the lead's entries into this stage from 1."""
    from_stage: Key | None = None
    from_since: Timestamp | None = None
    """When the lead had entered `from_stage`."""
    cause: StageCause
    decision: Key | None = None
    decision_id: UUID | None = None
    reason: Key | None = None
    actor: Handle | None = None
    correction: bool = False
    """True where a late report put this entry into the past; the history it belongs to was derived anew."""
    replaces: Ordinal | None = None
    """`sequence` of an earlier entry that no longer stands: this one takes its place, or, `withdrawn`, none does."""
    withdrawn: bool = False
    """True where the entry that this event repeats never was: it goes, with all that followed from it."""
    follows: Count | None = None
    """`sequence` of the entry after which this one has its place among the lead's entries, 0 for the first place. None: it
    replaces another, or it is the last by now."""
    present_stage: Key | None = None
    """Of a correction, the stage in which the lead stands by now."""


@event
class LeadDecided(LeadEvent, frozen=True, kw_only=True):
    """A person or the CRM decided. Free notes stay in qualification."""

    type: ClassVar[str] = "lead.decided.v1"
    decision_id: UUID
    definition_version: Version
    decision: Key
    reason: Key | None = None
    from_stage: Key
    stage: Key
    department: Department | None = None
    actor: Handle
    amount: Money | None = None
    expected_close: Day | None = None
    correction: bool = False
    """True where it was put into its place in the past, before entries that were said already."""


@event
class LeadAssigned(LeadEvent, frozen=True, kw_only=True):
    """The lead has a (new) owner, and why."""

    type: ClassVar[str] = "lead.assigned.v1"
    owner: Handle | None
    previous_owner: Handle | None = None
    pool: Handle | None = None
    """None where a person assigned it by hand."""
    breach_id: UUID | None = None
    """The breach whose clause took the lead from `previous_owner`."""
    why: Why


@event
class OpportunityUpdated(LeadEvent, frozen=True, kw_only=True):
    """The deal's amount or expected close is known or has changed; both are carried whole."""

    type: ClassVar[str] = "opportunity.updated.v1"
    stage: Key
    amount: Money | None = None
    expected_close: Day | None = None
