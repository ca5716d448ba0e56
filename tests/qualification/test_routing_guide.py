"""The guide to routing and the document to start from can be used as they are written."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from accord.agreements.documents import read
from qualification.domain.definition import Definition
from qualification.domain.routing_checks import check_routing
from qualification.domain.rules import Rules, compile_definition

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "guides" / "routing.md").read_text()
TEMPLATE = ROOT / "deploy" / "routing.yaml"


@pytest.fixture(scope="module")
def template_rules() -> Rules:
    definition = read((ROOT / "deploy" / "agreements" / "definition.yaml").read_bytes(), yaml_text=True).content
    return compile_definition(1, Definition.model_validate(definition))


def test_the_document_to_start_from_fits_the_template_definition(template_rules):
    assert check_routing(read(TEMPLATE.read_bytes(), yaml_text=True).content, template_rules) == []


async def test_what_the_guide_shows_works(stack, auth, template_rules):
    (document,) = re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)
    (preview,) = re.findall(r"```json\n(.*?)```", GUIDE, re.DOTALL)
    definition = read((ROOT / "deploy" / "agreements" / "definition.yaml").read_bytes(), yaml_text=True).content
    await stack.agree(definition)
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
            }
        ],
    }
