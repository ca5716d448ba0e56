"""An agreement on paper: a printable page and Markdown, from the same parts. Every word of a content is escaped."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template, select_autoescape
from msgspec import Struct

from accord.agreements.store import Section, StoredVersion
from accord.contracts.values import Department

HEADERS: Mapping[str, str] = {
    # The page needs its own style and nothing else; no script of a content could ever run.
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'",
    "Cache-Control": "private, no-cache",
}

_KIND_TITLES = {
    "policy": "Data policy",
    "definition": "Lead definition",
    "sla": "Service level agreement",
    "plan": "Plan",
}
_DEPARTMENTS: tuple[Department, ...] = ("marketing", "sales")
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+!|<>~])")


def render_page(kind: str, title: str, standing: str, sections: Sequence[Section]) -> str:
    """A page of the same look that nobody signs."""
    return _template("page").render(kind=kind, title=title, standing=standing, sections=sections)


def render_html(kind: str, stored: StoredVersion, sections: Sequence[Section]) -> str:
    """The page, complete with its print style."""
    return _template("paper").render(
        kind=_KIND_TITLES.get(kind, kind),
        title=stored.title,
        version=stored.state.version,
        status=stored.state.status,
        standing=_describe_status(stored),
        sections=sections,
        glossary=_make_glossary_rows(stored.content),
        blocks=_make_signature_blocks(stored),
        sha256=stored.state.content_sha256,
        drafted=f"{stored.drafted_by}, {_format_time(stored.drafted_at)}",
        proposed=f"{stored.state.proposed_by}, {_format_time(stored.state.proposed_at)}"
        if stored.state.proposed_by
        else None,
    )


def render_markdown(kind: str, stored: StoredVersion, sections: Sequence[Section]) -> str:
    """The same in Markdown."""
    about = f"{_KIND_TITLES.get(kind, kind)}, version {stored.state.version}."
    lines = [
        f"# {_escape_markdown(stored.title)}",
        "",
        f"{about} **{stored.state.status.capitalize()}.** {_describe_status(stored)}",
        "",
    ]
    for section in sections:
        lines += [f"## {_escape_markdown(section.heading)}", ""]
        for paragraph in section.paragraphs:
            lines += [_escape_markdown(paragraph), ""]
        lines += _render_markdown_table(section)
    glossary = _make_glossary_rows(stored.content)
    if glossary:
        lines += [
            "## Glossary",
            "",
            *(f"- **{_escape_markdown(word)}**: {_escape_markdown(meaning)}" for word, meaning in glossary),
            "",
        ]
    signatures = Section(
        "Signatures",
        columns=("Department", "Signed by", "Time", "SHA-256 of the signed content"),
        rows=[
            (b.department, b.signed_by or "not signed", b.signed_at or "", b.sha256 or "")
            for b in _make_signature_blocks(stored)
        ],
    )
    lines += ["## Signatures", "", *_render_markdown_table(signatures)]
    lines += [f"SHA-256 of this content (RFC 8785): `{stored.state.content_sha256}`", ""]
    return "\n".join(lines)


class SignatureBlock(Struct, frozen=True):
    """One department's signature block; empty until it has signed."""

    department: str
    signed_by: str | None = None
    signed_at: str | None = None
    sha256: str | None = None


def _make_signature_blocks(stored: StoredVersion) -> list[SignatureBlock]:
    blocks = []
    for department in _DEPARTMENTS:
        signature = stored.state.signatures.get(department)
        if signature is None:
            blocks.append(SignatureBlock(department.capitalize()))
        else:
            at = _format_time(signature.signed_at)
            blocks.append(SignatureBlock(department.capitalize(), signature.signed_by, at, signature.content_sha256))
    return blocks


def _describe_status(stored: StoredVersion) -> str:
    """What the version's status means now, in a sentence that stands after the status."""
    state = stored.state
    if state.status == "draft":
        return "It binds nobody."
    if state.status == "withdrawn":
        return f"Taken back on {_format_time(state.withdrawn_at)}; it binds nobody."
    if state.status == "active":
        return f"In force since {_format_time(state.active_from)}."
    if state.status == "superseded":
        return f"It was in force from {_format_time(state.active_from)} to {_format_time(state.superseded_at)}."
    if state.fully_signed:
        return f"Signed by both departments, in force from {_format_time(state.effective_at)}."
    missing = " and ".join(department for department in _DEPARTMENTS if department not in state.signatures)
    return f"It waits for the signature of {missing}."


def _make_glossary_rows(content: Mapping[str, object]) -> list[tuple[str, str]]:
    glossary = content.get("glossary")
    return [(str(word), str(meaning)) for word, meaning in glossary.items()] if isinstance(glossary, Mapping) else []


def _format_time(at: datetime | None) -> str:
    return at.astimezone(UTC).strftime("%d %B %Y, %H:%M UTC").lstrip("0") if at is not None else ""


def _escape_markdown(value: str) -> str:
    return " ".join(_MARKDOWN.sub(r"\\\1", value).split())


def _render_markdown_table(section: Section) -> list[str]:
    if not section.rows:
        return []
    width = max(len(section.columns), *(len(row) for row in section.rows))
    columns = [*section.columns, *[""] * (width - len(section.columns))]
    lines = ["| " + " | ".join(_escape_markdown(cell) for cell in columns) + " |", "|" + " --- |" * width]
    lines += [
        "| " + " | ".join(_escape_markdown(cell) for cell in [*row, *[""] * (width - len(row))]) + " |"
        for row in section.rows
    ]
    return [*lines, ""]


@cache
def _template(name: str) -> Template:
    environment = Environment(
        loader=PackageLoader("accord.agreements"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(f"{name}.html.jinja")
