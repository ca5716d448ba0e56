"""A migrated database of metrics, and generated histories of leads as the other services publish them."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import pytest
from tests.metrics.plans import plan_content

import metrics
from accord.agreements import AgreementStore
from accord.agreements.documents import read
from accord.contracts.agreement_events import AgreementActivated
from accord.contracts.base import EventData
from accord.contracts.intake_events import (
    ActivityRecorded,
    LeadCaptured,
    LeadErased,
    LeadMerged,
    LeadState,
    LeadUnmerged,
    LeadUpdated,
)
from accord.contracts.qualification_events import LeadAssigned, LeadStageChanged, OpportunityUpdated
from accord.contracts.sla_events import ClockBreached, ClockMet, ClockStarted
from accord.contracts.values import Campaign, DecimalText, Money, StageKind, utc
from accord.db import Database
from accord.messaging.consumer_store import store_watermarks
from accord.messaging.ports import ConsumedWatermarks
from accord.migrations.run import upgrade_sync
from metrics.usecases.plan_agreement import PLAN
from metrics.usecases.project import project_events

MIGRATIONS = Path(metrics.__file__).parent / "migrations"
START = utc(2027, 1, 1)
STAGES: list[tuple[str, StageKind]] = [
    ("inquiry", "open"),
    ("mql", "open"),
    ("sal", "open"),
    ("won", "won"),
    ("lost", "lost"),
    ("recycled", "recycled"),
]
KIND = dict(STAGES)
RANK = {key: rank for rank, (key, _) in enumerate(STAGES)}
DEFINITION = {
    "kind": "definition",
    "title": "What we both call a lead",
    "stages": [
        {"key": key, "owner": "marketing" if key in ("inquiry", "mql") else "sales", "kind": kind}
        for key, kind in STAGES
    ],
}


@dataclass
class History:
    """The events of each topic, in its order. `at` is hours after the start; times of recording ascend."""

    random: Random = field(default_factory=lambda: Random(7))
    topics: dict[str, list[EventData]] = field(default_factory=lambda: {"intake": [], "qualification": [], "sla": []})
    _sequences: dict[tuple[str, UUID], int] = field(default_factory=dict)
    _visits: dict[tuple[UUID, str], int] = field(default_factory=dict)
    _stage: dict[UUID, str] = field(default_factory=dict)
    _recorded: int = 0

    @property
    def events(self) -> list[EventData]:
        """All topics, one after the other."""
        return [event for topic in self.topics.values() for event in topic]

    def id(self) -> UUID:
        return UUID(int=self.random.getrandbits(128), version=4)

    def time(self, at: float) -> datetime:
        return START + timedelta(hours=at)

    def _now(self) -> datetime:
        self._recorded += 1
        return START + timedelta(days=365, seconds=self._recorded)

    def _next(self, topic: str, lead_id: UUID) -> int:
        self._sequences[topic, lead_id] = self._sequences.get((topic, lead_id), 0) + 1
        return self._sequences[topic, lead_id]

    def _add(self, topic: str, event: Callable[..., EventData], at: float, lead_id: UUID, **fields: Any) -> None:
        sequence = self._next(topic, lead_id)
        self.topics[topic].append(
            event(occurred_at=self.time(at), recorded_at=self._now(), lead_id=lead_id, sequence=sequence, **fields)
        )

    def state(
        self, source: str = "website", at: float = 0, campaign: str | None = None, **attributes: Any
    ) -> LeadState:
        return LeadState(
            source=source,
            captured_at=self.time(at),
            attributes=attributes,
            campaign=Campaign(name=campaign) if campaign else None,
            verdict="accepted",
        )

    def capture(self, source: str = "website", at: float = 0, campaign: str | None = None, **attributes: Any) -> UUID:
        lead_id = self.id()
        self._add("intake", LeadCaptured, at, lead_id, state=self.state(source, at, campaign, **attributes))
        return lead_id

    def update(self, lead_id: UUID, at: float, state: LeadState) -> None:
        self._add("intake", LeadUpdated, at, lead_id, state=state, changed=["attributes"])

    def erase(self, lead_id: UUID, at: float) -> None:
        self._add("intake", LeadErased, at, lead_id)

    def merge(self, survivor: UUID, merged: UUID, at: float, state: LeadState) -> UUID:
        merge_id = self.id()
        self._add("intake", LeadMerged, at, survivor, merge_id=merge_id, merged_lead_id=merged, state=state)
        return merge_id

    def unmerge(
        self, survivor: UUID, restored: UUID, at: float, merge_id: UUID, state: LeadState, own: LeadState
    ) -> None:
        fields = {"merge_id": merge_id, "restored_lead_id": restored, "state": state, "restored_state": own}
        self._add("intake", LeadUnmerged, at, survivor, **fields)

    def act(self, lead_id: UUID, at: float, kind: str = "email.clicked", campaign: str | None = None) -> UUID:
        activity_id = self.id()
        touch = Campaign(name=campaign) if campaign else None
        self._add(
            "intake", ActivityRecorded, at, lead_id, activity_id=activity_id, kind=kind, by="lead", campaign=touch
        )
        return activity_id

    def move(self, lead_id: UUID, stage: str, at: float, **fields: Any) -> None:
        visit = self._visits[lead_id, stage] = self._visits.get((lead_id, stage), 0) + 1
        fields = {"from_stage": self._stage.get(lead_id), "visit": visit, "cause": "automatic", **fields}
        self._stage[lead_id] = stage
        self._add(
            "qualification",
            LeadStageChanged,
            at,
            lead_id,
            definition_version=1,
            stage=stage,
            stage_kind=KIND.get(stage, "open"),
            stage_rank=RANK.get(stage, 90),
            stage_owner="sales",
            **fields,
        )

    def assign(self, lead_id: UUID, owner: str | None, at: float) -> None:
        self._add("qualification", LeadAssigned, at, lead_id, owner=owner, why="round robin")

    def deal(self, lead_id: UUID, at: float, amount: str) -> None:
        money = Money(amount=DecimalText(amount), currency="USD")
        self._add("qualification", OpportunityUpdated, at, lead_id, stage="sal", amount=money)

    def run_clock(self, lead_id: UUID, at: float, due: float, ended: float | None, breached: bool = False) -> UUID:
        """A clock that was started, perhaps breached at `due`, perhaps met at `ended`."""
        clock_id = self.id()
        events: list[tuple[Callable[..., EventData], float, dict[str, Any]]] = [(ClockStarted, at, {})]
        if breached:
            events.append((ClockBreached, due, {"breach_id": self.id()}))
        if ended is not None:
            events.append((ClockMet, ended, {"late": breached}))
        for sequence, (kind, when, more) in enumerate(events, start=1):
            self.topics["sla"].append(
                kind(
                    occurred_at=self.time(when),
                    recorded_at=self._now(),
                    clock_id=clock_id,
                    lead_id=lead_id,
                    sequence=sequence,
                    clause="accept-mql",
                    obliges="sales",
                    sla_version=1,
                    started_at=self.time(at),
                    due_at=self.time(due),
                    **more,
                )
            )
        return clock_id

    def define(self, content: dict[str, Any] = DEFINITION, version: int = 1) -> None:
        self.topics["qualification"].append(
            AgreementActivated(
                occurred_at=START,
                recorded_at=self._now(),
                kind="definition",
                version=version,
                title="Definition",
                content_sha256="0" * 64,
                effective_from=START + timedelta(seconds=version),
                content=content,
            )
        )

    def generate(self, leads: int) -> "History":
        """Generate this many leads with detours, corrections, merges, erasures, clocks and deals."""
        ids = [self._generate_lead() for _ in range(leads)]
        for survivor, merged in zip(ids[0::7], ids[3::7], strict=False):
            merge_id = self.merge(survivor, merged, 900, self.state("website", 1, "spring", country="US"))
            if self.random.random() < 0.4:
                own = self.state("fair", 2, None, country="BR")
                self.unmerge(survivor, merged, 950, merge_id, self.state("website", 1, "autumn"), own)
        for lead_id in self.random.sample(ids, k=leads // 9):
            self.erase(lead_id, 1000)
        return self

    def _generate_lead(self) -> UUID:
        random = self.random
        at = random.uniform(0, 500)
        attributes: dict[str, Any] = {}
        if random.random() < 0.8:
            attributes["country"] = random.choice(["US", "BR", "DE"])
        if random.random() < 0.6:
            attributes["employee_count"] = random.choice([0, 3, 40, 250, 2000, "many", None])
        campaign = random.choice([None, "spring"])
        lead_id = self.capture(random.choice(["website", "fair", "ads"]), at, campaign, **attributes)
        for _ in range(random.choice([0, 1, 2, 3, 3, 4, 5, 7])):
            is_entered = lead_id in self._stage
            stage = random.choice(STAGES)[0] if is_entered else "inquiry"
            at += random.choice([0, 0, random.expovariate(1 / 60), -random.expovariate(1 / 20)]) if is_entered else 0
            self.move(lead_id, stage, round(at, 3))
            if is_entered and random.random() < 0.1:
                self.move(lead_id, stage, at - 30, correction=True, visit=self._visits[lead_id, stage])
        for _ in range(random.choice([0, 0, 1, 3])):
            self.act(lead_id, random.uniform(0, 600))
        if random.random() < 0.5:
            self.assign(lead_id, random.choice(["bob", "eve", None]), at)
            self.deal(lead_id, at, "1200.50")
        if random.random() < 0.3:
            self.run_clock(lead_id, at, at + 4, random.choice([None, at + 9]), breached=random.random() < 0.5)
        if random.random() < 0.2:
            self.update(lead_id, at, self.state("website", at, campaign, country="FR"))
        return lead_id

    def interleave(self, random: Random) -> list[EventData]:
        """All events, each topic's in its own order within a lead; the topics, and leads within a topic, in any
        order."""
        queues: dict[tuple[str, str], list[EventData]] = {}
        for topic, events in self.topics.items():
            for event in events:
                queues.setdefault((topic, event.key), []).append(event)
        order = [key for key, events in queues.items() for _ in events]
        random.shuffle(order)
        return [queues[key].pop(0) for key in order]


@pytest.fixture
def history() -> History:
    return History()


@pytest.fixture
def make_history() -> Callable[[int], History]:
    return lambda seed: History(Random(seed))


Apply = Callable[..., Any]


@pytest.fixture
def apply() -> Apply:
    """`await apply(database, events, batch=…)`: project events in batches of that many, a transaction each."""

    async def run(database: Database, events: list[EventData], batch: int = 500) -> None:
        for start in range(0, len(events), batch):
            async with database.write_transaction() as unit_of_work:
                await project_events(unit_of_work, events[start : start + batch])

    return run


@pytest.fixture
def set_watermark() -> Callable[..., Any]:
    """`await set_watermark(database, at)`: store this watermark of every topic."""

    async def run(database: Database, at: datetime) -> None:
        async with database.write_transaction() as unit_of_work:
            reached = dict.fromkeys(("intake-events", "qualification-events", "sla-events"), at)
            await store_watermarks(await unit_of_work.connection(), ConsumedWatermarks(reached))

    return run


@pytest.fixture
def sign_plan() -> Callable[..., Any]:
    """`await sign_plan(database, **changes)`: a plan that both departments signed, in force."""

    async def run(database: Database, **changes: Any) -> AgreementStore:
        plans = AgreementStore(database, PLAN)
        document = read(json.dumps(plan_content(**changes)).encode(), yaml_text=False)
        version = (await plans.draft(document, "ann")).state.version
        await plans.propose(version, "ann")
        await plans.sign(version, "marketing", "ann", document.sha256)
        await plans.sign(version, "sales", "bob", document.sha256)
        return plans

    return run


@pytest.fixture
def metrics_url(database_factory: Callable[..., str]) -> str:
    return database_factory("metrics", partial(upgrade_sync, MIGRATIONS))


@pytest.fixture
def other_metrics_url(database_factory: Callable[..., str]) -> str:
    return database_factory("metrics", partial(upgrade_sync, MIGRATIONS))


@pytest.fixture
async def database(metrics_url: str) -> AsyncIterator[Database]:
    database = Database(metrics_url, application_name="test")
    yield database
    await database.dispose()


@pytest.fixture
async def other_database(other_metrics_url: str) -> AsyncIterator[Database]:
    database = Database(other_metrics_url, application_name="test")
    yield database
    await database.dispose()


@pytest.fixture
def loop_runner() -> Iterator[asyncio.Runner]:
    """For tests that Hypothesis drives: one loop for all examples."""
    with asyncio.Runner() as runner:
        yield runner
