"""The criteria language: what it accepts, how it judges, how it explains itself and how it reads."""

import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from tests.effort import cases

from accord.terms.criteria import DEPTH_MAX, LEAVES_MAX, MISSING, OPS, Criteria, compile_criteria, describe_criteria
from accord.terms.durations import format_duration
from accord.terms.patterns import MATCHED_LENGTH_MAX

Tree = dict[str, Any]
SIZE: Tree = {"path": "attributes.employee_count", "op": "gte", "value": 50}
ENGAGED: Tree = {"path": "scores.engagement", "op": "gte", "value": 20}
CLICKS: Tree = {"path": "activities.email.clicked.count", "op": "gte", "value": 3, "within": "P30D"}


class Known:
    """Facts from a mapping; counts of activities from (path, window)."""

    def __init__(self, values: Mapping[str, object], counts: Mapping[tuple[str, timedelta | None], int] | None = None):
        self.values = values
        self.counts = counts or {}
        self.attributes = {path.removeprefix("attributes."): value for path, value in values.items()}

    def value(self, path: str, within: timedelta | None) -> object:
        if path.startswith("activities."):
            return self.counts.get((path, within), 0)
        assert within is None, "only a count has a window"
        return self.values.get(path, MISSING)


class Gate(BaseModel):
    when: Criteria | None = None


def criteria(tree: object) -> Criteria:
    return Criteria.model_validate(tree)


def holds(tree: Tree, **values: object) -> bool:
    return compile_criteria(criteria(tree)).holds(
        Known({f"attributes.{name}": value for name, value in values.items()})
    )


def refusal(tree: object) -> tuple[tuple[int | str, ...], str]:
    """Where the first problem of a tree is, below the gate that holds it, and what it is."""
    with pytest.raises(ValidationError) as refused:
        Gate.model_validate({"when": tree})
    problem = refused.value.errors()[0]
    assert problem["loc"][0] == "when"
    return problem["loc"][1:], problem["msg"]


# An interpreter that shares nothing with the compiler: it walks the tree as it is written.


def naive(tree: Tree, facts: Known) -> bool:
    if "all" in tree:
        return not any(not naive(child, facts) for child in tree["all"])
    if "any" in tree:
        return any(naive(child, facts) for child in tree["any"])
    if "none" in tree:
        return not any(naive(child, facts) for child in tree["none"])
    return naive_leaf(tree, facts)


def naive_leaf(leaf: Tree, facts: Known) -> bool:
    within = timedelta(days=int(leaf["within"][1:-1])) if "within" in leaf else None
    actual, op, expected = facts.value(leaf["path"], within), leaf["op"], leaf.get("value", True)
    missing = actual is MISSING or actual is None
    if op == "exists":
        return missing is not expected
    if missing:
        return False
    if leaf["path"] == "age":
        expected = timedelta(days=int(expected[1:-1]))
    return naive_comparison(op, actual, expected)


def naive_comparison(op: str, left: Any, right: Any) -> bool:
    if op == "contains":
        return isinstance(left, str | list) and right in left
    if op == "matches":
        return isinstance(left, str) and re.search(right, left) is not None
    if op in ("in", "not_in"):
        return sort(left) == sort(right[0]) and any(left == member for member in right) == (op == "in")
    if sort(left) != sort(right):
        return False
    if op in ("eq", "ne"):
        return bool(left == right) == (op == "eq")
    return bool({"lt": left < right, "lte": left <= right, "gt": left > right, "gte": left >= right}[op])


def sort(value: object) -> str:
    if isinstance(value, bool):
        return "boolean"
    return "number" if isinstance(value, int | float | Decimal) else type(value).__name__


words = st.sampled_from(["", "a", "ab", "b", "acme", "US", "541511", "1"])
numbers = st.one_of(st.integers(-3, 3), st.sampled_from([0.0, 0.5, -1.5, 2.0]))
scalars = st.one_of(words, numbers, st.booleans())
lists = st.one_of(
    st.lists(words, min_size=1, max_size=4),
    st.lists(numbers, min_size=1, max_size=4),
    st.lists(st.booleans(), min_size=1, max_size=2),
)
names = st.sampled_from(["attributes.a", "attributes.b", "account.a"])
days = st.integers(1, 5).map(lambda n: f"P{n}D")
ORDERED = ["lt", "lte", "gt", "gte"]

leaf_trees = st.one_of(
    st.fixed_dictionaries({"path": names, "op": st.sampled_from(["eq", "ne"]), "value": scalars}),
    st.fixed_dictionaries({"path": names, "op": st.sampled_from(ORDERED), "value": st.one_of(words, numbers)}),
    st.fixed_dictionaries({"path": names, "op": st.sampled_from(["in", "not_in"]), "value": lists}),
    st.fixed_dictionaries({"path": names, "op": st.just("contains"), "value": words.filter(bool)}),
    st.fixed_dictionaries({"path": names, "op": st.just("exists")}, optional={"value": st.booleans()}),
    st.fixed_dictionaries(
        {"path": names, "op": st.just("matches"), "value": st.sampled_from(["^a", "b$", "a|1", "[a-c]{2}"])}
    ),
    st.fixed_dictionaries({"path": st.just("scores.fit"), "op": st.sampled_from(ORDERED), "value": numbers}),
    st.fixed_dictionaries(
        {"path": st.just("grade"), "op": st.just("in"), "value": st.lists(st.sampled_from(["A1", "B2"]), min_size=1)}
    ),
    st.fixed_dictionaries({"path": st.just("age"), "op": st.sampled_from([*ORDERED, "eq", "ne"]), "value": days}),
    st.fixed_dictionaries(
        {"path": st.just("activities.page.viewed.count"), "op": st.sampled_from(ORDERED), "value": st.integers(0, 3)},
        optional={"within": days},
    ),
)
trees = st.recursive(
    leaf_trees,
    lambda inner: st.dictionaries(
        st.sampled_from(["all", "any", "none"]), st.lists(inner, min_size=1, max_size=4), min_size=1, max_size=1
    ),
    max_leaves=20,
)
actual_values = st.one_of(
    scalars, st.none(), st.just(MISSING), st.lists(words, max_size=3), st.decimals(-2, 2, places=1), st.timedeltas()
)
facts = st.builds(
    Known,
    st.fixed_dictionaries(
        {},
        optional={
            "attributes.a": actual_values,
            "attributes.b": actual_values,
            "account.a": actual_values,
            "scores.fit": st.one_of(numbers, st.just(MISSING)),
            "grade": st.sampled_from(["A1", "C4", None]),
            "age": st.integers(0, 6).map(lambda n: timedelta(days=n)),
        },
    ),
    st.dictionaries(
        st.tuples(
            st.just("activities.page.viewed.count"),
            st.one_of(st.none(), st.integers(1, 5).map(lambda n: timedelta(days=n))),
        ),
        st.integers(0, 4),
    ),
)


@settings(max_examples=cases(500), deadline=None)
@given(trees, facts)
def test_compiled_criteria_hold_exactly_when_read_word_for_word(tree: Tree, known: Known) -> None:
    assert compile_criteria(criteria(tree)).holds(known) is naive(tree, known)


@settings(max_examples=cases(300), deadline=None)
@given(trees, facts)
def test_the_explanation_leads_to_the_same_judgement(tree: Tree, known: Known) -> None:
    compiled = compile_criteria(criteria(tree))
    leaves = compiled.explain(known)
    held = iter([leaf.held for leaf in leaves])
    assert from_leaves(tree, held) is compiled.holds(known)
    assert next(held, None) is None
    assert [at(tree, leaf.at)["path"] for leaf in leaves] == [leaf.path for leaf in leaves]
    assert compiled.paths == {leaf.path for leaf in leaves}


def at(tree: Tree, pointer: str) -> Tree:
    """What a JSON Pointer names in the tree as it was written."""
    for part in pointer.split("/")[1:]:
        tree = tree[int(part)] if isinstance(tree, list) else tree[part]
    return tree


def from_leaves(tree: Tree, held: Iterator[bool]) -> bool:
    for group, decide in (("all", all), ("any", any), ("none", lambda found: not any(found))):
        if group in tree:
            return decide([from_leaves(child, held) for child in tree[group]])
    return next(held)


@settings(max_examples=cases(300), deadline=None)
@given(trees)
def test_criteria_are_written_back_as_they_were_read(tree: Tree) -> None:
    read = criteria(tree)
    assert read.model_dump() == tree
    assert read.model_dump(mode="json") == tree
    assert Criteria.model_validate_json(read.model_dump_json()) == read
    assert criteria(yaml.safe_load(yaml.safe_dump(tree))).model_dump() == tree


@settings(deadline=None)
@given(trees)
def test_every_tree_has_words(tree: Tree) -> None:
    assert describe_criteria(criteria(tree))


def test_an_explanation_names_the_actual_value_of_each_comparison() -> None:
    compiled = compile_criteria(criteria({"all": [SIZE, CLICKS, {"path": "age", "op": "lt", "value": "P2W"}, ENGAGED]}))
    path = "activities.email.clicked.count"
    known = Known({"attributes.employee_count": 40, "age": timedelta(days=3)}, {(path, timedelta(days=30)): 4})
    found = [
        (leaf.path, leaf.op, leaf.expected, leaf.actual, leaf.held, leaf.within) for leaf in compiled.explain(known)
    ]
    assert found == [
        ("attributes.employee_count", "gte", 50, 40, False, None),
        (path, "gte", 3, 4, True, "P30D"),
        ("age", "lt", "P2W", format_duration(timedelta(days=3)), True, None),
        ("scores.engagement", "gte", 20, None, False, None),
    ]


def test_an_age_before_capture_is_explained_with_its_sign() -> None:
    leaf = compile_criteria(criteria({"path": "age", "op": "lt", "value": "P1D"})).explain(
        Known({"age": timedelta(hours=-1)})
    )[0]
    assert (leaf.actual, leaf.held) == ("-PT1H", True)


@pytest.mark.parametrize("op", [op for op in OPS if op != "exists"])
@pytest.mark.parametrize("nothing", [MISSING, None])
def test_a_missing_value_makes_every_comparison_false(op: str, nothing: object) -> None:
    value = ["US"] if op in ("in", "not_in") else "US"
    leaf = {"path": "attributes.country", "op": op, "value": value}
    assert not holds(leaf, country=nothing)
    assert not holds(leaf)
    assert holds({"none": [leaf]})


def test_only_exists_false_holds_for_a_missing_value() -> None:
    leaf = {"path": "attributes.country", "op": "exists"}
    assert holds({**leaf, "value": False})
    assert not holds({**leaf, "value": False}, country="US")
    assert holds(leaf, country="US")
    assert not holds(leaf)


def test_a_value_of_another_type_makes_a_comparison_false_also_with_ne() -> None:
    for op in ("eq", "ne", "lt", "gte"):
        assert not holds({"path": "attributes.a", "op": op, "value": 5}, a="5")
        assert not holds({"path": "attributes.a", "op": op, "value": "5"}, a=5)
    assert not holds({"path": "attributes.a", "op": "eq", "value": 1}, a=True)
    assert not holds({"path": "attributes.a", "op": "in", "value": [True]}, a=1)
    assert not holds({"path": "attributes.a", "op": "not_in", "value": ["x"]}, a=1)
    assert holds({"path": "attributes.a", "op": "eq", "value": 1}, a=1.0)
    assert holds({"path": "attributes.a", "op": "gt", "value": 0.25}, a=Decimal("0.5"))


def test_contains_looks_into_lists_and_texts() -> None:
    leaf = {"path": "attributes.a", "op": "contains", "value": "crm"}
    assert holds(leaf, a=["erp", "crm"])
    assert holds(leaf, a="a crm tool")
    assert not holds(leaf, a=["crm-tool"])
    assert not holds(leaf, a=7)


def test_a_pattern_is_found_anywhere_unless_anchored_and_takes_linear_time() -> None:
    assert holds({"path": "attributes.a", "op": "matches", "value": "cm"}, a="acme")
    assert not holds({"path": "attributes.a", "op": "matches", "value": "^cm$"}, a="acme")
    # Exponential in a backtracking engine: this test would not end.
    assert not holds(
        {"path": "attributes.a", "op": "matches", "value": "^(a+)+$"}, a="a" * (MATCHED_LENGTH_MAX - 1) + "!"
    )
    assert not holds({"path": "attributes.a", "op": "matches", "value": "a"}, a="a" * (MATCHED_LENGTH_MAX + 1))


# What is refused, and where.


@pytest.mark.parametrize(
    ("tree", "place", "message"),
    [
        ({}, (), "exactly one of"),
        ([], (), "dictionary"),
        ("x", (), "dictionary"),
        ({"all": [SIZE], "any": [SIZE]}, (), "exactly one of"),
        ({"all": [SIZE], "path": "grade"}, (), "exactly one of"),
        ({"op": "eq", "value": 1}, (), "exactly one of"),
        ({"all": []}, ("all",), "at least 1"),
        ({"none": None}, ("none",), "list"),
        ({"any": SIZE}, ("any",), "list"),
        (
            {"all": [SIZE, {"any": [SIZE, {"path": "x", "op": "eq", "value": 1}]}]},
            ("all", 1, "any", 1, "path"),
            "is no path",
        ),
        ({"all": [SIZE], "value": 1}, ("value",), "only with a path"),
        ({"all": [SIZE], "within": "P1D"}, ("within",), "only with activities"),
        ({"not": [SIZE]}, ("not",), "Extra"),
        ({"path": "grade"}, ("op",), "missing"),
        ({"path": "grade", "op": "eq"}, ("value",), "missing"),
        ({"path": "grade", "op": "like", "value": "A"}, ("op",), "should be"),
        ({"path": None, "op": "eq", "value": "A"}, ("path",), "string"),
        ({"path": "attributes.a", "op": "eq", "value": None}, ("value",), "number, a text, true or false"),
        ({"path": "attributes.a", "op": "eq", "value": ["a"]}, ("value",), "number, a text, true or false"),
        ({"path": "attributes.a", "op": "eq", "value": float("nan")}, ("value",), "must be a number from"),
        ({"path": "attributes.a", "op": "eq", "value": 10**30}, ("value",), "must be a number from"),
        ({"path": "attributes.a", "op": "eq", "value": "x" * 501}, ("value",), "at most 500"),
        ({"path": "attributes.a", "op": "gt", "value": True}, ("value",), "no order"),
        ({"path": "attributes.a", "op": "in", "value": "a"}, ("value",), "list"),
        ({"path": "attributes.a", "op": "in", "value": []}, ("value",), "not empty"),
        ({"path": "attributes.a", "op": "in", "value": ["a", 1]}, ("value", 1), "one type"),
        ({"path": "attributes.a", "op": "in", "value": ["a", None]}, ("value", 1), "number, a text"),
        ({"path": "attributes.a", "op": "not_in", "value": ["a"] * 257}, ("value",), "at most 256"),
        ({"path": "attributes.a", "op": "contains", "value": 1}, ("value",), "not empty"),
        ({"path": "attributes.a", "op": "contains", "value": ""}, ("value",), "not empty"),
        ({"path": "attributes.a", "op": "exists", "value": "yes"}, ("value",), "true or false"),
        ({"path": "attributes.a", "op": "matches", "value": "("}, ("value",), "a bracket ( is not closed"),
        ({"path": "attributes.a", "op": "matches", "value": "(?=a)"}, ("value",), "look-around"),
        ({"path": "attributes.a", "op": "matches", "value": r"(a)\1"}, ("value",), "no back-references"),
        (
            {"path": "attributes.a", "op": "matches", "value": r"(\w{99}){99}"},
            ("value",),
            "{99} repeats more than 1000 times",
        ),
        ({"path": "attributes.a", "op": "matches", "value": "a" * 201}, ("value",), "1 to 200"),
        ({"path": "scores.fit", "op": "matches", "value": "a"}, ("value",), "for a text"),
        ({"path": "scores.fit", "op": "gte", "value": "50"}, ("value",), "is a number"),
        ({"path": "scores.fit", "op": "contains", "value": "5"}, ("value",), "a text or a list"),
        ({"path": "source", "op": "eq", "value": 7}, ("value",), "is a text"),
        ({"path": "source", "op": "in", "value": ["a", 7]}, ("value", 1), "is a text"),
        ({"path": "grade", "op": "in", "value": ["A1", "E1"]}, ("value", 1), "A1 to D4"),
        ({"path": "age", "op": "gt", "value": 30}, ("value",), "duration"),
        ({"path": "age", "op": "gt", "value": "P1M"}, ("value",), "months"),
        ({"path": "age", "op": "in", "value": ["P1D"]}, ("value",), "lt, lte"),
        ({**SIZE, "within": "P1D"}, ("within",), "only with activities"),
        ({**CLICKS, "within": "P1Y"}, ("within",), "years"),
        ({**CLICKS, "within": "PT0S"}, ("within",), "longer than nothing"),
        ({**CLICKS, "within": 30}, ("within",), "duration"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_its_place(tree: object, place: tuple[int | str, ...], message: str) -> None:
    found, said = refusal(tree)
    assert found == place
    assert message in said


@pytest.mark.parametrize(
    "path",
    [
        "",
        "attributes",
        "attributes.",
        "attributes.a.b",
        "attributes.a b",
        "scores.other",
        "activities.count",
        "activities.clicked.count",
        "activities.email.clicked",
        "activities.Email.clicked.count",
        "email",
        "campaign",
        "age.x",
        f"activities.a.{'b' * 100}.count",
        f"attributes.{'a' * 101}",
        "attributes.a\n",
        "account.é",
    ],
)
def test_an_unknown_path_is_refused(path: str) -> None:
    assert refusal({"path": path, "op": "exists"})[0] == ("path",)


@pytest.mark.parametrize(
    "path",
    [
        "attributes.employee_count",
        "attributes.lineOfBusiness",
        "account.size-band",
        "scores.fit",
        "scores.engagement",
        "grade",
        "source",
        "campaign.name",
        "stage",
        "age",
        "activities.email.clicked.count",
        "activities.a.b.c.count",
    ],
)
def test_every_path_of_the_agreements_is_known(path: str) -> None:
    assert compile_criteria(criteria({"path": path, "op": "exists"})).paths == {path}


def nested(levels: int) -> Tree:
    tree = SIZE
    for _ in range(levels - 1):
        tree = {"all": [tree]}
    return tree


def test_a_tree_that_is_too_deep_is_refused() -> None:
    assert criteria(nested(DEPTH_MAX))
    assert "nested deeper" in refusal(nested(DEPTH_MAX + 1))[1]
    assert "nested deeper" in refusal(nested(5_000))[1]


def test_a_tree_that_is_too_large_is_refused() -> None:
    half = {"any": [SIZE] * (LEAVES_MAX // 2)}
    assert criteria({"all": [half, half]})
    assert "more than 256 comparisons" in refusal({"all": [half, half, SIZE]})[1]


def test_a_small_text_that_yaml_aliases_blow_up_is_refused_before_it_is_read() -> None:
    bomb = SIZE
    for _ in range(15):
        bomb = {"all": [bomb] * 100}
    assert "more than 256 comparisons" in refusal(bomb)[1]
    endless: Tree = {"all": []}
    endless["all"].append(endless)
    assert "nested deeper" in refusal(endless)[1]


@pytest.mark.parametrize(
    ("tree", "sentence"),
    [
        ({"all": [SIZE, ENGAGED]}, "employee count is 50 or more and engagement score is 20 or more"),
        (CLICKS, "number of email.clicked in the last 30 days is 3 or more"),
        ({"path": "grade", "op": "in", "value": ["A1", "A2", "B1"]}, "grade is A1, A2 or B1"),
        ({"path": "attributes.country", "op": "not_in", "value": ["US", "CA"]}, "country is none of US or CA"),
        ({"path": "account.size-band", "op": "exists"}, "the account's size band is known"),
        ({"path": "campaign.name", "op": "exists", "value": False}, "campaign is not known"),
        ({"path": "age", "op": "gt", "value": "P2W"}, "age of the lead is more than 14 days"),
        ({"path": "attributes.opted_in", "op": "eq", "value": True}, "opted in is true"),
        ({"path": "attributes.since", "op": "lt", "value": "2027-01-01"}, "since comes before 2027-01-01"),
        ({"path": "attributes.tools", "op": "contains", "value": "crm"}, "tools contains “crm”"),
        ({"any": [{"all": [SIZE, ENGAGED]}, SIZE]},
         "(employee count is 50 or more and engagement score is 20 or more) or employee count is 50 or more"),
        ({"none": [SIZE, CLICKS]},
         "none of these holds: employee count is 50 or more; number of email.clicked in the last 30 days is 3 or more"),
    ],
)  # fmt: skip
def test_criteria_read_as_a_phrase(tree: Tree, sentence: str) -> None:
    assert describe_criteria(criteria(tree)) == sentence


def test_the_json_schema_lets_a_valid_tree_through() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = Criteria.model_json_schema()
    jsonschema.validate({"all": [SIZE, {"none": [CLICKS]}]}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"all": [SIZE], "any": [SIZE]}, schema)
