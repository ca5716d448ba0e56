"""One value is one value, wherever it comes in: words, ids and addresses are read by one reader each."""

from __future__ import annotations

import ast
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter
from tests.intake.conftest import Running
from tests.intake.hook_service import HookClient, outcomes, running_hook_client

from accord.contracts.external_key import external_key
from accord.contracts.values import normalize_text
from intake.hooks.domain.payload_mapping import build_activities
from intake.leads.domain.submission import ActivityIn, Submission
from intake.leads.domain.usable_ids import read_id
from intake.leads.service.normalization import parse_company_domain, parse_email
from intake.sources.domain.adapters.base import ActivityOccurred, to_text

ROOT = Path(__file__).parents[2]


@pytest.fixture
async def intake(database_url: str, keys_file: Path) -> AsyncIterator[HookClient]:
    async with running_hook_client(database_url, keys_file) as one:
        yield one


SUBMISSION: TypeAdapter[Submission] = TypeAdapter(Submission)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("spring", "spring"),
        ("spring ", "spring"),
        (" spring", "spring"),
        ("\tspring\r\n", "spring"),
        ("\u00a0spring\u2003", "spring"),
        ("\ufeffspring", "spring"),
        ("\u200b spring \u200b", "spring"),
        ("\u202aspring\u202c", "spring"),
        ("\u200espring\u200f", "spring"),
        ("\u2066 spring\u2069 ", "spring"),
        ("fru\u0308hling", "frühling"),
        ("fr\u00fchling", "frühling"),
        ("\u1112\u1161\u11ab", "\ud55c"),
        ("A\u030angstro\u0308m", "Ångström"),
        ("\u212b", "Å"),
        ("two  blanks stay", "two  blanks stay"),
        ("\U0001f468\u200d\U0001f4bb", "\U0001f468\u200d\U0001f4bb"),
        ("  ", ""),
        ("\u200b", ""),
    ],
)
def test_word_is_read_as_it_is_meant(text: str, meant: str) -> None:
    assert normalize_text(text) == meant
    document = {"source": "web", "email": "ada@initech.example", "title": text, "campaign": {"name": text}}
    for read in (SUBMISSION.validate_python(document), SUBMISSION.validate_json(json.dumps(document))):
        assert read.campaign is not None
        assert (read.title, read.campaign.name) == (meant, meant)
    assert SUBMISSION.validate_python({**document, "attributes": {"a": text}}).attributes == {"a": meant}
    said = ActivityOccurred("1", "email.clicked", "lead", None, "ada@initech.example", campaign={"name": text})
    (made,) = build_activities("web", said, {})
    campaign = ActivityIn.model_validate(made).campaign
    assert (campaign.name if campaign else "") == meant


def test_composed_word_is_no_longer_than_its_bound() -> None:
    grows = "\u0958" * 200  # two letters each, once composed
    with pytest.raises(ValueError, match="at most 200 characters"):
        SUBMISSION.validate_python({"source": "web", "email": "a@initech.example", "campaign": {"name": grows}})


async def test_campaign_written_in_many_ways_is_one(accord: Running) -> None:
    words = ["spring", "spring ", " spring", "spring\n", "\u200bspring", "fru\u0308hling", "fr\u00fchling"]
    for number, word in enumerate(words):
        lead = {"source": " camp", "email": f"f{number}@initech.example", "campaign": {"name": word}}
        assert (await accord.marketing.post("/v1/leads", lead)).status_code == 201
        activity = {
            "external": {"source": "camp", "id": "7"},
            "kind": "email.clicked",
            "by": "lead",
            "campaign": {"name": word},
        }
        if number == 0:
            await accord.marketing.post("/v1/leads", {"source": "camp", "external_id": " 7 "})
        assert (await accord.marketing.post("/v1/activities", activity)).status_code == 202
    captured = await accord.events("lead.captured.v1")
    assert {one["state"]["source"] for one in captured} == {"camp"}
    found = {one["state"]["campaign"]["name"] for one in captured if one["state"].get("campaign")}
    assert found == {"spring", "frühling"}
    assert {one["campaign"]["name"] for one in await accord.events("activity.recorded.v1")} == found


@pytest.mark.parametrize(
    ("said", "id_"),
    [
        (42.0, "42"),
        (42, "42"),
        ("42", "42"),
        (" 42\u00a0", "42"),
        ("0042", "0042"),
        (100000000000000000001, "100000000000000000001"),
        (1e20, None),
        ("Mu\u0308ller", "Müller"),
        ("\ufeff42", "42"),
        ("42\n", "42"),
        (True, None),
        ({"id": 42}, None),
        ("", None),
        ("undefined", None),
        (0, None),
        (0.0, None),
    ],
)
def test_id_is_read_alike_in_submission_activity_and_link(said: Any, id_: str | None) -> None:
    text = to_text(said)
    assert (None if text is None else read_id(text)) == id_
    if id_ is not None and text is not None:
        assert SUBMISSION.validate_python({"source": "web", "external_id": text}).external_id == id_
        activity = {"external": {"source": "web", "id": text}, "kind": "email.clicked", "by": "lead"}
        external = ActivityIn.model_validate(activity).external
        assert external is not None
        assert external.id == id_
        assert external_key("web", text) == external_key("web", id_)


async def test_float_id_names_one_person_in_identify_and_track(intake: HookClient) -> None:
    await intake.connect("segment")
    identify = {"type": "identify", "messageId": "i1", "userId": 42.0, "traits": {"email": "seg@initech.example"}}
    track = {"type": "track", "messageId": "t1", "userId": 42.0, "event": "Demo Requested"}
    assert outcomes(await intake.send("segment", body=json.dumps(identify).encode())) == ["created"]
    assert outcomes(await intake.send("segment", body=json.dumps(track).encode())) == ["recorded"]
    for previous in ("undefined", "null", " - "):
        alias = {"type": "alias", "messageId": f"a{previous}", "userId": "42", "previousId": previous}
        assert outcomes(await intake.send("segment", body=json.dumps(alias).encode())) == ["ignored"]


async def test_activity_by_what_is_no_address_tries_the_id(intake: HookClient) -> None:
    await intake.connect("segment")
    identify = {"type": "identify", "messageId": "i1", "userId": "u1", "traits": {"email": "seg@initech.example"}}
    track = {
        "type": "track",
        "messageId": "t1",
        "userId": "u1",
        "event": "Demo Requested",
        "context": {"traits": {"email": "none"}, "campaign": {"name": 2026, "medium": "x" * 201}},
    }
    assert outcomes(await intake.send("segment", body=json.dumps(identify).encode())) == ["created"]
    assert outcomes(await intake.send("segment", body=json.dumps(track).encode())) == ["recorded"]
    (recorded,) = await intake.events("activity.recorded.v1")
    assert recorded["campaign"]["name"] == "2026"
    answer = await intake.marketing.post("/v1/activities", {"email": "none", "kind": "email.clicked", "by": "lead"})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/email")


@pytest.mark.parametrize(
    "place", ["nl\n@initech.example", "nl@initech.example\n", "n\nl@initech.example", "nl@\ninitech.example"]
)
async def test_line_end_in_an_address_is_none_of_it(accord: Running, place: str) -> None:
    trimmed = place.endswith("\n")
    answer = await accord.marketing.post("/v1/leads", {"source": "nl", "email": place})
    assert answer.status_code == (201 if trimmed else 422), answer.text
    assert parse_email("nl\n@initech.example").address is None
    assert parse_company_domain("initech.example\n/") is None or "\n" not in str(
        parse_company_domain("initech.example\n/")
    )


def _patterns(tree: ast.AST) -> list[str]:
    """Texts that Python's own engine compiles."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            of_re = isinstance(node.func.value, ast.Name) and node.func.value.id == "re"
            if of_re and isinstance(node.args[0], ast.Constant):
                value = node.args[0].value
                found.append(value.decode() if isinstance(value, bytes) else str(value))
    return found


def test_no_pattern_of_python_ends_in_a_dollar() -> None:
    """It also matches before a last line end."""
    wrong = [
        (str(path.relative_to(ROOT)), pattern)
        for folder in ("services", "shared", "deploy")
        for path in (ROOT / folder).rglob("*.py")
        for pattern in _patterns(ast.parse(path.read_text()))
        if pattern.replace("\\\\", "").replace("\\$", "").rstrip(")").endswith("$")
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("email", "ada crm@initech.example"),
        ("email", "nonsense"),
        ("email", ""),
        ("email", "@"),
        ("email", "ada@initech"),
        ("email", "ada@initech..example"),
        ("phone", " 12025550146"),
        ("phone", "12025550146"),
        ("phone", "nonsense"),
        ("phone", "+1"),
        ("external", "nonsense"),
        ("external", "web:undefined"),
        ("external", "web:1.2E+11"),
        ("external", "web: "),
        ("external", " :42"),
        ("external", "we@b:42"),
    ],
)
async def test_look_up_by_what_is_no_key_names_the_parameter(accord: Running, parameter: str, value: str) -> None:
    answer = await accord.marketing.get("/v1/leads", **{parameter: value})
    assert answer.status_code == 422, answer.text
    assert [one["parameter"] for one in answer.json()["errors"]] == [parameter]


async def test_look_up_reads_keys_as_submissions_do(accord: Running) -> None:
    lead = {
        "source": "Mu\u0308ller",
        "external_id": "Stra\u00dfe 7",
        "email": "ada+crm@initech.example",
        "phone": "+1 202 555 0146",
    }
    assert (await accord.marketing.post("/v1/leads", lead)).status_code == 201
    for parameter, value in (
        ("email", " ADA+crm@Initech.example "),
        ("phone", "+1 (202) 555-0146"),
        ("phone", "\u202a+1 202 555 0146\u202c"),
        ("external", "M\u00fcller: Stra\u00dfe 7 "),
    ):
        found = (await accord.marketing.get("/v1/leads", **{parameter: value})).raise_for_status().json()
        assert len(found["items"]) == 1, (parameter, value)
    assert (await accord.marketing.get("/v1/leads", external="other:7")).json()["items"] == []
