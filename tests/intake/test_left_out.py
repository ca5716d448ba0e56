"""Numbers, countries and moments are read as people write them, and what cannot be read is named with its reason by every way in."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.intake.hook_service import HookClient, running_hook_client
from tests.intake.import_service import NDJSON, ImportClient, running_import_client

from intake.leads.domain.countries import country_code, suggest_countries
from intake.policy.domain.attributes import NotOfType, convert_to_type, describe_misfit
from intake.sources.domain.mapping import parse_time

POLICY: dict[str, Any] = {
    "kind": "policy",
    "title": "What is read",
    "attributes": {
        "employee_count": {"type": "integer"},
        "revenue": {"type": "number"},
        "country": {"type": "country"},
        "duns": {"type": "string"},
    },
    "parameters": [{"key": "size", "rule": "range", "attribute": "employee_count", "min": 1, "consequence": "flag"}],
}


@pytest.fixture
async def intake(database_url: str, keys_file: Path) -> AsyncIterator[HookClient]:
    async with running_hook_client(database_url, keys_file) as one:
        yield one


@pytest.fixture
async def imports(database_url: str, keys_file: Path) -> AsyncIterator[ImportClient]:
    async with running_import_client(database_url, keys_file) as one:
        yield one


@pytest.mark.parametrize(
    ("said", "whole", "number"),
    [
        ("250", 250, 250),
        (" 250 ", 250, 250),
        ("1.000", 1000, None),
        ("12.000", 12000, None),
        ("1,000", 1000, None),
        ("1.500", 1500, None),
        ("-1,000", -1000, None),
        ("+12,000", 12000, None),
        ("1,234,567", 1234567, 1234567),
        ("1.234.567", 1234567, 1234567),
        ("1'000", 1000, 1000),
        ("1\u2019000", 1000, 1000),
        ("1 000", 1000, 1000),
        ("1\u00a0000\u00a0000", 1000000, 1000000),
        ("1\u202f000", 1000, 1000),
        ("12,50,000", 1250000, 1250000),
        ("1,234.56", None, 1234.56),
        ("1.234,56", None, 1234.56),
        ("1,000.00", 1000, 1000),
        ("12,5", None, 12.5),
        ("12.50", None, 12.5),
        ("0.123", None, 0.123),
        ("0,500", None, 0.5),
        ("1234.567", None, 1234.567),
        (".5", None, 0.5),
        ("1.2E+06", 1200000, 1200000),
        ("٢٥٠", 250, 250),
        ("２５０", 250, 250),
        ("\u22125", -5, -5),
        ("1_000", None, None),
        ("1.2.3", None, None),
        ("1,2,3", None, None),
        ("1,,000", None, None),
        ("1.000.00", None, None),
        ("01,000", None, None),
        ("1,000,00", None, None),
        ("100-500", None, None),
        ("$1,200", None, None),
        ("twelve", None, None),
        ("nan", None, None),
        ("Infinity", None, None),
        ("0x10", None, None),
        (250.0, 250, 250),
        (1.5, None, 1.5),
        (True, None, None),
    ],
)
def test_number_is_read_as_people_write_it_and_never_a_thousandth(said: Any, whole: Any, number: Any) -> None:
    for type_, expected in (("integer", whole), ("number", number)):
        if expected is None:
            with pytest.raises(NotOfType):
                convert_to_type(said, type_)  # type: ignore[arg-type]
        else:
            assert convert_to_type(said, type_) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("US", "US"),
        ("us", "US"),
        (" US ", "US"),
        ("usa", "US"),
        ("U.S.", "US"),
        ("U.S.A.", "US"),
        ("u.k.", "GB"),
        ("UK", "GB"),
        ("NA", "NA"),
        ("Namibia", "NA"),
        ("NAM", "NA"),
        ("The Netherlands", "NL"),
        ("Cote d'Ivoire", "CI"),
        ("N/A", None),
        ("n/a", None),
        ("N.A.", None),
        ("n.a", None),
        ("N-A", None),
        ("N A", None),
        ("N\\A", None),
        ("#N/A", None),
        ("(NA)", None),
        ("N_A", None),
        ("D-E", None),
        ("D.E.", None),
        ("-", None),
        ("A/U/T", None),
        ("NULL", None),
    ],
)
def test_code_of_a_country_is_letters_written_together(text: str, code: str | None) -> None:
    assert country_code(text) == code


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("Korea", ["KP", "KR"]),
        ("Philipines", ["PH"]),
        ("Philippins", ["PH"]),
        ("Germnay", ["DE"]),
        ("Brasil", ["BR"]),
        ("Untied States", ["US"]),
        ("America", ["US"]),
        ("Swizerland", ["CH"]),
        ("Columbia", ["CO"]),
        ("Turkye", ["TR"]),
        ("N/A", []),
        ("unknown", []),
        ("Initech", []),
        ("x" * 200, []),
    ],
)
def test_name_that_is_nearly_a_country_is_proposed(text: str, codes: list[str]) -> None:
    assert country_code(text) is None
    assert [proposal[-3:-1] for proposal in suggest_countries(text)] == codes


@pytest.mark.parametrize(
    ("said", "moment"),
    [
        (46026, None),
        (46026.5, None),
        ("46026", None),
        (0, None),
        ("0", None),
        (-1, None),
        (99_999_999, None),
        ("99999999", None),
        (True, None),
        ("1_767_225_600", None),
        ("١٧٦٧٢٢٥٦٠٠", None),
        (1767225600, "2026-01-01T00:00:00"),
        ("1767225600", "2026-01-01T00:00:00"),
        (1767225600.5, "2026-01-01T00:00:00.500000"),
        ("1767225600.5", "2026-01-01T00:00:00.500000"),
        (1767225600000, "2026-01-01T00:00:00"),
        ("1767225600000", "2026-01-01T00:00:00"),
        ("2026-01-01", "2026-01-01T00:00:00"),
        ("01/02/2026", None),
    ],
)
def test_number_is_a_moment_only_where_its_digits_are(said: Any, moment: str | None) -> None:
    found = parse_time(said)
    assert (found.isoformat() if isinstance(found, datetime) else None) == (moment and f"{moment}+00:00")


def test_reason_names_no_value() -> None:
    for value, type_, words in (
        ("Philipines", "country", "Is no country: nearly Philippines (PH)"),
        ("secret land", "country", "Is no country"),
        ("1.500", "number", "Is not a number: a point or comma before three digits can be read in two ways"),
        ("twelve", "integer", "Is not a whole number"),
    ):
        with pytest.raises(NotOfType) as caught:
            convert_to_type(value, type_)  # type: ignore[arg-type]
        assert describe_misfit(caught.value, type_) == words  # type: ignore[arg-type]


BAD = {"employee_count": "twelve", "revenue": "1.500", "country": "Philipines", "duns": "15-0", "shoe_size": 43}
LEFT_OUT = [
    {"pointer": "/attributes/employee_count", "message": "Is not a whole number"},
    {
        "pointer": "/attributes/revenue",
        "message": "Is not a number: a point or comma before three digits can be read in two ways",
    },
    {"pointer": "/attributes/country", "message": "Is no country: nearly Philippines (PH)"},
]


async def test_unread_value_is_named_in_the_answer_of_each_way_in(intake: HookClient) -> None:
    await intake.sign(POLICY)
    lead = {"source": "web", "email": "a@initech.example", "attributes": BAD}
    answer = await intake.marketing.post("/v1/leads", lead, **{"Idempotency-Key": "one"})
    assert (answer.status_code, answer.json()["left_out"]) == (201, LEFT_OUT)
    again = await intake.marketing.post("/v1/leads", lead, **{"Idempotency-Key": "one"})
    assert (again.json()["outcome"], again.json()["left_out"]) == ("replayed", LEFT_OUT)
    batch = (await intake.marketing.post("/v1/leads:batch", [lead, {**lead, "attributes": {}}])).json()["results"]
    assert [row["left_out"] for row in batch] == [LEFT_OUT, []]
    await intake.connect("generic")
    body = {"email": "b@initech.example", "title": "x" * 501, "attributes": BAD, "created_at": 46026}
    (result,) = (await intake.send("generic", body=json.dumps(body).encode())).json()["results"]
    assert result["left_out"] == [
        {
            "pointer": "/occurred_at",
            "message": "Must be an RFC 3339 time with an offset, such as 2027-01-04T09:30:00-06:00",
        },
        {"pointer": "/title", "message": "String should have at most 500 characters"},
        *LEFT_OUT,
    ]
    events = await intake.events("lead.captured.v1")
    assert [one["state"]["attributes"] for one in events] == [{"duns": "15-0"}] * 2


@pytest.mark.parametrize("dry_run", [True, False])
async def test_unread_values_of_a_file_are_counted_with_their_first_row(imports: ImportClient, dry_run: bool) -> None:
    await imports.sign(POLICY)
    file = "email,Staff,Country\n" + "".join(
        f"p{number}@initech.example,{staff},{country}\n"
        for number, (staff, country) in enumerate(
            [("12", "US"), ("twelve", "Korea"), ("1.000", "Philipines"), ("many", "Philipines"), ("", "")]
        )
    )
    mapping = '{"email":"email","Staff":"attributes.employee_count","Country":"attributes.country"}'
    found = await imports.import_file(file.encode(), mapping=mapping, dry_run=str(dry_run).lower())
    assert (found["rows"]["created"], found["rows"]["failed"]) == (5, 0)
    staff = {"pointer": "/attributes/employee_count", "column": "Staff", "message": "Is not a whole number"}
    country = {"pointer": "/attributes/country", "column": "Country"}
    korea = "Is no country: nearly Democratic People's Republic of Korea (KP) or Republic of Korea (KR)"
    assert found["quality"]["left_out"] == [
        {**staff, "rows": 2, "first_row": 3},
        {**country, "message": korea, "rows": 1, "first_row": 3},
        {**country, "message": "Is no country: nearly Philippines (PH)", "rows": 2, "first_row": 4},
    ]


async def test_mapping_to_an_undeclared_attribute_is_refused(intake: HookClient) -> None:
    target = {"fields": {"attributes.shoe_size": "/size", "attributes.country": "/country"}}
    form = {"adapter": "generic", "mapping": {**target, "columns": {"Hat": "attributes.hat_size"}}}
    assert (await intake.put("before", {**form, "defaults": {"attributes.glove": 7}})).status_code == 201
    await intake.sign(POLICY)
    answer = await intake.put("form", {**form, "defaults": {"attributes.glove": 7, "attributes.country": "US"}})
    assert answer.status_code == 422
    assert [one["pointer"] for one in answer.json()["errors"]] == [
        "/mapping/fields/attributes.shoe_size",
        "/mapping/columns/Hat",
        "/defaults/attributes.glove",
    ]
    for mapping, pointer in (
        ('{"email":"email","size":"attributes.shoe_size"}', "/size"),
        ('{"columns":{"email":"email","size":"attributes.shoe_size"}}', "/columns/size"),
        ("before", "/fields/attributes.shoe_size"),
    ):
        answer = await intake.marketing.http.post(
            "/v1/imports",
            content=b"email,size\na@initech.example,43\n",
            headers={"Content-Type": "text/csv"},
            params={"source": "list", "mapping": mapping},
        )
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer), answer.text
    answer = await intake.marketing.http.post(
        "/v1/imports",
        content=b'{"email":"a@initech.example","size":43}\n',
        headers=NDJSON,
        params={"source": "list", "mapping": '{"fields":{"email":"/email","attributes.shoe_size":"/size"}}'},
    )
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/fields/attributes.shoe_size")


def test_moment_of_a_number_is_in_utc() -> None:
    assert parse_time(1767225600) == datetime(2026, 1, 1, tzinfo=UTC)
