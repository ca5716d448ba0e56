"""What the hot routes share: reading a body of one row or many, and answering each row. These are plain endpoints with one
TypeAdapter built once, because FastAPI's own handling of a body would take most of the time of such a request.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import orjson
import structlog
from msgspec.structs import replace
from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from accord.batching import GroupCommit
from accord.db import Database
from accord.http.auth import Caller, authorize
from accord.http.idempotency import IdempotencyRequest, IdempotentResult, read_idempotency_request, reserve
from accord.http.problems import (
    MEDIA_TYPE,
    Problem,
    from_validation_error,
    malformed,
    media_type_of,
    parse_body,
    require_json,
    to_problem,
    unsupported_media_type,
    validation_error,
)
from intake.capture.api.answers import mark_replayed

log = structlog.get_logger(__name__)

Row = TypeVar("Row")
Command = TypeVar("Command")
Result = TypeVar("Result")

ROWS_MAX = 1_000
NDJSON = "application/x-ndjson"


class RowRoutes(Generic[Row, Command, Result]):
    """One endpoint for one row, one for many. `make_command` makes of a row what the use case takes."""

    def __init__(
        self,
        database: Database,
        row_type: type[Row],
        commits: GroupCommit[Command, IdempotentResult[Result]],
        make_command: Callable[[Row, str, Caller, IdempotencyRequest | None], Command],
    ) -> None:
        self._database = database
        self._one: TypeAdapter[Row] = TypeAdapter(row_type)
        self._commits = commits
        self._make_command = make_command

    async def post_one(self, request: Request) -> Response:
        """POST of one row."""
        caller = await authorize(request, "leads:write")
        require_json(request)
        body = await request.body()
        row = parse_body(self._one, body)
        idempotency_request = await read_idempotency_request(request, caller.name, body)
        done = await self._commits.submit(self._make_command(row, body.decode(), caller, idempotency_request))
        return mark_replayed(done.answer).response()

    async def post_many(self, request: Request) -> Response:
        """POST of up to ROWS_MAX rows, as a JSON array or as NDJSON; 200 with one result for each, in order."""
        caller = await authorize(request, "leads:write")
        texts = _split(request, await request.body())
        key = await read_idempotency_request(request, caller.name)
        await reserve(self._database, key)
        parsed = [self._parse(text) for text in texts]
        commands = [
            None
            if isinstance(row, Problem)
            else self._make_command(row, text.decode(), caller, _row_idempotency_request(key, index))
            for index, (text, row) in enumerate(zip(texts, parsed, strict=True))
        ]
        remaining = iter(await self._commits.submit_all([one for one in commands if one is not None]))
        results = [_problem_result(row) if isinstance(row, Problem) else _result(next(remaining)) for row in parsed]
        return Response(b'{"results":[' + b",".join(results) + b"]}", media_type="application/json")

    def _parse(self, text: bytes) -> Row | Problem:
        try:
            return self._one.validate_json(text)
        except ValidationError as error:
            return from_validation_error(error)


def _split(request: Request, body: bytes) -> list[bytes]:
    """The JSON text of each row. Raises Problem for a body that is no list of rows, or too long a one."""
    media = media_type_of(request)
    if media == NDJSON:
        rows = [line for line in body.split(b"\n") if line.strip()]
    elif media == "application/json":
        try:
            parsed = orjson.loads(body)
        except orjson.JSONDecodeError:
            raise malformed("The body is not well-formed JSON.") from None
        if not isinstance(parsed, list):
            raise validation_error("The body is a list of rows.", {"pointer": "", "message": "Must be a list"})
        rows = [orjson.dumps(row) for row in parsed[: ROWS_MAX + 1]]
    else:
        raise unsupported_media_type("application/json", NDJSON)
    if not 0 < len(rows) <= ROWS_MAX:
        raise validation_error(
            f"A batch has 1 to {ROWS_MAX} rows.", {"pointer": "", "message": f"Must have 1 to {ROWS_MAX} rows"}
        )
    return rows


def _row_idempotency_request(key: IdempotencyRequest | None, index: int) -> IdempotencyRequest | None:
    """A batch's key stands for one key per row, so that each row happens once, whatever became of the others."""
    # A space stands in no key that a caller can send, so these collide with none.
    return None if key is None else replace(key, key=f"{key.key} {index}")


def _result(done: IdempotentResult[Result] | Exception) -> bytes:
    if isinstance(done, IdempotentResult):
        answer = done.answer if done.result is not None else mark_replayed(done.answer)
        if answer.headers.get("content-type") == MEDIA_TYPE:
            return b'{"status":%d,"problem":%b}' % (answer.status, answer.body)
        return b'{"status":%d,' % answer.status + answer.body[1:]
    problem = to_problem(done)
    if problem is None:
        # The other rows are saved, so they get their answers; this one is a defect of ours.
        log.error("row_failed", exc_info=done)
        problem = Problem(500, "internal", "Something went wrong", "This row was not saved.")
    return _problem_result(problem)


def _problem_result(problem: Problem) -> bytes:
    return orjson.dumps({"status": problem.status, "problem": problem.document()}, default=str)
