"""Many events applied to many leads in one transaction: locked by one statement, evaluated in memory, written back at the end.

The caller opens the unit of work and names the leads before the first event. The log of a lead is read when a late event needs it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from uuid import UUID

from accord.contracts.intake_events import ActivityRecorded, LeadMerged, LeadUnmerged
from accord.contracts.qualification_events import LeadDecided, LeadStageChanged
from accord.db import UnitOfWork
from qualification.lifecycle.domain.facts import (
    ActivityOccurred,
    Decision,
    DecisionAccepted,
    Fact,
    MergeApplied,
    VersionApplied,
)
from qualification.lifecycle.domain.lead import Lead
from qualification.lifecycle.domain.unit_of_work import (
    EmittedEvents,
    IncomingEvent,
    LeadRedirect,
    LeadUnitOfWork,
    LogEntry,
    LogNotLoaded,
)
from qualification.lifecycle.queries import activities, external_keys, history, leads, logs
from qualification.lifecycle.service.evaluation_context import Changes, EvaluationContext, MergeChange

__all__ = ["IncomingEvent", "LeadBatch", "affected_leads"]


def affected_leads(event: IncomingEvent) -> tuple[UUID, ...]:
    """The leads that an event concerns."""
    if type(event) is LeadMerged:
        return event.lead_id, event.merged_lead_id
    if type(event) is LeadUnmerged:
        return event.lead_id, event.restored_lead_id
    return (event.lead_id,)


class LeadBatch:
    """The leads of one unit of work. Not kept beyond it."""

    def __init__(
        self, unit_of_work: UnitOfWork, context: EvaluationContext, locked: dict[UUID, Lead], kinds: Collection[str]
    ) -> None:
        self._unit_of_work = unit_of_work
        self._context = context
        self._kinds = kinds
        self._before = dict(locked)
        self._lead_unit = LeadUnitOfWork(locked, context.in_force, context.versions, unit_of_work.now)
        self._entries: list[LeadStageChanged] = []
        self._decision_events: list[LeadDecided] = []
        self._accepted: dict[UUID, DecisionAccepted] = {}
        self._notes: list[history.Note] = []

    @classmethod
    async def lock(cls, unit_of_work: UnitOfWork, context: EvaluationContext, lead_ids: Iterable[UUID]) -> LeadBatch:
        """Load and lock these leads, and the survivors of those that were merged."""
        connection, asked = await unit_of_work.connection(), sorted(set(lead_ids))
        locked = await leads.lock(connection, asked, context.kinds)
        applied = {lead.applied_version for lead in locked.values() if lead.applied_version is not None}
        await context.load_versions(applied, unit_of_work.conn)
        kinds = context.kinds.union(*(context.versions[version].kinds for version in applied))
        if kinds != context.kinds:  # another process has seen a version come into force before this one did
            locked = await leads.lock(connection, asked, kinds)
        return cls(unit_of_work, context, locked, kinds)

    @property
    def entries(self) -> Sequence[LeadStageChanged]:
        """The stage entries emitted so far, corrections among them."""
        return self._entries

    def lead(self, lead_id: UUID) -> Lead:
        """The lead as it is by now; in place of one that was merged, its survivor. Unknown ones have no profile."""
        return self._lead_unit.lead(lead_id)

    async def prefetch_logs(self, events: Iterable[IncomingEvent]) -> None:
        """Read the logs that these events will probably need, all at once."""
        await self._load_logs(self._lead_unit.logs_to_prefetch(events))

    async def prefetch_logs_for_decisions(self, decisions: Iterable[tuple[UUID, datetime]]) -> None:
        """The same for decisions, by lead and the moment that they are dated."""
        found = (self.lead(lead_id) for lead_id, at in decisions if self._is_late(lead_id, at))
        await self._load_logs(list(dict.fromkeys(lead.lead_id for lead in found)))

    def _is_late(self, lead_id: UUID, at: datetime) -> bool:
        lead = self.lead(lead_id)
        return lead.position is not None and at < lead.position.at and not lead.erased

    async def apply_event(self, event: IncomingEvent, traceparent: str | None) -> None:
        """Apply an event of intake. Late activities are applied by `save`, or before another event of their lead."""
        if type(event) is not ActivityRecorded:
            self._replay_late(*affected_leads(event))
        try:
            told = self._lead_unit.apply_event(event)
        except LogNotLoaded as needed:
            await self._load_logs(needed.lead_ids)
            told = self._lead_unit.apply_event(event)
        for emitted in told:
            self._publish(emitted, traceparent)

    def _replay_late(self, *lead_ids: UUID) -> None:
        for emitted in self._lead_unit.replay_late(*lead_ids):
            self._publish(emitted, None)

    async def decide(
        self, lead_id: UUID, decision: Decision, note: str | None, *, is_batch: bool = False
    ) -> EmittedEvents:
        """Apply a decision. Raises Refused, and then nothing has changed."""
        try:
            accepted, emitted = self._lead_unit.decide(lead_id, decision, is_batch=is_batch)
        except LogNotLoaded as needed:
            await self._load_logs(needed.lead_ids)
            accepted, emitted = self._lead_unit.decide(lead_id, decision, is_batch=is_batch)
        self._accepted[decision.decision_id] = accepted
        if note:
            self._notes.append(history.Note(emitted.lead.lead_id, decision.decision_id, note))
        self._publish(emitted, None)
        return emitted

    async def enter(self, lead_ids: Sequence[UUID]) -> None:
        """Let leads without a stage enter under the definition that is in force now."""
        await self._load_logs(lead_ids)
        for lead_id in lead_ids:
            for emitted in self._lead_unit.enter(lead_id):
                self._publish(emitted, None)

    def reevaluate(self, lead_id: UUID) -> bool:
        """Evaluate a lead by the version in force; whether an older one had evaluated it."""
        emitted = self._lead_unit.reevaluate(lead_id)
        if emitted is not None:
            self._publish(emitted, None)
        return emitted is not None

    def advance_time(self, lead_id: UUID, until: datetime) -> None:
        """Do what time alone brings about for a lead."""
        emitted = self._lead_unit.advance_time(lead_id, until)
        if emitted is not None:
            self._publish(emitted, None)

    async def save(self) -> None:
        """Write everything back, before the unit of work ends."""
        self._replay_late()
        connection, unit, now = await self._unit_of_work.connection(), self._lead_unit, self._unit_of_work.now
        changed = [lead for lead_id, lead in unit.leads.items() if lead is not self._before[lead_id]]
        await activities.insert(
            connection,
            [_row(entry, entry.fact) for entry in unit.log_entries if isinstance(entry.fact, ActivityOccurred)],
        )
        for redirect in unit.redirects:
            await self._apply_redirect(redirect)
        await logs.insert_facts(connection, self._log_facts(), now)
        for lead_id, merge_id in unit.reverted_merges:
            await logs.mark_reverted(connection, lead_id, merge_id)
        await leads.save(connection, changed, self._before, now)
        await external_keys.upsert(connection, self._new_keys(changed))
        decisions = [(decision, self._accepted[decision.decision_id]) for decision in self._decision_events]
        await history.insert(connection, self._entries, decisions, self._notes)
        if unit.erased:
            erased = sorted(unit.erased)
            await history.erase(connection, erased)
            await logs.delete(connection, erased)
            await external_keys.delete(connection, erased)
        await self._context.after_save(self._unit_of_work, self._changes(), self._context.in_force)

    def _changes(self) -> Changes:
        unit = self._lead_unit
        merges = [
            MergeChange(redirect.merge_id, redirect.source_id, unit.lead(redirect.target_id).lead_id)
            for redirect in unit.redirects
            if not redirect.is_revert
        ]
        reverted_merges = [
            MergeChange(redirect.merge_id, redirect.target_id, unit.lead(redirect.source_id).lead_id)
            for redirect in unit.redirects
            if redirect.is_revert
        ]
        return Changes(self._before, unit.leads, self._entries, merges, reverted_merges, unit.erased)

    async def _load_logs(self, lead_ids: Sequence[UUID]) -> None:
        if not lead_ids:
            return
        merged_now: dict[UUID, list[UUID]] = defaultdict(list)
        for entry in self._lead_unit.log_entries:
            if isinstance(entry.fact, MergeApplied):
                merged_now[entry.lead_id].append(entry.fact.merged_lead_id)
        loaded = await logs.load(await self._unit_of_work.connection(), lead_ids, merged_now, self._kinds)
        for lead_id in lead_ids:
            self._lead_unit.load_log(lead_id, loaded.logs, loaded.effective_entries)

    async def _apply_redirect(self, redirect: LeadRedirect) -> None:
        connection = await self._unit_of_work.connection()
        if redirect.is_revert:
            await activities.restore_to_merged(connection, redirect.lead_ids, redirect.source_id, redirect.target_id)
            await leads.set_survivor(connection, redirect.lead_ids[1:], redirect.target_id)
        else:
            await activities.move_to_survivor(connection, redirect.source_id, redirect.target_id)
            await leads.redirect_merged(connection, redirect.lead_ids, redirect.target_id)

    def _log_facts(self) -> list[tuple[UUID, Fact]]:
        unit = self._lead_unit
        own = [
            (entry.lead_id, entry.fact)
            for entry in unit.log_entries
            if isinstance(entry.fact, MergeApplied | VersionApplied)
        ]
        return [*own, *((lead_id, fact) for lead_id, fact in unit.superseded_profiles)]

    def _publish(self, emitted: EmittedEvents, traceparent: str | None) -> None:
        if not emitted.events:
            return
        self._unit_of_work.publish(*emitted.events, traceparent=traceparent)
        for event in emitted.events:
            if type(event) is LeadStageChanged:
                self._entries.append(event)
            elif type(event) is LeadDecided:
                self._decision_events.append(event)

    def _new_keys(self, changed: Iterable[Lead]) -> dict[str, UUID]:
        keys: dict[str, UUID] = {}
        for lead in changed:
            before = self._before[lead.lead_id].profile
            if lead.profile is None or lead.profile is before:
                continue
            known = before.external_keys if before else ()
            keys |= {key: lead.lead_id for key in lead.profile.external_keys if key not in known}
        return keys


def _row(entry: LogEntry, fact: ActivityOccurred) -> activities.ActivityRow:
    recorded_for = None if entry.lead_id == entry.survivor_id else entry.lead_id
    return activities.ActivityRow(entry.survivor_id, fact.kind, fact.at, fact.activity_id, fact.by, recorded_for)
