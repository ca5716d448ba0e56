"""A little service to try the kit on: its own migrations, an agreement kind, keys, and an app with a client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import yaml
from fastapi import APIRouter

from accord.agreements import AgreementStore, Finding, Kind, PaperLinks, Section, agreement_router
from accord.db import Database
from accord.migrations.run import upgrade_sync
from accord.service import Service, create_app
from accord.settings import Settings

MIGRATIONS = Path(__file__).parent / "kit_migrations"
migrate_kit = partial(upgrade_sync, MIGRATIONS)

KEYS: dict[str, tuple[str, str | None, list[str]]] = {
    "marketing": ("key-of-marketing", "marketing", ["agreements:write", "agreements:sign", "leads:read"]),
    "sales": ("key-of-sales", "sales", ["agreements:write", "agreements:sign"]),
    "sales-two": ("second-key-of-sales", "sales", ["agreements:sign"]),
    "nobody": ("key-without-department", None, ["agreements:write", "agreements:sign"]),
    "reader": ("key-of-reader", None, []),
}


async def until(holds: Callable[[], Awaitable[bool]], *, within_s: float = 30.0) -> None:
    """Await a condition that can only be asked for."""
    async with asyncio.timeout(within_s):
        while not await holds():  # noqa: ASYNC110 - it holds in the database or another process, where no event is set
            await asyncio.sleep(0.01)


def auth(name: str) -> dict[str, str]:
    """The header of a key of KEYS."""
    return {"Authorization": f"Bearer {KEYS[name][0]}"}


def write_keys(path: Path, keys: Mapping[str, tuple[str, str | None, list[str]]] = KEYS) -> Path:
    entries = [
        {"name": name, "sha256": sha256(key.encode()).hexdigest(), "department": department, "scopes": scopes}
        for name, (key, department, scopes) in keys.items()
    ]
    path.write_text(yaml.safe_dump({"keys": entries}))
    return path


def validate(content: Mapping[str, object]) -> list[Finding]:
    """The kit's policy has a list `parameters` and nothing that it does not know."""
    found = [
        Finding(f"/{name}", "Unknown name")
        for name in content
        if name not in ("kind", "title", "glossary", "parameters")
    ]
    if not isinstance(content.get("parameters", []), list):
        found.append(Finding("/parameters", "Must be a list"))
    return found


def on_paper(content: Mapping[str, object]) -> list[Section]:
    rows = [
        [str(item.get("key")), str(item.get("rule")), str(item.get("consequence", "flag"))]
        for item in content.get("parameters", [])  # type: ignore[attr-defined]
    ]
    return [
        Section(
            "What is asked of a record",
            ["Each record is checked against these."],
            ["Parameter", "Rule", "If not met"],
            rows,
        )
    ]


POLICY = Kind("policy", "/v1/policy", validate, on_paper)
CONTENT: dict[str, Any] = {
    "kind": "policy",
    "title": "What every record must meet",
    "glossary": {"record": "One inbound submission."},
    "parameters": [{"key": "email", "rule": "required", "consequence": "reject", "weight": 3}],
}


@dataclass
class Kit:
    """The running kit: a client against the whole app, its database and its agreement."""

    service: Service
    database: Database
    store: AgreementStore
    client: httpx.AsyncClient
    url: str
    extra: dict[str, Any] = field(default_factory=dict)

    async def outbox(self) -> list[tuple[str, dict[str, Any]]]:
        """Type and data of every event to be published, in order."""
        import json

        async with self.database.read_transaction() as conn:
            rows = await conn.exec_driver_sql("SELECT type, payload FROM outbox ORDER BY id")
            return [(row.type, json.loads(bytes(row.payload))) for row in rows]


@asynccontextmanager
async def service_kit(
    url: str, tmp_path: Path, *routers: APIRouter | Callable[[Database], APIRouter], **options: Any
) -> AsyncIterator[Kit]:
    settings_options = {name: options.pop(name) for name in list(options) if name in Settings.model_fields}
    settings = Settings(
        database_url=url,
        kafka_bootstrap_servers="127.0.0.1:1",
        api_keys_file=write_keys(tmp_path / "keys.yaml"),
        **settings_options,
    )
    database = Database(url, application_name="kit", pool_size=8)
    store = AgreementStore(database, options.pop("kind", POLICY))
    service = Service(
        name="intake",
        title="Kit",
        settings=settings,
        database=database,
        migrations=MIGRATIONS,
        routers=[
            agreement_router(store, PaperLinks(settings.encryption_keys()), example=CONTENT),
            *(make if isinstance(make, APIRouter) else make(database) for make in routers),
        ],
        **options,
    )
    transport = httpx.ASGITransport(create_app(service))
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://kit") as client:
            yield Kit(service, database, store, client, url)
    finally:
        await database.dispose()
