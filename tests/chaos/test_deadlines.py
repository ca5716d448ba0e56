"""A relay that stands still over a deadline: nobody is blamed for what was done in time, and whoever missed it still is."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import psutil
import pytest

from accord.contracts.topics import SLA_EVENTS
from accord_local.demo.client import wait_for
from tests.chaos.conftest import CALL, CALLED_SOURCE
from tests.chaos.evidence import read_published
from tests.chaos.ledger import Ledger, new_id
from tests.system.running import Running

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.system,
    pytest.mark.slow,
    pytest.mark.timeout(240),
]

LONG_PAST = timedelta(seconds=6)
"""So far past its deadline is a clock looked at: more than a watermark's second and a consumer's longest pause."""
WITHIN_S = 60.0


def find_published(accord: Running, lead_id: str, type_: str) -> list[tuple[str, str]] | None:
    """Lead and type of all events of the clause's clocks, once this one is among them."""
    told = [(event.key, event.type) for event in read_published(accord, SLA_EVENTS) if event.data.get("clause") == CALL]
    return told if (lead_id, type_) in told else None


def test_a_relay_stopped_over_a_deadline_invents_no_breach_and_hides_none(accord: Running, ledger: Ledger) -> None:
    kept, missed = enter(accord, ledger), enter(accord, ledger)
    due_at = max(due_of(await_clock(accord, lead_id)) for lead_id in (kept, missed))
    with relay_stopped(accord):
        call(accord, ledger, kept)
        assert datetime.now(UTC) < due_at, "the machine was too slow for the action to be in time"
        wait_for("the deadlines to pass", lambda: datetime.now(UTC) > due_at + LONG_PAST or None, timeout_s=WITHIN_S)
        assert alive(accord.urls.sla_monitor)
        assert [await_clock(accord, lead_id)["state"] for lead_id in (kept, missed)] == ["running", "running"]
        assert breached(accord) & {kept, missed} == set()
    await_state(accord, kept, "met")
    await_state(accord, missed, "breached")
    assert breached(accord) & {kept, missed} == {missed}
    # Not even for a moment: the log of events is the whole past.
    told = wait_for(
        "the breach to be published", lambda: find_published(accord, missed, "sla.breached.v1"), timeout_s=WITHIN_S
    )
    assert [type_ for key, type_ in told if key == kept] == ["sla.clock_started.v1", "sla.met.v1"]
    assert [type_ for key, type_ in told if key == missed] == ["sla.clock_started.v1", "sla.breached.v1"]


def enter(accord: Running, ledger: Ledger) -> str:
    """A lead that sales owes a call."""
    external_id = new_id()
    submission = {"source": CALLED_SOURCE, "external_id": external_id}
    lead_id: str = accord.sales.post(f"{accord.urls.intake}/v1/leads", submission)["lead_id"]
    ledger.aside.add(lead_id)
    return lead_id


def call(accord: Running, ledger: Ledger, lead_id: str) -> None:
    activity = {"lead_id": lead_id, "kind": "call.attempted", "by": "sales"}
    ledger.activity(accord.sales.post(f"{accord.urls.intake}/v1/activities", activity)["activity_id"], lead_id)


def await_clock(accord: Running, lead_id: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        found = accord.sales.get(f"{accord.urls.sla_monitor}/v1/leads/{lead_id}/clocks", expect=(200, 404))
        return next((clock for clock in found.get("items", []) if clock["clause"] == CALL), None)

    return wait_for("a clock for the call", look, timeout_s=WITHIN_S, every_s=0.05)


def await_state(accord: Running, lead_id: str, state: str) -> None:
    wait_for(
        f"the clock to be {state}",
        lambda: await_clock(accord, lead_id)["state"] == state or None,
        timeout_s=WITHIN_S,
    )


def due_of(clock: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(clock["due_at"])


def breached(accord: Running) -> set[str]:
    url = f"{accord.urls.sla_monitor}/v1/breaches"
    return {found["lead_id"] for found in accord.sales.get(url, clause=CALL, limit=500)["items"]}


def alive(url: str) -> bool:
    return httpx.get(f"{url}/livez", trust_env=False).status_code == httpx.codes.OK


@contextlib.contextmanager
def relay_stopped(accord: Running) -> Iterator[None]:
    """SIGSTOP to the process with intake's relay. A helper continues it, also when this test itself is killed."""
    assert accord.stack is not None
    pid = accord.stack.services["intake-relay"].pid
    assert pid is not None
    script = 'kill -STOP "$0" && read -r _; kill -CONT "$0"'
    with subprocess.Popen(["/bin/sh", "-c", script, str(pid)], stdin=subprocess.PIPE) as helper:
        process = psutil.Process(pid)
        try:
            wait_for(
                "the relay to stand still", lambda: process.status() == psutil.STATUS_STOPPED or None, every_s=0.01
            )
            yield
        finally:
            helper.communicate(timeout=WITHIN_S)
    assert process.status() != psutil.STATUS_STOPPED
