"""The rate of a key, and how a problem is answered from outside the app."""

from __future__ import annotations

import math
import time
from collections import OrderedDict

from msgspec import Struct
from starlette.types import Receive, Scope, Send

from accord.http.problems import Problem

_BUCKETS_MAX = 50_000


async def send_problem(problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with a problem from outside the app."""
    request_id = scope.get("accord.request_id")
    await problem.response(request_id)(scope, receive, send)


class RateLimitResult(Struct, frozen=True):
    """The outcome of one request against a key's rate. `retry_after_s` is 0 if it was allowed."""

    allowed: bool
    retry_after_s: int
    headers: tuple[tuple[bytes, bytes], ...]


class TokenBuckets:
    """A token bucket for each key: `rate_per_s` refilled, `burst` at most. Least recently used buckets go first when there are too many."""

    def __init__(self, rate_per_s: float, burst: int | None = None) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst if burst is not None else max(1, math.ceil(rate_per_s * 2))
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        window_s = max(1, math.ceil(self._burst / rate_per_s))
        self._policy = (b"ratelimit-policy", f'"key";q={self._burst};w={window_s}'.encode())

    def take(self, key: str, now_s: float | None = None) -> RateLimitResult:
        """Take one token of this key's bucket. Headers: draft-ietf-httpapi-ratelimit-headers."""
        now = time.monotonic() if now_s is None else now_s
        tokens, at = self._buckets.pop(key, (float(self._burst), now))
        tokens = min(self._burst, tokens + (now - at) * self._rate_per_s)
        allowed = tokens >= 1
        if allowed:
            tokens -= 1
        self._buckets[key] = (tokens, now)
        if len(self._buckets) > _BUCKETS_MAX:
            self._buckets.popitem(last=False)
        wait_s = 0 if allowed else max(1, math.ceil((1 - tokens) / self._rate_per_s))
        full_s = math.ceil((self._burst - tokens) / self._rate_per_s)
        rest = (b"ratelimit", f'"key";r={int(tokens)};t={wait_s or full_s}'.encode())
        return RateLimitResult(allowed, wait_s, (self._policy, rest))
