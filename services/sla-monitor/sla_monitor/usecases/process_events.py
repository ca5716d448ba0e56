"""Applies the events of the two topics to the leads' clocks: one transaction per batch, each lead's events in order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from accord.contracts.intake_events import ActivityRecorded, LeadMerged, LeadUnmerged
from accord.contracts.qualification_events import LeadStageChanged
from accord.contracts.topics import INTAKE_EVENTS, QUALIFICATION_EVENTS
from accord.db import UnitOfWork
from accord.messaging import ports
from accord.messaging.consumer_store import watermark as read_watermark
from accord.messaging.handler import Received
from accord.messaging.pruning import INBOX_RETENTION
from accord.messaging.watermark_reader import WatermarkReader
from sla_monitor.domain import case as domain
from sla_monitor.domain.case import Case, CaseEvent, Outcome, PendingTrigger, ReadUntil, SlaVersions
from sla_monitor.domain.facts import Fact, extract_fact
from sla_monitor.domain.period import Entry
from sla_monitor.queries import cases, due, periods
from sla_monitor.usecases.agreements import SlaVersionCache

CONSUMED = (INTAKE_EVENTS, QUALIFICATION_EVENTS)

ACTIVITY_COPY_WINDOW = timedelta(days=90)
"""Activities of a merged lead from this long before the merge are copied to the survivor."""

_STORED_KINDS = frozenset({"activity", "decision", "stage", "assigned"})


async def read_reached(unit_of_work: UnitOfWork, watermarks: WatermarkReader) -> ports.ConsumedWatermarks:
    """Read how far the two topics have been consumed. Where a lead is held, those that it was merged into are held too."""
    reached = await watermarks.read(unit_of_work.conn)
    if not reached.held:
        return reached
    held = await due.fetch_with_survivors(await unit_of_work.connection(), sorted(reached.held))
    return ports.ConsumedWatermarks(reached.topics, frozenset(held), reached.holds_all)


async def select_unread(
    unit_of_work: UnitOfWork, received: Sequence[Received], watermarks: WatermarkReader
) -> Sequence[Received]:
    """Drop events that were read before, after a restart of a topic.

    For INBOX_RETENTION the inbox knows each of them. Of what is older, those were read that were recorded before the stored
    watermark; of younger ones that says nothing, since a producer's clock may have been set back. All events of held leads
    stay, since one of theirs is a dead letter.
    """
    known_to_inbox_since = unit_of_work.now - INBOX_RETENTION
    topics = {item.topic for item in received}
    watermark_of = {
        topic: at for topic in topics if (at := await read_watermark(unit_of_work.conn, [topic])) is not None
    }

    def is_old(item: Received) -> bool:
        at = watermark_of.get(item.topic)
        return at is not None and item.event.data.recorded_at < min(at, known_to_inbox_since)

    if not any(is_old(item) for item in received):
        return received
    reached = await watermarks.read(unit_of_work.conn)
    if reached.holds_all:
        return received
    return [item for item in received if not is_old(item) or not reached.held.isdisjoint(item.event.data.keys)]


async def process_events(
    unit_of_work: UnitOfWork, received: Sequence[Received], sla_cache: SlaVersionCache, watermarks: WatermarkReader
) -> None:
    """Apply these events. Events that concern no clock (submissions, agreements) and events that were read before are skipped."""
    unread = await select_unread(unit_of_work, received, watermarks)
    events = [(item.event.data, item.event.traceparent) for item in unread]
    relevant = [(data, traceparent) for data, traceparent in events if isinstance(data, CaseEvent)]
    if not relevant:
        return
    batch = await CaseBatch.lock(unit_of_work, sla_cache, watermarks, [data for data, _ in relevant])
    for data, traceparent in relevant:
        batch.apply_event(data, traceparent)
    await batch.save()


async def evaluate_triggers(
    unit_of_work: UnitOfWork, lead_ids: Iterable[UUID], sla_cache: SlaVersionCache, watermarks: WatermarkReader
) -> None:
    """Evaluate the pending triggers of these leads, now that the topics have been read further."""
    batch = await CaseBatch.lock(unit_of_work, sla_cache, watermarks, (), lead_ids)
    batch.evaluate_pending()
    await batch.save()


class CaseBatch:
    """The cases of one transaction. It does not outlive the transaction."""

    def __init__(
        self,
        unit_of_work: UnitOfWork,
        slas: SlaVersions,
        reached: ports.ConsumedWatermarks,
        before: dict[UUID, Case],
        current: dict[UUID, Case],
    ) -> None:
        self._unit_of_work = unit_of_work
        self._slas = slas
        self._read_until = ReadUntil(reached.until([INTAKE_EVENTS]), reached.until([QUALIFICATION_EVENTS]))
        self._held = reached.held
        self._before = before
        self._cases = current
        self._new_facts: dict[UUID, list[Fact]] = {}
        self._removed_facts: list[tuple[UUID, str]] = []
        self._reverted_merges: list[tuple[UUID, UUID]] = []
        self._entries: dict[UUID, list[Entry]] = {}
        self._merged_or_restored: set[UUID] = set()

    @classmethod
    async def lock(
        cls,
        unit_of_work: UnitOfWork,
        sla_cache: SlaVersionCache,
        watermarks: WatermarkReader,
        events: Sequence[CaseEvent],
        lead_ids: Iterable[UUID] = (),
    ) -> CaseBatch:
        """Lock and load the leads that these events concern, with the facts that their new clocks look back at."""
        connection = await unit_of_work.connection()
        slas = await sla_cache.load(unit_of_work.conn)
        concerned = {lead_id for event in events for lead_id in _concerned_leads(event)}
        locked = await cases.lock_cases(connection, {*concerned, *lead_ids})
        since = _find_lookback_starts(events, locked, slas)
        activities = {kind for sla in slas.by_number.values() for kind in sla.activities}
        facts = await cases.fetch_facts(connection, since, activities)
        loaded = {
            lead_id: Case(case.lead, case.clocks, case.pending, facts[lead_id]) if lead_id in facts else case
            for lead_id, case in locked.items()
        }
        return cls(unit_of_work, slas, await read_reached(unit_of_work, watermarks), dict(loaded), loaded)

    def apply_event(self, event: CaseEvent, traceparent: str | None) -> None:
        """Apply one event to its lead and, if that was merged, to its survivors."""
        now = self._unit_of_work.now
        fact = extract_fact(event)
        if fact is not None and fact.kind in _STORED_KINDS:
            self._new_facts.setdefault(event.lead_id, []).append(fact)
        case = self._cases[event.lead_id]
        self._store_outcome(
            event.lead_id,
            domain.apply_event(case, event, self._slas, self._read_until_of(event.lead_id), now),
            traceparent,
        )
        if fact is not None and isinstance(event, ActivityRecorded):
            self._copy_activities(self._list_survivors(event.lead_id), [fact], traceparent)
        if isinstance(event, LeadMerged):
            self._merge(event, traceparent)
        if isinstance(event, LeadUnmerged):
            self._revert_merge(event.restored_lead_id, event.recorded_at, traceparent)

    def evaluate_pending(self) -> None:
        """Evaluate all pending triggers."""
        for lead_id, case in list(self._cases.items()):
            if case.pending:
                self._store_outcome(
                    lead_id,
                    domain.evaluate_pending(case, self._slas, self._read_until_of(lead_id), self._unit_of_work.now),
                    None,
                )

    async def save(self) -> None:
        """Write all changes, before the transaction ends."""
        connection = await self._unit_of_work.connection()
        await cases.remove_activities(connection, self._reverted_merges)
        await cases.save_cases(connection, self._before, self._cases, self._new_facts)
        await cases.delete_facts(connection, self._removed_facts)
        await periods.save_entries(connection, self._entries)
        await periods.delete_entries(connection, self._removed_facts)
        await periods.judge_leads_again(connection, self._merged_or_restored)

    def _merge(self, event: LeadMerged, traceparent: str | None) -> None:
        merge_recorded_at = self._cases[event.merged_lead_id].lead.merge_recorded_at
        if merge_recorded_at is not None and event.recorded_at <= merge_recorded_at:
            return  # a duplicate, or reverted since
        for lead_id in (event.lead_id, event.merged_lead_id):
            lead = self._cases[lead_id].lead
            since = lead.merge_recorded_at
            if lead.merged_into is not None and since is not None and since < event.recorded_at:
                # Only unmerged leads are merged: the merge on record was reverted by an event that is still unread.
                self._revert_merge(lead_id, since, traceparent)
        merged = self._cases[event.merged_lead_id]
        if event.merged_lead_id in (event.lead_id, *self._list_survivors(event.lead_id)):
            return
        self._merged_or_restored.add(event.merged_lead_id)
        outcome = domain.apply_merge(
            merged, event, self._slas, self._read_until_of(event.merged_lead_id), self._unit_of_work.now
        )
        self._store_outcome(event.merged_lead_id, outcome, traceparent)
        activities = [fact for fact in merged.facts if fact.kind == "activity"]
        self._copy_activities(self._list_survivors(event.merged_lead_id), activities, traceparent)

    def _revert_merge(self, restored_id: UUID, recorded_at: datetime, traceparent: str | None) -> None:
        """Revert a merge: the survivors lose what the merged lead had added, and its own clocks resume."""
        restored = self._cases[restored_id]
        merge_recorded_at = restored.lead.merge_recorded_at
        if merge_recorded_at is not None and recorded_at < merge_recorded_at:
            return  # it was merged again since
        self._merged_or_restored.add(restored_id)
        restored_keys = {fact.key for fact in restored.facts}
        for lead_id in self._list_survivors(restored_id):
            self._reverted_merges.append((lead_id, restored_id))
            self._new_facts[lead_id] = [
                fact for fact in self._new_facts.get(lead_id, ()) if fact.key not in restored_keys
            ]
            case = self._cases[lead_id]
            outcome = domain.remove_contribution(
                case, restored, self._slas, self._read_until_of(lead_id), self._unit_of_work.now
            )
            self._store_outcome(lead_id, outcome, traceparent)
        outcome = domain.revert_merge(
            restored, recorded_at, self._slas, self._read_until_of(restored_id), self._unit_of_work.now
        )
        self._store_outcome(restored_id, outcome, traceparent)

    def _copy_activities(self, survivors: Sequence[UUID], facts: Sequence[Fact], traceparent: str | None) -> None:
        """Copy activities of a merged lead to every survivor, so that each merge can be reverted alone."""
        for lead_id in survivors:
            self._new_facts.setdefault(lead_id, []).extend(facts)
            case = self._cases[lead_id]
            outcome = domain.copy_activities(
                case, facts, self._slas, self._read_until_of(lead_id), self._unit_of_work.now
            )
            self._store_outcome(lead_id, outcome, traceparent)

    def _store_outcome(self, lead_id: UUID, outcome: Outcome, traceparent: str | None) -> None:
        self._cases[lead_id] = outcome.case
        self._removed_facts += [(lead_id, key) for key in outcome.removed_fact_keys]
        if outcome.entries:
            self._entries.setdefault(lead_id, []).extend(outcome.entries)
        self._unit_of_work.publish(*outcome.events, traceparent=traceparent)
        if outcome.transferred:
            for survivor in self._list_survivors(lead_id)[:1]:
                self._start_transferred_clocks(survivor, outcome.transferred, traceparent)

    def _start_transferred_clocks(
        self, survivor: UUID, transferred: Sequence[PendingTrigger], traceparent: str | None
    ) -> None:
        case = self._cases[survivor]
        outcome = domain.start_transferred_clocks(
            case, transferred, self._slas, self._read_until_of(survivor), self._unit_of_work.now
        )
        self._store_outcome(survivor, outcome, traceparent)

    def _read_until_of(self, lead_id: UUID) -> ReadUntil:
        """How far the topics have been read for one lead; unknown while the lead is held."""
        return ReadUntil() if str(lead_id) in self._held else self._read_until

    def _list_survivors(self, lead_id: UUID) -> list[UUID]:
        """The leads that this one was merged into, transitively, nearest first."""
        return _list_survivors(lead_id, self._cases)


def _list_survivors(lead_id: UUID, loaded: Mapping[UUID, Case]) -> list[UUID]:
    survivors: list[UUID] = []
    while (into := loaded[lead_id].lead.merged_into) is not None and into not in survivors and into in loaded:
        survivors.append(into)
        lead_id = into
    return survivors


def _concerned_leads(event: CaseEvent) -> tuple[UUID, ...]:
    if isinstance(event, LeadMerged):
        return event.lead_id, event.merged_lead_id
    return (event.lead_id, event.restored_lead_id) if isinstance(event, LeadUnmerged) else (event.lead_id,)


def _find_lookback_starts(
    events: Sequence[CaseEvent], locked: dict[UUID, Case], slas: SlaVersions
) -> dict[UUID, datetime]:
    """Find since when each lead's facts are needed: by triggers among these events, pending triggers, corrections and merges."""
    since: dict[UUID, datetime] = {}

    def extend(lead_id: UUID, at: datetime) -> None:
        since[lead_id] = min(at, since.get(lead_id, at))

    for lead_id, case in locked.items():
        for trigger in case.pending:
            extend(lead_id, trigger.fact.occurred_at)
    for event in events:
        start = domain.find_lookback_start(locked[event.lead_id], event, slas)
        if start is not None:
            extend(event.lead_id, start)
        if isinstance(event, LeadStageChanged) and event.replaces is not None:
            clocks = locked[event.lead_id].clocks.values()
            extend(event.lead_id, min((clock.started_at for clock in clocks), default=event.occurred_at))
        if isinstance(event, LeadMerged | LeadUnmerged):
            concerned = _concerned_leads(event)
            merge_group = {
                *concerned,
                *(survivor for lead_id in concerned for survivor in _list_survivors(lead_id, locked)),
            }
            started = [clock.started_at for lead_id in merge_group for clock in locked[lead_id].clocks.values()]
            first = min(started, default=event.occurred_at)
            for lead_id in merge_group:
                extend(
                    lead_id, min(first, event.occurred_at - ACTIVITY_COPY_WINDOW) if lead_id == concerned[1] else first
                )
    return since
