"""What OpenAPI says beyond the routes' own models: problem answers, scopes, and plain routes. It changes no behaviour."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, cast

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import TypeAdapter
from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from accord.http.auth import required_scopes
from accord.http.problems import MEDIA_TYPE, ProblemDocument
from accord.http.routes import iterate_routes

_REF = "#/components/schemas/{model}"
_METHODS = ("get", "put", "post", "delete", "patch", "head", "options")

Fragment = dict[str, Any]

_DESCRIPTIONS: dict[str, tuple[str, str, str]] = {
    "400": ("BadRequest", "The body or the request cannot be read.", "malformed-body"),
    "401": ("Unauthenticated", "No key or token, or an unknown one.", "unauthenticated"),
    "403": ("Forbidden", "The key lacks the scope, named in `missing_scope`.", "forbidden"),
    "404": ("NotFound", "There is no such resource.", "not-found"),
    "405": ("MethodNotAllowed", "This path does not allow this method.", "method-not-allowed"),
    "408": (
        "RequestTimeout",
        "The body stalls, or comes more slowly than it may. Nothing was done, and the connection is closed.",
        "request-timeout",
    ),
    "409": (
        "Conflict",
        "It is not possible in the present state, or a request with this Idempotency-Key is in progress.",
        "conflict",
    ),
    "410": ("Gone", "The person was erased.", "gone"),
    "412": ("PreconditionFailed", "The resource has changed since the ETag in If-Match.", "precondition-failed"),
    "413": ("BodyTooLarge", "The body is over the limit, named in `bytes_max`.", "body-too-large"),
    "415": (
        "UnsupportedMediaType",
        "The body is of a type that is not accepted; `Accept-Post` names those that are.",
        "unsupported-media-type",
    ),
    "422": ("ValidationFailed", "The request does not fit; each place is in `errors`.", "validation-failed"),
    "428": ("PreconditionRequired", "Send the ETag that the change is based on in If-Match.", "precondition-required"),
    "429": (
        "TooManyRequests",
        "The rate of this key is used up; see `Retry-After` and `RateLimit`.",
        "too-many-requests",
    ),
    "500": ("Internal", "Something unexpected; it is logged under the request id.", "internal"),
    "503": (
        "Overloaded",
        (
            "`overloaded`: more work than can be taken (nothing was done), or the database is away. `outcome-unknown`: the database"
            " went away while the change was being saved, so it may be saved or not; the same request with the same Idempotency-Key"
            " is done once and gives the answer. See `Retry-After`."
        ),
        "overloaded",
    ),
}


def operation(
    summary: str,
    *,
    scope: str | None = None,
    description: str = "",
    tags: Sequence[str] = (),
    operation_id: str | None = None,
    parameters: Sequence[Mapping[str, object]] = (),
    body: object = None,
    body_examples: Mapping[str, object] | None = None,
    body_media: Sequence[str] = ("application/json",),
    answers: Mapping[int, object] | None = None,
    answer_examples: Mapping[int, object] | None = None,
    problems: Iterable[int] = (),
    idempotent: bool = False,
) -> Fragment:
    """An OpenAPI operation for a plain route. `body` and the values of `answers` are types that pydantic knows (None: no
    body). Their schemas are lifted to the components when the app is made."""
    schemas: dict[str, Any] = {}
    fragment: Fragment = {
        "summary": summary,
        "description": _with_scope(description, scope),
        "security": [{"bearer": []}],
        "x-scope": scope,
        "x-schemas": schemas,
    }
    if tags:
        fragment["tags"] = list(tags)
    if operation_id:
        fragment["operationId"] = operation_id
    fragment["parameters"] = [dict(item) for item in parameters] + ([IDEMPOTENCY_PARAMETER] if idempotent else [])
    if body is not None:
        content: Fragment = {"schema": _schema(body, "validation", schemas)}
        if body_examples:
            content["examples"] = {name: {"value": value} for name, value in body_examples.items()}
        fragment["requestBody"] = {"required": True, "content": dict.fromkeys(body_media, content)}
    fragment["responses"] = {}
    for status, model in (answers or {200: None}).items():
        answer: Fragment = {"description": "Done."}
        if model is not None:
            answer["content"] = {"application/json": {"schema": _schema(model, "serialization", schemas)}}
            if answer_examples and status in answer_examples:
                answer["content"]["application/json"]["example"] = answer_examples[status]
        fragment["responses"][str(status)] = answer
    for status in problems:
        fragment["responses"].setdefault(str(status), problem_ref(status))
    return fragment


IDEMPOTENCY_PARAMETER: Fragment = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Send the same key with a repeated request, and it is done once: the first answer is given again.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
}


def problem_ref(status: int) -> Fragment:
    """The reference to a problem answer in the components."""
    return {"$ref": f"#/components/responses/{_DESCRIPTIONS[str(status)][0]}"}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For a FastAPI route: `responses=problems(404, 409)`. The common ones are added to every route anyway."""
    return {status: problem_ref(status) for status in statuses}


def _schema(model: object, mode: Any, schemas: dict[str, Any]) -> Fragment:
    if isinstance(model, dict):
        return model
    schema = TypeAdapter[Any](cast("Any", model)).json_schema(mode=mode, ref_template=_REF)
    schemas.update(schema.pop("$defs", {}))
    title = schema.get("title")
    if isinstance(model, type) and isinstance(title, str) and "properties" in schema:
        schemas[title] = schema
        return {"$ref": _REF.format(model=title)}
    return schema


def install_openapi(app: FastAPI, plain: Mapping[str, Mapping[str, Fragment]]) -> Callable[[], dict[str, Any]]:
    """The app's `openapi`: made once, complete with plain routes, scopes and problem answers."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _build_document(app, plain)
        return app.openapi_schema

    return openapi


def document_route(app: FastAPI) -> Route:
    """`/openapi.json` from bytes made once: FastAPI writes the document for each request, for some 30 ms."""

    @cache
    def encode() -> bytes:
        return json.dumps(app.openapi(), ensure_ascii=False, separators=(",", ":")).encode()

    async def get_document(_request: Request) -> Response:
        return Response(encode(), media_type="application/json")

    return Route("/openapi.json", get_document)


def _build_document(app: FastAPI, plain: Mapping[str, Mapping[str, Fragment]]) -> dict[str, Any]:
    document = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        routes=app.routes,
        summary=app.summary,
        servers=app.servers,
    )
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    scopes = {
        (route.path_format, method.lower()): scope_of(route.dependant)
        for route in iterate_routes(app)
        if isinstance(route, APIRoute)
        for method in route.methods or ()
    }
    paths = document.setdefault("paths", {})
    for path, item in plain.items():
        for method, found in item.items():
            fragment = dict(found)
            schemas.update(fragment.pop("x-schemas", {}))
            paths.setdefault(path, {})[method] = fragment
    for path, item in paths.items():
        for method in _METHODS:
            if method in item:
                _complete_operation(path, item[method], scopes.get((path, method)))
    _, definitions = models_json_schema([(ProblemDocument, "serialization")], ref_template=_REF)
    schemas.update(definitions["$defs"])
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    components["responses"] = {
        name: _problem_answer(status, words, slug) for status, (name, words, slug) in _DESCRIPTIONS.items()
    }
    components.setdefault("securitySchemes", {})["bearer"] = {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key of Accord, or an access token of the configured issuer.",
    }
    return document


def scope_of(dependant: Dependant) -> str | None:
    """The scope that a route's `require()` asks for."""
    return next((scope for scope in required_scopes(dependant) if scope is not None), None)


def _complete_operation(path: str, found: Fragment, scope: str | None) -> None:
    """Add the problem answers that every route of this shape can give."""
    responses = found.setdefault("responses", {})
    if "application/json" in responses.get("422", {}).get("content", {}):
        del responses["422"]  # FastAPI's own shape, which is never answered
    statuses = [400, 422, 500, 503]
    if found.get("security"):
        statuses += [401, 403, 429]
    if "{" in path:
        statuses.append(404)
    if "requestBody" in found:
        statuses += [408, 413, 415]
    for status in statuses:
        responses.setdefault(str(status), problem_ref(status))
    found["responses"] = dict(sorted(responses.items()))
    if scope is not None:
        found["x-scope"] = scope
        found["description"] = _with_scope(found.get("description", ""), scope)


def _with_scope(description: str, scope: str | None) -> str:
    return (
        f"{description}\n\nNeeds the scope `{scope}`.".strip()
        if scope and f"`{scope}`" not in description
        else description
    )


def _problem_answer(status: str, words: str, slug: str) -> Fragment:
    example = {
        "type": f"/problems/{slug}",
        "title": words,
        "status": int(status),
        "request_id": "0198c0de-0000-7000-8000-000000000001",
    }
    content = {MEDIA_TYPE: {"schema": {"$ref": _REF.format(model="ProblemDocument")}, "example": example}}
    return {"description": words, "content": content}
