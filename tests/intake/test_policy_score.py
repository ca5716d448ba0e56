"""The score and the verdict as laws: what must hold of any policy and any record."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intake.leads.domain.facts import Facts
from intake.leads.domain.quality import Quality
from intake.policy.domain import policy
from intake.policy.domain.evaluator import PolicyEvaluator
from intake.policy.domain.policy import Policy
from intake.policy.domain.report import Effect, Tally, describe_effect, format_share, parameter_reports

NOW = datetime(2026, 11, 24, tzinfo=UTC)
NAMES = [f"a{n}" for n in range(8)]
ORDER = ["accepted", "flagged", "quarantined", "rejected"]
"""Verdicts from the mildest."""

parameter = st.fixed_dictionaries(
    {
        "rule": st.just("range"),
        "attribute": st.sampled_from(NAMES),
        "min": st.integers(0, 10),
        "consequence": st.sampled_from(["flag", "quarantine", "reject"]),
        "weight": st.sampled_from([0.1, 0.2, 0.3, 1, 2, 3, 7.5, 1000]),
        "missing": st.sampled_from(["pass", "fail"]),
    }
)
parameters = st.lists(parameter, min_size=1, max_size=8)
values = st.dictionaries(st.sampled_from(NAMES), st.integers(0, 10) | st.just("many"), max_size=8)


def read(rules: list[dict[str, Any]], score_min: float = 0) -> Policy:
    return policy.parse_policy(
        {
            "kind": "policy",
            "title": "t",
            "attributes": {name: {"type": "integer"} for name in NAMES},
            "parameters": [{"key": f"p{n}", **rule} for n, rule in enumerate(rules)],
            "score_min": score_min,
        }
    )


def judged(rules: list[dict[str, Any]], record: dict[str, Any], score_min: float = 0) -> Quality:
    return PolicyEvaluator.of(read(rules, score_min)).evaluate(Facts({}, record, None, None), 1, NOW)[0]


def met(rule: dict[str, Any], record: dict[str, Any]) -> bool | None:
    """Whether a record meets a range; None where it does not apply. Said anew, apart from the code."""
    value = record.get(rule["attribute"])
    if value is None:
        return None if rule["missing"] == "pass" else False
    return value != "many" and value >= rule["min"]


@given(parameters, values)
def test_the_score_is_the_weight_met_of_the_weight_that_applies(
    rules: list[dict[str, Any]], record: dict[str, Any]
) -> None:
    outcomes = [(met(rule, record), rule["weight"]) for rule in rules]
    applicable = sum(weight for pending, weight in outcomes if pending is not None)
    passed = sum(weight for pending, weight in outcomes if pending)
    found = judged(rules, record)
    assert found.score == pytest.approx(passed / applicable if applicable else 1.0, abs=1e-6)
    assert found.outcomes == "".join("n" if pending is None else "p" if pending else "f" for pending, _ in outcomes)
    assert [one.parameter for one in found.failed] == [
        f"p{n}" for n, (pending, _) in enumerate(outcomes) if pending is False
    ]


@given(parameters, values, st.randoms(use_true_random=False))
def test_the_order_of_the_parameters_does_not_matter(
    rules: list[dict[str, Any]], record: dict[str, Any], random: Any
) -> None:
    shuffled = list(rules)
    random.shuffle(shuffled)
    one, other = judged(rules, record, 0.5), judged(shuffled, record, 0.5)
    assert (one.verdict, one.score) == (other.verdict, other.score)
    assert sorted(failure.reason for failure in one.failed) == sorted(failure.reason for failure in other.failed)


@given(parameters, values, st.sampled_from([0.1, 1, 1000]))
def test_a_parameter_that_is_met_never_lowers_the_score(
    rules: list[dict[str, Any]], record: dict[str, Any], weight: float
) -> None:
    more = {"rule": "range", "attribute": "a0", "min": 0, "consequence": "reject", "weight": weight, "missing": "fail"}
    record = {**record, "a0": 10}
    before, after = judged(rules, record), judged([*rules, more], record)
    assert (after.score or 0) >= (before.score or 0)
    assert ORDER.index(after.verdict) <= ORDER.index(before.verdict)


@given(parameters, values, st.sampled_from(NAMES), st.sampled_from([0, 0.5, 1]))
def test_a_record_that_meets_more_fares_no_worse(
    rules: list[dict[str, Any]], record: dict[str, Any], name: str, score_min: float
) -> None:
    before, after = judged(rules, record, score_min), judged(rules, {**record, name: 10}, score_min)
    if name in record or all(rule["missing"] == "fail" for rule in rules):
        assert ORDER.index(after.verdict) <= ORDER.index(before.verdict)
        assert (after.score or 0) >= (before.score or 0)


@given(parameters, values)
def test_the_verdict_is_the_gravest_consequence(rules: list[dict[str, Any]], record: dict[str, Any]) -> None:
    failed = {rule["consequence"] for rule in rules if met(rule, record) is False}
    expected = (
        "rejected"
        if "reject" in failed
        else "quarantined"
        if "quarantine" in failed
        else "flagged"
        if failed
        else "accepted"
    )
    assert judged(rules, record).verdict == expected


@given(parameters, st.lists(values, min_size=1, max_size=20))
def test_evaluator_is_deterministic_across_records(rules: list[dict[str, Any]], records: list[dict[str, Any]]) -> None:
    one = PolicyEvaluator.of(read(rules, 0.5))
    for version in (1, 2):
        for record in records:
            found = one.evaluate(Facts({}, record, None, None), version, NOW)[0]
            fresh = judged(rules, record, 0.5)
            assert found.policy_version == version
            assert (found.verdict, found.score, found.failed) == (fresh.verdict, fresh.score, fresh.failed)


@given(parameters, values)
def test_the_report_adds_up_to_the_score(rules: list[dict[str, Any]], record: dict[str, Any]) -> None:
    found = judged(rules, record)
    reports = parameter_reports(read(rules), found.outcomes, found.failed)
    applicable = sum(one.weight for one in reports if one.outcome != "not_applicable")
    passed = sum(one.weight for one in reports if one.outcome == "passed")
    assert found.score == pytest.approx(passed / applicable if applicable else 1.0, abs=1e-6)
    assert [one.reason for one in reports if one.reason] == [failure.reason for failure in found.failed]
    assert all((one.outcome == "failed") == (one.reason is not None) for one in reports)


def test_verdict_without_outcomes_still_reports_failures() -> None:
    rules = [{"rule": "range", "attribute": name, "min": 1, "consequence": "flag"} for name in ("a0", "a1")]
    found = judged(rules, {"a0": 0, "a1": 5})
    assert [one.outcome for one in parameter_reports(read(rules), "", found.failed)] == ["failed", "not_recorded"]


@pytest.mark.parametrize(
    ("part", "whole", "said"),
    [
        (0, 0, "0 %"),
        (0, 9, "0 %"),
        (9, 9, "100 %"),
        (1, 4812, "less than 0.1 %"),
        (4811, 4812, "more than 99.9 %"),
        (96, 4812, "2 %"),
        (1, 300, "0.3 %"),
        (1, 3, "33 %"),
        (997, 1000, "99.7 %"),
    ],
)
def test_share_is_0_or_100_only_for_none_and_all(part: int, whole: int, said: str) -> None:
    assert format_share(part, whole) == said


@given(st.integers(0, 10**6), st.integers(1, 10**6))
def test_only_all_is_a_hundred_percent(part: int, whole: int) -> None:
    part = min(part, whole)
    assert (format_share(part, whole) == "100 %") == (part == whole)
    assert (format_share(part, whole) == "0 %") == (part == 0)


def effect(rules: list[dict[str, Any]], records: list[dict[str, Any]], **more: Any) -> Effect:
    tally = Tally(read(rules))
    for record in records:
        tally.add(judged(rules, record))
    given_: dict[str, Any] = {"days": 30, "whole": True, "unread": 0, "proposed": tally, "in_force": None, **more}
    return Effect(**given_)


REJECTING = [{"rule": "range", "attribute": "a0", "min": 5, "consequence": "reject"}]


def test_a_policy_that_refuses_all_is_warned_of_beside_the_one_in_force() -> None:
    mild = [{**REJECTING[0], "min": 1}]
    in_force = effect(mild, [{"a0": n % 4} for n in range(8)]).proposed
    said = describe_effect(effect(REJECTING, [{"a0": 0}] * 8, in_force=in_force))
    assert said == [
        (
            "Of the 8 submissions of the last 30 days, this policy would have refused 100 % (in force now: 25 %)"
            " and quarantined 0 % (in force now: 0 %)."
        ),
        "Under this policy no record of them would have become a lead by itself.",
        "None of them meets the parameter p0.",
    ]


def test_partial_sample_is_reported_as_sample() -> None:
    (said,) = describe_effect(effect(REJECTING, [{"a0": 9}, {"a0": 0}] * 2_500, whole=False, unread=1_200))
    assert said == (
        "Of the newest 5,000 submissions of the last 30 days, this policy would have refused 50 % and quarantined 0 %."
        " 1,200 more are not kept in a form that can be judged again."
    )


def test_effect_without_submissions_has_no_warnings() -> None:
    assert describe_effect(effect(REJECTING, [])) == []
