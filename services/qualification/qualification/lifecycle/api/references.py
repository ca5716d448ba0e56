"""How a caller names a lead: by its id, or as `external:SOURCE:ID` by the id that another system gave it; and its revision, by ETag."""

import re
from typing import Annotated, Any
from uuid import UUID

from fastapi import Path

from accord.contracts.external_key import external_key
from accord.http.conditional import invalid_etag
from accord.http.problems import MEDIA_TYPE, Problem, validation_error

EXTERNAL = "external:"
REFERENCE_CHARS_MAX = 700
REFERENCE_PATTERN = r"^([0-9A-Fa-f]{8}-([0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}|external:[^:]+:.+)$"
DESCRIPTION = (
    "The lead's id, or `external:SOURCE:ID`: the id that the source gave it (the source ends at the first colon)."
)
_ETAG = re.compile(r'"(\d{1,18})"')


def parse_reference(text: str) -> UUID | str | None:
    """The id, or the digest of an external id; None if the text is neither."""
    if text.startswith(EXTERNAL):
        source, _, external_id = text.removeprefix(EXTERNAL).partition(":")
        return external_key(source, external_id) if source and external_id else None
    try:
        return UUID(text) if len(text) == 36 else None
    except ValueError:
        return None


def parse_known_reference(text: str) -> UUID | str:
    """The same of a text that a model has checked."""
    found = parse_reference(text)
    if found is None:
        raise AssertionError("the model has checked it")
    return found


Reference = Annotated[
    str,
    Path(
        max_length=REFERENCE_CHARS_MAX,
        pattern=REFERENCE_PATTERN,
        description=DESCRIPTION,
        examples=["external:crm:4711"],
    ),
]

ERASED: dict[int | str, dict[str, Any]] = {
    410: {
        "description": "The person was erased; only counts are kept.",
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}},
    }
}


def require_reference(reference: str) -> UUID | str:
    """The lead's id or the digest of its external id. Raises Problem 422."""
    found = parse_reference(reference)
    if found is None:
        raise validation_error(
            "A lead is named by its id or as external:SOURCE:ID.",
            {"parameter": "lead", "message": "Must be a lead id or external:SOURCE:ID"},
        )
    return found


def lead_erased() -> Problem:
    """410 for a lead that was erased."""
    return Problem(410, "gone", "The lead was erased", "The person was erased; only counts are kept.")


def format_etag(revision: int) -> str:
    """The ETag of a lead."""
    return f'"{revision}"'


def parse_if_match(if_match: str | None) -> int | None:
    """The revision that the lead must still be at; None if it does not matter. Raises Problem 400."""
    if if_match is None or if_match.strip() == "*":
        return None
    found = _ETAG.fullmatch(if_match.strip())
    if found is None:
        raise invalid_etag()
    return int(found[1])
