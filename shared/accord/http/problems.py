"""Errors as `application/problem+json` (RFC 9457). A problem names the place of an error, never the value that was sent there."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import TypeVar

import orjson
import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from accord.batching import Overloaded
from accord.db import CommitOutcomeUnknown, is_transient
from accord.http.routes import find_methods
from accord.telemetry import describe
from accord.terms import findings
from accord.terms.findings import document_path

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"
TYPE_BASE = "/problems/"
_ERRORS_MAX = 50
_POINTER_CHARS_MAX = 300
_MESSAGE_CHARS_MAX = 300

T = TypeVar("T")

ErrorItem = Mapping[str, str]
"""`{"pointer", "message"}` for a place in the body, `{"parameter", "message"}` for the query, path or a header."""


class ErrorDetail(BaseModel):
    """One place that is wrong; for OpenAPI."""

    pointer: str | None = Field(default=None, description="JSON Pointer (RFC 6901) into the body.")
    parameter: str | None = Field(default=None, description="Name of the query, path or header parameter.")
    message: str


class ProblemDocument(BaseModel):
    """RFC 9457 problem details; for OpenAPI."""

    type: str = Field(description="A stable name of this kind of problem.", examples=["/problems/validation-failed"])
    title: str
    status: int
    detail: str | None = None
    errors: list[ErrorDetail] | None = None
    request_id: str | None = Field(default=None, description="The same as in the header X-Request-Id.")


class Problem(HTTPException):
    """An error answer. `type` is the slug after `/problems/`; `extra` members appear beside the standard ones."""

    def __init__(
        self,
        status: int,
        type: str | None = None,  # noqa: A002 - the member's name in RFC 9457
        title: str | None = None,
        detail: str | None = None,
        *,
        errors: Sequence[ErrorItem] = (),
        headers: Mapping[str, str] | None = None,
        **extra: object,
    ) -> None:
        phrase = _phrase(status)
        self.type = TYPE_BASE + (type or _slug(phrase)).removeprefix(TYPE_BASE)
        self.title = title or phrase
        self.errors = list(errors)[:_ERRORS_MAX]
        self.extra = extra
        self.text = detail
        super().__init__(status, detail or self.title, dict(headers) if headers else None)

    @property
    def status(self) -> int:
        return self.status_code

    def document(self, request_id: str | None = None) -> dict[str, object]:
        """The members of the problem document, without those that are empty."""
        document: dict[str, object] = {"type": self.type, "title": self.title, "status": self.status_code}
        if self.text:
            document["detail"] = self.text
        if self.errors:
            document["errors"] = self.errors
        document.update(self.extra)
        if request_id:
            document["request_id"] = request_id
        return document

    def response(self, request_id: str | None = None) -> Response:
        body = orjson.dumps(self.document(request_id), default=str, option=orjson.OPT_NON_STR_KEYS)
        return Response(body, self.status_code, headers=self.headers, media_type=MEDIA_TYPE)


def validation_error(detail: str, *errors: ErrorItem) -> Problem:
    """422 for a well-formed request that is wrong in these places."""
    return Problem(422, "validation-failed", "Validation failed", detail, errors=errors)


def validation_error_at(place: str, message: str) -> Problem:
    """422 for one place in the body, a JSON Pointer."""
    return validation_error(f"{place}: {message}.", {"pointer": place, "message": message})


def parameter_error(name: str, message: str) -> Problem:
    """422 for one parameter of the query, the path or a header."""
    return validation_error(f"{name} {message}.", {"parameter": name, "message": message})


def not_found(what: str) -> Problem:
    """404 for a resource, named by its kind: `not_found("lead")`."""
    return Problem(404, "not-found", f"No such {what}", f"There is no {what} with this name or id.")


def gone(what: str) -> Problem:
    """410 for a thing that was erased, named by its kind: `gone("lead")`."""
    return Problem(410, "gone", "Erased", f"The {what} with this id was erased, and nothing of it is kept.")


def overloaded(
    retry_after_s: float | None = None,
    detail: str = "The service has as much work as it can take, and nothing was done. Try again.",
) -> Problem:
    """503 before anything was done, with `Retry-After`."""
    return Problem(503, "overloaded", "Overloaded", detail, headers=_retry_after(retry_after_s))


def outcome_unknown() -> Problem:
    """503 for a change whose COMMIT was not answered."""
    return Problem(
        503,
        "outcome-unknown",
        "Outcome unknown",
        "The database went away while the change was being saved, so it may be saved or not. Send the same request with the same"
        " Idempotency-Key: it is done once, and its answer is given.",
        headers=_retry_after(None),
    )


def _retry_after(about_s: float | None) -> dict[str, str]:
    """Whole seconds, jittered: who is sent away at one moment must not come back at one moment."""
    seconds = (1.5 if about_s is None else about_s) * random.uniform(0.5, 1.5)  # noqa: S311 - jitter, not a secret
    return {"Retry-After": str(max(1, math.ceil(seconds)))}


def pointer(parts: Iterable[str | int]) -> str:
    """The JSON Pointer (RFC 6901) of a path, bounded."""
    return findings.pointer(*parts)[:_POINTER_CHARS_MAX].encode("utf-8", "replace").decode()


def validation_problem(errors: Sequence[Mapping[str, object]], body: object = None) -> Problem:
    """422 for pydantic's errors whose `loc` begins with `body`, `query`, `path`, `header` or `cookie`; 400 for malformed JSON."""
    if any(error.get("type") == "json_invalid" for error in errors):
        return malformed("The body is not well-formed JSON.")
    items = [_item(error, body) for error in errors[:_ERRORS_MAX]]
    return validation_error(_summary(items), *items)


def malformed(detail: str) -> Problem:
    return Problem(400, "malformed-body", "Malformed body", detail)


def malformed_request(detail: str) -> Problem:
    """400 for what is wrong with a request beside its body, or with a body that ends before its end."""
    return Problem(400, "malformed-request", "Malformed request", detail)


def too_slow(what: str) -> Problem:
    """408 for a client that stalls, or sends more slowly than it may."""
    return Problem(
        408,
        "request-timeout",
        "Request timeout",
        f"{what} did not come in time. Nothing was done.",
        headers={"Connection": "close"},
    )


def from_validation_error(error: ValidationError, body: object = None) -> Problem:
    """The problem for an error of `TypeAdapter.validate_json` or `validate_python` on a whole body. Pass the parsed body if at
    hand: then the labels that pydantic puts into the places of unions are left out of the pointers."""
    found = error.errors(include_url=False, include_context=False)
    return validation_problem([{**item, "loc": ("body", *item["loc"])} for item in found], body)


def parse_body(adapter: TypeAdapter[T], body: bytes) -> T:
    """The value in a JSON body, for plain routes. Raises Problem 400 or 422."""
    try:
        return adapter.validate_json(body)
    except ValidationError as error:
        try:
            parsed: object = orjson.loads(body)
        except orjson.JSONDecodeError:
            parsed = None
        raise from_validation_error(error, parsed) from None


def _item(error: Mapping[str, object], body: object) -> dict[str, str]:
    loc = error.get("loc")
    place, *rest = loc if isinstance(loc, (tuple, list)) and loc else ("body",)
    message = _message(error)
    if place == "body":
        return {
            "pointer": pointer(document_path(body, rest, missing=error.get("type") == "missing")),
            "message": message,
        }
    return {"parameter": str(rest[0]) if rest else str(place), "message": message}


def _message(error: Mapping[str, object]) -> str:
    message = str(error.get("msg", "is not valid"))
    sent = error.get("input")
    if isinstance(sent, str) and len(sent) >= 4 and sent in message:
        return "The value is not valid"
    return message.removeprefix("Value error, ")[:_MESSAGE_CHARS_MAX]


def _summary(items: Sequence[ErrorItem]) -> str:
    return "1 place is wrong; see errors." if len(items) == 1 else f"{len(items)} places are wrong; see errors."


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def _slug(phrase: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in phrase.lower())


def to_problem(error: BaseException) -> Problem | None:
    """The problem that an exception stands for, or None if it is a defect of ours."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, HTTPException):
        return _of_http(error)
    if isinstance(error, Overloaded):
        return overloaded(error.retry_after_s)
    if isinstance(error, CommitOutcomeUnknown):
        return outcome_unknown()
    if is_transient(error):
        # A request may have committed before this; so nothing is said of what was done.
        return overloaded(
            detail="Something that is needed does not answer at the moment. Try again, with the same Idempotency-Key."
        )
    return _of_database(error) if isinstance(error, DBAPIError) else None


def _of_http(error: HTTPException) -> Problem:
    details = {
        404: "There is nothing at this path.",
        405: "This path does not allow this method.",
        400: "The request cannot be read.",
    }
    return Problem(error.status_code, None, None, details.get(error.status_code), headers=error.headers)


def _of_database(error: DBAPIError) -> Problem | None:
    state = getattr(getattr(error, "orig", None), "sqlstate", None) or ""
    if state.startswith("22"):  # data exception: out of range, untranslatable character, ...
        return Problem(
            422, "value-not-storable", "Value not storable", "A value is out of the range that can be stored."
        )
    return None


def request_id_of(request: Request) -> str | None:
    found = request.scope.get("accord.request_id")
    return found if isinstance(found, str) else None


async def _answer(request: Request, error: Exception) -> Response:
    problem = to_problem(error)
    if problem is None:
        raise error
    if problem.status_code == 405 and not isinstance(error, Problem):  # of the router, not of a route
        problem.headers = {"Allow": ", ".join(find_methods(request.app, request.url.path))}
    if problem.status_code >= 500:
        log.warning("request_unavailable", problem=problem.type, error=describe(error))
    return problem.response(request_id_of(request))


async def _answer_validation(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    if isinstance(error.body, bytes) and not _is_json(request):
        return unsupported_media_type("application/json").response(request_id_of(request))
    return validation_problem(error.errors(), error.body).response(request_id_of(request))


def unsupported_media_type(*accepted: str) -> Problem:
    """415, naming what would be accepted."""
    return Problem(
        415,
        "unsupported-media-type",
        "Unsupported media type",
        f"Send the body as {' or '.join(accepted)}.",
        headers={"Accept-Post": ", ".join(accepted)},
    )


def media_type_of(request: Request) -> str:
    """The body's media type in lower case, without parameters; empty if there is none."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def require_json(request: Request) -> None:
    """For plain routes: raises Problem 415 unless the body is declared to be JSON."""
    if not _is_json(request):
        raise unsupported_media_type("application/json")


def _is_json(request: Request) -> bool:
    media = media_type_of(request)
    return media == "application/json" or (media.startswith("application/") and media.endswith("+json"))


def install(app: FastAPI) -> None:
    """Answer every expected exception of this app with a problem document. The unexpected are accord.http.context's."""
    for kind in (Problem, HTTPException, Overloaded, CommitOutcomeUnknown, DBAPIError, PoolTimeoutError):
        app.add_exception_handler(kind, _answer)
    app.add_exception_handler(RequestValidationError, _answer_validation)
