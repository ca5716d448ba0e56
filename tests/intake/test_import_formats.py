"""Every format of files is one module and one line of the registry; nothing else knows which there are."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from datetime import UTC
from pathlib import Path

import pytest
from pydantic_core import to_json
from tests.intake.import_service import ImportClient, count_rows, running_import_client

from intake.imports.domain import formats
from intake.imports.domain.csv_format import CsvFormat
from intake.imports.domain.formats import FORMATS
from intake.imports.domain.imports import Failure
from intake.imports.domain.rows import DateFormats, Plan, RowReader
from intake.imports.domain.table import Row

FILES = {
    "csv": b"email,title\nada@initech.example,=1\nnobody,'x\n",
    "ndjson": b'{"email": "ada@initech.example", "title": "=1"}\n{"email": 7, "title": "\'x"}\n',
}
"""A file of each format, of two rows with the same columns."""


class TsvFormat(CsvFormat):
    """Tabs between cells, whatever else stands in them."""

    name = "tsv"
    media_type = "text/tab-separated-values"

    def complete(
        self, plan: Plan, sample: bytes, attributes: Sequence[str], date_formats: DateFormats, *, whole: bool
    ) -> Plan:
        return super().complete(
            plan.model_copy(update={"delimiter": "\t"}), sample, attributes, date_formats, whole=whole
        )


@pytest.fixture
async def accord(database_url: str, keys_file: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ImportClient]:
    tsv = TsvFormat()
    monkeypatch.setitem(formats.FORMATS, tsv.name, tsv)
    monkeypatch.setitem(formats.BY_MEDIA_TYPE, tsv.media_type, tsv)
    async with running_import_client(database_url, keys_file) as one:
        yield one


def read(name: str, body: bytes) -> tuple[Plan, RowReader, list[Row]]:
    """The plan of a file, what makes submissions of its rows, and the rows."""
    form = FORMATS[name]
    asked = Plan(format=name, encoding="utf-8", stored_encoding="utf-8", mapping_from=form.mapping_default)
    plan = form.complete(asked, body, [], None, whole=True)
    rows = form.rows(plan, plan.start, plan.number)
    rows.feed(body[plan.start :])
    rows.close()
    return plan, form.reader(plan, "list", UTC, to_json), list(rows.rows())


def contents(name: str, body: bytes) -> list[dict[str, object]]:
    """What the rows of a file say, as they are kept."""
    _, reader, rows = read(name, body)
    return [json.loads(reader.read(row).content) for row in rows]


def test_each_registered_format_is_tried_here() -> None:
    assert set(FILES) == set(FORMATS)


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_errors_is_a_file_of_the_same_rows(name: str) -> None:
    form, body = FORMATS[name], FILES[name]
    plan, reader, rows = read(name, body)
    failures = [Failure(row.number, "failed", "=wrong", reader.encode_original(row)) for row in rows]
    errors = form.begin_errors(plan) + b"".join(form.encode_failure(plan, failure) for failure in failures)
    assert errors.count(b"wrong") == len(failures) == 2
    assert contents(name, errors) == contents(name, body)


async def test_a_format_that_is_registered_is_imported(accord: ImportClient) -> None:
    body = b"email\tcompany\nada@initech.example\tInitech, Inc.\nnobody\tx;y\n"
    headers = {"Content-Type": TsvFormat.media_type}
    found = await accord.import_file(body, headers)
    assert count_rows(found) == {"read": 2, "created": 1, "failed": 1}
    assert found["file"]["format"] == "tsv"
    (lead,) = await accord.rows("SELECT company FROM lead")
    assert lead["company"] == "Initech, Inc."
    errors = await accord.marketing.get(f"/v1/imports/{found['import_id']}/errors")
    assert errors.headers["content-type"].startswith(TsvFormat.media_type)
    assert "errors.tsv" in errors.headers["content-disposition"]
    corrected = errors.text.replace("nobody", "bob@initech.example").encode()
    assert count_rows(await accord.import_file(corrected, headers)) == {"read": 1, "created": 1}
