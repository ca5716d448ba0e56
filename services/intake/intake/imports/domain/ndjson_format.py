"""NDJSON: its lines, what they mean, and its file of errors. Pure."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Mapping, Sequence
from datetime import tzinfo
from typing import Any

from pydantic import JsonValue, ValidationError
from pydantic_core import from_json, to_json

from intake.imports.domain.dates import TimeColumn, parse_moment
from intake.imports.domain.imports import Failure
from intake.imports.domain.rows import (
    IDENTITIES,
    SOURCE,
    SUBMISSION,
    ColumnMapping,
    DateFormats,
    MappingOrigin,
    ParsedRow,
    Plan,
    Write,
    assume_consent,
    describe_errors,
    identify,
    put_value,
    resolve_date_formats,
)
from intake.imports.domain.table import (
    ERROR_COLUMN,
    LINE_COLUMN,
    OVERLONG,
    OWN_COLUMNS,
    REPLACEMENT,
    ROW_BYTES_MAX,
    ROW_COLUMN,
    IncompleteRow,
    Lines,
    NotATable,
    Row,
    TooLong,
    check_characters,
)
from intake.leads.domain.submission import Submission
from intake.sources.domain.mapping import Targets, apply_mapping, nest_values, parse_time


class NdjsonFormat:
    """How files of this format are read and written."""

    name = "ndjson"
    media_type = "application/x-ndjson"
    encoding = "utf-8"
    mapping_parts = ("columns", "fields")
    mapping_default: MappingOrigin = "submissions"

    def complete(
        self, plan: Plan, sample: bytes, attributes: Sequence[str], date_formats: DateFormats, *, whole: bool
    ) -> Plan:
        """The plan with the place where the lines begin."""
        if whole and not sample.strip():
            raise NotATable("There is no row in the body")
        start = len(codecs.BOM_UTF8) if sample.startswith(codecs.BOM_UTF8) else 0
        asked = resolve_date_formats(date_formats, plan.mapped)
        times = tuple(TimeColumn(column=name, date_format=asked[name], found_out=False) for name in asked)
        return plan.model_copy(
            update={"times": times, "start": start, "delimiter": None, "quote": None, "header": True}
        )

    def rows(self, plan: Plan, offset: int, number: int) -> Ndjson:
        """A reader of lines from this byte on."""
        return Ndjson(offset=offset, number=number)

    def reader(self, plan: Plan, source: str, zone: tzinfo, write: Write) -> NdjsonReader:
        """What makes submissions of those lines."""
        return NdjsonReader(
            plan.column_mapping, source=source, zone=zone, defaults=plan.defaults, date_formats=plan.date_formats
        )

    def begin_errors(self, plan: Plan) -> bytes:
        """A file of errors has no head."""
        return b""

    def encode_failure(self, plan: Plan, failure: Failure) -> bytes:
        """One line of a file of errors."""
        return to_json({ROW_COLUMN: failure.number, ERROR_COLUMN: failure.error, **_members(failure.content)}) + b"\n"


def _members(text: str) -> Mapping[str, JsonValue]:
    try:
        found = from_json(text, allow_inf_nan=False)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {LINE_COLUMN: text}


class Ndjson:
    """The lines of an NDJSON body, each one row of one cell, its text. NDJSON is UTF-8."""

    def __init__(self, *, offset: int = 0, number: int = 0) -> None:
        self._lines = Lines("utf-8", offset, b"\n")
        self._number = number

    def feed(self, block: bytes) -> None:
        self._lines.feed(block)

    def close(self) -> None:
        self._lines.close()

    def rows(self) -> Iterator[Row]:
        """The lines that are whole by now."""
        lines = self._lines
        while True:
            at, offset = lines.at, lines.offset
            lines.room, lines.undecodable = ROW_BYTES_MAX, False
            try:
                text = next(lines).strip()
            except (IncompleteRow, StopIteration):
                return
            except TooLong:
                lines.rewind_to(at, offset)
                self._number += 1
                yield Row(self._number, lines.offset, [REPLACEMENT], OVERLONG)
                continue
            self._number += 1
            row = Row(self._number, lines.offset, [text] if text else [])
            yield check_characters(row, lines.undecodable, "utf-8") if lines.undecodable or lines.nul else row


class NdjsonReader:
    """Submissions out of lines of JSON. Without a mapping a line is a submission as `POST /v1/leads` takes it, where `source` may be left
    out; with one it is any object."""

    def __init__(
        self,
        mapping: ColumnMapping | None,
        *,
        source: str,
        zone: tzinfo,
        defaults: Mapping[str, JsonValue] | None = None,
        date_formats: Mapping[str, str] | None = None,
    ) -> None:
        self._mapping = mapping
        self._source = source
        self._zone = zone
        self._defaults = defaults or {}
        self._date_formats = date_formats or {}
        self._member_of = {target: name for name, target in mapping.columns.items()} if mapping else {}

    def read(self, row: Row) -> ParsedRow:
        """What this line says. It is not a blank one."""
        text = row.cells[0]
        if row.error is not None:
            return ParsedRow(None, text, row.error)
        try:
            line = from_json(text, allow_inf_nan=False)
        except ValueError:
            return ParsedRow(None, text, "The row is not JSON")
        if not isinstance(line, dict):
            return ParsedRow(None, text, "The row is not a JSON object")
        if ERROR_COLUMN in line:
            line = {name: value for name, value in line.items() if name not in OWN_COLUMNS}
            text = to_json(line).decode()
        if "\\u0000" in text and _holds_nul(line):
            return ParsedRow(None, text, "A NUL character is in the row")
        document = self._document(line)
        try:
            return ParsedRow(SUBMISSION.validate_python(document), text, is_canonical=document == line)
        except ValidationError as error:
            return ParsedRow(None, text, describe_errors(error, self._member_of))

    def encode_original(self, row: Row) -> str:
        """The line, for the file of errors."""
        return row.cells[0]

    def find_identities(self, row: Row) -> list[Submission]:
        """What a line that is no submission says of who it is, one field each."""
        try:
            line = from_json(row.cells[0])
            document = self._document(line) if isinstance(line, dict) else {}
        except ValueError:
            return []
        named = [(target, document.get(target)) for target in IDENTITIES]
        return [found for target, value in named if (found := identify(self._source, target, value)) is not None]

    def _document(self, line: dict[str, JsonValue]) -> Mapping[str, Any]:
        if self._mapping is not None:
            return self._mapped(line, self._mapping)
        document: dict[str, Any] = {SOURCE: self._source, **line}
        if isinstance(at := document.get("occurred_at"), str):
            document["occurred_at"] = parse_time(at, self._zone)
        return assume_consent(document)

    def _mapped(self, line: dict[str, JsonValue], mapping: ColumnMapping) -> Mapping[str, Any]:
        values: dict[str, JsonValue] = {}
        document: dict[str, Any] = apply_mapping(mapping.fields, line, self._defaults)
        for name, target in mapping.columns.items():
            value = line.get(name)
            if value is not None and value != "":
                values[target] = value
        source = values.pop(SOURCE, None) or self._source
        times = {target: values.pop(target) for target in list(values) if Targets.shape(target) == "moment"}
        for path, value in _leaves(nest_values(values)):
            put_value(document, path, value)
        for target, said_at in times.items():
            at = parse_moment(said_at, self._zone, self._date_formats.get(self._member_of.get(target, "")))
            put_value(document, tuple(target.split(".")), at)
        return assume_consent({**document, SOURCE: source})


def _leaves(
    document: Mapping[str, JsonValue], above: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], JsonValue]]:
    for name, value in document.items():
        if isinstance(value, dict) and above[:1] != ("attributes",):
            yield from _leaves(value, (*above, name))
        else:
            yield (*above, name), value


def _holds_nul(value: object) -> bool:
    if isinstance(value, str):
        return "\x00" in value
    if isinstance(value, dict):
        return any(_holds_nul(name) or _holds_nul(item) for name, item in value.items())
    return isinstance(value, list) and any(map(_holds_nul, value))
