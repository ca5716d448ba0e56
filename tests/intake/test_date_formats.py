"""Dates of a file are read by the format that somebody says, or by the only one that a column can have, and shown before they count."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.intake.import_service import NDJSON, ImportClient, count_rows, running_import_client

from intake.imports.domain.dates import InvalidDateFormat, compile_format, find_format, parse_date


@pytest.fixture
async def imports(database_url: str, keys_file: Path) -> AsyncIterator[ImportClient]:
    async with running_import_client(database_url, keys_file) as one:
        yield one


@pytest.mark.parametrize(
    ("text", "format_", "moment"),
    [
        ("04-01-26", "DD-MM-YY", "2026-01-04"),
        ("04-01-26", "MM-DD-YY", "2026-04-01"),
        ("04-01-26", "YY-MM-DD", "2004-01-26"),
        ("04-01-98", "DD-MM-YY", "1998-01-04"),
        ("31.12.2026", "DD.MM.YYYY", "2026-12-31"),
        ("1/4/2026", "M/D/YYYY", "2026-01-04"),
        ("1/4/2026", "dd/mm/yyyy", "2026-04-01"),
        ("1/4/2026 15:30", "M/D/YYYY", "2026-01-04T15:30"),
        ("1/4/2026 3:30 PM", "M/D/YYYY", "2026-01-04T15:30"),
        ("1/4/2026 12:05:06 a.m.", "M/D/YYYY h:mm:ss A", "2026-01-04T00:05:06"),
        ("31.12.2026, 23:59:59", "DD.MM.YYYY HH:mm:ss", "2026-12-31T23:59:59"),
        ("Jan 4, 2026", "MMM D, YYYY", "2026-01-04"),
        ("4 January 2026", "D MMM YYYY", "2026-01-04"),
        ("04-Jan-26", "DD-MMM-YY", "2026-01-04"),
        ("20260104", "YYYYMMDD", "2026-01-04"),
        ("29/02/2028", "DD/MM/YYYY", "2028-02-29"),
        ("29/02/2026", "DD/MM/YYYY", None),
        ("13/13/2026", "DD/MM/YYYY", None),
        ("1/4/26", "DD/MM/YYYY", None),
        ("01.04.2026", "DD/MM/YYYY", None),
        ("1/4/2026 25:00", "DD/MM/YYYY", None),
        ("1/4/2026 13:00 PM", "DD/MM/YYYY", None),
        ("1/4/2026 and more", "DD/MM/YYYY", None),
        ("04-Foo-26", "DD-MMM-YY", None),
        ("٠٤/٠١/٢٠٢٦", "DD/MM/YYYY", None),
    ],
)
def test_date_is_read_by_its_format(text: str, format_: str, moment: str | None) -> None:
    expected = None if moment is None else datetime.fromisoformat(moment).replace(tzinfo=UTC)
    assert parse_date(text, format_, UTC) == expected


@pytest.mark.parametrize(
    "format_",
    ["", "DD.MM", "YYYY", "DD.DD.YYYY", "%d.%m.%Y", "DD.MM.YYYY Z", "D" * 31, "(a+)+DDMMYYYY", "DD.MM.YYYY.YY"],
)
def test_what_names_no_day_month_and_year_is_no_format(format_: str) -> None:
    with pytest.raises(InvalidDateFormat):
        compile_format(format_)


@pytest.mark.parametrize(
    ("values", "format_"),
    [
        (["31/12/2026"], "DD/MM/YYYY"),
        (["12/31/2026"], "MM/DD/YYYY"),
        (["01/02/2026", "31/12/2026"], "DD/MM/YYYY"),
        (["01/02/2026", "2026-01-05", "31/12/2026 10:00"], "DD/MM/YYYY"),
        (["31.12.2026"], "DD.MM.YYYY"),
        (["2026/1/4"], "YYYY/MM/DD"),
        (["31-12-99"], "DD-MM-YY"),
        (["4 Jan 2026"], "DD MMM YYYY"),
        (["Jan 4, 2026"], "MMM DD, YYYY"),
        (["01/02/2026"], None),
        (["01/02/2026", "12/11/2026"], None),
        (["31/12/2026", "12/31/2026"], None),
        (["13-05-26"], None),
        (["04-Jan-26"], None),
        (["31/12/2026", "yesterday"], None),
        (["2026-01-04"], None),
        ([], None),
    ],
)
def test_format_is_found_only_where_day_and_month_cannot_be_exchanged(values: list[str], format_: str | None) -> None:
    assert find_format(values) == format_


def file_of(*dates: str) -> bytes:
    rows = [f'p{number}@initech.example,"{date}"' for number, date in enumerate(dates)]
    return "\n".join(["email,created", *rows]).encode()


async def captured(imports: ImportClient) -> list[str]:
    rows = await imports.rows("SELECT captured_at FROM lead ORDER BY email")
    return [row["captured_at"].astimezone(UTC).strftime("%Y-%m-%dT%H:%M") for row in rows]


async def test_format_by_column_is_applied_and_three_values_are_shown(imports: ImportClient) -> None:
    body = file_of("04-01-26", "05-01-26", "06-01-26 10:30", "07-01-26", "2026-01-08", "nonsense")
    asked: dict[str, Any] = {"date_format": json.dumps({"created": "DD-MM-YY"}), "timezone": "Europe/Berlin"}
    shown = [
        ("04-01-26", "2026-01-03T23:00:00Z"),
        ("05-01-26", "2026-01-04T23:00:00Z"),
        ("06-01-26 10:30", "2026-01-06T09:30:00Z"),
    ]
    for dry_run in ("true", "false"):
        found = await imports.import_file(body, dry_run=dry_run, **asked)
        assert count_rows(found) == {"read": 6, "created": 5, "failed": 1}
        (times,) = found["times"]
        assert (times["column"], times["date_format"], times["found_out"]) == ("created", "DD-MM-YY", False)
        assert [(one["text"], one["read_as"]) for one in times["examples"]] == shown
    assert await captured(imports) == [
        "2026-01-03T23:00",
        "2026-01-04T23:00",
        "2026-01-06T09:30",
        "2026-01-06T23:00",
        "2026-01-07T23:00",
    ]


async def test_certain_format_is_found_and_an_uncertain_one_is_not_guessed(imports: ImportClient) -> None:
    certain = await imports.import_file(file_of("01/02/2026", "31/12/2025"))
    assert count_rows(certain) == {"read": 2, "created": 2}
    (times,) = certain["times"]
    assert (times["date_format"], times["found_out"]) == ("DD/MM/YYYY", True)
    assert await captured(imports) == ["2026-02-01T00:00", "2025-12-31T00:00"]
    uncertain = await imports.import_file(file_of("01/02/2026", "02/03/2026"), dry_run="true")
    assert count_rows(uncertain) == {"read": 2, "failed": 2}
    (times,) = uncertain["times"]
    assert (times["date_format"], [one["read_as"] for one in times["examples"]]) == (None, [None, None])
    assert "date_format" in uncertain["quality"]["examples"][0]["error"]


async def test_text_that_is_no_date_is_not_shown(imports: ImportClient) -> None:
    for text in (
        "call Müller@home",
        "Ada Byron",
        "+1 202 555 0177",
        "202-555-0177",
        "ada@initech.example",
        "12025550177 x",
    ):
        found = await imports.import_file(file_of(text, "2026-01-04", "01/02/2026"), dry_run="true")
        assert [one["text"] for one in found["times"][0]["examples"]] == ["2026-01-04", "01/02/2026"]


async def test_columns_of_ndjson_have_formats_too(imports: ImportClient) -> None:
    line = json.dumps({"mail": "a@initech.example", "when": "04.01.2026"}).encode()
    mapping = json.dumps({"mail": "email", "when": "occurred_at"})
    found = await imports.import_file(line, NDJSON, mapping=mapping, date_format="DD.MM.YYYY")
    assert count_rows(found) == {"read": 1, "created": 1}
    assert await captured(imports) == ["2026-01-04T00:00"]


@pytest.mark.parametrize(
    "date_format",
    ["DD.MM", "{", "[]", '{"created": 1}', '{"created": "%d"}', '{"nobody": "DD.MM.YYYY"}', '{"email": "DD.MM.YYYY"}'],
)
async def test_format_that_cannot_be_meant_is_refused(imports: ImportClient, date_format: str) -> None:
    answer = await imports.send(file_of("04.01.2026"), date_format=date_format)
    assert (answer.status_code, answer.json()["errors"][0]["parameter"]) == (422, "date_format"), answer.text


async def test_same_text_by_another_format_is_taken(imports: ImportClient) -> None:
    for format_, outcome in (("DD/MM/YYYY", "created"), ("DD/MM/YYYY", "unchanged"), ("MM/DD/YYYY", "updated")):
        found = await imports.import_file(file_of("01/02/2026"), date_format=format_)
        assert count_rows(found) == {"read": 1, outcome: 1}
