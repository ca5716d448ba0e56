"""CSV of any common dialect: its head, its rows, what they mean, and its file of errors. Pure."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from datetime import tzinfo
from itertools import islice, zip_longest
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from msgspec import Struct
from pydantic import Field, JsonValue, StringConstraints, TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from intake.imports.domain.dates import VALUES_MAX, describe_column, parse_moment
from intake.imports.domain.imports import Failure
from intake.imports.domain.rows import (
    IDENTITIES,
    SOURCE,
    SUBMISSION,
    DateFormats,
    MappingError,
    MappingOrigin,
    ParsedRow,
    Plan,
    Write,
    assume_consent,
    describe_errors,
    guess_columns,
    identify,
    parse_column_mapping,
    put_value,
    resolve_date_formats,
    validate_columns,
)
from intake.imports.domain.table import (
    ENCODINGS,
    ERROR_COLUMN,
    OVERLONG,
    OWN_COLUMNS,
    REPLACEMENT,
    ROW_BYTES_MAX,
    ROW_COLUMN,
    IncompleteHead,
    IncompleteRow,
    LineEnd,
    Lines,
    NotATable,
    Row,
    TooLong,
    Transcoder,
    check_characters,
)
from intake.leads.domain.submission import ATTRIBUTES_MAX, AttributeName, Submission
from intake.sources.domain.mapping import Targets, nest_values

COLUMNS_MAX = 1_000
COLUMN_CHARS_MAX = 300
CELL_CHARS_MAX = csv.field_size_limit()
"""131,072, the csv module's own limit."""
DELIMITERS = (",", ";", "\t", "|")
ATTRIBUTE_CHARS_MAX = 1_000
ATTRIBUTES = "attributes"
_SAMPLE_LINES = 200
_BOM = "\ufeff"


class CsvFormat:
    """How files of this format are read and written."""

    name = "csv"
    media_type = "text/csv"
    encoding = None
    mapping_parts = ("columns",)
    mapping_default: MappingOrigin = "names"

    def complete(
        self, plan: Plan, sample: bytes, attributes: Sequence[str], date_formats: DateFormats, *, whole: bool
    ) -> Plan:
        """The plan with the dialect, the columns, what they fill, and how their times are read."""
        stored_encoding = Transcoder(plan.encoding).stored_encoding
        head = parse_head(
            sample, stored_encoding, delimiter=plan.delimiter, quote=plan.quote, header=plan.header, whole=whole
        )
        mapping = _map_columns(plan, head, attributes)
        asked = resolve_date_formats(date_formats, mapping)
        values = _sample_values(head, sample, stored_encoding, list(asked), whole=whole)
        zone = ZoneInfo(plan.timezone)
        return plan.model_copy(
            update={
                "times": tuple(describe_column(name, asked[name], values[name], zone) for name in asked),
                "stored_encoding": stored_encoding,
                "delimiter": head.dialect.delimiter,
                "quote": head.dialect.quote,
                "line_end": head.dialect.line_end,
                "columns": head.columns,
                "mapping": {"columns": mapping},
                "start": head.start,
                "number": head.number,
                "is_error_file": head.is_error_file,
            }
        )

    def rows(self, plan: Plan, offset: int, number: int) -> Csv:
        """A reader of rows from this byte on."""
        dialect = Dialect(plan.delimiter or ",", plan.quote or '"', plan.line_end or "LF")
        return Csv(dialect, plan.stored_encoding, offset=offset, number=number)

    def reader(self, plan: Plan, source: str, zone: tzinfo, write: Write) -> CsvReader:
        """What makes submissions of those rows."""
        return CsvReader(
            plan.columns,
            plan.mapped,
            source=source,
            zone=zone,
            is_error_file=plan.is_error_file,
            defaults=plan.defaults,
            date_formats=plan.date_formats,
            write=write,
        )

    def begin_errors(self, plan: Plan) -> bytes:
        """The head of a file of errors. It has a byte order mark, since spreadsheets take a file without for one in the encoding of the
        machine."""
        return (_BOM + _write_row(plan, [ROW_COLUMN, ERROR_COLUMN, *map(guard_cell, _own_columns(plan))])).encode()

    def encode_failure(self, plan: Plan, failure: Failure) -> bytes:
        """One row of a file of errors."""
        cells: list[str] = from_json(failure.content)
        cells += [""] * (len(_own_columns(plan)) - len(cells))
        return _write_row(plan, [str(failure.number), guard_cell(failure.error), *map(guard_cell, cells)]).encode()


def _map_columns(plan: Plan, head: Head, attributes: Sequence[str]) -> dict[str, str]:
    """Column → field. Raises MappingError if they do not fit the columns that are there."""
    document = guess_columns(head.columns, attributes) if plan.mapping is None else plan.mapping
    mapping = parse_column_mapping(document)[0]
    if plan.mapping_from == "source":
        # What is saved serves all files of a source, and not every one has every column.
        there = {name: target for name, target in mapping.columns.items() if name in head.columns}
        mapping = mapping._replace(columns=there)
    if errors := validate_columns(mapping, head.columns, head.repeated):
        raise MappingError(errors)
    return dict(mapping.columns)


def _sample_values(
    head: Head, sample: bytes, encoding: str, columns: Sequence[str], *, whole: bool
) -> dict[str, list[str]]:
    """What stands in these columns in the first rows."""
    found: dict[str, list[str]] = {column: [] for column in columns}
    if not columns:
        return found
    places = {column: head.columns.index(column) for column in columns}
    reader = Csv(head.dialect, encoding, offset=head.start)
    reader.feed(sample[head.start :])
    if whole:
        reader.close()
    for row in islice(reader.rows(), VALUES_MAX):
        for column, place in places.items():
            cell = row.cells[place].strip() if row.error is None and place < len(row.cells) else ""
            if cell:
                found[column].append(unguard_cell(cell) if head.is_error_file else cell)
    return found


def _own_columns(plan: Plan) -> list[str]:
    return [name for name in plan.columns if name not in OWN_COLUMNS]


def _write_row(plan: Plan, cells: Sequence[str]) -> str:
    line = io.StringIO(newline="")
    csv.writer(line, delimiter=plan.delimiter or ",", lineterminator="\r\n").writerow(cells)
    return line.getvalue()


# rows --------------------------------------------------------------------------------------------------------------
class Dialect(Struct, frozen=True, gc=False):
    """How a CSV is written. Every kind of line end is taken, so `line_end` only records what was seen."""

    delimiter: str
    quote: str = '"'
    line_end: LineEnd = "LF"


class Csv:
    """The rows of a CSV, from the byte `offset` on, where `number` rows have been read.

    A quote that is never closed spoils the line that it stands in, not the rest of the file: reading goes on with the next line.
    """

    def __init__(self, dialect: Dialect, encoding: str, *, offset: int = 0, number: int = 0) -> None:
        self._lines = Lines(ENCODINGS[encoding], offset, b"\r" if dialect.line_end == "CR" else b"\n")
        self._encoding = encoding
        self._dialect = dialect
        self._reader = _reader(self._lines, dialect, strict=True)
        self._number = number

    def feed(self, block: bytes) -> None:
        self._lines.feed(block)

    def close(self) -> None:
        self._lines.close()

    def rows(self) -> Iterator[Row]:
        """The rows that are whole by now."""
        lines, reader = self._lines, self._reader
        while True:
            at, offset = lines.at, lines.offset
            lines.room, lines.undecodable = ROW_BYTES_MAX, False
            try:
                cells = next(reader)
            except IncompleteRow:
                lines.at, lines.offset = at, offset
                return
            except StopIteration:
                return
            except (TooLong, csv.Error) as error:
                yield self._bad_row(error, at, offset)
                continue
            self._number += 1
            if not any(map(str.strip, cells)):
                cells = []  # as spreadsheets write a row of which nothing is left
            if lines.undecodable or lines.nul:
                yield check_characters(Row(self._number, lines.offset, cells), lines.undecodable, self._encoding)
            else:
                yield Row(self._number, lines.offset, cells)

    def _bad_row(self, error: Exception, at: int, offset: int) -> Row:
        several = self._lines.at > at + 1
        line = self._lines.rewind_to(at, offset)
        self._number += 1
        message = _describe_error(error, several=several, overlong=len(line) > ROW_BYTES_MAX)
        return Row(self._number, self._lines.offset, self._parse_leniently(line), message)

    def _parse_leniently(self, line: bytes) -> Sequence[str]:
        """The cells of a line that breaks the rules, for whoever corrects it; of one that is too long, nothing."""
        if len(line) > ROW_BYTES_MAX:
            return [REPLACEMENT]
        text = line.decode(ENCODINGS[self._encoding], "replace").replace("\x00", REPLACEMENT)
        try:
            return next(_reader(iter([text]), self._dialect, strict=False), [])
        except csv.Error:
            return [text.rstrip("\r\n")]


_UNCLOSED = "A quote is opened and not closed"


def _reader(lines: Iterator[str] | Lines, dialect: Dialect, *, strict: bool) -> Iterator[list[str]]:
    return csv.reader(lines, delimiter=dialect.delimiter, quotechar=dialect.quote, strict=strict, skipinitialspace=True)


def _describe_error(error: Exception, *, several: bool, overlong: bool) -> str:
    """In words that help whoever corrects the file. The csv module has one class for all its errors."""
    said = str(error)
    if overlong:
        return OVERLONG
    if several or isinstance(error, TooLong) or "end of data" in said:
        return _UNCLOSED
    if "field limit" in said:
        return f"A cell is longer than {CELL_CHARS_MAX} characters"
    return "Text stands behind a closing quote; a quote within a quoted cell is written twice"


# heads -------------------------------------------------------------------------------------------------------------
class Head(Struct, frozen=True, gc=False):
    """What stands before the rows of a CSV. `start`: the byte where they begin; `number`: rows up to there."""

    dialect: Dialect
    columns: tuple[str, ...]
    repeated: tuple[str, ...]
    """Names that several columns have; the second is called `name (2)`."""
    start: int
    number: int
    is_error_file: bool
    """Whether this is a file of errors, sent again."""


def parse_head(
    sample: bytes, encoding: str, *, delimiter: str | None, quote: str | None, header: bool, whole: bool
) -> Head:
    """The head of a CSV that begins with `sample`, which is all of it if `whole`. What is None is found out. Without a `header`, columns
    are called by their place: 1, 2, …. Raises NotATable."""
    start = len(codecs.BOM_UTF8) if encoding == "utf-8" and sample.startswith(codecs.BOM_UTF8) else 0
    lines = _sample_lines(sample[start:], encoding, whole=whole)
    said = _excel_delimiter(lines)
    dialect = _detect_dialect(lines[1 if said else 0 :], delimiter or said, quote)
    reader = Csv(dialect, encoding, offset=start)
    reader.feed(sample[start:])
    if whole:
        reader.close()
    before = Row(0, start, [])
    for row in reader.rows():
        if row.cells and not (row.number == 1 and said):
            break
        before = row
    else:
        raise NotATable("There is no row in the body") if whole else IncompleteHead(_TOO_MUCH_HEAD)
    if len(row.cells) > COLUMNS_MAX:
        raise NotATable(f"The first row has {len(row.cells)} cells; {COLUMNS_MAX} are read at most")
    if not header and ERROR_COLUMN not in row.cells:
        places = tuple(str(place) for place in range(1, len(row.cells) + 1))
        return Head(dialect, places, (), before.end, before.number, is_error_file=False)
    columns, repeated = _column_names(row)
    return Head(dialect, columns, repeated, row.end, row.number, is_error_file=ERROR_COLUMN in columns)


_TOO_MUCH_HEAD = f"The first row does not end within {ROW_BYTES_MAX} bytes"


def _column_names(row: Row) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of the columns, made distinct, and those that were not."""
    if row.error is not None:
        raise NotATable(f"The header cannot be read: {row.error}")
    names: dict[str, int] = {}
    columns: list[str] = []
    for place, cell in enumerate(row.cells, 1):
        name = cell.strip() or f"column {place}"
        if len(name) > COLUMN_CHARS_MAX:
            raise NotATable(f"The name of column {place} is longer than {COLUMN_CHARS_MAX} characters")
        names[name] = names.get(name, 0) + 1
        columns.append(name if names[name] == 1 else f"{name} ({names[name]})")
    return tuple(columns), tuple(name for name, count in names.items() if count > 1)


def _sample_lines(sample: bytes, encoding: str, *, whole: bool) -> list[str]:
    pieces = sample.splitlines(keepends=True)
    if not whole and len(pieces) > 1:
        pieces.pop()  # it may be cut
    return [line.decode(ENCODINGS[encoding], "replace") for line in pieces[:_SAMPLE_LINES]]


def _excel_delimiter(lines: Sequence[str]) -> str | None:
    """The delimiter that a first line `sep=;` names, as Excel writes and reads it."""
    first = lines[0].rstrip("\r\n").strip('"') if lines else ""
    return first[4:] if first.lower().startswith("sep=") and first[4:] in DELIMITERS else None


def _detect_dialect(lines: Sequence[str], delimiter: str | None, quote: str | None) -> Dialect:
    found_quote = quote or _detect_quote(lines)
    return Dialect(delimiter or _detect_delimiter(lines, found_quote), found_quote, _detect_line_end(lines))


def _detect_delimiter(lines: Sequence[str], quote: str) -> str:
    """The one by which most rows have as many cells as the first one has; of several, that with the most cells."""
    best, found = (0.0, 0), ","
    for delimiter in DELIMITERS:
        try:
            rows = [
                row for row in csv.reader(lines, delimiter=delimiter, quotechar=quote, skipinitialspace=True) if row
            ]
        except csv.Error:
            continue
        width = len(rows[0]) if rows else 0
        if width > 1:
            score = (sum(len(row) == width for row in rows) / len(rows), width)
            best, found = max((best, found), (score, delimiter), key=lambda one: one[0])
    return found


def _detect_quote(lines: Sequence[str]) -> str:
    """An apostrophe if the whole head is quoted by it and nothing by a quotation mark."""
    head = lines[0].strip() if lines else ""
    apostrophes = len(head) > 1 and head[0] == head[-1] == "'"
    return "'" if apostrophes and not any('"' in line for line in lines) else '"'


def _detect_line_end(lines: Sequence[str]) -> LineEnd:
    first = lines[0] if lines else ""
    if first.endswith("\r\n"):
        return "CRLF"
    return "LF" if first.endswith("\n") else "CR" if first.endswith("\r") else "none"


# spreadsheets ------------------------------------------------------------------------------------------------------
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠", "'")
"""A spreadsheet may take a cell that begins so for a formula (OWASP, "CSV Injection"); the apostrophe makes the guard reversible."""


def guard_cell(cell: str) -> str:
    """The cell, safe to open in a spreadsheet: with an apostrophe before what could be a formula, or before an apostrophe."""
    return "'" + cell if cell.startswith(_FORMULA) else cell


def unguard_cell(cell: str) -> str:
    """The cell as it was before `guard_cell`. A cell that was typed in anew stays as it is."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(_FORMULA) else cell


# what rows mean ----------------------------------------------------------------------------------------------------
_Texts = Annotated[
    dict[AttributeName, Annotated[str, StringConstraints(max_length=ATTRIBUTE_CHARS_MAX)]],
    Field(max_length=ATTRIBUTES_MAX),
]


class _Cells(Submission):
    """A submission out of cells: attributes are texts, so each is looked at once and not as every type that it could have. Which type is
    meant, the policy says."""

    attributes: _Texts = Field(default_factory=dict)  # type: ignore[assignment]  # narrower, and nobody writes to it


_of_cells = TypeAdapter(_Cells).validator.validate_python


class CsvReader:
    """Submissions out of the rows of a CSV with these columns. `defaults`: values by target where the row has none."""

    def __init__(
        self,
        columns: Sequence[str],
        mapping: Mapping[str, str],
        *,
        source: str,
        zone: tzinfo,
        is_error_file: bool = False,
        defaults: Mapping[str, JsonValue] | None = None,
        date_formats: Mapping[str, str] | None = None,
        write: Write = to_json,
    ) -> None:
        self._columns = columns
        self._write = write
        self._is_error_file = is_error_file
        self._zone = zone
        self._column_of = {target: name for name, target in mapping.items()}
        self._base: dict[str, JsonValue] = {**nest_values(defaults or {}), SOURCE: source}
        self._nested = any(isinstance(value, dict) for value in self._base.values())
        # Defaults may be of other types than text.
        self._validate = SUBMISSION.validate_python if ATTRIBUTES in self._base else _of_cells
        self._plain: list[tuple[int, str]] = []
        self._attributes: list[tuple[int, str]] = []
        self._parts: list[tuple[int, tuple[str, ...]]] = []
        self._moments: list[tuple[int, tuple[str, ...], str | None]] = []
        self._date_formats = date_formats or {}
        for index, column in enumerate(columns):
            if column in mapping and column not in OWN_COLUMNS:
                self._add(index, mapping[column])

    def _add(self, index: int, target: str) -> None:
        shape = Targets.shape(target)
        if shape == "moment":
            self._moments.append((index, tuple(target.split(".")), self._date_formats.get(self._columns[index])))
        elif shape == "attribute":
            self._attributes.append((index, target.partition(".")[2]))
        elif "." in target:
            self._parts.append((index, tuple(target.split("."))))
        else:
            self._plain.append((index, target))

    def read(self, row: Row) -> ParsedRow:
        """What this row says. It is not a blank one."""
        cells = row.cells
        if row.error is not None:
            return ParsedRow(None, self.content(cells), row.error)
        width = len(self._columns)
        if len(cells) != width:
            if len(cells) < width or any(cells[width:]):
                return ParsedRow(None, self.content(cells), f"The row has {len(cells)} cells, the header {width}")
            cells = cells[:width]
        if self._is_error_file:
            cells = [unguard_cell(cell) for cell in cells]
        content = self.content(cells)
        try:
            return ParsedRow(self._validate(self._document(cells)), content)
        except ValidationError as error:
            return ParsedRow(None, content, describe_errors(error, self._column_of))

    def encode_original(self, row: Row) -> str:
        """The cells of the row as a JSON list, for the file of errors."""
        cells = list(row.cells)
        if self._is_error_file:
            cells = [
                unguard_cell(cell)
                for cell, name in zip_longest(cells, self._columns, fillvalue="")
                if name not in OWN_COLUMNS
            ]
        return to_json(cells).decode()

    def find_identities(self, row: Row) -> list[Submission]:
        """What a row that is no submission says of who it is, one field each."""
        cells = [unguard_cell(cell) for cell in row.cells] if self._is_error_file else row.cells
        source = str(self._base[SOURCE])
        named = [(target, cells[index]) for index, target in self._plain if target in IDENTITIES and index < len(cells)]
        return [found for target, cell in named if (found := identify(source, target, cell)) is not None]

    def content(self, cells: Sequence[str]) -> str:
        """The row as JSON, by the names of the columns."""
        named = dict(zip(self._columns, cells, strict=False))
        if self._is_error_file:
            named = {name: cell for name, cell in named.items() if name not in OWN_COLUMNS}
        return self._write(named).decode()

    def _document(self, cells: Sequence[str]) -> dict[str, Any]:
        document: dict[str, Any] = deepcopy(self._base) if self._nested else dict(self._base)
        for index, name in self._plain:
            if cell := cells[index].strip():
                document[name] = cell
        if self._attributes:
            attributes = document.setdefault("attributes", {})
            for index, name in self._attributes:
                if cell := cells[index].strip():
                    attributes[name] = cell
        for index, path in self._parts:
            if cell := cells[index].strip():
                put_value(document, path, cell)
        for index, path, format_ in self._moments:
            if cell := cells[index].strip():
                put_value(document, path, parse_moment(cell, self._zone, format_))
        return assume_consent(document)
