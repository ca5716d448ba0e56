"""A signed-looking definition, compiled, and short ways to make the events that move a lead."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
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
from accord.contracts.base import EventData, LeadEvent
from accord.contracts.envelope import Event, decode_data
from accord.contracts.intake_events import (
    ActivityRecorded,
    LeadCaptured,
    LeadErased,
    LeadMerged,
    LeadState,
    LeadUpdated,
)
from accord.contracts.values import Campaign
from accord.db import Database
from accord.messaging.handler import Received
from accord.migrations.run import upgrade_sync
from accord.service import create_app
from accord.telemetry import configure_logging
from qualification.definition.domain.definition import Definition
from qualification.definition.domain.rules import Rules, compile_definition
from qualification.definition.service import KIND, DefinitionVersionCache
from qualification.lifecycle.domain.facts import Decision, Fields
from qualification.lifecycle.service.evaluation_context import EvaluationContext, EvaluationContexts
from qualification.lifecycle.service.intake_events import process_intake_events
from qualification.main import MIGRATIONS, build
from qualification.routing.service.assignment import assign_after_save
from qualification.routing.service.document import RoutingVersionCache
from qualification.settings import Settings

CONTENT: dict[str, Any] = {
    "kind": "definition",
    "title": "What we both call a lead",
    "glossary": {"lead": "A person at a company we could sell to, who has shown interest."},
    "stages": [
        {"key": "inquiry", "owner": "marketing", "kind": "open", "gate": {"on": "capture"}},
        {
            "key": "mql",
            "owner": "marketing",
            "kind": "open",
            "from": ["inquiry", "recycled"],
            "gate": {
                "when": {
                    "all": [
                        {"path": "attributes.employee_count", "op": "gte", "value": 50},
                        {"path": "scores.engagement", "op": "gte", "value": 20},
                    ]
                }
            },
        },
        {"key": "sal", "owner": "sales", "kind": "open", "from": ["mql"], "gate": {"decision": "accept"}},
        {
            "key": "sql",
            "owner": "sales",
            "kind": "open",
            "from": ["sal"],
            "gate": {"decision": "qualify", "fields": ["budget", "authority", "need", "timing"]},
        },
        {
            "key": "opportunity",
            "owner": "sales",
            "kind": "open",
            "from": ["sql"],
            "gate": {"decision": "open_opportunity", "fields": ["amount", "expected_close"]},
        },
        {
            "key": "won",
            "owner": "sales",
            "kind": "won",
            "from": ["opportunity"],
            "gate": {"decision": "win", "fields": ["amount"]},
        },
        {
            "key": "lost",
            "owner": "sales",
            "kind": "lost",
            "from": ["sal", "sql", "opportunity"],
            "gate": {"decision": "lose", "reasons": "lost"},
        },
        {
            "key": "recycled",
            "owner": "marketing",
            "kind": "recycled",
            "from": ["mql", "sal", "sql", "lost"],
            "gate": {"decision": ["reject", "recycle"], "reasons": "recycled"},
            "cool_down": "P30D",
        },
        {
            "key": "disqualified",
            "owner": "marketing",
            "kind": "disqualified",
            "from": "any",
            "gate": {"decision": "disqualify", "reasons": "disqualified"},
        },
    ],
    "reasons": {
        "recycled": {"no-budget": "No budget this year", "no-timing": "Not now", "too-early": "Wants to read first"},
        "lost": {"price": "Price", "competitor": "Went elsewhere", "no-decision": "No decision"},
        "disqualified": {"not-a-fit": "Outside the definition", "bad-data": "Cannot be reached"},
    },
    "scores": {
        "fit": {
            "max": 100,
            "rules": [
                {"key": "size", "when": {"path": "attributes.employee_count", "op": "gte", "value": 200}, "points": 40},
                {
                    "key": "vertical",
                    "when": {"path": "attributes.industry", "op": "in", "value": ["541511", "541512"]},
                    "points": 30,
                },
            ],
        },
        "engagement": {
            "max": 100,
            "rules": [
                {"key": "demo", "activity": "demo.requested", "points": 40, "max": 40, "half_life": "P30D"},
                {"key": "click", "activity": "email.clicked", "points": 5, "max": 20, "half_life": "P14D"},
            ],
        },
        "grade": {"fit": {"A": 75, "B": 50, "C": 25}, "engagement": {"1": 75, "2": 50, "3": 25}},
    },
}

START = datetime(2024, 1, 8, 15, 30, tzinfo=UTC)


@pytest.fixture
def content() -> dict[str, Any]:
    """The definition of agreements.md, to be changed at will."""
    return deepcopy(CONTENT)


@pytest.fixture(scope="session")
def rules() -> Rules:
    """The same, compiled as version 1."""
    return compile_definition(1, Definition.model_validate(CONTENT))


@pytest.fixture(scope="session")
def compiled() -> Callable[[Mapping[str, Any]], Rules]:
    """Compile other content as version 2."""
    return lambda content: compile_definition(2, Definition.model_validate(content))


@dataclass
class IntakeEventFactory:
    """Makes intake's events about one lead, with its sequence."""

    lead_id: UUID
    source: str = "website"
    sequence: int = 0
    captured_at: datetime = START
    external_keys: list[str] = field(default_factory=list)
    account_id: UUID | None = None

    def _base(self, at: datetime) -> dict[str, Any]:
        self.sequence += 1
        return {"lead_id": self.lead_id, "sequence": self.sequence, "occurred_at": at, "recorded_at": at}

    def state(self, **attributes: Any) -> LeadState:
        return LeadState(
            source=self.source,
            captured_at=self.captured_at,
            account_id=self.account_id,
            attributes=attributes,
            campaign=Campaign(name="spring"),
            external_keys=self.external_keys,
            verdict="accepted",
        )

    def captured(self, at: datetime = START, **attributes: Any) -> LeadCaptured:
        self.captured_at = at
        return LeadCaptured(**self._base(at), state=self.state(**attributes))

    def updated(self, at: datetime, **attributes: Any) -> LeadUpdated:
        return LeadUpdated(**self._base(at), state=self.state(**attributes), changed=sorted(attributes))

    def did(self, kind: str, at: datetime, by: str = "lead") -> ActivityRecorded:
        return ActivityRecorded(**self._base(at), activity_id=uuid7(), kind=kind, by=by)

    def merged(self, other: UUID, at: datetime, **attributes: Any) -> LeadMerged:
        return LeadMerged(**self._base(at), merge_id=uuid7(), merged_lead_id=other, state=self.state(**attributes))

    def erased(self, at: datetime) -> LeadErased:
        return LeadErased(**self._base(at))


@pytest.fixture
def new_lead() -> Callable[[], IntakeEventFactory]:
    """Make a teller about a new lead."""
    return lambda: IntakeEventFactory(uuid7())


@pytest.fixture
def make_decision() -> Callable[..., Decision]:
    """Make a decision: `decided("accept", at)`."""

    def make(decision: str, at: datetime, reason: str | None = None, fields: Fields | None = None) -> Decision:
        return Decision(uuid7(), decision, "ann", at, "sales", reason, fields or Fields())

    return make


@pytest.fixture
def day() -> Callable[[float], datetime]:
    """The moment so many days after the first capture."""
    return lambda days: START + timedelta(days=days)


@dataclass
class Stack:
    """The service over a database of its own, without Kafka: events are handed to the use case as the consumer would."""

    database: Database
    store: AgreementStore
    app: FastAPI
    http: httpx.AsyncClient
    watermarks: FixedWatermarks = field(default_factory=FixedWatermarks)

    async def activate(self, content: Mapping[str, Any]) -> int:
        """Draft, propose and sign a definition over HTTP; the version that came into force."""
        drafted = await self.http.post("/v1/definition/versions", json=content, headers=bearer("marketing"))
        assert drafted.status_code == 201, drafted.text
        version, sha = drafted.json()["version"], drafted.json()["content_sha256"]
        at = f"/v1/definition/versions/{version}"
        assert (await self.http.post(f"{at}/propose", headers=bearer("marketing"))).is_success
        for department in ("marketing", "sales"):
            signed = await self.http.post(f"{at}/signatures", json={"content_sha256": sha}, headers=bearer(department))
            assert signed.is_success, signed.text
        return int(version)

    async def open_context(self) -> EvaluationContext:
        """A book as a process opens it that has read nothing yet."""
        return await EvaluationContexts(
            DefinitionVersionCache(self.store), assign_after_save(RoutingVersionCache(self.database))
        ).open()

    async def apply_events(self, *events: EventData) -> None:
        """Apply what intake told, in one unit of work."""
        received = [
            Received(Event(uuid7(), "/intake", event), "intake-events", 0, offset)
            for offset, event in enumerate(events)
        ]
        context = await self.open_context()
        async with self.database.write_transaction() as unit_of_work:
            await process_intake_events(unit_of_work, received, context)

    async def published(self, lead_id: UUID | None = None) -> list[Any]:
        """What stands in the outbox, in order: of one lead, or all that is about leads."""
        async with self.database.read_transaction() as conn:
            rows = await conn.execute(text("SELECT type, key, payload FROM outbox ORDER BY id"))
            found = [decode_data(row.type, row.payload) for row in rows if lead_id is None or row.key == str(lead_id)]
        return [event for event in found if isinstance(event, LeadEvent)]

    async def rows(self, statement: str, **values: Any) -> list[Any]:
        async with self.database.read_transaction() as conn:
            return list(await conn.execute(text(statement), values))


def bearer(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer key-of-{name}"}


KEYS: dict[str, tuple[str | None, list[str]]] = {
    "marketing": ("marketing", ["leads:read", "decisions:write", "agreements:write", "agreements:sign"]),
    "sales": ("sales", ["leads:read", "decisions:write", "agreements:sign"]),
    "reader": (None, ["leads:read"]),
    "personal": (None, ["leads:read", "personal:read"]),
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
    return database_factory("qualification", partial(upgrade_sync, MIGRATIONS))


@pytest.fixture
def settings(database_url: str, keys_file: Path) -> Settings:
    return Settings(
        database_url=database_url, kafka_bootstrap_servers="localhost:1", api_keys_file=keys_file, database_pool_size=8
    )


@pytest.fixture
async def stack(settings: Settings) -> AsyncIterator[Stack]:
    configure_logging("warning", service="qualification")
    service = build(settings)
    store = AgreementStore(service.database, KIND)
    app = create_app(service)
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://qualification") as http:
        yield Stack(service.database, store, app, http)
    await service.database.dispose()


@pytest.fixture
def auth() -> Callable[[str], dict[str, str]]:
    """The header of one of the keys."""
    return bearer
