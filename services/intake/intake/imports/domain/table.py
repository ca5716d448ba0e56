"""Bytes as they come: their encoding, and their lines one by one with their places, of which the formats make rows. Pure; one bad row
spoils no other, and no more is held than the block at hand and one row.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, Protocol

ROW_BYTES_MAX = 1024 * 1024
"""A longer row fails, and is passed over without being held."""
ERROR_COLUMN = "accord_error"
ROW_COLUMN = "accord_row"
LINE_COLUMN = "accord_line"
OWN_COLUMNS = frozenset({ERROR_COLUMN, ROW_COLUMN, LINE_COLUMN})
"""What a file of errors has beside the columns of the import, the last for a line of NDJSON that is no object. They mark it, and are never
taken for data."""
REPLACEMENT = "\ufffd"

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
BOM_BYTES_MAX = 4
"""So much of a body tells whether it is marked."""
_UNMARKED: dict[tuple[bool, ...], str] = {
    (False, True, False, True): "utf-16-le",
    (True, False, True, False): "utf-16-be",
}
"""Which of the first bytes are NUL where ASCII is written in UTF-16."""
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


# encodings ---------------------------------------------------------------------------------------------------------
def find_encoding(name: str) -> str | None:
    """The registry's name of an encoding as people write it; None for one that is not read."""
    lower = name.strip().lower()
    lower = _ALIASES.get(lower.replace("_", "-"), lower)
    return lower if lower in ENCODINGS else None


def detect_bom(beginning: bytes) -> str | None:
    """The encoding that a byte order mark at the beginning of a body names, or that two letters of UTF-16 without one show."""
    marked = next((name for mark, name in _BOMS if beginning.startswith(mark)), None)
    return marked or _UNMARKED.get(tuple(byte == 0 for byte in beginning[:BOM_BYTES_MAX]))


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


class Lines:
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

    def __iter__(self) -> Lines:
        return self

    def __next__(self) -> str:
        try:
            line = self.lines[self.at]
        except IndexError:
            raise (StopIteration if self.closed else IncompleteRow) from None
        size = len(line)
        self.room -= size
        if self.room < 0:
            raise TooLong
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


class IncompleteRow(Exception):
    """The row is not whole yet."""


class TooLong(Exception):
    """The row goes on beyond ROW_BYTES_MAX, as one does whose quote is never closed."""


# rows --------------------------------------------------------------------------------------------------------------
OVERLONG = f"The row is longer than {ROW_BYTES_MAX} bytes"


def check_characters(row: Row, undecodable: bool, encoding: str) -> Row:
    """The row with what no text may hold: characters that are none in this encoding, and NUL."""
    if undecodable:
        return row._replace(cells=[without_nul(cell) for cell in row.cells], error=f"The row is not {encoding}")
    if any("\x00" in cell for cell in row.cells):
        return row._replace(cells=[without_nul(cell) for cell in row.cells], error="A NUL character is in the row")
    return row


def without_nul(cell: str) -> str:
    return cell.replace("\x00", REPLACEMENT)
