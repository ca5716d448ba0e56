"""Rows out of a stream of bytes: CSV of any common dialect and NDJSON, block by block, each row with its number and its place in the file.
Pure; one bad row spoils no other, and no more is held than the block at hand and one row. What a row means, domain/rows.py says.
"""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, Protocol

from msgspec import Struct

ROW_BYTES_MAX = 1024 * 1024
"""A longer row fails, and is passed over without being held."""
COLUMNS_MAX = 1_000
COLUMN_CHARS_MAX = 300
CELL_CHARS_MAX = csv.field_size_limit()
"""131,072, the csv module's own limit."""
DELIMITERS = (",", ";", "\t", "|")
ERROR_COLUMN = "accord_error"
ROW_COLUMN = "accord_row"
LINE_COLUMN = "accord_line"
OWN_COLUMNS = frozenset({ERROR_COLUMN, ROW_COLUMN, LINE_COLUMN})
"""What a file of errors has beside the columns of the import, the last for a line of NDJSON that is no object. They mark it, and are never
taken for data."""
_SAMPLE_LINES = 200
_REPLACEMENT = "\ufffd"

LineEnd = Literal["LF", "CRLF", "CR", "none"]

ENCODINGS: dict[str, str] = {
    **{name: name for name in ("utf-8", "utf-16-le", "utf-16-be", "us-ascii", "koi8-r", "gb18030", "big5")},
    **{f"iso-8859-{n}": f"iso-8859-{n}" for n in (1, 2, 5, 7, 9, 15)},
    **{f"windows-{n}": f"cp{n}" for n in (1250, 1251, 1252, 1253, 1254, 1257)},
    "macintosh": "mac-roman",
    "shift_jis": "cp932",
    "euc-kr": "cp949",
}
"""Names of the IANA registry → codecs of Python. In all but UTF-16 the byte of a line end stands for nothing else."""
_ALIASES = {
    "utf8": "utf-8",
    "ascii": "us-ascii",
    "latin-1": "iso-8859-1",
    "latin1": "iso-8859-1",
    "utf-16": "utf-16-le",
    "utf-16le": "utf-16-le",
    "utf-16be": "utf-16-be",
    "shift-jis": "shift_jis",
    **{f"cp{n}": f"windows-{n}" for n in (1250, 1251, 1252, 1253, 1254, 1257)},
}
_UTF_16 = frozenset({"utf-16-le", "utf-16-be"})
_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_ASCII, _BEYOND_ASCII = bytes(range(128)), bytes(range(128, 256))
_NO_SUCH_BYTE = "accord-no-such-byte"
# UTF-16 is kept as UTF-8; what could not be decoded becomes a byte that UTF-8 never has, so that its row fails as any other.
codecs.register_error(_NO_SUCH_BYTE, lambda error: ("\udcff", getattr(error, "end", 0)))


class NotATable(Exception):
    """There is no header that rows could be read by; the text says why."""


class IncompleteHead(NotATable):
    """The header goes on behind the sample; more of the body may help."""


class Row(NamedTuple):
    """One row. `number` counts from 1 as a spreadsheet does, the header and blank rows included; `end` is the byte after it.

    `error` says in words why it cannot be read; `cells` is then what could be made of it. A blank row has no cells; a row of NDJSON
    has one, its text.
    """

    number: int
    end: int
    cells: Sequence[str]
    error: str | None = None


class Rows(Protocol):
    """A reader of rows: feed it blocks in order and take `rows()` after each; `close()` when there are no more."""

    def feed(self, block: bytes) -> None: ...

    def close(self) -> None: ...

    def rows(self) -> Iterator[Row]: ...


class Dialect(Struct, frozen=True, gc=False):
    """How a CSV is written. Every kind of line end is taken, so `line_end` only records what was seen."""

    delimiter: str
    quote: str = '"'
    line_end: LineEnd = "LF"


# encodings ---------------------------------------------------------------------------------------------------------
def find_encoding(name: str) -> str | None:
    """The registry's name of an encoding as people write it; None for one that is not read."""
    lower = name.strip().lower()
    lower = _ALIASES.get(lower.replace("_", "-"), lower)
    return lower if lower in ENCODINGS else None


def detect_bom(beginning: bytes) -> str | None:
    """The encoding that a byte order mark at the beginning of a body names."""
    return next((name for mark, name in _BOMS if beginning.startswith(mark)), None)


class EncodingDetector:
    """Finds out in which encoding a body without a mark is written, while it passes: UTF-8 if that fits most of what is not ASCII, else
    Windows-1252. A few bytes that are no UTF-8 in a file of UTF-8 stay what they are: their rows fail.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._fitting_bytes = 0
        self._unfitting_bytes = 0

    def feed(self, block: bytes) -> None:
        if block.isascii() and not self._decoder.getstate()[0]:
            return
        decoded = self._decoder.decode(block)
        self._fitting_bytes += len(decoded.encode("utf-8", "ignore").translate(None, _ASCII))
        self._unfitting_bytes += len(decoded) - len(decoded.encode("utf-8", "ignore").decode())

    @property
    def found(self) -> str:
        """The name of the encoding of what has been fed."""
        return "utf-8" if self._fitting_bytes >= self._unfitting_bytes else "windows-1252"


class Transcoder:
    """Bytes of UTF-16, as they come, to those of UTF-8; other encodings pass as they are. `stored_encoding` is what comes out."""

    def __init__(self, encoding: str) -> None:
        self._decoder = codecs.getincrementaldecoder(encoding)(_NO_SUCH_BYTE) if encoding in _UTF_16 else None
        self.stored_encoding = encoding if self._decoder is None else "utf-8"

    def feed(self, block: bytes, *, last: bool = False) -> bytes:
        if self._decoder is None:
            return block
        return self._decoder.decode(block, last).encode("utf-8", "surrogateescape")


# lines -------------------------------------------------------------------------------------------------------------
class _TruncatedLine(bytes):
    """The beginning of a line that is too long to be held. It is itself longer than a row may be."""

    dropped = 0
    """Bytes of the line that follow."""


class _Lines:
    """Whole lines out of blocks, for csv.reader: one at a time, so that after each row it is known where in the file we are."""

    __slots__ = (
        "_dropping",
        "_line_end",
        "_tail",
        "at",
        "closed",
        "codec",
        "lines",
        "nul",
        "offset",
        "room",
        "undecodable",
    )

    def __init__(self, codec: str, offset: int, line_end: bytes) -> None:
        self.codec = codec
        self.offset = offset
        self.lines: list[bytes] = []
        self.at = 0
        self.closed = False
        self.room = ROW_BYTES_MAX
        self.undecodable = False
        self.nul = False
        self._tail = b""
        self._dropping: int | None = None
        self._line_end = line_end

    def feed(self, block: bytes) -> None:
        del self.lines[: self.at]
        self.at = 0
        if self._dropping is not None:
            place = block.find(self._line_end) + 1
            self._dropping += place or len(block)
            if not place:
                return
            self._end_truncated()
            block = block[place:]
        data = self._tail + block if self._tail else block
        self.nul = self.nul or b"\x00" in data
        pieces = data.splitlines(keepends=True)
        # The line feed after a carriage return at the very end may be in the next block.
        self._tail = pieces.pop() if pieces and not pieces[-1].endswith(b"\n") else b""
        self.lines += pieces
        if len(self._tail) > ROW_BYTES_MAX + 1:
            self._dropping = len(self._tail) - ROW_BYTES_MAX - 1
            self._tail = self._tail[: ROW_BYTES_MAX + 1]

    def close(self) -> None:
        if self._dropping is not None:
            self._end_truncated()
        elif self._tail:
            self.lines.append(self._tail)
            self._tail = b""
        self.closed = True

    def _end_truncated(self) -> None:
        line = _TruncatedLine(self._tail)
        line.dropped = self._dropping or 0
        self.lines.append(line)
        self._tail, self._dropping = b"", None

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        try:
            line = self.lines[self.at]
        except IndexError:
            raise (StopIteration if self.closed else _IncompleteRow) from None
        size = len(line)
        self.room -= size
        if self.room < 0:
            raise _TooLong
        self.at += 1
        self.offset += size
        try:
            return line.decode(self.codec)
        except UnicodeDecodeError:
            self.undecodable = True
            return line.decode(self.codec, "replace")

    def rewind_to(self, at: int, offset: int) -> bytes:
        """Set it back behind the line at this place, where the file's `offset` was; that line."""
        line = self.lines[at]
        self.at = at + 1
        self.offset = offset + len(line) + getattr(line, "dropped", 0)
        return line


class _IncompleteRow(Exception):
    """The row is not whole yet."""


class _TooLong(Exception):
    """The row goes on beyond ROW_BYTES_MAX, as one does whose quote is never closed."""


# rows --------------------------------------------------------------------------------------------------------------
class Csv:
    """The rows of a CSV, from the byte `offset` on, where `number` rows have been read.

    A quote that is never closed spoils the line that it stands in, not the rest of the file: reading goes on with the next line.
    """

    def __init__(self, dialect: Dialect, encoding: str, *, offset: int = 0, number: int = 0) -> None:
        self._lines = _Lines(ENCODINGS[encoding], offset, b"\r" if dialect.line_end == "CR" else b"\n")
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
            except _IncompleteRow:
                lines.at, lines.offset = at, offset
                return
            except StopIteration:
                return
            except (_TooLong, csv.Error) as error:
                yield self._bad_row(error, at, offset)
                continue
            self._number += 1
            if lines.undecodable or lines.nul:
                yield _check_characters(Row(self._number, lines.offset, cells), lines.undecodable, self._encoding)
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
            return [_REPLACEMENT]
        text = line.decode(ENCODINGS[self._encoding], "replace").replace("\x00", _REPLACEMENT)
        try:
            return next(_reader(iter([text]), self._dialect, strict=False), [])
        except csv.Error:
            return [text.rstrip("\r\n")]


class Ndjson:
    """The lines of an NDJSON body, each one row of one cell, its text. NDJSON is UTF-8."""

    def __init__(self, *, offset: int = 0, number: int = 0) -> None:
        self._lines = _Lines("utf-8", offset, b"\n")
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
            except (_IncompleteRow, StopIteration):
                return
            except _TooLong:
                lines.rewind_to(at, offset)
                self._number += 1
                yield Row(self._number, lines.offset, [_REPLACEMENT], _OVERLONG)
                continue
            self._number += 1
            row = Row(self._number, lines.offset, [text] if text else [])
            yield _check_characters(row, lines.undecodable, "utf-8") if lines.undecodable or lines.nul else row


_OVERLONG = f"The row is longer than {ROW_BYTES_MAX} bytes"
_UNCLOSED = "A quote is opened and not closed"


def _reader(lines: Iterator[str] | _Lines, dialect: Dialect, *, strict: bool) -> Iterator[list[str]]:
    return csv.reader(lines, delimiter=dialect.delimiter, quotechar=dialect.quote, strict=strict)


def _describe_error(error: Exception, *, several: bool, overlong: bool) -> str:
    """In words that help whoever corrects the file. The csv module has one class for all its errors."""
    said = str(error)
    if overlong:
        return _OVERLONG
    if several or isinstance(error, _TooLong) or "end of data" in said:
        return _UNCLOSED
    if "field limit" in said:
        return f"A cell is longer than {CELL_CHARS_MAX} characters"
    return "Text stands behind a closing quote; a quote within a quoted cell is written twice"


def _check_characters(row: Row, undecodable: bool, encoding: str) -> Row:
    """The row with what no text may hold: characters that are none in this encoding, and NUL."""
    if undecodable:
        return row._replace(cells=[_without_nul(cell) for cell in row.cells], error=f"The row is not {encoding}")
    if any("\x00" in cell for cell in row.cells):
        return row._replace(cells=[_without_nul(cell) for cell in row.cells], error="A NUL character is in the row")
    return row


def _without_nul(cell: str) -> str:
    return cell.replace("\x00", _REPLACEMENT)


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
            rows = [row for row in csv.reader(lines, delimiter=delimiter, quotechar=quote) if row]
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
