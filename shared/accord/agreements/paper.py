"""An agreement on paper: a printable page and Markdown, from the same parts. Every word of a content is escaped."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template, select_autoescape

from accord.agreements.store import Section, StoredVersion
from accord.contracts.values import Department

HEADERS: Mapping[str, str] = {
    # The page needs its own style and nothing else; no script of a content could ever run.
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'",
    "Cache-Control": "private, no-cache",
}

_KIND_WORDS = {
    "policy": "Data policy",
    "definition": "Lead definition",
    "sla": "Service level agreement",
    "plan": "Plan",
}
_DEPARTMENTS: tuple[Department, ...] = ("marketing", "sales")
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+!|<>~])")


def html(kind: str, stored: StoredVersion, sections: Sequence[Section]) -> str:
    """The page, complete with its print style."""
    return _template().render(
        kind=_KIND_WORDS.get(kind, kind),
        title=stored.title,
        version=stored.state.version,
        status=stored.state.status,
        standing=_standing(stored),
        sections=sections,
        glossary=_glossary(stored.content),
        blocks=_blocks(stored),
        sha256=stored.state.content_sha256,
        drafted=f"{stored.drafted_by}, {_moment(stored.drafted_at)}",
        proposed=f"{stored.state.proposed_by}, {_moment(stored.state.proposed_at)}"
        if stored.state.proposed_by
        else None,
    )


def markdown(kind: str, stored: StoredVersion, sections: Sequence[Section]) -> str:
    """The same in Markdown."""
    about = f"{_KIND_WORDS.get(kind, kind)}, version {stored.state.version}."
    lines = [f"# {_md(stored.title)}", "", f"{about} **{stored.state.status.capitalize()}.** {_standing(stored)}", ""]
    for section in sections:
        lines += [f"## {_md(section.heading)}", ""]
        for paragraph in section.paragraphs:
            lines += [_md(paragraph), ""]
        lines += _md_table(section)
    glossary = _glossary(stored.content)
    if glossary:
        lines += ["## Glossary", "", *(f"- **{_md(word)}**: {_md(meaning)}" for word, meaning in glossary), ""]
    signatures = Section(
        "Signatures",
        columns=("Department", "Signed by", "Time", "SHA-256 of the signed content"),
        rows=[(b.department, b.signed_by or "not signed", b.signed_at or "", b.sha256 or "") for b in _blocks(stored)],
    )
    lines += ["## Signatures", "", *_md_table(signatures)]
    lines += [f"SHA-256 of this content (RFC 8785): `{stored.state.content_sha256}`", ""]
    return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Block:
    """One department's signature block; empty until it has signed."""

    department: str
    signed_by: str | None = None
    signed_at: str | None = None
    sha256: str | None = None


def _blocks(stored: StoredVersion) -> list[Block]:
    blocks = []
    for department in _DEPARTMENTS:
        signature = stored.state.signatures.get(department)
        if signature is None:
            blocks.append(Block(department.capitalize()))
        else:
            at = _moment(signature.signed_at)
            blocks.append(Block(department.capitalize(), signature.signed_by, at, signature.content_sha256))
    return blocks


def _standing(stored: StoredVersion) -> str:
    """What the version's status means now, in a sentence that stands after the status."""
    state = stored.state
    if state.status == "draft":
        return "It binds nobody."
    if state.status == "withdrawn":
        return f"Taken back on {_moment(state.withdrawn_at)}; it binds nobody."
    if state.status == "active":
        return f"In force since {_moment(state.active_from)}."
    if state.status == "superseded":
        return f"It was in force from {_moment(state.active_from)} to {_moment(state.superseded_at)}."
    if state.fully_signed:
        return f"Signed by both departments, in force from {_moment(state.effective_at)}."
    missing = " and ".join(department for department in _DEPARTMENTS if department not in state.signatures)
    return f"It waits for the signature of {missing}."


def _glossary(content: Mapping[str, object]) -> list[tuple[str, str]]:
    glossary = content.get("glossary")
    return [(str(word), str(meaning)) for word, meaning in glossary.items()] if isinstance(glossary, Mapping) else []


def _moment(at: datetime | None) -> str:
    return at.astimezone(UTC).strftime("%d %B %Y, %H:%M UTC").lstrip("0") if at is not None else ""


def _md(value: str) -> str:
    return " ".join(_MARKDOWN.sub(r"\\\1", value).split())


def _md_table(section: Section) -> list[str]:
    if not section.rows:
        return []
    width = max(len(section.columns), *(len(row) for row in section.rows))
    columns = [*section.columns, *[""] * (width - len(section.columns))]
    lines = ["| " + " | ".join(_md(cell) for cell in columns) + " |", "|" + " --- |" * width]
    lines += [
        "| " + " | ".join(_md(cell) for cell in [*row, *[""] * (width - len(row))]) + " |" for row in section.rows
    ]
    return [*lines, ""]


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("accord.agreements"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("paper.html.jinja")
