"""What is wrong with a definition is found before anybody signs it, with a pointer to the place; and how one reads on paper."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from accord.terms.criteria import MISSING, Criteria, compile_criteria
from qualification.definition.domain.checks import check_definition
from qualification.definition.domain.definition import Definition
from qualification.definition.domain.paper import describe_definition
from qualification.definition.domain.rules import compile_definition
from qualification.definition.domain.satisfiable import Domain, why_never

Change = Callable[[dict[str, Any]], object]


def when(content: dict[str, Any], criteria: dict[str, Any]) -> None:
    content["stages"][1]["gate"] = {"when": criteria}


def leaf(path: str, op: str, value: object, **more: object) -> dict[str, Any]:
    return {"path": path, "op": op, "value": value, **more}


def both(*criteria: dict[str, Any]) -> dict[str, Any]:
    return {"all": list(criteria)}


def test_the_agreed_example_has_no_findings(content):
    assert check_definition(content) == []


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        (lambda c: c.update(colour="red"), "/colour"),
        (lambda c: c["stages"][0].update(note="x"), "/stages/0/note"),
        (lambda c: c["stages"][0].pop("owner"), "/stages/0/owner"),
        (lambda c: c["stages"][0].update(owner="finance"), "/stages/0/owner"),
        (lambda c: c["stages"][0].update(kind="closed"), "/stages/0/kind"),
        (lambda c: c["stages"][0].update(key="In Quiry"), "/stages/0/key"),
        (lambda c: c.update(stages=[]), "/stages"),
        (lambda c: c["stages"][2].update(key="mql"), "/stages/2/key"),
        (lambda c: c["stages"][1].update({"from": ["nowhere"]}), "/stages/1/from/0"),
        (lambda c: c["stages"][2].update({"from": ["sal"]}), "/stages/2/from/0"),
        (lambda c: c["stages"][2].update({"from": ["mql", "mql"]}), "/stages/2/from/1"),
        (lambda c: c["stages"][2].pop("from"), "/stages/2/from"),
        (lambda c: c["stages"][2].update({"from": "some"}), "/stages/2/from"),
        (lambda c: c["stages"][0].update({"from": ["mql"]}), "/stages/0/from"),
        (lambda c: c["stages"][2]["gate"].update(on="capture"), "/stages/2/gate"),
        (lambda c: c["stages"][2].update(gate={"on": "capture"}), "/stages/2/gate"),
        (lambda c: c["stages"][2].update(gate={}), "/stages/2/gate"),
        (lambda c: c["stages"][0].update(gate={"decision": "let_in"}), "/stages"),
        (lambda c: c["stages"][0].update(kind="won"), "/stages/0/kind"),
        (lambda c: c["stages"][1]["gate"].update(reasons="lost"), "/stages/1/gate/reasons"),
        (lambda c: c["stages"][1]["gate"].update(fields=["amount"]), "/stages/1/gate/fields"),
        (lambda c: c["stages"][6]["gate"].update(reasons="none"), "/stages/6/gate/reasons"),
        (lambda c: c["stages"][3]["gate"].update(fields=["shoe_size"]), "/stages/3/gate/fields/0"),
        (lambda c: c["stages"][3]["gate"].update(fields=["need", "need"]), "/stages/3/gate/fields/1"),
        (lambda c: c["stages"][7]["gate"].update(decision=["reject", "reject"]), "/stages/7/gate/decision/1"),
        (lambda c: c["stages"][7]["gate"].update(decision="lose"), "/stages/7/gate/decision"),
        (lambda c: c["stages"][7].update(cool_down="P1M"), "/stages/7/cool_down"),
        (lambda c: c["stages"][7].update(cool_down="soon"), "/stages/7/cool_down"),
        (lambda c: c["reasons"].update(lost={}), "/reasons/lost"),
        (lambda c: c["stages"][5].update({"from": ["won-over"]}), "/stages/5"),
        (lambda c: c["stages"][1].update({"from": ["opportunity"]}), "/stages/1/from/0"),
        (lambda c: c["stages"][7].update(gate={"when": leaf("age", "gte", "P90D")}), "/stages/7/gate/when"),
        (lambda c: c["scores"]["fit"]["rules"][1].update(key="size"), "/scores/fit/rules/1/key"),
        (lambda c: c["scores"]["engagement"]["rules"][1].update(key="demo"), "/scores/engagement/rules/1/key"),
        (lambda c: c["scores"]["fit"].update(rules=[]), "/scores/fit/rules"),
        (
            lambda c: c["scores"]["engagement"]["rules"][0].update(half_life="PT0S"),
            "/scores/engagement/rules/0/half_life",
        ),
        (lambda c: c["stages"][1].update(key="größe"), "/stages/1/key"),
        (lambda c: when(c, {"any": [leaf("attributes.n", "eq", n) for n in range(1000)]}), "/stages/1/gate/when"),
        (lambda c: when(c, leaf("attributes.n", "gte", 10**400)), "/stages/1/gate/when/value"),
        (lambda c: when(c, leaf("activities.seminar.count", "gte", 1)), "/stages/1/gate/when/path"),
        (
            lambda c: c["scores"]["engagement"]["rules"][0].update(activity="demo"),
            "/scores/engagement/rules/0/activity",
        ),
        (lambda c: c["scores"]["grade"]["fit"].update(B=80), "/scores/grade/fit/B"),
        (lambda c: c["scores"]["grade"]["fit"].update(A=101), "/scores/grade/fit/A"),
        (lambda c: c["scores"]["grade"]["engagement"].pop("3"), "/scores/grade/engagement/3"),
        (lambda c: c["scores"].pop("fit"), "/scores/grade/fit"),
        (
            lambda c: c["scores"]["fit"]["rules"][0].update(when=leaf("scores.engagement", "gte", 1)),
            "/scores/fit/rules/0/when/path",
        ),
    ],
)
def test_what_is_wrong_is_named_by_its_place(content, change: Change, pointer):
    change(content)
    assert pointer in [finding.pointer for finding in check_definition(content)]


@pytest.mark.parametrize(
    ("criteria", "pointer"),
    [
        (leaf("scores.loyalty", "gte", 1), "/stages/1/gate/when/path"),
        (leaf("account.industry", "eq", "x"), "/stages/1/gate/when/path"),
        (leaf("attributes.employee_count", "above", 1), "/stages/1/gate/when/op"),
        (both(leaf("source", "eq", "web"), leaf("attributes.x", "gte", True)), "/stages/1/gate/when/all/1/value"),
        (leaf("scores.fit", "gte", 71), "/stages/1/gate/when"),
        (leaf("scores.engagement", "gt", 60), "/stages/1/gate/when"),
        (leaf("scores.engagement", "lt", 0), "/stages/1/gate/when"),
        (leaf("stage", "eq", "won"), "/stages/1/gate/when"),
        (leaf("activities.email.clicked.count", "gt", 1000, within="P30D"), "/stages/1/gate/when"),
        (both(leaf("attributes.n", "gte", 50), leaf("attributes.n", "lt", 50)), "/stages/1/gate/when"),
        (both(leaf("attributes.n", "gt", 50), both(leaf("attributes.n", "lte", 50))), "/stages/1/gate/when"),
        (both(leaf("source", "eq", "a"), leaf("source", "eq", "b")), "/stages/1/gate/when"),
        (both(leaf("source", "in", ["a", "b"]), leaf("source", "not_in", ["a", "b"])), "/stages/1/gate/when"),
        (both(leaf("source", "exists", False), leaf("source", "eq", "a")), "/stages/1/gate/when"),
        (both(leaf("age", "gt", "P9D"), leaf("age", "lt", "P9D")), "/stages/1/gate/when"),
        (both(leaf("grade", "in", ["A1"]), leaf("grade", "ne", "A1")), "/stages/1/gate/when"),
        ({"any": [leaf("scores.fit", "gt", 100), leaf("scores.fit", "lt", 0)]}, "/stages/1/gate/when"),
        (leaf("grade", "in", ["A1", "A2"]), "/stages/1/gate/when"),  # fit reaches 70, and an A is 75
        (both({"any": [leaf("attributes.n", "eq", 1)]}, leaf("attributes.n", "eq", 2)), "/stages/1/gate/when"),
        (
            both({"any": [leaf("source", "eq", "a"), leaf("source", "eq", "b")]}, leaf("source", "eq", "c")),
            "/stages/1/gate/when",
        ),
        (both(leaf("attributes.n", "eq", 1), {"none": [leaf("attributes.n", "eq", 1)]}), "/stages/1/gate/when"),
        (both(leaf("attributes.n", "gte", 5), {"none": [leaf("attributes.n", "gt", 3)]}), "/stages/1/gate/when"),
    ],
)
def test_a_gate_that_can_never_hold_is_found(content, criteria, pointer):
    when(content, criteria)
    assert pointer in [finding.pointer for finding in check_definition(content)]


@pytest.mark.parametrize(
    "criteria",
    [
        leaf("scores.fit", "gte", 70),
        leaf("activities.page.viewed.count", "gte", 3, within="P7D"),
        leaf("stage", "eq", "recycled"),
        both(leaf("attributes.n", "gte", 50), leaf("attributes.n", "lte", 50)),
        {"none": [leaf("source", "eq", "a")]},
        {"any": [leaf("scores.fit", "gt", 100), leaf("attributes.n", "eq", 1)]},
        both(leaf("attributes.n", "in", [1, 2]), leaf("attributes.n", "gt", 1)),
        both(leaf("campaign.name", "matches", "^sp"), leaf("campaign.name", "contains", "ring")),
        both({"any": [leaf("source", "eq", "a"), leaf("source", "eq", "b")]}, leaf("source", "eq", "b")),
        {"none": [leaf("attributes.n", "exists", True), leaf("attributes.n", "lt", 3)]},
        leaf("grade", "in", ["A1", "B3"]),
    ],
)
def test_a_gate_that_may_hold_is_let_through(content, criteria):
    when(content, criteria)
    assert check_definition(content) == []


def test_every_finding_is_told_at_once(content):
    content["stages"][1]["from"] = ["nowhere"]
    content["stages"][6]["gate"]["reasons"] = "nothing"
    content["scores"]["grade"]["fit"]["C"] = 60
    assert len({finding.pointer for finding in check_definition(content)}) >= 3


values = st.integers(0, 6)
leaves = st.builds(
    lambda op, value: {
        "path": "attributes.n",
        "op": op,
        "value": [value, (value + 2) % 7] if op.endswith("in") else value,
    },
    st.sampled_from(["eq", "ne", "lt", "lte", "gt", "gte", "in", "not_in"]),
    values,
)
trees = st.recursive(
    leaves,
    lambda inner: st.builds(
        lambda kind, children: {kind: children},
        st.sampled_from(["all", "any", "none"]),
        st.lists(inner, min_size=1, max_size=3),
    ),
    max_leaves=8,
)


class _Fact:
    def __init__(self, value: object) -> None:
        self._value = value
        self.attributes = {} if value is MISSING else {"n": value}

    def value(self, path: str, within: object = None) -> object:
        return self._value


@given(trees)
def test_criteria_that_hold_for_some_value_are_never_said_to_be_impossible(tree):
    criteria = Criteria.model_validate(tree)
    compiled = compile_criteria(criteria)
    if any(compiled.holds(_Fact(value)) for value in range(-1, 8)):
        assert why_never(criteria, {"attributes.n": Domain(least=-1, most=7)}) is None


mixed = st.builds(
    lambda op, value: {
        "path": "attributes.n",
        "op": op,
        "value": value == 0
        if op == "exists"
        else [value, "c" if isinstance(value, str) else 2]
        if op.endswith("in")
        else value,
    },
    st.sampled_from(["eq", "ne", "lt", "gte", "in", "not_in", "exists"]),
    st.sampled_from([0, 1, "a", "b"]),
)
mixed_trees = st.recursive(
    mixed,
    lambda inner: st.builds(
        lambda kind, children: {kind: children},
        st.sampled_from(["all", "any", "none"]),
        st.lists(inner, min_size=1, max_size=3),
    ),
    max_leaves=6,
)


@given(mixed_trees)
@example({"all": [leaf("attributes.n", "eq", "a"), {"none": [leaf("attributes.n", "gte", 3)]}]})
@example(
    {"all": [leaf("attributes.n", "ne", 5), {"none": [leaf("attributes.n", "lt", 9), leaf("attributes.n", "gte", 9)]}]}
)
def test_criteria_that_hold_for_a_value_of_some_type_or_for_none_are_never_said_to_be_impossible(tree):
    criteria = Criteria.model_validate(tree)
    compiled = compile_criteria(criteria)
    facts = [_Fact(value) for value in (-1, 0, 0.5, 1, 2, "", "a", "aa", "b", "c", MISSING)]
    if any(compiled.holds(fact) for fact in facts):
        assert why_never(criteria, {}) is None


@given(st.lists(leaves, min_size=1, max_size=4))
@example([{"path": "attributes.n", "op": op, "value": 0} for op in ("ne", "lte", "gte")])
@example(
    [
        {"path": "attributes.n", "op": "not_in", "value": [0]},
        {"path": "attributes.n", "op": "lte", "value": 0},
        {"path": "attributes.n", "op": "gte", "value": 0},
    ]
)
def test_comparisons_that_can_hold_together_for_no_number_are_found(conjuncts):
    criteria = Criteria.model_validate({"all": conjuncts})
    compiled = compile_criteria(criteria)
    halves = [number / 2 for number in range(-4, 18)]
    if not any(compiled.holds(_Fact(value)) for value in halves):  # type: ignore[arg-type]
        assert why_never(criteria, {}) is not None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_content_at_all_breaks_the_check(content, data):
    content = deepcopy(content)
    node: Any = content
    while True:
        keys = list(node.keys()) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            break
        key = data.draw(st.sampled_from(keys))
        if not isinstance(node[key], dict | list) or data.draw(st.booleans()):
            node[key] = data.draw(json_values)
            break
        node = node[key]
    for finding in check_definition(content):
        assert finding.pointer == "" or finding.pointer.startswith("/")


def test_on_paper_it_is_told_in_plain_words(content):
    parts = {part.heading: part for part in describe_definition(Definition.model_validate(content))}
    sentences = parts["How a lead goes on"].paragraphs
    assert sentences[0] == "A lead becomes inquiry when it is captured. It belongs to marketing there."
    assert sentences[1].startswith(
        "A lead becomes MQL when the company has 50 employees or more and the engagement score is 20 or more."
        " It comes from inquiry or recycled."
    )
    assert "with budget, authority, need and timing" in sentences[3]
    assert "giving one of the reasons of the list lost" in sentences[6]
    assert "comes back only after 30 days, on new activity of its own" in sentences[7]
    assert "It may come from any other stage." in sentences[8]
    assert ("lost", "price", "Price") in parts["Reasons that may be given"].rows
    assert ("click", "email.clicked", "5", "20", "14 days") in parts["Engagement score, at most 100"].rows


def test_a_gate_reads_as_a_sentence(content):
    (stages, *_) = describe_definition(Definition.model_validate(content))
    assert stages.paragraphs[1].startswith(
        "A lead becomes MQL when the company has 50 employees or more and the engagement score is 20 or more."
    )
    content["attributes"] = {"employee_count": {"type": "integer", "words": "head count"}, "industry": {"type": "text"}}
    (stages, *_) = describe_definition(Definition.model_validate(content))
    assert "when the head count is 50 or more and" in stages.paragraphs[1]


def test_a_definition_that_lists_attributes_asks_for_no_others(content):
    content["attributes"] = {"employee_count": {"type": "text"}}
    found = {finding.pointer: finding.message for finding in check_definition(content)}
    assert found["/stages/1/gate/when/all/0/value"] == "employee_count is of the type text"
    assert found["/scores/fit/rules/1/when/path"].startswith("there is no attribute industry")


def test_between_two_neighbouring_whole_numbers_there_is_none(content):
    content["attributes"] = {
        "n": {"type": "integer"},
        "industry": {"type": "text"},
        "employee_count": {"type": "number"},
    }
    when(content, both(leaf("attributes.n", "gt", 50), leaf("attributes.n", "lt", 51)))
    assert [finding.pointer for finding in check_definition(content)] == ["/stages/1/gate/when"]
    when(content, both(leaf("attributes.employee_count", "gt", 50), leaf("attributes.employee_count", "lt", 51)))
    assert check_definition(content) == []


@pytest.mark.parametrize("text", ["\ud800", "a\x00b"])
async def test_a_text_that_cannot_be_kept_is_refused(stack, content, auth, text):
    content["glossary"]["odd"] = text
    body = json.dumps(content)
    headers = auth("marketing") | {"Content-Type": "application/json"}
    answer = await stack.http.post("/v1/definition/versions", content=body, headers=headers)
    assert answer.status_code in (400, 422), answer.text
    assert await stack.rows("SELECT 1 FROM agreement_version") == []


def test_rules_that_say_the_same_twice_are_found(content):
    again = {**content["scores"]["fit"]["rules"][0], "key": "again"}
    content["scores"]["fit"]["rules"].append(again)
    content["scores"]["engagement"]["rules"].append(
        {"key": "demo-again", "activity": "demo.requested", "points": 5, "half_life": "P30D"}
    )
    assert [finding.pointer for finding in check_definition(content)] == [
        "/scores/fit/rules/2/when",
        "/scores/engagement/rules/2/activity",
    ]


def test_a_gate_before_which_another_always_opens_is_found(content):
    size = {"path": "attributes.employee_count", "op": "gte", "value": 50}
    content["stages"][1]["gate"] = {"when": size}
    big = {"key": "big", "owner": "marketing", "kind": "open", "from": ["inquiry"]}
    big["gate"] = {"when": {"all": [size, {"path": "attributes.vip", "op": "eq", "value": True}]}}
    content["stages"].insert(2, big)
    assert [finding.pointer for finding in check_definition(content)] == ["/stages/2/gate/when"]
    big["gate"] = {"when": {"path": "attributes.employee_count", "op": "gt", "value": 80}}  # asks for more of the same
    assert [finding.pointer for finding in check_definition(content)] == ["/stages/2/gate/when"]
    big["gate"] = {"when": {"path": "attributes.employee_count", "op": "lt", "value": 80}}
    assert check_definition(content) == []
    big["from"] = ["inquiry", "mql"]
    assert check_definition(content) == []


async def test_what_a_new_version_changes_is_told_in_the_words_of_the_paper(stack, content, auth):
    await stack.activate(content)
    content["stages"][1]["gate"]["when"]["all"][0]["value"] = 200
    await stack.activate(content)
    diff = (await stack.http.get("/v1/definition/versions/1/diff/2", headers=auth("reader"))).json()
    (reading,) = diff["words"]
    assert reading["heading"] == "How a lead goes on"
    assert "the company has 50 employees or more" in reading["before"][0]
    assert "the company has 200 employees or more" in reading["now"][0]


@pytest.mark.parametrize("name", ["event", "on", "true"])
def test_capture_gate_is_read_by_its_name_of_now_and_by_that_of_before(content, name):
    content["stages"][0]["gate"] = {name: "capture"}
    assert check_definition(content) == []
    assert compile_definition(1, Definition.model_validate(content)).entry.key == "inquiry"


def test_template_that_a_yaml_1_1_parser_has_read_is_accepted():
    template = Path(__file__).parents[2] / "deploy/agreements/definition.yaml"
    for text in (template.read_text(), template.read_text().replace("{event: capture}", "{on: capture}")):
        assert check_definition(json.loads(json.dumps(yaml.safe_load(text)))) == []


@pytest.mark.parametrize(
    ("moves", "at", "words"),
    [
        ({"sal": "mql"}, "/moves/sal", "no lead has to leave it"),
        ({"old": "gone"}, "/moves/old", "there is no stage gone"),
        ({"old": "won"}, "/moves/old", "only by a decision"),
    ],
)
def test_moves_lead_from_dropped_stages_to_known_ones(content, moves, at, words):
    content["moves"] = moves
    assert [(finding.pointer, words in finding.message) for finding in check_definition(content)] == [(at, True)]


def test_paper_says_what_becomes_of_leads_in_dropped_stages(content):
    content["moves"] = {"tal": "sal"}
    (section,) = [s for s in describe_definition(Definition.model_validate(content)) if "no longer" in s.heading]
    assert list(section.rows) == [("TAL", "SAL")]
