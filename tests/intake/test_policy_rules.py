"""Each rule of the data policy: what meets it, what does not and why, and which drafts of it are refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import phonenumbers
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.contracts.codec import from_object, to_object
from accord.contracts.values import PolicyFailure
from intake.leads.domain.countries import COUNTRIES, country_code
from intake.leads.domain.facts import EmailFacts, Facts, PhoneFacts
from intake.leads.domain.quality import Quality
from intake.policy.domain import policy
from intake.policy.domain.evaluator import PolicyEvaluator
from intake.policy.domain.naics import SECTORS, resolve_industry
from intake.policy.domain.words import parameter_rows

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
TYPES = {
    "employees": "integer",
    "revenue": "number",
    "industry": "string",
    "country": "country",
    "line": "string",
    "dnb": "string",
    "paydex": "integer",
    "paydex_text": "string",
    "bbb": "string",
    "public": "boolean",
}


def draft(*rules: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "kind": "policy",
        "title": "What we ask",
        "attributes": {name: {"type": type_} for name, type_ in TYPES.items()},
        "parameters": [{"key": f"p{n}", "consequence": "flag", **rule} for n, rule in enumerate(rules)],
        **more,
    }


def evaluator(*rules: dict[str, Any], **more: Any) -> PolicyEvaluator:
    return PolicyEvaluator.of(policy.parse_policy(draft(*rules, **more)))


def facts(
    fields: dict[str, str] | None = None,
    *,
    occurred_at: datetime | None = None,
    given_at: datetime | None = None,
    **attributes: Any,
) -> Facts:
    return Facts(fields or {}, attributes, None, None, occurred_at, given_at)


def judged(rule: dict[str, Any], about: Facts) -> Quality:
    return evaluator(rule).evaluate(about, 1, NOW)[0]


def reason(rule: dict[str, Any], about: Facts) -> str | None:
    failed = judged(rule, about).failed
    return failed[0].reason if failed else None


# --- Lists -----------------------------------------------------------------------------------------------------------

NAICS = {
    "rule": "one_of",
    "attribute": "industry",
    "match": "naics",
    "values": ["31-33", 51, "52", "Retail Trade", "SaaS"],
}


@pytest.mark.parametrize(
    ("value", "holds"),
    [
        ("311812", True),
        ("334111", True),
        ("manufacturing", True),
        ("Manufacturing", True),
        ("518210", True),
        ("51", True),
        ("Information", True),
        ("finance and insurance", True),
        ("44", True),
        ("451110", True),
        ("retail trade", True),
        ("saas", True),
        (522110, True),
        ("341000", False),
        ("541511", False),
        ("Construction", False),
        ("SaaS platform", False),
    ],
)
def test_industry_matches_by_code_or_name(value: Any, holds: bool) -> None:
    assert (reason(NAICS, facts(industry=value)) is None) is holds


@given(st.sampled_from(sorted(SECTORS)), st.integers(0, 9_999))
def test_every_code_of_a_sector_lies_under_the_sector(sector: str, rest: int) -> None:
    codes, names = resolve_industry(sector)
    assert names == [SECTORS[sector].lower()]
    assert resolve_industry(SECTORS[sector]) == (codes, names)
    for code in codes:
        rule = {"rule": "one_of", "attribute": "industry", "match": "naics", "values": [sector]}
        assert reason(rule, facts(industry=f"{code}{rest:04}")) is None


COUNTRY = {"rule": "one_of", "attribute": "country", "values": ["us", "DEU", "United Kingdom"]}


@pytest.mark.parametrize(
    ("value", "code"),
    [("US", "US"), ("us", "US"), ("USA", "US"), ("U.S.", "US"), ("United States", "US"), ("Germany", "DE"), ("UK", "GB"),
     ("Great Britain", "GB")],
)  # fmt: skip
def test_a_country_is_one_however_it_is_written(value: str, code: str) -> None:
    quality, public, _ = evaluator(COUNTRY).evaluate(facts(country=value), 1, NOW)
    assert (quality.verdict, public) == ("accepted", {"country": code})


@pytest.mark.parametrize(("value", "why"), [("FR", "country is not on the list"), ("Freedonia", "country is no country"),
                                            (49, "country is no country"), ("", "country is missing")])  # fmt: skip
def test_another_country_or_none_fails_with_its_reason(value: Any, why: str) -> None:
    assert reason(COUNTRY, facts(country=value)) == why


@given(st.sampled_from(sorted(COUNTRIES)))
def test_every_code_is_its_own_country(code: str) -> None:
    assert country_code(code) == country_code(code.lower()) == code


def test_every_region_with_phone_numbers_is_a_country() -> None:
    assert set(phonenumbers.SUPPORTED_REGIONS) - COUNTRIES == {"AC", "TA"}  # islands that are part of Saint Helena's SH


@pytest.mark.parametrize("nothing", ["", " ", "the", "and the", "-", "x" * 1_000])
def test_no_country_comes_of_nothing(nothing: str) -> None:
    assert country_code(nothing) is None


def test_a_list_on_a_number_or_a_truth_value_is_compared_as_its_type() -> None:
    rule = {"rule": "one_of", "attribute": "revenue", "values": ["1.50", 2]}
    assert [reason(rule, facts(revenue=one)) for one in (1.5, "1.5", 2, "2.0")] == [None] * 4
    assert reason({"rule": "one_of", "attribute": "public", "values": ["yes"]}, facts(public="true")) is None


# --- Patterns --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "value", "holds"),
    [
        ("[A-Z]{2}-[0-9]+", "DE-17", True),
        ("[A-Z]{2}-[0-9]+", "DE-17 ", True),  # a value is read without white space around it
        ("[A-Z]{2}-[0-9]+", "xDE-17", False),
        ("[A-Z]{2}-[0-9]+", "DE-17x", False),
        ("[A-Z]{2}-[0-9]+", "de-17", False),
        ("(?i)[A-Z]{2}-[0-9]+", "de-17", True),
        ("a|b", "b", True),
        ("a|b", "ab", False),
        ("^a$", "a", True),
        (".*soft.*", "the software", True),
        (".*", "two\nlines", False),
    ],
)
def test_a_pattern_matches_the_whole_text(pattern: str, value: str, holds: bool) -> None:
    why = reason({"rule": "pattern", "attribute": "line", "pattern": pattern}, facts(line=value))
    assert why == (None if holds else "line does not match the pattern")


def test_a_pattern_can_be_asked_of_a_field() -> None:
    rule = {"rule": "pattern", "field": "title", "pattern": "(?i).*(chief|head|vp).*"}
    assert reason(rule, facts({"title": "Head of Research"})) is None
    assert reason(rule, facts({"title": "Intern"})) == "title does not match the pattern"
    assert reason(rule, facts()) == "title is missing"


def test_no_pattern_takes_long() -> None:
    rule = {"rule": "pattern", "field": "title", "pattern": "(a+)+b"}
    assert reason(rule, facts({"title": "a" * 500})) == "title does not match the pattern"


# --- Ratings ---------------------------------------------------------------------------------------------------------

DNB = {"rule": "dnb_rating", "attribute": "dnb", "appraisal_max": 2}


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("5A1", None),
        ("hh2", None),
        ("1R 2", None),
        ("3A3", "dnb has a credit appraisal worse than 2"),
        ("2R4", "dnb has a credit appraisal worse than 2"),
        ("ER7", "dnb has no credit appraisal"),
        ("--", "dnb has no credit appraisal"),
        ("DS", "dnb has no credit appraisal"),
        ("NQ", "dnb says that the business is not active"),
        ("AAA+", "dnb is no D&B rating"),
        (None, "dnb is missing"),
    ],
)
def test_dnb_rating_is_compared_by_credit_appraisal(value: Any, why: str | None) -> None:
    assert reason(DNB, facts(dnb=value)) == why


@pytest.mark.parametrize("value", ["ER7", "--", "DS", "INV", None])
def test_no_appraisal_is_no_bad_one_where_a_missing_value_passes(value: Any) -> None:
    assert judged({**DNB, "missing": "pass"}, facts(dnb=value)).outcomes == "n"


@pytest.mark.parametrize("value", ["NQ", "3A3", "nonsense"])
def test_bad_rating_fails_even_where_missing_passes(value: str) -> None:
    assert judged({**DNB, "missing": "pass"}, facts(dnb=value)).outcomes == "f"


@pytest.mark.parametrize(
    ("value", "why"),
    [(80, None), ("75", None), (74, "below 75"), ("200", "no PAYDEX from 0 to 100"), (None, "missing")],
)
def test_a_paydex_has_a_least_value(value: Any, why: str | None) -> None:
    found = reason({"rule": "dnb_rating", "attribute": "paydex", "paydex_min": 75}, facts(paydex=value))
    assert found == (why and f"paydex is {why}")


def test_an_unavailable_paydex_is_a_missing_one() -> None:
    rule = {"rule": "dnb_rating", "attribute": "paydex_text", "paydex_min": 75, "missing": "pass"}
    assert [judged(rule, facts(paydex_text=value)).outcomes for value in ("UN", "80", "70")] == ["n", "p", "f"]


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("A+", None),
        ("a-", None),
        ("B+", "bbb is worse than A-"),
        ("F", "bbb is worse than A-"),
        ("NR", "bbb is not rated"),
        ("E", "bbb is no BBB rating"),
        (None, "bbb is missing"),
    ],
)
def test_bbb_ratings_are_compared_in_order(value: Any, why: str | None) -> None:
    assert reason({"rule": "bbb_rating", "attribute": "bbb", "min": "A-"}, facts(bbb=value)) == why


# --- Times and consent -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("age", "why"),
    [(None, None), (timedelta(0), None), (timedelta(days=30), None), (timedelta(days=30, seconds=1), "old")],
)
def test_a_record_is_fresh_up_to_its_age(age: timedelta | None, why: str | None) -> None:
    found = reason({"rule": "fresh", "within": "P30D"}, facts(occurred_at=None if age is None else NOW - age))
    assert found == (why and "occurred_at is more than 30 days ago")


CONSENT = {"rule": "consent", "basis": ["consent", "contract"]}


@pytest.mark.parametrize(
    ("rule", "basis", "given_at", "why"),
    [
        ({"rule": "consent"}, "anything", None, None),
        (CONSENT, "contract", None, None),
        (CONSENT, "legitimate_interests", None, "consent has another basis"),
        (CONSENT, "withdrawn", None, "consent is withdrawn"),
        (CONSENT, None, None, "consent is missing"),
        ({**CONSENT, "dated": True}, "consent", None, "consent has no date"),
        ({**CONSENT, "dated": True}, "consent", NOW, None),
        (CONSENT, "consent", NOW + timedelta(minutes=4), None),
        (CONSENT, "consent", NOW + timedelta(minutes=6), "consent is dated in the future"),
        ({**CONSENT, "within": "P730D"}, "consent", NOW - timedelta(days=730), None),
        (
            {**CONSENT, "within": "P730D"},
            "consent",
            NOW - timedelta(days=731),
            "consent was given more than 730 days ago",
        ),
        ({**CONSENT, "within": "P730D"}, "consent", None, None),
    ],
)
def test_consent_has_a_basis_and_an_age(
    rule: dict[str, Any], basis: str | None, given_at: datetime | None, why: str | None
) -> None:
    assert reason(rule, facts({"consent": basis} if basis else {}, given_at=given_at)) == why


def test_consent_without_a_date_was_given_with_the_record() -> None:
    rule = {**CONSENT, "within": "P30D"}
    old = facts({"consent": "consent"}, occurred_at=NOW - timedelta(days=31))
    assert reason(rule, old) == "consent was given more than 30 days ago"


# --- What is said ----------------------------------------------------------------------------------------------------

SECRET = "s3cretvalue"


@given(st.sampled_from([DNB, NAICS, COUNTRY, {"rule": "bbb_rating", "attribute": "bbb", "min": "B"},
                        {"rule": "pattern", "attribute": "line", "pattern": "x"},
                        {"rule": "range", "attribute": "employees", "min": 5},
                        {"rule": "required", "attribute": "employees"},
                        {"rule": "one_of", "attribute": "public", "values": ["true"]},
                        {"rule": "one_of", "field": "title", "values": ["a"]}]))  # fmt: skip
def test_reason_never_contains_the_value(rule: dict[str, Any]) -> None:
    about = Facts({"title": SECRET}, dict.fromkeys(TYPES, SECRET), EmailFacts(SECRET), PhoneFacts(None))
    for one in (rule, {"rule": "any_of", "of": [rule, {"rule": "email"}, {"rule": "phone"}]}):
        (failure,) = judged(one, about).failed
        assert SECRET not in failure.reason


def test_a_reason_fits_into_its_event_however_many_rules_there_are() -> None:
    name = "a" * 64
    parts = [{"rule": "range", "attribute": name, "min": n} for n in range(1, 51)]
    content = draft({"rule": "any_of", "of": parts})
    content["attributes"][name] = {"type": "number"}
    (failure,) = PolicyEvaluator.of(policy.parse_policy(content)).evaluate(facts(**{name: 0}), 1, NOW)[0].failed
    assert from_object(PolicyFailure, to_object(failure)) == failure


def test_every_rule_reads_in_plain_words() -> None:
    parsed = policy.parse_policy(
        draft(
            {**NAICS, "values": ["31-33", "Retail Trade", "SaaS"]},
            {"rule": "one_of", "attribute": "industry", "match": "prefix", "values": [51]},
            {"rule": "range", "attribute": "revenue", "min": 5_000_000},
            {"rule": "pattern", "field": "title", "pattern": "[A-Z].*"},
            DNB,
            {"rule": "dnb_rating", "attribute": "paydex", "paydex_min": 75, "missing": "pass"},
            {"rule": "bbb_rating", "attribute": "bbb", "min": "a-"},
            {"rule": "fresh", "within": "P90D"},
            {**CONSENT, "within": "P730D"},
            {"rule": "any_of", "of": [{"rule": "required", "field": "title"}, {"rule": "phone"}]},
        )
    )
    assert [row[1] for row in parameter_rows(parsed)] == [
        "industry is, by NAICS code or name, within one of: 31-33 (Manufacturing); Retail Trade; SaaS",
        "industry begins with one of: 51",
        "revenue is 5000000 or more",
        "title matches the pattern [A-Z].* as a whole",
        "dnb (Dun & Bradstreet) has a composite credit appraisal of 2 (good) or better",
        "paydex (PAYDEX, 0 to 100) is 75 or more (does not apply to a record without a value)",
        "bbb (Better Business Bureau) is A- or better",
        "the record occurred within the last 90 days",
        "there is a basis for contacting the person (consent, contract), given within the last 730 days",
        "at least one holds: title is given; or the phone number is valid for its country",
    ]


# --- Drafts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "place", "words"),
    [
        ({"rule": "horoscope"}, "/rule", "must be one of required, range"),
        ({"rule": "pattern", "attribute": "line", "pattern": "(a"}, "/pattern", "no regular expression"),
        ({"rule": "pattern", "attribute": "line", "pattern": "a)|(b"}, "/pattern", "no regular expression"),
        ({"rule": "pattern", "attribute": "line", "pattern": r"(a)\1"}, "/pattern", "no regular expression"),
        ({"rule": "pattern", "attribute": "line", "pattern": "a(?=b)"}, "/pattern", "no regular expression"),
        ({"rule": "pattern", "attribute": "line", "pattern": "((a{99}){99}){99}"}, "/pattern", "no regular expression"),
        ({"rule": "pattern", "attribute": "line", "pattern": "a" * 201}, "/pattern", "200"),
        ({"rule": "pattern", "attribute": "line", "pattern": ""}, "/pattern", "1"),
        ({"rule": "pattern", "pattern": "a"}, "", "exactly one of attribute, field"),
        ({"rule": "pattern", "attribute": "employees", "pattern": "a"}, "/attribute", "needs one of type string"),
        ({"rule": "pattern", "attribute": "shoes", "pattern": "a"}, "/attribute", "not among /attributes"),
        ({"rule": "dnb_rating", "attribute": "dnb"}, "", "exactly one of appraisal_max, paydex_min"),
        ({**DNB, "paydex_min": 1}, "", "exactly one of appraisal_max, paydex_min"),
        ({**DNB, "appraisal_max": 5}, "/appraisal_max", "4"),
        ({**DNB, "appraisal_max": 0}, "/appraisal_max", "1"),
        ({**DNB, "appraisal_max": "2"}, "/appraisal_max", "integer"),
        ({**DNB, "attribute": "employees"}, "/attribute", "needs one of type string"),
        ({"rule": "dnb_rating", "attribute": "paydex", "paydex_min": 101}, "/paydex_min", "100"),
        ({"rule": "dnb_rating", "attribute": "public", "paydex_min": 1}, "/attribute", "integer or number or string"),
        ({"rule": "bbb_rating", "attribute": "bbb", "min": "E"}, "/min", "must be one of A+, A, A-"),
        ({"rule": "bbb_rating", "attribute": "bbb", "min": "NR"}, "/min", "asks for nothing"),
        ({"rule": "bbb_rating", "attribute": "bbb"}, "/min", "required"),
        ({"rule": "fresh"}, "/within", "required"),
        ({"rule": "fresh", "within": "30 days"}, "/within", "ISO 8601"),
        ({"rule": "fresh", "within": "P1M"}, "/within", "no fixed length"),
        ({"rule": "fresh", "within": "PT0S"}, "/within", "longer than nothing"),
        ({"rule": "consent", "basis": []}, "/basis", "at least 1"),
        ({"rule": "consent", "basis": ["Legitimate interest"]}, "/basis/0", "pattern"),
        ({"rule": "consent", "dated": "yes"}, "/dated", "boolean"),
        ({"rule": "consent", "within": "-P1D"}, "/within", "ISO 8601"),
        ({"rule": "range", "attribute": "employees", "min": 1.2, "max": 1.8}, "", "no whole number"),
        ({"rule": "range", "attribute": "employees", "min": True}, "/min", "number"),
        ({"rule": "range", "attribute": "country", "min": 1}, "/attribute", "integer or number"),
        ({"rule": "one_of", "attribute": "country", "values": ["US", "Freedonia"]}, "/values/1", "no country"),
        ({"rule": "one_of", "attribute": "employees", "values": ["ten"]}, "/values/0", "no integer"),
        ({"rule": "one_of", "attribute": "public", "values": ["maybe"]}, "/values/0", "no boolean"),
        ({**NAICS, "values": ["52", "99"]}, "/values/1", "no NAICS code"),
        ({**NAICS, "values": ["33-31"]}, "/values/0", "no range of prefixes"),
        ({**NAICS, "match": "prefix", "values": ["3-33"]}, "/values/0", "no range of prefixes"),
        ({**NAICS, "attribute": "country"}, "/attribute", "string or integer"),
        ({**NAICS, "match": "suffix"}, "/match", "exact"),
        ({"rule": "email", "role": "yes"}, "/role", "boolean"),
    ],
)  # fmt: skip
def test_a_draft_that_cannot_be_meant_is_refused_at_its_place(rule: dict[str, Any], place: str, words: str) -> None:
    for content, base in (
        (draft(rule), "/parameters/0"),
        (draft({"rule": "any_of", "of": [{"rule": "email"}, rule]}), "/parameters/0/of/1"),
    ):
        parsed, errors = policy.validate_policy(content)
        assert parsed is None
        assert any(flaw.pointer == base + place and words in flaw.message for flaw in errors), errors


def test_values_of_which_one_is_required_may_not_all_be_missing() -> None:
    some = {"rule": "any_of", "of": [{"rule": "required", "field": name} for name in ("company", "domain")]}
    assert policy.validate_policy(draft({**some, "missing": "pass"}))[1][0].pointer == "/parameters/0/missing"
    assert policy.validate_policy(draft(some))[1] == []


def test_flaws_point_to_their_place_beside_other_flaws() -> None:
    bad = {"rule": "fresh", "within": "soon"}
    errors = policy.validate_policy(
        draft(bad, {"rule": "required", "attribute": "shoes"}, bad, {"rule": "email", "key": "p1"})
    )[1]
    assert [flaw.pointer for flaw in errors] == [
        "/parameters/0/within",
        "/parameters/2/within",
        "/parameters/1/attribute",
        "/parameters/3/key",
    ]


def test_policy_text_mentions_shared_phones() -> None:
    assert not policy.parse_policy(draft(DNB)).phones_shared
    assert policy.parse_policy(draft(DNB, phones_shared=True)).phones_shared
    assert policy.validate_policy(draft(DNB, phones_shared="yes"))[1][0].pointer == "/phones_shared"
