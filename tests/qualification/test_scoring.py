"""Scores as pure functions of attributes, activities, definition and time."""

from __future__ import annotations

from copy import deepcopy
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.qualification.conftest import CONTENT, START

from accord.terms.criteria import MISSING
from qualification.definition.domain.definition import ACTIVITIES_PER_KIND_MAX, Definition
from qualification.definition.domain.rules import EngagementRule, Rules, compile_definition
from qualification.lifecycle.domain import scoring, time_triggers
from qualification.lifecycle.domain.facts import ActivityOccurred, ProfileChanged
from qualification.lifecycle.domain.history import Log, fold
from qualification.lifecycle.domain.lead import Activities, Lead, from_microseconds, microseconds
from qualification.lifecycle.domain.scoring import (
    LeadFacts,
    engagement_points,
    engagement_score,
    explain_scores,
    grade,
    scores,
)
from qualification.lifecycle.domain.time_triggers import earliest_change, next_change

DAY = 86_400_000_000


def rule(points: float = 5, cap: float | None = 20, half_life_days: float | None = 14) -> EngagementRule:
    return EngagementRule(
        "click", "email.clicked", points, cap, None if half_life_days is None else int(half_life_days * DAY)
    )


def test_an_activity_is_worth_half_after_its_half_life():
    clicks = Activities({"email.clicked": [0]})
    assert engagement_points(rule(), clicks, 0) == 5
    assert engagement_points(rule(), clicks, 14 * DAY) == 2.5
    assert engagement_points(rule(), clicks, 28 * DAY) == 1.25


def test_the_cap_bounds_the_decayed_sum():
    clicks = Activities({"email.clicked": [0] * 10})
    assert engagement_points(rule(), clicks, 0) == 20
    assert engagement_points(rule(), clicks, 14 * DAY) == 20
    assert engagement_points(rule(), clicks, 28 * DAY) == 12.5


def test_points_without_a_half_life_stay():
    assert engagement_points(rule(half_life_days=None, cap=None), Activities({"email.clicked": [0, 1]}), 10**15) == 10


@given(
    clicks=st.lists(st.integers(0, 40), max_size=5),
    demos=st.lists(st.integers(0, 40), max_size=2),
    after=st.integers(40, 60),
    within=st.integers(1, 200),
)
def test_a_search_that_ends_early_finds_the_same_moment_and_none_that_is_too_late(clicks, demos, after, within):
    rules = compile_definition(1, Definition.model_validate(CONTENT))
    activities = Activities({"email.clicked": [n * DAY for n in clicks], "demo.requested": [n * DAY for n in demos]})
    asked = (activities, rules, rules.triggers_in("inquiry"), from_microseconds(0), from_microseconds(after * DAY))
    until = from_microseconds((after + within) * DAY)
    exact, early = next_change(*asked), next_change(*asked, until)
    if exact is None or exact <= until:
        assert early == exact
    else:
        assert early is not None
        assert until < early <= exact


def _with_points_taken(half_life: str) -> Rules:
    content = deepcopy(CONTENT)
    content["scores"]["engagement"]["rules"].append(
        {"key": "left", "activity": "email.unsubscribed", "points": -15, "max": 40, "half_life": half_life}
    )
    return compile_definition(1, Definition.model_validate(content))


@given(
    clicks=st.lists(st.integers(0, 40), max_size=5),
    demos=st.lists(st.integers(0, 40), max_size=2),
    left=st.lists(st.integers(0, 40), max_size=5),
    half_life=st.sampled_from(["P3D", "P60D"]),
    after=st.integers(40, 60),
    within=st.integers(1, 200),
)
def test_with_points_taken_a_change_is_never_expected_too_late(clicks, demos, left, half_life, after, within):
    rules = _with_points_taken(half_life)
    activities = Activities(
        {
            "email.clicked": [n * DAY for n in clicks],
            "demo.requested": [n * DAY for n in demos],
            "email.unsubscribed": [n * DAY for n in left],
        }
    )
    at, until = from_microseconds(after * DAY), from_microseconds((after + within) * DAY)
    captured_at, triggers = from_microseconds(0), rules.triggers_in("inquiry")
    exact = next_change(activities, rules, triggers, captured_at, at)
    bound = earliest_change(activities, rules, triggers, scores(None, activities, rules, at), captured_at, at)
    early = next_change(activities, rules, triggers, captured_at, at, until)
    if exact is None:
        assert early is None or early > until
        return
    assert bound is not None
    assert at < bound <= exact
    if exact <= until:
        assert early == exact
    else:
        assert early is not None
        assert until < early <= exact


def test_points_taken_cost_a_replay_little_more_than_points_given(new_lead, monkeypatch):
    rules, computed = _with_points_taken("P60D"), 0

    def counted(*given: Any) -> float:
        nonlocal computed
        computed += 1
        return engagement_points(*given)

    monkeypatch.setattr(scoring, "engagement_points", counted)
    monkeypatch.setattr(time_triggers, "engagement_points", counted, raising=False)
    about = new_lead()
    facts: list[Any] = [ProfileChanged(START, 1, about.captured(START, employee_count=10).state)]
    for number in range(200):
        kind = ("demo.requested", "email.unsubscribed")[number % 2]
        facts.append(ActivityOccurred(START + timedelta(hours=6 * number), UUID(int=number), kind, "lead"))
    fold(about.lead_id, {about.lead_id: Log(about.lead_id, 1, tuple(facts))}, {1: rules})
    assert computed < 30 * len(facts), computed


def test_negative_points_are_bounded_by_the_cap_and_the_score_by_zero(content, compiled, day):
    content["scores"]["engagement"]["rules"].append(
        {"key": "left", "activity": "email.unsubscribed", "points": -50, "max": 60}
    )
    at = day(0)
    left = Activities({"email.unsubscribed": [microseconds(at)] * 3})
    rules = compiled(content)
    assert engagement_points(rules.engagement[2], left, microseconds(at)) == -60
    assert engagement_score(left, rules, at) == 0


def test_what_has_not_happened_yet_does_not_count():
    assert engagement_points(rule(), Activities({"email.clicked": [5]}), 4) == 0


def test_only_the_newest_activities_of_a_kind_count():
    many = Activities({"email.clicked": range(ACTIVITIES_PER_KIND_MAX + 5)})
    assert len(many.moments_of("email.clicked")) == ACTIVITIES_PER_KIND_MAX
    assert many.with_activity("email.clicked", 10**9).moments_of("email.clicked")[-1] == 10**9
    assert many.moments_of("email.clicked")[0] == 5


def test_fit_adds_the_rules_that_hold_up_to_its_maximum(content, compiled, new_lead, day):
    content["scores"]["fit"]["max"] = 60
    state = new_lead().captured(day(0), employee_count=250, industry="541511").state
    assert scores(state, Activities(), compiled(content), day(0)).fit == 60


@pytest.mark.parametrize(
    ("fit", "engagement", "expected"), [(75, 75, "A1"), (74.99, 50, "B2"), (25, 25, "C3"), (0, 0, "D4")]
)
def test_the_grade_is_a_letter_for_fit_and_a_digit_for_engagement(rules, fit, engagement, expected):
    assert grade(rules.grade, fit, engagement) == expected


def test_each_rule_says_what_it_gave_and_why(rules, new_lead, day):
    state = new_lead().captured(day(0), employee_count=250).state
    lead = Lead(new_lead().lead_id, profile=state, activities=Activities({"email.clicked": [microseconds(day(0))]}))
    lines = explain_scores(lead, rules, day(14))
    assert [(line.rule, line.score, line.points) for line in lines] == [
        ("size", "fit", 40),
        ("vertical", "fit", 0),
        ("demo", "engagement", 0),
        ("click", "engagement", 2.5),
    ]
    assert "email.clicked" in lines[3].reason


def test_facts_answer_every_path_and_miss_the_rest(rules, new_lead, day):
    about = new_lead()
    lead = Lead(
        about.lead_id,
        profile=about.captured(day(0), employee_count=250, industry=None).state,
        stage="inquiry",
        stage_since=day(0),
        visits={"inquiry": 1},
        activities=Activities({"email.clicked": [microseconds(day(1)), microseconds(day(9))]}),
    )
    at = day(10)
    facts = LeadFacts(lead.profile, lead.activities, lead.stage, at, scores(lead.profile, lead.activities, rules, at))
    assert facts.value("attributes.employee_count") == 250
    assert facts.value("attributes.industry") is MISSING
    assert facts.value("source") == "website"
    assert facts.value("campaign.name") == "spring"
    assert facts.value("stage") == "inquiry"
    assert facts.value("age") == timedelta(days=10)
    assert facts.value("scores.fit") == 40
    assert facts.value("grade") == "C4"
    assert facts.value("activities.email.clicked.count") == 2
    assert facts.value("activities.email.clicked.count", timedelta(days=1)) == 1
    assert facts.value("activities.demo.requested.count") == 0
    assert facts.value("account.name") is MISSING


moments = st.lists(st.integers(0, 400 * DAY), max_size=30)


@given(moments, st.integers(0, 400 * DAY), st.randoms(use_true_random=False))
def test_the_order_of_arrival_changes_no_score(times, at, random):
    shuffled = list(times)
    random.shuffle(shuffled)
    one_by_one = Activities()
    for time in shuffled:
        one_by_one = one_by_one.with_activity("email.clicked", time)
    assert one_by_one == Activities({"email.clicked": times})
    assert engagement_points(rule(), one_by_one, at) == engagement_points(
        rule(), Activities({"email.clicked": times}), at
    )


@given(moments, moments, st.integers(0, 400 * DAY))
def test_a_merge_scores_like_one_lead_that_did_it_all(ours, theirs, at):
    merged = Activities({"email.clicked": ours}).merged_with(Activities({"email.clicked": theirs}))
    assert engagement_points(rule(), merged, at) == engagement_points(
        rule(), Activities({"email.clicked": ours + theirs}), at
    )


@given(moments, st.integers(0, 400 * DAY), st.integers(0, 100 * DAY))
def test_engagement_only_falls_while_nothing_happens(times, at, later):
    happened = Activities({"email.clicked": [time for time in times if time <= at]})
    assert engagement_points(rule(), happened, at + later) <= engagement_points(rule(), happened, at) + 1e-9


@given(moments, st.integers(0, 400 * DAY), st.integers(0, 400 * DAY))
def test_a_count_in_a_window_is_the_number_of_moments_in_it(times, at, within):
    assert Activities({"email.clicked": times}).count("email.clicked", at, within) == sum(
        at - within <= t <= at for t in times
    )
