"""GET|OPTIONS|POST /v1/hooks/{source}: what marketing tools send, each with its own verification. Plain endpoints, since signatures cover
the raw bytes; no path or query with a secret in it is ever handed on to a log, a metric or a trace.
"""

from __future__ import annotations

from urllib.parse import parse_qsl

import orjson
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from accord.http.auth import authorize
from accord.http.openapi import operation
from accord.http.problems import Problem, malformed, not_found
from intake.hooks.service.receive import HookReceiver, Outcome
from intake.leads.api import LEFT_OUT, LeftOutOut, encode_findings
from intake.sources.domain.adapters import ADAPTERS
from intake.sources.domain.adapters.base import HookRequest
from intake.sources.domain.adapters.segment import CALLS

PREFIX = "/v1/hooks/"
_QUERY_FIELDS_MAX = 50


class HookOutcome(BaseModel):
    """What became of one event."""

    event_id: str
    outcome: str = Field(
        description=(
            "created, updated, merged, rejected (by the data policy), recorded (an activity), waiting (for a record to be fetched, a"
            " lead to come, an erasure), failed (it could not be processed; see `/v1/sources/{name}/events`), ignored or replayed."
        )
    )
    lead_id: str | None = None
    submission_id: str | None = None
    verdict: str | None = None
    reason: str | None = None
    left_out: list[LeftOutOut] = Field(default=[], description=LEFT_OUT)


class HookOut(BaseModel):
    """One outcome for each event of the body, in order. All of it is saved."""

    results: list[HookOutcome]


class HookRoutes:
    """The endpoints. `public_base_url`: scheme and host under which tools know this service, None: what each request says."""

    def __init__(self, hooks: HookReceiver, public_base_url: str | None) -> None:
        self._hooks = hooks
        self._public_base_url = public_base_url

    async def handshake(self, request: Request) -> Response:
        """GET or OPTIONS: a tool's handshake."""
        return await self._handshake(request)

    async def handshake_by_path(self, request: Request) -> Response:
        """The same with the secret in the path. Endpoints tell routes apart in metrics, so there is one for each."""
        return await self._handshake(request)

    async def receive(self, request: Request) -> Response:
        """POST: a tool's events."""
        return await self._receive(request)

    async def receive_by_path(self, request: Request) -> Response:
        """The same with the secret in the path."""
        return await self._receive(request)

    async def receive_call(self, request: Request) -> Response:
        """POST to a method of a tool's own API: what its SDKs send."""
        prepared = await self._hooks.get_source(request.path_params["source"])
        if prepared.adapter is None or request.path_params["call"] not in prepared.adapter.calls:
            raise not_found("method")
        return await self._receive(request)

    async def _handshake(self, request: Request) -> Response:
        prepared = await self._hooks.get_source(request.path_params["source"])
        answer = self._hooks.handshake(prepared, self._build_request(request, b"", prepared.settings))
        headers = {"cache-control": "no-store", **answer.headers}
        return Response(answer.body, answer.status, headers, media_type=answer.media_type)

    async def _receive(self, request: Request) -> Response:
        prepared = await self._hooks.get_source(request.path_params["source"])
        body = await request.body()
        has_api_key = "bearer" in (prepared.adapter.secret_kinds if prepared.adapter else ()) and await _has_api_key(
            request
        )
        said = self._build_request(request, body, prepared.settings, has_api_key=has_api_key)
        self._hooks.verify(prepared, said)
        outcomes = await self._hooks.ingest(prepared, said)
        return Response(_encode_outcomes(outcomes), media_type="application/json")

    def _build_request(
        self, request: Request, body: bytes, settings: object, *, has_api_key: bool = False
    ) -> HookRequest:
        scope = request.scope
        headers: dict[str, str] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))
        raw_query: bytes = scope["query_string"]
        try:
            pairs = parse_qsl(
                raw_query.decode("latin-1"), keep_blank_values=True, max_num_fields=_QUERY_FIELDS_MAX, errors="replace"
            )
        except ValueError:
            raise malformed("The query has too many fields.") from None
        query: dict[str, str] = {}
        for key, text in pairs:
            query.setdefault(key, text)
        raw_path: bytes = scope.get("raw_path") or scope["path"].encode()
        path = raw_path.partition(b"?")[0].decode("latin-1") + ("?" + raw_query.decode("latin-1") if raw_query else "")
        base = getattr(settings, "public_base_url", None) or self._public_base_url
        if base is None:
            base = f"{scope.get('scheme', 'http')}://{headers.get('host', '')}"
        return HookRequest(
            method=request.method,
            url=base + path,
            query=query,
            headers=headers,
            body=body,
            path_secret=request.path_params.get("secret"),
            has_api_key=has_api_key,
            call=request.path_params.get("call"),
        )


async def _has_api_key(request: Request) -> bool:
    """Whether the request bears a key of Accord that may write leads. It may just as well bear the source's own token."""
    if "authorization" not in request.headers:
        return False
    try:
        await authorize(request, "leads:write")
    except Problem as problem:
        if problem.status in (401, 403):
            return False
        raise
    return True


def _encode_outcomes(outcomes: list[Outcome]) -> bytes:
    results = [
        {
            name: value
            for name, value in (
                ("event_id", one.event_id),
                ("outcome", one.outcome),
                ("lead_id", one.lead_id),
                ("submission_id", one.submission_id),
                ("verdict", one.verdict),
                ("reason", one.reason),
                ("left_out", encode_findings(one.left_out)),
            )
            if value
        }
        for one in outcomes
    ]
    return orjson.dumps({"results": results})


def hook_routes(hooks: HookReceiver, public_base_url: str | None = None) -> list[BaseRoute]:
    """The routes, with the source alone and with its URL secret behind it."""
    routes = HookRoutes(hooks, public_base_url)
    return [
        Route(PREFIX + "{source}", routes.handshake, methods=["GET", "OPTIONS"]),
        Route(PREFIX + "{source}", routes.receive, methods=["POST"]),
        Route(PREFIX + "{source}/{secret}", routes.handshake_by_path, methods=["GET"]),
        Route(PREFIX + "{source}/{secret}", routes.receive_by_path, methods=["POST"]),
        Route(PREFIX + "{source}/v1/{call}", routes.receive_call, methods=["POST"]),
    ]


_SOURCE_PARAMETER = {
    "name": "source",
    "in": "path",
    "required": True,
    "description": "The configured source.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 100},
}
_SECRET_PARAMETER = {
    "name": "secret",
    "in": "path",
    "required": True,
    "description": "The source's URL secret, for tools that can send neither a signature nor a header.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 2_000},
}
_EVENT = {
    "schema": {},
    "examples": {"standard-webhooks": {"value": {"type": "contact.created", "data": {"email": "ada@initech.example"}}}},
}
_OUT_EXAMPLE = {
    "results": [
        {
            "event_id": "msg_2b1",
            "outcome": "created",
            "lead_id": "019f3b1e-7a52-7c31-9a55-8a4f3c1d2e10",
            "submission_id": "019f3b1e-7a52-7c31-9a55-8a4f3c1d2e11",
            "verdict": "accepted",
        }
    ]
}


def _documented(parameters: list[dict[str, object]], suffix: str) -> dict[str, dict[str, object]]:
    handshake = operation(
        "Answer a tool's handshake",
        description=(
            "Mailchimp looks whether the URL answers, Meta sends `hub.challenge`, LinkedIn a `challengeCode`. Other tools have no"
            " handshake (405)."
        ),
        tags=["hooks"],
        operation_id=f"hook_handshake{suffix}",
        parameters=parameters,
        problems=(401, 404, 405, 409),
    )
    handshake["responses"]["200"] = {
        "description": "What the tool wants to read.",
        "content": {"text/plain": {"schema": {"type": "string"}}, "application/json": {"schema": {"type": "object"}}},
    }
    receive = operation(
        "Receive a tool's events",
        description=(
            f"What {', '.join(adapter.title for adapter in ADAPTERS.values())} send, verified by the source's own secrets over the raw"
            " bytes. 200 once all of it is saved; an event that could not be processed is stored as failed. An event that comes"
            " again is replayed. Wrong, missing or stale signatures and secrets are 401, with the reason in `reason`."
        ),
        tags=["hooks"],
        operation_id=f"receive_hook{suffix}",
        parameters=parameters,
        answers={200: HookOut},
        answer_examples={200: _OUT_EXAMPLE},
        problems=(400, 401, 404, 409, 413, 415, 503),
    )
    receive["requestBody"] = {
        "required": True,
        "content": dict.fromkeys(("application/json", "application/x-www-form-urlencoded"), _EVENT),
    }
    for fragment in (handshake, receive):
        fragment["security"] = []
    return {"get": handshake, "post": receive}


_OPTIONS = operation(
    "Say whether CloudEvents may be sent",
    description=(
        "The abuse protection of CloudEvents' HTTP 1.1 Web Hooks: who asks with `WebHook-Request-Origin` is answered with"
        " `WebHook-Allowed-Origin` and `WebHook-Allowed-Rate`. Other tools have no such handshake (405)."
    ),
    tags=["hooks"],
    operation_id="hook_options",
    parameters=[_SOURCE_PARAMETER],
    problems=(404, 405, 409),
)
_OPTIONS["responses"]["200"] = {"description": "The sender may send if it is allowed in the headers."}
_OPTIONS["security"] = []


_CALL_PARAMETER = {
    "name": "call",
    "in": "path",
    "required": True,
    "description": "The method that the SDK calls.",
    "schema": {"type": "string", "enum": sorted(CALLS)},
}
_CALL = {
    **operation(
        "Receive what SDKs of Segment and RudderStack send",
        description=(
            "Their HTTP tracking API below the address of a source of Segment, with the source's write key as Basic user name."
            " Bodies may be gzip. The answer is that of `receive_hook`."
        ),
        tags=["hooks"],
        operation_id="receive_sdk_call",
        parameters=[_SOURCE_PARAMETER, _CALL_PARAMETER],
        answers={200: HookOut},
        answer_examples={200: _OUT_EXAMPLE},
        problems=(400, 401, 404, 409, 413, 415, 503),
    ),
    "requestBody": {"required": True, "content": {"application/json": {"schema": {}}}},
    "security": [],
}
HOOKS_OPENAPI = {
    PREFIX + "{source}": {**_documented([_SOURCE_PARAMETER], ""), "options": _OPTIONS},
    PREFIX + "{source}/{secret}": _documented([_SOURCE_PARAMETER, _SECRET_PARAMETER], "_by_path"),
    PREFIX + "{source}/v1/{call}": {"post": _CALL},
}
