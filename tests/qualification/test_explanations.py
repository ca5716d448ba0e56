"""Why a lead is not an MQL, and why it went to this person: over HTTP, to the last comparison, each checked with its own arithmetic."""

from __future__ import annotations

import operator
from datetime import datetime
from typing import Any

import pytest
from tests.qualification.test_routing_api import put

OPERATORS = {
    "eq": operator.eq,
    "gte": operator.ge,
    "lt": operator.lt,
    "in": lambda actual, expected: actual in expected,
    "exists": lambda actual, expected: (actual is not None) == expected,
}

ROUTING: dict[str, Any] = {
    "kind": "routing",
    "title": "Who gets which lead",
    "people": {
        "ann": {"capacity": 1},
        "bob": {"absences": [{"from": "2020-01-01", "to": "2099-12-31"}]},
        "cho": {"capacity": 5},
    },
    "pools": {
        "large": {"members": [{"owner": "ann", "weight": 2}, {"owner": "bob"}, {"owner": "cho"}]},
        "desk": {"method": "least_open", "members": [{"owner": "dee"}]},
    },
    "rules": [
        {
            "key": "public",
            "when": {
                "all": [
                    {"path": "attributes.industry", "op": "eq", "value": "92"},
                    {"none": [{"path": "attributes.country", "op": "exists", "value": True}]},
                ]
            },
            "pool": "desk",
        },
        {
            "key": "keen",
            "when": {
                "any": [
                    {"path": "activities.demo.requested.count", "op": "gte", "value": 1, "within": "P30D"},
                    {"path": "grade", "op": "in", "value": ["A1"]},
                ]
            },
            "pool": "large",
        },
        {"key": "others", "pool": "desk"},
    ],
    "fallback": "desk",
}


@pytest.fixture
async def routed(stack, content, auth):
    content["stages"][1]["gate"]["when"]["all"] += [
        {
            "any": [
                {"path": "attributes.country", "op": "in", "value": ["US", "CA"]},
                {"path": "source", "op": "eq", "value": "partner"},
            ]
        },
        {"none": [{"path": "activities.email.unsubscribed.count", "op": "gte", "value": 1, "within": "P90D"}]},
    ]
    await stack.activate(content)
    assert (await put(stack, auth, ROUTING)).status_code == 201
    return stack


async def ask(stack: Any, auth: Any, path: str, **params: str) -> Any:
    answer = await stack.http.get(path, params=params, headers=auth("reader"))
    assert answer.status_code == 200, answer.text
    return answer.json()


def holds(leaf: dict[str, Any]) -> bool:
    """The comparison done anew; a missing value never holds, but where its absence is asked for."""
    if leaf["actual"] is None and leaf["op"] != "exists":
        return False
    return bool(OPERATORS[leaf["op"]](leaf["actual"], leaf["expected"]))


def compared(leaves: list[dict[str, Any]]) -> list[tuple[str, str, Any, Any, bool]]:
    assert [leaf["held"] for leaf in leaves] == [holds(leaf) for leaf in leaves]
    return [(leaf["path"], leaf["op"], leaf["expected"], leaf["actual"], leaf["held"]) for leaf in leaves]


async def test_why_a_lead_is_not_an_mql_to_the_last_comparison(routed, new_lead, day, auth):
    about = new_lead()
    await routed.apply_events(
        about.captured(day(0), employee_count=30, country="DE"),
        about.did("email.clicked", day(1)),
        about.did("email.clicked", day(1)),
        about.did("email.unsubscribed", day(2)),
    )
    view = await ask(routed, auth, f"/v1/leads/{about.lead_id}", at=day(15).isoformat())
    assert view["stage"] == "inquiry"
    (gate,) = view["gates"]
    assert (gate["stage"], gate["holds"], gate["blocked_reason"]) == ("mql", False, None)
    assert compared(gate["why"]) == [
        ("attributes.employee_count", "gte", 50, 30, False),
        ("scores.engagement", "gte", 20, 5.0, False),  # 2 clicks of 5 points, each halved after 14 days
        ("attributes.country", "in", ["US", "CA"], "DE", False),
        ("source", "eq", "partner", "website", False),
        ("activities.email.unsubscribed.count", "gte", 1, 1, True),
    ]
    assert [leaf["at"] for leaf in gate["why"]] == ["/all/0", "/all/1", "/all/2/any/0", "/all/2/any/1", "/all/3/none/0"]
    # And each score that a comparison found is the sum of what its rules gave.
    scored = {line["rule"]: line for line in view["score"]}
    assert sum(scored[rule]["points"] for rule in ("demo", "click")) == view["engagement"] == 5.0
    assert "2 x email.clicked" in scored["click"]["reason"]
    assert sum(scored[rule]["points"] for rule in ("size", "vertical")) == view["fit"]
    # What would have to change does change it, comparison by comparison.
    await routed.apply_events(
        about.updated(day(100), employee_count=50, country="US"), about.did("demo.requested", day(100))
    )
    entered = await ask(routed, auth, f"/v1/leads/{about.lead_id}", at=day(100).isoformat())
    (gate,) = entered["gates"]
    assert (entered["stage"], gate["holds"]) == ("mql", True)
    assert [held for *_, held in compared(gate["why"])] == [True, True, True, False, False]


async def test_a_value_that_a_lead_does_not_have_is_said_to_be_missing(routed, new_lead, day, auth):
    about = new_lead()
    await routed.apply_events(about.captured(day(0)))
    (gate,) = (await ask(routed, auth, f"/v1/leads/{about.lead_id}"))["gates"]
    assert compared(gate["why"])[0] == ("attributes.employee_count", "gte", 50, None, False)


async def test_why_a_lead_went_to_this_person_to_the_last_rule_and_member(routed, new_lead, day, auth):
    leads = []
    for _ in range(2):
        about = new_lead()
        moment = datetime.now().astimezone()
        await routed.apply_events(
            about.captured(moment, employee_count=250, country="US", industry="92"), about.did("demo.requested", moment)
        )
        leads.append(about)
    given = [(await ask(routed, auth, f"/v1/leads/{about.lead_id}/assignments"))["items"] for about in leads]
    ((first,), (second,)) = given
    assert (first["owner"], second["owner"]) == ("ann", "cho")
    for row in (first, second):
        why = row["explanation"]
        public, keen = why["rules"]  # and none after the one that held
        assert (public["rule"], public["pool"], public["held"]) == ("public", "desk", False)
        assert compared(public["why"]) == [
            ("attributes.industry", "eq", "92", "92", True),
            ("attributes.country", "exists", True, "US", True),  # under `none`
        ]
        assert (keen["rule"], keen["held"]) == ("keen", True)
        assert compared(keen["why"]) == [
            ("activities.demo.requested.count", "gte", 1, 1, True),
            ("grade", "in", ["A1"], "C3", False),
        ]
        assert keen["why"][0]["within"] == "P30D"
        assert (why["how"], why["sticky"], row["routing_version"]) == ("pool", [], 1)
        assert f"rule keen leads to pool large; in pool large {row['owner']} is next" in row["why"]
    (pool,) = second["explanation"]["pools"]
    assert (pool["pool"], pool["method"], pool["picked"]) == ("large", "smooth_weighted_round_robin", "cho")
    assert [
        (m["owner"], m["weight"], m["open"], m["capacity"], m["available"], m["why_not"]) for m in pool["members"]
    ] == [
        ("ann", 2, 1, 1, False, "has 1 open leads, and the capacity is 1"),
        ("bob", 1, 0, None, False, "absent from 2020-01-01 to 2099-12-31"),
        ("cho", 1, 0, 5, True, None),
    ]
    weighed = [m["current"] + m["weight"] for m in first["explanation"]["pools"][0]["members"] if m["available"]]
    assert weighed == sorted(weighed, reverse=True), "the greatest was next"


async def test_what_the_lead_would_have_stayed_with_is_said_too(routed, new_lead, day, auth):
    about = new_lead()
    await routed.apply_events(
        about.captured(day(0), employee_count=250, country="US"), about.did("demo.requested", day(1))
    )
    body = {"decision": "reject", "reason": "no-timing", "occurred_at": day(2).isoformat()}
    answer = await routed.http.post(f"/v1/leads/{about.lead_id}/decisions", json=body, headers=auth("sales"))
    assert answer.status_code == 201, answer.text
    await routed.apply_events(about.did("demo.requested", day(40)))
    first, again = (await ask(routed, auth, f"/v1/leads/{about.lead_id}/assignments"))["items"]
    assert again["explanation"]["how"] == "own"
    assert again["explanation"]["sticky"] == [
        {"because": "own", "owner": first["owner"], "taken": True, "why": "available"}
    ]
