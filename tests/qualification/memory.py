"""The service without a database: leads, logs and what was said, kept in memory, with a register for each thing that is told."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from msgspec.structs import replace

from accord.contracts.base import LeadEvent
from accord.contracts.codec import decode_value, encode_value
from accord.contracts.qualification_events import LeadStageChanged
from qualification.definition.domain.rules import Rules
from qualification.lifecycle.domain.facts import ActivityOccurred, Decision, OwnerAssigned
from qualification.lifecycle.domain.history import Log, effective_entries, fold, merge_group
from qualification.lifecycle.domain.lead import Lead
from qualification.lifecycle.domain.unit_of_work import EmittedEvents, LeadUnitOfWork, LogNotLoaded


@dataclass
class Memory:
    """What the database and the topic would hold."""

    rules: Rules | None = None
    versions: dict[int, Rules] = field(default_factory=dict)
    leads: dict[UUID, Lead] = field(default_factory=dict)
    logs: dict[UUID, Log] = field(default_factory=dict)
    emitted: list[LeadEvent] = field(default_factory=list)

    def activate(self, rules: Rules) -> None:
        self.rules = rules
        self.versions[rules.version] = rules

    def apply_events(self, now: datetime, *events: Any) -> list[LeadEvent]:
        """What is said when these are told, one unit of work each."""
        before = len(self.emitted)
        for event in events:
            unit = self.unit(now)
            try:
                emitted = unit.apply_event(event)
            except LogNotLoaded as needed:
                self._load_logs(unit, *needed.lead_ids)
                emitted = unit.apply_event(event)
            self._save(unit, (*emitted, *unit.replay_late()))
        return self.emitted[before:]

    def apply_activities(self, now: datetime, *events: Any) -> list[LeadEvent]:
        """What is said when these are told in one unit of work."""
        before = len(self.emitted)
        unit, emitted = self.unit(now), []
        for event in events:
            try:
                emitted += unit.apply_event(event)
            except LogNotLoaded as needed:
                self._load_logs(unit, *needed.lead_ids)
                emitted += unit.apply_event(event)
        self._save(unit, (*emitted, *unit.replay_late()))
        return self.emitted[before:]

    def decide(self, now: datetime, lead_id: UUID, decision: Decision, *, is_batch: bool = False) -> list[LeadEvent]:
        before = len(self.emitted)
        unit = self.unit(now)
        try:
            _, emitted = unit.decide(lead_id, decision, is_batch=is_batch)
        except LogNotLoaded as needed:
            self._load_logs(unit, *needed.lead_ids)
            _, emitted = unit.decide(lead_id, decision, is_batch=is_batch)
        self._save(unit, (emitted,))
        return self.emitted[before:]

    def assign(self, now: datetime, lead_id: UUID, fact: OwnerAssigned) -> None:
        unit = self.unit(now)
        unit.record_assignment(lead_id, fact)
        self._save(unit, ())

    def enter(self, now: datetime, lead_id: UUID) -> list[LeadEvent]:
        before = len(self.emitted)
        unit = self.unit(now)
        self._load_logs(unit, lead_id)
        self._save(unit, unit.enter(lead_id))
        return self.emitted[before:]

    def reevaluate(self, now: datetime, lead_id: UUID) -> list[LeadEvent]:
        before = len(self.emitted)
        unit = self.unit(now)
        emitted = unit.reevaluate(lead_id)
        self._save(unit, (emitted,) if emitted else ())
        return self.emitted[before:]

    def advance_time(self, now: datetime, until: datetime) -> list[LeadEvent]:
        before = len(self.emitted)
        for lead_id, lead in list(self.leads.items()):
            if lead.due_at is not None and lead.due_at <= until:
                unit = self.unit(now)
                emitted = unit.advance_time(lead_id, until)
                self._save(unit, (emitted,) if emitted else ())
        return self.emitted[before:]

    def events_of(self, lead_id: UUID) -> list[Any]:
        return [event for event in self.emitted if event.lead_id == lead_id]

    def entries(self, lead_id: UUID) -> list[LeadStageChanged]:
        """The entries that stand, as a consumer has them that does what corrections say and nothing more."""
        return effective_entries(event for event in self.events_of(lead_id) if isinstance(event, LeadStageChanged))

    def folded(self, lead_id: UUID) -> Any:
        """The lead from zero, by its log alone, as far as it was judged."""
        return fold(lead_id, self.logs, self.versions, until=self.leads[lead_id].evaluated_at)

    def unit(self, now: datetime) -> LeadUnitOfWork:
        unit = LeadUnitOfWork(self.leads, self.rules, self.versions, now)
        unit.leads = _Unknown(unit.leads, self._is_noted)
        return unit

    def _is_noted(self, lead_id: UUID) -> bool:
        log = self.logs.get(lead_id)
        return log is not None and any(isinstance(fact, ActivityOccurred) for fact in log.facts)

    def _load_logs(self, unit: LeadUnitOfWork, *lead_ids: UUID) -> None:
        for lead_id in lead_ids:
            members = merge_group(lead_id, self.logs)
            stands = {member: self.entries(member) for member in members}
            unit.load_log(lead_id, {m: self.logs[m] for m in members if m in self.logs}, stands)

    def _save(self, unit: LeadUnitOfWork, emitted: Iterable[EmittedEvents]) -> None:
        for one in emitted:
            for event in one.events:
                assert_valid(event)
            self.emitted += one.events
        for lead_id, lead in unit.leads.items():
            if lead.profile is not None or lead.merged_into is not None or lead.erased:
                self.leads[lead_id] = replace(lead, revision=lead.revision + (lead is not self.leads.get(lead_id)))
        self._save_logs(unit)

    def _save_logs(self, unit: LeadUnitOfWork) -> None:
        for entry in unit.log_entries:
            log = self.logs.get(entry.lead_id, Log(entry.lead_id))
            if entry.fact not in log.facts:  # as the tables have it
                self.logs[entry.lead_id] = log.with_fact(entry.fact)
        for holder, merge_id in unit.reverted_merges:
            self.logs[holder] = self.logs[holder].without_merge(merge_id)
        for redirect in unit.redirects:
            for member in redirect.lead_ids[1:] if redirect.is_revert else ():
                self.leads[member] = replace(self.leads[member], merged_into=redirect.target_id)
        for member in {member for lead_id in unit.erased for member in merge_group(lead_id, self.logs)}:
            self.logs.pop(member, None)
        for lead_id, lead in self.leads.items():
            if lead_id in self.logs and lead.entry_version is not None:
                self.logs[lead_id] = replace(self.logs[lead_id], entry_version=lead.entry_version)


def assert_valid(event: LeadEvent) -> None:
    """An event is checked when it is written, not when it is made."""
    assert decode_value(type(event), encode_value(event)) == event


class _Unknown(dict[UUID, Lead]):
    """Leads; one that was never heard of is an empty one, as a query would give it."""

    def __init__(self, known: Any = (), is_noted: Any = None) -> None:
        super().__init__(known)
        self._is_noted = is_noted

    def __missing__(self, lead_id: UUID) -> Lead:
        lead = Lead(lead_id, has_early_activities=bool(self._is_noted and self._is_noted(lead_id)))
        self[lead_id] = lead
        return lead
