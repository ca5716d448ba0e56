"""The templates of the four agreements fit each other and the languages that they are written in."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from accord.agreements.documents import read
from accord.terms.criteria import Criteria
from accord.terms.durations import parse_duration

TEMPLATES = Path(__file__).parents[2] / "deploy" / "agreements"
KINDS = ["policy", "definition", "sla", "plan"]


@pytest.fixture(scope="module")
def templates() -> dict[str, Any]:
    return {kind: read((TEMPLATES / f"{kind}.yaml").read_bytes(), yaml_text=True).content for kind in KINDS}


def named(part: object, name: str) -> Iterator[Any]:
    """Every value under a key, anywhere in a document."""
    if isinstance(part, dict):
        if name in part:
            yield part[name]
        for value in part.values():
            yield from named(value, name)
    elif isinstance(part, list):
        for value in part:
            yield from named(value, name)


def words(found: Any) -> set[str]:
    return {found} if isinstance(found, str) else set(found)


def test_there_is_a_template_of_each_kind_and_no_other() -> None:
    assert sorted(path.stem for path in TEMPLATES.iterdir()) == sorted(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_template_says_what_it_is_and_what_its_words_mean(templates: dict[str, Any], kind: str) -> None:
    assert templates[kind]["kind"] == kind
    assert templates[kind]["title"]
    assert len(templates[kind]["glossary"]) >= 5


def test_criteria_ask_only_for_attributes_that_the_policy_lets_out(templates: dict[str, Any]) -> None:
    trees = [*named(templates["definition"], "when"), *named(templates["sla"], "where")]
    leaves = [leaf for tree in trees for leaf in Criteria.model_validate(tree).leaves]
    attributes = {leaf.path.removeprefix("attributes.") for leaf in leaves if leaf.path.startswith("attributes.")}
    assert attributes
    assert attributes <= templates["policy"]["attributes"].keys()


def test_every_duration_can_be_read(templates: dict[str, Any]) -> None:
    for name in ("cool_down", "half_life", "business", "elapsed", "within"):
        found = [text for template in templates.values() for text in named(template, name) if isinstance(text, str)]
        assert found, name
        assert all(parse_duration(text) for text in found)


def test_sla_and_plan_speak_of_the_stages_and_decisions_of_the_definition(templates: dict[str, Any]) -> None:
    definition = templates["definition"]
    stages = {stage["key"] for stage in definition["stages"]}
    decisions = set().union(*(words(found) for found in named(definition["stages"], "decision")))
    clauses = templates["sla"]["clauses"]
    assert set().union(*(words(found) for found in named(clauses, "stage"))) <= stages
    assert set().union(*(words(found) for found in named(clauses, "decision"))) <= decisions
    assert {step["stage"] for step in templates["plan"]["funnel"]} <= stages


def test_both_departments_owe_each_other_something(templates: dict[str, Any]) -> None:
    clauses = templates["sla"]["clauses"]
    assert {clause["obliges"] for clause in clauses} == {"marketing", "sales"}
    assert {clause["kind"] for clause in clauses} == {"response", "attempts", "freshness", "volume", "rate"}
    times = [clause["within"] for clause in clauses if "within" in clause]
    assert {base for time in times for base in time if base != "calendar"} == {"business", "business_days", "elapsed"}
    assert {time["calendar"] for time in times if "calendar" in time} == templates["sla"]["calendars"].keys()
