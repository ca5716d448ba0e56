"""The reverse funnel: exact, rounded once, months that sum to the year, and leads that were due before the plan."""

import copy
from datetime import date, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.agreements.documents import read
from metrics.domain.plan import parse_plan, validate_plan
from metrics.domain.plan_paper import render_plan
from metrics.domain.reverse_funnel import ReverseFunnel, due_day

TEMPLATE = Path(__file__).parents[2] / "deploy" / "agreements" / "plan.yaml"


def plan(**changes: Any) -> ReverseFunnel:
    content = {**read(TEMPLATE.read_bytes(), yaml_text=True).content, **copy.deepcopy(changes)}
    assert validate_plan(content) == []
    return ReverseFunnel(parse_plan(content))


def test_template_needs_these_leads_rounded_once() -> None:
    funnel = plan()
    exact = [float(need.exact) for need in funnel.needs.values()]
    assert exact == pytest.approx([12698.41, 3174.60, 2222.22, 1111.11, 666.67, 200], abs=0.005)
    assert [need.leads for need in funnel.needs.values()] == [12_699, 3_175, 2_223, 1_112, 667, 200]


def test_lead_for_an_early_win_was_due_before_the_plan() -> None:
    funnel = plan()
    inquiry = funnel.needs["inquiry"]
    assert inquiry.days_to_win == 73
    assert due_day(date(2027, 1, 31), inquiry.days_to_win) == date(2026, 11, 19)
    assert (inquiry.due_from, inquiry.due_before) == (date(2026, 10, 20), 2_540)
    assert inquiry.exact * 73 / 365 == pytest.approx(2_539.68, abs=0.005)
    assert (funnel.needs["won"].due_before, funnel.needs["won"].due_from) == (0, None)


def test_leads_are_due_earlier_than_their_wins() -> None:
    funnel = plan(seasonality=[1] * 11 + [13])
    inquiries = {f"{need.month.first:%m}": need.leads for need in funnel.needs["inquiry"].months}
    wins = {f"{need.month.first:%m}": need.leads for need in funnel.needs["won"].months}
    assert max(wins, key=lambda month: wins[month]) == "12"
    assert max(inquiries, key=lambda month: inquiries[month]) == "10"


def test_override_replaces_its_month_alone() -> None:
    before, after = plan(), plan(overrides=[{"stage": "mql", "month": "2027-03", "leads": 500}])
    changed = [
        (f"{new.month.first:%Y-%m}", new.leads, new.is_override)
        for old, new in zip(before.needs["mql"].months, after.needs["mql"].months, strict=True)
        if old != new
    ]
    assert changed == [("2027-03", 500, True)]
    assert before.needs["sal"] == after.needs["sal"]


@pytest.mark.parametrize(
    ("field", "value", "pointer"),
    [
        ("overrides", [{"stage": "demo", "month": "2027-03", "leads": 1}], "/overrides/0/stage"),
        ("overrides", [{"stage": "mql", "month": "2028-01", "leads": 1}], "/overrides/0/month"),
        ("overrides", [{"stage": "mql", "month": "2027-13", "leads": 1}], "/overrides/0/month"),
        ("overrides", [{"stage": "mql", "month": "2027-03", "leads": 1}] * 2, "/overrides/1"),
        ("sources", [{"source": "web", "share": 0.5}, {"source": "web", "share": 0.5}], "/sources/1/source"),
        ("sources", [{"source": "web", "share": 0.3333}], "/sources"),
        ("seasonality", [1.0] * 11, "/seasonality"),
        ("seasonality", [1.0] * 11 + [0], "/seasonality/11"),
    ],
)
def test_invalid_shape_of_the_year_is_refused(field: str, value: object, pointer: str) -> None:
    content = {**plan().plan.model_dump(mode="json", by_alias=True, exclude_none=True), field: value}
    assert pointer in [finding.pointer for finding in validate_plan(content)]


def test_paper_shows_seasons_and_overrides() -> None:
    funnel = plan(seasonality=[1] * 11 + [2.5], overrides=[{"stage": "mql", "month": "2027-03", "leads": 500}])
    parts = {part.heading: part.rows for part in render_plan(funnel.plan)}
    assert parts["Seasons"][-1] == ("December", "2.5")
    assert parts["Months that we set ourselves"][1:] == [("mql", "2027-03", "500")]


@given(
    st.dates(date(2026, 1, 1), date(2029, 1, 1)),
    st.integers(1, 900),
    st.lists(st.integers(1, 9), min_size=12, max_size=12) | st.none(),
    st.lists(st.integers(0, 400), min_size=2, max_size=2),
)
def test_months_sum_to_the_year_to_the_last_lead(
    first: date, days: int, seasonality: list[int] | None, cycle: list[int]
) -> None:
    last = first + timedelta(days=days)
    funnel = plan(
        period={"from": str(first), "to": str(last), "timezone": "Europe/Lisbon"},
        seasonality=seasonality,
        funnel=[
            {"stage": "inquiry"},
            {"stage": "mql", "conversion": 0.31, "days": cycle[0]},
            {"stage": "won", "conversion": 0.07, "days": cycle[1]},
        ],
        goals=[],
        rewards=[],
    )
    for stage, need in funnel.needs.items():
        assert sum(month.leads for month in need.months) == need.leads
        assert sum(funnel.month_shares(stage), Fraction(0)) == 1
