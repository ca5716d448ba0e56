"""Decides what becomes of submissions, one after the other, against the leads that their identity keys name. Pure: it is handed what
was read and gives back what to write.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal, NamedTuple
from uuid import UUID

from accord.contracts.base import EventData
from accord.contracts.intake_events import LeadCaptured, LeadMerged, LeadQuarantined, LeadRejected, LeadUpdated
from intake.leads.domain.keys import IdentityKey
from intake.leads.domain.lead import Lead, Values, absorbed, changed_fields, created, released, survivor_of, updated
from intake.leads.domain.quality import Quality

Outcome = Literal["created", "updated", "merged"]


class Candidate(NamedTuple):
    """One submission, recognised and judged: its keys, its values, and the id of the lead if it makes one."""

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


class Captured(NamedTuple):
    """What became of one submission. `lead_id` and `outcome` are None for a rejected one."""

    lead_id: UUID | None
    outcome: Outcome | None


@dataclass(frozen=True, slots=True)
class Merge:
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


@dataclass(slots=True)
class CaptureUnitOfWork:
    """The leads and keys of one transaction as they stand while its submissions are taken in one by one.

    `leads` holds every lead that a key names, and no lead that was merged into another.
    """

    now: datetime
    leads: dict[UUID, Lead]
    keys: dict[IdentityKey, UUID]
    apart: set[frozenset[UUID]] = field(default_factory=set)
    """Pairs of leads that a person has parted: no submission makes one of them."""
    known: frozenset[UUID] = field(init=False)
    """The leads that there were before."""
    touched: dict[UUID, None] = field(default_factory=dict)
    new_keys: dict[IdentityKey, UUID] = field(default_factory=dict)
    external: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Source and id of new keys of kind `external`, by their digest."""
    dropped_keys: dict[IdentityKey, UUID] = field(default_factory=dict)
    merges: list[Merge] = field(default_factory=list)
    events: list[EventData] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.known = frozenset(self.leads)

    def apply(self, candidate: Candidate) -> Captured:
        """Take one submission in. Its events are in `events`, its writes in `touched`, `new_keys` and `merges`."""
        quality = candidate.quality
        if quality.verdict == "rejected":
            self._reject(candidate)
            return Captured(None, None)
        matches = self._matches(candidate.keys)
        if quality.verdict == "quarantined":
            return self._quarantine(candidate, matches)
        return self._accept(candidate, matches)

    def release(self, candidate: Candidate, own: Lead | None) -> Captured:
        """Take in a submission that waited in quarantine. `own` is the held lead that waited for it alone, if there is one: it comes
        in, or is merged into the lead that the keys name by now."""
        matches = [_dated(lead, candidate.values) for lead in self._matches(candidate.keys)]
        if own is not None and own.lead_id not in {lead.lead_id for lead in matches}:
            matches.append(_dated(own, candidate.values))
        enters = len(matches) == 1 and matches[0].held
        captured = self._accept(candidate, matches)
        return Captured(captured.lead_id, "created") if enters else captured

    def wait_on(self, candidate: Candidate, own: Lead | None) -> Captured:
        """A submission that was corrected and waits on; nobody is told. `own` as in `release`: it is what the submission says now."""
        if own is None:
            matches = self._matches(candidate.keys)
            lead = min(matches, key=lambda one: (one.held, one.captured_at, one.lead_id), default=None)
            lead = lead or created(candidate.new_lead_id, candidate.values, held=True, sequence=0)
        else:
            lead = created(own.lead_id, candidate.values, held=True, sequence=own.sequence)
        if lead.held:
            self._claim(candidate, lead.lead_id)
            self._save(lead)
        return Captured(lead.lead_id, "created" if lead.lead_id not in self.known else "updated")

    def reduce(self, lead: Lead, dropped: Iterable[IdentityKey]) -> None:
        """A held lead is less than it was: a submission that it waited for has gone, and these of its keys with it."""
        self._save(lead)
        for key in dropped:
            if self.keys.get(key) == lead.lead_id:
                del self.keys[key]
                self.dropped_keys[key] = lead.lead_id

    def correct(self, before: Lead, after: Lead, dropped: Iterable[IdentityKey], taken: Iterable[IdentityKey]) -> None:
        """A person puts a lead right: it gives these keys up, and takes those that nobody has."""
        self.reduce(after, dropped)
        for key in taken:
            if key not in self.keys:
                self.keys[key] = after.lead_id
                self.new_keys[key] = after.lead_id
        if not after.held:
            self._update(before, after, self.now)

    def _accept(self, candidate: Candidate, matches: list[Lead]) -> Captured:
        if not matches:
            lead = created(candidate.new_lead_id, candidate.values, held=False, sequence=1)
            self._claim(candidate, lead.lead_id)
            self._enter(lead)
            return Captured(lead.lead_id, "created")
        merges = len(self.merges)
        survivor = self._merged(matches, candidate)
        self._claim(candidate, survivor.lead_id)
        values = self._values_of(candidate, survivor.lead_id) if len(matches) > 1 else candidate.values
        if survivor.held:
            self._enter(released(survivor, values, sequence=survivor.sequence + 1))
        else:
            self._update(survivor, updated(survivor, values), values.at)
        return Captured(survivor.lead_id, "merged" if len(self.merges) > merges else "updated")

    def _matches(self, keys: Iterable[IdentityKey]) -> list[Lead]:
        found = dict.fromkeys(self.keys[key] for key in keys if key in self.keys)
        return [self.leads[lead_id] for lead_id in found]

    def _claim(self, candidate: Candidate, lead_id: UUID) -> None:
        """Take the keys that nobody has."""
        for key in candidate.keys:
            if key not in self.keys:
                self.keys[key] = lead_id
                self.new_keys[key] = lead_id
                if key[0] == "external" and candidate.external is not None:
                    self.external[key[1]] = candidate.external

    def _values_of(self, candidate: Candidate, lead_id: UUID) -> Values:
        """The values without the address, number or id of a lead that is apart from this one."""
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
        self.touched[lead.lead_id] = None

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
        changed = changed_fields(before, after)
        if not changed:
            # Personal fields may still differ; they are saved and nobody else is told.
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

    def _merged(self, matches: list[Lead], candidate: Candidate) -> Lead:
        """One lead of all that the submission's keys name, but for those that are apart from the one with the strongest key."""
        survivor = matches[0]
        for place, other in enumerate(matches[1:]):
            if frozenset((survivor.lead_id, other.lead_id)) not in self.apart:
                survivor = self.merge(survivor, other, candidate.merge_id(place), candidate.submission_id)
        return survivor

    def merge(
        self, one: Lead, other: Lead, merge_id: UUID, submission_id: UUID | None, caller: str | None = None
    ) -> Lead:
        """Make one of two leads: the oldest survives with the newest value of each field."""
        survivor, gone = survivor_of(one, other)
        new_keys = tuple(key for key, lead_id in self.new_keys.items() if lead_id == gone.lead_id)
        self.merges.append(Merge(merge_id, survivor, gone, submission_id, caller, new_keys))
        # Whoever is apart from the one that goes is apart from the survivor too.
        self.apart |= {pair - {gone.lead_id} | {survivor.lead_id} for pair in self.apart if gone.lead_id in pair}
        return self._absorb(survivor, gone, merge_id)

    def _absorb(self, survivor: Lead, gone: Lead, merge_id: UUID) -> Lead:
        whole = absorbed(survivor, gone)
        self._save(replace(gone, merged_into=survivor.lead_id))
        for key, lead_id in list(self.keys.items()):
            if lead_id == gone.lead_id:
                self.keys[key] = survivor.lead_id
        for key, lead_id in list(self.new_keys.items()):
            if lead_id == gone.lead_id:
                self.new_keys[key] = survivor.lead_id
        if survivor.held:
            self._save(whole)  # both were held; the survivor comes in by the submission that joined them
            return whole
        if gone.held:
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

    def _quarantine(self, candidate: Candidate, matches: list[Lead]) -> Captured:
        """A new person is held, so that nobody makes a second lead of them; a known one stays as it is."""
        lead = min(matches, key=lambda one: (one.held, one.captured_at, one.lead_id), default=None)
        outcome: Outcome = "updated"
        if lead is None:
            lead = created(candidate.new_lead_id, candidate.values, held=True, sequence=0)
            self._claim(candidate, lead.lead_id)
            outcome = "created"
        elif lead.held:
            # Another way to name the same person; nobody else may make a second lead of it.
            self._claim(candidate, lead.lead_id)
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
        return Captured(lead.lead_id, outcome)

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


def _dated(lead: Lead, values: Values) -> Lead:
    """A held lead with the time and source of the earliest submission that brings it in."""
    if not lead.held or lead.captured_at <= values.at:
        return lead
    return replace(lead, captured_at=values.at, source=values.source)
