"""What the site of the documentation needs beside MkDocs: pages from outside docs/, links to code, and navigation by folder.

Links in Markdown are written as the repository has them. A file of docs/ keeps its place on the site, a document of the root
has a page in PAGES, and whatever else is linked gets a page that shows it; so a link to what is not there fails the build.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath
from typing import Any

from markdown import Extension, Markdown
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from mkdocs.utils import get_relative_url

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
MERMAID = "assets/mermaid.tiny.js"
_LINK = re.compile(r"(?<=\]\()[^)#\s:]+")
_LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".json": "json", ".toml": "toml"}


class ShallowLists(Extension):
    """What stands in a list is indented by two or three spaces, as CommonMark has it, not by four."""

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802 - the name is Markdown's
        md.tab_length = 2


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the pages of a folder in place of an entry that names it."""
    config.nav = _expanded(config.nav or [])
    config.markdown_extensions.append(ShallowLists())
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the documents of the root, and a page for each file outside docs/ that a document links to."""
    for name, uri in PAGES.items():
        files.append(File.generated(config, uri, content=(ROOT / name).read_text()))
    linked = {
        path for file in files.documentation_pages() for path in _linked(_origin(file.src_uri), file.content_string)
    }
    for path in sorted(linked):
        if _uri(path).startswith("source/"):
            files.append(File.generated(config, _uri(path), content=_shown(path)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Let links lead to where the site has what they name."""
    uri = page.file.src_uri
    if uri.startswith("source/"):
        return markdown
    origin = _origin(uri)

    def relinked(link: re.Match[str]) -> str:
        path = _resolved(origin, link[0])
        return relpath(_uri(path), str(PurePosixPath(uri).parent)) if (ROOT / path).exists() else link[0]

    return _LINK.sub(relinked, markdown)


def on_page_content(html: str, page: Page, **_: Any) -> str:
    """Load the program that draws diagrams where there is one; the theme would fetch it from elsewhere."""
    if 'class="mermaid"' not in html:
        return html
    return f'{html}\n<script src="{get_relative_url(MERMAID, page.url)}"></script>'


def _expanded(entry: Any) -> Any:
    match entry:
        case dict():
            return {title: _expanded(inner) for title, inner in entry.items()}
        case list():
            return [page for inner in entry for page in _pages(inner)]
        case str() if entry.endswith("/"):
            return _pages(entry)
    return entry


def _pages(entry: Any) -> list[Any]:
    if isinstance(entry, str) and entry.endswith("/"):
        return [f"{entry}{path.name}" for path in sorted((ROOT / "docs" / entry).glob("*.md"))]
    return [_expanded(entry)]


def _origin(uri: str) -> str:
    """The path in the repository of a page of the site."""
    return next((name for name, page in PAGES.items() if page == uri), f"docs/{uri}")


def _uri(path: str) -> str:
    """The page of the site for a path in the repository."""
    if path in PAGES:
        return PAGES[path]
    if path.startswith("docs/"):
        inside = path.removeprefix("docs/")
        return f"{inside}/README.md" if (ROOT / path).is_dir() else inside
    return f"source/{path}.md"


def _resolved(origin: str, link: str) -> str:
    return normpath(f"{PurePosixPath(origin).parent}/{link}")


def _linked(origin: str, markdown: str) -> Iterator[str]:
    paths = (_resolved(origin, link) for link in _LINK.findall(markdown))
    return (path for path in paths if not path.startswith("..") and (ROOT / path).exists())


def _shown(path: str) -> str:
    target = ROOT / path
    if target.is_dir():
        names = (f"{part.name}/" if part.is_dir() else part.name for part in target.iterdir())
        text = "\n".join(sorted(name for name in names if not name.startswith((".", "__pycache__"))))
    else:
        text = target.read_text()
    language = _LANGUAGES.get(target.suffix, "text")
    return f"---\nsearch: {{exclude: true}}\n---\n# `{path}`\n\n~~~~~~ {language}\n{text.rstrip()}\n~~~~~~\n"
