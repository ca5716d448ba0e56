"""Processes and servers that are killed under load: what was acknowledged arrives once and in order, and the flow goes on
without anyone's help.
"""

from __future__ import annotations

import random

import httpx
import pytest

from accord_local.demo.client import wait_for
from accord_local.services import Service
from tests.chaos.conftest import ASK, supervised
from tests.chaos.evidence import (
    assert_exactly_what_was_acknowledged,
    assert_published_in_order,
    await_flow,
    await_settled,
)
from tests.chaos.ledger import Ledger, Load
from tests.effort import cases
from tests.system.running import Running

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.system,
    pytest.mark.slow,
    pytest.mark.timeout(420),
]

READY_WITHIN_S = 60.0
ACKNOWLEDGED_DURING_OUTAGE = 30
KILLS_COUNT = cases(20, 8)
LEADS_BETWEEN_KILLS_MAX = 20
SIGNS_OF_WORK = (
    'accord_consumer_events_total{consumer="',
    'accord_http_requests_total{method="POST",route="/v1/leads"',
    "accord_relay_batch_seconds_count",
)
KILL_SEED = 20_270_104


def check_outcome(accord: Running, ledger: Ledger, load: Load) -> None:
    """Stop the load and compare the ledger with what metrics shows and what the topics tell."""
    load.finish()
    shown = await_settled(accord, ledger, ASK)
    assert_exactly_what_was_acknowledged(shown, ledger, ASK)
    assert_published_in_order(accord)


def pids(accord: Running) -> dict[str, int | None]:
    assert accord.stack is not None
    return {name: service.pid for name, service in accord.stack.services.items()}


def await_ready(service: Service, old_pid: int | None) -> None:
    def ready() -> bool | None:
        return (service.pid not in (None, old_pid) and service.ready(client)) or None

    with httpx.Client(trust_env=False) as client:
        wait_for(f"{service.spec.name} to be ready", ready, timeout_s=READY_WITHIN_S, every_s=0.05)


def test_processes_killed_at_random_moments_repeat_no_effect_and_skip_none(
    accord: Running, ledger: Ledger, load: Load
) -> None:
    """Among so many moments are those between commit and answer, send and mark, commit and offset commit. In the first
    round the supervisor is all the help that each service needs.
    """
    assert accord.stack is not None
    rng = random.Random(KILL_SEED)
    await_flow(accord, ledger)
    services = list(accord.stack.services.values())
    with supervised(accord):
        for service in services:
            old_pid = service.pid
            kill_at_work(service, ledger, load, rng)
            await_ready(service, old_pid)
            await_flow(accord, ledger)
            load.check()
    for number in range(KILLS_COUNT - len(services)):
        service = services[number % len(services)]
        kill_at_work(service, ledger, load, rng)
        service.start()
    await_flow(accord, ledger)
    check_outcome(accord, ledger, load)


def kill_at_work(service: Service, ledger: Ledger, load: Load, rng: random.Random) -> None:
    await_work(service)
    known, _, _ = ledger.counts()
    # A moment is so many leads later, not so many seconds: then there is something under way.
    wanted = known + rng.randint(1, LEADS_BETWEEN_KILLS_MAX)
    wait_for("some load", lambda: ledger.counts()[0] >= wanted or None, every_s=0.002)
    load.check()
    service.kill()


def await_work(service: Service) -> None:
    """Until this process has answered a request, published an event or consumed one; a later kill finds it at work."""

    def works() -> bool | None:
        try:
            page = client.get(f"{service.url}/metrics").text
        except httpx.TransportError:
            return None
        return any(line.startswith(SIGNS_OF_WORK) for line in page.splitlines()) or None

    with httpx.Client(trust_env=False) as client:
        wait_for(f"{service.spec.name} to work", works, timeout_s=READY_WITHIN_S, every_s=0.05)


def test_intake_answers_while_kafka_is_away_and_nothing_of_it_is_lost(
    accord: Running, ledger: Ledger, load: Load
) -> None:
    assert accord.stack is not None
    kafka = accord.stack.kafka
    assert kafka is not None
    before = pids(accord)
    for go_away in (kafka.stop, kafka.kill):
        await_flow(accord, ledger)
        go_away()
        await_leads_without_kafka(ledger)
        assert kafka.pid is None
        kafka.start()
    await_flow(accord, ledger)
    check_outcome(accord, ledger, load)
    assert pids(accord) == before


def await_leads_without_kafka(ledger: Ledger) -> None:
    known, _, _ = ledger.counts()
    wait_for(
        "leads to be acknowledged without Kafka",
        lambda: ledger.counts()[0] >= known + ACKNOWLEDGED_DURING_OUTAGE or None,
        timeout_s=READY_WITHIN_S,
    )


def test_postgresql_crashes_and_no_acknowledged_lead_goes_with_it(accord: Running, ledger: Ledger, load: Load) -> None:
    assert accord.stack is not None
    postgres = accord.stack.postgres
    assert postgres is not None
    before = pids(accord)
    await_flow(accord, ledger)
    postgres.kill()
    postgres.start()
    await_flow(accord, ledger)
    check_outcome(accord, ledger, load)
    assert pids(accord) == before
