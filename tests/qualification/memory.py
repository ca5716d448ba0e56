"""The service without a database: leads, logs and what was said, kept in memory, with a register for each thing that is told."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from accord.contracts.base import LeadEvent
from accord.contracts.codec import decode_value, encode_value
from accord.contracts.qualification_events import LeadStageChanged
from qualification.definition.domain.rules import Rules
from qualification.lifecycle.domain.facts import ActivityOccurred, Decided, OwnerAssigned
from qualification.lifecycle.domain.history import Log, family, fold, standing
from qualification.lifecycle.domain.lead import Lead
from qualification.lifecycle.domain.unit_of_work import LeadUnitOfWork, LogNotLoaded, Said


@dataclass
class Memory:
    """What the database and the topic would hold."""

    rules: Rules | None = None
    versions: dict[int, Rules] = field(default_factory=dict)
    leads: dict[UUID, Lead] = field(default_factory=dict)
    logs: dict[UUID, Log] = field(default_factory=dict)
    said: list[LeadEvent] = field(default_factory=list)

    def activate(self, rules: Rules) -> None:
        self.rules = rules
        self.versions[rules.version] = rules

    def tell(self, now: datetime, *events: Any) -> list[LeadEvent]:
        """What is said when these are told, one unit of work each."""
        before = len(self.said)
        for event in events:
            register = self.register(now)
            try:
                said = register.apply_event(event)
            except LogNotLoaded as needed:
                self._teach(register, *needed.lead_ids)
                said = register.apply_event(event)
            self._save(register, said)
        return self.said[before:]

    def decide(self, now: datetime, lead_id: UUID, decided: Decided, *, of_batch: bool = False) -> list[LeadEvent]:
        before = len(self.said)
        register = self.register(now)
        try:
            _, said = register.decide(lead_id, decided, of_batch=of_batch)
        except LogNotLoaded as needed:
            self._teach(register, *needed.lead_ids)
            _, said = register.decide(lead_id, decided, of_batch=of_batch)
        self._save(register, (said,))
        return self.said[before:]

    def assign(self, now: datetime, lead_id: UUID, fact: OwnerAssigned) -> None:
        register = self.register(now)
        register.assigned(lead_id, fact)
        self._save(register, ())

    def enter(self, now: datetime, lead_id: UUID) -> list[LeadEvent]:
        before = len(self.said)
        register = self.register(now)
        self._teach(register, lead_id)
        self._save(register, register.enter(lead_id))
        return self.said[before:]

    def reevaluate(self, now: datetime, lead_id: UUID) -> list[LeadEvent]:
        before = len(self.said)
        register = self.register(now)
        said = register.reevaluate(lead_id)
        self._save(register, (said,) if said else ())
        return self.said[before:]

    def pass_time(self, now: datetime, until: datetime) -> list[LeadEvent]:
        before = len(self.said)
        for lead_id, lead in list(self.leads.items()):
            if lead.due_at is not None and lead.due_at <= until:
                register = self.register(now)
                said = register.pass_time(lead_id, until)
                self._save(register, (said,) if said else ())
        return self.said[before:]

    def of(self, lead_id: UUID) -> list[Any]:
        return [event for event in self.said if event.lead_id == lead_id]

    def entries(self, lead_id: UUID) -> list[LeadStageChanged]:
        """The entries that stand, as a consumer has them that does what corrections say and nothing more."""
        return standing(event for event in self.of(lead_id) if isinstance(event, LeadStageChanged))

    def folded(self, lead_id: UUID) -> Any:
        """The lead from zero, by its log alone, as far as it was judged."""
        return fold(lead_id, self.logs, self.versions, until=self.leads[lead_id].evaluated_at)

    def register(self, now: datetime) -> LeadUnitOfWork:
        register = LeadUnitOfWork(self.leads, self.rules, self.versions, now)
        register.leads = _Unknown(register.leads, self._is_noted)
        return register

    def _is_noted(self, lead_id: UUID) -> bool:
        log = self.logs.get(lead_id)
        return log is not None and any(isinstance(fact, ActivityOccurred) for fact in log.facts)

    def _teach(self, register: LeadUnitOfWork, *lead_ids: UUID) -> None:
        for lead_id in lead_ids:
            members = family(lead_id, self.logs)
            stands = {member: self.entries(member) for member in members}
            register.learn(lead_id, {m: self.logs[m] for m in members if m in self.logs}, stands)

    def _save(self, register: LeadUnitOfWork, said: Iterable[Said]) -> None:
        for one in said:
            for event in one.events:
                assert_valid(event)
            self.said += one.events
        for lead_id, lead in register.leads.items():
            if lead.profile is not None or lead.merged_into is not None or lead.erased:
                self.leads[lead_id] = replace(lead, revision=lead.revision + (lead is not self.leads.get(lead_id)))
        self._save_logs(register)

    def _save_logs(self, register: LeadUnitOfWork) -> None:
        for kept in register.kept:
            log = self.logs.get(kept.lead_id, Log(kept.lead_id))
            if kept.fact not in log.facts:  # as the tables have it
                self.logs[kept.lead_id] = log.with_one(kept.fact)
        for holder, merge_id in register.undone:
            self.logs[holder] = self.logs[holder].without_merge(merge_id)
        for moved in register.moved:
            for member in moved.lead_ids[1:] if moved.back else ():
                self.leads[member] = replace(self.leads[member], merged_into=moved.to)
        for member in {member for lead_id in register.erased for member in family(lead_id, self.logs)}:
            self.logs.pop(member, None)
        for lead_id, lead in self.leads.items():
            if lead_id in self.logs and lead.entered_under is not None:
                self.logs[lead_id] = replace(self.logs[lead_id], entered_under=lead.entered_under)


def assert_valid(event: LeadEvent) -> None:
    """An event is checked when it is written, not when it is made."""
    assert decode_value(type(event), encode_value(event)) == event


class _Unknown(dict[UUID, Lead]):
    """Leads; one that was never heard of is an empty one, as a query would give it."""

    def __init__(self, known: Any = (), is_noted: Any = None) -> None:
        super().__init__(known)
        self._is_noted = is_noted

    def __missing__(self, lead_id: UUID) -> Lead:
        lead = Lead(lead_id, noted=bool(self._is_noted and self._is_noted(lead_id)))
        self[lead_id] = lead
        return lead
