"""What the two topics tell of leads, taken to their clocks: one transaction per batch, each lead's events in order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from accord.contracts.base import EventData
from accord.contracts.intake_events import ActivityRecorded, LeadMerged, LeadUnmerged
from accord.contracts.qualification_events import LeadStageChanged
from accord.contracts.topics import INTAKE_EVENTS, QUALIFICATION_EVENTS
from accord.db import Recording
from accord.messaging import ports
from accord.messaging.consumer_store import watermark as noted_watermark
from accord.messaging.handler import Received
from accord.messaging.watermarks import Watermarks
from sla_monitor.domain import case as domain
from sla_monitor.domain.case import Case, Moving, Outcome, Reached, Slas, Waiting
from sla_monitor.domain.facts import Fact, fact_of
from sla_monitor.queries import cases, due
from sla_monitor.usecases.agreements import SlaBook

CONSUMED = (INTAKE_EVENTS, QUALIFICATION_EVENTS)

TAKEN_ALONG = timedelta(days=90)
"""Activities of a merged lead that happened in this time before the merge become the survivor's."""

_KEPT = frozenset({"activity", "decision", "stage"})


async def read_reached(recording: Recording, watermarks: Watermarks) -> ports.Reached:
    """How far the two topics have been consumed. What is missing of a lead is missing of those that it was merged into, too."""
    reached = await watermarks.read(recording.conn)
    if not reached.held:
        return reached
    held = await due.with_survivors(await recording.driver(), sorted(reached.held))
    return ports.Reached(reached.topics, frozenset(held), reached.holds_all)


async def read_news(recording: Recording, received: Sequence[Received], watermarks: Watermarks) -> Sequence[Received]:
    """Without what was told before, as after a restart of a topic: whatever was recorded before the watermark that was noted last has
    been read. Of leads that are held all is news, since something was set aside."""
    topics = {item.topic for item in received}
    noted = {topic: at for topic in topics if (at := await noted_watermark(recording.conn, [topic])) is not None}

    def is_old(item: Received) -> bool:
        at = noted.get(item.topic)
        return at is not None and item.event.data.recorded_at < at

    if not any(is_old(item) for item in received):
        return received
    reached = await watermarks.read(recording.conn)
    if reached.holds_all:
        return received
    return [item for item in received if not is_old(item) or not reached.held.isdisjoint(item.event.data.keys)]


async def follow(recording: Recording, received: Sequence[Received], book: SlaBook, watermarks: Watermarks) -> None:
    """Apply these events. Those that concern no clock (submissions held or refused, agreements) are passed over, and old ones."""
    news = await read_news(recording, received, watermarks)
    told = [(item.event.data, item.event.traceparent) for item in news]
    moving = [(data, traceparent) for data, traceparent in told if isinstance(data, Moving)]
    if not moving:
        return
    batch = await CaseBatch.lock(recording, book, watermarks, [data for data, _ in moving])
    for data, traceparent in moving:
        batch.take(data, traceparent)
    await batch.save()


async def judge_waiting(recording: Recording, lead_ids: Iterable[UUID], book: SlaBook, watermarks: Watermarks) -> None:
    """Judge what waits for these leads, now that the topics have been read further."""
    batch = await CaseBatch.lock(recording, book, watermarks, (), lead_ids)
    batch.judge()
    await batch.save()


class CaseBatch:
    """The cases of one recording. Not kept beyond it."""

    def __init__(
        self,
        recording: Recording,
        slas: Slas,
        reached: ports.Reached,
        before: dict[UUID, Case],
        now: dict[UUID, Case],
    ) -> None:
        self._recording = recording
        self._slas = slas
        self._until = Reached(reached.until([INTAKE_EVENTS]), reached.until([QUALIFICATION_EVENTS]))
        self._held = reached.held
        self._before = before
        self._cases = now
        self._happened: dict[UUID, list[Fact]] = {}
        self._gone: list[tuple[UUID, str]] = []
        self._parted: list[tuple[UUID, UUID]] = []

    @classmethod
    async def lock(
        cls,
        recording: Recording,
        book: SlaBook,
        watermarks: Watermarks,
        events: Sequence[Moving],
        lead_ids: Iterable[UUID] = (),
    ) -> CaseBatch:
        """Load and lock the leads that these events concern, with the facts that their new clocks look back at."""
        driver = await recording.driver()
        slas = await book.open(recording.conn)
        concerned = {lead_id for event in events for lead_id in _concerned(event)}
        locked = await cases.lock(driver, {*concerned, *lead_ids})
        since = _look_back(events, locked, slas)
        activities = {kind for rules in slas.rules.values() for kind in rules.activities}
        facts = await cases.facts(driver, since, activities)
        now = {
            lead_id: Case(case.lead, case.clocks, case.waiting, facts[lead_id]) if lead_id in facts else case
            for lead_id, case in locked.items()
        }
        return cls(recording, slas, await read_reached(recording, watermarks), dict(now), now)

    def take(self, event: Moving, traceparent: str | None) -> None:
        """Apply one event, to its lead and, where that was merged, to the survivor."""
        now = self._recording.now
        fact = fact_of(event)
        if fact is not None and fact.kind in _KEPT:
            self._happened.setdefault(event.lead_id, []).append(fact)
        case = self._cases[event.lead_id]
        self._settle(
            event.lead_id, domain.decide(case, event, self._slas, self._reached(event.lead_id), now), traceparent
        )
        if fact is not None and isinstance(event, ActivityRecorded):
            self._take_along(self._above(event.lead_id), [fact], traceparent)
        if isinstance(event, LeadMerged):
            self._merge(event, traceparent)
        if isinstance(event, LeadUnmerged):
            self._part(event.restored_lead_id, event.recorded_at, traceparent)

    def judge(self) -> None:
        """Judge what waits."""
        for lead_id, case in list(self._cases.items()):
            if case.waiting:
                self._settle(lead_id, domain.judge(case, self._slas, self._reached(lead_id), self._recording.now), None)

    async def save(self) -> None:
        """Write everything back, before the recording ends."""
        driver = await self._recording.driver()
        await cases.give_back(driver, self._parted)
        await cases.save(driver, self._before, self._cases, self._happened)
        await cases.forget_facts(driver, self._gone)

    def _merge(self, event: LeadMerged, traceparent: str | None) -> None:
        known = self._cases[event.merged_lead_id].lead.merge_recorded_at
        if known is not None and event.recorded_at <= known:
            return  # told before, or taken back since
        for lead_id in (event.lead_id, event.merged_lead_id):
            lead = self._cases[lead_id].lead
            since = lead.merge_recorded_at
            if lead.merged_into is not None and since is not None and since < event.recorded_at:
                # Only leads that live are merged: what was known of it has been taken back, which is still to be heard.
                self._part(lead_id, since, traceparent)
        merged = self._cases[event.merged_lead_id]
        if event.merged_lead_id in (event.lead_id, *self._above(event.lead_id)):
            return
        outcome = domain.absorb(merged, event, self._slas, self._reached(event.merged_lead_id), self._recording.now)
        self._settle(event.merged_lead_id, outcome, traceparent)
        activities = [fact for fact in merged.facts if fact.kind == "activity"]
        self._take_along(self._above(event.merged_lead_id), activities, traceparent)

    def _part(self, restored_id: UUID, recorded_at: datetime, traceparent: str | None) -> None:
        """A merge was taken back: whoever had taken the lead in gives back what was its own, and it lives again."""
        restored = self._cases[restored_id]
        known = restored.lead.merge_recorded_at
        if known is not None and recorded_at < known:
            return  # it was merged again since
        theirs = {fact.key for fact in restored.facts}
        for lead_id in self._above(restored_id):
            self._parted.append((lead_id, restored_id))
            self._happened[lead_id] = [fact for fact in self._happened.get(lead_id, ()) if fact.key not in theirs]
            case = self._cases[lead_id]
            outcome = domain.give_back(case, restored, self._slas, self._reached(lead_id), self._recording.now)
            self._settle(lead_id, outcome, traceparent)
        outcome = domain.restore(restored, recorded_at, self._slas, self._reached(restored_id), self._recording.now)
        self._settle(restored_id, outcome, traceparent)

    def _take_along(self, survivors: Sequence[UUID], facts: Sequence[Fact], traceparent: str | None) -> None:
        """What a merged lead did becomes the deed of all that it went into, so that each can be had back with what is its own."""
        for lead_id in survivors:
            self._happened.setdefault(lead_id, []).extend(facts)
            case = self._cases[lead_id]
            outcome = domain.take_along(case, facts, self._slas, self._reached(lead_id), self._recording.now)
            self._settle(lead_id, outcome, traceparent)

    def _settle(self, lead_id: UUID, outcome: Outcome, traceparent: str | None) -> None:
        self._cases[lead_id] = outcome.case
        self._gone += [(lead_id, key) for key in outcome.gone]
        self._recording.publish(*outcome.events, traceparent=traceparent)
        if outcome.moved:
            for above in self._above(lead_id)[:1]:
                self._take_over(above, outcome.moved, traceparent)

    def _take_over(self, survivor: UUID, moved: Sequence[Waiting], traceparent: str | None) -> None:
        case = self._cases[survivor]
        outcome = domain.take_over(case, moved, self._slas, self._reached(survivor), self._recording.now)
        self._settle(survivor, outcome, traceparent)

    def _reached(self, lead_id: UUID) -> Reached:
        """Until when the topics have been read, for one lead: nothing is known while something of it could not be applied."""
        return Reached() if str(lead_id) in self._held else self._until

    def _above(self, lead_id: UUID) -> list[UUID]:
        """The leads that this one was merged into: the one, the one that this was merged into, and so on."""
        return _above(lead_id, self._cases)


def _above(lead_id: UUID, known: Mapping[UUID, Case]) -> list[UUID]:
    above: list[UUID] = []
    while (into := known[lead_id].lead.merged_into) is not None and into not in above and into in known:
        above.append(into)
        lead_id = into
    return above


def _concerned(event: Moving) -> tuple[UUID, ...]:
    if isinstance(event, LeadMerged):
        return event.lead_id, event.merged_lead_id
    return (event.lead_id, event.restored_lead_id) if isinstance(event, LeadUnmerged) else (event.lead_id,)


def _look_back(events: Sequence[EventData], locked: dict[UUID, Case], slas: Slas) -> dict[UUID, datetime]:
    """Since when facts are needed, by lead: those of a trigger among these events, of one that waits, and of merged leads."""
    since: dict[UUID, datetime] = {}

    def ask(lead_id: UUID, at: datetime) -> None:
        since[lead_id] = min(at, since.get(lead_id, at))

    for lead_id, case in locked.items():
        for waiting in case.waiting:
            ask(lead_id, waiting.fact.occurred_at)
    for event in events:
        fact = domain.starts(event, slas)
        if fact is not None and isinstance(event, Moving):
            ask(event.lead_id, fact.occurred_at)
        if isinstance(event, LeadStageChanged) and event.replaces is not None:
            clocks = locked[event.lead_id].clocks.values()
            ask(event.lead_id, min((clock.started_at for clock in clocks), default=event.occurred_at))
        if isinstance(event, LeadMerged | LeadUnmerged):
            concerned = _concerned(event)
            family = {*concerned, *(above for lead_id in concerned for above in _above(lead_id, locked))}
            started = [clock.started_at for lead_id in family for clock in locked[lead_id].clocks.values()]
            first = min(started, default=event.occurred_at)
            for lead_id in family:
                ask(lead_id, min(first, event.occurred_at - TAKEN_ALONG) if lead_id == concerned[1] else first)
    return since
