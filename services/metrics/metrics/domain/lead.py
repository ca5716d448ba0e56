"""What metrics knows of one lead, and how each event changes it. The result does not depend on how the topics
interleave.

Within one topic a lead's events come in order; a stale one (by `sequence`) changes nothing. Of a merged lead only who
survived
it matters, so that taking the merge back restores it whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID

from accord.contracts.intake_events import LeadState
from accord.contracts.values import Attributes
from metrics.domain.journey import Entry


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
    path: tuple[str, ...] = ()
    """The stages it entered, in the order of its chain."""
    first_entered_at: datetime | None = None
    """The earliest moment of its entries."""
    out_of_order: bool = False
    """Whether some entry is dated before the one it followed."""


def with_state(lead: Lead, state: LeadState, sequence: int, recorded_at: datetime) -> Lead:
    """The lead was captured, updated, or survived a merge."""
    if sequence <= lead.intake_sequence:
        return lead
    if _is_before_restoration(lead, recorded_at):
        return replace(lead, intake_sequence=sequence)
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


def _is_before_restoration(lead: Lead, recorded_at: datetime) -> bool:
    """Whether a merge was taken back after this was recorded: what was restored, in another partition, is newer."""
    return lead.merged_into is None and lead.merge_recorded_at is not None and recorded_at < lead.merge_recorded_at


def assigned(lead: Lead, owner: str | None, sequence: int) -> Lead:
    """The lead has another owner, or none."""
    if sequence <= lead.owner_sequence:
        return lead
    return replace(lead, owner=owner, owner_sequence=sequence)


def on_way(lead: Lead, entries: Sequence[Entry]) -> Lead:
    """The lead with its chain of stage entries as derived anew."""
    return replace(
        lead,
        path=tuple(entry.stage for entry in entries),
        first_entered_at=min((entry.entered_at for entry in entries), default=None),
        out_of_order=any(entry.exited_at is not None and entry.exited_at < entry.entered_at for entry in entries),
    )


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
