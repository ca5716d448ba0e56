"""A mapping makes a submission of a foreign document or row, says what is wrong with itself by pointers, and loses nothing silently."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intake.leads.domain.submission import Submission
from intake.sources.domain.mapping import (
    Const,
    FieldMapping,
    Targets,
    apply_mapping,
    normalize_time,
    number_to_text,
    resolve,
    validate_defaults,
    validate_mapping,
)

DOCUMENT = {
    "person": {
        "mail": "ada@initech.example",
        "phones": [{"n": 12025550143}],
        "a/b": "slash",
        "m~n": "tilde",
        "": "empty",
    },
    "size": 250,
    "tags": ["a", "b"],
    "at": "2025-01-24 15:30:00",
    "utm": {"campaign": "spring"},
    "nothing": None,
    "blank": "",
}


def test_a_document_becomes_a_submission() -> None:
    mapping = FieldMapping(
        {
            "email": "/person/mail",
            "phone": "/person/phones/0/n",
            "attributes.employee_count": "/size",
            "attributes.tags": "/tags",
            "attributes.country": Const("US"),
            "campaign.name": "/utm/campaign",
            "campaign.medium": "/utm/medium",
            "consent.basis": Const("consent"),
            "occurred_at": "/at",
            "first_name": "/blank",
            "last_name": "/nothing",
        }
    )

    found = apply_mapping(mapping, DOCUMENT, {"campaign.medium": "social", "attributes.country": "FR"})

    assert found == {
        "email": "ada@initech.example",
        "phone": "12025550143",
        "attributes": {"employee_count": 250, "tags": ["a", "b"], "country": "US"},
        "campaign": {"name": "spring", "medium": "social"},
        "consent": {"basis": "consent", "assumed": True},
        "occurred_at": "2025-01-24T15:30:00+00:00",
    }
    assert Submission.model_validate({"source": "form", **found}).email == "ada@initech.example"


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("", DOCUMENT),
        ("/person/a~1b", "slash"),
        ("/person/m~0n", "tilde"),
        ("/person/", "empty"),
        ("/tags/1", "b"),
        ("/tags/01", None),
        ("/tags/-", None),
        ("/tags/2", None),
        ("/tags/99999999999999999999", None),
        ("/size/deeper", None),
        ("/nowhere", None),
    ],
)
def test_pointers_are_read_by_rfc_6901(pointer: str, value: object) -> None:
    assert resolve(DOCUMENT, pointer) == value  # type: ignore[arg-type]


def test_a_mapping_to_a_field_that_is_not_there_is_a_flaw_with_its_place() -> None:
    _, errors = validate_mapping(
        {
            "fields": {
                "emial": "/a",
                "email": "no-pointer",
                "attributes.9": "/a",
                "phone": {"constant": 1},
                "title": {"const": []},
            },
            "columns": {"E-mail/1": "mail", "a": "email", "b": "email", "c": 3, "": "title"},
            "more": {},
        }
    )

    assert {flaw.pointer for flaw in errors} == {
        "/mapping/fields/emial",
        "/mapping/fields/email",
        "/mapping/fields/attributes.9",
        "/mapping/fields/phone",
        "/mapping/fields/title/const",
        "/mapping/columns/E-mail~11",
        "/mapping/columns/b",
        "/mapping/columns/c",
        "/mapping/columns/",
        "/mapping/more",
    }


def test_a_mapping_that_is_no_object_and_one_that_is_too_large_are_flaws() -> None:
    assert [flaw.pointer for flaw in validate_mapping([])[1]] == ["/mapping"]
    assert [flaw.pointer for flaw in validate_mapping({"fields": [], "columns": "x"})[1]] == [
        "/mapping/fields",
        "/mapping/columns",
    ]
    many = {f"attributes.a{number}": "/a" for number in range(151)}
    assert [flaw.pointer for flaw in validate_mapping({"fields": many})[1]] == ["/mapping/fields"]
    assert [flaw.pointer for flaw in validate_defaults({"mail": "x", "title": {}, "phone": "1"})] == [
        "/defaults/mail",
        "/defaults/title",
    ]


@pytest.mark.parametrize(
    ("said", "moment"),
    [
        ("2027-01-04T09:30:00-06:00", "2027-01-04T09:30:00-06:00"),
        ("2027-01-04T09:30:00Z", "2027-01-04T09:30:00+00:00"),
        ("2027-01-04 09:30:00", "2027-01-04T09:30:00+00:00"),
        ("2027-01-04", "2027-01-04T00:00:00+00:00"),
        (1564113600, "2019-07-26T04:00:00+00:00"),
        (1564113600000, "2019-07-26T04:00:00+00:00"),
        ("1564113600000", "2019-07-26T04:00:00+00:00"),
        ("yesterday", "yesterday"),
        (True, True),
        (10**30, 10**30),
    ],
)
def test_times_of_common_spellings_are_read(said: object, moment: object) -> None:
    assert normalize_time(said) == moment  # type: ignore[arg-type]


def test_numbers_become_text_where_text_is_due() -> None:
    assert [number_to_text(value) for value in (52, 52.0, 1.5, True, "x", None)] == ["52", "52", "1.5", True, "x", None]


@given(st.datetimes(min_value=datetime(1974, 1, 1), max_value=datetime(2199, 1, 1)))  # noqa: DTZ001
def test_seconds_and_milliseconds_name_the_same_moment(at: datetime) -> None:
    whole = at.replace(microsecond=0, tzinfo=UTC)
    assert normalize_time(int(whole.timestamp())) == normalize_time(int(whole.timestamp() * 1000)) == whole.isoformat()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@given(JSON, st.dictionaries(st.sampled_from(sorted(Targets.SHAPES)), st.text(max_size=20), max_size=8))
def test_no_document_makes_a_checked_mapping_fail(document: object, fields: dict[str, str]) -> None:
    mapping, errors = validate_mapping({"fields": fields})
    assert {flaw.pointer.removeprefix("/mapping/fields/") for flaw in errors} == set(fields) - set(mapping.fields)
    apply_mapping(mapping, document, {})  # type: ignore[arg-type]


@given(JSON)
def test_every_place_of_a_document_has_a_pointer_that_finds_it(document: object) -> None:
    def places(node: object, at: str) -> list[tuple[str, object]]:
        inner: list[tuple[str, object]] = []
        if isinstance(node, dict):
            for name, value in node.items():
                inner += places(value, f"{at}/" + name.replace("~", "~0").replace("/", "~1"))
        elif isinstance(node, list):
            for index, value in enumerate(node):
                inner += places(value, f"{at}/{index}")
        return [(at, node), *inner]

    for pointer, value in places(document, ""):
        assert resolve(document, pointer) == value  # type: ignore[arg-type]
