"""What the two topics tell of leads, taken to their clocks: one transaction per batch, each lead's events in order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from accord.contracts.base import EventData
from accord.contracts.intake_events import ActivityRecorded, LeadMerged
from accord.contracts.qualification_events import LeadStageChanged
from accord.contracts.topics import INTAKE_EVENTS, QUALIFICATION_EVENTS
from accord.database import Recording
from accord.messaging.consumer import Received
from accord.messaging.watermark import watermark
from sla_monitor.domain import case as domain
from sla_monitor.domain.case import Case, Moving, Outcome, Reached, Slas, Waiting
from sla_monitor.domain.facts import Fact, fact_of
from sla_monitor.queries import cases
from sla_monitor.usecases.agreements import SlaBook

CONSUMED = (INTAKE_EVENTS, QUALIFICATION_EVENTS)

TAKEN_ALONG = timedelta(days=90)
"""Activities of a merged lead that happened in this time before the merge become the survivor's."""

_KEPT = frozenset({"activity", "decision", "stage"})


async def reached(recording: Recording) -> Reached:
    """Until when each of the two topics has been read."""
    return Reached(
        await watermark(recording.conn, [INTAKE_EVENTS]), await watermark(recording.conn, [QUALIFICATION_EVENTS])
    )


async def follow(recording: Recording, received: Sequence[Received], book: SlaBook) -> None:
    """Apply these events. Those that concern no clock (submissions held or refused, agreements) are passed over."""
    told = [(item.event.data, item.event.traceparent) for item in received]
    moving = [(data, traceparent) for data, traceparent in told if isinstance(data, Moving)]
    if not moving:
        return
    batch = await CaseBatch.lock(recording, book, [data for data, _ in moving])
    for data, traceparent in moving:
        batch.take(data, traceparent)
    await batch.save()


async def judge_waiting(recording: Recording, lead_ids: Iterable[UUID], book: SlaBook) -> None:
    """Judge what waits for these leads, now that the topics have been read further."""
    batch = await CaseBatch.lock(recording, book, (), lead_ids)
    batch.judge()
    await batch.save()


class CaseBatch:
    """The cases of one recording. Not kept beyond it."""

    def __init__(
        self, recording: Recording, slas: Slas, until: Reached, before: dict[UUID, Case], now: dict[UUID, Case]
    ) -> None:
        self._recording = recording
        self._slas = slas
        self._until = until
        self._before = before
        self._cases = now
        self._happened: dict[UUID, list[Fact]] = {}
        self._gone: list[tuple[UUID, str]] = []

    @classmethod
    async def lock(
        cls, recording: Recording, book: SlaBook, events: Sequence[Moving], lead_ids: Iterable[UUID] = ()
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
        return cls(recording, slas, await reached(recording), dict(now), now)

    def take(self, event: Moving, traceparent: str | None) -> None:
        """Apply one event, to its lead and, where that was merged, to the survivor."""
        now = self._recording.now
        fact = fact_of(event)
        if fact is not None and fact.kind in _KEPT:
            self._happened.setdefault(event.lead_id, []).append(fact)
        case = self._cases[event.lead_id]
        self._settle(event.lead_id, domain.decide(case, event, self._slas, self._until, now), traceparent)
        survivor = self._survivor(event.lead_id)
        if survivor != event.lead_id and fact is not None and isinstance(event, ActivityRecorded):
            self._take_along(survivor, [fact], traceparent)
        if isinstance(event, LeadMerged):
            self._merge(event, traceparent)

    def judge(self) -> None:
        """Judge what waits."""
        for lead_id, case in list(self._cases.items()):
            if case.waiting:
                self._settle(lead_id, domain.judge(case, self._slas, self._until, self._recording.now), None)

    async def save(self) -> None:
        """Write everything back, before the recording ends."""
        driver = await self._recording.driver()
        await cases.save(driver, self._before, self._cases, self._happened)
        await cases.forget_facts(driver, self._gone)

    def _merge(self, event: LeadMerged, traceparent: str | None) -> None:
        merged = self._cases[event.merged_lead_id]
        survivor = self._survivor(event.lead_id)
        if merged.lead.merged_into is not None or survivor == event.merged_lead_id:
            return  # told before
        outcome = domain.absorb(merged, event.lead_id, event.occurred_at, self._slas, self._until, self._recording.now)
        self._settle(event.merged_lead_id, outcome, traceparent)
        activities = [fact for fact in merged.facts if fact.kind == "activity"]
        self._take_along(survivor, activities, traceparent)

    def _take_along(self, survivor: UUID, facts: Sequence[Fact], traceparent: str | None) -> None:
        self._happened.setdefault(survivor, []).extend(facts)
        case = self._cases[survivor]
        self._settle(
            survivor, domain.take_along(case, facts, self._slas, self._until, self._recording.now), traceparent
        )

    def _settle(self, lead_id: UUID, outcome: Outcome, traceparent: str | None) -> None:
        self._cases[lead_id] = outcome.case
        self._gone += [(lead_id, key) for key in outcome.gone]
        self._recording.publish(*outcome.events, traceparent=traceparent)
        survivor = self._survivor(lead_id)
        if outcome.moved and survivor != lead_id:
            self._take_over(survivor, outcome.moved, traceparent)

    def _take_over(self, survivor: UUID, moved: Sequence[Waiting], traceparent: str | None) -> None:
        case = self._cases[survivor]
        self._settle(survivor, domain.take_over(case, moved, self._slas, self._until, self._recording.now), traceparent)

    def _survivor(self, lead_id: UUID) -> UUID:
        seen = {lead_id}
        while (into := self._cases[lead_id].lead.merged_into) is not None and into not in seen and into in self._cases:
            seen.add(into)
            lead_id = into
        return lead_id


def _concerned(event: Moving) -> tuple[UUID, ...]:
    return (event.lead_id, event.merged_lead_id) if isinstance(event, LeadMerged) else (event.lead_id,)


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
        if isinstance(event, LeadMerged):
            of_both = (*locked[event.lead_id].clocks.values(), *locked[event.merged_lead_id].clocks.values())
            first = min((clock.started_at for clock in of_both), default=event.occurred_at)
            ask(event.lead_id, first)
            ask(event.merged_lead_id, min(first, event.occurred_at - TAKEN_ALONG))
    return since
