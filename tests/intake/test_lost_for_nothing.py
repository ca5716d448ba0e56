"""Nobody is lost for one field: addresses and numbers are read as they are copied, and a field that is none goes alone."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.intake.hook_service import HookClient, left_out, outcomes, running_hook_client
from tests.intake.import_service import ImportClient, count_rows, running_import_client

from intake.imports.domain.csv_format import Csv, Dialect
from intake.leads.service.normalization import parse_email, parse_phone

ADA = "ada@initech.example"


@pytest.fixture
async def intake(database_url: str, keys_file: Path) -> AsyncIterator[HookClient]:
    async with running_hook_client(database_url, keys_file) as one:
        yield one


@pytest.fixture
async def imports(database_url: str, keys_file: Path) -> AsyncIterator[ImportClient]:
    async with running_import_client(database_url, keys_file) as one:
        yield one


@pytest.mark.parametrize(
    "text",
    [
        ADA,
        f" {ADA} ",
        f"<{ADA}>",
        f"Ada <{ADA}>",
        f'"Byron, Ada" <{ADA}>',
        f"Ada <mailto:{ADA}>",
        f"mailto:{ADA}",
        f"MAILTO:{ADA.upper()}?subject=x@y",
        f"{ADA}; zoe@initech.example",
        f"{ADA},zoe@initech.example",
        f"{ADA} zoe@initech.example",
        f"{ADA}\nzoe@initech.example",
        f"{ADA} | zoe@initech.example",
        f"{ADA};",
        f"'{ADA}'",
        f"({ADA})",
        f"{ADA}.",
        f"Ada <{ADA}>, Zoe <zoe@initech.example>",
        f"Zoe <zoe at initech>, Ada <{ADA}>",
    ],
)
def test_address_is_read_as_it_is_copied(text: str) -> None:
    assert parse_email(text).address == ADA


@pytest.mark.parametrize(
    "text",
    [
        "none",
        "ada crm@initech.example",
        "ada, crm@initech.example",
        f"{ADA} (work)",
        "Ada <none>",
        "ada@initech",
        "ada@zoe@initech.example",
        "mailto:",
        "; ;",
        "<" * 400,
        "@ " * 200,
        f"write to {ADA}",
    ],
)
def test_text_that_may_hold_the_rest_of_an_address_is_none(text: str) -> None:
    assert parse_email(text).address is None


@pytest.mark.parametrize(
    "text",
    [
        "+52 55 1234 5678",
        "+5215512345678",
        "+52 1 55 1234 5678",
        "+52 (1) 55 1234 5678",
        "+52-1-55-1234-5678",
        "+521 55 12345678",
        "whatsapp:+5215512345678",
        "tel:+52-1-55-1234-5678",
        "\u202a+52 1 55 1234 5678\u202c",
        "+52 1 (55) 1234.5678",
    ],
)
def test_mexican_mobile_is_one_number_with_and_without_its_old_digit(text: str) -> None:
    assert parse_phone(text, None).e164 == "+525512345678"


def test_digit_of_another_country_stays() -> None:
    assert parse_phone("+1 202 555 0177", None).e164 == "+12025550177"
    assert parse_phone("+521551234567", None).e164 is None
    assert parse_phone("+54 9 11 2345 6789", None).e164 == "+5491123456789"


@pytest.mark.parametrize(
    ("event", "outcome", "dropped"),
    [
        ({"phone": "+1 202 555 0188", "email": "none"}, "created", ["/email"]),
        (
            {"phone": "+1 202 555 0188", "email": "n/a", "external_id": "undefined"},
            "created",
            ["/external_id", "/email"],
        ),
        ({"id": "77", "email": "zoe@initech.example; zoe2@initech.example"}, "created", ["/email"]),
        ({"id": "77", "email": "zoe"}, "created", ["/email"]),
        ({"id": "77", "email": "zoe@", "phone": "n/a"}, "created", ["/email", "/phone"]),
        ({"id": "x" * 400, "email": ADA, "phone": "n/a"}, "created", ["/external_id", "/phone"]),
        ({"email": "Zoe <zoe@initech.example>"}, "created", []),
        ({"email": "mailto:zoe@initech.example"}, "created", []),
        ({"phone": "555 0188", "attributes": {"country": "US"}, "email": "none"}, "failed", []),
        ({"phone": "(202) 555-0188", "attributes": {"country": "US"}, "email": "none"}, "created", ["/email"]),
        ({"email": "none"}, "failed", []),
        ({"email": "none", "phone": "n/a"}, "failed", []),
    ],
)
async def test_field_that_is_none_goes_alone(
    intake: HookClient, event: dict[str, Any], outcome: str, dropped: list[str]
) -> None:
    await intake.connect("generic")
    answer = await intake.send("generic", body=json.dumps({"first_name": "Zoe", **event}).encode())
    assert outcomes(answer) == [outcome], answer.text
    assert left_out(answer.json()["results"][0]) == dropped


async def test_post_and_file_say_that_an_address_is_none(intake: HookClient) -> None:
    lead = {"source": "web", "email": "none", "phone": "+1 202 555 0188"}
    answer = await intake.marketing.post("/v1/leads", lead)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/email")
    answer = await intake.marketing.post("/v1/leads", {**lead, "email": f"{ADA}, zoe@initech.example"})
    assert (answer.status_code, left_out(answer.json())) == (201, ["/email"])


def rows_of(text: str, delimiter: str = ",") -> list[list[str]]:
    rows = Csv(Dialect(delimiter), "utf-8")
    rows.feed(text.encode())
    rows.close()
    found = []
    for row in rows.rows():
        assert row.error is None
        found.append(list(row.cells))
    return found


@pytest.mark.parametrize(
    ("line", "cells"),
    [
        ('a, "Ada", "Initech"', ["a", "Ada", "Initech"]),
        ('a, "Byron, Eve", "Initech"', ["a", "Byron, Eve", "Initech"]),
        ('a,  "Byron, Eve"', ["a", "Byron, Eve"]),
        (' "a", "b"', ["a", "b"]),
        ('a, "say ""hi""", b', ["a", 'say "hi"', "b"]),
        ('a, "two\nlines", b', ["a", "two\nlines", "b"]),
        ("a, b, c", ["a", "b", "c"]),
        ('a,5" disk,c', ["a", '5" disk', "c"]),
        ('"a","b"', ["a", "b"]),
        ("a,,c", ["a", "", "c"]),
        ("a, ,c", ["a", "", "c"]),
        (",", []),
        (",,,", []),
        (" , , ", []),
        ('"",""', []),
        ("", []),
    ],
)
def test_blank_before_a_quote_is_no_part_and_a_row_of_nothing_is_blank(line: str, cells: list[str]) -> None:
    assert rows_of(line + "\n") == [cells]


async def test_rows_of_commas_are_blank(imports: ImportClient) -> None:
    file = "first_name,email\r\nAda,b1@initech.example\r\n\r\n,\r\n , \r\nEve,b2@initech.example\r\n,\r\n,\r\n"
    found = await imports.import_file(file.encode())
    assert count_rows(found) == {"read": 2, "created": 2}
    assert [row["row"] for row in await imports.results(found["import_id"])] == [2, 6]
    found = await imports.import_file(b'email, first_name, company\r\nq@initech.example, "Ada", "Byron, Eve"\r\n')
    assert count_rows(found) == {"read": 1, "created": 1}
    [lead] = (await imports.marketing.get("/v1/leads", email="q@initech.example")).json()["items"]
    assert (lead["person"]["first_name"], lead["person"]["company"]) == ("Ada", "Byron, Eve")
