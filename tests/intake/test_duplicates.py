"""Suggestions of leads that may be one person. They are only ever shown; nothing merges by them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intake.domain.likeness import SCORE_MIN, Closeness, Compared, likeness
from intake.names import closeness, company_words, given_closeness, name_words

ratios = st.floats(0, 1)
compared = st.builds(
    Compared,
    name=st.one_of(st.none(), st.builds(Closeness, ratios, st.just("close"))),
    last_name=st.one_of(st.none(), st.builds(Closeness, ratios, st.just("close"))),
    first_name=st.one_of(st.none(), st.builds(Closeness, ratios, st.sampled_from(["close", "initial", "short form"]))),
    company=st.one_of(st.none(), st.builds(Closeness, ratios, st.just("close"))),
    same_email_name=st.booleans(),
    same_account=st.booleans(),
    same_phone_country=st.booleans(),
    same_title=st.booleans(),
)


@given(compared)
def test_a_score_lies_between_the_least_suggested_and_one_and_has_reasons(pair: Compared) -> None:
    found = likeness(pair)
    if found is not None:
        assert SCORE_MIN <= found.score <= 1
        assert found.reasons


def people(one: tuple[str, str], other: tuple[str, str], **more: bool) -> Compared:
    words = [tuple(map(name_words, names)) for names in (one, other)]
    return Compared(
        name=closeness(words[0][0] + words[0][1], words[1][0] + words[1][1]),
        first_name=given_closeness(words[0][0], words[1][0]),
        last_name=closeness(words[0][1], words[1][1]),
        **more,
    )


ALIKE = [
    (("Ada", "Byron"), ("ada", "BYRON")),
    (("Zoë", "Müller"), ("Zoe", "Muller")),
    (("Ada", "Byron"), ("Byron", "Ada")),
    (("Robert", "Smith"), ("Bob", "Smith")),
    (("R.", "Smith"), ("Robert", "Smith")),
    (("Søren", "Kierkegaard"), ("Soren", "Kierkegard")),
    (("Ada M.", "O'Brien"), ("Ada", "OBrien")),
    (("Dr. Ada", "Byron"), ("Ada", "Byron")),
    (("Katherine", "Johnson"), ("Catherine", "Johnson")),
    (("Ada Byron", ""), ("Ada", "Byron")),
]
DIFFERENT = [
    (("Ada", "Byron"), ("Bob", "Byron")),
    (("Ada", "Byron"), ("Ada", "Lovelace")),
    (("Anna", "Meier"), ("Peter", "Meier")),
    (("", ""), ("Ada", "Byron")),
    (("", ""), ("", "")),
    (("王", "伟"), ("李", "伟")),
]


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_names_of_one_company_that_mean_one_person_are_suggested(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert likeness(people(one, other, same_account=True)) is not None


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_different_people_of_one_company_are_not_suggested(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert likeness(people(one, other, same_account=True, same_phone_country=True)) is None


def test_a_name_alone_is_no_suggestion_and_what_else_agrees_raises_the_score() -> None:
    names = (("Ada", "Byron"), ("Ada", "Byron"))
    assert likeness(people(*names)) is None
    scores = [
        found.score if (found := likeness(people(*names, **more))) else 0.0
        for more in (
            {"same_phone_country": True},
            {"same_account": True},
            {"same_account": True, "same_email_name": True},
        )
    ]
    assert scores == sorted(set(scores))
    assert scores[0] >= SCORE_MIN


def test_the_same_name_before_the_at_sign_in_one_account_is_enough_where_no_name_is_known() -> None:
    found = likeness(Compared(same_account=True, same_email_name=True))
    assert found is not None
    assert {reason.field for reason in found.reasons} == {"account", "email_name"}


def test_companies_are_compared_without_their_legal_form() -> None:
    found = closeness(company_words("Initech, Inc."), company_words("INITECH GmbH"))
    assert found == Closeness(1.0, "same")


@given(st.text(max_size=300), st.text(max_size=300))
def test_any_text_can_be_compared_and_the_order_of_the_two_does_not_matter(one: str, other: str) -> None:
    first, second = name_words(one), name_words(other)
    assert given_closeness(first, second) == given_closeness(second, first)
    assert closeness(first, second) == closeness(second, first)
