"""Reverts a merge. Pure: it takes the leads as they are and what the merge recorded, and returns what to write."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import TypeVar
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from accord.contracts.base import EventData
from accord.contracts.intake_events import LeadUnmerged, LeadUpdated
from accord.contracts.values import Attributes, AttributeValue, Campaign
from intake.leads.domain.keys import IdentityKey
from intake.leads.domain.lead import KEY_FIELDS, Lead, absorb_lead, find_changed_fields

V = TypeVar("V")
FindAccount = Callable[[Mapping[str, str]], tuple[UUID, str] | None]


class SurvivorSnapshot(Struct, frozen=True, gc=False):
    """The survivor of a merge as it was before: all that a merge can change."""

    person: Mapping[str, str]
    attributes: Attributes
    field_timestamps: Mapping[str, datetime]
    account_id: UUID | None = None
    campaign: Campaign | None = None
    external_keys: tuple[str, ...] = ()

    @classmethod
    def from_lead(cls, lead: Lead) -> SurvivorSnapshot:
        return cls(
            lead.person, lead.attributes, lead.field_timestamps, lead.account_id, lead.campaign, lead.external_keys
        )

    def apply_to(self, lead: Lead) -> Lead:
        """The lead with these values."""
        return replace(
            lead,
            person=self.person,
            attributes=self.attributes,
            field_timestamps=self.field_timestamps,
            account_id=self.account_id,
            campaign=self.campaign,
            external_keys=self.external_keys,
        )


class LaterMerge(Struct, frozen=True, gc=False):
    """A merge of the same survivor that came later and stands: whom it absorbed, and what it recorded of the survivor."""

    merge_id: UUID
    other: Lead
    before: SurvivorSnapshot


class RevertedMerge(Struct, frozen=True, gc=False):
    """A reverted merge: both leads as they are to be saved, and what the later merges would have recorded without it."""

    survivor: Lead
    restored: Lead
    later: Mapping[UUID, SurvivorSnapshot]
    events: tuple[EventData, ...]


def split_merge(
    survivor: Lead,
    gone: Lead,
    before: SurvivorSnapshot,
    keys_returned: Collection[IdentityKey],
    later: Sequence[LaterMerge],
    merge_id: UUID,
    now: datetime,
    find_account: FindAccount = lambda _: None,
) -> RevertedMerge:
    """Revert a merge.

    The merged lead is restored as it was. The survivor keeps what it has learnt from elsewhere since, and loses what came from the
    other alone: a field whose present value and time are the other's goes back to what it was, or to what a later merge that stands
    offered. `keys_returned` go to the restored lead, so the survivor shows none of them any more. `find_account` gives id and domain of a
    person's account.
    """
    restored = replace(gone, merged_into=None)
    kept = _remove_other(SurvivorSnapshot.from_lead(survivor), survivor.captured_at, gone, before, keys_returned)
    snapshots: dict[UUID, SurvivorSnapshot] = {}
    absorbed: list[Lead] = []
    for merge in later:
        rest = _remove_other(merge.before, survivor.captured_at, gone, before, keys_returned)
        snapshots[merge.merge_id] = _absorb_all(rest, survivor, absorbed)
        absorbed.append(merge.other)
    whole = _absorb_all(kept, survivor, absorbed).apply_to(survivor)
    # What it has learnt of its company since may be the same as the other's.
    if whole.account_id is None and (account := find_account(whole.person)) is not None:
        whole = replace(whole, account_id=account[0])
    published, events = _emit_unmerged(survivor, whole, restored, merge_id, now)
    return RevertedMerge(published, restored, snapshots, events)


def _emit_unmerged(
    was: Lead, survivor: Lead, restored: Lead, merge_id: UUID, now: datetime
) -> tuple[Lead, tuple[EventData, ...]]:
    """The survivor with its next sequence and the event. The restored lead's own sequence goes on where it stood at the merge, as
    nothing was published under its id since."""
    if survivor.pending:
        return survivor, ()
    if restored.pending:
        return _emit_updated(was, survivor, now)
    survivor = replace(survivor, sequence=survivor.sequence + 1)
    event = LeadUnmerged(
        lead_id=survivor.lead_id,
        sequence=survivor.sequence,
        occurred_at=now,
        recorded_at=now,
        merge_id=merge_id,
        restored_lead_id=restored.lead_id,
        state=survivor.state(),
        restored_state=restored.state(),
    )
    return survivor, (event,)


def _emit_updated(before: Lead, after: Lead, now: datetime) -> tuple[Lead, tuple[EventData, ...]]:
    changed = find_changed_fields(before, after)
    if not changed:
        return after, ()
    after = replace(after, sequence=after.sequence + 1)
    event = LeadUpdated(
        lead_id=after.lead_id,
        sequence=after.sequence,
        occurred_at=now,
        recorded_at=now,
        state=after.state(),
        changed=changed,
    )
    return after, (event,)


def _remove_other(
    present: SurvivorSnapshot,
    captured_at: datetime,
    gone: Lead,
    before: SurvivorSnapshot,
    keys_returned: Collection[IdentityKey],
) -> SurvivorSnapshot:
    """What is left of the survivor without what came from the other lead alone."""
    person, attributes, field_timestamps = (
        dict(present.person),
        dict(present.attributes),
        dict(present.field_timestamps),
    )
    returned = set(keys_returned)

    def is_theirs(stamp: str, value: AttributeValue, theirs: AttributeValue) -> bool:
        """Whether a present value is the other lead's: the same, said at the same time."""
        at = gone.field_timestamps.get(stamp, gone.captured_at)
        return theirs is not None and value == theirs and field_timestamps.get(stamp, captured_at) == at

    for name, value in present.person.items():
        returns = name in KEY_FIELDS and (name, value) in returned
        if returns or is_theirs(name, value, gone.person.get(name)):
            _restore(person, before.person, name)
            _restore(field_timestamps, before.field_timestamps, name)
    for name, attribute in present.attributes.items():
        stamp = f"attributes.{name}"
        if is_theirs(stamp, attribute, gone.attributes.get(name)):
            _restore(attributes, before.attributes, name)
            _restore(field_timestamps, before.field_timestamps, stamp)
    gone_keys = {value for kind, value in returned if kind == "external"} - set(before.external_keys)
    return SurvivorSnapshot(
        person,
        attributes,
        field_timestamps,
        before.account_id or (None if present.account_id == gone.account_id else present.account_id),
        before.campaign or (None if present.campaign == gone.campaign else present.campaign),
        tuple(key for key in present.external_keys if key not in gone_keys),
    )


def _restore(values: dict[str, V], old: Mapping[str, V], name: str) -> None:
    values.pop(name, None)
    if name in old:
        values[name] = old[name]


def _absorb_all(kept: SurvivorSnapshot, survivor: Lead, others: Sequence[Lead]) -> SurvivorSnapshot:
    """With what the leads of later merges offer; what is newer already stays."""
    lead = kept.apply_to(survivor)
    for other in others:
        lead = absorb_lead(lead, other)
    return SurvivorSnapshot.from_lead(lead)
