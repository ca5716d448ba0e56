"""Lists in pages: `?limit=` and an opaque `?cursor=`, answered `{"items", "next_cursor"}`. A cursor is a place, not a secret."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar, overload
from uuid import UUID

import orjson
from fastapi import Query
from pydantic import BaseModel, Field, TypeAdapter

from accord.contracts.values import Timestamp
from accord.http.problems import validation_error

T = TypeVar("T")
Part = str | int | datetime | UUID
"""What a place is made of."""
A = TypeVar("A", str, int, datetime, UUID)
B = TypeVar("B", str, int, datetime, UUID)
C = TypeVar("C", str, int, datetime, UUID)

LIMIT_MAX = 500
_CURSOR_CHARS_MAX = 1_000
_MOMENT: TypeAdapter[datetime] = TypeAdapter(Timestamp)

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


def encode_cursor(*place: Part) -> str:
    """A cursor for the place after which the next page begins."""
    return base64.urlsafe_b64encode(orjson.dumps(place, default=str)).rstrip(b"=").decode()


@overload
def decode_cursor(cursor: str | None, one: type[A], /) -> tuple[A] | None: ...
@overload
def decode_cursor(cursor: str | None, one: type[A], two: type[B], /) -> tuple[A, B] | None: ...
@overload
def decode_cursor(cursor: str | None, one: type[A], two: type[B], three: type[C], /) -> tuple[A, B, C] | None: ...
@overload
def decode_cursor(cursor: str | None, *types: type[Any]) -> tuple[Any, ...] | None: ...
def decode_cursor(cursor: str | None, *types: type[Any]) -> tuple[Any, ...] | None:
    """The place in a cursor, None without one. Raises Problem 422 for anything that `encode_cursor` did not make of `types`."""
    if cursor is None:
        return None
    try:
        if len(cursor) > _CURSOR_CHARS_MAX:
            raise ValueError
        place = orjson.loads(base64.b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4), b"-_", validate=True))
        if not isinstance(place, list) or len(place) != len(types):
            raise ValueError
        return tuple(_parse_part(item, kind) for item, kind in zip(place, types, strict=True))
    except ValueError:
        message = "Not a cursor of this list"
        raise validation_error(
            "The cursor is not one of this list.", {"parameter": "cursor", "message": message}
        ) from None


def decode_single_cursor(cursor: str | None, kind: type[A]) -> A | None:
    """The place in a cursor of a single part, None without one. Raises Problem 422 as `decode_cursor` does."""
    place = decode_cursor(cursor, kind)
    return None if place is None else place[0]


def _parse_part(item: object, kind: type[Part]) -> Part:
    """One part as its type. Raises ValueError."""
    if kind is int:
        if isinstance(item, int) and not isinstance(item, bool) and abs(item) < 2**63:
            return item
        raise ValueError
    if not isinstance(item, str) or "\x00" in item:
        raise ValueError
    if kind is UUID:
        return UUID(item)
    return _MOMENT.validate_python(item) if kind is datetime else item


def make_page(
    items: list[T], limit: int, cursor_of: Callable[[T], Part | tuple[Part, ...]]
) -> tuple[list[T], str | None]:
    """A page from `limit + 1` rows, with the cursor of its last item if there is more. `cursor_of(item)` gives the place."""
    if len(items) <= limit:
        return items, None
    kept = items[:limit]
    place = cursor_of(kept[-1])
    return kept, encode_cursor(*(place if isinstance(place, tuple) else (place,)))
