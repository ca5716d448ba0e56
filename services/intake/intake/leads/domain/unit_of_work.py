"""Decides what becomes of submissions, one after the other, against the leads that their identity keys name. Pure: it is handed what
was read and gives back what to write.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, NamedTuple
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from accord.contracts.base import EventData
from accord.contracts.intake_events import LeadCaptured, LeadMerged, LeadQuarantined, LeadRejected, LeadUpdated
from intake.leads.domain.keys import IdentityKey, IdentityKind
from intake.leads.domain.lead import (
    Lead,
    Values,
    absorb_lead,
    choose_survivor,
    create_lead,
    find_changed_fields,
    release_lead,
    update_lead,
)
from intake.leads.domain.quality import Quality

Outcome = Literal["created", "updated", "merged"]


class Candidate(NamedTuple):
    """One submission, normalized and judged: its keys, its values, and the id of the lead if it makes one."""

    submission_id: UUID
    new_lead_id: UUID
    keys: tuple[IdentityKey, ...]
    values: Values
    external: tuple[str, str] | None = None
    """Source and id of which its key of kind `external` is the digest."""

    @property
    def quality(self) -> Quality:
        return self.values.quality

    def merge_id(self, place: int) -> UUID:
        """The id of the merge that this submission makes as its first (0) or second (1): three keys can name three leads. It follows
        from the submission's, so that nobody makes ids for merges that hardly ever come, and the second sorts after the first."""
        return UUID(int=self.submission_id.int + place + 1)


class CaptureOutcome(NamedTuple):
    """What became of one submission. `lead_id` and `outcome` are None for a rejected one."""

    lead_id: UUID | None
    outcome: Outcome | None


class Merge(Struct, frozen=True, gc=False):
    """Two leads that turned out to be one person, as they were: enough to revert it."""

    merge_id: UUID
    survivor: Lead
    other: Lead
    submission_id: UUID | None
    """What joined them; None where a person did."""
    caller: str | None = None
    """Whose key it was, where a person did."""
    new_keys: tuple[IdentityKey, ...] = ()
    """Keys of `other` that are not saved yet."""


def contradicts(
    owner: object, by_kind: Mapping[IdentityKind, str], owners: Mapping[IdentityKey, object], email: str | None
) -> bool:
    """Whether the address or number of these keys is not of the person `owner`, whose address is `email`."""
    kind: IdentityKind
    for kind in ("email", "phone"):
        if kind in by_kind:
            other = owners.get((kind, by_kind[kind]))
            return other != owner if other is not None else kind == "email" and email is not None
    return False


@dataclass(slots=True)
class CaptureUnitOfWork:
    """The leads and keys of one transaction while its submissions are applied one by one.

    `leads` holds every lead that a key names, and no lead that was merged into another.
    """

    now: datetime
    leads: dict[UUID, Lead]
    keys: dict[IdentityKey, UUID]
    do_not_merge: set[frozenset[UUID]] = field(default_factory=set)
    """Pairs of leads that a person has separated: no submission makes one of them."""
    existing_ids: frozenset[UUID] = field(init=False)
    """The leads that there were before."""
    changed_ids: dict[UUID, None] = field(default_factory=dict)
    new_keys: dict[IdentityKey, UUID] = field(default_factory=dict)
    external: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Source and id of new keys of kind `external`, by their digest."""
    dropped_keys: dict[IdentityKey, UUID] = field(default_factory=dict)
    merges: list[Merge] = field(default_factory=list)
    events: list[EventData] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.existing_ids = frozenset(self.leads)

    def apply(self, candidate: Candidate) -> CaptureOutcome:
        """Apply one submission. Its events are in `events`, its writes in `changed_ids`, `new_keys` and `merges`."""
        quality = candidate.quality
        if quality.verdict == "rejected":
            self._reject(candidate)
            return CaptureOutcome(None, None)
        matches = self._find_matches(candidate.keys)
        if quality.verdict == "quarantined":
            return self._quarantine(candidate, matches)
        return self._accept(candidate, matches)

    def contradicts_id(self, keys: Iterable[IdentityKey]) -> bool:
        """Whether the external id among these keys leads to one person, and the address or number beside it to another or to nobody yet,
        though that person has an address."""
        by_kind = dict(keys)
        owner = self.keys.get(("external", by_kind["external"])) if "external" in by_kind else None
        return owner is not None and contradicts(owner, by_kind, self.keys, self.leads[owner].person.get("email"))

    def release(self, candidate: Candidate, own: Lead | None) -> CaptureOutcome:
        """Apply a submission that waited in quarantine. `own` is the pending lead that waited for it alone, if there is one: it comes
        in, or is merged into the lead that the keys name by now."""
        matches = [_with_earliest_origin(lead, candidate.values) for lead in self._find_matches(candidate.keys)]
        if own is not None and own.lead_id not in {lead.lead_id for lead in matches}:
            matches.append(_with_earliest_origin(own, candidate.values))
        enters = len(matches) == 1 and matches[0].pending
        captured = self._accept(candidate, matches)
        return CaptureOutcome(captured.lead_id, "created") if enters else captured

    def keep_pending(self, candidate: Candidate, own: Lead | None) -> CaptureOutcome:
        """A submission that was corrected and waits on; nothing is published. `own` as in `release`: it is what the submission says now."""
        if own is None:
            matches = self._find_matches(candidate.keys)
            lead = min(matches, key=lambda one: (one.pending, one.captured_at, one.lead_id), default=None)
            lead = lead or create_lead(candidate.new_lead_id, candidate.values, pending=True, sequence=0)
        else:
            lead = create_lead(own.lead_id, candidate.values, pending=True, sequence=own.sequence)
        if lead.pending:
            self._claim_keys(candidate, lead.lead_id)
            self._save(lead)
        return CaptureOutcome(lead.lead_id, "created" if lead.lead_id not in self.existing_ids else "updated")

    def shrink_pending(self, lead: Lead, dropped: Iterable[IdentityKey]) -> None:
        """A pending lead is less than it was: a submission that it waited for has gone, and these of its keys with it."""
        self._save(lead)
        for key in dropped:
            if self.keys.get(key) == lead.lead_id:
                del self.keys[key]
                self.dropped_keys[key] = lead.lead_id

    def correct(self, before: Lead, after: Lead, dropped: Iterable[IdentityKey], taken: Iterable[IdentityKey]) -> None:
        """A person puts a lead right: it gives these keys up, and takes those that nobody has."""
        self.shrink_pending(after, dropped)
        for key in taken:
            if key not in self.keys:
                self.keys[key] = after.lead_id
                self.new_keys[key] = after.lead_id
        if not after.pending:
            self._update(before, after, self.now)

    def _accept(self, candidate: Candidate, matches: list[Lead]) -> CaptureOutcome:
        if not matches:
            lead = create_lead(candidate.new_lead_id, candidate.values, pending=False, sequence=1)
            self._claim_keys(candidate, lead.lead_id)
            self._enter(lead)
            return CaptureOutcome(lead.lead_id, "created")
        merges = len(self.merges)
        survivor = self._merge_matches(matches, candidate)
        self._claim_keys(candidate, survivor.lead_id)
        values = self._own_values(candidate, survivor.lead_id) if len(matches) > 1 else candidate.values
        if survivor.pending:
            self._enter(release_lead(survivor, values, sequence=survivor.sequence + 1))
        else:
            self._update(survivor, update_lead(survivor, values), values.at)
        return CaptureOutcome(survivor.lead_id, "merged" if len(self.merges) > merges else "updated")

    def _find_matches(self, keys: Iterable[IdentityKey]) -> list[Lead]:
        found = dict.fromkeys(self.keys[key] for key in keys if key in self.keys)
        return [self.leads[lead_id] for lead_id in found]

    def _claim_keys(self, candidate: Candidate, lead_id: UUID) -> None:
        """Take the keys that nobody has."""
        for key in candidate.keys:
            if key not in self.keys:
                self.keys[key] = lead_id
                self.new_keys[key] = lead_id
                if key[0] == "external" and candidate.external is not None:
                    self.external[key[1]] = candidate.external

    def _own_values(self, candidate: Candidate, lead_id: UUID) -> Values:
        """The values without the address, number or id of a lead that must not be merged with this one."""
        values = candidate.values
        others = {kind for kind, value in candidate.keys if self.keys[kind, value] != lead_id}
        if not others:
            return values
        return values._replace(
            person={name: value for name, value in values.person.items() if name not in others},
            external_key=None if "external" in others else values.external_key,
        )

    def _save(self, lead: Lead) -> None:
        self.leads[lead.lead_id] = lead
        self.changed_ids[lead.lead_id] = None

    def _enter(self, lead: Lead) -> None:
        """A lead comes in for all to see, at the time of its first submission."""
        self._save(lead)
        self.events.append(
            LeadCaptured(
                lead_id=lead.lead_id,
                sequence=lead.sequence,
                occurred_at=lead.captured_at,
                recorded_at=self.now,
                state=lead.state(),
            )
        )

    def _update(self, before: Lead, after: Lead, at: datetime) -> Lead:
        changed = find_changed_fields(before, after)
        if not changed:
            # Personal fields may still differ; they are saved and nothing is published.
            self._save(after)
            return after
        after = replace(after, sequence=after.sequence + 1)
        self._save(after)
        self.events.append(
            LeadUpdated(
                lead_id=after.lead_id,
                sequence=after.sequence,
                occurred_at=at,
                recorded_at=self.now,
                state=after.state(),
                changed=changed,
            )
        )
        return after

    def _merge_matches(self, matches: list[Lead], candidate: Candidate) -> Lead:
        """One lead of all that the submission's keys name, but for those that must not be merged with the one with the strongest key."""
        survivor = matches[0]
        for place, other in enumerate(matches[1:]):
            if frozenset((survivor.lead_id, other.lead_id)) not in self.do_not_merge:
                survivor = self.merge(survivor, other, candidate.merge_id(place), candidate.submission_id)
        return survivor

    def merge(
        self, one: Lead, other: Lead, merge_id: UUID, submission_id: UUID | None, caller: str | None = None
    ) -> Lead:
        """Make one of two leads: the oldest survives with the newest value of each field."""
        survivor, gone = choose_survivor(one, other)
        new_keys = tuple(key for key, lead_id in self.new_keys.items() if lead_id == gone.lead_id)
        self.merges.append(Merge(merge_id, survivor, gone, submission_id, caller, new_keys))
        # Whoever must not be merged with the one that goes must not be merged with the survivor either.
        self.do_not_merge |= {
            pair - {gone.lead_id} | {survivor.lead_id} for pair in self.do_not_merge if gone.lead_id in pair
        }
        return self._absorb(survivor, gone, merge_id)

    def _absorb(self, survivor: Lead, gone: Lead, merge_id: UUID) -> Lead:
        whole = absorb_lead(survivor, gone)
        self._save(replace(gone, merged_into=survivor.lead_id))
        for key, lead_id in list(self.keys.items()):
            if lead_id == gone.lead_id:
                self.keys[key] = survivor.lead_id
        for key, lead_id in list(self.new_keys.items()):
            if lead_id == gone.lead_id:
                self.new_keys[key] = survivor.lead_id
        if survivor.pending:
            self._save(whole)  # both were pending; the survivor comes in by the submission that joined them
            return whole
        if gone.pending:
            return self._update(survivor, whole, self.now)  # nobody else knows of the one that goes
        whole = replace(whole, sequence=whole.sequence + 1)
        self._save(whole)
        self.events.append(
            LeadMerged(
                lead_id=whole.lead_id,
                sequence=whole.sequence,
                occurred_at=self.now,
                recorded_at=self.now,
                merge_id=merge_id,
                merged_lead_id=gone.lead_id,
                state=whole.state(),
            )
        )
        return whole

    def _quarantine(self, candidate: Candidate, matches: list[Lead]) -> CaptureOutcome:
        """A new person becomes a pending lead, so that nobody makes a second lead of them; a known one stays as it is."""
        lead = min(matches, key=lambda one: (one.pending, one.captured_at, one.lead_id), default=None)
        outcome: Outcome = "updated"
        if lead is None:
            lead = create_lead(candidate.new_lead_id, candidate.values, pending=True, sequence=0)
            self._claim_keys(candidate, lead.lead_id)
            outcome = "created"
        elif lead.pending:
            # Another way to name the same person; nobody else may make a second lead of it.
            self._claim_keys(candidate, lead.lead_id)
        lead = replace(lead, sequence=lead.sequence + 1)
        self._save(lead)
        self.events.append(
            LeadQuarantined(
                lead_id=lead.lead_id,
                sequence=lead.sequence,
                occurred_at=candidate.values.at,
                recorded_at=self.now,
                submission_id=candidate.submission_id,
                source=candidate.values.source,
                policy_version=candidate.quality.policy_version or 0,
                quality_score=candidate.quality.score or 0.0,
                failed=list(candidate.quality.failed),
            )
        )
        return CaptureOutcome(lead.lead_id, outcome)

    def _reject(self, candidate: Candidate) -> None:
        self.events.append(
            LeadRejected(
                occurred_at=candidate.values.at,
                recorded_at=self.now,
                submission_id=candidate.submission_id,
                source=candidate.values.source,
                policy_version=candidate.quality.policy_version or 0,
                quality_score=candidate.quality.score or 0.0,
                failed=list(candidate.quality.failed),
            )
        )


def _with_earliest_origin(lead: Lead, values: Values) -> Lead:
    """A pending lead with the time and source of the earliest submission that brings it in."""
    if not lead.pending or lead.captured_at <= values.at:
        return lead
    return replace(lead, captured_at=values.at, source=values.source)
