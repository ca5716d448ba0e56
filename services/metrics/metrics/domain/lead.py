"""The projection of one lead, and how each event changes it. The result does not depend on how the topics interleave.

Within one topic a lead's events come in order; a stale one (by `sequence`) changes nothing. A merge stores only the
survivor, so that reverting it restores the merged lead whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from msgspec import Struct, field
from msgspec.structs import replace

from accord.contracts.intake_events import LeadState
from accord.contracts.values import Attributes
from metrics.domain.stage_history import StageEntry


class Lead(Struct, frozen=True, gc=False):
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
    """The stages that it entered, in the order of its history."""
    first_entered_at: datetime | None = None
    """The earliest moment of its entries."""
    is_out_of_order: bool = False
    """Whether any entry is dated before the one that it followed."""


def with_state(lead: Lead, state: LeadState, sequence: int, recorded_at: datetime) -> Lead:
    """The lead with a new state, after a capture, an update or a merge."""
    if sequence <= lead.intake_sequence:
        return lead
    if _is_before_revert(lead, recorded_at):
        return replace(lead, intake_sequence=sequence)
    return replace(_replace_state(lead, state, recorded_at), intake_sequence=sequence)


def without_attributes(lead: Lead, sequence: int) -> Lead:
    """The lead of an erased person: attributes are removed for good; counts stay."""
    return replace(
        lead, attributes={}, account_id=None, erased=True, intake_sequence=max(sequence, lead.intake_sequence)
    )


def apply_merge(lead: Lead, survivor: UUID, recorded_at: datetime) -> Lead:
    """Merge the lead into `survivor`."""
    if lead.merge_recorded_at is not None and recorded_at < lead.merge_recorded_at:
        return lead
    return replace(lead, merged_into=survivor, merge_recorded_at=recorded_at)


def revert_merge(lead: Lead, state: LeadState, recorded_at: datetime) -> Lead:
    """Revert the merge of the lead and restore this state, unless it has a later one already."""
    if lead.merge_recorded_at is not None and recorded_at < lead.merge_recorded_at:
        return lead
    reverted = replace(lead, merged_into=None, merge_recorded_at=recorded_at)
    if lead.state_recorded_at is not None and recorded_at < lead.state_recorded_at:
        return reverted
    return _replace_state(reverted, state, recorded_at)


def _is_before_revert(lead: Lead, recorded_at: datetime) -> bool:
    """Whether a merge was reverted after this was recorded; the restored state, from another partition, is newer."""
    return lead.merged_into is None and lead.merge_recorded_at is not None and recorded_at < lead.merge_recorded_at


def assign_owner(lead: Lead, owner: str | None, sequence: int) -> Lead:
    """The lead with another owner, or none."""
    if sequence <= lead.owner_sequence:
        return lead
    return replace(lead, owner=owner, owner_sequence=sequence)


def with_stage_path(lead: Lead, entries: Sequence[StageEntry]) -> Lead:
    """The lead with the path of its newly derived stage history."""
    return replace(
        lead,
        path=tuple(entry.stage for entry in entries),
        first_entered_at=min((entry.entered_at for entry in entries), default=None),
        is_out_of_order=any(entry.exited_at is not None and entry.exited_at < entry.entered_at for entry in entries),
    )


def _replace_state(lead: Lead, state: LeadState, recorded_at: datetime) -> Lead:
    return replace(
        lead,
        source=state.source,
        captured_at=state.captured_at,
        account_id=None if lead.erased else state.account_id,
        attributes={} if lead.erased else state.attributes,
        campaign=state.campaign.name if state.campaign else None,
        state_recorded_at=recorded_at,
    )
