"""Many leads taken through many events in one transaction: locked by one statement, decided in memory, written back at the end.

Whoever uses it has opened the recording and says which leads the events concern before the first of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from uuid import UUID

from accord.contracts.base import LeadEvent
from accord.contracts.intake_events import ActivityRecorded, LeadCaptured, LeadErased, LeadMerged, LeadUpdated
from accord.contracts.qualification_events import LeadDecided, LeadStageChanged
from accord.database import Recording
from qualification.domain import progress
from qualification.domain.decisions import Decided, Fields
from qualification.domain.lead import Lead
from qualification.domain.progress import DefinitionArrived, Merged
from qualification.domain.rules import Rules
from qualification.domain.way import Outcome
from qualification.queries import activities, external_keys, history, leads

Told = LeadCaptured | LeadUpdated | LeadMerged | LeadErased | ActivityRecorded
"""What intake tells that moves a lead."""

_NO_KINDS: frozenset[str] = frozenset()


def concerned(event: Told) -> tuple[UUID, ...]:
    """The leads that an event concerns."""
    return (event.lead_id, event.merged_lead_id) if isinstance(event, LeadMerged) else (event.lead_id,)


class LeadBatch:
    """The leads of one recording. Not kept beyond it."""

    def __init__(self, recording: Recording, rules: Rules | None, locked: dict[UUID, Lead]) -> None:
        self._recording = recording
        self._rules = rules
        self._before = dict(locked)
        self._leads = locked
        self._activities: list[activities.Row] = []
        self._moves: list[tuple[UUID, UUID]] = []
        self._entries: list[LeadStageChanged] = []
        self._decisions: list[LeadDecided] = []
        self._fields: dict[UUID, Fields] = {}
        self._notes: list[history.Note] = []
        self._erased: set[UUID] = set()

    @classmethod
    async def lock(cls, recording: Recording, rules: Rules | None, lead_ids: Iterable[UUID]) -> LeadBatch:
        """Load and lock these leads, and the survivors of those that were merged."""
        kinds = rules.kinds if rules else _NO_KINDS
        return cls(recording, rules, await leads.lock(await recording.driver(), lead_ids, kinds))

    def lead(self, lead_id: UUID) -> Lead:
        """The lead as it is by now; in place of one that was merged, its survivor. Unknown ones have no profile."""
        lead = self._leads[lead_id]
        while lead.merged_into is not None:
            lead = self._leads[lead.merged_into]
        return lead

    def take(self, event: Told, traceparent: str | None) -> None:
        """Apply what intake told."""
        lead = self.lead(event.lead_id)
        if isinstance(event, LeadMerged):
            self._merge(lead, event, traceparent)
            return
        redirected = lead.lead_id != event.lead_id
        if redirected and isinstance(event, LeadCaptured | LeadUpdated):
            return  # the survivor's profile has been told whole with the merge
        if isinstance(event, ActivityRecorded) and not lead.erased:
            self._keep(event, lead)
        if isinstance(event, LeadErased):
            self._erased.add(lead.lead_id)
        self._settle(lead, progress.decide(lead, event, self._rules, self._recording.now), traceparent)

    def decide(self, lead_id: UUID, decided: Decided, note: str | None) -> Outcome:
        """Apply a decision. Raises Refused, and then nothing has changed."""
        lead = self.lead(lead_id)
        outcome = progress.decide(lead, decided, self._rules, self._recording.now)
        self._fields[decided.decision_id] = decided.fields
        if note:
            self._notes.append(history.Note(lead.lead_id, decided.decision_id, note))
        self._settle(lead, outcome, None)
        return outcome

    def evaluate(self, lead_id: UUID) -> None:
        """Let a lead without a stage enter under the definition that is in force now."""
        lead = self.lead(lead_id)
        self._settle(lead, progress.decide(lead, DefinitionArrived(), self._rules, self._recording.now), None)

    async def save(self) -> None:
        """Write everything back, before the recording ends."""
        driver = await self._recording.driver()
        changed = [
            replace(lead, revision=lead.revision + 1)
            for lead_id, lead in self._leads.items()
            if lead is not self._before[lead_id]
        ]
        await activities.append(driver, self._activities)
        for merged, survivor in self._moves:
            await activities.move(driver, merged, survivor)
            await leads.follow(driver, [merged], survivor)
        await leads.save(driver, changed, self._before, self._recording.now)
        await external_keys.put(driver, self._new_keys(changed))
        await history.append(driver, self._entries, self._decisions, self._fields, self._notes)
        if self._erased:
            erased = sorted(self._erased)
            await history.forget(driver, erased)
            await external_keys.drop(driver, erased)

    def _merge(self, survivor: Lead, event: LeadMerged, traceparent: str | None) -> None:
        merged = self.lead(event.merged_lead_id)
        if merged.lead_id == survivor.lead_id:
            return  # told before
        outcome = progress.decide(survivor, Merged(event, merged), self._rules, self._recording.now)
        self._leads[merged.lead_id] = progress.absorbed(merged, merged.lead_id, survivor.lead_id)
        self._moves.append((merged.lead_id, survivor.lead_id))
        self._settle(survivor, outcome, traceparent)

    def _keep(self, event: ActivityRecorded, lead: Lead) -> None:
        recorded_for = event.lead_id if lead.lead_id != event.lead_id else None
        self._activities.append(
            activities.Row(lead.lead_id, event.kind, event.occurred_at, event.activity_id, event.by, recorded_for)
        )

    def _settle(self, before: Lead, outcome: Outcome, traceparent: str | None) -> None:
        if outcome.lead is not None and outcome.lead is not before:
            self._leads[before.lead_id] = outcome.lead
        if outcome.events:
            self._recording.publish(*outcome.events, traceparent=traceparent)
            self._note(outcome.events)

    def _note(self, events: Iterable[LeadEvent]) -> None:
        for event in events:
            if isinstance(event, LeadStageChanged):
                self._entries.append(event)
            elif isinstance(event, LeadDecided):
                self._decisions.append(event)

    def _new_keys(self, changed: Iterable[Lead]) -> dict[str, UUID]:
        keys: dict[str, UUID] = {}
        for lead in changed:
            before = self._before[lead.lead_id].profile
            if lead.profile is None or lead.profile is before:
                continue
            known = before.external_keys if before else ()
            keys |= {key: lead.lead_id for key in lead.profile.external_keys if key not in known}
        return keys
