"""Ratings of D&B and the BBB as they really are written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intake.policy.domain.ratings import (
    BBB_GRADES,
    BBB_UNRATED,
    NotARating,
    parse_bbb_grade,
    parse_dnb_rating,
    parse_paydex,
)


@pytest.mark.parametrize(
    ("text", "strength", "appraisal"),
    [
        ("5A1", "5A", 1),
        ("4A2", "4A", 2),
        ("1A4", "1A", 4),
        ("BA1", "BA", 1),
        ("CB3", "CB", 3),
        ("HH4", "HH", 4),
        ("1R2", "1R", 2),
        ("2R4", "2R", 4),
        ("A1", "A", 1),
        ("H3", "H", 3),
        ("5AA2", "5AA", 2),
        ("AA3", "AA", 3),
        ("N4", "N", 4),
        ("O3", "O", 3),
        ("NB2", "NB", 2),
        ("5A 1", "5A", 1),
        (" 5a1\t", "5A", 1),
        ("5A-1", "5A", 1),
        ("5A/2", "5A", 2),
        ("5A – 3", "5A", 3),
        ("1r2", "1R", 2),
    ],
)
def test_a_rating_with_an_appraisal_gives_strength_and_appraisal(text: str, strength: str, appraisal: int) -> None:
    found = parse_dnb_rating(text)
    assert (found.strength, found.appraisal, found.active) == (strength, appraisal, True)


@pytest.mark.parametrize(
    "text", ["ER1", "er7", "ER8", "ERN", "--", "- -", "—", "DS", "ds", "INV", "NB", "BR", "FB", "5A-", "O-", "3AS"]
)
def test_a_rating_without_an_appraisal_says_nothing_of_credit(text: str) -> None:
    found = parse_dnb_rating(text)
    assert (found.appraisal, found.active) == (None, True)


def test_nq_is_a_business_that_is_no_longer_active() -> None:
    assert not parse_dnb_rating("nq").active


@pytest.mark.parametrize(
    "text",
    ["", "5A", "5A5", "5A0", "6A1", "0A1", "A", "1R1", "2R1", "3R2", "ER0", "ER9", "ER", "5A11", "AAA", "good", "5A1 2",
     "N/A", "1", "5A--1", "５A1", "5A१"],
)  # fmt: skip
def test_what_stands_in_no_key_is_no_rating(text: str) -> None:
    with pytest.raises(NotARating):
        parse_dnb_rating(text)


@given(st.sampled_from("5A 4A 3A 2A 1A BA BB CB CC DC DD EE FF GG HH".split()), st.integers(1, 4), st.booleans(),
       st.sampled_from(["", " ", "-", "/", "  "]))  # fmt: skip
def test_case_and_separators_do_not_count(strength: str, appraisal: int, lower: bool, separator: str) -> None:
    text = f" {strength}{separator}{appraisal} "
    assert parse_dnb_rating(text.lower() if lower else text) == parse_dnb_rating(f"{strength}{appraisal}")


@given(st.text(max_size=12))
def test_any_text_is_a_rating_or_is_not(text: str) -> None:
    for read in (parse_dnb_rating, parse_bbb_grade, parse_paydex):
        try:
            read(text)
        except NotARating:
            continue


@pytest.mark.parametrize(("value", "number"), [(80, 80), ("80", 80), (" 7 ", 7), (0, 0), (100, 100), (79.0, 79), ("UN", None),
                                               ("un", None), ("N/A", None), ("--", None)])  # fmt: skip
def test_a_paydex_is_a_whole_number_to_a_hundred_or_unavailable(value: int | float | str, number: int | None) -> None:
    assert parse_paydex(value) == number


@pytest.mark.parametrize("value", [101, -1, 79.5, True, "101", "eighty", "", "8 0 0", "٨٠", "1e1"])
def test_another_value_is_no_paydex(value: int | float | str) -> None:
    with pytest.raises(NotARating):
        parse_paydex(value)


def test_the_grades_of_the_bbb_are_in_its_order() -> None:
    assert [parse_bbb_grade(grade) for grade in BBB_GRADES] == list(range(14))
    assert (
        parse_bbb_grade("A+")
        < parse_bbb_grade("a")
        < parse_bbb_grade(" A− ")
        < parse_bbb_grade("b +")
        < parse_bbb_grade("F")
        < parse_bbb_grade("nr")
    )
    assert parse_bbb_grade("No Rating") == parse_bbb_grade("not rated") == BBB_UNRATED


@pytest.mark.parametrize("text", ["", "E", "F+", "F-", "A++", "AA", "A1", "good"])
def test_no_other_grade_is_one_of_the_bbb(text: str) -> None:
    with pytest.raises(NotARating):
        parse_bbb_grade(text)
