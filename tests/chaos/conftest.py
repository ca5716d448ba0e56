"""One durable stack for all chaos tests, intake's relay in a process of its own, under agreements made for them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import pytest

from accord_local.demo.play import Callers, sign
from tests.chaos.ledger import Ledger, Load
from tests.system.running import INTAKE_APART, Running, running_stack

DEFINITION = b"""
kind: definition
title: What the load calls a lead
glossary: {lead: "Whoever was sent."}
stages:
  - {key: inquiry, owner: marketing, kind: open, gate: {on: capture}}
  - key: mql
    owner: marketing
    kind: open
    from: [inquiry]
    gate: {when: {path: activities.demo.requested.count, op: gte, value: 1}}
  - {key: sal, owner: sales, kind: open, from: [mql], gate: {decision: accept}}
"""

ASK = "ask"
CALL = "call"
CALLED_SOURCE = "to-call"
SLA = b"""
kind: sla
title: What is owed to the load
clauses:
  - key: ask
    obliges: marketing
    kind: response
    from: {captured: true}
    to: {activity: [demo.requested]}
    within: {elapsed: P1D}
  - key: call
    obliges: sales
    kind: response
    from: {captured: true}
    to: {activity: [call.attempted], by: sales}
    within: {elapsed: PT10S}
    where: {path: source, op: eq, value: to-call}
"""
"""Each lead has one clock of `ask`, which the load meets; only the source `to-call` has one of `call`."""


@pytest.fixture(scope="session")
def accord(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_stack(tmp_path_factory.mktemp("chaos"), INTAKE_APART) as running:
        callers = Callers(running.marketing, running.sales)
        sign(callers, f"{running.urls.qualification}/v1/definition", DEFINITION)
        sign(callers, f"{running.urls.sla_monitor}/v1/sla", SLA)
        yield running


@pytest.fixture(scope="session")
def ledger() -> Ledger:
    """What was acknowledged by this stack, in all tests."""
    return Ledger()


@pytest.fixture
def load(accord: Running, ledger: Ledger) -> Iterator[Load]:
    """Leads, activities and decisions come in during the test, until `load.finish()` or its end."""
    with Load(accord.urls, accord.keys["sales"], ledger) as running:
        yield running


@contextlib.contextmanager
def supervised(running: Running) -> Iterator[None]:
    """The stack's own supervision restarts what dies, as `accord up` does."""
    assert running.stack is not None
    stop = threading.Event()
    supervisor = threading.Thread(target=running.stack.supervise, args=(stop,))
    supervisor.start()
    try:
        yield
    finally:
        stop.set()
        supervisor.join()
