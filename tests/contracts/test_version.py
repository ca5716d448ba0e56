"""One release number, written in shared/accord/version.py; whatever shows a release shows that one."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from accord.contracts.schemas import CONTRACTS_VERSION
from accord.version import VERSION

ROOT = Path(__file__).parents[2]
VERSION_FILE = ROOT / "shared" / "accord" / "version.py"
MEMBERS = sorted(
    path.parent
    for pattern in ("shared", "services/*", "deploy/local")
    for path in ROOT.glob(f"{pattern}/pyproject.toml")
)
SEMVER = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?")
RELEASE_HEADING = re.compile(r"^## \[(?P<release>[^]]+)\](?: - (?P<date>\S+))?$", re.MULTILINE)
CHANGE_HEADING = re.compile(r"^### (.+)$", re.MULTILINE)


def test_release_and_contracts_version_are_semver() -> None:
    assert SEMVER.fullmatch(VERSION)
    assert SEMVER.fullmatch(CONTRACTS_VERSION)


def test_workspace_has_six_members() -> None:
    assert len(MEMBERS) == 6


@pytest.mark.parametrize("member", MEMBERS, ids=lambda path: path.name)
def test_member_reads_its_version_from_the_one_file(member: Path) -> None:
    project = tomllib.loads((member / "pyproject.toml").read_text())
    assert "version" not in project["project"]
    assert project["project"]["dynamic"] == ["version"]
    assert (member / project["tool"]["hatch"]["version"]["path"]).resolve() == VERSION_FILE
    assert version(project["project"]["name"]) == VERSION


@pytest.mark.parametrize("document", sorted((ROOT / "docs" / "api").glob("*.json")), ids=lambda path: path.stem)
def test_http_interface_names_the_release(document: Path) -> None:
    assert json.loads(document.read_text())["info"]["version"] == VERSION


def test_command_line_prints_the_release() -> None:
    command = [sys.executable, "-m", "accord_local.cli", "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == f"accord {VERSION}\n"


def test_event_document_names_the_version_of_the_contracts() -> None:
    document = yaml.safe_load((ROOT / "shared" / "schemas" / "asyncapi.yaml").read_text())
    assert document["info"]["version"] == CONTRACTS_VERSION


def test_changelog_has_the_form_of_keep_a_changelog_and_ends_its_unreleased_part_at_the_release() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    headings = [(found["release"], found["date"]) for found in RELEASE_HEADING.finditer(text)]
    assert headings[0] == ("Unreleased", None)
    assert headings[1][0] == VERSION
    assert len(re.findall("^## ", text, re.MULTILINE)) == len(headings)
    assert all(
        SEMVER.fullmatch(release) and re.fullmatch(r"\d{4}-\d\d-\d\d", date or "") for release, date in headings[1:]
    )
    assert set(CHANGE_HEADING.findall(text)) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
