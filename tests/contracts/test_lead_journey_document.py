"""docs/lead-journey.md names functions by link; each of them is in the file that the link points to."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "lead-journey.md"
NAMED = re.compile(r"\[`([A-Za-z_][\w.]*)`\]\(\.\./([^)#]+\.py)\)")
LINK = re.compile(r"\]\(([^)#:]+)\)")


def defined_in(path: Path) -> set[str]:
    """Functions and classes of a module, methods as `Class.method`."""
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.ClassDef):
            names.add(node.name)
            methods = (part for part in node.body if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef))
            names |= {f"{node.name}.{method.name}" for method in methods}
    return names


FOUND = [
    (name, path) for name, path in NAMED.findall(DOCUMENT.read_text().replace("\n   ", " ")) if not name.endswith(".py")
]


@pytest.mark.parametrize(("name", "path"), FOUND, ids=[name for name, _ in FOUND])
def test_every_function_that_the_document_names_is_where_it_says(name: str, path: str) -> None:
    assert name in defined_in(ROOT / path)


def test_the_document_names_functions_of_all_four_services_and_every_link_leads_somewhere() -> None:
    services = {path.split("/")[1] for _, path in FOUND if path.startswith("services/")}
    assert services == {"intake", "qualification", "sla-monitor", "metrics"}
    broken = [link for link in LINK.findall(DOCUMENT.read_text()) if not (DOCUMENT.parent / link).exists()]
    assert broken == []
