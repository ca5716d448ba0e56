"""An event that cannot be applied goes to the dead letters; its neighbours pass, and it can be replayed or discarded."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from accord.contracts.envelope import headers_of
from accord.contracts.topics import INTAKE_EVENTS, PARTITIONS_DEFAULT
from accord.partitioning import hash_key
from accord_local.demo.client import wait_for
from tests.chaos.conftest import ASK
from tests.chaos.evidence import assert_exactly_what_was_acknowledged, await_settled, rows
from tests.chaos.ledger import Ledger, Load, new_id
from tests.system.running import Running

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.system,
    pytest.mark.slow,
    pytest.mark.timeout(240),
]

WITHIN_S = 60.0
REFUSED_SOURCE = "refused"


def test_a_malformed_record_becomes_a_dead_letter_by_each_consumer_and_its_neighbours_flow_on(
    accord: Running, ledger: Ledger, load: Load
) -> None:
    neighbour = wait_for("a lead", lambda: next(iter(ledger.leads_after(0)), None))
    event_id = str(uuid.uuid4())
    partition = asyncio.run(produce(accord, neighbour, event_id, b'{"lead_id": "'))
    letters = {url: await_letter(accord, url, event_id) for url in consumers(accord)}
    assert {(letter["topic"], letter["partition"], letter["key"]) for letter in letters.values()} == {
        (INTAKE_EVENTS, partition, neighbour)
    }
    await_lead_behind(accord, ledger, partition)
    load.finish()
    shown = await_settled(accord, ledger, ASK)
    assert_exactly_what_was_acknowledged(shown, ledger, ASK)
    for url, letter in letters.items():
        one = f"{url}/v1/admin/dead-letters/{letter['id']}"
        accord.admin.post(f"{one}/replay", expect=(422,))
        assert letter_of(accord, url, event_id) == letter, "a replay that failed changed something"
        assert accord.admin.post(f"{one}/discard")["state"] == "discarded"
        assert letter_of(accord, url, event_id) is None
        accord.admin.post(f"{one}/discard", expect=(409,))


def test_a_dead_letter_is_replayed_once_its_cause_is_repaired(accord: Running, ledger: Ledger) -> None:
    """The cause is a rule of metrics' database that refuses one lead, as a wrong migration might."""
    external_id = new_id()
    metrics = accord.urls.metrics
    with refusing(accord):
        submission = {"source": REFUSED_SOURCE, "external_id": external_id}
        lead_id = accord.sales.post(f"{accord.urls.intake}/v1/leads", submission)["lead_id"]
        ledger.aside.add(lead_id)
        letter = wait_for("the dead letter", lambda: _letter(accord, metrics, "key", lead_id), timeout_s=WITHIN_S)
        assert letter["type"] == "lead.captured.v1"
        accord.admin.post(f"{metrics}/v1/admin/dead-letters/{letter['id']}/replay", expect=(422,))
    assert accord.admin.post(f"{metrics}/v1/admin/dead-letters/{letter['id']}/replay")["state"] == "replayed"
    lead = accord.marketing.get(f"{metrics}/v1/leads/{lead_id}/timeline")
    assert lead["source"] == REFUSED_SOURCE
    assert lead["captured_at"] is not None
    assert rows(accord, "metrics", f"SELECT count(*) AS n FROM lead WHERE lead_id = '{lead_id}'") == [[1]]


@contextlib.contextmanager
def refusing(accord: Running) -> Iterator[None]:
    assert accord.stack is not None
    postgres = accord.stack.postgres
    assert postgres is not None
    rule = f"ADD CONSTRAINT refusing CHECK (source <> '{REFUSED_SOURCE}') NOT VALID"
    postgres.execute(f"ALTER TABLE lead {rule}", "metrics")
    try:
        yield
    finally:
        postgres.execute("ALTER TABLE lead DROP CONSTRAINT refusing", "metrics")


async def produce(accord: Running, key: str, event_id: str, value: bytes) -> int:
    """Write a record of type lead.captured with this key and value straight to intake's topic; its partition."""
    assert accord.stack is not None
    assert accord.stack.kafka is not None
    headers = headers_of(
        id=uuid.UUID(event_id),
        type="lead.captured.v1",
        source="/intake",
        subject=key,
        time=datetime.now(UTC),
        traceparent=None,
    )
    async with AIOKafkaProducer(bootstrap_servers=accord.stack.kafka.bootstrap_servers) as producer:
        placed = await producer.send_and_wait(INTAKE_EVENTS, value, key=key.encode(), headers=headers)
    return int(placed.partition)


def consumers(accord: Running) -> tuple[str, ...]:
    return accord.urls.qualification, accord.urls.sla_monitor, accord.urls.metrics


def await_letter(accord: Running, url: str, event_id: str) -> dict[str, Any]:
    return wait_for(f"a dead letter at {url}", lambda: letter_of(accord, url, event_id), timeout_s=WITHIN_S)


def letter_of(accord: Running, url: str, event_id: str) -> dict[str, Any] | None:
    return _letter(accord, url, "event_id", event_id)


def _letter(accord: Running, url: str, name: str, value: str) -> dict[str, Any] | None:
    found = accord.admin.get(f"{url}/v1/admin/dead-letters", limit=500)["items"]
    return next((letter for letter in found if letter[name] == value), None)


def await_lead_behind(accord: Running, ledger: Ledger, partition: int) -> None:
    """Until a lead that comes after the poison, in the same partition, is in metrics."""
    known, _, _ = ledger.counts()

    def behind() -> bool | None:
        same = [
            lead_id
            for lead_id in ledger.leads_after(known)
            if hash_key(lead_id.encode()) % PARTITIONS_DEFAULT == partition
        ]
        ids = ", ".join(f"'{lead_id}'" for lead_id in same)
        return bool(same and rows(accord, "metrics", f"SELECT 1 AS one FROM lead WHERE lead_id IN ({ids})")) or None

    wait_for("a neighbour of the poison to come through", behind, timeout_s=WITHIN_S)
