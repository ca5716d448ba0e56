"""The data policy: what a draft may say, how it judges, and how it reads."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from textwrap import indent
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.agreements import documents
from accord.contracts.personal import find_personal
from intake.leads.domain.facts import EmailFacts, Facts, PhoneFacts
from intake.leads.domain.quality import Quality, evaluate_without_policy
from intake.policy.domain import policy
from intake.policy.domain.attributes import NotOfType, convert_to_type
from intake.policy.domain.evaluator import PolicyEvaluator
from intake.policy.domain.words import describe_policy, parameter_rows

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "data-policy.md"
SIZE = {"key": "size", "rule": "range", "attribute": "employees", "min": 50, "consequence": "flag", "weight": 2}
MAIL = {"key": "mail", "rule": "email", "consequence": "reject", "weight": 3}


def document(*parameters: dict[str, Any], **more: Any) -> dict[str, Any]:
    attributes = {"employees": {"type": "integer"}, "industry": {"type": "string"}, "public": {"type": "boolean"}}
    return {
        "kind": "policy",
        "title": "What we ask",
        "attributes": attributes,
        "parameters": [dict(one) for one in parameters],
        **more,
    }


def facts(email: EmailFacts | None = None, **attributes: Any) -> Facts:
    return Facts({}, attributes, email, None)


GOOD = EmailFacts("ada@initech.example", public_suffix=True)


def assessed(one: PolicyEvaluator, about: Facts, version: int) -> Quality:
    return one.evaluate(about, version, datetime(2026, 11, 24, tzinfo=UTC))[0]


def evaluator(*parameters: dict[str, Any], **more: Any) -> PolicyEvaluator:
    return PolicyEvaluator.of(policy.parse_policy(document(*parameters, **more)))


@pytest.mark.parametrize(
    ("content", "pointer"),
    [
        (document(SIZE, SIZE), "/parameters/1/key"),
        (document({**SIZE, "attribute": "shoes"}), "/parameters/0/attribute"),
        (document({**SIZE, "attribute": "industry"}), "/parameters/0/attribute"),
        (document({**SIZE, "rule": "horoscope"}), "/parameters/0/rule"),
        (document({**SIZE, "min": 9, "max": 1}), "/parameters/0"),
        (document({**SIZE, "min": None}), "/parameters/0"),
        (document({**SIZE, "weight": 0}), "/parameters/0/weight"),
        (document({**SIZE, "consequence": "shout"}), "/parameters/0/consequence"),
        (document({**SIZE, "surprise": 1}), "/parameters/0/surprise"),
        (document({"key": "any", "rule": "any_of", "of": [], "consequence": "flag"}), "/parameters/0/of"),
        (document({"key": "r", "rule": "required", "consequence": "flag"}), "/parameters/0"),
        (
            document({"key": "one", "rule": "one_of", "attribute": "industry", "values": [], "consequence": "flag"}),
            "/parameters/0/values",
        ),
        (document(), "/parameters"),
        (document(SIZE, score_min=2), "/score_min"),
        (document(SIZE, extra=2), "/extra"),
        ({**document(SIZE), "attributes": {"employees": {"type": "date"}}}, "/attributes/employees/type"),
    ],
)
def test_a_draft_that_cannot_be_meant_is_refused_with_the_place(content: dict[str, Any], pointer: str) -> None:
    parsed, errors = policy.validate_policy(content)
    assert parsed is None
    assert pointer in {flaw.pointer for flaw in errors}, errors


def test_the_score_is_the_weight_met_of_the_weight_that_applies() -> None:
    both = evaluator(SIZE, MAIL)
    assert assessed(both, facts(GOOD, employees=60), 7).score == 1.0
    small = assessed(both, facts(GOOD, employees=10), 7)
    assert (small.verdict, small.score, small.policy_version) == ("flagged", 0.6, 7)
    assert [(one.parameter, one.reason) for one in small.failed] == [("size", "employees is below 50")]


def test_a_missing_value_fails_unless_the_parameter_lets_it_pass() -> None:
    strict, lenient = evaluator(SIZE), evaluator({**SIZE, "missing": "pass"}, MAIL)
    assert assessed(strict, facts(), 1).failed[0].reason == "employees is missing"
    unknown = assessed(lenient, facts(GOOD), 1)
    assert (unknown.verdict, unknown.score) == ("accepted", 1.0)


def test_below_the_least_score_a_record_is_quarantined() -> None:
    assert assessed(
        evaluator(SIZE, {**MAIL, "consequence": "flag"}, score_min=0.7), facts(GOOD, employees=1), 1
    ).verdict == ("quarantined")


@pytest.mark.parametrize(
    ("email", "reason"),
    [
        (None, "email is missing"),
        (EmailFacts(None), "email is not an address"),
        (EmailFacts("a@intranet.lan"), "email has no public domain"),
        (EmailFacts("a@b.com", public_suffix=True, disposable=True), "email is at a disposable domain"),
        (EmailFacts("info@b.com", public_suffix=True, role=True), "email is a role address"),
    ],
)
def test_each_failing_of_an_address_has_its_reason(email: EmailFacts | None, reason: str) -> None:
    found = assessed(evaluator({**MAIL, "role": False}), facts(email), 1)
    assert (found.verdict, found.failed[0].reason) == ("rejected", reason)


def test_any_of_passes_with_one_and_fails_with_all_reasons() -> None:
    either = evaluator(
        {"key": "reach", "rule": "any_of", "of": [{"rule": "email"}, {"rule": "phone"}], "consequence": "flag"}
    )
    by_phone = Facts({}, {}, None, PhoneFacts("+12025550143"))
    assert assessed(either, by_phone, 1).verdict == "accepted"
    assert assessed(either, facts(), 1).failed[0].reason == "none holds: email is missing; phone is missing"


def test_a_range_of_prefixes_is_written_as_naics_writes_it() -> None:
    rule = {"key": "v", "rule": "one_of", "attribute": "industry", "match": "prefix", "values": ["31-33", "52"]}
    vertical = evaluator({**rule, "consequence": "flag"})
    pending = [assessed(vertical, facts(industry=code), 1).verdict for code in ("311812", "334111", "522110", "341000")]
    assert pending == ["accepted", "accepted", "accepted", "flagged"]


@given(st.integers(-(10**9), 10**9), st.integers(-(10**6), 10**6), st.integers(0, 10**6))
def test_a_range_holds_exactly_between_its_ends(value: int, low: int, width: int) -> None:
    between = evaluator({**SIZE, "min": low, "max": low + width})
    assert (assessed(between, facts(employees=value), 1).verdict == "accepted") == (low <= value <= low + width)


@given(st.integers(-(10**14), 10**14))
def test_a_number_sent_as_text_is_that_number(value: int) -> None:
    assert convert_to_type(str(value), "integer") == value
    assert convert_to_type(str(value), "number") == value


@pytest.mark.parametrize(
    ("value", "type_"), [("many", "integer"), (1.5, "integer"), (True, "number"), ("maybe", "boolean"), (["a"], "string"),
                         ("write to ada@initech.example", "string"), ("x" * 201, "string"), ("nan", "number")]
)  # fmt: skip
def test_what_does_not_read_as_its_type_never_leaves_intake(value: Any, type_: Any) -> None:
    with pytest.raises(NotOfType):
        convert_to_type(value, type_)


@given(st.emails())
def test_an_address_is_seen_in_any_text(address: str) -> None:
    assert find_personal(f"reach me: {address}") or not address.rpartition(".")[2].isalpha()


def test_only_declared_attributes_leave_as_their_types() -> None:
    about = facts(employees="60", industry="52", shoes=44, public="yes")
    public = evaluator(SIZE).evaluate(about, 1, datetime(2026, 11, 24, tzinfo=UTC))[1]
    assert public == {"employees": 60, "industry": "52", "public": True}


def test_without_a_policy_nothing_that_looks_personal_is_public() -> None:
    _, public = evaluate_without_policy(
        {
            "size": 5,
            "first_name": "Ada",
            "who": "ada@initech.example",
            "tel": "+1 202 555 0143",
            "tags": ["a"],
            "plan": "pro",
        }
    )
    assert public == {"size": 5, "plan": "pro"}


def test_the_policy_reads_in_plain_words() -> None:
    parsed = policy.parse_policy(document(SIZE, {**MAIL, "role": False}, score_min=0.5))
    assert "below 0.5" in describe_policy(parsed)
    assert parameter_rows(parsed) == [
        ("size", "employees is 50 or more", "the record is taken and marked", "2"),
        (
            "mail",
            "the e-mail address is well formed under a public domain, not a disposable one, not a role's",
            "the record is refused",
            "3",
        ),
    ]


def test_the_template_that_ships_is_valid(template: dict[str, Any]) -> None:
    assert policy.validate_policy(template)[1] == []


def test_every_example_of_the_guide_is_a_policy() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    whole, *parts = [documents.read(f"content:\n{indent(block, '  ')}".encode(), yaml_text=True) for block in blocks]
    assert policy.validate_policy(dict(whole.content["content"]))[1] == []
    types = {"employee_count": "integer", "annual_revenue": "number", "country": "country", "paydex": "integer"}
    names = (*types, "industry", "line_of_business", "dnb_rating", "bbb_rating")
    content = {
        "kind": "policy",
        "title": "t",
        "attributes": {name: {"type": types.get(name, "string")} for name in names},
        "parameters": [
            {**parameter, "key": f"p{n}-{m}"}
            for n, part in enumerate(parts)
            for m, parameter in enumerate(part.content["content"])
        ],
    }
    assert policy.validate_policy(content)[1] == []
    assert {parameter["rule"] for parameter in content["parameters"]} == set(policy.RULES)
