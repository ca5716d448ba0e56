"""What is no id names nobody: two people with such a word stay two, by POST, by a file and by a hook."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from tests.intake.conftest import Running

from intake.hooks.domain.validation import SUBMISSIONS, validate_document
from intake.leads.domain.usable_ids import check_id, is_placeholder


@pytest.mark.parametrize(
    "text",
    [
        *("undefined", "Undefined", " null ", "NULL", "nil", "None", "nan", "NaN", "N/A", "n/a", "n.a.", "NA", "#N/A"),
        *(
            "#REF!",
            "#VALUE!",
            "-",
            "--",
            "—",
            ".",
            "...",
            "0",
            "00",
            "0.0",
            "000-000",
            "unknown",
            "Unbekannt",
            "anonymous",
        ),
        *("(not set)", "not set", "not_set", "not-available", "[object Object]", "<null>", '"null"', "'undefined'"),
        *(
            "00000000-0000-0000-0000-000000000000",
            "test",
            "TBD",
            "x",
            "xxx",
            "no id",
            "false",
            "True",
            "ｎｕｌｌ",
            "?",
            "*",
        ),
        *("null null", "undefined_undefined", "Not Applicable", "(none)", "{}", "[]"),
    ],
)
def test_word_for_nothing_is_no_id(text: str) -> None:
    assert is_placeholder(text)
    with pytest.raises(ValueError, match="word for nothing"):
        check_id(text)


@pytest.mark.parametrize("text", ["1.23457E+11", "1,23457E+11", "9E+15", "1.2e+20", "-1.5E+12"])
def test_number_without_its_digits_is_no_id(text: str) -> None:
    with pytest.raises(ValueError, match="lost its digits"):
        check_id(text)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "1",
            "10",
            "0001",
            "42",
            "null-7",
            "N/A-42",
            "A0",
            "0x1F",
            "x1",
            "none.of@us",
            "E12",
            "1E5",
            "12e+A",
            "nan-tes",
        ),
        *(
            "testing",
            "guest-4",
            "unknown-771",
            "true-north",
            "test-7",
            "00000000-0000-0000-0000-000000000001",
            "müller",
            "李",
        ),
        *(
            "123456789012",
            "100000000000000000001",
            "urn:li:person:0",
            "cus_00000",
            "0-1",
            "Nona",
            "Anne Onymous",
            "Blanka",
        ),
    ],
)
def test_odd_id_stays_an_id(text: str) -> None:
    assert check_id(text) == text


async def test_strangers_with_a_word_for_nothing_stay_two_people(accord: Running) -> None:
    for number, word in enumerate(["undefined", "null", "N/A", "0", "1.23457E+11"]):
        for name in ("ada", "grace"):
            submission = {"source": "web", "external_id": word, "email": f"{name}{number}@initech.example"}
            answer = await accord.marketing.post("/v1/leads", submission)
            assert answer.status_code == 422, answer.text
            assert [error["pointer"] for error in answer.json()["errors"]] == ["/external_id"]
    assert await accord.rows("SELECT 1 FROM lead") == []
    activity = {"external": {"source": "web", "id": "undefined"}, "kind": "email.clicked", "by": "lead"}
    assert (await accord.marketing.post("/v1/activities", activity)).status_code == 422


def test_hook_leaves_the_word_out_and_names_it() -> None:
    now = datetime(2027, 1, 4, tzinfo=UTC)
    document = {"source": "web", "external_id": "undefined", "email": "ada@initech.example"}
    found = validate_document(SUBMISSIONS, document, now)
    assert found.value is not None
    assert (found.value.external_id, [one.pointer for one in found.left_out]) == (None, ["/external_id"])
    assert validate_document(SUBMISSIONS, {"source": "web", "external_id": "null"}, now).value is None
