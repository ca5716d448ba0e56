"""Takes a merge back. Pure: it is handed the leads as they are and what the merge
recorded, and gives back what to write.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeVar
from uuid import UUID

from accord.contracts.base import EventData
from accord.contracts.intake_events import LeadUnmerged, LeadUpdated
from accord.contracts.values import Attributes, AttributeValue, Campaign
from intake.leads.domain.keys import IdentityKey
from intake.leads.domain.lead import KEY_FIELDS, Lead, absorbed, changed_fields

V = TypeVar("V")
AccountOf = Callable[[Mapping[str, str]], UUID | None]


@dataclass(frozen=True, slots=True)
class Before:
    """The survivor of a merge as it was before: all that a merge can change."""

    person: Mapping[str, str]
    attributes: Attributes
    stamps: Mapping[str, datetime]
    account_id: UUID | None = None
    campaign: Campaign | None = None
    external_keys: tuple[str, ...] = ()

    @classmethod
    def of(cls, lead: Lead) -> Before:
        return cls(lead.person, lead.attributes, lead.stamps, lead.account_id, lead.campaign, lead.external_keys)

    def on(self, lead: Lead) -> Lead:
        """The lead with these values."""
        return replace(
            lead,
            person=self.person,
            attributes=self.attributes,
            stamps=self.stamps,
            account_id=self.account_id,
            campaign=self.campaign,
            external_keys=self.external_keys,
        )


@dataclass(frozen=True, slots=True)
class Later:
    """A merge of the same survivor that came later and stands: whom it absorbed, and what it recorded of the survivor."""

    merge_id: UUID
    other: Lead
    before: Before


@dataclass(frozen=True, slots=True)
class Parted:
    """A merge taken back: both leads as they are to be saved, and what the later merges would have recorded without it."""

    survivor: Lead
    restored: Lead
    later: Mapping[UUID, Before]
    events: tuple[EventData, ...]


def parted(
    survivor: Lead,
    gone: Lead,
    before: Before,
    keys_returned: Collection[IdentityKey],
    later: Sequence[Later],
    merge_id: UUID,
    now: datetime,
    account_of: AccountOf = lambda _: None,
) -> Parted:
    """Take a merge back.

    The merged lead lives again as it was. The survivor keeps what it has learnt from elsewhere since, and loses what came from the
    other alone: a field whose present value and time are the other's goes back to what it was, or to what a later merge that stands
    offered. `keys_returned` go to the restored lead, so the survivor shows none of them any more. `account_of` gives the account of a
    person's domain or address.
    """
    restored = replace(gone, merged_into=None)
    kept = _without(Before.of(survivor), survivor.captured_at, gone, before, keys_returned)
    memories: dict[UUID, Before] = {}
    taken_in: list[Lead] = []
    for merge in later:
        memory = _without(merge.before, survivor.captured_at, gone, before, keys_returned)
        memories[merge.merge_id] = _with_all(memory, survivor, taken_in)
        taken_in.append(merge.other)
    whole = _with_all(kept, survivor, taken_in).on(survivor)
    if whole.account_id is None:  # what it has learnt of its company since may be the same as the other's
        whole = replace(whole, account_id=account_of(whole.person))
    told, events = _told_of_parting(survivor, whole, restored, merge_id, now)
    return Parted(told, restored, memories, events)


def _told_of_parting(
    was: Lead, survivor: Lead, restored: Lead, merge_id: UUID, now: datetime
) -> tuple[Lead, tuple[EventData, ...]]:
    """The survivor with its next sequence and the event. The restored lead's own sequence goes on where it stood at the merge, as
    nothing was published under its id since."""
    if survivor.held:
        return survivor, ()
    if restored.held:
        return _told_of_change(was, survivor, now)
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


def _told_of_change(before: Lead, after: Lead, now: datetime) -> tuple[Lead, tuple[EventData, ...]]:
    changed = changed_fields(before, after)
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


def _without(
    present: Before, captured_at: datetime, gone: Lead, before: Before, keys_returned: Collection[IdentityKey]
) -> Before:
    """What is left of the survivor without what came from the other lead alone."""
    person, attributes, stamps = dict(present.person), dict(present.attributes), dict(present.stamps)
    returned = set(keys_returned)

    def is_theirs(stamp: str, value: AttributeValue, theirs: AttributeValue) -> bool:
        """Whether a present value is the other lead's: the same, said at the same time."""
        at = gone.stamps.get(stamp, gone.captured_at)
        return theirs is not None and value == theirs and stamps.get(stamp, captured_at) == at

    for name, value in present.person.items():
        returns = name in KEY_FIELDS and (name, value) in returned
        if returns or is_theirs(name, value, gone.person.get(name)):
            _put_back(person, before.person, name)
            _put_back(stamps, before.stamps, name)
    for name, attribute in present.attributes.items():
        stamp = f"attributes.{name}"
        if is_theirs(stamp, attribute, gone.attributes.get(name)):
            _put_back(attributes, before.attributes, name)
            _put_back(stamps, before.stamps, stamp)
    gone_keys = {value for kind, value in returned if kind == "external"} - set(before.external_keys)
    return Before(
        person,
        attributes,
        stamps,
        before.account_id or (None if present.account_id == gone.account_id else present.account_id),
        before.campaign or (None if present.campaign == gone.campaign else present.campaign),
        tuple(key for key in present.external_keys if key not in gone_keys),
    )


def _put_back(values: dict[str, V], old: Mapping[str, V], name: str) -> None:
    values.pop(name, None)
    if name in old:
        values[name] = old[name]


def _with_all(kept: Before, survivor: Lead, others: Sequence[Lead]) -> Before:
    """With what the leads of later merges offer; what is newer already stays."""
    lead = kept.on(survivor)
    for other in others:
        lead = absorbed(lead, other)
    return Before.of(lead)
