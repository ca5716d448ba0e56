"""How a caller names a lead: by its id, or as `external:SOURCE:ID` by the id that another system gave it."""

from __future__ import annotations

from uuid import UUID

from accord.contracts.external_key import external_key

EXTERNAL = "external:"
REFERENCE_CHARS_MAX = 700
REFERENCE_PATTERN = r"^([0-9A-Fa-f]{8}-([0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}|external:[^:]+:.+)$"
DESCRIPTION = (
    "The lead's id, or `external:SOURCE:ID`: the id that the source gave it (the source ends at the first colon)."
)


def parse_reference(text: str) -> UUID | str | None:
    """The id, or the digest of an external id; None if the text is neither."""
    if text.startswith(EXTERNAL):
        source, _, external_id = text.removeprefix(EXTERNAL).partition(":")
        return external_key(source, external_id) if source and external_id else None
    try:
        return UUID(text) if len(text) == 36 else None
    except ValueError:
        return None
