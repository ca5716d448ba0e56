"""What qualification says: scores, stages, decisions, owners and deals. Key: the lead id."""

from __future__ import annotations

from datetime import date
from typing import ClassVar, Literal
from uuid import UUID

from pydantic import Field

from accord.contracts.base import LeadEvent, event
from accord.contracts.values import Department, Handle, Money, StageKind, Timestamp

StageCause = Literal["capture", "automatic", "decision", "definition", "merge"]
"""Why a stage was entered: the capture gate, criteria that hold, a decision, a new definition, or a merge of two leads."""


@event
class LeadScored(LeadEvent):
    """The lead's scores changed. Points from 0 to the definition's maximum; `grade` is a letter of fit and a digit of engagement."""

    type: ClassVar[str] = "lead.scored.v1"
    definition_version: int
    fit: float
    engagement: float
    grade: str | None = None


@event
class LeadStageChanged(LeadEvent):
    """The lead entered `stage` at `occurred_at`. `visit` numbers its entries into this stage from 1."""

    type: ClassVar[str] = "lead.stage_changed.v1"
    definition_version: int
    stage: str
    stage_kind: StageKind
    stage_rank: int
    """Place of the stage in the definition, from 0."""
    stage_owner: Department
    visit: int = Field(ge=1)
    from_stage: str | None = None
    from_since: Timestamp | None = None
    """When the lead had entered `from_stage`."""
    cause: StageCause
    decision: str | None = None
    decision_id: UUID | None = None
    reason: str | None = None
    actor: Handle | None = None
    correction: bool = False
    """True where a late report put this entry into the past; the history it belongs to was derived anew."""


@event
class LeadDecided(LeadEvent):
    """A person or the CRM decided. Free notes stay in qualification."""

    type: ClassVar[str] = "lead.decided.v1"
    decision_id: UUID
    definition_version: int
    decision: str
    reason: str | None = None
    from_stage: str
    stage: str
    department: Department | None = None
    actor: Handle
    amount: Money | None = None
    expected_close: date | None = None


@event
class LeadAssigned(LeadEvent):
    """The lead has a (new) owner, and why. `pool` is None where a person assigned it by hand."""

    type: ClassVar[str] = "lead.assigned.v1"
    owner: Handle | None
    previous_owner: Handle | None = None
    pool: Handle | None = None
    why: str


@event
class OpportunityUpdated(LeadEvent):
    """The deal's amount or expected close is known or has changed; both are carried whole."""

    type: ClassVar[str] = "opportunity.updated.v1"
    stage: str
    amount: Money | None = None
    expected_close: date | None = None
