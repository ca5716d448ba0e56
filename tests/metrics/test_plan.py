"""The plan: its validation with pointers, and its paper form."""

import copy
from pathlib import Path
from typing import Any

import pytest

from accord.agreements.documents import read
from accord.contracts.values import utc
from accord.terms.dimensions import UnknownDimension
from metrics.domain.definition_view import parse_stages
from metrics.domain.plan import find_unknown_stages, parse_plan, validate_plan
from metrics.domain.plan_paper import render_plan
from metrics.domain.report_query import ReportQuery, classify_size, parse_dimensions, parse_filter

USD = {"currency": "USD"}
PLAN: dict[str, Any] = {
    "kind": "plan",
    "title": "One plan",
    "period": {"from": "2027-01-01", "to": "2027-12-31", "timezone": "America/Chicago"},
    "revenue": {"amount": "5000000", **USD},
    "average_deal": {"amount": "25000", **USD},
    "funnel": [
        {"stage": "inquiry"},
        {"stage": "mql", "conversion": 0.25, "days": 7},
        {"stage": "won", "conversion": 0.30, "days": 40},
    ],
    "goals": [
        {"key": "mqls", "department": "marketing", "measure": {"entered": "mql"}, "per": "month"},
        {
            "key": "acceptance",
            "department": "sales",
            "measure": {"conversion": ["mql", "won"]},
            "per": "quarter",
            "target": 0.7,
        },
        {"key": "revenue", "department": "both", "measure": {"revenue": "won"}, "per": "quarter"},
    ],
    "rewards": [
        {
            "key": "shared",
            "to": {"department": "marketing"},
            "measure": {"revenue": "won"},
            "per": "quarter",
            "gate": {"goal": "revenue", "at_least": 0.7},
            "rate": "0.005",
            "accelerators": [{"from": 1.0, "rate": "0.0075"}],
            "cap": {"amount": "50000", **USD},
        },
        {"key": "closer", "to": {"owner": True}, "measure": {"revenue": "won"}, "per": "month", "rate": "0.03"},
    ],
}


def test_example_plan_is_valid() -> None:
    assert validate_plan(PLAN) == []
    assert parse_plan(PLAN).rewards[0].accelerators[0].from_ == 1.0


def template(kind: str) -> dict[str, Any]:
    path = Path(__file__).parents[2] / "deploy" / "agreements" / f"{kind}.yaml"
    return dict(read(path.read_bytes(), yaml_text=True).content)


def test_shipped_plan_is_valid_with_the_shipped_definition() -> None:
    content = template("plan")
    assert validate_plan(content) == []
    stages = parse_stages(1, template("definition"))
    assert [stage.kind for stage in stages.sales_path].count("won") == 1
    assert find_unknown_stages(parse_plan(content), [stage.key for stage in stages.by_rank]) == []
    assert render_plan(parse_plan(content))


def changed(path: str, value: object) -> dict[str, Any]:
    content = copy.deepcopy(PLAN)
    *parents, last = [int(part) if part.isdigit() else part for part in path.split("/")[1:]]
    node: Any = content
    for part in parents:
        node = node[part]
    node[last] = value
    return content


@pytest.mark.parametrize(
    ("at", "value", "pointer"),
    [
        ("/kind", "sla", "/kind"),
        ("/surprise", 1, "/surprise"),
        ("/revenue/amount", 5_000_000, "/revenue/amount"),
        ("/revenue/amount", "lots", "/revenue/amount"),
        ("/revenue/amount", "NaN", "/revenue/amount"),
        ("/revenue/amount", "-1", "/revenue/amount"),
        ("/revenue/currency", "dollars", "/revenue/currency"),
        ("/average_deal/currency", "EUR", "/average_deal/currency"),
        ("/period/timezone", "Texas", "/period/timezone"),
        ("/period/to", "2026-12-31", "/period/to"),
        ("/period/to", "2126-12-31", "/period/to"),
        ("/period/from", "soon", "/period/from"),
        ("/funnel", [{"stage": "inquiry"}], "/funnel"),
        ("/funnel/1/conversion", 0, "/funnel/1/conversion"),
        ("/funnel/1/conversion", 1.1, "/funnel/1/conversion"),
        ("/funnel/1/conversion", None, "/funnel/1/conversion"),
        ("/funnel/1/days", -1, "/funnel/1/days"),
        ("/funnel/0/conversion", 0.5, "/funnel/0/conversion"),
        ("/funnel/2/stage", "mql", "/funnel/2/stage"),
        ("/goals/0/measure/entered", "demo", "/goals/0/measure/entered"),
        ("/goals/0/measure/revenue", "won", "/goals/0/measure"),
        ("/goals/0/measure", {}, "/goals/0/measure"),
        ("/goals/0/target", 0.5, "/goals/0/target"),
        ("/goals/0/target", -3, "/goals/0/target"),
        ("/goals/1/measure/conversion", ["won", "mql"], "/goals/1/measure/conversion"),
        ("/goals/1/measure/conversion/1", "demo", "/goals/1/measure/conversion/1"),
        ("/goals/1/target", "0.7", "/goals/1/target"),
        ("/goals/1/key", "mqls", "/goals/1/key"),
        ("/goals/2/target", 5, "/goals/2/target"),
        ("/goals/0/per", "fortnight", "/goals/0/per"),
        ("/rewards/0/gate/goal", "happiness", "/rewards/0/gate/goal"),
        ("/rewards/0/rate", 0.005, "/rewards/0/rate"),
        ("/rewards/0/rate", "1.5", "/rewards/0/rate"),
        ("/rewards/0/cap/currency", "EUR", "/rewards/0/cap/currency"),
        ("/rewards/0/to", {}, "/rewards/0/to"),
        ("/rewards/0/to", {"department": "sales", "owner": True}, "/rewards/0/to"),
        ("/rewards/0/measure", {"entered": "mql"}, "/rewards/0/measure"),
        (
            "/rewards/0/accelerators",
            [{"from": 1.0, "rate": "0.1"}, {"from": 0.9, "rate": "0.2"}],
            "/rewards/0/accelerators/1/from",
        ),
        ("/rewards/1/key", "shared", "/rewards/1/key"),
    ],
)
def test_invalid_plan_is_refused_with_a_pointer(at: str, value: object, pointer: str) -> None:
    found = validate_plan(changed(at, value))
    assert pointer in [finding.pointer for finding in found], found
    assert all(finding.message for finding in found)


def test_stage_that_the_definition_lacks_is_a_warning() -> None:
    assert [finding.pointer for finding in find_unknown_stages(parse_plan(PLAN), ["inquiry", "won"])] == [
        "/funnel/1/stage"
    ]


def test_plan_is_rendered_in_plain_words() -> None:
    text = "\n".join(
        [
            part.heading + "\n" + "\n".join([*part.paragraphs, *(" | ".join(row) for row in part.rows)])
            for part in render_plan(parse_plan(PLAN))
        ]
    )
    assert "we want to earn 5,000,000 USD, with deals of 25,000 USD on average" in text
    assert "mql | 25 % | 7" in text
    assert "mqls | marketing | leads that enter mql | each month | as the funnel and the revenue above need it" in text
    assert "acceptance | sales | share of leads in mql that get to won | each quarter | 70 %" in text
    assert (
        "shared: the marketing department earns 0.5 % of revenue in won, each quarter. "
        "Nothing is paid below 70 % of the goal revenue. "
        "From 100 % of the target on it is 0.75 %. At most 50,000 USD." in text
    )


def test_dimensions_are_named_ones_or_public_attributes() -> None:
    assert [found.name for found in parse_dimensions("source, attribute:origin")] == ["source", "attribute:origin"]
    assert parse_dimensions(None) == parse_dimensions("") == ()
    for wrong in ("email", "attribute:", "source,source", "attribute:a b", "source,campaign,country,industry,owner"):
        with pytest.raises(UnknownDimension):
            parse_dimensions(wrong)
    assert parse_filter("source=web=shop").value == "web=shop"
    assert parse_filter("owner=").value is None
    with pytest.raises(UnknownDimension):
        parse_filter("source")


def test_size_bands_start_at_their_bounds_and_invalid_counts_have_none() -> None:
    assert [classify_size(n) for n in (1, 9, 10, 49.5, 250, 10**9)] == [
        "1-9",
        "1-9",
        "10-49",
        "10-49",
        "250-999",
        "1000+",
    ]
    assert [classify_size(n) for n in (0, -4, None, "250", True, [3])] == [None] * 6


def test_period_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(ValueError, match="before"):
        ReportQuery(since=utc(2027, 2, 1), until=utc(2027, 2, 1))


@pytest.mark.parametrize(
    "day", ["1969-12-31", "2200-01-01", "9999-12-31", 1_800_000_000, "2027-01-01T00:00:00", "20270101"]
)
def test_invalid_day_of_a_period_is_refused_with_a_pointer(day: object) -> None:
    period = {"from": day, "to": day, "timezone": "UTC"}
    assert {found.pointer for found in validate_plan({**PLAN, "period": period})} == {"/period/from", "/period/to"}
