"""Cursors of lists of leads. A cursor belongs to the query that made it; another query refuses it."""

from __future__ import annotations

from hashlib import sha256

from accord.http.problems import parameter_error


def fingerprint(*query: object) -> str:
    """A short digest of what a list was asked for."""
    return sha256(repr(query).encode()).hexdigest()[:16]


def require_same_query(found: str, expected: str) -> None:
    """Raises Problem 422 unless the cursor is of this query."""
    if found != expected:
        raise parameter_error("cursor", "is of another query: begin without it")
