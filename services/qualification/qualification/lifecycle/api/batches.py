"""Batches over HTTP: rows in one body, each answered in its place. A row that is refused has a problem and spoils no other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import orjson
from msgspec import Struct
from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request

from accord.http.idempotency import Answer
from accord.http.problems import Problem, from_validation_error, malformed, require_json, validation_error
from qualification.lifecycle.api.models import ROWS_MAX

Row = TypeVar("Row")
Input = TypeVar("Input")
Outcome = TypeVar("Outcome")


class Batch(Struct, Generic[Input], frozen=True):
    """The rows of a body, in order: what is to be done, or why the row is refused."""

    rows: Sequence[Input | Problem]

    @property
    def inputs(self) -> list[Input]:
        """What is to be done, without the rows that are refused."""
        return [row for row in self.rows if not isinstance(row, Problem)]

    def encode(self, outcomes: Iterable[Outcome], build_row: Callable[[int, Outcome], Mapping[str, object]]) -> Answer:
        """The answer to all rows, made of the outcomes of `inputs`; `build_row` gets the index of the row."""
        remaining = iter(outcomes)
        results = [
            build_refused_row(row) if isinstance(row, Problem) else build_row(index, next(remaining))
            for index, row in enumerate(self.rows)
        ]
        return Answer(200, orjson.dumps({"results": results}, option=orjson.OPT_UTC_Z))


async def read_batch(
    request: Request, plural: str, adapter: TypeAdapter[Row], build_input: Callable[[Row], Input]
) -> Batch[Input]:
    """The batch in the body of a request, whose rows are called `plural`. Raises Problem for a body that is no list of rows."""
    require_json(request)
    try:
        rows = orjson.loads(await request.body())
    except orjson.JSONDecodeError:
        raise malformed("The body is not well-formed JSON.") from None
    if not isinstance(rows, list) or not 1 <= len(rows) <= ROWS_MAX:
        message = f"Must be a list of 1 to {ROWS_MAX} {plural}"
        raise validation_error(f"{message}.", {"pointer": "", "message": message})

    def parse_row(index: int, row: object) -> Input | Problem:
        try:
            return build_input(adapter.validate_python(row))
        except ValidationError as error:
            found = from_validation_error(error, row)
            errors = [{**item, "pointer": f"/{index}{item.get('pointer', '')}"} for item in found.errors]
            return Problem(422, "validation-failed", found.title, found.text, errors=errors)

    return Batch([parse_row(index, row) for index, row in enumerate(rows)])


def build_refused_row(problem: Problem) -> Mapping[str, object]:
    """The answer to a row that was refused."""
    return {"status": problem.status, "problem": problem.document()}


def describe_batch(row: Mapping[str, Any], example: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A batch's body for OpenAPI, of the schema of a row; FastAPI does not read it, so that one bad row spoils no other."""
    schema = {"type": "array", "minItems": 1, "maxItems": ROWS_MAX, "items": row}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema, "example": example}}}}
