"""Who hears of a step: the subscriptions that name whom the clause names. Imported history wakes nobody."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr
from tests.sla_monitor.conftest import bearer

from sla_monitor.settings import Settings

START = datetime(2027, 5, 4, 15, tzinfo=UTC)
CONTENT: dict[str, Any] = {
    "kind": "sla",
    "title": "SLA",
    "clauses": [
        {
            "key": "call",
            "obliges": "sales",
            "kind": "response",
            "from": {"stage": "mql"},
            "to": {"activity": "call.attempted", "by": "sales"},
            "within": {"elapsed": "PT1H"},
            "escalate": [{"at": 1.0, "notify": "sales-managers"}, {"at": 2.0, "notify": "directors", "reassign": True}],
        }
    ],
}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """With the key that a subscription's secret is encrypted with."""
    key = base64.b64encode(bytes(range(32))).decode()
    return settings.model_copy(update={"secrets_keys": SecretStr(key)})


async def subscribe(stack: Any, name: str, **terms: Any) -> str:
    body = {"name": name, "channel": "webhook", "address": "https://93.184.216.34/hook", **terms}
    answer = await stack.http.post("/v1/subscriptions", json=body, headers=bearer("admin"))
    assert answer.status_code == 201, answer.text
    return str(answer.json()["subscription_id"])


async def deliveries(stack: Any, subscription: str) -> list[str]:
    url = f"/v1/deliveries?subscription={subscription}"
    answer = await stack.http.get(url, headers=bearer("admin"))
    assert answer.status_code == 200, answer.text
    return [item["event_type"] for item in answer.json()["items"]]


async def test_step_notifies_whom_the_clause_names(stack: Any, make_lead: Callable[[], Any]) -> None:
    await stack.sign_sla(CONTENT)
    await stack.backdate_agreement(datetime(2020, 1, 1, tzinfo=UTC))
    of_managers, of_directors, of_marketing = [
        await subscribe(stack, name, event_types=["sla.escalated.v1"], filter=terms)
        for name, terms in (
            ("managers", {"path": "attributes.notify", "op": "contains", "value": "sales-managers"}),
            ("directors", {"path": "attributes.notify", "op": "contains", "value": "directors"}),
            ("marketing", {"path": "attributes.obliges", "op": "eq", "value": "marketing"}),
        )
    ]
    lead = make_lead()
    await stack.apply(lead.captured(START, size=100), lead.entered("mql", START))
    for minutes in (61, 90, 121, 180):
        await stack.read_until(START + timedelta(minutes=minutes))
    assert await deliveries(stack, of_managers) == ["sla.escalated.v1"]
    assert await deliveries(stack, of_directors) == ["sla.escalated.v1"]
    assert await deliveries(stack, of_marketing) == []


async def test_imported_history_counts_and_notifies_nobody(stack: Any, make_lead: Callable[[], Any]) -> None:
    await stack.sign_sla(CONTENT)
    await stack.backdate_agreement(datetime(2020, 1, 1, tzinfo=UTC))
    everything = await subscribe(stack, "all", event_types=["sla.*"])
    imported_at = START - timedelta(days=1)
    for number in range(20):
        lead, at = make_lead(), imported_at - timedelta(days=700 - number)
        events = [lead.captured(at, recorded=imported_at), lead.entered("mql", at, recorded=imported_at)]
        if number % 2:
            events.append(lead.did("call.attempted", at + timedelta(minutes=5), recorded=imported_at))
        await stack.apply(*events)
    await stack.read_until(START)
    (group,) = (await stack.http.get("/v1/attainment", headers=bearer("reader"))).json()["groups"]
    assert (group["met"], group["breached"], group["backfill"]) == (10, 10, 20)
    assert await deliveries(stack, everything) == []
    rows = await stack.rows("SELECT payload FROM outbox WHERE type = 'sla.escalated.v1'")
    assert len(rows) == 20
    assert not any(b'"reassign":true' in row.payload for row in rows)
