"""Every decision record has the form of the template, and the index lists all of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

RECORDS = Path(__file__).resolve().parents[2] / "docs" / "adr"
FILES = sorted(RECORDS.glob("0*.md"))
FORM = re.compile(
    r"# (?P<number>\d+)\. (?P<title>[^\n]+)\n\nStatus: (?P<status>accepted|superseded by [^\n]+) · (?P<date>\d{4}-\d\d-\d\d)\n\n"
    r"## Context\n.+\n## Decision\n.+\n## Consequences\n.+",
    re.DOTALL,
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name[:4])
def test_record_has_the_form_of_the_template(path: Path) -> None:
    found = FORM.fullmatch(path.read_text())
    assert found, f"{path.name} differs from docs/adr/template.md"
    assert int(found["number"]) == int(path.name[:4])


def test_index_lists_every_record_with_its_title_and_status() -> None:
    rows = [line for line in (RECORDS / "README.md").read_text().splitlines() if line.startswith("| ")][2:]
    expected = []
    for path in FILES:
        found = FORM.fullmatch(path.read_text())
        assert found
        expected.append(
            f"| {found['number']} | [{found['title']}]({path.name}) | {found['status']} | {found['date']} |"
        )
    assert rows == expected
