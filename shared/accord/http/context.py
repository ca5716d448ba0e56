"""The outermost layer of an app: request id, trace context, one log line and the metrics of each request, and the answer to
what nobody expected: 500 with the request id and nothing else. Pure ASGI; it logs no body, query or header."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterable, Mapping

import structlog
from prometheus_client import Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars, reset_contextvars
from uuid_utils import uuid7

from accord.http.admission import BODY
from accord.http.limits import send_problem
from accord.http.problems import Problem, to_problem
from accord.metric_names import HTTP_REQUESTS, HTTP_SECONDS
from accord.telemetry import describe, span_of_request

log = structlog.get_logger("accord.http")
_stdlib_log = logging.getLogger("accord.http")

_REQUEST_ID = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")
_QUIET = frozenset({"/livez", "/readyz", "/metrics"})


class RequestContext:
    """Wraps the whole app. `routes` maps endpoints to their path templates, for labels of bounded number."""

    def __init__(self, app: ASGIApp, routes: Mapping[object, str], slow_s: float = 1.0) -> None:
        self._app = app
        self._routes = routes
        self._slow_s = slow_s
        self._metrics: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        """Those of each method, route and status: to find them by their labels costs more than to count."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope["accord.request_id"] = request_id
        answer = _ResponseSender(scope, send, request_id)
        began = time.perf_counter()
        with span_of_request(scope) as trace_id:
            bound = bind_contextvars(request_id=request_id, trace_id=trace_id)
            try:
                await self._app(scope, receive, answer)
            except Exception as error:
                if answer.status is not None:
                    log.exception("response_aborted")
                    raise
                problem = to_problem(error)
                if problem is None:
                    log.exception("request_failed")
                    problem = Problem(500, "internal", "Internal error", "It is logged under the request id.")
                else:
                    log.warning("request_unavailable", problem=problem.type, error=describe(error))
                await send_problem(problem, scope, receive, answer)
            finally:
                self._record_request(scope, answer.status or 499, time.perf_counter() - began)
                reset_contextvars(**bound)

    def _record_request(self, scope: Scope, status: int, seconds: float) -> None:
        route = self._template(scope)
        method = scope["method"] if scope["method"] in _METHODS else "other"
        metrics = self._metrics.get((method, route, status))
        if metrics is None:
            metrics = HTTP_REQUESTS.labels(method, route, status), HTTP_SECONDS.labels(method, route)
            self._metrics[method, route, status] = metrics
        metrics[0].inc()
        metrics[1].observe(seconds)
        if scope["path"] in _QUIET:
            return
        worth_it = status >= 500 or seconds > self._slow_s
        if not worth_it and not _stdlib_log.isEnabledFor(logging.DEBUG):
            return
        line = log.warning if worth_it else log.debug
        line(
            "request",
            method=method,
            route=route,
            status=status,
            duration_ms=round(seconds * 1000, 2),
            caller=getattr(scope.get("accord.caller"), "name", None),
        )

    def _template(self, scope: Scope) -> str:
        template = self._routes.get(scope.get("endpoint"))
        if template is None:
            template = getattr(scope.get("route"), "path", None)
        return template or "none"


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class _ResponseSender:
    """Notes the status and adds the headers that every answer has."""

    __slots__ = ("_request_id", "_scope", "_send", "status")

    def __init__(self, scope: Scope, send: Send, request_id: str) -> None:
        self._scope = scope
        self._send = send
        self._request_id = request_id.encode()
        self.status: int | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [*message.get("headers", ()), (b"x-request-id", self._request_id)]
            headers.append((b"x-content-type-options", b"nosniff"))
            headers.extend(self._scope.get("accord.rate", ()))
            body = self._scope.get(BODY)
            if body is not None and not body.is_complete and body.leaves_bytes() and not _asks_to_close(headers):
                headers.append((b"connection", b"close"))
            message = {**message, "headers": headers}
        await self._send(message)


def _asks_to_close(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    return any(name.lower() == b"connection" for name, _ in headers)


def _request_id(scope: Scope) -> str:
    """The caller's X-Request-Id if it is short and plain, else a new UUIDv7."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return str(value, "ascii")
    return str(uuid7())
