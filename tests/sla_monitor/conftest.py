"""The SLA monitor over a database of its own, and builders of the events that intake and qualification publish."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
import yaml
from fastapi import FastAPI
from sqlalchemy import text
from tests.watermarks import FixedWatermarks
from uuid_utils.compat import uuid7

from accord.agreements import AgreementStore
from accord.contracts.base import EventData
from accord.contracts.envelope import Event, decode_data
from accord.contracts.intake_events import (
    ActivityRecorded,
    LeadCaptured,
    LeadErased,
    LeadMerged,
    LeadState,
    LeadUnmerged,
    LeadUpdated,
)
from accord.contracts.qualification_events import LeadAssigned, LeadDecided, LeadScored, LeadStageChanged
from accord.contracts.sla_events import ClockEvent
from accord.contracts.topics import INTAKE_EVENTS, QUALIFICATION_EVENTS
from accord.contracts.values import Campaign
from accord.db import Database
from accord.messaging.consumer_store import store_watermarks
from accord.messaging.handler import Received
from accord.messaging.ports import ConsumedWatermarks
from accord.migrations.run import upgrade_sync
from accord.service import create_app
from sla_monitor.main import MIGRATIONS, build
from sla_monitor.settings import Settings
from sla_monitor.usecases.agreements import KIND, SlaVersionCache
from sla_monitor.usecases.fire import evaluate_pending, fire_due_clocks
from sla_monitor.usecases.judge_periods import judge_periods
from sla_monitor.usecases.process_events import process_events

CONTENT: dict[str, Any] = {
    "kind": "sla",
    "title": "What marketing and sales owe each other",
    "calendars": {"office": {"timezone": "America/Chicago", "week": {"mon-fri": ["10:00-18:00"]}}},
    "clauses": [
        {
            "key": "accept-mql",
            "obliges": "sales",
            "kind": "response",
            "from": {"stage": "mql"},
            "to": {"decision": ["accept", "reject"]},
            "within": {"elapsed": "PT1H"},
            "warn_at": [0.5],
        },
        {
            "key": "first-touch",
            "obliges": "sales",
            "kind": "response",
            "from": {"stage": "mql"},
            "to": {"activity": "call.attempted", "by": "sales"},
            "within": {"elapsed": "PT2H"},
            "where": {"path": "attributes.size", "op": "gte", "value": 50},
        },
        {
            "key": "demo",
            "obliges": "marketing",
            "kind": "response",
            "from": {"activity": "demo.requested"},
            "to": {"activity": "demo.confirmed"},
            "within": {"elapsed": "PT30M"},
        },
    ],
}

KINDS = {"lost": "lost", "won": "won", "recycled": "recycled", "disqualified": "disqualified"}


@dataclass
class LeadEvents:
    """Builds the events of one lead, as intake and qualification number them; recorded when they happen by default."""

    lead_id: UUID = field(default_factory=uuid7)
    source: str = "website"
    intake: int = 0
    qualification: int = 0
    visits: dict[str, int] = field(default_factory=dict)

    def _intake(self, at: datetime, recorded: datetime | None) -> dict[str, Any]:
        self.intake += 1
        return {"lead_id": self.lead_id, "sequence": self.intake, "occurred_at": at, "recorded_at": recorded or at}

    def _qualification(self, at: datetime, recorded: datetime | None) -> dict[str, Any]:
        self.qualification += 1
        return {
            "lead_id": self.lead_id,
            "sequence": self.qualification,
            "occurred_at": at,
            "recorded_at": recorded or at,
        }

    def state(self, at: datetime, **attributes: Any) -> LeadState:
        return LeadState(
            source=self.source,
            captured_at=at,
            attributes=attributes,
            campaign=Campaign(name="spring"),
            verdict="accepted",
        )

    def captured(self, at: datetime, recorded: datetime | None = None, **attributes: Any) -> LeadCaptured:
        return LeadCaptured(**self._intake(at, recorded), state=self.state(at, **attributes))

    def updated(self, at: datetime, recorded: datetime | None = None, **attributes: Any) -> LeadUpdated:
        return LeadUpdated(**self._intake(at, recorded), state=self.state(at, **attributes), changed=[])

    def did(
        self,
        kind: str,
        at: datetime,
        by: str = "sales",
        recorded: datetime | None = None,
        actor_kind: str | None = None,
    ) -> ActivityRecorded:
        base = self._intake(at, recorded)
        return ActivityRecorded(**base, activity_id=uuid7(), kind=kind, by=by, actor_kind=actor_kind)

    def merged(self, other: UUID, at: datetime, **attributes: Any) -> LeadMerged:
        return LeadMerged(
            **self._intake(at, None), merge_id=uuid7(), merged_lead_id=other, state=self.state(at, **attributes)
        )

    def unmerged(self, merge: LeadMerged, at: datetime) -> LeadUnmerged:
        return LeadUnmerged(
            **self._intake(at, None),
            merge_id=merge.merge_id,
            restored_lead_id=merge.merged_lead_id,
            state=merge.state,
            restored_state=merge.state,
        )

    def erased(self, at: datetime) -> LeadErased:
        return LeadErased(**self._intake(at, None))

    def entered(
        self, stage: str, at: datetime, recorded: datetime | None = None, cause: str = "automatic"
    ) -> LeadStageChanged:
        self.visits[stage] = self.visits.get(stage, 0) + 1
        return LeadStageChanged(
            **self._qualification(at, recorded),
            definition_version=1,
            stage=stage,
            stage_kind=KINDS.get(stage, "open"),
            stage_rank=1,
            stage_owner="sales",
            visit=self.visits[stage],
            cause=cause,
        )

    def decided(self, decision: str, at: datetime, recorded: datetime | None = None) -> LeadDecided:
        return LeadDecided(
            **self._qualification(at, recorded),
            decision_id=uuid7(),
            definition_version=1,
            decision=decision,
            from_stage="mql",
            stage="sal",
            actor="ann",
        )

    def scored(self, grade: str, at: datetime) -> LeadScored:
        return LeadScored(**self._qualification(at, None), definition_version=1, fit=80, engagement=80, grade=grade)

    def assigned(self, owner: str | None, at: datetime) -> LeadAssigned:
        return LeadAssigned(**self._qualification(at, None), owner=owner, why="a rule")


@dataclass
class Stack:
    """The service without Kafka: the test passes events to the use case and sets the watermarks."""

    database: Database
    store: AgreementStore
    sla_cache: SlaVersionCache
    watermarks: FixedWatermarks
    app: FastAPI
    http: httpx.AsyncClient

    async def sign_sla(self, content: Mapping[str, Any] = CONTENT) -> int:
        """Draft, propose and sign an SLA over HTTP; the version that came into force."""
        drafted = await self.http.post("/v1/sla/versions", json=content, headers=bearer("marketing"))
        assert drafted.status_code == 201, drafted.text
        version, sha = drafted.json()["version"], drafted.json()["content_sha256"]
        at = f"/v1/sla/versions/{version}"
        assert (await self.http.post(f"{at}/propose", headers=bearer("marketing"))).is_success
        for department in ("marketing", "sales"):
            signed = await self.http.post(f"{at}/signatures", json={"content_sha256": sha}, headers=bearer(department))
            assert signed.is_success, signed.text
        return int(version)

    async def backdate_agreement(self, moment: datetime, version: int = 1) -> None:
        """Put the agreement in force since a moment, so that it covers the history of the test."""
        async with self.database.write_transaction() as unit_of_work:
            await unit_of_work.conn.execute(
                text("UPDATE agreement_version SET active_from = :at WHERE version = :version"),
                {"at": moment, "version": version},
            )

    async def backdate_supersession(self, moment: datetime, version: int) -> None:
        """Put the end of an agreement's time in force to a moment."""
        async with self.database.write_transaction() as unit_of_work:
            await unit_of_work.conn.execute(
                text("UPDATE agreement_version SET superseded_at = :at WHERE version = :version"),
                {"at": moment, "version": version},
            )

    async def apply(self, *events: EventData) -> None:
        """Apply events as one batch of the consumer, however old they are."""
        await self._apply(events, lambda _: "x-events")

    async def redeliver(self, *events: EventData) -> None:
        """Apply events again as the consumer does when their topics are read again from the beginning."""
        of_intake = (LeadCaptured, LeadUpdated, LeadMerged, LeadUnmerged, LeadErased, ActivityRecorded)
        await self._apply(events, lambda event: INTAKE_EVENTS if isinstance(event, of_intake) else QUALIFICATION_EVENTS)

    async def _apply(self, events: Sequence[EventData], topic_of: Callable[[EventData], str]) -> None:
        received = [
            Received(Event(uuid7(), "/x", event), topic_of(event), 0, offset) for offset, event in enumerate(events)
        ]
        async with self.database.write_transaction() as unit_of_work:
            await process_events(unit_of_work, received, self.sla_cache, self.watermarks)

    async def read_until(self, intake: datetime, qualification: datetime | None = None) -> None:
        """Set both watermarks, then evaluate pending triggers and fire clocks."""
        await self.set_watermarks(intake, qualification)
        await evaluate_pending(self.database, self.sla_cache, self.watermarks)
        while await fire_due_clocks(self.database, self.sla_cache, self.watermarks):
            pass
        while await judge_periods(self.database, self.sla_cache, self.watermarks):
            pass

    async def set_watermarks(self, intake: datetime, qualification: datetime | None = None) -> None:
        """Set both watermarks, also those that answers report."""
        self.watermarks.reached = {INTAKE_EVENTS: intake, QUALIFICATION_EVENTS: qualification or intake}
        async with self.database.write_transaction() as unit_of_work:
            await store_watermarks(await unit_of_work.connection(), ConsumedWatermarks(self.watermarks.reached))

    async def clocks(self, lead_id: UUID) -> dict[str, dict[str, Any]]:
        """The clocks of a lead by clause, as HTTP gives them; each clause at most once."""
        answer = await self.http.get(f"/v1/leads/{lead_id}/clocks", headers=bearer("reader"))
        assert answer.status_code == 200, answer.text
        items = answer.json()["items"]
        assert len({item["clause"] for item in items}) == len(items)
        return {item["clause"]: item for item in items}

    async def states(self, lead_id: UUID) -> dict[str, str]:
        return {clause: clock["state"] for clause, clock in (await self.clocks(lead_id)).items()}

    async def published_events(self, lead_id: UUID, clause: str | None = None) -> list[Any]:
        """The clock events of a lead in the outbox, in order."""
        async with self.database.read_transaction() as conn:
            rows = await conn.execute(text("SELECT type, key, payload FROM outbox ORDER BY id"))
            found = [decode_data(row.type, row.payload) for row in rows if row.key == str(lead_id)]
        return [event for event in found if isinstance(event, ClockEvent) and clause in (None, event.clause)]

    async def event_names(self, lead_id: UUID, clause: str | None = None) -> list[str]:
        """The names of these events, from the middle of their types."""
        return [event.type.split(".")[1] for event in await self.published_events(lead_id, clause)]

    async def rows(self, statement: str, **values: Any) -> list[Any]:
        async with self.database.read_transaction() as conn:
            return list(await conn.execute(text(statement), values))


def bearer(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer key-of-{name}"}


KEYS: dict[str, tuple[str | None, list[str]]] = {
    "marketing": ("marketing", ["sla:read", "agreements:write", "agreements:sign"]),
    "sales": ("sales", ["sla:read", "agreements:sign"]),
    "reader": (None, ["sla:read"]),
    "manager": ("sales", ["sla:read", "sla:write"]),
    "stranger": (None, ["leads:read"]),
    "admin": (None, ["admin"]),
}


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    entries = [
        {
            "name": name,
            "sha256": sha256(f"key-of-{name}".encode()).hexdigest(),
            "department": department,
            "scopes": scopes,
        }
        for name, (department, scopes) in KEYS.items()
    ]
    path = tmp_path / "keys.yaml"
    path.write_text(yaml.safe_dump({"keys": entries}))
    return path


@pytest.fixture
def database_url(database_factory: Callable[..., str]) -> str:
    return database_factory("sla", partial(upgrade_sync, MIGRATIONS))


@pytest.fixture
def settings(database_url: str, keys_file: Path) -> Settings:
    return Settings(
        database_url=database_url, kafka_bootstrap_servers="localhost:1", api_keys_file=keys_file, database_pool_size=8
    )


@pytest.fixture
async def stack(settings: Settings) -> AsyncIterator[Stack]:
    service = build(settings)
    store = AgreementStore(service.database, KIND)
    app = create_app(service)
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://sla-monitor") as http:
        yield Stack(service.database, store, SlaVersionCache(store), FixedWatermarks(), app, http)
    await service.database.dispose()


@pytest.fixture
def content() -> dict[str, Any]:
    """A copy of the SLA above that a test may change."""
    return deepcopy(CONTENT)


@pytest.fixture
async def signed(stack: Stack) -> Stack:
    """The stack with the SLA above in force since long ago."""
    await stack.sign_sla()
    await stack.backdate_agreement(datetime(2020, 1, 1, tzinfo=UTC))
    return stack


@pytest.fixture
def make_lead() -> Callable[[], LeadEvents]:
    return LeadEvents


@pytest.fixture
def auth() -> Callable[[str], dict[str, str]]:
    """The header of one of the keys."""
    return bearer
