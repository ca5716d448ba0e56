"""A load of leads, activities and decisions over HTTP, and a ledger of what was acknowledged. It breaks nothing itself.

Each request is repeated under the same Idempotency-Key until it is acknowledged, as a careful sender does; so in the
end everything that was sent is in the ledger, once.
"""

from __future__ import annotations

import collections
import threading
import time
import uuid
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import httpx

from accord_local.demo.client import Urls

SOURCE = "load"
LOAD_THREADS = 2
REQUEST_TIMEOUT_S = 10.0
ACKNOWLEDGED_WITHIN_S = 90.0
RETRY_AFTER_S = 0.05
PACE_S = 0.03
"""A pause of each sender after each lead: the machine's cores are for the services."""

ACKNOWLEDGED = (200, 201, 202)


class Ledger:
    """Everything that was acknowledged, by id. Safe between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.leads: dict[str, str] = {}
        """Lead id → the external id it was sent under."""
        self.activities: dict[str, str] = {}
        """Activity id → lead id."""
        self.decisions: dict[str, str] = {}
        """Lead id → the id of its one decision."""
        self.aside: set[str] = set()
        """Lead ids that a test sent besides the load; they stay in the first stage."""

    def lead(self, lead_id: str, external_id: str) -> None:
        with self._lock:
            assert lead_id not in self.leads, "two external ids were answered with one lead"
            self.leads[lead_id] = external_id

    def activity(self, activity_id: str, lead_id: str) -> None:
        with self._lock:
            assert activity_id not in self.activities, "two activities were answered with one id"
            self.activities[activity_id] = lead_id

    def decision(self, lead_id: str, decision_id: str) -> None:
        with self._lock:
            assert lead_id not in self.decisions
            self.decisions[lead_id] = decision_id

    def counts(self) -> tuple[int, int, int]:
        """Leads, activities, decisions."""
        with self._lock:
            return len(self.leads), len(self.activities), len(self.decisions)

    def leads_after(self, count: int) -> list[str]:
        """The leads but the first `count`, in the order of their acknowledgement."""
        with self._lock:
            return list(self.leads)[count:]


class Load:
    """Senders of leads with an activity each, and one that accepts leads for sales, while the context is open."""

    def __init__(self, urls: Urls, key: str, ledger: Ledger) -> None:
        self._urls = urls
        self._headers = {"Authorization": f"Bearer {key}"}
        self._ledger = ledger
        self._stop = threading.Event()
        self._to_accept: collections.deque[str] = collections.deque()
        self._errors: list[BaseException] = []
        senders = [threading.Thread(target=self._run, args=(self._send,)) for _ in range(LOAD_THREADS)]
        self._threads = [*senders, threading.Thread(target=self._run, args=(self._accept,))]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        if error is None:
            self.check()

    def finish(self) -> None:
        """Send nothing new, let what is under way be acknowledged, and raise what a sender raised."""
        self._end()
        self.check()

    def check(self) -> None:
        """Raise what a sender raised so far."""
        if self._errors:
            raise self._errors[0]

    def _end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(2 * ACKNOWLEDGED_WITHIN_S)
        assert not any(thread.is_alive() for thread in self._threads), "a sender hangs"

    def _run(self, work: Any) -> None:
        try:
            with httpx.Client(headers=self._headers, timeout=REQUEST_TIMEOUT_S, trust_env=False) as client:
                work(client)
        except BaseException as error:  # noqa: BLE001 - raised again by __exit__ and check
            self._errors.append(error)
            self._stop.set()

    def _send(self, client: httpx.Client) -> None:
        while not self._stop.is_set():
            external_id = new_id()
            submission = {"source": SOURCE, "external_id": external_id, "email": f"{external_id}@initech.example.com"}
            lead_id = acknowledged(client, f"{self._urls.intake}/v1/leads", submission)["lead_id"]
            self._ledger.lead(lead_id, external_id)
            self._ledger.activity(*self._act(client, lead_id, "page.viewed"))
            self._ledger.activity(*self._act(client, lead_id, "demo.requested"))
            self._to_accept.append(lead_id)
            self._stop.wait(PACE_S)

    def _act(self, client: httpx.Client, lead_id: str, kind: str) -> tuple[str, str]:
        activity = {"lead_id": lead_id, "kind": kind, "by": "lead"}
        answer = acknowledged(client, f"{self._urls.intake}/v1/activities", activity)
        return answer["activity_id"], answer["lead_id"]

    def _accept(self, client: httpx.Client) -> None:
        """Accept every second lead, once it has come so far."""
        for lead_id in self._every_second():
            url = f"{self._urls.qualification}/v1/leads/{lead_id}/decisions"
            answer = acknowledged(client, url, {"decision": "accept"}, refused_until_later=(404, 409), stop=self._stop)
            if answer is not None:
                self._ledger.decision(lead_id, answer["decision_id"])

    def _every_second(self) -> Iterator[str]:
        while not self._stop.wait(RETRY_AFTER_S):
            if len(self._to_accept) >= 2:
                self._to_accept.popleft()
                yield self._to_accept.popleft()


def new_id() -> str:
    """An id that no other system gave to anybody."""
    return uuid.uuid4().hex


def acknowledged(
    client: httpx.Client,
    url: str,
    body: object,
    *,
    refused_until_later: tuple[int, ...] = (),
    stop: threading.Event | None = None,
) -> Any:
    """The answer to a POST, repeated under one key until it is acknowledged.

    A status of `refused_until_later` says that nothing was done: it is tried anew, or given up (None) once `stop` is set.
    """
    deadline_s = time.monotonic() + ACKNOWLEDGED_WITHIN_S
    key = str(uuid.uuid4())
    last = "nothing"
    while time.monotonic() < deadline_s:
        try:
            answer = client.post(url, json=body, headers={"Idempotency-Key": key})
        except httpx.TransportError as error:
            last = type(error).__name__
        else:
            if answer.status_code in ACKNOWLEDGED:
                return answer.json()
            last = f"{answer.status_code} {answer.text[:300]}"
            in_flight = answer.status_code == httpx.codes.CONFLICT and "in-flight" in answer.json()["type"]
            if answer.status_code in refused_until_later and not in_flight:
                if stop is not None and stop.is_set():
                    return None
                key = str(uuid.uuid4())
            else:
                assert in_flight or answer.status_code in (429, 503), f"{url}: {last}"
        time.sleep(RETRY_AFTER_S)
    raise AssertionError(f"{url} was not acknowledged in {ACKNOWLEDGED_WITHIN_S:.0f} s; last: {last}")
