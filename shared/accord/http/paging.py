"""Lists in pages: `?limit=` and an opaque `?cursor=`, answered `{"items", "next_cursor"}`. A cursor is a place, not a secret."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Annotated, Generic, TypeVar

import orjson
from fastapi import Query
from pydantic import BaseModel, Field

from accord.http.problems import Problem

T = TypeVar("T")

LIMIT_MAX = 500
_CURSOR_CHARS_MAX = 1_000

Limit = Annotated[int, Query(ge=1, le=LIMIT_MAX, description="Items a page.")]
"""`limit: Limit = 50` in a FastAPI route."""

CursorText = Annotated[
    str | None, Query(max_length=_CURSOR_CHARS_MAX, description="`next_cursor` of the page before; opaque.")
]
"""`cursor: CursorText = None` in a FastAPI route."""


class Page(BaseModel, Generic[T]):
    """One page; `next_cursor` is null on the last."""

    items: list[T]
    next_cursor: str | None = Field(
        default=None, description="Hand it in as `cursor` for the next page; null on the last."
    )


def encode_cursor(*place: str | int | float | None) -> str:
    """A cursor for the place after which the next page begins."""
    return base64.urlsafe_b64encode(orjson.dumps(place)).rstrip(b"=").decode()


def decode_cursor(cursor: str | None, *types: type) -> tuple[object, ...] | None:
    """The place in a cursor, None without one. Raises Problem 422 for anything that `encode_cursor` did not make of `types`."""
    if cursor is None:
        return None
    try:
        if len(cursor) > _CURSOR_CHARS_MAX:
            raise ValueError
        place = orjson.loads(base64.b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4), b"-_", validate=True))
        if not isinstance(place, list) or len(place) != len(types):
            raise ValueError
        if any(isinstance(item, bool) or not isinstance(item, kind) for item, kind in zip(place, types, strict=True)):
            raise ValueError
        if any(isinstance(item, int) and abs(item) >= 2**63 for item in place):
            raise ValueError
        if any(isinstance(item, str) and "\x00" in item for item in place):
            raise ValueError
    except ValueError:
        raise Problem(
            422,
            "validation-failed",
            "The request does not fit",
            "The cursor is not one of this list.",
            errors=[{"parameter": "cursor", "message": "Not a cursor of this list"}],
        ) from None
    return tuple(place)


def page_of(
    items: list[T], limit: int, cursor_of: Callable[[T], str | int | tuple[str | int, ...]]
) -> tuple[list[T], str | None]:
    """A page from `limit + 1` rows, with the cursor of its last item if there is more. `cursor_of(item)` gives the place."""
    if len(items) <= limit:
        return items, None
    kept = items[:limit]
    place = cursor_of(kept[-1])
    return kept, encode_cursor(*(place if isinstance(place, tuple) else (place,)))
