"""Admission: what of a request is looked at before any work is done for it. Pure ASGI; it knows no route but the paths whose bodies are
read in another way."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from accord.http.bodies import Bodies, BodyReader
from accord.http.limits import send_problem
from accord.http.problems import malformed_request, overloaded
from accord.metric_names import HTTP_REFUSED

_PROBES = frozenset({"/livez", "/readyz", "/metrics"})
_DIGITS_MAX = 18
_NEVER = 10**18
"""A size that no limit allows."""
BODY = "accord.body"
"""Member of an ASGI scope: the BodyReader of a request that has a body."""


class Admission:
    """So many requests are worked on at once; one more is 503 before anything of it is read. Probes pass. A NUL character in the path or
    the query is 400, since PostgreSQL holds none. A body is left to a BodyReader."""

    def __init__(self, app: ASGIApp, bodies: Bodies) -> None:
        self._app = app
        self._bodies = bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _PROBES:
            await self._app(scope, receive, send)
            return
        bodies = self._bodies
        reader = _reader(scope, receive, bodies)
        if bodies.in_flight >= bodies.requests_max:
            HTTP_REFUSED.labels("overload").inc()
            await send_problem(overloaded(), scope, receive, send)
            return
        if b"%00" in scope["query_string"] or "\x00" in scope["path"]:
            problem = malformed_request("A NUL character is in the path or the query.")
            await send_problem(problem, scope, receive, send)
            return
        bodies.in_flight += 1
        try:
            await self._app(scope, receive if reader is None else reader, send)
        finally:
            bodies.in_flight -= 1
            if reader is not None:
                reader.release()


def _reader(scope: Scope, receive: Receive, bodies: Bodies) -> BodyReader | None:
    """The reader of the body, if there is one."""
    has_body, expects = False, False
    declared_bytes: int | None = None
    for name, value in scope["headers"]:
        if name == b"content-length":
            declared_bytes = int(value) if value.isdigit() and len(value) <= _DIGITS_MAX else _NEVER
            has_body = has_body or declared_bytes > 0
        elif name == b"transfer-encoding":
            has_body = True
        elif name == b"expect":
            expects = True
    if not has_body:
        return None
    reader = BodyReader(scope, receive, declared_bytes or None, expects, bodies)
    scope[BODY] = reader
    return reader
