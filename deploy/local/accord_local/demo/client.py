"""A small HTTP client of the four services, with one key. Every wait and retry has a bound."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

import httpx

T = TypeVar("T")
REQUEST_TIMEOUT_S = 30.0
BUSY_RETRIES_MAX = 20


class UnexpectedAnswer(RuntimeError):
    """A service answered what the demo did not ask for."""


@dataclass(frozen=True)
class Urls:
    """Where the four services listen."""

    intake: str
    qualification: str
    sla_monitor: str
    metrics: str


class Client:
    """One caller. `get` and `post` raise UnexpectedAnswer on any status that was not expected."""

    def __init__(self, key: str) -> None:
        self._http = httpx.Client(timeout=REQUEST_TIMEOUT_S, headers={"Authorization": f"Bearer {key}"})

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def get(self, url: str, *, expect: tuple[int, ...] = (200,), **params: str | int) -> Any:
        return self._send("GET", url, expect, params=params)

    def post(
        self,
        url: str,
        body: object = None,
        *,
        expect: tuple[int, ...] = (200, 201, 202),
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        return self._send("POST", url, expect, json=body, content=content, headers=headers)

    def put(self, url: str, body: object, *, expect: tuple[int, ...] = (200, 201)) -> Any:
        return self._send("PUT", url, expect, json=body)

    def _send(self, method: str, url: str, expect: tuple[int, ...], **request: Any) -> Any:
        for _ in range(BUSY_RETRIES_MAX):
            answer = self._http.request(method, url, **request)
            if answer.status_code not in (429, 503):
                break
            time.sleep(float(answer.headers.get("Retry-After", "1")))
        if answer.status_code not in expect:
            raise UnexpectedAnswer(f"{method} {url} answered {answer.status_code}: {answer.text[:500]}")
        return answer.json() if answer.content else None


def wait_for(what: str, poll: Callable[[], T | None], *, timeout_s: float = 60.0, every_s: float = 0.2) -> T:
    """What `look` returns once it is not None. Raises UnexpectedAnswer when that takes too long."""
    deadline = time.monotonic() + timeout_s
    while (found := poll()) is None:
        if time.monotonic() > deadline:
            raise UnexpectedAnswer(f"waited {timeout_s:.0f} s for {what}")
        time.sleep(every_s)
    return found
