"""Cursors of lists of leads. A cursor belongs to the query that made it; another query refuses it."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Any, TypeVar

from accord.http.paging import decode_cursor
from accord.http.problems import parameter_error

T = TypeVar("T")


def fingerprint(*query: object) -> str:
    """A short digest of what a list was asked for; the first part of its cursors."""
    return sha256(repr(query).encode()).hexdigest()[:16]


def decode_cursor_of(query_id: str, cursor: str | None, make: Callable[..., T], *types: type[Any]) -> T | None:
    """`make` of the place in a cursor of the query with this id, None without a cursor. Raises Problem 422 for any other."""
    values = decode_cursor(cursor, str, *types)
    if values is None:
        return None
    found, *place = values
    if found != query_id:
        raise parameter_error("cursor", "is of another query: begin without it")
    return make(*place)
