"""What a base URL of a tool or of ourselves is: scheme and host, with a path if need be; no query, no user, no password."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, StringConstraints


def _base(text: str) -> str:
    try:
        parts = urlsplit(text)
        port_is_one = parts.port is None or parts.port > 0
    except ValueError:
        raise ValueError("must be an http or https URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_one or not text.isascii():
        raise ValueError("must be an http or https URL")
    if parts.query or parts.fragment or "@" in parts.netloc or "?" in text or "#" in text:
        raise ValueError("must have neither a query, a fragment nor a user")
    return text.rstrip("/")


BaseUrl = Annotated[str, StringConstraints(max_length=500, strip_whitespace=True), AfterValidator(_base)]
"""A URL to which paths are appended."""
