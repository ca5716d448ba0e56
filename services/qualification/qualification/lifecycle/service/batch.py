"""Many leads taken through many events in one transaction: locked by one statement, decided in memory, written back at the end.

Whoever uses it has opened the unit of work and says which leads the events concern before the first of them. A lead whose log is needed,
because something of it is heard late, has it read then.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from uuid import UUID

from accord.contracts.intake_events import LeadMerged, LeadUnmerged
from accord.contracts.qualification_events import LeadDecided, LeadStageChanged
from accord.db import UnitOfWork
from qualification.lifecycle.domain.facts import (
    ActivityOccurred,
    Decided,
    DecisionAccepted,
    Fact,
    MergeApplied,
    VersionApplied,
)
from qualification.lifecycle.domain.lead import Lead
from qualification.lifecycle.domain.unit_of_work import Kept, LeadUnitOfWork, LogNotLoaded, Moved, Said, Told
from qualification.lifecycle.queries import activities, external_keys, history, leads, logs
from qualification.lifecycle.service.book import Book, Changes

__all__ = ["LeadBatch", "Told", "concerned"]


def concerned(event: Told) -> tuple[UUID, ...]:
    """The leads that an event concerns."""
    if type(event) is LeadMerged:
        return event.lead_id, event.merged_lead_id
    if type(event) is LeadUnmerged:
        return event.lead_id, event.restored_lead_id
    return (event.lead_id,)


class LeadBatch:
    """The leads of one unit of work. Not kept beyond it."""

    def __init__(self, unit_of_work: UnitOfWork, book: Book, locked: dict[UUID, Lead]) -> None:
        self._recording = unit_of_work
        self._book = book
        self._before = dict(locked)
        self._register = LeadUnitOfWork(locked, book.in_force, book.versions, unit_of_work.now)
        self._entries: list[LeadStageChanged] = []
        self._decided: list[LeadDecided] = []
        self._stood: dict[UUID, DecisionAccepted] = {}
        self._notes: list[history.Note] = []

    @classmethod
    async def lock(cls, unit_of_work: UnitOfWork, book: Book, lead_ids: Iterable[UUID]) -> LeadBatch:
        """Load and lock these leads, and the survivors of those that were merged."""
        locked = await leads.lock(await unit_of_work.connection(), lead_ids, book.kinds)
        await book.know({lead.ruled_by for lead in locked.values() if lead.ruled_by is not None}, unit_of_work.conn)
        return cls(unit_of_work, book, locked)

    @property
    def entries(self) -> Sequence[LeadStageChanged]:
        """The stage entries that were said so far, corrections among them."""
        return self._entries

    def lead(self, lead_id: UUID) -> Lead:
        """The lead as it is by now; in place of one that was merged, its survivor. Unknown ones have no profile."""
        return self._register.lead(lead_id)

    async def foresee(self, events: Iterable[Told]) -> None:
        """Read the logs that these events will probably need, all at once."""
        await self._learn(self._register.foresee(events))

    async def foresee_decisions(self, decisions: Iterable[tuple[UUID, datetime]]) -> None:
        """The same for decisions, by lead and the moment that they are dated."""
        found = (self.lead(lead_id) for lead_id, at in decisions if self._is_late(lead_id, at))
        await self._learn(list(dict.fromkeys(lead.lead_id for lead in found)))

    def _is_late(self, lead_id: UUID, at: datetime) -> bool:
        lead = self.lead(lead_id)
        return lead.clock is not None and at < lead.clock.at and not lead.erased

    async def apply_event(self, event: Told, traceparent: str | None) -> None:
        """Apply what intake told."""
        try:
            told = self._register.apply_event(event)
        except LogNotLoaded as needed:
            await self._learn(needed.lead_ids)
            told = self._register.apply_event(event)
        for said in told:
            self._publish(said, traceparent)

    async def decide(self, lead_id: UUID, decided: Decided, note: str | None, *, of_batch: bool = False) -> Said:
        """Apply a decision. Raises Refused, and then nothing has changed."""
        try:
            stood, said = self._register.decide(lead_id, decided, of_batch=of_batch)
        except LogNotLoaded as needed:
            await self._learn(needed.lead_ids)
            stood, said = self._register.decide(lead_id, decided, of_batch=of_batch)
        self._stood[decided.decision_id] = stood
        if note:
            self._notes.append(history.Note(said.lead.lead_id, decided.decision_id, note))
        self._publish(said, None)
        return said

    async def enter(self, lead_ids: Sequence[UUID]) -> None:
        """Let leads without a stage enter under the definition that is in force now."""
        await self._learn(lead_ids)
        for lead_id in lead_ids:
            for said in self._register.enter(lead_id):
                self._publish(said, None)

    def reevaluate(self, lead_id: UUID) -> bool:
        """Judge a lead by the version in force; whether it was judged by an older one."""
        said = self._register.reevaluate(lead_id)
        if said is not None:
            self._publish(said, None)
        return said is not None

    def pass_time(self, lead_id: UUID, until: datetime) -> None:
        """Do what time alone brings about for a lead."""
        said = self._register.pass_time(lead_id, until)
        if said is not None:
            self._publish(said, None)

    async def save(self) -> None:
        """Write everything back, before the unit of work ends."""
        connection, register, now = await self._recording.connection(), self._register, self._recording.now
        changed = [lead for lead_id, lead in register.leads.items() if lead is not self._before[lead_id]]
        await activities.append(
            connection, [_row(kept, kept.fact) for kept in register.kept if isinstance(kept.fact, ActivityOccurred)]
        )
        for moved in register.moved:
            await self._move(moved)
        await logs.keep(connection, self._facts(), now)
        for lead_id, merge_id in register.undone:
            await logs.undo(connection, lead_id, merge_id)
        await leads.save(connection, changed, self._before, now)
        await external_keys.put(connection, self._new_keys(changed))
        decisions = [(decided, self._stood[decided.decision_id]) for decided in self._decided]
        await history.append(connection, self._entries, decisions, self._notes)
        if register.erased:
            erased = sorted(register.erased)
            await history.forget(connection, erased)
            await logs.forget(connection, erased)
            await external_keys.drop(connection, erased)
        await self._book.then(self._recording, self._changes(), self._book.in_force)

    def _changes(self) -> Changes:
        register = self._register
        merged = [(moved.lead_ids[0], register.lead(moved.to).lead_id) for moved in register.moved if not moved.back]
        return Changes(self._before, register.leads, self._entries, merged, register.erased)

    async def _learn(self, lead_ids: Sequence[UUID]) -> None:
        if not lead_ids:
            return
        merged_now: dict[UUID, list[UUID]] = defaultdict(list)
        for kept in self._register.kept:
            if isinstance(kept.fact, MergeApplied):
                merged_now[kept.lead_id].append(kept.fact.merged_lead_id)
        loaded = await logs.load(await self._recording.connection(), lead_ids, merged_now)
        for lead_id in lead_ids:
            self._register.learn(lead_id, loaded.logs, loaded.stands)

    async def _move(self, moved: Moved) -> None:
        connection = await self._recording.connection()
        if moved.back:
            await activities.move_back(connection, moved.lead_ids, moved.away_from, moved.to)
            await leads.point_to(connection, moved.lead_ids[1:], moved.to)
        else:
            await activities.move(connection, moved.away_from, moved.to)
            await leads.follow(connection, moved.lead_ids, moved.to)

    def _facts(self) -> list[tuple[UUID, Fact]]:
        register = self._register
        own = [
            (kept.lead_id, kept.fact) for kept in register.kept if isinstance(kept.fact, MergeApplied | VersionApplied)
        ]
        return [*own, *((lead_id, fact) for lead_id, fact in register.superseded)]

    def _publish(self, said: Said, traceparent: str | None) -> None:
        if not said.events:
            return
        self._recording.publish(*said.events, traceparent=traceparent)
        for event in said.events:
            if type(event) is LeadStageChanged:
                self._entries.append(event)
            elif type(event) is LeadDecided:
                self._decided.append(event)

    def _new_keys(self, changed: Iterable[Lead]) -> dict[str, UUID]:
        keys: dict[str, UUID] = {}
        for lead in changed:
            before = self._before[lead.lead_id].profile
            if lead.profile is None or lead.profile is before:
                continue
            known = before.external_keys if before else ()
            keys |= {key: lead.lead_id for key in lead.profile.external_keys if key not in known}
        return keys


def _row(kept: Kept, fact: ActivityOccurred) -> activities.Row:
    recorded_for = None if kept.lead_id == kept.living else kept.lead_id
    return activities.Row(kept.living, fact.kind, fact.at, fact.activity_id, fact.by, recorded_for)
