"""The guide to routing and the document to start from can be used as they are written."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from rich.console import Console
from tests.qualification.test_routing_api import assign_waiting

from accord.agreements.documents import read
from accord_local.demo.play import routing_document
from accord_local.demo.sample import make_sample
from accord_local.demo.show import show_owners
from qualification.definition.domain.definition import Definition
from qualification.definition.domain.rules import Rules, compile_definition
from qualification.routing.domain.checks import check_routing

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "guides" / "routing.md").read_text()
TEMPLATE = ROOT / "deploy" / "routing.yaml"


@pytest.fixture(scope="module")
def template_rules() -> Rules:
    definition = read((ROOT / "deploy" / "agreements" / "definition.yaml").read_bytes(), yaml_text=True).content
    return compile_definition(1, Definition.model_validate(definition))


def test_the_document_to_start_from_fits_the_template_definition(template_rules):
    assert check_routing(read(TEMPLATE.read_bytes(), yaml_text=True).content, template_rules) == []


async def test_the_demo_gives_open_leads_to_people_and_shows_them_and_those_that_wait(
    stack, auth, new_lead, template_rules
):
    """As `accord demo` does it, the leads first and then the routing; but more of them than the people have room for."""
    await stack.activate(
        read((ROOT / "deploy" / "agreements" / "definition.yaml").read_bytes(), yaml_text=True).content
    )
    told = []
    for lead in make_sample(7, datetime(2026, 7, 1, 12, tzinfo=UTC), leads=600):
        about = new_lead()
        about.source = lead.source
        at = datetime.fromisoformat(str(lead.submission["occurred_at"]))
        told.append(about.captured(at, **lead.submission["attributes"]))
        told += [about.did(touch.kind, touch.at, touch.by) for touch in lead.touches]
    await stack.apply_events(*sorted(told, key=lambda event: event.occurred_at))
    document = routing_document(TEMPLATE.read_bytes())
    assert check_routing(document, template_rules) == []
    put = await stack.http.put("/v1/routing", json=document, headers=auth("admin"))
    assert put.status_code == 201, put.text
    while await assign_waiting(stack):
        pass
    rows = await stack.rows("SELECT owner, count(*) FROM lead WHERE stage = 'mql' GROUP BY owner")
    found = {row[0]: row[1] for row in rows}
    pools = (await stack.http.get("/v1/routing/pools", headers=auth("reader"))).json()
    console = Console(record=True, width=100)
    show_owners(console, pools)
    shown = console.export_text()
    for owner in ("ann", "bob", "cho", "dee"):
        assert re.search(rf"{owner} .* {found[owner]} ", shown), shown
    rooms = {name: terms["capacity"] for name, terms in document["people"].items() if terms}
    waiting = found.pop(None)
    assert (found, waiting > 0) == (rooms, True)
    assert sum(pool["waiting"] for pool in pools["pools"]) == waiting
    assert sum(int(count) for count in re.findall(r"\(waiting\) .* (\d+) ", shown)) == waiting


async def test_what_the_guide_shows_works(stack, auth, template_rules):
    (document,) = re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)
    (preview,) = re.findall(r"```json\n(.*?)```", GUIDE, re.DOTALL)
    definition = read((ROOT / "deploy" / "agreements" / "definition.yaml").read_bytes(), yaml_text=True).content
    await stack.activate(definition)
    headers = auth("admin") | {"Content-Type": "application/yaml"}
    put = await stack.http.put("/v1/routing", content=document, headers=headers)
    assert put.status_code == 201, put.text
    assert put.json()["content"] == yaml.safe_load(document)
    tried = await stack.http.post("/v1/routing/preview", json=json.loads(preview), headers=auth("reader"))
    assert tried.json()["owner"] in ("ann", "bob", "cho")
    assert tried.json()["explanation"]["rules"][0] == {
        "rule": "large",
        "pool": "enterprise",
        "held": True,
        "why": [
            {
                "path": "attributes.employee_count",
                "op": "gte",
                "expected": 200,
                "actual": 250,
                "held": True,
                "within": None,
                "at": "",
            }
        ],
    }
