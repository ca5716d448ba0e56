"""Suggestions of leads that may be one person. They are only ever shown; nothing merges by them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.intake.conftest import Running

from intake.identity.domain.similarity import SCORE_MIN, Comparison, NameSimilarity, score_pair
from intake.identity.queries.duplicates import CANDIDATES_MAX
from intake.identity.service.name_matching import company_words, compare_given_names, compare_names, name_words

ratios = st.floats(0, 1)
compared = st.builds(
    Comparison,
    name=st.one_of(st.none(), st.builds(NameSimilarity, ratios, st.just("close"))),
    last_name=st.one_of(st.none(), st.builds(NameSimilarity, ratios, st.just("close"))),
    first_name=st.one_of(
        st.none(), st.builds(NameSimilarity, ratios, st.sampled_from(["close", "initial", "short form"]))
    ),
    company=st.one_of(st.none(), st.builds(NameSimilarity, ratios, st.just("close"))),
    same_email_name=st.booleans(),
    same_account=st.booleans(),
    same_phone_country=st.booleans(),
    same_title=st.booleans(),
)


@given(compared)
def test_a_score_lies_between_the_least_suggested_and_one_and_has_reasons(pair: Comparison) -> None:
    found = score_pair(pair)
    if found is not None:
        assert SCORE_MIN <= found.score <= 1
        assert found.reasons


def people(one: tuple[str, str], other: tuple[str, str], **more: bool) -> Comparison:
    words = [tuple(map(name_words, names)) for names in (one, other)]
    return Comparison(
        name=compare_names(words[0][0] + words[0][1], words[1][0] + words[1][1]),
        first_name=compare_given_names(words[0][0], words[1][0]),
        last_name=compare_names(words[0][1], words[1][1]),
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
    assert score_pair(people(one, other, same_account=True)) is not None


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_different_people_of_one_company_are_not_suggested(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert score_pair(people(one, other, same_account=True, same_phone_country=True)) is None


def test_a_name_alone_is_no_suggestion_and_what_else_agrees_raises_the_score() -> None:
    names = (("Ada", "Byron"), ("Ada", "Byron"))
    assert score_pair(people(*names)) is None
    scores = [
        found.score if (found := score_pair(people(*names, **more))) else 0.0
        for more in (
            {"same_phone_country": True},
            {"same_account": True},
            {"same_account": True, "same_email_name": True},
        )
    ]
    assert scores == sorted(set(scores))
    assert scores[0] >= SCORE_MIN


def test_the_same_name_before_the_at_sign_in_one_account_is_enough_where_no_name_is_known() -> None:
    found = score_pair(Comparison(same_account=True, same_email_name=True))
    assert found is not None
    assert {reason.field for reason in found.reasons} == {"account", "email_name"}


def test_companies_are_compared_without_their_legal_form() -> None:
    found = compare_names(company_words("Initech, Inc."), company_words("INITECH GmbH"))
    assert found == NameSimilarity(1.0, "same")


@given(st.text(max_size=300), st.text(max_size=300))
def test_any_text_can_be_compared_and_the_order_of_the_two_does_not_matter(one: str, other: str) -> None:
    first, second = name_words(one), name_words(other)
    assert compare_given_names(first, second) == compare_given_names(second, first)
    assert compare_names(first, second) == compare_names(second, first)


PEOPLE = [
    {"email": "ada@initech.example", "first_name": "Ada", "last_name": "Byron"},
    {"email": "a.byron@eu.initech.example", "first_name": "A.", "last_name": "Byron"},
    {"email": "ada.byron@gmail.com", "first_name": "Ada", "last_name": "BYRON", "phone": "+12025550143"},
    {"email": "bob@initech.example", "first_name": "Bob", "last_name": "Byron"},
    {"email": "ada@hooli.example", "first_name": "Ada", "last_name": "Lovelace"},
    {"email": "eve@initech.example"},
]


async def leads_of(accord: Running, people: list[dict[str, str]]) -> list[str]:
    rows = [{"source": "list", **person} for person in people]
    return [row["lead_id"] for row in (await accord.marketing.post("/v1/leads:batch", rows)).json()["results"]]


async def test_close_names_are_suggested_with_reasons_and_never_merged(accord: Running) -> None:
    ids = await leads_of(accord, [*PEOPLE[:2], {**PEOPLE[2], "title": "CTO"}, *PEOPLE[3:]])
    await leads_of(accord, [{**PEOPLE[0], "title": "CTO", "phone": "+12025550144"}])
    answer = await accord.marketing.get(f"/v1/leads/{ids[0]}/duplicates")
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert [one["lead"]["lead_id"] for one in found["items"]] == [ids[1], ids[2]]
    assert found["items"][0]["reasons"] == [
        {"field": "last_name", "how": "same"},
        {"field": "first_name", "how": "initial"},
        {"field": "account", "how": "same"},
    ]
    assert {reason["field"] for reason in found["items"][1]["reasons"]} == {
        "last_name",
        "first_name",
        "phone_country",
        "title",
    }
    assert [one["score"] for one in found["items"]] == sorted((one["score"] for one in found["items"]), reverse=True)
    assert found["items"][0]["lead"]["person"]["email"] == "a.byron@eu.initech.example"
    assert found["compared"] == 4
    assert len(await accord.rows("SELECT 1 FROM lead WHERE merged_into IS NULL")) == len(PEOPLE)


async def test_separated_or_merged_pair_is_not_suggested(accord: Running) -> None:
    ids = await leads_of(accord, PEOPLE[:2])
    made = (await accord.marketing.post(f"/v1/leads/{ids[0]}/merge", {"with": ids[1]})).json()
    assert (await accord.marketing.get(f"/v1/leads/{ids[0]}/duplicates")).json()["items"] == []
    (await accord.marketing.post(f"/v1/merges/{made['merge_id']}/revert", None)).raise_for_status()
    for one in ids:
        assert (await accord.marketing.get(f"/v1/leads/{one}/duplicates")).json()["items"] == []


async def test_suggestions_need_the_scope_to_see_persons(accord: Running) -> None:
    (lead,) = await leads_of(accord, PEOPLE[:1])
    assert (await accord.caller("public").get(f"/v1/leads/{lead}/duplicates")).status_code == 403
    assert (await accord.caller("reader").get(f"/v1/leads/{lead}/duplicates")).status_code == 200
    nobody = "019f3b1e-7a52-7c31-9a55-8a4f3c1d2e10"
    assert (await accord.marketing.get(f"/v1/leads/{nobody}/duplicates")).status_code == 404


async def test_a_large_account_is_compared_up_to_a_bound(accord: Running) -> None:
    people = [
        {"email": f"p{number}@initech.example", "first_name": "Ada", "last_name": f"Byron{number % 7}"}
        for number in range(600)
    ]
    ids = await leads_of(accord, people)
    found = (await accord.marketing.get(f"/v1/leads/{ids[-1]}/duplicates", limit="50")).json()
    assert found["compared"] <= 2 * CANDIDATES_MAX
    assert len(found["items"]) == 50
