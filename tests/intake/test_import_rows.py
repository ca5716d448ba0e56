"""What rows mean: columns by mapping or by their names, values as people write them, and errors in the words of the file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from intake.imports.domain.csv_format import CsvReader
from intake.imports.domain.ndjson_format import NdjsonReader
from intake.imports.domain.rows import (
    ColumnMapping,
    ParsedRow,
    guess_columns,
    parse_column_mapping,
    validate_columns,
)
from intake.imports.domain.table import Row
from intake.sources.domain.mapping import parse_time

CHICAGO = ZoneInfo("America/Chicago")


def reading(
    columns: Sequence[str], mapping: Mapping[str, str], cells: Sequence[str], error: str | None = None, **more: object
) -> ParsedRow:
    options: dict[str, object] = {"source": "list", "zone": UTC, **more}
    return CsvReader(columns, mapping, **options).read(Row(2, 10, cells, error))  # type: ignore[arg-type]


def line(text: str, mapping: ColumnMapping | None = None, **more: object) -> ParsedRow:
    options: dict[str, object] = {"source": "list", "zone": UTC, **more}
    return NdjsonReader(mapping, **options).read(Row(1, 10, [text]))  # type: ignore[arg-type]


# mappings ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("whole", [False, True])
def test_a_mapping_names_columns_and_the_fields_that_they_fill(whole: bool) -> None:
    columns = {"E-Mail": "email", "Staff": "attributes.employee_count", "origin": "source"}
    found, errors = parse_column_mapping({"columns": columns} if whole else columns)
    assert (dict(found.columns), errors) == (columns, [])


@pytest.mark.parametrize(
    ("mapping", "pointer"),
    [
        ({"a": "nickname"}, "/a"),
        ({"columns": {"a/b": "nickname"}}, "/columns/a~1b"),
        ({"a": "email", "b": "email"}, "/b"),
        ({"columns": {"a": "source", "b": "source"}}, "/columns/b"),
        ({"columns": {"a": 7}}, "/columns/a"),
        ({"columns": {"a": "attributes.9 lives"}}, "/columns/a"),
        (["email"], ""),
        ("email", ""),
    ],
)
def test_mapping_to_unknown_field_is_an_error_with_pointer(mapping: object, pointer: str) -> None:
    assert [error.pointer for error in parse_column_mapping(mapping)[1]] == [pointer]


def test_a_mapping_of_a_column_that_is_not_there_or_stands_twice_is_wrong() -> None:
    mapping = parse_column_mapping({"columns": {"mail": "email", "name": "last_name", "city": "company"}})[0]
    errors = validate_columns(mapping, ["mail", "mail (2)", "name"], ["mail"])
    assert [(error.pointer, error.message) for error in errors] == [
        ("/columns/city", "There is no such column"),
        ("/columns/mail", "Several columns have this name"),
    ]


def test_mapping_without_identity_is_an_error() -> None:
    (error,) = validate_columns(parse_column_mapping({"name": "last_name"})[0], ["name"], [])
    assert "email, phone or external_id" in error.message


def test_columns_are_guessed_from_common_names() -> None:
    columns = [
        "E-Mail",
        "First Name",
        "last_name",
        "Company",
        "utm_campaign",
        "Employee Count",
        "attributes.x",
        "shoe size",
    ]
    assert guess_columns(columns, ["employee_count"]) == {
        "E-Mail": "email",
        "First Name": "first_name",
        "last_name": "last_name",
        "Company": "company",
        "utm_campaign": "campaign.name",
        "Employee Count": "attributes.employee_count",
        "attributes.x": "attributes.x",
    }


def test_first_of_several_columns_for_one_field_is_used() -> None:
    assert guess_columns(["email", "mail", "accord_error"]) == {"email": "email"}


# rows of CSV -------------------------------------------------------------------------------------------------------
def test_row_becomes_submission_and_is_stored_whole() -> None:
    columns = ["mail", "staff", "campaign", "basis", "when", "shoe size", "where"]
    mapping = {
        "mail": "email",
        "staff": "attributes.employee_count",
        "campaign": "campaign.name",
        "basis": "consent.basis",
        "when": "occurred_at",
        "where": "source",
    }
    found = reading(columns, mapping, [" ada@initech.example ", "250", "spring", "consent", "2018-02-01", "43", "fair"])
    assert found.submission is not None
    said = found.submission
    assert (said.source, said.email, said.attributes) == ("fair", "ada@initech.example", {"employee_count": "250"})
    assert said.campaign is not None
    assert said.campaign.name == "spring"
    assert said.consent is not None
    assert said.occurred_at == datetime(2018, 2, 1, tzinfo=UTC)
    assert json.loads(found.content)["shoe size"] == "43"


def test_empty_cells_are_ignored_and_source_is_the_imports() -> None:
    found = reading(
        ["mail", "name", "staff", "where"],
        {"mail": "email", "name": "last_name", "staff": "attributes.staff", "where": "source"},
        ["ada@initech.example", " ", "", ""],
    )
    assert found.submission is not None
    assert (found.submission.source, found.submission.last_name, found.submission.attributes) == ("list", None, {})


def test_defaults_of_the_source_fill_what_the_row_leaves_out() -> None:
    options = {"defaults": {"campaign.cost.amount": "2", "campaign.cost.currency": "USD", "campaign.name": "fair"}}
    for name in ("spring", ""):
        found = reading(["mail", "c"], {"mail": "email", "c": "campaign.name"}, ["a@b.example", name], **options)
        assert found.submission is not None
        assert found.submission.campaign is not None
        assert found.submission.campaign.name == (name or "fair")


@pytest.mark.parametrize(
    ("cells", "why"),
    [
        (["a@b.example"], "The row has 1 cells, the header 2"),
        (["a@b.example", "x", "y"], "The row has 3 cells, the header 2"),
        (["", ""], "Needs one of email, phone, external_id"),
        (
            ["a@b.example", "soon"],
            "When: Is no time: write 2027-01-04, 2027-01-04 09:30 or 2027-01-04T09:30:00-06:00, or say the date_format",
        ),
        (["a@b.example", "0001-01-01"], "When: Must be a time from 1970-01-01 to 2199-12-31"),
        (["a" * 600, ""], "mail: String should have at most 500 characters"),
    ],
)
def test_invalid_row_names_its_own_columns(cells: list[str], why: str) -> None:
    found = reading(["mail", "When"], {"mail": "email", "When": "occurred_at"}, cells)
    assert (found.submission, found.errors) == (None, why)


def test_a_row_of_too_many_cells_may_end_in_empty_ones() -> None:
    assert reading(["mail"], {"mail": "email"}, ["a@b.example", "", ""]).submission is not None


def test_each_field_error_is_reported_once() -> None:
    found = reading(
        ["mail", "x", "where"],
        {"mail": "email", "x": "attributes.x", "where": "source"},
        ["a@b.example", "y" * 2000, "a:b"],
    )
    assert found.errors.split("; ") == [
        "where: Is no name of a source, which has no '@', ':' or '/' at its beginning",
        "x: String should have at most 1000 characters",
    ]


def test_a_flaw_of_the_row_is_its_error() -> None:
    found = reading(["mail"], {"mail": "email"}, ["\ufffd"], error="The row is not utf-8")
    assert (found.submission, found.errors) == (None, "The row is not utf-8")


def test_corrected_row_is_read_without_formula_guard() -> None:
    found = reading(
        ["accord_row", "accord_error", "phone", "title"],
        {"phone": "phone", "title": "title"},
        ["7", "phone: …", "'+12025550143", "'=SUM"],
        is_error_file=True,
    )
    assert found.submission is not None
    assert (found.submission.phone, found.submission.title) == ("+12025550143", "=SUM")
    assert json.loads(found.content) == {"phone": "+12025550143", "title": "=SUM"}


# times -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2018-02-01", datetime(2018, 2, 1, 6, tzinfo=UTC)),
        ("2018-07-01", datetime(2018, 7, 1, 5, tzinfo=UTC)),
        ("2018-02-01 09:30", datetime(2018, 2, 1, 15, 30, tzinfo=UTC)),
        ("2018-02-01T09:30:00Z", datetime(2018, 2, 1, 9, 30, tzinfo=UTC)),
        ("2018-02-01T09:30:00.5+01:00", datetime(2018, 2, 1, 8, 30, 0, 500_000, tzinfo=UTC)),
        ("1517477400", datetime(2018, 2, 1, 9, 30, tzinfo=UTC)),
        ("1517477400000", datetime(2018, 2, 1, 9, 30, tzinfo=UTC)),
    ],
)
def test_time_without_offset_is_in_given_zone(text: str, at: datetime) -> None:
    assert parse_time(text, CHICAGO) == at


@pytest.mark.parametrize("text", ["01/02/2018", "", "yesterday", "2018-13-01", "9" * 300])
def test_invalid_time_is_returned_unchanged(text: str) -> None:
    assert parse_time(text, UTC) in (text, text[:20])


# lines of NDJSON ---------------------------------------------------------------------------------------------------
def test_a_line_is_a_submission_whose_source_may_be_left_out() -> None:
    found = line('{"email": "ada@initech.example", "attributes": {"n": 1}, "occurred_at": "2018-02-01"}', zone=CHICAGO)
    assert found.submission is not None
    assert (found.submission.source, found.submission.occurred_at) == ("list", datetime(2018, 2, 1, 6, tzinfo=UTC))
    other = line('{"source": "fair", "email": "ada@initech.example"}')
    assert other.submission is not None
    assert other.submission.source == "fair"
    assert (found.is_canonical, other.is_canonical) == (False, True)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "The row is not JSON"),
        ('{"email": NaN}', "The row is not JSON"),
        ("[1]", "The row is not a JSON object"),
        ("7", "The row is not a JSON object"),
        ('{"email": "a\\u0000b"}', "A NUL character is in the row"),
        ('{"email": "a@b.example", "shoe": 43}', "shoe: Extra inputs are not permitted"),
        ('{"email": ["a@b.example"]}', "email: Input should be a valid string"),
        ("[" * 5000, "The row is not JSON"),
    ],
)
def test_invalid_line_has_a_reason(text: str, why: str) -> None:
    assert line(text).errors == why


def test_members_and_pointers_are_mapped() -> None:
    mapping, errors = parse_column_mapping(
        {
            "columns": {"Mail": "email", "n": "attributes.employee_count", "at": "occurred_at", "o": "source"},
            "fields": {"company": "/org/name", "campaign.name": {"const": "fair"}},
        }
    )
    assert errors == []
    found = line('{"Mail": "a@b.example", "n": 7, "at": "2018-02-01", "o": "x", "org": {"name": "Initech"}}', mapping)
    assert found.submission is not None
    said = found.submission
    assert (said.email, said.attributes, said.company, said.source) == (
        "a@b.example",
        {"employee_count": 7},
        "Initech",
        "x",
    )
    assert said.occurred_at == datetime(2018, 2, 1, tzinfo=UTC)


def test_corrected_line_drops_error_columns() -> None:
    found = line('{"accord_row": 7, "accord_error": "…", "email": "a@b.example"}')
    assert found.submission is not None
    assert json.loads(found.content) == {"email": "a@b.example"}
