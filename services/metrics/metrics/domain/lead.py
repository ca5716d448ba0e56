"""What metrics knows of one lead, and how each event changes it. The result does not depend on how the topics
interleave.

Within one topic a lead's events come in order; a stale one (by `sequence`) changes nothing. Of a merged lead only who
survived
it matters, so that taking the merge back restores it whole.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID

from accord.contracts.intake_events import LeadState
from accord.contracts.values import Attributes


@dataclass(frozen=True, slots=True)
class Lead:
    """One lead. `captured_at` is None while only other services' events of it were read."""

    lead_id: UUID
    source: str | None = None
    captured_at: datetime | None = None
    account_id: UUID | None = None
    attributes: Attributes = field(default_factory=dict)
    campaign: str | None = None
    owner: str | None = None
    merged_into: UUID | None = None
    erased: bool = False
    intake_sequence: int = 0
    state_recorded_at: datetime | None = None
    merge_recorded_at: datetime | None = None
    owner_sequence: int = 0


def with_state(lead: Lead, state: LeadState, sequence: int, recorded_at: datetime) -> Lead:
    """The lead was captured, updated, or survived a merge."""
    if sequence <= lead.intake_sequence:
        return lead
    return replace(_state(lead, state, recorded_at), intake_sequence=sequence)


def without_attributes(lead: Lead, sequence: int) -> Lead:
    """The person was erased: free attributes go and never come back; what is counted stays."""
    return replace(
        lead, attributes={}, account_id=None, erased=True, intake_sequence=max(sequence, lead.intake_sequence)
    )


def merged(lead: Lead, survivor: UUID, recorded_at: datetime) -> Lead:
    """The lead turned out to be the same person as `survivor`."""
    if lead.merge_recorded_at is not None and recorded_at < lead.merge_recorded_at:
        return lead
    return replace(lead, merged_into=survivor, merge_recorded_at=recorded_at)


def restored(lead: Lead, state: LeadState, recorded_at: datetime) -> Lead:
    """A merge was taken back: the lead lives again with this state, unless a later one of its own is known already."""
    if lead.merge_recorded_at is not None and recorded_at < lead.merge_recorded_at:
        return lead
    alive = replace(lead, merged_into=None, merge_recorded_at=recorded_at)
    if lead.state_recorded_at is not None and recorded_at < lead.state_recorded_at:
        return alive
    return _state(alive, state, recorded_at)


def assigned(lead: Lead, owner: str | None, sequence: int) -> Lead:
    """The lead has another owner, or none."""
    if sequence <= lead.owner_sequence:
        return lead
    return replace(lead, owner=owner, owner_sequence=sequence)


def _state(lead: Lead, state: LeadState, recorded_at: datetime) -> Lead:
    return replace(
        lead,
        source=state.source,
        captured_at=state.captured_at,
        account_id=None if lead.erased else state.account_id,
        attributes={} if lead.erased else state.attributes,
        campaign=state.campaign.name if state.campaign else None,
        state_recorded_at=recorded_at,
    )
