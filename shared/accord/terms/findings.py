"""What is wrong with a document that somebody wrote, each with its place: the one form in which all four services say it.

It looks at shapes only; what a document means, its own service checks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pydantic import ValidationError


class Finding(NamedTuple):
    """One thing that is wrong: a JSON Pointer into the document, and what is wrong there."""

    pointer: str
    message: str


def pointer(*parts: object) -> str:
    """The JSON Pointer (RFC 6901) of a path."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def find_shape_errors(error: ValidationError, document: object) -> list[Finding]:
    """What pydantic found in a document, each place once."""
    findings: dict[str, Finding] = {}
    for problem in error.errors(include_url=False, include_input=False):
        place = pointer(*document_path(document, problem["loc"], missing=problem["type"] == "missing"))
        message = (
            "unknown key" if problem["type"] == "extra_forbidden" else problem["msg"].removeprefix("Value error, ")
        )
        context = problem.get("ctx", {})
        if problem["type"] == "union_tag_invalid" and str(context["discriminator"]).startswith("'"):
            place += pointer(context["discriminator"].strip("'"))
            message = f"must be one of {context['expected_tags']}"
        findings.setdefault(place, Finding(place, message))
    return list(findings.values())


def document_path(document: object, loc: Sequence[int | str], *, missing: bool) -> list[int | str]:
    """The parts of pydantic's location that are places of this document: it also names the branches of unions, which are none.

    `missing`: the last part is not there, which is what is wrong. Without a document that could have parts, all are kept.
    """
    if not isinstance(document, Mapping | list):
        return list(loc)
    parts: list[int | str] = []
    node: object = document
    for number, part in enumerate(loc):
        found, below = _find_member(node, part)
        if found:
            node = below
        elif not missing or number < len(loc) - 1:
            continue
        parts.append(part)
    return parts


def _find_member(node: object, part: int | str) -> tuple[bool, object]:
    if isinstance(node, Mapping) and part in node:
        return True, node[part]
    if isinstance(node, list) and isinstance(part, int) and 0 <= part < len(node):
        return True, node[part]
    return False, None
