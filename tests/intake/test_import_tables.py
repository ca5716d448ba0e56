"""Rows out of bytes: whatever the file looks like, every row has its number and its place, and a bad one spoils no other."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given, strategies

from intake.imports.domain.csv_format import (
    CELL_CHARS_MAX,
    COLUMNS_MAX,
    Csv,
    Dialect,
    Head,
    guard_cell,
    parse_head,
    unguard_cell,
)
from intake.imports.domain.ndjson_format import Ndjson
from intake.imports.domain.table import (
    ROW_BYTES_MAX,
    EncodingDetector,
    NotATable,
    Row,
    Rows,
    Transcoder,
    detect_bom,
    find_encoding,
)

CELL = strategies.text(
    strategies.characters(blacklist_categories=("Cs",), blacklist_characters="\x00"), max_size=8
) | strategies.sampled_from(["", '"', "\n", "\r\n", "a,b", "ä;ö", " "])
LINE_ENDS = strategies.sampled_from(["\n", "\r\n", "\r"])


def read(reader: Rows, body: bytes, size: int = 7) -> list[Row]:
    found: list[Row] = []
    for at in range(0, len(body), size):
        reader.feed(body[at : at + size])
        found += reader.rows()
    reader.close()
    return found + list(reader.rows())


def cells(body: bytes, size: int = 7, dialect: Dialect | None = None, encoding: str = "utf-8") -> list[list[str]]:
    return [list(row.cells) for row in read(Csv(dialect or Dialect(","), encoding), body, size)]


def head(body: bytes, encoding: str = "utf-8", **more: object) -> Head:
    options: dict[str, object] = {"delimiter": None, "quote": None, "header": True, "whole": True, **more}
    return parse_head(body, encoding, **options)  # type: ignore[arg-type]


@given(
    rows=strategies.lists(strategies.lists(CELL, min_size=2, max_size=4), max_size=6),
    line_end=LINE_ENDS,
    delimiter=strategies.sampled_from([",", ";", "\t", "|"]),
    size=strategies.integers(1, 40),
)
def test_what_a_spreadsheet_writes_is_read_the_same_however_it_is_cut(
    rows: list[list[str]], line_end: str, delimiter: str, size: int
) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, lineterminator=line_end, quoting=csv.QUOTE_ALL).writerows(rows)
    body = text.getvalue().encode()
    found = read(Csv(Dialect(delimiter), "utf-8"), body, size)
    # A blank after a delimiter is none of the cell, and a row of empty cells is blank.
    assert [list(row.cells) for row in found] == [row if any(map(str.strip, row)) else [] for row in rows]
    assert [row.number for row in found] == list(range(1, len(rows) + 1))
    assert [row.error for row in found] == [None] * len(rows)
    assert not found or found[-1].end in (len(body), len(body) - 1)  # a CR LF may count as a blank row's


@given(body=strategies.binary(max_size=200), size=strategies.integers(1, 50))
def test_any_bytes_are_rows_in_order_and_the_same_however_they_are_cut(body: bytes, size: int) -> None:
    whole = read(Csv(Dialect(","), "utf-8"), body, max(1, len(body)))
    assert read(Csv(Dialect(","), "utf-8"), body, size) == whole
    assert [row.number for row in whole] == list(range(1, len(whole) + 1))
    ends = [row.end for row in whole]
    assert ends == sorted(ends)
    assert not ends or ends[-1] == len(body)


@given(body=strategies.binary(max_size=200), at=strategies.integers(0, 10))
def test_reading_goes_on_from_any_row_as_if_it_had_never_stopped(body: bytes, at: int) -> None:
    whole = read(Csv(Dialect(","), "utf-8"), body)
    if at < len(whole):
        row = whole[at]
        resumed = Csv(Dialect(","), "utf-8", offset=row.end, number=row.number)
        assert read(resumed, body[row.end :]) == whole[at + 1 :]


def test_a_quoted_line_end_belongs_to_its_cell_across_blocks() -> None:
    assert cells(b'a,"one\r\ntwo"\nb,c\n', size=5) == [["a", "one\r\ntwo"], ["b", "c"]]


def test_blank_rows_count_as_a_spreadsheet_counts_them() -> None:
    found = read(Csv(Dialect(","), "utf-8"), b"a,b\n\nc,d")
    assert [(row.number, list(row.cells)) for row in found] == [(1, ["a", "b"]), (2, []), (3, ["c", "d"])]


def test_unclosed_quote_fails_its_own_line_only() -> None:
    found = read(Csv(Dialect(","), "utf-8"), b'a,b\nc,"d\ne,f\ng,h\n')
    assert [(list(row.cells), row.error) for row in found] == [
        (["a", "b"], None),
        (["c", "d\n"], "A quote is opened and not closed"),
        (["e", "f"], None),
        (["g", "h"], None),
    ]


def test_quote_that_swallows_next_row_fails_its_own_line_only() -> None:
    found = read(Csv(Dialect(","), "utf-8"), b'1,"Ada\n2,"Bob"\n3,"Eve"\n')
    assert [row.error for row in found] == ["A quote is opened and not closed", None, None]
    assert list(found[1].cells) == ["2", "Bob"]


def test_text_behind_closing_quote_is_an_error() -> None:
    (row,) = read(Csv(Dialect(","), "utf-8"), b'1,"5" pipe"\n')
    assert row.error == "Text stands behind a closing quote; a quote within a quoted cell is written twice"


def test_a_quote_that_is_open_for_a_megabyte_is_given_up() -> None:
    body = b'1,"a\n' + b"2,b\n" * (ROW_BYTES_MAX // 2)
    found = read(Csv(Dialect(","), "utf-8"), body, 256 * 1024)
    assert found[0].error == "A quote is opened and not closed"
    assert len(found) == 1 + ROW_BYTES_MAX // 2
    assert {row.error for row in found[1:]} == {None}


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("size", [64 * 1024, 8 * ROW_BYTES_MAX])
def test_overlong_line_fails_alone_and_is_not_buffered(line_end: bytes, size: int) -> None:
    body = b"1,a" + line_end + b"x" * (5 * ROW_BYTES_MAX) + line_end + b"3,c" + line_end
    reader = Csv(Dialect(","), "utf-8")
    found: list[Row] = []
    for at in range(0, len(body), size):
        reader.feed(body[at : at + size])
        found += reader.rows()
        assert sum(map(len, reader._lines.lines)) + len(reader._lines._tail) <= 2 * ROW_BYTES_MAX + size
    reader.close()
    found += reader.rows()
    assert [row.error for row in found] == [None, f"The row is longer than {ROW_BYTES_MAX} bytes", None]
    assert [row.number for row in found] == [1, 2, 3]
    assert found[-1].end == len(body)


def test_a_cell_that_is_too_long_fails_its_row() -> None:
    found = read(Csv(Dialect(","), "utf-8"), b"a," + b"x" * (CELL_CHARS_MAX + 1) + b"\nb,c\n", 4096)
    assert [row.error for row in found] == [f"A cell is longer than {CELL_CHARS_MAX} characters", None]


def test_a_row_of_another_encoding_fails_alone() -> None:
    found = read(Csv(Dialect(","), "utf-8"), "a,ä\n".encode() + b"b,\xe4\n" + "c,ö\n".encode())
    assert [(list(row.cells), row.error) for row in found] == [
        (["a", "ä"], None),
        (["b", "\ufffd"], "The row is not utf-8"),
        (["c", "ö"], None),
    ]


def test_a_nul_fails_its_row_alone() -> None:
    found = read(Csv(Dialect(","), "utf-8"), b"a,b\nc,\x00d\ne,f\n")
    assert [row.error for row in found] == [None, "A NUL character is in the row", None]
    assert not any("\x00" in cell for row in found for cell in row.cells)


def test_a_million_cells_are_one_bad_row() -> None:
    found = read(Csv(Dialect(","), "utf-8"), b"a,b\n" + b"," * 2_000_000 + b"\nc,d\n", 256 * 1024)
    assert [row.error is None for row in found] == [True, False, True]


# encodings ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_is_read_by_its_mark(encoding: str) -> None:
    body = "\ufeffname;city\r\nÄda;Köln\r\n".encode(encoding)
    assert detect_bom(body) == encoding
    transcoder = Transcoder(encoding)
    kept = b"".join(transcoder.feed(body[at : at + 3]) for at in range(0, len(body), 3)) + transcoder.feed(
        b"", last=True
    )
    assert head(kept, transcoder.stored_encoding).columns == ("name", "city")
    assert cells(kept[3:], dialect=Dialect(";")) == [["name", "city"], ["Äda", "Köln"]]


def test_half_a_character_of_utf_16_fails_its_row_alone() -> None:
    transcoder = Transcoder("utf-16-le")
    kept = transcoder.feed("a,b\nc,".encode("utf-16-le") + b"\x00\xd8" + "\ne,f\n".encode("utf-16-le"), last=True)
    assert [row.error for row in read(Csv(Dialect(","), "utf-8"), kept)] == [None, "The row is not utf-8", None]


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (b"plain", "utf-8"),
        ("Käse und Brötchen".encode(), "utf-8"),
        ("Käse und Brötchen".encode("cp1252"), "windows-1252"),
        ("Käse, Brötchen, Öl ".encode() + b"K\xe4se", "utf-8"),
        ("日本語".encode(), "utf-8"),
    ],
)
@pytest.mark.parametrize("size", [1, 5, 100])
def test_an_encoding_is_found_out_by_most_of_what_is_not_ascii(body: bytes, encoding: str, size: int) -> None:
    charset = EncodingDetector()
    for at in range(0, len(body), size):
        charset.feed(body[at : at + size])
    assert charset.found == encoding


def test_encodings_have_the_names_that_people_write() -> None:
    names = ["UTF-8", "utf8", "latin1", "ISO-8859-1", "cp1252", "Windows-1252", "Shift_JIS", "utf_16", "utf-7", "rot13"]
    assert [find_encoding(name) for name in names] == [
        "utf-8",
        "utf-8",
        "iso-8859-1",
        "iso-8859-1",
        "windows-1252",
        "windows-1252",
        "shift_jis",
        "utf-16-le",
        None,
        None,
    ]


# heads -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("body", "delimiter"),
    [
        (b"a,b,c\n1,2,3\n", ","),
        (b"a;b;c\n1,5;2,5;3,5\n", ";"),
        (b"a\tb\n1, 2, 3\t4\n", "\t"),
        (b"a|b\n1|2\n", "|"),
        (b"email\nada@initech.example\n", ","),
        (b'"last, first";city\n"Byron, Ada";London\n', ";"),
        (b"sep=|\na|b,c\n", "|"),
    ],
)
def test_the_delimiter_is_the_one_that_makes_rows_even(body: bytes, delimiter: str) -> None:
    assert head(body).dialect.delimiter == delimiter


def test_declared_dialect_is_not_detected() -> None:
    found = head(b"a;b,c\n", delimiter=",", quote="'")
    assert (found.columns, found.dialect.quote) == (("a;b", "c"), "'")


def test_apostrophes_may_quote() -> None:
    found = head(b"'a','b'\n'1','it''s'\n")
    assert (found.columns, found.dialect.quote) == (("a", "b"), "'")


@pytest.mark.parametrize(
    ("body", "line_end"), [(b"a,b\n1,2\n", "LF"), (b"a,b\r\n1,2", "CRLF"), (b"a,b\r1,2\r", "CR"), (b"a,b", "none")]
)
def test_every_line_end_is_read_and_reported(body: bytes, line_end: str) -> None:
    found = head(body)
    assert found.dialect.line_end == line_end
    assert found.columns == ("a", "b")


def test_rows_begin_behind_the_mark_the_hint_and_the_header() -> None:
    body = b"\xef\xbb\xbfsep=;\r\n\r\nname;city\r\nAda;London\r\n"
    found = head(body)
    assert (found.columns, found.number, body[found.start :]) == (("name", "city"), 3, b"Ada;London\r\n")


def test_unnamed_and_repeated_columns_get_distinct_names() -> None:
    found = head(b"mail,,mail, name \n")
    assert found.columns == ("mail", "column 2", "mail (2)", "name")
    assert found.repeated == ("mail",)


def test_without_a_header_columns_are_called_by_their_place() -> None:
    body = b"ada@initech.example,Ada\n"
    found = head(body, header=False)
    assert (found.columns, found.start, found.number) == (("1", "2"), 0, 0)


@pytest.mark.parametrize(
    ("body", "whole", "why"),
    [
        (b"", True, "There is no row in the body"),
        (b"\n\n", True, "There is no row in the body"),
        (b"a" * 100, False, "The first row does not end"),
        (b",".join([b"c"] * (COLUMNS_MAX + 1)), True, "1001 cells"),
        (b"," * 2_000_000 + b"\n", True, "longer than"),
        (b"x" * 400 + b",b\n", True, "The name of column 1 is longer"),
        (b'"a,b\n1,2\n', True, "A quote is opened and not closed"),
        (b"a,\xff\xfe\n", True, "is not utf-8"),
    ],
)
def test_what_has_no_header_to_read_by_is_no_table(body: bytes, whole: bool, why: str) -> None:
    with pytest.raises(NotATable, match=why):
        head(body, whole=whole)


def test_a_header_alone_is_a_table_without_rows() -> None:
    found = head(b"email,name\n")
    assert (found.columns, found.start) == (("email", "name"), 11)


# NDJSON ------------------------------------------------------------------------------------------------------------
@given(body=strategies.binary(max_size=200), size=strategies.integers(1, 50))
def test_lines_are_the_same_however_they_are_cut(body: bytes, size: int) -> None:
    whole = read(Ndjson(), body, max(1, len(body)))
    assert read(Ndjson(), body, size) == whole
    assert not whole or whole[-1].end == len(body)


def test_a_line_that_is_too_long_is_one_bad_row() -> None:
    found = read(Ndjson(), b'{"a":1}\n{"b":"' + b"x" * (2 * ROW_BYTES_MAX) + b'"}\n{"c":3}', 256 * 1024)
    assert [row.error is None for row in found] == [True, False, True]
    assert list(found[2].cells) == ['{"c":3}']


# spreadsheets ------------------------------------------------------------------------------------------------------
@given(cell=strategies.text() | strategies.sampled_from(["'", "''", "'=1", "=1+1", "@SUM(A1)", "\t=1", "+1 202", "-5"]))
def test_guarded_cell_is_no_formula_and_can_be_restored(cell: str) -> None:
    assert not guard_cell(cell).startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert unguard_cell(guard_cell(cell)) == cell
