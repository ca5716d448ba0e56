"""/v1/imports: files in, and what became of their rows out. Sending one is a plain endpoint that reads the body as it comes; it knows no
rule of imports."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from email.message import Message
from typing import Annotated, Literal
from uuid import UUID
from zoneinfo import available_timezones

import orjson
from fastapi import APIRouter, Query
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from accord.http.auth import Caller, authorize, forbidden, require
from accord.http.idempotency import Answer, read_idempotency_request
from accord.http.openapi import operation, problems
from accord.http.paging import CursorText, Limit, Page, decode_single_cursor, make_page
from accord.http.problems import (
    Problem,
    media_type_of,
    parameter_error,
    unsupported_media_type,
    validation_problem,
)
from intake.imports.domain.dates import InvalidDateFormat, TimeColumn, compile_format
from intake.imports.domain.formats import BY_MEDIA_TYPE, FORMATS, Format
from intake.imports.domain.imports import Failure, Outcome, State
from intake.imports.domain.rows import DateFormats, MappingOrigin, Plan
from intake.imports.domain.table import OWN_COLUMNS, find_encoding
from intake.imports.queries import Job
from intake.imports.service.imports import Imports
from intake.imports.service.upload import ImportRequest
from intake.leads.api import LEFT_OUT
from intake.leads.domain.submission import Source

PATH = "/v1/imports"
MAPPING_CHARS_MAX = 4_000
"""Percent-encoded it must fit into the 64 KiB that a request line may have; a longer one is saved at the source."""
ROWS_PER_S_MAX = 100_000
_BYTES = "application/octet-stream"
_MEDIA_TYPES = (*BY_MEDIA_TYPE, _BYTES)
_DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}
_QUOTES = {"double": '"', "single": "'"}


# asking ------------------------------------------------------------------------------------------------------------
def _encoding(name: str) -> str:
    found = find_encoding(name)
    if found is None:
        raise PydanticCustomError("encoding", "Is not an encoding that is read; utf-8, utf-16, windows-1252 are some")
    return found


def _timezone(name: str) -> str:
    if name not in available_timezones():
        raise PydanticCustomError("timezone", "Is not a time zone of the IANA database, such as America/Chicago")
    return name


def _date_format(text: str) -> DateFormats:
    try:
        formats = orjson.loads(text) if text.lstrip().startswith("{") else text
        if not isinstance(formats, str) and not all(isinstance(one, str) for one in formats.values()):
            raise InvalidDateFormat("Must be a format, or a JSON object of columns and their formats")
        for one in [formats] if isinstance(formats, str) else formats.values():
            compile_format(one)
    except orjson.JSONDecodeError:
        raise PydanticCustomError("date_format", "Is not JSON") from None
    except InvalidDateFormat as error:
        raise PydanticCustomError("date_format", "{reason}", {"reason": str(error)}) from None
    found: DateFormats = formats
    return found


class ImportQuery(BaseModel):
    """The parameters of `POST /v1/imports`. What is left out is found out from the file."""

    model_config = ConfigDict(extra="forbid")

    source: Source
    format: str | None = None
    mapping: Annotated[str, Field(max_length=MAPPING_CHARS_MAX)] | None = None
    dry_run: bool = False
    encoding: Annotated[str, Field(max_length=40), AfterValidator(_encoding)] | None = None
    delimiter: (
        Annotated[Literal[",", ";", "\t", "|"], BeforeValidator(lambda given: _DELIMITERS.get(given, given))] | None
    ) = None
    quote: Annotated[Literal['"', "'"], BeforeValidator(lambda given: _QUOTES.get(given, given))] | None = None
    header: bool = True
    timezone: Annotated[str, Field(max_length=60), AfterValidator(_timezone)] = "UTC"
    date_format: Annotated[str, Field(max_length=MAPPING_CHARS_MAX), AfterValidator(_date_format)] | None = None
    rows_per_s: Annotated[int, Field(ge=1, le=ROWS_PER_S_MAX)] | None = None


def _query(request: Request) -> ImportQuery:
    try:
        return ImportQuery.model_validate(dict(request.query_params))
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False)
        raise validation_problem([{**item, "loc": ("query", *item["loc"][:1])} for item in found]) from None


# answering ---------------------------------------------------------------------------------------------------------
class RowsOut(BaseModel):
    """Rows by what became of them. Each row that is not blank is in `read` and in one of the others."""

    read: int
    created: int
    updated: int
    merged: int
    unchanged: int = Field(
        description="Said last by the same source in an earlier file, word for word, under the same policy; not taken again."
    )
    quarantined: int
    rejected: int = Field(description="By the data policy.")
    failed: int = Field(description="No submission: see `errors`.")


class ExampleOut(BaseModel):
    """One row that was not taken."""

    row: int
    outcome: Literal["rejected", "failed"]
    error: str


class LeftOutRowsOut(BaseModel):
    """A reason for which values of one field were left out of rows that were taken."""

    pointer: str = Field(description="The field, as a JSON Pointer into a submission.")
    column: str | None = Field(description="The column that fills it.")
    message: str = Field(description="Why. It never holds the value.")
    rows: int
    first_row: int


class ImportQualityOut(BaseModel):
    """What the data policy said of the rows, and what of them was not used."""

    verdicts: dict[str, int]
    failed: dict[str, int] = Field(description="Parameter of the policy → rows that did not meet it.")
    examples: list[ExampleOut] = Field(description="The first rows that were rejected or failed.")
    left_out: list[LeftOutRowsOut] = Field(default=[], description=LEFT_OUT)


class FileOut(BaseModel):
    """How the file is read, and what was found out."""

    format: Annotated[str, Field(json_schema_extra={"enum": [*FORMATS]})]
    encoding: str
    encoding_detected: bool = Field(description="False where it was said, or marked at the beginning of the file.")
    delimiter: str | None
    quote: str | None
    line_end: str | None
    header: bool
    timezone: str
    corrected: bool = Field(description="A file of errors, sent again: cells that were guarded are restored.")


class MappingOut(BaseModel):
    """Which column fills which field."""

    origin: MappingOrigin = Field(
        description="`request`: it was sent. `source`: saved at the source. `names`: the columns' own names. `submissions`: lines are"
        " submissions as they stand."
    )
    columns: dict[str, str]
    not_mapped: list[str] = Field(description="Columns that are kept with the row and mean nothing here.")


class ImportOut(BaseModel):
    """One import as it stands."""

    import_id: UUID
    source: str
    state: State
    dry_run: bool
    cancelling: bool
    rows: RowsOut
    rows_per_s: float | None = Field(description="Of late while it runs, of the whole when it has ended.")
    bytes_received: int
    bytes_done: int
    share_done: float = Field(ge=0, le=1, description="By bytes.")
    eta_s: float | None = Field(description="Seconds that the rest will take, if it goes on like this.")
    quality: ImportQualityOut
    file: FileOut | None
    mapping: MappingOut | None
    times: list[TimeColumn] = Field(default=[], description="How columns of times are read, with their first values.")
    error: str | None = Field(description="Why it failed as a whole.")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class ImportRowOut(BaseModel):
    """What became of one row. Rows are numbered as in a spreadsheet, from 1, the header counted."""

    row: int
    outcome: Outcome
    verdict: str | None
    lead_id: UUID | None


def _to_out(job: Job) -> ImportOut:
    rest = job.bytes_received - job.bytes_done
    plan = job.plan
    return ImportOut(
        import_id=job.import_id,
        source=job.source,
        state=job.state,
        dry_run=job.dry_run,
        cancelling=job.cancel_requested and job.state == "running",
        rows=RowsOut.model_validate(job.counts, from_attributes=True),
        rows_per_s=None if job.rows_per_s is None else round(job.rows_per_s, 1),
        bytes_received=job.bytes_received,
        bytes_done=job.bytes_done,
        share_done=_share(job),
        eta_s=round(rest / job.bytes_per_s, 1) if job.state == "running" and job.bytes_per_s else None,
        quality=_quality(job),
        file=None if plan is None else _file(plan),
        mapping=None if plan is None else _mapping(plan),
        times=[] if plan is None else list(plan.times),
        error=job.error,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
    )


def _quality(job: Job) -> ImportQualityOut:
    column_of = {} if job.plan is None else {target: column for column, target in job.plan.mapped.items()}
    report = job.quality
    return ImportQualityOut(
        verdicts=dict(report.verdicts),
        failed=dict(report.failed),
        examples=[ExampleOut.model_validate(one) for one in report.examples],
        left_out=[
            LeftOutRowsOut(
                pointer=one.pointer,
                column=column_of.get(one.pointer[1:].replace("/", ".")),
                message=one.message,
                rows=one.rows,
                first_row=one.first_row,
            )
            for one in report.left_out
        ],
    )


def _share(job: Job) -> float:
    if job.state == "finished":
        return 1.0
    return round(min(1.0, job.bytes_done / job.bytes_received), 6) if job.bytes_received else 0.0


def _file(plan: Plan) -> FileOut:
    return FileOut(
        format=plan.format,
        encoding=plan.encoding,
        encoding_detected=not plan.encoding_declared,
        delimiter=plan.delimiter,
        quote=plan.quote,
        line_end=plan.line_end,
        header=plan.header,
        timezone=plan.timezone,
        corrected=plan.is_error_file,
    )


def _mapping(plan: Plan) -> MappingOut:
    mapped = plan.mapped
    left = [name for name in plan.columns if name not in mapped and name not in OWN_COLUMNS]
    in_order = [name for name in plan.columns if name in mapped] or list(mapped)
    return MappingOut(
        origin=plan.mapping_from,
        columns={name: mapped[name] for name in in_order},
        not_mapped=left,
    )


def _find_format(request: Request) -> Format:
    """By the body's media type; by `format` where that only says that it is bytes. Raises Problem 415 or 422."""
    media, named = media_type_of(request), request.query_params.get("format")
    found = FORMATS.get(named or "") if media == _BYTES else BY_MEDIA_TYPE.get(media)
    if found is None and media != _BYTES:
        raise unsupported_media_type(*_MEDIA_TYPES)
    if found is None or named not in (None, found.name):
        raise parameter_error("format", f"must be one of {', '.join(FORMATS)} and what Content-Type says")
    return found


# routes ------------------------------------------------------------------------------------------------------------
def import_routes(imports: Imports) -> list[BaseRoute]:
    """Sending a file."""

    async def import_file(request: Request) -> Response:
        caller = await authorize(request, "leads:write")
        form = _find_format(request)
        if request.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
            raise Problem(
                415,
                "unsupported-media-type",
                "This content encoding is not accepted",
                "Send the file as it is, not compressed.",
                headers={"Accept-Encoding": "identity"},
            )
        parsed = await _parse_request(request, caller, form)
        return (await imports.receive(parsed, _body(request), _encode_job)).answer.response()

    return [Route(PATH, import_file, methods=["POST"])]


async def _parse_request(request: Request, caller: Caller, form: Format) -> ImportRequest:
    query = _query(request)
    said = Message()
    said["content-type"] = request.headers.get("content-type", "")
    charset, header = said.get_param("charset"), said.get_param("header")
    # Many clients say UTF-8 whatever they send, so that is found out all the same (RFC 4180 has both parameters).
    declared = find_encoding(charset) if isinstance(charset, str) else None
    return ImportRequest(
        source=query.source,
        caller=caller.name,
        format=form,
        mapping=query.mapping,
        dry_run=query.dry_run,
        encoding=query.encoding or (declared if declared != "utf-8" else None),
        delimiter=query.delimiter,
        quote=query.quote,
        header=query.header and header != "absent",
        timezone=query.timezone,
        date_formats=query.date_format,
        rows_per_s_max=query.rows_per_s,
        idempotency_request=await read_idempotency_request(request, caller.name, b""),
    )


async def _body(request: Request) -> AsyncIterator[bytes]:
    async for piece in request.stream():
        if piece:
            yield piece


def _encode_job(job: Job) -> Answer:
    return Answer(202, _to_out(job).model_dump_json().encode(), {"Location": f"{PATH}/{job.import_id}"})


def import_router(imports: Imports) -> APIRouter:
    """Asking about imports, and cancelling them."""
    router = APIRouter(tags=["imports"])

    @router.get(PATH, summary="Imports, latest first")
    async def list_imports(
        limit: Limit = 50,
        cursor: CursorText = None,
        source: Annotated[str | None, Query(max_length=100)] = None,
        _: Caller = require("leads:write"),
    ) -> Page[ImportOut]:
        found = await imports.page(decode_single_cursor(cursor, UUID), limit + 1, source)
        items, following = make_page(found, limit, lambda job: job.import_id)
        return Page(items=[_to_out(job) for job in items], next_cursor=following)

    @router.get(PATH + "/{import_id}", summary="One import", responses=problems(404))
    async def get_import(import_id: UUID, _: Caller = require("leads:write")) -> ImportOut:
        """State, rows by outcome, rate, share done and what was found out about the file."""
        return _to_out(await imports.find(import_id))

    @router.get(PATH + "/{import_id}/rows", summary="What became of its rows", responses=problems(404))
    async def list_rows(
        import_id: UUID,
        limit: Limit = 50,
        cursor: CursorText = None,
        outcome: Outcome | None = None,
        _: Caller = require("leads:write"),
    ) -> Page[ImportRowOut]:
        """In the order of the file, those that have been taken so far. A dry run has none. Kept for a time only."""
        await imports.find(import_id)
        found = await imports.results(import_id, decode_single_cursor(cursor, int) or 0, limit + 1, outcome)
        items, following = make_page(found, limit, lambda result: result.number)
        shown = [
            ImportRowOut(
                row=get_import.number,
                outcome=get_import.outcome,
                verdict=get_import.verdict,
                lead_id=get_import.lead_id,
            )
            for get_import in items
        ]
        return Page(items=shown, next_cursor=following)

    @router.get(
        PATH + "/{import_id}/errors",
        summary="Its rows that were not taken, to be corrected and sent again",
        response_class=StreamingResponse,
        responses={
            **problems(404),
            200: {
                "description": "The rows as they were sent, each with its number and its errors, in the format of the import.",
                "content": {media: {"schema": {"type": "string"}} for media in BY_MEDIA_TYPE},
            },
        },
    )
    async def get_errors(import_id: UUID, caller: Caller = require("leads:write")) -> StreamingResponse:
        """Rows that failed or were rejected, as a file of the same kind with `accord_row` and `accord_error` before its own columns. Cells
        that a spreadsheet could take for formulas have an apostrophe before them. Correct the rows and send the file as a new import: the
        two columns are passed over and the apostrophes are taken away. Needs `personal:read` too."""
        if "personal:read" not in caller.scopes:
            raise forbidden("personal:read")
        job = await imports.find(import_id)
        plan = job.plan or _NO_PLAN
        form = FORMATS[plan.format]
        name = f"import-{import_id}-errors.{form.name}"
        disposition = {"Content-Disposition": f'attachment; filename="{name}"'}
        return StreamingResponse(
            _encode_errors(form, plan, imports.failures(import_id)), media_type=form.media_type, headers=disposition
        )

    @router.post(PATH + "/{import_id}/cancel", summary="Cancel an import", responses=problems(404, 409))
    async def cancel_import(import_id: UUID, _: Caller = require("leads:write")) -> ImportOut:
        """It stops after the rows at hand; rows that were taken stay. Cancelling twice is cancelling once."""
        return _to_out(await imports.cancel(import_id))

    return router


_NO_PLAN = Plan(format="csv", encoding="utf-8", stored_encoding="utf-8", mapping_from="names")
"""Of an import whose own could not be read."""


async def _encode_errors(form: Format, plan: Plan, failures: AsyncIterator[Failure]) -> AsyncIterator[bytes]:
    yield form.begin_errors(plan)
    async for failure in failures:
        yield form.encode_failure(plan, failure)


_EXAMPLE_ID = "019f3b1e-7a52-7c31-9a55-8a4f3c1d2e20"
_EXAMPLE: dict[str, object] = {
    "import_id": _EXAMPLE_ID,
    "source": "trade-fair",
    "state": "queued",
    "dry_run": False,
    "cancelling": False,
    "rows": dict.fromkeys(RowsOut.model_fields, 0),
    "rows_per_s": None,
    "bytes_received": 1_048_576,
    "bytes_done": 0,
    "share_done": 0.0,
    "eta_s": None,
    "quality": {"verdicts": {}, "failed": {}, "examples": [], "left_out": []},
    "file": {
        "format": "csv",
        "encoding": "utf-8",
        "encoding_detected": True,
        "delimiter": ";",
        "quote": '"',
        "line_end": "CRLF",
        "header": True,
        "timezone": "UTC",
        "corrected": False,
    },
    "mapping": {
        "origin": "request",
        "columns": {"E-Mail": "email", "Staff": "attributes.employee_count"},
        "not_mapped": ["Shoe size"],
    },
    "times": [
        {
            "column": "When",
            "date_format": "DD/MM/YYYY",
            "found_out": True,
            "examples": [{"text": "31/12/2025", "read_as": "2025-12-31T00:00:00Z"}],
        }
    ],
    "error": None,
    "created_at": "2026-01-05T10:12:00Z",
    "started_at": None,
    "finished_at": None,
}


def _parameter(
    name: str, schema: Mapping[str, object], description: str, *, required: bool = False
) -> dict[str, object]:
    return {"name": name, "in": "query", "required": required, "description": description, "schema": dict(schema)}


_PARAMETERS = [
    _parameter(
        "source", {"type": "string", "minLength": 1, "maxLength": 100}, "Where the rows come from.", required=True
    ),
    _parameter(
        "mapping",
        {"type": "string", "maxLength": MAPPING_CHARS_MAX},
        'A JSON object `{"COLUMN": "FIELD"}`, or the name of a source whose saved mapping is used. Without it: what is saved at `source`,'
        " else the names of the columns. For NDJSON the mapping may have `fields` with JSON Pointers.",
    ),
    _parameter(
        "format",
        {"type": "string", "enum": [*FORMATS]},
        f"The format of a body that is sent as {_BYTES}, as generated clients do.",
    ),
    _parameter(
        "dry_run", {"type": "boolean", "default": False}, "Judge the rows and foresee their outcomes; write no lead."
    ),
    _parameter(
        "encoding", {"type": "string", "maxLength": 40}, "Such as utf-8, utf-16, windows-1252. Without it: found out."
    ),
    _parameter(
        "delimiter",
        {"type": "string", "enum": [",", ";", "\t", "|", *_DELIMITERS]},
        "What stands between cells. Without it: found out.",
    ),
    _parameter("quote", {"type": "string", "enum": ['"', "'", *_QUOTES]}, "What quotes cells. Without it: found out."),
    _parameter(
        "header",
        {"type": "boolean", "default": True},
        "Whether the first row names the columns; else they are called 1, 2, …",
    ),
    _parameter(
        "timezone",
        {"type": "string", "maxLength": 60, "default": "UTC"},
        "IANA time zone of times without an offset. A date is its midnight.",
    ),
    _parameter(
        "date_format",
        {"type": "string", "maxLength": MAPPING_CHARS_MAX},
        "How dates are written, such as `DD.MM.YYYY`, `M/D/YY`, `MMM D, YYYY`, or a JSON object by column. Without it: found out where the"
        " values of a column can have only one; never where day and month could be exchanged.",
    ),
    _parameter(
        "rows_per_s",
        {"type": "integer", "minimum": 1, "maximum": ROWS_PER_S_MAX},
        "Take no more rows a second than that, for the sake of other traffic.",
    ),
]

IMPORTS_OPENAPI = {
    PATH: {
        "post": operation(
            "Import a file",
            scope="leads:write",
            description=(
                "The body is the file itself, CSV or NDJSON of any size up to the limit, read as it comes and not compressed. It is kept"
                " and queued, and its rows are taken in the background: 202 with where to look. A file or a mapping by which no row could"
                " be read is 422 before anything is kept."
            ),
            tags=["imports"],
            operation_id="import_file",
            parameters=_PARAMETERS,
            body={"type": "string", "format": "binary"},
            body_examples={"csv": "email,company\r\nada@initech.example,Initech\r\n"},
            body_media=_MEDIA_TYPES,
            answers={202: ImportOut},
            answer_examples={202: _EXAMPLE},
            problems=(409, 413, 415, 422, 503),
            idempotent=True,
        )
    }
}
