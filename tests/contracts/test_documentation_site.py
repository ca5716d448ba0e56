"""The documentation builds as a site: every link leads somewhere, diagrams are drawn, and nothing is fetched from elsewhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FETCHED = re.compile(r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=\"?(?:https?:)?//[^>]*>")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SMALL = """
site_name: small
theme: {name: mkdocs, highlightjs: false, locale: en}
plugins: []
hooks: [docs/hooks.py]
exclude_docs: hooks.py
nav: [index.md, guides/]
not_in_nav: |
  /*.md
  source/
"""


def build(project: Path, site: Path) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--config-file",
        project / "mkdocs.yml",
        "--site-dir",
        site,
    ]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("site")
    built = build(ROOT, directory)
    assert built.returncode == 0, built.stderr
    return directory


def test_every_document_has_a_page(site: Path) -> None:
    documents = [path for path in (ROOT / "docs").rglob("*.md") if path.name != "README.md"]
    assert documents
    for document in documents:
        assert (site / document.relative_to(ROOT / "docs").with_suffix(".html")).is_file(), document
    for page in ("index", "changelog", "contributing", "security", "adr/index"):
        assert (site / f"{page}.html").is_file(), page


def test_no_page_fetches_anything_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        assert FETCHED.findall(page.read_text()) == [], page


@pytest.mark.parametrize("page", ["index.html", "lead-journey.html"])
def test_page_with_a_diagram_loads_the_program_that_draws_it(site: Path, page: str) -> None:
    text = (site / page).read_text()
    assert '<pre class="mermaid">' in text
    assert '<script src="assets/mermaid.tiny.js">' in text
    assert (site / "assets" / "mermaid.tiny.js").is_file()


def test_link_to_code_leads_to_a_page_that_shows_the_code(site: Path) -> None:
    assert 'href="source/shared/accord/batching.py.html"' in (site / "lead-journey.html").read_text()
    assert "GroupCommit" in (site / "source" / "shared" / "accord" / "batching.py.html").read_text()


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A project with one document of each kind, and the hooks of this one."""
    (tmp_path / "docs" / "guides").mkdir(parents=True)
    (tmp_path / "code").mkdir()
    shutil.copy(ROOT / "docs" / "hooks.py", tmp_path / "docs")
    (tmp_path / "mkdocs.yml").write_text(SMALL)
    for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"):
        (tmp_path / name).write_text("# Title\n\n[guide](docs/guides/one.md) [code](code/there.py)\n")
    (tmp_path / "code" / "there.py").write_text("there = 1\n")
    (tmp_path / "docs" / "guides" / "one.md").write_text(
        "# One\n\n[code](../../code/there.py) [readme](../../README.md)\n"
    )
    return tmp_path


def test_links_across_the_border_of_docs_are_kept(small: Path) -> None:
    built = build(small, small / "site")
    assert built.returncode == 0, built.stderr
    assert (small / "site" / "source" / "code" / "there.py" / "index.html").is_file()


@pytest.mark.parametrize("link", ["../../code/missing.py", "two.md", "../../MISSING.md"])
def test_broken_link_fails_the_build(small: Path, link: str) -> None:
    (small / "docs" / "guides" / "one.md").write_text(f"# One\n\n[there](../../code/there.py) [missing]({link})\n")
    built = build(small, small / "site")
    assert built.returncode == 1
    assert link in built.stderr
